#include "edge/forwarding_table.h"

#include <utility>

#include "common/check.h"

namespace presence::edge {

ForwardingTable::ForwardingTable() : by_id_(0, IdHash{&rooms_}, IdEqual{&rooms_}) {}

RoomIndex ForwardingTable::Hold(std::string_view room_id) {
  const uint32_t room = FindOrMake(room_id);
  ++rooms_[room].holds;
  return RoomIndex(room);
}

void ForwardingTable::Release(RoomIndex room) {
  PRESENCE_CHECK(rooms_[room.value()].holds > 0, "a room is released as often as it is held");
  --rooms_[room.value()].holds;
  ForgetRoomIfUnused(room.value());
}

bool ForwardingTable::Bind(uint32_t slot, std::string_view room_id, uint32_t handle) {
  if (handle == 0 || handle > kHandleMax) return false;
  if (handle >= by_handle_.size()) by_handle_.resize(handle + 1, kNone);
  const auto found = by_id_.find(room_id);
  if (by_handle_[handle] != kNone && (found == by_id_.end() || by_handle_[handle] != *found)) return false;

  const uint32_t index = found != by_id_.end() ? *found : FindOrMake(room_id);
  Room& room = rooms_[index];
  if (room.handle != handle) {
    ForgetHandle(room);
    room.handle = handle;
    by_handle_[handle] = index;
  }
  if (SeatIndex(slot, index) != kNone) return true;
  if (slot >= seats_.size()) seats_.resize(slot + 1);
  if (room.members.empty()) ++rooms_with_members_;
  seats_[slot].emplace_back(index, static_cast<uint32_t>(room.members.size()));
  room.members.push_back(slot);
  room.seat_of_member.push_back(static_cast<uint32_t>(seats_[slot].size() - 1));
  return true;
}

bool ForwardingTable::Unbind(uint32_t slot, std::string_view room_id) {
  const auto found = by_id_.find(room_id);
  if (found == by_id_.end()) return false;
  const uint32_t seat = SeatIndex(slot, *found);
  if (seat == kNone) return false;
  TakeOut(slot, seat);
  return true;
}

void ForwardingTable::RemoveSlot(uint32_t slot) {
  if (slot >= seats_.size()) return;
  while (!seats_[slot].empty()) TakeOut(slot, static_cast<uint32_t>(seats_[slot].size() - 1));
  Seats().swap(seats_[slot]);
}

link::v1::RoomKind ForwardingTable::KindOf(uint32_t slot, RoomIndex room) const {
  const uint32_t seat = SeatIndex(slot, room.value());
  if (seat == kNone) return link::v1::ROOM_KIND_UNSPECIFIED;
  return seats_[slot][seat].dm != 0 ? link::v1::ROOM_KIND_DM : link::v1::ROOM_KIND_CHANNEL;
}

void ForwardingTable::Name(uint32_t slot, RoomIndex room, link::v1::RoomKind kind) {
  const uint32_t seat = SeatIndex(slot, room.value());
  if (seat != kNone) seats_[slot][seat].dm = kind == link::v1::ROOM_KIND_DM ? 1 : 0;
}

void ForwardingTable::ForgetHandles() {
  by_handle_.clear();
  for (Room& room : rooms_) room.handle = 0;
}

bool ForwardingTable::Contains(uint32_t slot, std::string_view room_id) const {
  const auto found = by_id_.find(room_id);
  return found != by_id_.end() && SeatIndex(slot, *found) != kNone;
}

uint32_t ForwardingTable::FindOrMake(std::string_view room_id) {
  const auto found = by_id_.find(room_id);
  if (found != by_id_.end()) return *found;
  uint32_t room = static_cast<uint32_t>(rooms_.size());
  if (free_rooms_.empty()) {
    rooms_.emplace_back();
  } else {
    room = free_rooms_.back();
    free_rooms_.pop_back();
  }
  rooms_[room].id.assign(room_id);
  by_id_.insert(room);
  return room;
}

uint32_t ForwardingTable::SeatIndex(uint32_t slot, uint32_t room) const {
  if (slot >= seats_.size()) return kNone;
  // A connection is in few rooms, at most rooms_per_connection_max; asked when it joins or leaves, never for a delivery.
  for (size_t i = 0; i < seats_[slot].size(); ++i) {
    if (seats_[slot][i].room == room) return static_cast<uint32_t>(i);
  }
  return kNone;
}

void ForwardingTable::TakeOut(uint32_t slot, uint32_t seat_index) {
  Seats& seats = seats_[slot];
  const Seat seat = seats[seat_index];
  Room& room = rooms_[seat.room];

  // The last member takes the free place of the room, and its seat learns of it.
  const uint32_t moved_slot = room.members.back();
  room.members[seat.position] = moved_slot;
  room.seat_of_member[seat.position] = room.seat_of_member.back();
  seats_[moved_slot][room.seat_of_member[seat.position]].position = seat.position;
  room.members.pop_back();
  room.seat_of_member.pop_back();

  // The same for the last seat of the slot.
  if (seat_index + 1 != seats.size()) {
    seats[seat_index] = seats.back();
    rooms_[seats[seat_index].room].seat_of_member[seats[seat_index].position] = seat_index;
  }
  seats.pop_back();

  if (room.members.empty()) {
    --rooms_with_members_;
    room.position = {};
    ForgetHandle(room);
    ForgetRoomIfUnused(seat.room);
  }
}

void ForwardingTable::ForgetHandle(Room& room) {
  if (room.handle != 0) by_handle_[room.handle] = kNone;
  room.handle = 0;
}

void ForwardingTable::ForgetRoomIfUnused(uint32_t room) {
  if (rooms_[room].holds > 0 || !rooms_[room].members.empty()) return;
  by_id_.erase(room);
  rooms_[room] = Room();  // gives its memory back
  free_rooms_.push_back(room);
}

}  // namespace presence::edge
