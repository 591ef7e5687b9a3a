// Thousands of WebSocket clients in one thread: connect, shake hands, count what comes, send little.
//
// Deliberately not the engine of edge/: a load generator should cost less than what it loads. It takes the server for a
// correct one (no check of the accept key, of UTF-8 or of reserved bits), and does not answer what it does not
// understand: fragmented messages end the run. Its masks are constant, since no proxy stands between.
#pragma once

#include <netinet/in.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "edge/tls_client.h"

namespace presence::bench {

// "127.0.0.1:8006". INVALID_ARGUMENT for anything else; names are not resolved.
absl::StatusOr<sockaddr_in> ParseAddress(const std::string& text);

struct SwarmOptions {
  std::vector<std::string> addresses;  // of edges; connections take turns
  size_t connections = 1000;
  size_t connecting_max = 256;  // handshakes under way at once
  bool tls = false;             // wss; the certificate must name the address
  std::string authorities;      // whom to trust for it: a PEM file; empty: the system's
  std::function<const std::string&(size_t connection)> token;
};

class SwarmHandler {
 public:
  virtual ~SwarmHandler() = default;
  // A text message. The view dies with the call.
  virtual void OnText(size_t connection, std::string_view text) = 0;
  // An open connection was closed by the server, or lost (1006). `reason`: what its close frame says; the view dies with the call.
  virtual void OnClosed(size_t connection, uint16_t code, std::string_view reason) = 0;
};

class ClientSwarm {
 public:
  ClientSwarm(SwarmOptions options, SwarmHandler& handler);
  ~ClientSwarm();
  ClientSwarm(const ClientSwarm&) = delete;
  ClientSwarm& operator=(const ClientSwarm&) = delete;

  // Opens them all. UNAVAILABLE: one could not connect, or was refused (the message has the server's first line).
  // DEADLINE_EXCEEDED: no handshake made progress for that long.
  absl::Status OpenAll(std::chrono::seconds patience);

  // A text message (at most 65,535 bytes) from one client.
  void SendText(size_t connection, std::string_view text);

  // Handles what the sockets have; waits for it at most so long. Returns how many descriptors had something. A failure
  // is of this process or of the protocol, not of a single connection.
  absl::StatusOr<size_t> Poll(std::chrono::milliseconds wait);

  // Another descriptor to watch in Poll: `ready` is called with EPOLLIN and EPOLLOUT as they are.
  void Watch(int fd, uint32_t events, std::function<absl::Status(uint32_t events)> ready);
  void Rewatch(int fd, uint32_t events);

  // Says goodbye with 1000 and closes every socket.
  void CloseAll();

  size_t open() const { return open_; }
  int64_t bytes_received() const { return bytes_received_; }

 private:
  enum class State : uint8_t { kIdle, kConnecting, kTls, kShakingHands, kOpen, kClosed };
  struct Client {
    int fd = -1;
    std::unique_ptr<edge::TlsStream> tls;  // null: plain
    State state = State::kIdle;
    std::string input;   // of an unfinished frame or response head
    std::string output;  // what the socket did not take
  };

  absl::Status Connect(size_t connection);
  absl::Status HandleEvents(size_t connection, uint32_t events);
  absl::Status ShakeHands(size_t connection);
  absl::Status AskForWebsocket(size_t connection);
  absl::Status Read(size_t connection);
  absl::Status TakeBytes(size_t connection, std::string_view bytes);
  // Like recv and send.
  ssize_t Receive(Client& client);
  ssize_t Transmit(Client& client, std::string_view bytes);
  // Both return how much of `bytes` they used.
  absl::StatusOr<size_t> TakeResponse(size_t connection, std::string_view bytes);
  absl::StatusOr<size_t> TakeFrames(size_t connection, std::string_view bytes);
  absl::Status TakeFrame(size_t connection, uint8_t first_byte, std::string_view payload);
  void SendFrame(size_t connection, uint8_t opcode, std::string_view payload);
  void Write(Client& client, size_t connection, std::string_view bytes);
  void Drop(size_t connection, uint16_t code, std::string_view reason);

  const SwarmOptions options_;
  SwarmHandler& handler_;
  std::vector<sockaddr_in> addresses_;
  std::unique_ptr<edge::TlsClient> tls_;
  int epoll_ = -1;
  std::vector<Client> clients_;
  std::vector<char> buffer_;  // one read buffer for all
  std::string frame_;         // one frame to send, reused
  size_t connecting_ = 0;
  size_t open_ = 0;
  int64_t bytes_received_ = 0;
  int watched_fd_ = -1;
  std::function<absl::Status(uint32_t events)> watched_ready_;
};

}  // namespace presence::bench
