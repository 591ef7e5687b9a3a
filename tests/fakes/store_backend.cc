#include "tests/fakes/store_backend.h"

#include <algorithm>
#include <asio/io_context.hpp>

#include "common/check.h"
#include "core/memory_store.h"
#include "core/redis_store.h"

namespace presence::core {
namespace {

class MemoryBackend final : public StoreBackend {
 public:
  MemoryBackend(StoreOptions options, int cores) : database_([now = now_] { return *now; }) {
    for (int i = 0; i < cores; ++i) {
      options.core_incarnation += static_cast<uint64_t>(i);
      listeners_.push_back(std::make_unique<RecordingListener>());
      stores_.push_back(std::make_unique<MemoryStore>(options, database_, *listeners_.back()));
    }
    Settle(1);
  }
  ~MemoryBackend() override { stores_.clear(); }

  void Settle(int) override {
    for (bool any = true; any;) {
      any = false;
      for (auto& store : stores_) any |= static_cast<MemoryStore&>(*store).RunPending();
    }
  }
  void Wipe() override { database_.Wipe(); }
  void Restart() override { database_.Restart(); }
  void SetPresenceText(const std::string& user_id, const std::string& text) override {
    database_.SetPresenceText(user_id, text);
  }
  void PublishOutside(const std::string& channel, const std::string& text) override {
    database_.PublishOutside(
        channel == "message:broadcast" ? BusChannel::kMessageBroadcast : BusChannel::kPresenceUpdates, text);
  }
  std::optional<int64_t> Ttl(const std::string& key) override { return database_.Ttl(key); }
  std::map<std::string, std::string> Dump() override { return database_.Dump(); }
  std::vector<std::string> DropLapsed() override { return database_.DropLapsed(); }
  void Drop(const std::vector<std::string>&) override {}

 private:
  MemoryDatabase database_;
};

class RedisBackend final : public StoreBackend {
 public:
  RedisBackend(StoreOptions options, int cores) : server_(SharedRedis()) {
    server_.Command({"FLUSHALL"});
    for (int i = 0; i < cores; ++i) {
      options.core_incarnation += static_cast<uint64_t>(i);
      listeners_.push_back(std::make_unique<RecordingListener>());
      stores_.push_back(std::make_unique<RedisStore>(
          io_, RedisStoreOptions{options, *ParseRedisUrl(server_.UnixUrl()), [now = now_] { return *now; }},
          *listeners_.back()));
    }
    for (auto& listener : listeners_) {
      RunUntil([&] { return listener->ups > 0; }, "the store comes up");
    }
  }
  ~RedisBackend() override { stores_.clear(); }

  void Settle(int rounds) override {
    link::v1::BusEnvelope mark;
    mark.mutable_message()->set_room_id(RecordingListener::kMark);
    for (; rounds > 0; --rounds) {
      for (auto& store : stores_) store->Publish(RecordingListener::kMarkId, mark, {});
      marks_ += stores_.size();
      ++rounds_;
      RunUntil(
          [&] {
            return std::all_of(listeners_.begin(), listeners_.end(),
                               [&](auto& l) { return l->marks == marks_ && l->marks_answered == rounds_; });
          },
          "all publications arrive");
    }
  }
  void Wipe() override { server_.Command({"FLUSHALL"}); }
  void Restart() override {
    if (server_.Command({"EXISTS", "presence.sweep"}).number == 1) {
      server_.Command({"HSET", "presence.sweep", "run", "of an earlier run"});
    }
    constexpr char kEarlierRun[] = R"lua(
      for _, key in ipairs(redis.call('KEYS', 'presence.room:*')) do
        redis.call('SET', key, string.sub(redis.call('GET', key), 1, 80) .. 'an earlier run', 'KEEPTTL')
      end
    )lua";
    server_.Command({"EVAL", kEarlierRun, "0"});
  }
  void SetPresenceText(const std::string& user_id, const std::string& text) override {
    server_.Command({"SET", "presence:" + user_id, text});
  }
  void PublishOutside(const std::string& channel, const std::string& text) override {
    server_.Command({"PUBLISH", channel, text});
  }
  std::optional<int64_t> Ttl(const std::string& key) override {
    const int64_t ms = server_.Command({"PTTL", key}).number;
    return ms < 0 ? std::nullopt : std::optional((ms + 999) / 1000);
  }
  std::vector<std::string> DropLapsed() override { return {}; }
  void Drop(const std::vector<std::string>& keys) override {
    for (const std::string& key : keys) server_.Command({"DEL", key});
  }
  std::map<std::string, std::string> Dump() override;

 private:
  template <typename Condition>
  void RunUntil(Condition condition, const char* what) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (!condition()) {
      PRESENCE_CHECK(std::chrono::steady_clock::now() < deadline, what);
      io_.run_one_for(std::chrono::milliseconds(100));
    }
  }

  RedisServer& server_;
  asio::io_context io_;
  uint64_t marks_ = 0, rounds_ = 0;
};

// All keys in one round trip: name, type, TTL and value.
constexpr char kDumpScript[] = R"lua(
  local keys = {}
  for _, key in ipairs(redis.call('KEYS', '*')) do
    local type = redis.call('TYPE', key).ok
    local value
    if type == 'string' then value = {'', redis.call('GET', key)}
    elseif type == 'hash' then value = redis.call('HGETALL', key)
    elseif type == 'stream' then
      value = {}
      for _, entry in ipairs(redis.call('XRANGE', key, '-', '+')) do
        value[#value + 1] = entry[1]
        local upto = struct.unpack('<I8', entry[2][4])
        value[#value + 1] = table.concat({entry[2][1], entry[2][2], entry[2][3], string.format('%.0f', upto)}, ' ')
      end
    else value = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES') end
    keys[#keys + 1] = {key, type, redis.call('TTL', key), value}
  end
  return keys
)lua";

// Of presence.room:{room_id}, without the run.
std::string Numbers(std::string_view bytes, size_t count) {
  std::string words;
  for (size_t i = 0; i < count; ++i) {
    uint64_t number = 0;
    for (size_t byte = 8; byte-- > 0;) number = number << 8 | static_cast<uint8_t>(bytes.at(8 * i + byte));
    words.append(std::to_string(number)).append(" ");
  }
  return words;
}

std::map<std::string, std::string> RedisBackend::Dump() {
  std::map<std::string, std::string> keys;
  for (const RedisValue& row : server_.Command({"EVAL", kDumpScript, "0"}).list) {
    const std::string& key = row.list[0].text;
    std::string& out = keys[key] = row.list[1].text + (row.list[2].number >= 0 ? " mortal" : " immortal");
    std::map<std::string, std::string> sorted;
    const std::vector<RedisValue>& fields = row.list[3].list;
    for (size_t i = 0; i + 1 < fields.size(); i += 2) {
      if (key == "presence.sweep" && fields[i].text == "run") continue;
      const std::string& value = fields[i + 1].text;
      sorted[fields[i].text] = key.starts_with("presence.room:") ? Numbers(value, 10) : value;
    }
    for (const auto& [field, value] : sorted) out += "\n" + field + "=" + value;
  }
  return keys;
}

}  // namespace

RedisServer& SharedRedis() {
  static RedisServer server;
  return server;
}

std::unique_ptr<StoreBackend> StoreBackend::Create(BackendKind kind, const StoreOptions& options, int cores) {
  if (kind == BackendKind::kMemory) return std::make_unique<MemoryBackend>(options, cores);
  return std::make_unique<RedisBackend>(options, cores);
}

}  // namespace presence::core
