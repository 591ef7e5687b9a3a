// What websocketpp 0.8.2 does wrong and websocket_engine.cc makes right, each with a test; the table is in edge/README.md. Further ones, that
// are stories of their own, stand in websocket_engine_test.cc and websocket_handshake_test.cc.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <string_view>

#include "edge/websocket_engine.h"
#include "tests/edge/websocket_frames.h"

namespace presence::edge {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::StartsWith;

// The status that a handshake is answered with, 101 included.
std::string StatusOf(const std::string& request) {
  ServerSession session;
  session.Feed(request);
  const bool opened = session.recorder.events == std::vector<std::string>{"open"};
  EXPECT_TRUE(opened || session.recorder.events == std::vector<std::string>{"ended 1006"}) << request;
  EXPECT_EQ(opened, session.recorder.output.substr(0, 13) == "HTTP/1.1 101 ") << session.recorder.output;
  return session.recorder.output.substr(9, 3);
}

TEST(WebsocketppFaultsTest, ALengthThatIsNotTheShortestIsThePeersFault) {
  for (const std::string_view header :
       {std::string_view("\x81\xfe\0\5", 4), std::string_view("\x82\xfe\0\x7d", 4),
        std::string_view("\x81\xff\0\0\0\0\0\0\0\5", 10), std::string_view("\x81\xff\0\0\0\0\0\0\xff\xff", 10)}) {
    ServerSession session;
    ServerSession::Opened(session).Feed(std::string(header).append(kMaskKey));
    EXPECT_THAT(session.recorder.events, ElementsAre("ended 1002"));
    EXPECT_EQ(session.recorder.output.substr(2, 2), ClosePayload(1002));
  }
}

TEST(WebsocketppFaultsTest, AFragmentWhoseLengthWouldOverflowFailsAtItsHeader) {
  for (const uint64_t length : {~uint64_t{0}, ~uint64_t{0} - 4, uint64_t{1} << 63, (uint64_t{1} << 63) - 1}) {
    ServerSession session;
    ServerSession::Opened(session).Feed(FromClient(kText, "begun") + Frame(kFin | kContinuation, "", kMaskKey, length));
    EXPECT_THAT(session.recorder.events, ElementsAre("ended 1009")) << length;
  }
}

TEST(WebsocketppFaultsTest, ValuesOfNothingButSpaceAreSurvived) {
  for (const std::string_view name :
       {"Host", "Upgrade", "Connection", "Origin", "Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions", "X"}) {
    for (const std::string_view value : {"", " ", "\t", " \t ", ",", ";", "\"", "a;", "a=\"", "\"\\", ", ,"}) {
      StatusOf(UpgradeRequest("13", std::string(name).append(":").append(value).append("\r\n")));
    }
  }
}

TEST(WebsocketppFaultsTest, ATokenMayBeNamedLongAndOftenWithoutMuchCost) {
  // Each of these would be one entry of a list, or a parameter: all fit into the head's bound, none opens anything.
  for (const std::string_view piece : {"a,", "a;b=c;", "permessage-deflate,", "\"\",", ";;"}) {
    std::string list;
    while (list.size() < 14'000) list += piece;
    StatusOf(UpgradeRequest("13", "Sec-WebSocket-Extensions: " + list + "\r\n"));
    StatusOf(UpgradeRequest("13", "Sec-WebSocket-Protocol: " + list + "\r\n"));
  }
}

TEST(WebsocketppFaultsTest, HostsThatAreNoneAreRefused) {
  for (const std::string_view host : {"", "[", "[::1", "]", ":", "h:", "h:-1", "h:65536", "h:1x", "[::1]x", "[::1]:"}) {
    std::string request = UpgradeRequest();
    const std::string_view good = "example.org:8006";
    StatusOf(request.replace(request.find(good), good.size(), host));
  }
  std::string request = UpgradeRequest();
  EXPECT_EQ(StatusOf(request.replace(request.find("example.org:8006"), 16, "example.org:99999")), "400");
}

TEST(WebsocketppFaultsTest, TwoKeysAreNoKey) {
  EXPECT_EQ(StatusOf(UpgradeRequest("13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n")), "400");
}

TEST(WebsocketppFaultsTest, Hybi00KeysAreNeverLookedAt) {
  // Without a space in a key its reader would divide by nothing.
  const std::string request = UpgradeRequest("", "Sec-WebSocket-Key1: 1\r\nSec-WebSocket-Key2: 2\r\n", "") + "12345678";
  EXPECT_EQ(StatusOf(request), "426");
}

TEST(WebsocketppFaultsTest, CallsInTheWrongStateDoNotThrow) {
  ServerSession session;
  const auto call_everything = [&] {
    session.engine->SendText("text");
    session.engine->SendPing("ping");
    session.engine->SendPing(std::string(126, 'p'));
    session.engine->Start();
  };
  call_everything();
  session.engine->Close(1000, "early");
  EXPECT_THAT(session.recorder.output, IsEmpty());
  ServerSession::Opened(session);
  session.engine->Close(1000, "");
  session.recorder.TakeOutput();
  call_everything();
  session.engine->Close(1001, "again");
  EXPECT_THAT(session.recorder.output, IsEmpty());
  session.engine->Eof();
  call_everything();
  session.engine->Close(1001, "late");
  session.engine->Feed("late");
  EXPECT_THAT(session.recorder.events, ElementsAre("ended 1000"));
  EXPECT_THAT(session.recorder.output, IsEmpty());
}

TEST(WebsocketppFaultsTest, WhatAHandlerThrowsEndsThatConnectionAlone) {
  ServerSession session, other;
  ServerSession::Opened(session);
  ServerSession::Opened(other);
  session.recorder.when_message = [] { throw std::runtime_error("a fault of ours"); };
  session.Feed(FromClient(kFin | kText, "one") + FromClient(kFin | kText, "two"));
  EXPECT_THAT(session.recorder.events, ElementsAre("text one", "ended 1011"));
  EXPECT_THAT(session.recorder.output, Not(HasSubstr("fault")));
  other.Feed(FromClient(kFin | kText, "three"));
  EXPECT_THAT(other.recorder.events, ElementsAre("text three"));
}

TEST(WebsocketppFaultsTest, NothingSaysWhatServerThisIs) {
  for (const std::string& request : {UpgradeRequest(), UpgradeRequest("8"), std::string("GET / HTTP/1.1\r\n\r\n")}) {
    ServerSession session;
    session.Feed(request);
    EXPECT_THAT(session.recorder.output, StartsWith("HTTP/1.1 "));
    EXPECT_THAT(session.recorder.output, Not(HasSubstr("Server:")));
    EXPECT_THAT(session.recorder.output, Not(HasSubstr("WebSocket++")));
  }
}

}  // namespace
}  // namespace presence::edge
