#include "tests/bench/client_swarm.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"

namespace presence::bench {
namespace {

constexpr size_t kReadBytes = 256 * 1024;
constexpr uint64_t kWatchedTag = ~uint64_t{0};
constexpr uint8_t kFin = 0x80, kText = 0x1, kClose = 0x8, kPing = 0x9, kPong = 0xA;
constexpr std::array<char, 4> kMask = {'\x5a', '\x0f', '\x33', '\x3c'};
constexpr uint16_t kNoCloseFrame = 1006;

absl::Status SystemError(const char* what) {
  return absl::UnavailableError(absl::StrCat(what, ": ", std::strerror(errno)));
}

struct FrameHead {
  uint8_t first_byte;
  size_t head_bytes;
  size_t payload_bytes;
};

// The head of a server's frame, if it is there as a whole.
std::optional<FrameHead> ReadHead(std::string_view bytes) {
  if (bytes.size() < 2) return std::nullopt;
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(bytes[i]); };
  FrameHead head{byte(0), 2, byte(1) & size_t{0x7f}};
  const size_t length_bytes = head.payload_bytes == 126 ? 2 : head.payload_bytes == 127 ? 8 : 0;
  if (length_bytes == 0) return head;
  head.head_bytes += length_bytes;
  if (bytes.size() < head.head_bytes) return std::nullopt;
  head.payload_bytes = 0;
  for (size_t i = 2; i < head.head_bytes; ++i) head.payload_bytes = head.payload_bytes << 8 | byte(i);
  return head;
}

}  // namespace

absl::StatusOr<sockaddr_in> ParseAddress(const std::string& text) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  const size_t colon = text.rfind(':');
  uint16_t port = 0;
  if (colon == std::string::npos || inet_pton(AF_INET, text.substr(0, colon).c_str(), &address.sin_addr) != 1 ||
      std::from_chars(text.data() + colon + 1, text.data() + text.size(), port).ptr != text.data() + text.size()) {
    return absl::InvalidArgumentError(absl::StrCat("'", text, "' is no IPv4 address and port, like 127.0.0.1:8006"));
  }
  address.sin_port = htons(port);
  return address;
}

ClientSwarm::ClientSwarm(SwarmOptions options, SwarmHandler& handler)
    : options_(std::move(options)), handler_(handler), clients_(options_.connections), buffer_(kReadBytes) {
  epoll_ = epoll_create1(EPOLL_CLOEXEC);
  PRESENCE_CHECK(epoll_ >= 0, "an epoll set can be made");
}

ClientSwarm::~ClientSwarm() {
  for (const Client& client : clients_) {
    if (client.fd >= 0) close(client.fd);
  }
  close(epoll_);
}

absl::Status ClientSwarm::OpenAll(std::chrono::seconds patience) {
  for (const std::string& text : options_.addresses) {
    auto address = ParseAddress(text);
    if (!address.ok()) return address.status();
    addresses_.push_back(*address);
  }
  if (options_.tls) {
    auto tls = edge::TlsClient::Create(options_.authorities);
    if (!tls.ok()) return tls.status();
    tls_ = *std::move(tls);
  }
  size_t next = 0;
  auto progress = std::chrono::steady_clock::now();
  while (open_ < clients_.size()) {
    while (next < clients_.size() && connecting_ < options_.connecting_max) {
      if (absl::Status status = Connect(next); !status.ok()) return status;
      ++next;
    }
    const size_t open_before = open_;
    if (auto polled = Poll(std::chrono::milliseconds(100)); !polled.ok()) return polled.status();
    const auto now = std::chrono::steady_clock::now();
    if (open_ != open_before) progress = now;
    if (now - progress > patience) {
      return absl::DeadlineExceededError(absl::StrCat("only ", open_, " of ", clients_.size(), " connections opened"));
    }
  }
  return absl::OkStatus();
}

absl::Status ClientSwarm::Connect(size_t connection) {
  Client& client = clients_[connection];
  client.fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (client.fd < 0) return SystemError("socket");
  const int on = 1;
  setsockopt(client.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  const sockaddr_in& address = addresses_[connection % addresses_.size()];
  if (connect(client.fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0 && errno != EINPROGRESS) {
    return SystemError("connect");
  }
  client.state = State::kConnecting;
  ++connecting_;
  epoll_event event{};
  event.events = EPOLLOUT;
  event.data.u64 = connection;
  epoll_ctl(epoll_, EPOLL_CTL_ADD, client.fd, &event);
  return absl::OkStatus();
}

absl::StatusOr<size_t> ClientSwarm::Poll(std::chrono::milliseconds wait) {
  std::array<epoll_event, 512> events;
  const int count = epoll_wait(epoll_, events.data(), static_cast<int>(events.size()), static_cast<int>(wait.count()));
  if (count < 0 && errno != EINTR) return SystemError("epoll_wait");
  for (int i = 0; i < count; ++i) {
    const uint64_t tag = events[i].data.u64;
    const absl::Status status =
        tag == kWatchedTag ? watched_ready_(events[i].events) : HandleEvents(tag, events[i].events);
    if (!status.ok()) return status;
  }
  return static_cast<size_t>(std::max(count, 0));
}

absl::Status ClientSwarm::HandleEvents(size_t connection, uint32_t events) {
  Client& client = clients_[connection];
  if (client.fd < 0) return absl::OkStatus();  // dropped earlier in this turn
  if (client.state == State::kConnecting) {
    int error = 0;
    socklen_t size = sizeof(error);
    getsockopt(client.fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error != 0) {
      return absl::UnavailableError(absl::StrCat("cannot connect: ", std::strerror(error)));
    }
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u64 = connection;
    epoll_ctl(epoll_, EPOLL_CTL_MOD, client.fd, &event);
    if (tls_ == nullptr) return AskForWebsocket(connection);
    const std::string& address = options_.addresses[connection % addresses_.size()];
    client.tls = tls_->Connect(client.fd, address.substr(0, address.rfind(':')));
    client.state = State::kTls;
    return ShakeHands(connection);
  }
  if (client.state == State::kTls) return ShakeHands(connection);
  if ((events & EPOLLOUT) != 0) Write(client, connection, {});
  if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) return Read(connection);
  return absl::OkStatus();
}

absl::Status ClientSwarm::ShakeHands(size_t connection) {
  edge::TlsStream& tls = *clients_[connection].tls;
  switch (tls.Handshake()) {
    case edge::TlsStream::Outcome::kDone:
      return AskForWebsocket(connection);
    case edge::TlsStream::Outcome::kWouldBlock:
      return absl::OkStatus();
    default:
      return absl::UnavailableError(absl::StrCat("the TLS handshake failed: ", tls.reason()));
  }
}

absl::Status ClientSwarm::AskForWebsocket(size_t connection) {
  Client& client = clients_[connection];
  client.state = State::kShakingHands;
  std::string request = "GET /ws HTTP/1.1\r\nHost: " + options_.addresses[connection % addresses_.size()] +
                        "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nAuthorization: Bearer " +
                        options_.token(connection) + "\r\n\r\n";
  Write(client, connection, request);
  return absl::OkStatus();
}

ssize_t ClientSwarm::Receive(Client& client) {
  if (client.tls == nullptr) return recv(client.fd, buffer_.data(), buffer_.size(), 0);
  const edge::TlsStream::Result result = client.tls->Read(buffer_.data(), buffer_.size());
  if (result.outcome == edge::TlsStream::Outcome::kDone) return static_cast<ssize_t>(result.bytes);
  errno = result.outcome == edge::TlsStream::Outcome::kWouldBlock ? EAGAIN : ECONNRESET;
  return result.outcome == edge::TlsStream::Outcome::kEnd ? 0 : -1;
}

ssize_t ClientSwarm::Transmit(Client& client, std::string_view bytes) {
  if (client.tls == nullptr) return send(client.fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
  const iovec all{const_cast<char*>(bytes.data()), bytes.size()};
  char record[edge::TlsStream::kRecordBytesMax];
  return static_cast<ssize_t>(client.tls->Write({&all, 1}, record).bytes);
}

absl::Status ClientSwarm::Read(size_t connection) {
  Client& client = clients_[connection];
  do {
    const ssize_t got = Receive(client);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return absl::OkStatus();
    if (got <= 0) {
      if (client.state != State::kOpen) return absl::UnavailableError("the server hung up during a handshake");
      Drop(connection, kNoCloseFrame, "");
      return absl::OkStatus();
    }
    bytes_received_ += got;
    if (absl::Status status = TakeBytes(connection, {buffer_.data(), static_cast<size_t>(got)}); !status.ok()) {
      return status;
    }
  } while (client.tls != nullptr && client.tls->more());
  return absl::OkStatus();
}

absl::Status ClientSwarm::TakeBytes(size_t connection, std::string_view bytes) {
  Client& client = clients_[connection];
  std::string joined;
  if (!client.input.empty()) {
    joined = std::exchange(client.input, {}).append(bytes);
    bytes = joined;
  }
  if (client.state == State::kShakingHands) {
    const auto used = TakeResponse(connection, bytes);
    if (!used.ok()) return used.status();
    bytes.remove_prefix(*used);
  }
  if (client.state == State::kOpen) {
    const auto used = TakeFrames(connection, bytes);
    if (!used.ok()) return used.status();
    bytes.remove_prefix(*used);
  }
  if (client.fd >= 0) client.input.assign(bytes);
  return absl::OkStatus();
}

absl::StatusOr<size_t> ClientSwarm::TakeResponse(size_t connection, std::string_view bytes) {
  const size_t end = bytes.find("\r\n\r\n");
  if (end == std::string_view::npos) return 0;
  if (bytes.substr(0, 13) != "HTTP/1.1 101 ") {
    return absl::UnavailableError(
        absl::StrCat("handshake refused: ", std::string(bytes.substr(0, bytes.find("\r\n")))));
  }
  clients_[connection].state = State::kOpen;
  --connecting_;
  ++open_;
  return end + 4;
}

absl::StatusOr<size_t> ClientSwarm::TakeFrames(size_t connection, std::string_view bytes) {
  size_t at = 0;
  while (clients_[connection].state == State::kOpen) {
    const std::string_view rest = bytes.substr(at);
    const std::optional<FrameHead> head = ReadHead(rest);
    if (!head.has_value() || rest.size() - head->head_bytes < head->payload_bytes) break;
    at += head->head_bytes + head->payload_bytes;
    const absl::Status status =
        TakeFrame(connection, head->first_byte, rest.substr(head->head_bytes, head->payload_bytes));
    if (!status.ok()) return status;
  }
  return at;
}

absl::Status ClientSwarm::TakeFrame(size_t connection, uint8_t first_byte, std::string_view payload) {
  switch (first_byte) {
    case kFin | kText:
      handler_.OnText(connection, payload);
      return absl::OkStatus();
    case kFin | kPing:
      SendFrame(connection, kPong, payload);
      return absl::OkStatus();
    case kFin | kPong:
      return absl::OkStatus();
    case kFin | kClose: {
      uint16_t code = 1005;
      if (payload.size() >= 2) {
        code = static_cast<uint16_t>(static_cast<uint8_t>(payload[0]) << 8 | static_cast<uint8_t>(payload[1]));
      }
      SendFrame(connection, kClose, payload.substr(0, 2));
      Drop(connection, code, payload.substr(std::min<size_t>(payload.size(), 2)));
      return absl::OkStatus();
    }
    default:
      return absl::InternalError(absl::StrCat("a frame that begins with ", int{first_byte}, " is beyond this client"));
  }
}

void ClientSwarm::SendText(size_t connection, std::string_view text) {
  SendFrame(connection, kText, text);
}

void ClientSwarm::SendFrame(size_t connection, uint8_t opcode, std::string_view payload) {
  PRESENCE_CHECK(payload.size() <= 65'535, "clients send short messages");
  Client& client = clients_[connection];
  if (client.state != State::kOpen) return;
  frame_.clear();
  frame_ += static_cast<char>(kFin | opcode);
  if (payload.size() < 126) {
    frame_ += static_cast<char>(0x80 | payload.size());
  } else {
    frame_ += static_cast<char>(0x80 | 126);
    frame_ += static_cast<char>(payload.size() >> 8);
    frame_ += static_cast<char>(payload.size());
  }
  frame_.append(kMask.data(), kMask.size());
  for (size_t i = 0; i < payload.size(); ++i) frame_ += static_cast<char>(payload[i] ^ kMask[i % 4]);
  Write(client, connection, frame_);
}

void ClientSwarm::Write(Client& client, size_t connection, std::string_view bytes) {
  const bool waited = !client.output.empty();
  client.output += bytes;
  const ssize_t sent = Transmit(client, client.output);
  if (sent > 0) client.output.erase(0, static_cast<size_t>(sent));  // an error shows when the socket is read
  if (waited == !client.output.empty()) return;
  epoll_event event{};
  event.events = client.output.empty() ? EPOLLIN : EPOLLIN | EPOLLOUT;
  event.data.u64 = connection;
  epoll_ctl(epoll_, EPOLL_CTL_MOD, client.fd, &event);
}

void ClientSwarm::Drop(size_t connection, uint16_t code, std::string_view reason) {
  Client& client = clients_[connection];
  client.tls.reset();
  close(std::exchange(client.fd, -1));
  client.state = State::kClosed;
  --open_;
  handler_.OnClosed(connection, code, reason);
}

void ClientSwarm::Watch(int fd, uint32_t events, std::function<absl::Status(uint32_t)> ready) {
  PRESENCE_CHECK(watched_fd_ < 0, "one further descriptor is watched");
  watched_fd_ = fd;
  watched_ready_ = std::move(ready);
  epoll_event event{};
  event.events = events;
  event.data.u64 = kWatchedTag;
  epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event);
}

void ClientSwarm::Rewatch(int fd, uint32_t events) {
  epoll_event event{};
  event.events = events;
  event.data.u64 = kWatchedTag;
  epoll_ctl(epoll_, EPOLL_CTL_MOD, fd, &event);
}

void ClientSwarm::CloseAll() {
  for (size_t connection = 0; connection < clients_.size(); ++connection) {
    Client& client = clients_[connection];
    if (client.fd < 0) continue;
    SendFrame(connection, kClose, std::string_view("\x03\xe8", 2));
    close(std::exchange(client.fd, -1));
    client.state = State::kClosed;
  }
  open_ = 0;
}

}  // namespace presence::bench
