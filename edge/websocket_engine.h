// RFC 6455 for one connection, bytes in, bytes out: handshake, framing, masking, fragments, UTF-8, control frames,
// close codes.
//
// No socket, clock, timer or thread inside: whoever owns an engine feeds it what was read, writes what it asks for, and
// keeps the time-outs (handshake, unanswered close). websocketpp does the protocol; its headers are included by
// websocket_engine.cc and its websocketpp_policies.h alone, in C++17, and so is this header. All its exceptions end there.
//
// One engine is used by one thread at a time. Handler calls come from inside Feed and the other methods; the handler
// may call the engine back, but must neither destroy it nor Feed it from inside a call. After OnEnded nothing else
// comes, and every call is without effect.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace presence::edge {

enum class MessageKind : uint8_t { kText, kBinary };

class WebsocketEngineHandler {
 public:
  virtual ~WebsocketEngineHandler() = default;
  // Bytes for the peer, in order; a control frame in one piece. The view dies with the call.
  virtual void OnOutput(std::string_view bytes) = 0;
  virtual void OnOpen() = 0;
  // A whole message; text is valid UTF-8. The view dies with the call.
  virtual void OnMessage(MessageKind kind, std::string_view payload) = 0;
  // A ping (already answered) or a pong: a sign of life.
  virtual void OnControlFrame() = 0;
  // The WebSocket is over: the close handshake is complete, or the peer broke the protocol (the close frame with 1002,
  // 1007 or 1009 is already in OnOutput), or the opening handshake failed. Write what is pending, then close the
  // socket. `code` is that of the first close frame, sent or received; 1005: it had none; 1006: there was no close
  // frame.
  virtual void OnEnded(uint16_t code) = 0;
};

struct WebsocketServerOptions {
  size_t message_bytes_max = 64 * 1024;  // a longer message is answered with 1009
  std::string subprotocol;               // selected; empty: none. The client must have offered it.
};

struct WebsocketClientOptions {
  std::string uri;  // ws://host:port/path?query
  std::vector<std::pair<std::string, std::string>> headers;
  std::vector<std::string> subprotocols;  // offered
  size_t message_bytes_max = 16 * 1024 * 1024;
};

class WebsocketEngine {
 public:
  // Feed it the request head first, from its first byte; it answers 101 and opens, or answers 400 or 426 and ends. Only
  // version 13 is spoken.
  static std::unique_ptr<WebsocketEngine> Server(const WebsocketServerOptions& options,
                                                 WebsocketEngineHandler& handler);
  // For the test client and the load generator. Call Start once; it sends the request.
  static std::unique_ptr<WebsocketEngine> Client(const WebsocketClientOptions& options,
                                                 WebsocketEngineHandler& handler);

  virtual ~WebsocketEngine() = default;
  virtual void Start() = 0;
  virtual void Feed(std::string_view bytes) = 0;
  // The peer's end of the stream, or a socket error.
  virtual void Eof() = 0;
  // Sends a close frame; the peer's answer ends the engine. `reason`: valid UTF-8, cut to 123 bytes, between
  // characters. A code that may not be sent (RFC 6455, section 7.4) becomes 1011. Before OnOpen or after a close: no
  // effect.
  virtual void Close(uint16_t code, std::string_view reason) = 0;
  // A message of its own (masked when a client), valid UTF-8. Servers send FrameRef::Text past the engine instead.
  virtual void SendText(std::string_view text) = 0;
  // From now on a longer message is answered with 1009.
  virtual void LimitMessages(size_t bytes_max) = 0;
  // At most 125 bytes.
  virtual void SendPing(std::string_view payload) = 0;
};

}  // namespace presence::edge
