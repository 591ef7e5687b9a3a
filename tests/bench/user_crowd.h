// WebSocket clients in a thread of their own, each a user of its own: bench-0, bench-1... They ping, so that they stay online, and
// count the messages that come.
//
// Made, asked and destroyed by one thread. Its own CPU time can be told from that of the process.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tests/bench/client_swarm.h"

namespace presence::bench {

std::string UserId(size_t number);

class UserCrowd final : private SwarmHandler {
 public:
  struct Options {
    std::string edge;         // address
    std::string signing_key;  // file
    size_t users = 0;
    std::string room;  // they subscribe to it; empty: to none
  };

  // Returns when all are connected, and subscribed.
  static absl::StatusOr<std::unique_ptr<UserCrowd>> Open(Options options);
  ~UserCrowd() override;  // says goodbye
  UserCrowd(const UserCrowd&) = delete;
  UserCrowd& operator=(const UserCrowd&) = delete;

  uint64_t messages() const { return messages_.load(); }
  // Of its thread.
  double CpuSeconds();
  // What has gone wrong since: a connection was closed, or the thread has given up.
  absl::Status status() const;

 private:
  explicit UserCrowd(Options options) : options_(std::move(options)) {}
  absl::Status Connect();
  void Run();
  void OnText(size_t connection, std::string_view text) override;
  void OnClosed(size_t connection, uint16_t code, std::string_view reason) override;

  const Options options_;
  std::vector<std::string> tokens_;
  std::unique_ptr<ClientSwarm> swarm_;
  size_t subscribed_ = 0;  // before the thread
  std::atomic<uint64_t> messages_{0}, closed_{0};
  std::atomic<bool> failed_{false}, stop_{false};
  std::thread thread_;
};

}  // namespace presence::bench
