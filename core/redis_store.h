// The store on Redis: two connections, one for commands and one for subscriptions, and one script for every
// transition.
//
// Lives on the thread of its io_context. Up while both connections stand; when one is lost it says OnStoreDown, dials
// again, and says OnStoreUp when both stand again. While only the subscription is lost, calls are still answered from
// Redis.
//
// Each second it publishes an empty message to itself, on presence.echo:{core_incarnation}: the proof that commands,
// Redis and subscription work, end to end. What is not answered within 2 s, or 3 s without an echo, ends the
// connection.
//
// A reply that says that this Redis cannot serve at all (a replica, still loading, or without the script after SCRIPT
// FLUSH) ends the connection, too: dialling again loads the script and judges the server anew, and the callers learn
// from OnStoreUp to repeat. Repeating single calls here could change their order.
#pragma once

#include <asio/io_context.hpp>
#include <asio/steady_timer.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "common/time.h"
#include "core/redis_connection.h"
#include "core/store.h"

namespace presence::core {

struct RedisStoreOptions {
  StoreOptions store;
  RedisAddress address;
  std::function<WallTime()> clock;  // for tests; empty: Redis' own
};

class RedisStore final : public Store, private RedisConnection::Listener {
 public:
  struct Counters {
    uint64_t bus_invalid = 0;       // payloads on presence.bus that are no BusEnvelope: dropped
    uint64_t commands_refused = 0;  // too many were waiting, or Redis answered with an error
    uint64_t connections_lost = 0;
    uint64_t sweeps_failed = 0;  // of single users, put off
  };

  // Dials when the io_context runs. The listener must outlive the store.
  RedisStore(asio::io_context& io, RedisStoreOptions options, StoreListener& listener);
  ~RedisStore() override;

  const Counters& counters() const { return counters_; }

  void Write(const PresenceWrite& write) override;
  void Refresh(uint64_t id, absl::Span<const RefreshEntry> entries) override;
  void Sweep(int users_max) override;
  void SetTyping(std::string_view room_id, std::string_view user_id, std::string_view username) override;
  void Publish(uint64_t id, const link::v1::BusEnvelope& envelope, std::string_view outside) override;
  void GetPresence(std::string_view user_id, std::function<void(absl::StatusOr<StoredPresence>)> done) override;
  void ListPresence(std::string_view after_user_id, uint32_t limit,
                    std::function<void(absl::StatusOr<PresencePage>)> done) override;
  void ReadChanges(uint64_t id, uint64_t since_version) override;

 private:
  struct ListCall;
  struct ChangesCall;

  void OnConnectionReady(RedisConnection& connection) override;
  void OnConnectionLost(RedisConnection& connection, std::string_view why) override;
  void OnMessage(std::string_view channel, std::string_view payload) override;

  // --- coming up
  void InspectServer();
  // For what a store cannot do without: false when `reply` is of no use, and the connection is dropped, saying why.
  bool Granted(RedisReply reply, std::string_view what);
  void OnServerInfo(std::string_view info);
  void GoUpWhenReady();
  void Echo();

  // --- calls
  RedisCommand& StartScript(std::string_view operation, size_t arguments);
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
  const std::string echo_channel_;
  RedisConnection commands_, subscription_;
  asio::steady_timer echo_timer_;
  std::string run_id_;           // of the server that the command connection reaches
  std::string previous_run_id_;  // of the one when this store last came up
  std::string script_head_;      // EVALSHA, hash, 0: as written on the wire
  std::string script_options_;   // what every call of the script gets
  RedisCommand command_;         // the one being written
  std::string user_json_, username_json_, rooms_;
  link::v1::BusEnvelope envelope_;
  std::string envelope_bytes_;
  bool inspected_ = false;  // the command connection is ready for calls
  bool sweeping_ = false;   // one at a time, see Sweep
  bool sweep_known_ = false;
  std::string sweep_run_;
  bool up_ = false;
  std::string last_loss_;  // why a connection was lost; logged when it is another reason than before
  Counters counters_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace presence::core
