// The logs of rooms in Redis: room_log.lua. See redis_store.h.
#include <chrono>
#include <iterator>
#include <string>
#include <utility>

#include "core/redis_store.h"

namespace presence::core {
namespace {

// What room_log.lua answers to an append.
constexpr OnceResult::Outcome kOutcomes[] = {OnceResult::Outcome::kPublished, OnceResult::Outcome::kRepeated,
                                             OnceResult::Outcome::kConflict};
// EVALSHA, the hash, the number of keys, three keys, the operation, and what StartRoomLog writes behind it.
constexpr size_t kRoomLogArguments = 14;

uint64_t Number(RedisReply reply) {
  return static_cast<uint64_t>(reply.number());
}

}  // namespace

RedisCommand& RedisStore::StartRoomLog(std::string_view operation, std::string_view room_id,
                                       std::string_view request_id, size_t arguments) {
  using std::chrono::milliseconds;
  const bool once = !request_id.empty();
  command_.Start(kRoomLogArguments + (once ? 1 : 0) + arguments).AddWritten(room_log_head_).Add(once ? "4" : "3");
  command_.Add(std::string("presence.room:").append(room_id)).Add(std::string("presence.log:").append(room_id));
  command_.Add("presence.rooms");
  if (once) command_.Add(RequestKey(request_id));
  command_.Add(operation);
  return AddTime()
      .Add(run_id_)
      .Add(message_bytes_)
      .Add(uint64_t{options_.store.room_log_length})
      .Add(uint64_t{options_.store.room_log_bytes})
      .Add(int64_t{milliseconds(options_.store.room_log_age).count()})
      .Add(int64_t{milliseconds(kRoomMemory).count()});
}

void RedisStore::Append(uint64_t id, std::string_view request_id, std::string_view fingerprint,
                        const link::v1::BusEnvelope& envelope, std::string_view outside) {
  using std::chrono::milliseconds;
  envelope.SerializeToString(&message_bytes_);
  StartRoomLog("append", envelope.message().room_id(), request_id, 3)
      .Add(outside)
      .Add(fingerprint)
      .Add(int64_t{milliseconds(options_.store.request_lifetime).count()});
  Send([this, id](RedisReply reply) {
    AppendResult result;
    if (Usable(reply) && reply.size() == 4) {
      const uint64_t outcome = Number(reply[0]);
      if (outcome < std::size(kOutcomes)) result.outcome = kOutcomes[outcome];
      result.answer = reply[1].text();
      result.position = {Number(reply[2]), Number(reply[3])};
    }
    listener_.OnAppended(id, result);
  });
}

void RedisStore::ReadRoomLog(uint64_t id, const RoomLogQuery& query) {
  link::v1::BusEnvelope note;
  note.mutable_room_lost()->set_room_id(std::string(query.room_id));
  note.SerializeToString(&message_bytes_);
  StartRoomLog("read", query.room_id, {}, 8)
      .Add(query.after.epoch)
      .Add(query.after.sequence)
      .Add(uint64_t{query.entries_max})
      .Add(uint64_t{kRoomLogPageBytes})
      .Add(query.seen.epoch)
      .Add(query.seen.sequence)
      .Add(query.doubted.epoch)
      .Add(query.doubted.sequence);
  Send([this, id](RedisReply reply) {
    if (!Usable(reply) || reply.size() != 5) {
      return listener_.OnRoomLogRead(id, absl::UnavailableError("the store is away"));
    }
    RoomLogPage page;
    page.current = {Number(reply[0]), Number(reply[1])};
    page.data_since = Number(reply[2]);
    page.more = reply[3].number() == 1;
    const RedisReply entries = reply[4];
    page.entries.reserve(entries.size());
    for (size_t i = 0; i < entries.size(); ++i) {
      const std::string_view bytes = entries[i].text();
      link::v1::BusEnvelope& entry = page.entries.emplace_back();
      if (entry.ParseFromArray(bytes.data(), static_cast<int>(bytes.size())) && entry.room_sequence() != 0) continue;
      counters_.bus_invalid.Add();  // whoever reads sees that it is missing
      page.entries.pop_back();
    }
    listener_.OnRoomLogRead(id, page);
  });
}

}  // namespace presence::core
