// Hand-built bytes of RFC 6455 and a handler that writes down what happens: what the tests of the engine share.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "edge/websocket_engine.h"

namespace presence::edge {

inline constexpr uint8_t kContinuation = 0x0, kText = 0x1, kBinary = 0x2, kClose = 0x8, kPing = 0x9, kPong = 0xA;
inline constexpr uint8_t kFin = 0x80, kRsv1 = 0x40;
inline constexpr std::string_view kMaskKey = "\x37\xfa\x21\x3d";

// A frame as in section 5.2. `length_said` overrides the length in the header.
inline std::string Frame(uint8_t first_byte, std::string_view payload, std::string_view mask_key,
                         std::optional<uint64_t> length_said = std::nullopt) {
  const uint64_t length = length_said.value_or(payload.size());
  const char mask_bit = mask_key.empty() ? '\0' : '\x80';
  std::string frame(1, static_cast<char>(first_byte));
  int length_bytes = 0;
  if (length < 126) {
    frame += static_cast<char>(mask_bit | static_cast<char>(length));
  } else {
    length_bytes = length < 65536 ? 2 : 8;
    frame += static_cast<char>(mask_bit | (length_bytes == 2 ? 126 : 127));
  }
  for (int i = length_bytes - 1; i >= 0; --i) frame += static_cast<char>(length >> (8 * i));
  frame += mask_key;
  for (size_t i = 0; i < payload.size(); ++i) {
    frame += static_cast<char>(mask_key.empty() ? payload[i] : payload[i] ^ mask_key[i % 4]);
  }
  return frame;
}

inline std::string FromClient(uint8_t first_byte, std::string_view payload) {
  return Frame(first_byte, payload, kMaskKey);
}
inline std::string FromServer(uint8_t first_byte, std::string_view payload) {
  return Frame(first_byte, payload, "");
}

inline std::string ClosePayload(uint16_t code, std::string_view reason = "") {
  return std::string{static_cast<char>(code >> 8), static_cast<char>(code & 0xff)} + std::string(reason);
}

inline std::string UpgradeRequest(std::string_view version = "13", std::string_view more = "",
                                  std::string_view key = "dGhlIHNhbXBsZSBub25jZQ==") {
  std::string request =
      "GET /ws?token=t HTTP/1.1\r\nHost: example.org:8006\r\nUpgrade: websocket\r\n"
      "Connection: keep-alive, Upgrade\r\n";
  if (!key.empty()) request.append("Sec-WebSocket-Key: ").append(key).append("\r\n");
  if (!version.empty()) request.append("Sec-WebSocket-Version: ").append(version).append("\r\n");
  return request.append(more).append("\r\n");
}

// Writes down what happens, in order; a test may act from inside a call.
class Recorder : public WebsocketEngineHandler {
 public:
  void OnOutput(std::string_view bytes) override { output += bytes; }
  void OnOpen() override {
    events.push_back("open");
    if (when_open) when_open();
  }
  void OnMessage(MessageKind kind, std::string_view payload) override {
    events.push_back((kind == MessageKind::kText ? "text " : "binary ") + std::string(payload));
    if (when_message) when_message();
  }
  void OnControlFrame() override {
    events.push_back("control");
    if (when_control) when_control();
  }
  void OnEnded(uint16_t code) override {
    events.push_back("ended " + std::to_string(code));
    if (when_ended) when_ended();
  }

  std::string TakeOutput() { return std::exchange(output, {}); }

  std::string output;
  std::vector<std::string> events;
  std::function<void()> when_open, when_message, when_control, when_ended;
};

// A server's engine and the bytes of its client.
class ServerSession {
 public:
  explicit ServerSession(WebsocketServerOptions options = {}) : engine(WebsocketEngine::Server(options, recorder)) {}

  static ServerSession& Opened(ServerSession& session) {
    session.engine->Feed(UpgradeRequest());
    EXPECT_THAT(session.recorder.TakeOutput(), ::testing::StartsWith("HTTP/1.1 101 "));
    EXPECT_THAT(session.recorder.events, ::testing::ElementsAre("open"));
    session.recorder.events.clear();
    return session;
  }
  void Feed(std::string_view bytes) { engine->Feed(bytes); }

  Recorder recorder;
  std::unique_ptr<WebsocketEngine> engine;
};

}  // namespace presence::edge
