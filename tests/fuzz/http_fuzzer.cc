// HTTP requests from strangers, up to the door: the parser, the gate without a key, and the WebSocket engine that gets an upgrade's head.
#include <string>

#include "edge/gate.h"
#include "edge/http.h"
#include "edge/websocket_engine.h"
#include "tests/fuzz/fuzz_target.h"

namespace presence::edge {
namespace {

class Handshake final : public WebsocketEngineHandler {
 public:
  void OnOutput(std::string_view bytes) override { output.append(bytes); }
  void OnOpen() override { open = true; }
  void OnMessage(MessageKind, std::string_view) override {}
  void OnControlFrame() override {}
  void OnEnded(uint16_t) override { ended = true; }

  std::string output;
  bool open = false, ended = false;
};

bool IsClean(std::string_view text) {
  return std::none_of(text.begin(), text.end(), [](char c) { return c == '\r' || c == '\n' || c == '\0'; });
}

void CheckRequest(const HttpRequest& request) {
  PRESENCE_CHECK(IsClean(request.method) && IsClean(request.target), "no line break gets into a request line");
  PRESENCE_CHECK(request.target.find(' ') == std::string_view::npos, "a target has no space");
  for (const auto& [name, value] : request.headers) {
    PRESENCE_CHECK(!name.empty() && IsClean(name) && IsClean(value), "a header is one line");
  }
  PRESENCE_CHECK(request.body.size() <= kHttpBodyBytesMax, "a body has its bound");
  request.QueryParameter("token");
  request.HeaderList("Connection");
}

// What the edge sends back of a request is one response, whatever was in the request.
void CheckAnswer(const HttpRequest& request) {
  HttpResponse response = JsonError(400, request.target);
  response.headers.emplace_back("X-Echo", std::string(request.target));
  const std::string bytes = SerializeHttpResponse(response, request.keep_alive, false);
  const size_t head_end = bytes.find("\r\n\r\n");
  PRESENCE_CHECK(head_end != std::string::npos && bytes.size() - head_end - 4 == response.body.size(),
                 "an answer has one head and its body");
}

void CheckGate(const HttpRequest& request) {
  static const Gate gate(Gate::Options{});
  static const JwkSet no_keys = *JwkSet::Parse(R"({"keys":[]})");
  for (const JwkSet* keys : {static_cast<const JwkSet*>(nullptr), &no_keys}) {
    const GateDecision decision = gate.DecideUpgrade(request, keys, FromUnixMillis(1'760'000'000'000));
    PRESENCE_CHECK(!std::holds_alternative<Admit>(decision.outcome), "without a key nobody comes in");
  }
  gate.AnswerPreflight(request);
  gate.CorsHeaders(request);
}

void CheckUpgrade(const HttpRequest& request) {
  Handshake handshake;
  const auto engine = WebsocketEngine::Server({}, handshake);
  engine->Feed(request.head);
  PRESENCE_CHECK(handshake.open || handshake.ended, "a whole head is enough for the engine");
  PRESENCE_CHECK(handshake.output.find("HTTP/1.1 101 ") == (handshake.open ? 0 : std::string::npos),
                 "a handshake that fails is not answered with 101");
}

}  // namespace
}  // namespace presence::edge

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace presence::edge;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto parsed = ParseHttpRequest(text);
  if (!parsed.ok()) {
    const int status = HttpStatusOf(parsed.status());
    PRESENCE_CHECK(status >= 400 && status < 600 && status != 500, "every parse error has a status of its own");
    return 0;
  }
  if (!parsed->has_value()) return 0;
  const HttpParsed& found = **parsed;
  PRESENCE_CHECK(found.bytes > 0 && found.bytes <= size, "a request is made of what was read");
  CheckRequest(found.request);
  CheckAnswer(found.request);
  CheckGate(found.request);
  if (found.request.upgrade) CheckUpgrade(found.request);

  // Neither more nor less arriving at once changes where a request ends: else a proxy could be fooled.
  const std::string with_more = std::string(text.substr(0, found.bytes)) + "GET /smuggled HTTP/1.1\r\n\r\n";
  const auto again = ParseHttpRequest(with_more);
  PRESENCE_CHECK(again.ok() && again->has_value() && (*again)->bytes == found.bytes, "what follows does not matter");
  for (const size_t cut : {found.bytes - 1, found.bytes / 2, size_t{1}}) {
    if (cut >= found.bytes) continue;
    const auto part = ParseHttpRequest(text.substr(0, cut));
    PRESENCE_CHECK(part.ok() && !part->has_value(), "a part of a good request waits for the rest");
  }
  return 0;
}
