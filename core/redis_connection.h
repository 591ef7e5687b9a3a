// One connection to Redis, kept up for ever: dialled, greeted (AUTH, SELECT, CLIENT SETNAME), watched, and dialled
// again with backoff when it is lost. Either for commands, answered in order, or for subscriptions.
// redis_connection.cc is the only file that sees hiredis.
//
// Lives on the thread of its io_context, and never blocks it, except that hiredis resolves names with getaddrinfo:
// REDIS_URL should name an address or something in /etc/hosts where that matters. Never throws. Bounded: kCommandsMax
// commands wait for an answer at most, and the connection is lost when none of them has come for kAnswerMax. A Redis that is merely
// slow keeps it: to drop what waits and ask all of it again would only give it more to do. The process must ignore SIGPIPE.
//
// Does not do: TLS (a tunnel such as stunnel, beside the service, does), RESP3, asking Sentinels (redis_sentinels.h; it is told where to go
// by MoveTo).
#pragma once

#include <asio/io_context.hpp>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

struct redisReply;

namespace presence::core {

struct RedisAddress {
  std::string host;  // or
  std::string unix_path;
  uint16_t port = 6379;
  std::string user, password;  // empty: no AUTH
  uint32_t database = 0;

  std::string ToString() const;  // for logs: without the password
  bool known() const { return !host.empty() || !unix_path.empty(); }
  friend bool operator==(const RedisAddress&, const RedisAddress&) = default;
};

// redis://[[user]:password@]host[:port][/database], where user and password may hold %XX, an IPv6 host stands in
// brackets; or unix:///path/to/redis.sock[?db=N]. INVALID_ARGUMENT says what is wrong and what to write instead.
absl::StatusOr<RedisAddress> ParseRedisUrl(std::string_view url);

// A reply, as long as the callback runs that got it.
class RedisReply {
 public:
  RedisReply() = default;
  explicit RedisReply(const ::redisReply* reply) : reply_(reply) {}

  bool lost() const { return reply_ == nullptr; }  // the connection broke, or there was no answer in time
  bool is_error() const;
  bool is_text() const;  // a string or a status
  bool is_number() const;
  bool is_list() const;
  std::string_view text() const;  // of strings, statuses and errors; else empty
  int64_t number() const;         // of numbers; else 0
  size_t size() const;            // of lists; else 0
  RedisReply operator[](size_t index) const;

 private:
  const ::redisReply* reply_ = nullptr;
};

// A command, written as it goes onto the wire. To be used again and again: it keeps its memory.
class RedisCommand {
 public:
  RedisCommand& Start(size_t arguments);  // the name included
  RedisCommand& Add(std::string_view argument);
  RedisCommand& Add(int64_t number);
  RedisCommand& Add(uint64_t number);
  RedisCommand& AddWritten(std::string_view written);  // arguments as another command has written them
  std::string_view text() const { return text_; }

  static void AppendArgument(std::string_view argument, std::string* out);

 private:
  std::string text_;
};

class RedisConnection {
 public:
  static constexpr size_t kCommandsMax = 20'000;
  static constexpr std::chrono::milliseconds kConnectMax{2000};
  static constexpr std::chrono::milliseconds kAnswerMax{2000};
  // A subscription hears something at least once a second: its owner sees to that.
  static constexpr std::chrono::milliseconds kSilenceMax{3000};
  static constexpr std::chrono::milliseconds kBackoffMin{100}, kBackoffMax{2000};

  struct Options {
    RedisAddress address;               // not known: nothing is dialled before MoveTo
    std::string name;                   // CLIENT SETNAME
    std::vector<std::string> channels;  // not empty: a connection for subscriptions
  };

  class Listener {
   public:
    virtual ~Listener() = default;
    // Commands may be sent; or: all channels are subscribed.
    virtual void OnConnectionReady(RedisConnection& connection) = 0;
    // Also for a connection that did not get ready. What waits for an answer is answered `lost` after this.
    virtual void OnConnectionLost(RedisConnection& connection, std::string_view why) = 0;
    virtual void OnMessage(std::string_view channel, std::string_view payload) = 0;
  };

  using Done = std::function<void(RedisReply)>;

  // Dials when the io_context runs. The listener must outlive the connection. Destroying it tells nobody anything.
  RedisConnection(asio::io_context& io, Options options, Listener& listener);
  ~RedisConnection();
  RedisConnection(const RedisConnection&) = delete;
  RedisConnection& operator=(const RedisConnection&) = delete;

  bool ready() const;

  // False: not ready, or kCommandsMax are waiting; then `done` will not be called. Otherwise it is called exactly
  // once, never from inside. It may be empty.
  bool Send(const RedisCommand& command, Done done);

  // Gives the connection up and dials again.
  void Drop(std::string_view why);

  // From now on this address, dialled at once. Nothing happens when it is that already. Not from inside a callback of this connection.
  void MoveTo(RedisAddress address);

 private:
  class State;
  std::shared_ptr<State> state_;
};

}  // namespace presence::core
