// A real redis-server process for one test program: on a unix socket in a temporary directory and on a free TCP port,
// without persistence. Killed, and its directory removed, at the end, also when the test program dies.
//
// Blocking, one thread. What cannot be done ends the program with a reason: it is the test's own environment that is
// broken.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

namespace presence {

struct RedisValue {
  std::string text;  // strings, statuses; errors start with "-"
  int64_t number = 0;
  bool nil = false;
  std::vector<RedisValue> list;
};

class RedisServer {
 public:
  static bool Available();  // is redis-server installed?

  explicit RedisServer(std::vector<std::string> further_arguments = {});
  ~RedisServer();
  RedisServer(const RedisServer&) = delete;
  RedisServer& operator=(const RedisServer&) = delete;

  std::string UnixUrl() const { return "unix://" + directory_ + "/redis.sock"; }
  uint16_t port() const { return port_; }

  void Start();  // again, after Kill, with nothing in it
  void Kill();   // SIGKILL
  void Stall();  // SIGSTOP
  void Resume();

  // On a connection of its own.
  RedisValue Command(const std::vector<std::string>& arguments);

 private:
  bool Connect();

  const std::vector<std::string> further_arguments_;
  std::string directory_;
  uint16_t port_ = 0;
  pid_t process_ = -1;
  void* connection_ = nullptr;  // redisContext
};

}  // namespace presence
