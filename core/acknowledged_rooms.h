// Where rooms stood when the store confirmed a message of this core to them: what has been acknowledged to a caller, and may be known to nobody
// else when Redis dies at that moment. When it comes back as another run, each of these rooms is held against what it has kept.
//
// Lives on the hub's thread. Invariants: what was added is known for kRemembered at least and twice that at most, unless more than kRoomsMax rooms
// were added to meanwhile: then for as long as it takes to fill that once. A replica that is further behind than that is not noticed by this
// core; by whoever has members in the room, it is. What it costs: 2 kRoomsMax rooms at most, some 100 B each, 10 MB.
// Does not know which rooms have members here.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/time.h"
#include "core/id_map.h"
#include "core/room_position.h"

namespace presence::core {

class AcknowledgedRooms {
 public:
  static constexpr std::chrono::seconds kRemembered{30};
  static constexpr size_t kRoomsMax = 50'000;

  // What was known of the room in another epoch, and is not any more.
  RoomPosition Add(std::string_view room_id, RoomPosition position) {
    if (const auto known = recent_.find(room_id); known != recent_.end()) {
      const RoomPosition before = std::exchange(known->second, position);
      return before.epoch == position.epoch ? RoomPosition() : before;
    }
    RoomPosition before;
    if (const auto older = older_.find(room_id); older != older_.end()) {
      if (older->second.epoch != position.epoch) before = older->second;
      older_.erase(older);
    }
    if (recent_.size() >= kRoomsMax) Age();
    recent_.emplace(room_id, position);
    return before;
  }

  // Of a room of which nothing is known: not known.
  RoomPosition Find(std::string_view room_id) const {
    for (const Rooms* rooms : {&recent_, &older_}) {
      if (const auto found = rooms->find(room_id); found != rooms->end()) return found->second;
    }
    return {};
  }

  // All rooms, in byte order.
  std::vector<std::string> Ids() const {
    std::vector<std::string> ids;
    ids.reserve(size());
    for (const Rooms* rooms : {&recent_, &older_}) {
      for (const auto& [id, position] : *rooms) ids.push_back(id);
    }
    std::sort(ids.begin(), ids.end());
    return ids;
  }

  void OnTick(SteadyTime now) {
    if (now < ages_at_) return;
    ages_at_ = now + kRemembered;
    Age();
  }

  size_t size() const { return recent_.size() + older_.size(); }

 private:
  using Rooms = IdMap<RoomPosition>;

  void Age() { older_ = std::exchange(recent_, {}); }

  Rooms recent_, older_;  // a room is in one of them
  SteadyTime ages_at_;
};

}  // namespace presence::core
