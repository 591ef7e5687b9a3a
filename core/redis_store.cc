#include "core/redis_store.h"

#include <algorithm>
#include <asio/post.hpp>
#include <chrono>
#include <utility>

#include "common/connection_id.h"
#include "common/json.h"
#include "common/log.h"
#include "core/redis_scripts.h"

namespace presence::core {
namespace {

constexpr std::chrono::seconds kEchoEvery{1};
// At about 10 us for each user, one call of the script stays well below 5 ms. A user with thousands of connections
// costs some 2 us for each of them, once per call.
constexpr size_t kRefreshesPerCall = 256;
// What StartTransition writes in front of an operation's own arguments: EVALSHA, hash, 0, operation, time and nine
// options.
constexpr size_t kTransitionArguments = 14;

// The value behind "name:" at the start of a line of INFO.
std::string_view InfoValue(std::string_view info, std::string_view name) {
  for (size_t at = info.find(name); at != std::string_view::npos; at = info.find(name, at + 1)) {
    const bool line_start = at == 0 || info[at - 1] == '\n';
    if (!line_start || info.substr(at + name.size(), 1) != ":") continue;
    const std::string_view rest = info.substr(at + name.size() + 1);
    return rest.substr(0, rest.find_first_of("\r\n"));
  }
  return {};
}

// Errors of the server as a whole, not of one call.
bool CannotServe(std::string_view error) {
  for (const std::string_view prefix : {"NOSCRIPT", "READONLY", "LOADING", "MASTERDOWN", "NOAUTH"}) {
    if (error.starts_with(prefix)) return true;
  }
  return false;
}

// What a write is answered.
constexpr WriteResult::Outcome kWriteOutcomes[] = {WriteResult::Outcome::kFenced, WriteResult::Outcome::kApplied,
                                                   WriteResult::Outcome::kRevoked, WriteResult::Outcome::kTooMany};

std::string_view KindName(PresenceWrite::Kind kind) {
  switch (kind) {
    case PresenceWrite::Kind::kAssert:
      return "assert";
    case PresenceWrite::Kind::kReassert:
      return "reassert";
    case PresenceWrite::Kind::kRemove:
      return "remove";
    case PresenceWrite::Kind::kLinger:
      return "linger";
  }
  return {};
}

}  // namespace

RedisStore::RedisStore(asio::io_context& io, RedisStoreOptions options, StoreListener& listener)
    : io_(io),
      options_(std::move(options)),
      listener_(listener),
      counters_(options_.counters != nullptr ? *options_.counters : own_counters_),
      core_(FormatCore(options_.store.core_incarnation)),
      echo_channel_("presence.echo:" + core_),
      replies_channel_(RepliesChannel(options_.store.core_incarnation)),
      commands_(io, {BeforeSentinels(options_.address, options_.sentinels), "presence-core", {}}, *this),
      subscription_(io,
                    {BeforeSentinels(options_.address, options_.sentinels),
                     "presence-core",
                     {std::string(kBusChannel), std::string(kMessagesChannel), std::string(kUpdatesChannel),
                      replies_channel_, echo_channel_}},
                    *this),
      echo_timer_(io) {
  if (!options_.sentinels.empty()) FollowSentinels();
  Echo();
}

RedisStore::~RedisStore() {
  *alive_ = false;
}

void RedisStore::FollowSentinels() {
  sentinels_ = std::make_unique<RedisSentinels>(io_, options_.sentinels, [this](const PrimaryWord& primary) {
    const RedisAddress address = AtPrimary(options_.address, primary);
    commands_.MoveTo(address);
    subscription_.MoveTo(address);
  });
}

// ----------------------------------------------------------------------------------------------------- coming up

void RedisStore::OnConnectionReady(RedisConnection& connection) {
  if (&connection == &commands_) {
    InspectServer();
  } else {
    GoUpWhenReady();
  }
}

void RedisStore::InspectServer() {
  command_.Start(1).Add("INFO");
  Send([this](RedisReply reply) {
    if (Granted(reply, "INFO")) OnServerInfo(reply.text());
  });
  LoadScript(kPresenceTransitionScript, &transition_head_);
  LoadScript(kPublishOnceScript, &publish_once_head_);
  LoadScript(kRoomLogScript, &room_log_head_);
  LoadScript(kAnnounceCoreScript, &announce_head_);
  LoadScript(kKeepLogoutScript, &keep_logout_head_);
  command_.Start(3).Add("HGET").Add("presence.sweep").Add("run");
  Send([this](RedisReply reply) {
    if (!Granted(reply, "HGET presence.sweep")) return;
    sweep_known_ = reply.is_text();
    sweep_run_ = reply.text();
    inspected_ = true;
    GoUpWhenReady();
  });
}

void RedisStore::LoadScript(std::string_view text, std::string* head) {
  command_.Start(3).Add("SCRIPT").Add("LOAD").Add(text);
  Send([this, head](RedisReply reply) {
    if (!Granted(reply, "a script")) return;
    head->clear();
    RedisCommand::AppendArgument("EVALSHA", head);
    RedisCommand::AppendArgument(reply.text(), head);
  });
}

bool RedisStore::Granted(RedisReply reply, std::string_view what) {
  if (Usable(reply)) return true;
  if (!reply.lost()) {
    commands_.Drop(std::string("Redis refuses ").append(what).append(": ").append(reply.text()));
  }
  return false;
}

void RedisStore::OnServerInfo(std::string_view info) {
  if (const std::string_view role = InfoValue(info, "role"); role != "master") {
    commands_.Drop("this Redis is a " + std::string(role) + ", not a primary: REDIS_URL must name the primary");
    return;
  }
  run_id_ = InfoValue(info, "run_id");
  const StoreOptions& store = options_.store;
  transition_options_.clear();
  const auto add = [this](std::string_view argument) { RedisCommand::AppendArgument(argument, &transition_options_); };
  add(run_id_);
  add(core_);
  add(std::to_string(store.presence_ttl.count()));
  add(std::to_string(store.entry_lifetime.count()));
  add(std::to_string(store.tombstone_lifetime.count()));
  add(std::to_string(store.quiet_period.count()));
  add(std::to_string(store.sweep_gap_max.count()));
  add(std::to_string(std::chrono::milliseconds(store.change_log_lifetime).count()));
  add(std::to_string(store.connections_per_user_max));
}

void RedisStore::GoUpWhenReady() {
  if (up_ || !inspected_ || !subscription_.ready()) return;
  const bool first_time = previous_run_id_.empty();
  const bool lost_state = !sweep_known_ || run_id_ != (first_time ? sweep_run_ : previous_run_id_);
  previous_run_id_ = run_id_;
  sweep_known_ = true;  // said once; a subscription that comes back is no news of the state
  up_ = true;
  last_loss_.clear();
  listener_.OnStoreUp(lost_state);
}

void RedisStore::OnConnectionLost(RedisConnection& connection, std::string_view why) {
  counters_.connections_lost.Add();
  if (&connection == &commands_) inspected_ = false;
  const bool news = why != last_loss_;
  last_loss_ = why;
  if (sentinels_ != nullptr) sentinels_->Ask();
  if (std::exchange(up_, false)) {
    listener_.OnStoreDown(why);
  } else if (news) {
    log::Warning("No connection to Redis, trying on: {}", Escaped(why));
  }
}

void RedisStore::Echo() {
  if (inspected_) {
    command_.Start(3).Add("PUBLISH").Add(echo_channel_).Add("");
    Send(nullptr);
  }
  echo_timer_.expires_after(kEchoEvery);
  echo_timer_.async_wait([this, alive = alive_](const asio::error_code& error) {
    if (!error && *alive) Echo();
  });
}

void RedisStore::OnMessage(std::string_view channel, std::string_view payload) {
  if (channel == kBusChannel) {
    if (!envelope_.ParseFromArray(payload.data(), static_cast<int>(payload.size()))) {
      counters_.bus_invalid.Add();
      return;
    }
    listener_.OnBus(envelope_);
  } else if (channel == replies_channel_) {
    if (!replies_.ParseFromArray(payload.data(), static_cast<int>(payload.size()))) {
      counters_.replies_invalid.Add();
      return;
    }
    listener_.OnReplies(replies_);
  } else if (channel == kMessagesChannel) {
    listener_.OnOutsideMessage(payload);
  } else if (channel == kUpdatesChannel) {
    listener_.OnOutsidePresence(payload);
  }
}

// --------------------------------------------------------------------------------------------------------- calls

void RedisStore::Write(const PresenceWrite& write) {
  rooms_.clear();
  if (!write.room_ids.empty()) {
    std::vector<std::string_view> rooms(write.room_ids.begin(), write.room_ids.end());
    std::sort(rooms.begin(), rooms.end());
    rooms.erase(std::unique(rooms.begin(), rooms.end()), rooms.end());
    for (const std::string_view room : rooms) rooms_.append(1, '\0').append(room);
  }
  StartTransition("write", 16)
      .Add(KindName(write.kind))
      .Add(ConnectionName(write.key.incarnation, write.key.connection))
      .Add(write.attach)
      .Add(write.user_id)
      .Add(EscapedOrEmpty(write.user_id, &user_json_))
      .Add(write.username)
      .Add(EscapedOrEmpty(write.username, &username_json_))
      .Add(int64_t{write.status})
      .Add(int64_t{write.silent_for.count()})
      .Add(rooms_)
      .Add(int64_t{write.previous_status})
      .Add(write.previous_version)
      .Add(write.session_id)
      .Add(write.issued_at_ms)
      .Add(write.newcomer ? "1" : "")
      .Add(int64_t{write.linger_for.count()});
  Send([this, id = write.id](RedisReply reply) {
    WriteResult result;
    if (Usable(reply) && reply.size() == 3) {
      const auto outcome = static_cast<uint64_t>(reply[0].number());
      if (outcome < std::size(kWriteOutcomes)) result.outcome = kWriteOutcomes[outcome];
      result.user_status = static_cast<Status>(reply[1].number());
      result.user_version = static_cast<uint64_t>(reply[2].number());
    }
    listener_.OnWritten(id, result);
  });
}

void RedisStore::Refresh(uint64_t id, absl::Span<const RefreshEntry> entries) {
  const auto missing = std::make_shared<std::vector<uint32_t>>();
  size_t start = 0;
  do {
    const auto part = entries.subspan(start, kRefreshesPerCall);
    const bool last = start + part.size() == entries.size();
    RefreshPart(part, [this, id, missing, start, last](RedisReply reply) {
      Usable(reply);  // counts
      for (size_t i = 0; i < reply.size(); ++i) {
        missing->push_back(static_cast<uint32_t>(start + static_cast<size_t>(reply[i].number())));
      }
      if (last) listener_.OnRefreshed(id, *missing);
    });
    start += part.size();
  } while (start < entries.size());
}

void RedisStore::RefreshPart(absl::Span<const RefreshEntry> entries, RedisConnection::Done done) {
  StartTransition("refresh", 4 * entries.size());
  for (const RefreshEntry& entry : entries) {
    command_.Add(entry.user_id)
        .Add(ConnectionName(entry.key.incarnation, entry.key.connection))
        .Add(entry.attach)
        .Add(entry.pinged ? "1" : "");
  }
  Send(std::move(done));
}

void RedisStore::Sweep(int users_max) {
  if (sweeping_) return;  // it goes on by itself, and each of its calls touches the sweep key
  sweeping_ = true;
  StartTransition("sweep", 1).Add(int64_t{users_max});
  Send([this, users_max](RedisReply reply) {
    sweeping_ = false;
    if (!Usable(reply)) return;
    if (const int64_t failed = reply[1].number(); failed > 0) {
      counters_.sweeps_failed.Add(static_cast<uint64_t>(failed));
      static log::LineLimit limit("users that a sweep cannot end", 1, 5);
      if (limit.Admit(log::Level::kWarning)) log::Warning("The sweep could not end {} users, later again", failed);
    }
    if (up_ && users_max > 0 && reply[0].number() == users_max) Sweep(users_max);
  });
}

void RedisStore::SetTyping(std::string_view room_id, std::string_view user_id, std::string_view username) {
  std::string key = "typing:";
  key.append(room_id).append(":").append(user_id);
  command_.Start(4).Add("SETEX").Add(key).Add(int64_t{options_.store.typing_ttl.count()}).Add(username);
  Send([this](RedisReply reply) { Usable(reply); });
}

RedisCommand& RedisStore::StartTransition(std::string_view operation, size_t arguments) {
  command_.Start(kTransitionArguments + arguments).AddWritten(transition_head_).Add("0").Add(operation);
  return AddTime().AddWritten(transition_options_);
}

RedisCommand& RedisStore::StartScript(std::string_view head, std::string_view key, size_t arguments) {
  return command_.Start(4 + arguments).AddWritten(head).Add("1").Add(key);
}

RedisCommand& RedisStore::AddTime() {
  if (!options_.clock) return command_.Add("");
  const auto time = std::chrono::floor<std::chrono::microseconds>(options_.clock().time_since_epoch());
  return command_.Add(int64_t{time.count()});
}

std::string_view RedisStore::EscapedOrEmpty(std::string_view text, std::string* scratch) {
  scratch->clear();
  AppendJsonString(text, scratch);
  return scratch->size() == text.size() + 2 ? std::string_view() : *scratch;
}

void RedisStore::Send(RedisConnection::Done done) {
  if (commands_.Send(command_, done) || !done) return;
  counters_.commands_refused.Add();
  Later([done = std::move(done)] { done(RedisReply()); });
}

bool RedisStore::Usable(RedisReply reply) {
  if (reply.lost()) return false;
  if (!reply.is_error()) return true;
  counters_.errors.Add();
  static log::LineLimit limit("errors from Redis", 1, 5);
  if (limit.Admit(log::Level::kWarning)) log::Warning("Redis answered: {}", Escaped(reply.text()));
  if (CannotServe(reply.text())) {
    // Not from inside: this reply's own answer comes before those of the calls behind it.
    Later([this, why = std::string(reply.text())] { commands_.Drop(why); });
  }
  return false;
}

void RedisStore::Later(std::function<void()> tell) {
  asio::post(io_, [tell = std::move(tell), alive = alive_] {
    if (*alive) tell();
  });
}

}  // namespace presence::core
