// MemoryDatabase: the logs of rooms. The steps of room_log.lua.
#include <algorithm>
#include <utility>

#include "core/memory_database.h"

namespace presence::core {
namespace {

constexpr size_t kDroppedMax = 32;  // see room_log.lua

std::string RoomKey(std::string_view room_id) {
  return std::string("presence.room:").append(room_id);
}
std::string LogKey(std::string_view room_id) {
  return std::string("presence.log:").append(room_id);
}

}  // namespace

uint64_t MemoryDatabase::DataSince(Time now) {
  if (data_since_us_ == 0) data_since_us_ = now.us;
  return data_since_us_;
}

AppendResult MemoryDatabase::Append(const StoreOptions& options, std::string_view request_id,
                                    std::string_view fingerprint, link::v1::BusEnvelope envelope,
                                    std::string_view outside) {
  using Outcome = OnceResult::Outcome;
  DropLapsed();
  const Time now = ReadClock();
  if (!request_id.empty()) {
    const OnceResult once = UseRequest(options, request_id, fingerprint);
    if (once.outcome != Outcome::kPublished) return {once.outcome, once.answer, {}};
  }
  const std::string room_id = envelope.message().room_id();
  const auto [found, fresh] = rooms_.try_emplace(room_id);
  RoomCounters& room = found->second;
  RoomPosition stated;
  if (fresh) {
    logs_.erase(room_id);
    stated.epoch = DataSince(now);
    room.position = {now.us, 1};
    room.previous = stated;
  } else if (room.run != run_) {
    stated = room.previous = room.position;
    room.position = {std::max(now.us, room.position.epoch + 1), 1};
  } else {
    ++room.position.sequence;
  }
  AddToLog(options, now, room_id, stated, &envelope);
  Publish(envelope, outside);
  return {Outcome::kPublished, {}, room.position};
}

void MemoryDatabase::AddToLog(const StoreOptions& options, Time now, const std::string& room_id, RoomPosition stated,
                              link::v1::BusEnvelope* envelope) {
  RoomCounters& room = rooms_.at(room_id);
  room.run = run_;
  envelope->set_room_epoch(room.position.epoch);
  envelope->set_room_sequence(room.position.sequence);
  envelope->set_room_previous_epoch(stated.epoch);
  envelope->set_room_previous_sequence(stated.sequence);
  const uint64_t before = room.bytes, size = envelope->ByteSizeLong();
  room.bytes += size;
  std::deque<LogEntry>& log = logs_[room_id];
  const bool is_new = log.empty();
  log.push_back({*envelope, size, room.bytes});
  const size_t length_max = options.room_log_length, step = std::clamp<size_t>(length_max / 16, 1, 16);
  if (room.position.sequence % step == 0 || room.position.sequence == 1) {
    while (log.size() > length_max - step + 1) log.pop_front();
  }
  const int64_t age_ms = std::chrono::milliseconds(options.room_log_age).count();
  if (is_new) room.gone = before;
  if (is_new || now.ms - room.marked_ms > age_ms) {
    if (!is_new) {
      while (IsBefore(PositionOf(log.front().envelope), room.mark)) log.pop_front();
      room.gone = room.mark_bytes;
    }
    room.marked_ms = now.ms;
    room.mark = room.position;
    room.mark_bytes = before;
    SetExpiry(LogKey(room_id), now.ms + 2 * age_ms);
  }
  TrimLog(options, room, log);
  SetExpiry(RoomKey(room_id), now.ms + std::chrono::milliseconds(kRoomMemory).count());
}

void MemoryDatabase::NoteLoss(const StoreOptions& options, Time now, const RoomLogQuery& query) {
  const std::string room_id(query.room_id);
  const auto found = rooms_.find(room_id);
  const bool known = found != rooms_.end();
  const RoomExtent kept =
      known ? RoomExtent{found->second.position, found->second.previous} : RoomExtent{{now.us, 0}, {DataSince(now), 0}};
  uint64_t lost = 0;  // an epoch
  for (const RoomPosition seen : {query.seen, query.doubted}) {
    if (IsLost(seen, kept, now.us)) lost = std::max(lost, seen.epoch);
  }
  if (lost == 0) return;
  if (!known) {
    logs_.erase(room_id);
    rooms_[room_id] = {};
  }
  RoomCounters& room = rooms_[room_id];
  const uint64_t epoch = std::max({now.us, room.position.epoch + 1, lost + 1});
  room.position = {epoch, 1};
  room.previous = {epoch, 0};
  link::v1::BusEnvelope note;
  note.mutable_room_lost()->set_room_id(room_id);
  AddToLog(options, now, room_id, room.previous, &note);
  Publish(note, {});
}

void MemoryDatabase::TrimLog(const StoreOptions& options, RoomCounters& room, std::deque<LogEntry>& log) {
  const uint64_t bytes_max = options.room_log_bytes;
  if (room.bytes - room.gone <= bytes_max) return;
  room.gone = log.front().upto - log.front().bytes;
  const uint64_t keep = room.bytes - room.gone > bytes_max ? bytes_max - bytes_max / 16 : bytes_max;
  for (size_t dropped = 0; dropped < kDroppedMax && log.size() > 1 && room.bytes - room.gone > keep; ++dropped) {
    room.gone = log.front().upto;
    log.pop_front();
  }
}

RoomLogPage MemoryDatabase::ReadRoomLog(const StoreOptions& options, const RoomLogQuery& query) {
  DropLapsed();
  const Time now = ReadClock();
  RoomLogPage page;
  page.data_since = DataSince(now);
  NoteLoss(options, now, query);
  page.current = {now.us, 0};
  const auto room = rooms_.find(query.room_id);
  if (room == rooms_.end()) return page;
  page.current = room->second.position;
  const auto log = logs_.find(query.room_id);
  if (log == logs_.end()) return page;
  size_t bytes = 0;
  for (const LogEntry& entry : log->second) {
    if (!IsBefore(query.after, PositionOf(entry.envelope))) continue;
    if (page.entries.size() == query.entries_max || bytes >= Store::kRoomLogPageBytes) break;
    page.entries.push_back(entry.envelope);
    bytes += entry.bytes;
  }
  page.more = !page.entries.empty() && PositionOf(page.entries.back()) != page.current;
  return page;
}

bool MemoryDatabase::DropRoomKey(std::string_view key) {
  for (const std::string& prefix : {RoomKey({}), LogKey({})}) {
    if (!key.starts_with(prefix)) continue;
    const std::string room_id(key.substr(prefix.size()));
    if (prefix == RoomKey({})) {
      rooms_.erase(room_id);
    } else {
      logs_.erase(room_id);
    }
    return true;
  }
  return false;
}

}  // namespace presence::core
