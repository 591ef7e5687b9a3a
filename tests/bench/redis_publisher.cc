#include "tests/bench/redis_publisher.h"

#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "tests/bench/client_swarm.h"

namespace presence::bench {
namespace {

void AppendBulk(std::string_view text, std::string* out) {
  out->append("$").append(std::to_string(text.size())).append("\r\n").append(text).append("\r\n");
}

}  // namespace

absl::StatusOr<std::unique_ptr<RedisPublisher>> RedisPublisher::Connect(const std::string& address,
                                                                        const std::string& password) {
  const auto to = ParseAddress(address);
  if (!to.ok()) return to.status();
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return absl::UnavailableError(std::strerror(errno));
  std::unique_ptr<RedisPublisher> publisher(new RedisPublisher(fd));
  if (connect(fd, reinterpret_cast<const sockaddr*>(&*to), sizeof(*to)) != 0) {
    return absl::UnavailableError(absl::StrCat("Redis at ", address, ": ", std::strerror(errno)));
  }
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  if (!password.empty()) {
    publisher->output_ = "*2\r\n";
    AppendBulk("AUTH", &publisher->output_);
    AppendBulk(password, &publisher->output_);
  }
  return publisher;
}

RedisPublisher::~RedisPublisher() {
  close(fd_);
}

void RedisPublisher::Publish(std::string_view channel, std::string_view message) {
  output_ += "*3\r\n";
  AppendBulk("PUBLISH", &output_);
  AppendBulk(channel, &output_);
  AppendBulk(message, &output_);
}

absl::Status RedisPublisher::OnWritable() {
  while (!output_.empty()) {
    const ssize_t sent = send(fd_, output_.data(), output_.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0 && (errno == EAGAIN || errno == EINTR)) return absl::OkStatus();
    if (sent < 0) return absl::UnavailableError(absl::StrCat("Redis: ", std::strerror(errno)));
    output_.erase(0, static_cast<size_t>(sent));
  }
  return absl::OkStatus();
}

absl::Status RedisPublisher::OnReadable() {
  char buffer[16 * 1024];
  const ssize_t got = recv(fd_, buffer, sizeof(buffer), MSG_DONTWAIT);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return absl::OkStatus();
  if (got <= 0) return absl::UnavailableError("Redis closed the connection");
  input_.append(buffer, static_cast<size_t>(got));
  size_t at = 0;
  for (size_t end = input_.find("\r\n"); end != std::string::npos; end = input_.find("\r\n", at)) {
    if (absl::Status status = HandleReply(std::string_view(input_).substr(at, end - at)); !status.ok()) return status;
    at = end + 2;
  }
  input_.erase(0, at);
  return absl::OkStatus();
}

absl::Status RedisPublisher::HandleReply(std::string_view line) {
  if (line == ":0") return absl::FailedPreconditionError("nobody listens on that channel of this Redis");
  if (!line.empty() && line[0] == '-') {
    return absl::FailedPreconditionError(absl::string_view(line.data() + 1, line.size() - 1));
  }
  return absl::OkStatus();
}

}  // namespace presence::bench
