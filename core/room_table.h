// Rooms: their members, and in which shards these are. For each shard also the handles by which the link names rooms.
//
// Lives on the hub's thread. Invariants:
//   * a room is here exactly while it has a member;
//   * `state` of a room is of this table alone: no two changes, of one room or of several, ever have the same;
//   * a handle belongs to one attach, and so does a position: ForgetHandles at a new attach, and HandleOf gives rooms new ones as they
//     are bound;
//   * a handle is free again when the last member of that shard has left.
// Does not know in which rooms a connection is: ConnectionTable does, and keeps both sides in step.
//
// What it costs: 248 B for each room, and the text of an id of more than 15 bytes: 232 of the row, some 5 in the hash, some 6 in the order;
// 4 B for each member beyond the fourth, up to 8 just after the list has grown.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/btree_set.h"
#include "absl/container/inlined_vector.h"
#include "absl/functional/function_ref.h"
#include "absl/types/span.h"
#include "core/interned.h"
#include "core/room_position.h"

namespace presence::core {

using RoomIndex = StrongId<struct RoomIndexTag, uint32_t>;
using ShardIndex = StrongId<struct ShardIndexTag, uint32_t>;
using ConnectionIndex = StrongId<struct ConnectionIndexTag, uint32_t>;

inline constexpr ConnectionIndex kNoConnection{UINT32_MAX};

// One connection in one room, as the connection keeps it: members(room)[position] is the connection.
struct Membership {
  RoomIndex room;
  uint32_t position = 0;
};

// The members of one room in one shard.
struct RoomShard {
  ShardIndex shard;
  uint32_t handle = 0;  // 0: nobody is bound in the present attach
  uint32_t members = 0;
  // What the bus brings is left to the log, from `position` on.
  bool behind = false;
  // Its members may have missed what was in front of `position`, and have not been told.
  bool unsure = false;
  // Of the room's log: up to here all was handed to the shard in the present attach, or it has said that it had it before. Not known: it has
  // been promised nothing yet.
  RoomPosition position;

  // It is left from an earlier attach, by members of whom this one has said nothing: as good as none.
  bool IsUnbound() const { return handle == 0 && !position.known(); }
};

// What a core knows of a room's log.
struct RoomHeard {
  RoomPosition position;  // of what the bus, or a read, has brought last; not known: nothing since the bus stands
  RoomPosition furthest;  // that anybody has named here, while the room was here
};

struct Room {
  std::string id;
  absl::InlinedVector<RoomShard, 2> shards;         // in the order in which they came
  absl::InlinedVector<ConnectionIndex, 4> members;  // in no order: the last one fills a gap
  uint64_t state = 0;                               // of the last change of its members
  uint64_t born = 0;                                // the state when the first of them came
  RoomHeard heard;
};

class RoomTable {
 public:
  RoomTable() = default;

  // One more member. The room comes into being with its first one. REQUIRES: not in it.
  Membership AddMember(std::string_view room_id, ShardIndex shard, ConnectionIndex member);
  // One less: the last one takes the handle and the room with it. Another member may have to take the free position: that one is
  // returned, and its Membership must be told; else kNoConnection. In constant time but for the search among the room's shards.
  ConnectionIndex RemoveMember(Membership membership, ShardIndex shard);

  // REQUIRES: a member in that shard. Never 0.
  uint32_t HandleOf(RoomIndex room, ShardIndex shard);
  void ForgetHandles(ShardIndex shard);

  // nullptr: nobody of that shard is in it.
  RoomShard* FindShard(RoomIndex room, ShardIndex shard);
  // The rooms with a handle for that shard, in the order of the handles. `visit` changes no members.
  void VisitBound(ShardIndex shard, absl::FunctionRef<void(RoomIndex, RoomShard&)> visit);

  // Nothing when nobody here is in it.
  std::optional<RoomIndex> Find(std::string_view room_id) const { return rooms_.Find(room_id); }
  const std::string& id(RoomIndex room) const { return rooms_[room].id; }
  absl::Span<const RoomShard> shards(RoomIndex room) const { return rooms_[room].shards; }
  absl::Span<RoomShard> shards(RoomIndex room) { return absl::MakeSpan(rooms_[room].shards); }
  RoomHeard& heard(RoomIndex room) { return rooms_[room].heard; }
  // Each once. The order is that of joining but for the gaps: the same calls give the same order.
  absl::Span<const ConnectionIndex> members(RoomIndex room) const { return rooms_[room].members; }
  // Never 0; another one after each change of the members, also when the room has gone in between.
  uint64_t state(RoomIndex room) const { return rooms_[room].state; }
  // Of the room's stay here: never 0, and another one when the room has been gone in between.
  uint64_t born(RoomIndex room) const { return rooms_[room].born; }
  // Whether the room is still here since then; one that has gone was born never.
  bool Holds(RoomIndex room, uint64_t born) const { return rooms_[room].born == born; }
  // In byte order of the ids, those behind `after` (empty: all), until `visit` returns false. `visit` changes nothing here.
  void VisitBehind(std::string_view after, absl::FunctionRef<bool(RoomIndex)> visit) const;

  size_t size() const { return rooms_.size(); }
  size_t memberships() const { return memberships_; }

 private:
  struct Handles {
    std::vector<RoomIndex> rooms;  // by handle - 1; of a free handle: meaningless
    std::vector<uint32_t> free;
  };

  // The texts are in the rows, which keep their address.
  struct ById {
    using is_transparent = void;
    const Interned<Room, RoomIndexTag>* rooms;
    std::string_view Text(RoomIndex room) const { return (*rooms)[room].id; }
    static std::string_view Text(std::string_view id) { return id; }
    template <typename A, typename B>
    bool operator()(A a, B b) const {
      return Text(a) < Text(b);
    }
  };

  Handles& HandlesOf(ShardIndex shard);

  Interned<Room, RoomIndexTag> rooms_;
  absl::btree_set<RoomIndex, ById> in_order_{ById{&rooms_}};
  std::vector<Handles> handles_;  // by shard
  size_t memberships_ = 0;
  uint64_t last_state_ = 0;
};

}  // namespace presence::core
