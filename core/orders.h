// Orders of the API to connections of this core that are not carried out yet: closes, forced leaves, statuses.
//
// Lives on the hub's thread. A batch is one order of one core, a target one connection that it concerns. A target is done when its shard
// has said so, or that the connection is gone, by whatever cause; a batch when all its targets are, or when its deadline has
// passed: then nothing is taken back. A target whose shard has moved to another core is over, and its batch not complete: the other
// core may have answered before it knew the connection. Bounded by targets_max. An order is kept until it is done, so that it can be
// given again after a resync: it overrides what the shard declares. Does not find connections and sends no command.
#pragma once

#include <chrono>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/container/btree_set.h"
#include "absl/types/span.h"
#include "common/time.h"
#include "core/store.h"
#include "presence/link/v1/link.pb.h"

namespace presence::core {

struct OrderCommand {
  enum class Kind : uint8_t { kClose, kLeave, kStatus };
  Kind kind = Kind::kClose;
  uint32_t code = 0;                             // kClose
  std::string text;                              // kClose: the reason; kLeave: the room
  Status status = link::v1::STATUS_UNSPECIFIED;  // kStatus
};

// Who has ordered.
struct OrderOrigin {
  uint64_t core = 0;
  uint64_t id = 0;
};

struct OrderResult {
  OrderOrigin origin;
  uint32_t count = 0;     // targets that have carried it out
  bool complete = false;  // false: not all, in time, or as far as this core can know
};

class Orders {
 public:
  explicit Orders(size_t targets_max) : targets_max_(targets_max) {}

  bool HasRoomFor(size_t targets) const { return targets_.size() + targets <= targets_max_; }

  // REQUIRES: HasRoomFor(targets). A connection is named once.
  void Add(OrderOrigin origin, OrderCommand command, SteadyTime deadline, absl::Span<const ConnectionKey> targets);

  // --- what is heard of connections. Cheap while nothing is ordered.
  void Gone(const ConnectionKey& connection);  // its shard has said so, in whatever way
  void Left(const ConnectionKey& connection, std::string_view room_id);
  void HasStatus(const ConnectionKey& connection, Status status);
  void Moved(const ConnectionKey& connection);  // its shard, to another core
  // What it has not carried out, oldest first. `use` changes nothing here.
  template <typename Use>
  void ForEachOf(const ConnectionKey& connection, Use use) const {
    for (auto it = FirstOf(connection); it != targets_.end() && it->IsOf(connection); ++it) {
      use(batches_.at(it->batch).command);
    }
  }

  // Its client is to be closed.
  bool Closes(const ConnectionKey& connection) const {
    bool closes = false;
    ForEachOf(connection,
              [&closes](const OrderCommand& command) { closes |= command.kind == OrderCommand::Kind::kClose; });
    return closes;
  }

  void OnTick(SteadyTime now);
  bool HasFinished() const { return !finished_.empty(); }
  std::optional<OrderResult> TakeFinished();

  size_t size() const { return targets_.size(); }

 private:
  struct Batch {
    OrderOrigin origin;
    OrderCommand command;
    SteadyTime deadline;
    std::vector<ConnectionKey> connections;  // done or not
    size_t open = 0;
    uint32_t count = 0;
    bool moved = false;  // one of them
  };
  struct Target {
    uint64_t incarnation = 0, connection = 0;
    uint64_t batch = 0;
    friend auto operator<=>(const Target&, const Target&) = default;
    bool IsOf(const ConnectionKey& key) const { return incarnation == key.incarnation && connection == key.connection; }
  };
  using Targets = absl::btree_set<Target>;

  Targets::const_iterator FirstOf(const ConnectionKey& connection) const {
    return targets_.lower_bound(Target{connection.incarnation, connection.connection, 0});
  }
  // Ends the targets of this connection for which `outcome` says so: 1 counts, 0 does not, nothing: it stays.
  template <typename Outcome>
  void End(const ConnectionKey& connection, Outcome outcome);
  void Finish(uint64_t number, bool complete);

  const size_t targets_max_;
  Targets targets_;
  absl::btree_map<uint64_t, Batch> batches_;  // by number: in the order of their coming, and of their deadlines
  uint64_t last_batch_ = 0;
  std::deque<OrderResult> finished_;
};

}  // namespace presence::core
