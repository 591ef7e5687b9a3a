// Rooms, and in which shards their members are. For each shard also the handles by which the link names rooms.
//
// Lives on the hub's thread. Invariants:
//   * a room is here exactly while it has a member;
//   * a handle belongs to one attach: ForgetHandles at a new attach, and HandleOf gives rooms new ones as they are bound;
//   * a handle is free again when the last member of that shard has left.
// Does not know which connection is in which room: ConnectionTable does.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "absl/types/span.h"
#include "core/interned.h"

namespace presence::core {

using RoomIndex = StrongId<struct RoomIndexTag, uint32_t>;
using ShardIndex = StrongId<struct ShardIndexTag, uint32_t>;

// The members of one room in one shard.
struct RoomShard {
  ShardIndex shard;
  uint32_t handle = 0;  // 0: nobody is bound in the present attach
  uint32_t members = 0;
};

struct Room {
  std::string id;
  absl::InlinedVector<RoomShard, 2> shards;  // in the order in which they came
};

class RoomTable {
 public:
  // One more member. The room comes into being with its first one.
  RoomIndex AddMember(std::string_view room_id, ShardIndex shard);
  // One less: the last one takes the handle and the room with it.
  void RemoveMember(RoomIndex room, ShardIndex shard);

  // REQUIRES: a member in that shard. Never 0.
  uint32_t HandleOf(RoomIndex room, ShardIndex shard);
  void ForgetHandles(ShardIndex shard);

  // Nothing when nobody here is in it.
  std::optional<RoomIndex> Find(std::string_view room_id) const { return rooms_.Find(room_id); }
  const std::string& id(RoomIndex room) const { return rooms_[room].id; }
  absl::Span<const RoomShard> shards(RoomIndex room) const { return rooms_[room].shards; }

  size_t size() const { return rooms_.size(); }
  size_t memberships() const { return memberships_; }

 private:
  struct Handles {
    std::vector<RoomIndex> rooms;  // by handle - 1; of a free handle: meaningless
    std::vector<uint32_t> free;
  };

  Handles& HandlesOf(ShardIndex shard);

  Interned<Room, RoomIndexTag> rooms_;
  std::vector<Handles> handles_;  // by shard
  size_t memberships_ = 0;
};

}  // namespace presence::core
