// The store on Redis: two connections, one for commands and one for subscriptions, and a script for whatever must be
// atomic: one for every transition, one for what is published once, one for who is live, one for logouts.
//
// With Sentinels it goes where they say the primary is, and follows them to another one: that is a loss of the connection and, since the
// run id differs, of state, as after any restart of Redis: all is asserted again.
//
// Lives on the thread of its io_context. Up while both connections stand; when one is lost it says OnStoreDown, dials
// again, and says OnStoreUp when both stand again. While only the subscription is lost, calls are still answered from
// Redis.
//
// Each second it publishes an empty message to itself, on presence.echo:{core_incarnation}: the proof that commands,
// Redis and subscription work, end to end. What is not answered within 2 s, or 3 s without an echo, ends the
// connection.
//
// A reply that says that this Redis cannot serve at all (a replica, still loading, or without a script after SCRIPT
// FLUSH) ends the connection, too: dialling again loads the scripts and judges the server anew, and the callers learn
// from OnStoreUp to repeat. Repeating single calls here could change their order.
#pragma once

#include <asio/io_context.hpp>
#include <asio/steady_timer.hpp>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "common/time.h"
#include "core/core_text.h"
#include "core/redis_connection.h"
#include "core/redis_counters.h"
#include "core/redis_sentinels.h"
#include "core/store.h"

namespace presence::core {

struct RedisStoreOptions {
  StoreOptions store;
  RedisAddress address;               // with Sentinels: user, password and database alone
  std::function<WallTime()> clock;    // for tests; empty: Redis' own
  RedisCounters* counters = nullptr;  // outlive the store; null: its own
  SentinelOptions sentinels{};        // empty: `address` is the primary
};

class RedisStore final : public Store, private RedisConnection::Listener {
 public:
  // Dials when the io_context runs. The listener must outlive the store.
  RedisStore(asio::io_context& io, RedisStoreOptions options, StoreListener& listener);
  ~RedisStore() override;

  const RedisCounters& counters() const { return counters_; }

  void Write(const PresenceWrite& write) override;
  void Refresh(uint64_t id, absl::Span<const RefreshEntry> entries) override;
  void Sweep(int users_max) override;
  void SetTyping(std::string_view room_id, std::string_view user_id, std::string_view username) override;
  void Publish(uint64_t id, const link::v1::BusEnvelope& envelope, std::string_view outside) override;
  void PublishOnce(uint64_t id, std::string_view request_id, std::string_view fingerprint,
                   const link::v1::BusEnvelope& envelope, std::string_view outside) override;
  void Append(uint64_t id, std::string_view request_id, std::string_view fingerprint,
              const link::v1::BusEnvelope& envelope, std::string_view outside) override;
  void ReadRoomLog(uint64_t id, const RoomLogQuery& query) override;
  void SaveAnswer(std::string_view request_id, std::string_view answer) override;
  void KeepLogout(uint64_t id, const Logout& logout) override;
  void ReadLogouts(std::chrono::milliseconds within) override;
  void Announce() override;
  void Withdraw() override;
  void Reply(uint64_t core, const link::v1::ClusterReplies& replies) override;
  void GetPresence(std::string_view user_id, std::function<void(absl::StatusOr<StoredPresence>)> done) override;
  void GetPresences(absl::Span<const std::string> user_ids,
                    std::function<void(absl::StatusOr<std::vector<StoredPresence>>)> done) override;
  void ListPresence(std::string_view after_user_id, uint32_t limit,
                    std::function<void(absl::StatusOr<PresencePage>)> done) override;
  void ReadChanges(uint64_t id, uint64_t since_version) override;

 private:
  static constexpr std::string_view kBusChannel = "presence.bus";
  static constexpr std::string_view kMessagesChannel = "message:broadcast";
  static constexpr std::string_view kUpdatesChannel = "presence:updates";
  static constexpr std::string_view kCoresKey = "presence.cores";
  static constexpr std::string_view kLogoutsKey = "presence.logouts";
  static std::string RequestKey(std::string_view request_id) {
    return std::string("presence.request:").append(request_id);
  }
  static std::string RepliesChannel(uint64_t core) { return "presence.core:" + FormatCore(core); }

  struct ListCall;
  struct ChangesCall;

  void OnConnectionReady(RedisConnection& connection) override;
  void OnConnectionLost(RedisConnection& connection, std::string_view why) override;
  void OnMessage(std::string_view channel, std::string_view payload) override;

  // --- coming up
  void InspectServer();
  void LoadScript(std::string_view text, std::string* head);
  // For what a store cannot do without: false when `reply` is of no use, and the connection is dropped, saying why.
  bool Granted(RedisReply reply, std::string_view what);
  void OnServerInfo(std::string_view info);
  void FollowSentinels();
  void GoUpWhenReady();
  void Echo();

  // --- calls
  RedisCommand& StartTransition(std::string_view operation, size_t arguments);
  // Of a script with one key: StartTransition is that of the one without.
  RedisCommand& StartScript(std::string_view head, std::string_view key, size_t arguments);
  // With message_bytes_.
  RedisCommand& StartRoomLog(std::string_view operation, std::string_view room_id, std::string_view request_id,
                             size_t arguments);
  RedisCommand& AddTime();  // the test's, or nothing
  std::string_view EscapedOrEmpty(std::string_view text, std::string* scratch);
  void RefreshPart(absl::Span<const RefreshEntry> entries, RedisConnection::Done done);
  // Sends command_. When that cannot be, `done` gets a lost reply later.
  void Send(RedisConnection::Done done);
  // True when the reply is of use. Otherwise it is counted, and a server that cannot serve is left.
  bool Usable(RedisReply reply);
  void Later(std::function<void()> tell);

  // --- reads in several rounds
  void ListRound(std::shared_ptr<ListCall> call);
  void OnListed(std::shared_ptr<ListCall> call, RedisReply ids);
  void ListEverybody(std::shared_ptr<ChangesCall> call, std::string_view after_user_id);
  void ReadUsers(std::shared_ptr<ChangesCall> call);

  asio::io_context& io_;
  const RedisStoreOptions options_;
  StoreListener& listener_;
  RedisCounters own_counters_;
  RedisCounters& counters_;
  const std::string core_;  // as it is written in Redis
  const std::string echo_channel_, replies_channel_;
  RedisConnection commands_, subscription_;
  std::unique_ptr<RedisSentinels> sentinels_;  // null: there are none
  asio::steady_timer echo_timer_;
  std::string run_id_;           // of the server that the command connection reaches
  std::string previous_run_id_;  // of the one when this store last came up
  // EVALSHA and the hash, as written on the wire.
  std::string transition_head_, publish_once_head_, room_log_head_, announce_head_, keep_logout_head_;
  std::string transition_options_;  // what every transition gets
  RedisCommand command_;            // the one being written
  std::string user_json_, username_json_, rooms_;
  link::v1::BusEnvelope envelope_;
  link::v1::ClusterReplies replies_;
  std::string message_bytes_;
  bool inspected_ = false;  // the command connection is ready for calls
  bool sweeping_ = false;   // one at a time, see Sweep
  bool sweep_known_ = false;
  std::string sweep_run_;
  bool up_ = false;
  std::string last_loss_;  // why a connection was lost; logged when it is another reason than before
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace presence::core
