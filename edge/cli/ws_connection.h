// One WebSocket of a client program: a socket, the engine in client role, and waiting with a deadline.
//
// For one thread. Nothing happens between calls: bytes move inside Connect, Next, SendText and Close alone, none of which waits
// longer than it is told. Speaks ws:// and wss://.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/time.h"
#include "edge/cli/options.h"
#include "edge/tls_stream.h"
#include "edge/websocket_engine.h"

namespace presence::edge::cli {

// Where ws://host[:port]/path[?query], or wss://, leads; path and query are the engine's business.
struct WsUrl {
  std::string host;
  std::string port = "80";  // of wss: 443
  bool tls = false;
};

// INVALID_ARGUMENT: no such URL; the message says what is wrong.
absl::StatusOr<WsUrl> ParseWsUrl(std::string_view url);

class WsConnection : private WebsocketEngineHandler {
 public:
  struct Event {
    enum class Kind { kMessage, kClosed };
    Kind kind;
    std::string text;         // of a message
    uint16_t close_code = 0;  // 1006: the connection broke
  };

  // Returns when the handshake is complete. UNAVAILABLE: nobody listens there, or the name is unknown; DEADLINE_EXCEEDED;
  // UNAUTHENTICATED: 401; PERMISSION_DENIED: 403; FAILED_PRECONDITION: any other refusal, of TLS, too. The messages are for people.
  // `authorities`: a PEM file with whom to trust for wss; empty: the system's.
  static absl::StatusOr<std::unique_ptr<WsConnection>> Connect(const std::string& url, const std::string& token,
                                                               TokenPlace place, Duration timeout,
                                                               const std::string& authorities = {});
  ~WsConnection() override;
  WsConnection(const WsConnection&) = delete;
  WsConnection& operator=(const WsConnection&) = delete;

  // What came next, waiting for it up to `timeout`; nothing: nothing came. After kClosed there is only kClosed.
  std::optional<Event> Next(Duration timeout);

  // Readable when Next has something to do, for a poll of the caller's own; also call Next(0) after SendText.
  int fd() const { return fd_; }

  // Waits up to the connection's time-out for room in the socket. UNAVAILABLE: closed.
  absl::Status SendText(std::string_view text);

  // Says goodbye (1000) and waits for the answer; the code it came with. After it the connection is closed.
  uint16_t Close(Duration timeout);

  bool closed() const { return closed_; }

 private:
  WsConnection(int fd, Duration timeout) : fd_(fd), timeout_(timeout) {}

  void OnOutput(std::string_view bytes) override { output_.append(bytes); }
  void OnOpen() override { open_ = true; }
  void OnMessage(MessageKind kind, std::string_view payload) override;
  void OnControlFrame() override {}
  void OnEnded(uint16_t code) override;

  absl::Status HandshakeTls(const WsUrl& url, const std::string& authorities, SteadyTime deadline);
  absl::Status Handshake(const std::string& url, const std::string& token, TokenPlace place);
  absl::Status RefusalFrom(std::string_view head) const;
  // Writes and reads once, after waiting for the socket up to `timeout`. False: nothing moved in time.
  bool Pump(Duration timeout);
  // Like send and recv, over TLS or not.
  ssize_t Write(std::string_view bytes);
  ssize_t Read(char* buffer, size_t size);
  bool HoldsMore() const { return tls_ != nullptr && tls_->more(); }  // read already, but for the decrypting
  void Break();

  const int fd_;
  const Duration timeout_;
  std::unique_ptr<TlsStream> tls_;  // null: plain
  std::unique_ptr<WebsocketEngine> engine_;
  std::string head_;  // the start of what was read until the handshake is over: tells why it was refused
  std::string output_;
  std::deque<Event> events_;
  bool open_ = false;
  bool closed_ = false;
  uint16_t close_code_ = 1006;
};

}  // namespace presence::edge::cli
