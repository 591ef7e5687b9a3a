// Finds the primary Redis by asking Sentinels, and says when it is another one. Asks each of them once a second, over connections that
// are kept up; asks at once when somebody has lost the primary.
//
// Lives on the thread of its io_context, and never blocks it. Bounded: two commands a second and Sentinel. When no Sentinel answers,
// nothing is said: whoever is connected to a primary stays there.
//
// Does not judge whether the primary is well: Sentinel does (its down-after-milliseconds), and the connection's own watch.
#pragma once

#include <asio/io_context.hpp>
#include <asio/steady_timer.hpp>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "core/primary_choice.h"
#include "core/redis_connection.h"

namespace presence::core {

struct SentinelOptions {
  std::vector<RedisAddress> sentinels;  // with the password of the Sentinels, if they want one
  std::string primary_name;             // as the Sentinels call it: `sentinel monitor NAME ...`

  bool empty() const { return sentinels.empty(); }
};

// "host:port" or "[v6]:port"; without a port 26379. INVALID_ARGUMENT says what is wrong.
absl::StatusOr<RedisAddress> ParseSentinel(std::string_view text);

// What a connection begins with that Sentinels send on: user, password and database of `address`, and no host if there are Sentinels.
RedisAddress BeforeSentinels(RedisAddress address, const SentinelOptions& sentinels);
// The primary, with user, password and database of `address`.
RedisAddress AtPrimary(RedisAddress address, const PrimaryWord& primary);

class RedisSentinels final : private RedisConnection::Listener {
 public:
  // `moved` is called when the primary is known for the first time, and whenever it is another one; never from inside a call of this
  // class. Dials when the io_context runs.
  RedisSentinels(asio::io_context& io, SentinelOptions options, std::function<void(const PrimaryWord&)> moved);
  ~RedisSentinels() override;

  // Asks all of them now.
  void Ask();

 private:
  struct Sentinel {
    std::unique_ptr<RedisConnection> connection;
    std::string address;  // for logs
    PrimaryWord word;     // the host and port of an answer whose epoch is still to come
    bool asked = false;   // and not answered yet
  };

  void OnConnectionReady(RedisConnection& connection) override;
  void OnConnectionLost(RedisConnection& connection, std::string_view why) override;
  void OnMessage(std::string_view, std::string_view) override {}

  void AskEachSecond();
  void Ask(size_t index);
  void OnAddress(size_t index, RedisReply reply);
  void OnDetails(size_t index, RedisReply reply);

  const SentinelOptions options_;
  const std::function<void(const PrimaryWord&)> moved_;
  PrimaryChoice choice_;
  std::vector<Sentinel> sentinels_;
  asio::steady_timer timer_;
  RedisCommand command_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace presence::core
