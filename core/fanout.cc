#include "core/fanout.h"

#include <algorithm>

#include "common/check.h"

namespace presence::core {

void Fanout::ToRoom(std::string_view room_id, std::string_view text, Kind kind) {
  const auto room = rooms_.Find(room_id);
  if (!room) return;
  for (const RoomShard& entry : rooms_.shards(*room)) {
    Link* link = connections_.shard(entry.shard).link;
    if (link == nullptr || entry.handle == 0) continue;
    link::v1::Deliver& deliver = *links_.Command(*link).mutable_deliver();
    deliver.set_handle(entry.handle);
    deliver.mutable_text()->assign(text.data(), text.size());  // set_text would make a string on the way
    if (kind == Kind::kVolatile) deliver.set_volatile_(true);
    ++counters_.deliveries;
  }
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
