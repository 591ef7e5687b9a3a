// Room → connections: whom a message of a room goes to. The core programs it by Bind and Unbind; the shard only takes out
// connections that are gone.
//
// Lives on the shard's thread. Invariants: a slot is in a room at most once; a room has a handle at most while it has members, and a
// handle names one room. Members of a room lie in one array, so that a delivery is one call with one span; taking one out swaps the
// last one into its place, in constant time.
//
// Rooms are interned: a request that waits for the core's answer holds its room, too, instead of a copy of the id.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/container/inlined_vector.h"
#include "absl/hash/hash.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "common/ids.h"
#include "presence/link/v1/link.pb.h"

namespace presence::edge {

using RoomIndex = StrongId<struct RoomIndexTag, uint32_t>;

class ForwardingTable {
 public:
  // Handles index an array: 2^24 of them are 64 MiB, which a core that numbers rooms upwards reaches after 16 million rooms in one
  // attach; the next attach starts anew.
  static constexpr uint32_t kHandleMax = (1u << 24) - 1;

  ForwardingTable();
  ForwardingTable(const ForwardingTable&) = delete;
  ForwardingTable& operator=(const ForwardingTable&) = delete;

  // Keeps the room's id alive until as many Releases.
  RoomIndex Hold(std::string_view room_id);
  void Release(RoomIndex room);
  // Of a room that is held or has members. The view lives until the next Hold or Bind.
  std::string_view IdOf(RoomIndex room) const { return rooms_[room.value()].id; }

  // Puts the slot into the room and lets `handle` mean the room from now on. False, and nothing is changed, when the handle is 0,
  // too large, or means another room.
  bool Bind(uint32_t slot, std::string_view room_id, uint32_t handle);
  // False: it was not in there.
  bool Unbind(uint32_t slot, std::string_view room_id);
  void RemoveSlot(uint32_t slot);
  // How the client named the room when it joined: CHANNEL until Name says otherwise, UNSPECIFIED when the slot is not in there.
  link::v1::RoomKind KindOf(uint32_t slot, RoomIndex room) const;
  void Name(uint32_t slot, RoomIndex room, link::v1::RoomKind kind);
  // How far the members have everything that stands in the room's log, as the core has said. It lives as long as the room has members.
  struct Position {
    uint64_t epoch = 0;  // 0: not known
    uint64_t sequence = 0;
  };
  // REQUIRES, both: the handle means a room. Valid until the next change.
  RoomIndex RoomOf(uint32_t handle) const { return RoomIndex(by_handle_[handle]); }
  Position& PositionOf(uint32_t handle) { return rooms_[by_handle_[handle]].position; }
  // Calls visit(std::string_view room_id, Position) for each room with members whose position is known.
  template <typename Visitor>
  void VisitPositions(Visitor&& visit) const {
    for (const Room& room : rooms_) {
      if (!room.members.empty() && room.position.epoch != 0) visit(std::string_view(room.id), room.position);
    }
  }

  // No handle means anything any more. Memberships and positions stay.
  void ForgetHandles();

  // Empty for a handle that means nothing (a room that has a handle has members). Valid until the next change.
  absl::Span<const uint32_t> MembersOf(uint32_t handle) const {
    if (handle >= by_handle_.size() || by_handle_[handle] == kNone) return {};
    return rooms_[by_handle_[handle]].members;
  }
  bool Contains(uint32_t slot, std::string_view room_id) const;
  size_t RoomsOf(uint32_t slot) const { return slot < seats_.size() ? seats_[slot].size() : 0; }
  // Calls visit(std::string_view room_id) for each room of the slot.
  template <typename Visitor>
  void VisitRoomsOf(uint32_t slot, Visitor&& visit) const {
    if (slot >= seats_.size()) return;
    for (const Seat& seat : seats_[slot]) visit(std::string_view(rooms_[seat.room].id));
  }
  size_t rooms_with_members() const { return rooms_with_members_; }

 private:
  static constexpr uint32_t kNone = UINT32_MAX;
  static constexpr uint32_t kRoomMax = (1u << 31) - 1;  // memory ends long before

  struct Room {
    std::string id;
    uint32_t handle = 0;
    uint32_t holds = 0;
    // Parallel: members[i] is a slot, and this room is seats_[members[i]][seat_of_member[i]]. Most rooms have few members.
    absl::InlinedVector<uint32_t, 4> members;
    absl::InlinedVector<uint32_t, 4> seat_of_member;
    Position position;
  };
  // One room of one slot: rooms_[room].members[position] is the slot. The client's word for the room costs the one bit that is left: a
  // connection in two rooms is the common case, and 8 bytes for each are what the vector has inline.
  struct Seat {
    Seat(uint32_t of_room, uint32_t at_position) : room(of_room & kRoomMax), dm(0), position(at_position) {}
    uint32_t room : 31;
    uint32_t dm : 1;
    uint32_t position;
  };
  using Seats = absl::InlinedVector<Seat, 2>;  // two fit where the pointer and the capacity would stand

  // absl's hash is seeded per process: clients choose room ids, and must not be able to choose collisions.
  struct IdHash {
    using is_transparent = void;
    const std::vector<Room>* rooms;
    size_t operator()(std::string_view id) const { return absl::HashOf(absl::string_view(id.data(), id.size())); }
    size_t operator()(uint32_t room) const { return (*this)(std::string_view((*rooms)[room].id)); }
  };
  struct IdEqual {
    using is_transparent = void;
    const std::vector<Room>* rooms;
    bool operator()(uint32_t a, uint32_t b) const { return a == b; }
    bool operator()(uint32_t a, std::string_view b) const { return (*rooms)[a].id == b; }
    bool operator()(std::string_view a, uint32_t b) const { return (*this)(b, a); }
  };

  uint32_t FindOrMake(std::string_view room_id);
  uint32_t SeatIndex(uint32_t slot, uint32_t room) const;  // kNone: not in there
  void TakeOut(uint32_t slot, uint32_t seat_index);
  void ForgetHandle(Room& room);
  void ForgetRoomIfUnused(uint32_t room);

  std::vector<Room> rooms_;
  std::vector<uint32_t> free_rooms_;
  absl::flat_hash_set<uint32_t, IdHash, IdEqual> by_id_;
  std::vector<uint32_t> by_handle_;
  std::vector<Seats> seats_;  // by slot
  size_t rooms_with_members_ = 0;
};

}  // namespace presence::edge
