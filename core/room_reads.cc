#include "core/room_reads.h"

#include <utility>

#include "core/store.h"

namespace presence::core {

static_assert(RoomReads::kAtOnce * Store::kRoomLogPageBytes <= RoomReads::kBytesPerTick, "a tick may begin so many");

void RoomReads::Want(std::string_view room_id) {
  std::string room(room_id);
  if (reading_.contains(room)) {
    again_.insert(std::move(room));
  } else if (queued_.insert(room).second) {
    queue_.push_back(std::move(room));
  }
}

std::optional<std::string> RoomReads::Next() {
  if (queue_.empty() || reading_.size() >= kAtOnce) return std::nullopt;
  if (spent_ + (reading_.size() + 1) * Store::kRoomLogPageBytes > kBytesPerTick) return std::nullopt;
  std::string room = std::move(queue_.front());
  queue_.pop_front();
  queued_.erase(room);
  return room;
}

uint64_t RoomReads::Begin(Read read) {
  if (!read.floor) reading_.insert(read.room_id);
  under_way_.emplace(++last_id_, std::move(read));
  return last_id_;
}

std::optional<RoomReads::Read> RoomReads::End(uint64_t id) {
  const auto found = under_way_.find(id);
  if (found == under_way_.end()) return std::nullopt;
  Read read = std::move(found->second);
  under_way_.erase(found);
  if (!read.floor) {
    reading_.erase(read.room_id);
    if (again_.erase(read.room_id) != 0) Want(read.room_id);
  }
  return read;
}

void RoomReads::OnTick() {
  spent_ = 0;
  for (const std::string& room : std::exchange(later_, {})) Want(room);
}

void RoomReads::Forget() {
  later_.clear();
  queue_.clear();
  queued_.clear();
  again_.clear();
  reading_.clear();
  under_way_.clear();
}

}  // namespace presence::core
