// The opening handshake, server side: what is accepted, and with which status the rest is refused.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <utility>

#include "edge/websocket_engine.h"
#include "tests/edge/websocket_frames.h"

namespace presence::edge {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

TEST(WebsocketHandshakeTest, AcceptsTheExampleOfTheRfc) {
  ServerSession session;
  session.Feed(UpgradeRequest());
  EXPECT_THAT(session.recorder.events, ElementsAre("open"));
  EXPECT_THAT(session.recorder.output, StartsWith("HTTP/1.1 101 Switching Protocols\r\n"));
  EXPECT_THAT(session.recorder.output, HasSubstr("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"));
  EXPECT_THAT(session.recorder.output, HasSubstr("Upgrade: websocket\r\n"));
  EXPECT_THAT(session.recorder.output, HasSubstr("Connection: Upgrade\r\n"));
  EXPECT_THAT(session.recorder.output, Not(HasSubstr("Server:")));
  EXPECT_THAT(session.recorder.output, Not(HasSubstr("Sec-WebSocket-Protocol")));
  EXPECT_THAT(session.recorder.output, ::testing::EndsWith("\r\n\r\n"));
}

TEST(WebsocketHandshakeTest, SelectsTheSubprotocolThatWasOffered) {
  ServerSession session(WebsocketServerOptions{.subprotocol = "presence.v1"});
  session.Feed(UpgradeRequest("13", "Sec-WebSocket-Protocol: presence.v1, bearer.a-b_c.d.e\r\n"));
  EXPECT_THAT(session.recorder.events, ElementsAre("open"));
  EXPECT_THAT(session.recorder.output, HasSubstr("Sec-WebSocket-Protocol: presence.v1\r\n"));
  EXPECT_THAT(session.recorder.output, Not(HasSubstr("bearer")));
}

TEST(WebsocketHandshakeTest, NeverSelectsASubprotocolThatWasNotOffered) {
  ServerSession session(WebsocketServerOptions{.subprotocol = "presence.v1"});
  session.Feed(UpgradeRequest("13", "Sec-WebSocket-Protocol: presence.v2\r\n"));
  EXPECT_THAT(session.recorder.events, ElementsAre("ended 1006"));
  EXPECT_THAT(session.recorder.output, StartsWith("HTTP/1.1 400 "));
}

TEST(WebsocketHandshakeTest, OffersOfExtensionsAreNotTakenUp) {
  ServerSession session;
  session.Feed(UpgradeRequest("13", "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"));
  EXPECT_THAT(session.recorder.events, ElementsAre("open"));
  EXPECT_THAT(session.recorder.output, Not(HasSubstr("Sec-WebSocket-Extensions")));
}

TEST(WebsocketHandshakeTest, OtherVersionsAreToldWhichOneIsSpoken) {
  // None at all means hybi-00, which websocketpp would accept with its two keys, as it would 7 and 8.
  for (const std::string_view version : {"", "0", "7", "8", "12", "14", "013", "13, 8", "x"}) {
    ServerSession session;
    session.Feed(UpgradeRequest(version,
                                "Sec-WebSocket-Key1: 4 @1  46546xW%0l 1 5\r\n"
                                "Sec-WebSocket-Key2: 12998 5 Y3 1  .P00\r\nOrigin: http://example.org\r\n") +
                 "^n:ds[4U");
    EXPECT_THAT(session.recorder.events, ElementsAre("ended 1006")) << version;
    EXPECT_THAT(session.recorder.output, StartsWith("HTTP/1.1 426 ")) << version;
    EXPECT_THAT(session.recorder.output, HasSubstr("\r\nSec-WebSocket-Version: 13\r\n")) << version;
    EXPECT_THAT(session.recorder.output, HasSubstr("\r\nUpgrade: websocket\r\n")) << version;
    EXPECT_THAT(session.recorder.output, HasSubstr("\r\nContent-Length: 0\r\n")) << version;
  }
}

TEST(WebsocketHandshakeTest, AnOrdinaryRequestIsToldToUpgrade) {
  ServerSession session;
  session.Feed("GET /ws HTTP/1.1\r\nHost: example.org\r\n\r\n");
  EXPECT_THAT(session.recorder.events, ElementsAre("ended 1006"));
  EXPECT_THAT(session.recorder.output, StartsWith("HTTP/1.1 426 Upgrade Required\r\n"));
}

TEST(WebsocketHandshakeTest, BadRequestsAreRefused) {
  const std::string good = UpgradeRequest();
  auto with = [&](std::string_view from, std::string_view to) {
    std::string request = good;
    return request.replace(request.find(from), from.size(), to);
  };
  const std::pair<std::string, std::string> cases[] = {
      {UpgradeRequest("13", "", ""), "400"},
      {UpgradeRequest("13", "", "short"), "400"},
      {UpgradeRequest("13", "", "dGhlIHNhbXBsZSBub25j*Q=="), "400"},
      {UpgradeRequest("13", "", "dGhlIHNhbXBsZSBub25jZQAA"), "400"},
      {with("GET", "POST"), "400"},
      {with("HTTP/1.1", "HTTP/1.0"), "400"},
      {with("Host: example.org:8006\r\n", ""), "400"},
      {with("example.org:8006", "example.org:99999999"), "400"},
      {with("Upgrade: websocket", "no colon here"), "400"},
      {UpgradeRequest("13", "Content-Length: 5\r\n"), "413"},
      {UpgradeRequest("13", "X: " + std::string(17'000, 'a') + "\r\n"), "431"},
      {std::string(20'000, 'a'), "431"},
      {"\r\n\r\n", "400"},
  };
  for (const auto& [request, status] : cases) {
    ServerSession session;
    session.Feed(request);
    EXPECT_THAT(session.recorder.events, ElementsAre("ended 1006")) << request;
    EXPECT_THAT(session.recorder.output, StartsWith("HTTP/1.1 " + status + " ")) << request;
    session.Feed(good);
    session.engine->Eof();
    EXPECT_EQ(session.recorder.events.size(), 1u);
  }
}

TEST(WebsocketHandshakeTest, FramesBehindTheRequestAreRead) {
  ServerSession session;
  session.Feed(UpgradeRequest() + FromClient(kFin | kText, "first") + FromClient(kFin | kText, std::string(300, 'x')));
  EXPECT_THAT(session.recorder.events, ElementsAre("open", "text first", "text " + std::string(300, 'x')));
}

TEST(WebsocketHandshakeTest, WhatIsSentFromTheOpenHandlerFollowsTheResponse) {
  ServerSession session;
  session.recorder.when_open = [&] {
    session.engine->SendText("hello");
    session.engine->Close(1008, "token expired");
  };
  session.Feed(UpgradeRequest() + FromClient(kFin | kText, "ignored"));
  EXPECT_THAT(session.recorder.events, ElementsAre("open"));
  EXPECT_THAT(session.recorder.output,
              ::testing::EndsWith("\r\n\r\n" + FromServer(kFin | kText, "hello") +
                                  FromServer(kFin | kClose, ClosePayload(1008, "token expired"))));
}

}  // namespace
}  // namespace presence::edge
