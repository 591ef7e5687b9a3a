#include "core/room_table.h"

#include <algorithm>

#include "common/check.h"

namespace presence::core {
namespace {

RoomShard* FindShard(Room& room, ShardIndex shard) {
  const auto found = std::find_if(room.shards.begin(), room.shards.end(),
                                  [shard](const RoomShard& entry) { return entry.shard == shard; });
  return found == room.shards.end() ? nullptr : &*found;
}

}  // namespace

RoomIndex RoomTable::AddMember(std::string_view room_id, ShardIndex shard) {
  const RoomIndex index = rooms_.Intern(room_id);
  Room& room = rooms_[index];
  RoomShard* entry = FindShard(room, shard);
  if (entry == nullptr) entry = &room.shards.emplace_back(RoomShard{shard, 0, 0});
  ++entry->members;
  ++memberships_;
  return index;
}

void RoomTable::RemoveMember(RoomIndex index, ShardIndex shard) {
  Room& room = rooms_[index];
  RoomShard* entry = FindShard(room, shard);
  PRESENCE_CHECK(entry != nullptr && entry->members > 0, "only a member leaves a room");
  --memberships_;
  if (--entry->members > 0) return;
  if (entry->handle != 0) HandlesOf(shard).free.push_back(entry->handle);
  room.shards.erase(room.shards.begin() + (entry - room.shards.data()));
  if (room.shards.empty()) rooms_.Free(index);
}

uint32_t RoomTable::HandleOf(RoomIndex index, ShardIndex shard) {
  RoomShard* entry = FindShard(rooms_[index], shard);
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
    if (RoomShard* entry = FindShard(rooms_[room], shard); entry != nullptr) entry->handle = 0;
  }
  handles = Handles();
}

RoomTable::Handles& RoomTable::HandlesOf(ShardIndex shard) {
  if (shard.value() >= handles_.size()) handles_.resize(shard.value() + 1);
  return handles_[shard.value()];
}

}  // namespace presence::core
