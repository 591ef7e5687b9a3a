// PUBLISH over one non-blocking socket, pipelined, with as much of RESP as that needs.
//
// One thread. The owner watches fd() (readable always, writable while wants_write()) and calls the two On... methods.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace presence::bench {

class RedisPublisher {
 public:
  // Blocks for the connection, not afterwards. `address`: IPv4:port. `password`: may be empty.
  static absl::StatusOr<std::unique_ptr<RedisPublisher>> Connect(const std::string& address,
                                                                 const std::string& password);
  ~RedisPublisher();
  RedisPublisher(const RedisPublisher&) = delete;
  RedisPublisher& operator=(const RedisPublisher&) = delete;

  void Publish(std::string_view channel, std::string_view message);
  int fd() const { return fd_; }
  bool wants_write() const { return !output_.empty(); }

  // UNAVAILABLE: the connection is lost. FAILED_PRECONDITION: Redis answered with an error, or nobody listens on the
  // channel.
  absl::Status OnReadable();
  absl::Status OnWritable();

 private:
  explicit RedisPublisher(int fd) : fd_(fd) {}
  absl::Status HandleReply(std::string_view line);

  const int fd_;
  std::string output_;
  std::string input_;
};

}  // namespace presence::bench
