// The client role, mostly against the server role.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "edge/websocket_engine.h"
#include "tests/edge/websocket_frames.h"

namespace presence::edge {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::StartsWith;

class BackToBack : public ::testing::Test {
 protected:
  explicit BackToBack(WebsocketClientOptions options = {.uri = "ws://example.org:8006/ws?token=t",
                                                        .headers = {{"Authorization", "Bearer a.b.c"}},
                                                        .subprotocols = {"presence.v1", "bearer.x"}})
      : server_engine(WebsocketEngine::Server({.subprotocol = "presence.v1"}, server)),
        client_engine(WebsocketEngine::Client(options, client)) {
    client_engine->Start();
  }

  void Exchange() {
    while (!server.output.empty() || !client.output.empty()) {
      server_engine->Feed(client.TakeOutput());
      client_engine->Feed(server.TakeOutput());
    }
  }

  Recorder server, client;
  std::unique_ptr<WebsocketEngine> server_engine, client_engine;
};

TEST_F(BackToBack, TheRequestSaysWhatTheOptionsSay) {
  EXPECT_THAT(client.output, StartsWith("GET /ws?token=t HTTP/1.1\r\n"));
  EXPECT_THAT(client.output, HasSubstr("\r\nHost: example.org:8006\r\n"));
  EXPECT_THAT(client.output, HasSubstr("\r\nAuthorization: Bearer a.b.c\r\n"));
  EXPECT_THAT(client.output, HasSubstr("\r\nSec-WebSocket-Protocol: presence.v1, bearer.x\r\n"));
  EXPECT_THAT(client.output, HasSubstr("\r\nSec-WebSocket-Version: 13\r\n"));
  EXPECT_THAT(client.output, Not(HasSubstr("User-Agent")));
}

TEST_F(BackToBack, MessagesGoBothWays) {
  Exchange();
  client_engine->SendText("up");
  server_engine->SendText("down");
  client_engine->SendPing("");
  server_engine->SendPing("");
  client_engine->SendText(std::string(60'000, 'u'));
  server_engine->SendText(std::string(600'000, 'd'));
  Exchange();
  EXPECT_THAT(server.events, ElementsAre("open", "text up", "control", "text " + std::string(60'000, 'u'), "control"));
  EXPECT_THAT(client.events,
              ElementsAre("open", "text down", "control", "text " + std::string(600'000, 'd'), "control"));
}

TEST_F(BackToBack, TheClientCloses) {
  Exchange();
  client_engine->Close(1001, "leaving");
  Exchange();
  EXPECT_THAT(server.events, ElementsAre("open", "ended 1001"));
  EXPECT_THAT(client.events, ElementsAre("open", "ended 1001"));
}

TEST_F(BackToBack, TheServerCloses) {
  Exchange();
  server_engine->Close(1008, "Heartbeat timeout");
  Exchange();
  EXPECT_THAT(server.events, ElementsAre("open", "ended 1008"));
  EXPECT_THAT(client.events, ElementsAre("open", "ended 1008"));
}

TEST_F(BackToBack, BothCloseAtOnce) {
  Exchange();
  server_engine->Close(1012, "");
  client_engine->Close(1001, "");
  Exchange();
  EXPECT_THAT(server.events, ElementsAre("open", "ended 1012"));
  EXPECT_THAT(client.events, ElementsAre("open", "ended 1001"));
}

TEST_F(BackToBack, FramesOfTheClientAreMaskedWithFreshKeys) {
  Exchange();
  client_engine->SendText("same");
  const std::string first = client.TakeOutput();
  client_engine->SendText("same");
  const std::string second = client.TakeOutput();
  EXPECT_EQ(static_cast<uint8_t>(first[1]), 0x80 | 4);
  EXPECT_NE(first.substr(2, 4), second.substr(2, 4));
  EXPECT_EQ(first, Frame(kFin | kText, "same", first.substr(2, 4)));
}

TEST_F(BackToBack, AMaskedFrameFailsTheClient) {
  Exchange();
  client_engine->Feed(FromClient(kFin | kText, "masked"));
  EXPECT_THAT(client.events, ElementsAre("open", "ended 1002"));
}

TEST_F(BackToBack, ABadCloseCodeFailsTheClient) {
  Exchange();
  client_engine->Feed(FromServer(kFin | kClose, ClosePayload(1005)));
  EXPECT_THAT(client.events, ElementsAre("open", "ended 1002"));
  EXPECT_EQ(static_cast<uint8_t>(client.output[0]), kFin | kClose);
}

TEST_F(BackToBack, ARefusedHandshakeEndsTheClient) {
  client_engine->Feed("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n");
  EXPECT_THAT(client.events, ElementsAre("ended 1006"));
}

TEST_F(BackToBack, AWrongAcceptKeyEndsTheClient) {
  client_engine->Feed(
      "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
      "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n");
  EXPECT_THAT(client.events, ElementsAre("ended 1006"));
}

TEST_F(BackToBack, TheEndOfTheStreamEndsTheClient) {
  client_engine->Feed("HTTP/1.1 101");
  client_engine->Eof();
  EXPECT_THAT(client.events, ElementsAre("ended 1006"));
}

TEST_F(BackToBack, FramesBehindTheResponseAreRead) {
  server_engine->Feed(client.TakeOutput());
  server_engine->SendText("early");
  client_engine->Feed(server.TakeOutput());
  EXPECT_THAT(client.events, ElementsAre("open", "text early"));
}

TEST(WebsocketClientTest, WhatCannotBeSentEndsAtTheStart) {
  const WebsocketClientOptions cases[] = {
      {.uri = "no uri at all", .headers = {}, .subprotocols = {}},
      {.uri = "ws://example.org/", .headers = {{"bad header\r\n", "x"}}, .subprotocols = {}},
      {.uri = "ws://example.org/", .headers = {}, .subprotocols = {"not a token"}},
  };
  for (const WebsocketClientOptions& options : cases) {
    Recorder recorder;
    auto engine = WebsocketEngine::Client(options, recorder);
    engine->Feed("before the start");
    EXPECT_THAT(recorder.events, IsEmpty());
    engine->Start();
    EXPECT_THAT(recorder.events, ElementsAre("ended 1006")) << options.uri;
    EXPECT_THAT(recorder.output, IsEmpty());
  }
}

}  // namespace
}  // namespace presence::edge
