// The WebSocket engine, fed whatever a socket may bring. First byte: whether the opening handshake is ours or the input's; second: how the
// bytes are cut. Held against a second reading of RFC 6455 (websocket_reference.h), and against itself with the bytes cut otherwise.
#include <memory>
#include <string>
#include <vector>

#include "common/utf8.h"
#include "edge/websocket_engine.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/fuzz/websocket_reference.h"

namespace presence::edge {
namespace {

using fuzz::ReferenceReading;

constexpr size_t kMessageBytesMax = 1000;
constexpr std::string_view kUpgrade =
    "GET /ws HTTP/1.1\r\nHost: example.org\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

class Recorder final : public WebsocketEngineHandler {
 public:
  void OnOutput(std::string_view bytes) override {
    PRESENCE_CHECK(!ended_, "nothing is sent after the end");
    output.append(bytes);
  }
  void OnOpen() override {
    PRESENCE_CHECK(!opened, "it opens once");
    opened = true;
    handshake_bytes = output.size();
  }
  void OnMessage(MessageKind kind, std::string_view payload) override {
    PRESENCE_CHECK(opened && !ended_, "messages come while it is open");
    PRESENCE_CHECK(payload.size() <= kMessageBytesMax, "a message has its bound");
    const bool is_text = kind == MessageKind::kText;
    PRESENCE_CHECK(!is_text || Utf8Prefix(payload, payload.size()).size() == payload.size(), "text is UTF-8");
    events.push_back((is_text ? "text " : "binary ") + std::string(payload));
  }
  void OnControlFrame() override { events.emplace_back("control"); }
  void OnEnded(uint16_t its_code) override {
    PRESENCE_CHECK(!ended_, "it ends once");
    ended_ = true;
    code = its_code;
  }

  bool ended() const { return ended_; }

  std::string output;
  size_t handshake_bytes = 0;
  std::vector<std::string> events;
  bool opened = false;
  uint16_t code = 0;

 private:
  bool ended_ = false;
};

// A server's frames are never masked, whole, and a close frame is the last one (section 5).
void CheckFrames(std::string_view bytes) {
  bool closed = false;
  while (!bytes.empty()) {
    PRESENCE_CHECK(!closed, "nothing follows a close frame");
    PRESENCE_CHECK(bytes.size() >= 2, "a frame has a header");
    const auto first = static_cast<uint8_t>(bytes[0]);
    const auto length = static_cast<uint8_t>(bytes[1]);
    PRESENCE_CHECK(first == 0x88 || first == 0x8A, "an engine that is only fed answers with pongs and a close");
    PRESENCE_CHECK(length <= 125 && bytes.size() >= 2u + length, "a control frame is short and whole");
    closed = first == 0x88;
    bytes.remove_prefix(2u + length);
  }
}

void Run(std::string_view bytes, uint8_t cut, Recorder& recorder) {
  const auto engine = WebsocketEngine::Server({.message_bytes_max = kMessageBytesMax, .subprotocol = {}}, recorder);
  uint32_t state = cut;
  while (!bytes.empty()) {
    state = state * 1'103'515'245 + 12'345;
    const size_t size = cut == 0 ? bytes.size() : 1 + (state >> 16) % cut;
    engine->Feed(bytes.substr(0, size));
    bytes.remove_prefix(std::min(size, bytes.size()));
  }
  engine->Eof();
  PRESENCE_CHECK(recorder.ended(), "the end of the stream is the end");
}

void CheckAgainst(const ReferenceReading& reference, const Recorder& recorder) {
  PRESENCE_CHECK(recorder.events.size() >= reference.events.size(), "every message before the end is reported");
  PRESENCE_CHECK(recorder.events == reference.events, "messages are what the client sent, and no more");
  const uint16_t code = recorder.code;
  const bool is_violation = code == 1002 || code == 1007 || code == 1009;
  switch (reference.end) {
    case ReferenceReading::End::kOpen:
      PRESENCE_CHECK(code == 1006, "without a close frame the code is 1006");
      break;
    case ReferenceReading::End::kClosed:
      PRESENCE_CHECK(code == reference.code, "the code is the client's");
      break;
    case ReferenceReading::End::kBroken:
      PRESENCE_CHECK(is_violation, "who breaks the protocol is told so");
      break;
    case ReferenceReading::End::kPartial:
      PRESENCE_CHECK(is_violation || code == 1006, "half a frame ends with the stream, or is wrong already");
      break;
  }
}

}  // namespace
}  // namespace presence::edge

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace presence::edge;
  presence::fuzz::ByteSource in(data, size);
  const bool our_handshake = in.Byte() % 4 != 0;
  const uint8_t cut = in.Byte();
  const std::string_view frames = in.rest();
  const std::string bytes = our_handshake ? std::string(kUpgrade).append(frames) : std::string(frames);

  Recorder whole, pieces;
  Run(bytes, 0, whole);
  Run(bytes, cut, pieces);
  PRESENCE_CHECK(whole.events == pieces.events && whole.code == pieces.code && whole.output == pieces.output,
                 "how the bytes are cut does not matter");
  if (whole.opened) CheckFrames(std::string_view(whole.output).substr(whole.handshake_bytes));
  if (our_handshake) CheckAgainst(presence::fuzz::ReadAsReference(frames, kMessageBytesMax), whole);
  return 0;
}
