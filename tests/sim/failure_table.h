// The failure table of the design, row by row, in virtual time: in a world at rest one thing fails, and the last watcher must know the
// truth within the row's bound. Nobody whose connection lives through it is shown offline to anybody.
//
// Bounds are the table's, with the heartbeat interval of the simulation; on top comes what this world adds by itself: the delays of
// its network and its Redis, and the pace at which it tells presence. The network is quick meanwhile.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "tests/sim/scheduler.h"
#include "tests/sim/session.h"

namespace presence::sim {

class Client;
class EdgeProcess;
class World;

enum class FailureRow : uint8_t { kClient, kEdge, kEdgeHost, kLink, kCore, kCoreAndEdge, kRedis };
constexpr size_t kFailureRows = 7;
constexpr const char* kFailureRowNames[kFailureRows] = {
    "a client, silently", "an edge process",        "an edge's host", "a link", "a core",
    "core and edge",      "Redis, after its return"};

// From a failure to the last watcher who knows.
struct FailureTimes {
  struct Row {
    uint64_t runs = 0;
    SimTime worst{0};
    SimTime bound{0};  // with what the world adds, where it was the worst
  };
  std::array<Row, kFailureRows> rows;

  void Add(const FailureTimes& other);
};

class FailureTable {
 public:
  explicit FailureTable(World& world) : world_(world) {}

  // One row, by random. The world is at rest before, and after.
  void Probe();
  // Somebody is shown that user as offline.
  void OnShownOffline(const std::string& user_id) { shown_offline_.insert(user_id); }
  const FailureTimes& times() const { return times_; }

 private:
  struct Failure {
    SimTime bound{0};
    SimTime since{0};  // from then on it counts
  };

  Failure Cause(FailureRow row);
  void CrashEdgeFor(size_t index, bool host);
  void CrashCoreFor(size_t index, bool host);
  enum class Move : uint8_t { kOther, kLowersStatus };
  Move StopRedis();
  // Somebody who is not concerned changes his status, or goes, while something is amiss.
  Move SomebodyMoves();
  SimTime Slack() const;
  // Who does not know the truth yet; empty: all do.
  std::string Amiss() const;
  void Restore();

  World& world_;
  FailureTimes times_;
  std::set<std::string> shown_offline_;
  std::map<std::string, std::string> truth_before_;
};

}  // namespace presence::sim
