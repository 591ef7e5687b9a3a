// A backend that holds a WatchPresence stream: to everybody, or to some users, at one core; at another one, with its resume_version,
// when that core is gone. What it was told is held against the truth at every quiet point, and versions may only grow.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "core/watches.h"
#include "tests/sim/core_node.h"

namespace presence::sim {

class World;

class Watcher final : private core::WatchReader {
 public:
  Watcher(World& world, std::vector<std::string> user_ids) : world_(world), user_ids_(std::move(user_ids)) {}

  // Opens its stream wherever there is a core, until the end.
  void Start() { Look(); }
  // The stream ends from its side.
  void Leave();
  bool Watches(const std::string& user_id) const;
  // As it was told; "" while it has not been told all that it must be told first.
  std::string Believes(const std::string& user_id) const;

 private:
  void OnReady() override;
  void OnEnded(const absl::Status& why, bool slow) override;

  void Look();
  void Open(const std::shared_ptr<CoreProcess>& core);
  void Take(const core::WatchUpdate& update);
  void Forget();

  struct Known {
    std::string status;
    uint64_t version = 0;
  };

  World& world_;
  const std::vector<std::string> user_ids_;  // empty: everybody
  std::shared_ptr<CoreProcess> core_;        // null: no stream is open
  core::WatcherId id_;
  uint64_t resume_version_ = 0;
  uint64_t told_resume_version_ = 0;  // by this stream
  bool told_first_ = false;           // the snapshot, or what it resumed with
  std::set<std::string> in_snapshot_;
  std::map<std::string, Known> known_;
};

}  // namespace presence::sim
