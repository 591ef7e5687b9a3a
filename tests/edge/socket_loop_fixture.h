// A socket loop on a free port of the loopback interface, a handler that writes down what it hears, and clients with
// real sockets. Everything runs in the test's thread: RunUntil turns the loop and the clients until something is true.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <asio/io_context.hpp>
#include <cerrno>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "edge/socket_loop.h"
#include "edge/websocket_engine.h"

namespace presence::edge {

using namespace std::chrono_literals;

// What is asserted is what happens, not when; this only ends a test that hangs.
constexpr std::chrono::seconds kPatience{20};

// A TCP client that does nothing by itself.
class TcpClient {
 public:
  enum class Family : uint8_t { kIpv4, kIpv6 };

  explicit TcpClient(uint16_t port, Family family = Family::kIpv4, int receive_buffer_bytes = 0) {
    descriptor_ = socket(family == Family::kIpv4 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    EXPECT_GE(descriptor_, 0);
    if (receive_buffer_bytes > 0) {
      setsockopt(descriptor_, SOL_SOCKET, SO_RCVBUF, &receive_buffer_bytes, sizeof(receive_buffer_bytes));
    }
    sockaddr_in v4{};
    v4.sin_family = AF_INET;
    v4.sin_port = htons(port);
    v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    sockaddr_in6 v6{};
    v6.sin6_family = AF_INET6;
    v6.sin6_port = htons(port);
    v6.sin6_addr = in6addr_loopback;
    const int result = family == Family::kIpv4
                           ? connect(descriptor_, reinterpret_cast<const sockaddr*>(&v4), sizeof(v4))
                           : connect(descriptor_, reinterpret_cast<const sockaddr*>(&v6), sizeof(v6));
    EXPECT_EQ(result, 0);
  }
  ~TcpClient() { Close(); }
  TcpClient(const TcpClient&) = delete;
  TcpClient& operator=(const TcpClient&) = delete;

  // False when the server has reset the connection.
  bool Write(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t written = send(descriptor_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (written < 0) return false;
      bytes.remove_prefix(static_cast<size_t>(written));
    }
    return true;
  }
  // What has arrived by now, appended to received().
  void Read() {
    char buffer[65536];
    while (descriptor_ >= 0 && !ended_) {
      const ssize_t bytes = recv(descriptor_, buffer, sizeof(buffer), MSG_DONTWAIT);
      if (bytes > 0) {
        received_.append(buffer, static_cast<size_t>(bytes));
      } else {
        ended_ = bytes == 0 || errno != EAGAIN;
        was_reset_ = bytes < 0 && errno == ECONNRESET;
        return;
      }
    }
  }
  void EndWriting() { shutdown(descriptor_, SHUT_WR); }
  void Close() {
    if (descriptor_ >= 0) close(std::exchange(descriptor_, -1));
  }
  void Reset() {
    const linger abort{1, 0};
    setsockopt(descriptor_, SOL_SOCKET, SO_LINGER, &abort, sizeof(abort));
    Close();
  }

  int descriptor() const { return descriptor_; }
  std::string& received() { return received_; }
  bool ended() const { return ended_; }  // the server has ended its side, or reset the connection:
  bool was_reset() const { return was_reset_; }

 private:
  int descriptor_;
  std::string received_;
  bool ended_ = false;
  bool was_reset_ = false;
};

// A WebSocket client: the project's engine on a TcpClient.
class WebsocketTestClient final : public WebsocketEngineHandler {
 public:
  explicit WebsocketTestClient(uint16_t port, int receive_buffer_bytes = 0)
      : tcp_(port, TcpClient::Family::kIpv4, receive_buffer_bytes) {
    WebsocketClientOptions options;
    options.uri = "ws://localhost:" + std::to_string(port) + "/ws";
    engine_ = WebsocketEngine::Client(options, *this);
    engine_->Start();
  }

  void Read() {
    tcp_.Read();
    const std::string bytes = std::exchange(tcp_.received(), {});
    if (!bytes.empty()) engine_->Feed(bytes);
  }
  void SendText(std::string_view text) { engine_->SendText(text); }
  void Ping(std::string_view payload) { engine_->SendPing(payload); }
  void Close(uint16_t code) { engine_->Close(code, "bye"); }
  TcpClient& tcp() { return tcp_; }

  bool open() const { return open_; }
  const std::vector<std::string>& texts() const { return texts_; }
  int control_frames() const { return control_frames_; }
  std::optional<uint16_t> closed() const { return closed_; }  // with this code

 private:
  void OnOutput(std::string_view bytes) override { tcp_.Write(bytes); }
  void OnOpen() override { open_ = true; }
  void OnMessage(MessageKind, std::string_view payload) override { texts_.emplace_back(payload); }
  void OnControlFrame() override { ++control_frames_; }
  void OnEnded(uint16_t code) override { closed_ = code; }

  TcpClient tcp_;
  std::unique_ptr<WebsocketEngine> engine_;
  bool open_ = false;
  std::vector<std::string> texts_;
  int control_frames_ = 0;
  std::optional<uint16_t> closed_;
};

// Writes down what it hears; a test says what it does beyond that.
class RecordingHandler : public SocketLoopHandler {
 public:
  struct Closed {
    SocketId socket;
    uint16_t code;
  };

  void OnRequest(SocketId socket, const HttpRequest& request) override {
    requests.push_back(request);
    if (on_request) on_request(socket, request);
  }
  void OnOpen(SocketId socket) override {
    opened.push_back(socket);
    if (on_open) on_open(socket);
  }
  void OnBytes(SocketId, size_t count) override { bytes += count; }
  void OnText(SocketId socket, std::string_view text) override {
    texts.emplace_back(text);
    if (on_text) on_text(socket, text);
  }
  void OnControlFrame(SocketId) override { ++control_frames; }
  void OnClosed(SocketId socket, uint16_t code) override {
    EXPECT_FALSE(inside_call) << "the handler is called from the loop alone";
    closed.push_back({socket, code});
  }
  void OnTurnEnd() override { ++turns; }

  std::function<void(SocketId, const HttpRequest&)> on_request;
  std::function<void(SocketId)> on_open;
  std::function<void(SocketId, std::string_view)> on_text;

  std::vector<HttpRequest> requests;
  std::vector<SocketId> opened;
  std::vector<std::string> texts;
  std::vector<Closed> closed;
  size_t bytes = 0;
  int control_frames = 0;
  int turns = 0;
  bool inside_call = false;
};

inline std::string Get(std::string_view target, std::string_view headers = "") {
  return "GET " + std::string(target) + " HTTP/1.1\r\nHost: localhost\r\n" + std::string(headers) + "\r\n";
}

inline constexpr std::string_view kUpgradeHeaders =
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

inline size_t Count(std::string_view text, std::string_view what) {
  size_t count = 0;
  for (size_t at = text.find(what); at != std::string_view::npos; at = text.find(what, at + 1)) ++count;
  return count;
}

class SocketLoopTest : public ::testing::Test {
 protected:
  SocketLoopTest() {
    options_.host = "127.0.0.1";
    // Upgrades are admitted, everything else is answered with its own path.
    handler_.on_request = [this](SocketId socket, const HttpRequest& request) {
      if (request.upgrade) return loop_->Upgrade(socket, "");
      HttpResponse response;
      response.content_type = "text/plain";
      response.body = request.path;
      loop_->Respond(socket, response);
    };
  }

  void Listen() {
    absl::StatusOr<std::unique_ptr<SocketLoop>> loop = SocketLoop::Listen(io_, options_, handler_);
    ASSERT_TRUE(loop.ok()) << loop.status();
    loop_ = *std::move(loop);
  }

  // Turns the loop until `condition` holds. `each_time`: what clients do meanwhile.
  template <typename Condition, typename EachTime>
  [[nodiscard]] bool RunUntil(Condition condition, EachTime each_time) {
    const auto give_up = std::chrono::steady_clock::now() + kPatience;
    while (true) {
      each_time();
      if (condition()) return true;
      if (std::chrono::steady_clock::now() > give_up) return false;
      io_.restart();
      io_.run_one_for(1ms);
    }
  }
  template <typename Condition>
  [[nodiscard]] bool RunUntil(Condition condition) {
    return RunUntil(condition, [] {});
  }
  // Until the server has ended the connection; returns all that came.
  std::string ReadToEnd(TcpClient& client) {
    EXPECT_TRUE(RunUntil([&] { return client.ended(); }, [&] { client.Read(); }));
    return client.received();
  }
  std::unique_ptr<WebsocketTestClient> OpenWebsocket(int receive_buffer_bytes = 0) {
    auto client = std::make_unique<WebsocketTestClient>(loop_->port(), receive_buffer_bytes);
    const size_t opened = handler_.opened.size();
    EXPECT_TRUE(RunUntil([&] { return client->open() && handler_.opened.size() > opened; }, [&] { client->Read(); }));
    return client;
  }
  void Send(std::initializer_list<SocketId> sockets, std::string_view text, SendPolicy policy = {}) {
    std::vector<uint32_t> slots;
    for (SocketId socket : sockets) slots.push_back(socket.slot);
    handler_.inside_call = true;
    loop_->Send(slots, FrameRef::Text(text), policy);
    handler_.inside_call = false;
  }
  void Close(SocketId socket, uint16_t code, std::string_view reason) {
    handler_.inside_call = true;
    loop_->Close(socket, code, reason);
    handler_.inside_call = false;
  }
  uint64_t SocketsOpen() const {
    return loop_->counters().sockets_accepted.Value() - loop_->counters().sockets_closed.Value();
  }

  asio::io_context io_{1};
  SocketLoopOptions options_;
  RecordingHandler handler_;
  std::unique_ptr<SocketLoop> loop_;
};

}  // namespace presence::edge
