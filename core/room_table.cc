#include "core/room_table.h"

#include <algorithm>

#include "common/check.h"

namespace presence::core {
namespace {

constexpr size_t kShrinkAbove = 64;  // members; below, copying costs more than it saves

RoomShard* FindIn(Room& room, ShardIndex shard) {
  const auto found = std::find_if(room.shards.begin(), room.shards.end(),
                                  [shard](const RoomShard& entry) { return entry.shard == shard; });
  return found == room.shards.end() ? nullptr : &*found;
}

}  // namespace

Membership RoomTable::AddMember(std::string_view room_id, ShardIndex shard, ConnectionIndex member) {
  const RoomIndex index = rooms_.Intern(room_id);
  Room& room = rooms_[index];
  room.state = ++last_state_;
  if (room.members.empty()) {
    in_order_.insert(index);
    room.born = room.state;
  }
  RoomShard* entry = FindIn(room, shard);
  if (entry == nullptr) {
    // What is sent from now on comes by the bus.
    entry = &room.shards.emplace_back(RoomShard{
        .shard = shard, .handle = 0, .members = 0, .behind = false, .unsure = false, .position = room.heard.position});
  }
  ++entry->members;
  ++memberships_;
  room.members.push_back(member);
  return {index, static_cast<uint32_t>(room.members.size() - 1)};
}

ConnectionIndex RoomTable::RemoveMember(Membership membership, ShardIndex shard) {
  const auto [index, position] = membership;
  Room& room = rooms_[index];
  RoomShard* entry = FindIn(room, shard);
  PRESENCE_CHECK(entry != nullptr && entry->members > 0 && position < room.members.size(),
                 "only a member leaves a room");
  --memberships_;
  room.state = ++last_state_;
  if (--entry->members == 0) {
    if (entry->handle != 0) HandlesOf(shard).free.push_back(entry->handle);
    room.shards.erase(room.shards.begin() + (entry - room.shards.data()));
  }
  const ConnectionIndex last = room.members.back();
  room.members.pop_back();
  if (room.members.empty()) {
    in_order_.erase(index);  // before the row loses its text
    rooms_.Free(index);
    return kNoConnection;
  }
  const bool fills_gap = position < room.members.size();
  if (fills_gap) room.members[position] = last;
  // A room that was large once: three quarters must go before it is copied again.
  if (room.members.capacity() > kShrinkAbove && room.members.size() <= room.members.capacity() / 4) {
    room.members.shrink_to_fit();
  }
  return fills_gap ? last : kNoConnection;
}

void RoomTable::VisitBehind(std::string_view after, absl::FunctionRef<bool(RoomIndex)> visit) const {
  for (auto room = in_order_.upper_bound(after); room != in_order_.end(); ++room) {
    if (!visit(*room)) return;
  }
}

uint32_t RoomTable::HandleOf(RoomIndex index, ShardIndex shard) {
  RoomShard* entry = FindIn(rooms_[index], shard);
  PRESENCE_CHECK(entry != nullptr, "a handle is for a room with members in that shard");
  if (entry->handle != 0) return entry->handle;
  Handles& handles = HandlesOf(shard);
  if (handles.free.empty()) {
    handles.rooms.push_back(index);
    entry->handle = static_cast<uint32_t>(handles.rooms.size());
  } else {
    entry->handle = handles.free.back();
    handles.free.pop_back();
    handles.rooms[entry->handle - 1] = index;
  }
  return entry->handle;
}

void RoomTable::ForgetHandles(ShardIndex shard) {
  Handles& handles = HandlesOf(shard);
  for (const uint32_t free : handles.free) handles.rooms[free - 1] = RoomIndex(UINT32_MAX);
  for (const RoomIndex room : handles.rooms) {
    if (room == RoomIndex(UINT32_MAX)) continue;
    RoomShard* entry = FindIn(rooms_[room], shard);
    if (entry == nullptr) continue;
    entry->handle = 0;
    entry->behind = entry->unsure = false;
    entry->position = {};
  }
  handles = Handles();
}

RoomShard* RoomTable::FindShard(RoomIndex room, ShardIndex shard) {
  return FindIn(rooms_[room], shard);
}

void RoomTable::VisitBound(ShardIndex shard, absl::FunctionRef<void(RoomIndex, RoomShard&)> visit) {
  const Handles& handles = HandlesOf(shard);
  std::vector<bool> is_free(handles.rooms.size());
  for (const uint32_t free : handles.free) is_free[free - 1] = true;
  for (size_t i = 0; i < handles.rooms.size(); ++i) {
    if (is_free[i]) continue;
    RoomShard* entry = FindIn(rooms_[handles.rooms[i]], shard);
    PRESENCE_CHECK(entry != nullptr, "a handle is for a room with members in that shard");
    visit(handles.rooms[i], *entry);
  }
}

RoomTable::Handles& RoomTable::HandlesOf(ShardIndex shard) {
  if (shard.value() >= handles_.size()) handles_.resize(shard.value() + 1);
  return handles_[shard.value()];
}

}  // namespace presence::core
