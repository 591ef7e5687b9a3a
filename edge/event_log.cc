#include "edge/event_log.h"

#include <algorithm>

namespace presence::edge {

std::optional<HeldRequest> EventLog::Answer(uint64_t sequence, bool join) {
  const auto found =
      std::lower_bound(requests_.begin(), requests_.end(), sequence,
                       [](const HeldRequest& request, uint64_t wanted) { return request.sequence < wanted; });
  if (found == requests_.end() || found->sequence != sequence || found->answered || found->join != join) {
    return std::nullopt;
  }
  found->answered = true;
  const HeldRequest request = *found;
  // Mostly the core answers in order, so nothing is left to be acknowledged.
  while (!requests_.empty() && requests_.front().answered) requests_.pop_front();
  return request;
}

std::optional<HeldRequest> EventLog::Newest(uint64_t connection, RoomIndex room, uint32_t unanswered) const {
  for (auto request = requests_.rbegin(); request != requests_.rend() && unanswered > 0; ++request) {
    if (request->answered || request->connection != connection) continue;
    if (request->room == room) return *request;
    --unanswered;
  }
  return std::nullopt;
}

std::optional<HeldClose> EventLog::DropOldestClose() {
  if (closes_.empty()) return std::nullopt;
  const HeldClose close = closes_.front();
  closes_.pop_front();
  return close;
}

}  // namespace presence::edge
