#include "core/fanout.h"

#include <algorithm>

#include "common/check.h"

namespace presence::core {

uint32_t Fanout::ToRoom(std::string_view room_id, std::string_view text, Kind kind,
                        const google::protobuf::RepeatedPtrField<std::string>* excluded_user_ids) {
  const auto room = rooms_.Find(room_id);
  if (!room) return 0;
  excluded_.clear();
  if (excluded_user_ids != nullptr) FindExcluded(room_id, *excluded_user_ids);
  uint32_t reached = 0;
  for (const RoomShard& entry : rooms_.shards(*room)) {
    Link* link = LinkOf(entry);
    if (link == nullptr) continue;
    reached += Concerned(entry);
    Hand(*link, entry, {text, kind, {}});
  }
  return reached;
}

uint32_t Fanout::ToRoom(RoomIndex room, const link::v1::BusEnvelope& logged, absl::FunctionRef<bool(RoomShard&)> take) {
  const link::v1::RoomMessage& message = logged.message();
  FindExcluded(message.room_id(), message.excluded_user_ids());
  uint32_t concerned = 0;
  for (RoomShard& entry : rooms_.shards(room)) {
    Link* link = LinkOf(entry);
    if (link == nullptr) continue;
    concerned += Concerned(entry);
    if (take(entry)) Hand(*link, entry, {message.text(), Kind::kMessage, PositionOf(logged)});
  }
  return concerned;
}

void Fanout::ToShard(RoomIndex room, const RoomShard& entry, const link::v1::BusEnvelope& logged) {
  const link::v1::RoomMessage& message = logged.message();
  FindExcluded(rooms_.id(room), message.excluded_user_ids());
  if (Link* link = LinkOf(entry)) Hand(*link, entry, {message.text(), Kind::kMessage, PositionOf(logged)});
}

void Fanout::Move(const RoomShard& entry, RoomPosition position, Moved moved) {
  Link* link = LinkOf(entry);
  PRESENCE_CHECK(link != nullptr, "only a shard that is there is told where it is");
  link::v1::RoomMoved& command = *links_.Command(*link).mutable_room_moved();
  command.set_handle(entry.handle);
  command.set_room_epoch(position.epoch);
  command.set_room_sequence(position.sequence);
  command.set_lost(moved == Moved::kLost);
}

uint32_t Fanout::Concerned(const RoomShard& entry) const {
  return entry.members -
         static_cast<uint32_t>(std::count_if(excluded_.begin(), excluded_.end(),
                                             [&](const auto& other) { return other.through == entry.shard; }));
}

void Fanout::Hand(Link& link, const RoomShard& entry, const Frame& frame) {
  const auto first = std::lower_bound(excluded_.begin(), excluded_.end(), Reached<ShardIndex>{entry.shard, 0});
  const auto last =
      std::find_if(first, excluded_.end(), [&](const auto& other) { return other.through != entry.shard; });
  if (static_cast<uint32_t>(last - first) == entry.members) {
    // It has missed nothing, and must know that when it names its position to the next core.
    if (frame.position.known()) Move(entry, frame.position, Moved::kQuietly);
    return;
  }
  link::v1::Deliver& deliver = *links_.Command(link).mutable_deliver();
  deliver.set_handle(entry.handle);
  deliver.mutable_text()->assign(frame.text.data(), frame.text.size());  // set_text would make a string on the way
  if (frame.kind == Kind::kVolatile) deliver.set_volatile_(true);
  deliver.set_room_epoch(frame.position.epoch);
  deliver.set_room_sequence(frame.position.sequence);
  for (auto excluded = first; excluded != last; ++excluded) deliver.add_excluded_connections(excluded->connection);
  ++counters_.deliveries;
}

void Fanout::FindExcluded(std::string_view room_id, const google::protobuf::RepeatedPtrField<std::string>& user_ids) {
  excluded_.clear();
  for (const std::string& user_id : user_ids) {
    const User* user = connections_.FindUser(user_id);
    if (user == nullptr) continue;
    for (ConnectionIndex device = user->first_live; device != kNoConnection;
         device = connections_[device].next_of_user) {
      if (connections_.InRoom(device, room_id)) {
        excluded_.push_back({connections_[device].shard, connections_[device].id});
      }
    }
  }
  std::sort(excluded_.begin(), excluded_.end());
  excluded_.erase(std::unique(excluded_.begin(), excluded_.end()), excluded_.end());
}

uint32_t Fanout::ToUser(std::string_view user_id, std::string_view text) {
  const User* user = connections_.FindUser(user_id);
  if (user == nullptr) return 0;
  devices_.clear();
  for (ConnectionIndex device = user->first_live; device != kNoConnection; device = connections_[device].next_of_user) {
    const Link* link = connections_.shard(connections_[device].shard).link;
    if (link != nullptr) devices_.push_back({link->id, connections_[device].id});
  }
  std::sort(devices_.begin(), devices_.end());
  for (size_t i = 0; i < devices_.size();) {
    Link* link = links_.Find(devices_[i].through);
    PRESENCE_CHECK(link != nullptr, "a shard's link is in the table");
    link::v1::DeliverTo& deliver = *links_.Command(*link).mutable_deliver_to();
    deliver.mutable_text()->assign(text.data(), text.size());
    for (; i < devices_.size() && devices_[i].through == link->id; ++i) {
      deliver.add_connections(devices_[i].connection);
    }
    ++counters_.deliveries;
  }
  return static_cast<uint32_t>(devices_.size());
}

link::v1::DeliverPresence& Fanout::AddPresence(Link& link, const PresenceDelivery& delivery) {
  link::v1::DeliverPresence& command = *links_.Command(link).mutable_deliver_presence();
  command.mutable_user_id()->assign(delivery.user_id.data(), delivery.user_id.size());
  command.set_version(delivery.version);
  command.mutable_text()->assign(delivery.text.data(), delivery.text.size());
  ++counters_.deliveries;
  return command;
}

void Fanout::ToEveryone(const PresenceDelivery& delivery) {
  for (auto& [id, link] : links_) {
    if (link.phase != Link::Phase::kNew) ToEveryone(link, delivery);
  }
}

void Fanout::ToEveryone(Link& link, const PresenceDelivery& delivery) {
  AddPresence(link, delivery).set_everyone(true);
}

void Fanout::ToRooms(const std::vector<RoomIndex>& rooms, const PresenceDelivery& delivery, const Link* only) {
  targets_.clear();
  for (const RoomIndex room : rooms) {
    for (const RoomShard& entry : rooms_.shards(room)) {
      const Link* link = connections_.shard(entry.shard).link;
      if (link == nullptr || entry.handle == 0 || (only != nullptr && link != only)) continue;
      targets_.push_back({link->id, entry.handle});
    }
  }
  std::sort(targets_.begin(), targets_.end());
  targets_.erase(std::unique(targets_.begin(), targets_.end()), targets_.end());
  for (size_t i = 0; i < targets_.size();) {
    Link* link = links_.Find(targets_[i].link);
    PRESENCE_CHECK(link != nullptr, "a shard's link is in the table");
    link::v1::DeliverPresence& command = AddPresence(*link, delivery);
    for (; i < targets_.size() && targets_[i].link == link->id; ++i) command.add_handles(targets_[i].handle);
  }
}

}  // namespace presence::core
