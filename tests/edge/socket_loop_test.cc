// The upgrade, messages, closing, slots.
#include "edge/socket_loop.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/edge/socket_loop_fixture.h"

namespace presence::edge {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::StartsWith;

TEST_F(SocketLoopTest, AnUpgradedSocketEchoes) {
  handler_.on_text = [&](SocketId socket, std::string_view text) { Send({socket}, text); };
  Listen();
  auto client = OpenWebsocket();
  EXPECT_EQ(loop_->open_connections(), 1u);
  client->SendText("hello");
  client->SendText(std::string(60'000, 'x'));
  ASSERT_TRUE(RunUntil([&] { return client->texts().size() == 2; }, [&] { client->Read(); }));
  EXPECT_THAT(client->texts(), ElementsAre("hello", std::string(60'000, 'x')));

  client->Ping("are you there");
  ASSERT_TRUE(RunUntil([&] { return client->control_frames() == 1; }, [&] { client->Read(); }));
  EXPECT_EQ(handler_.control_frames, 1);
}

TEST_F(SocketLoopTest, FramesBehindTheUpgradeRequestAreNotLost) {
  Listen();
  TcpClient client(loop_->port());
  client.Write(Get("/ws", kUpgradeHeaders) + std::string("\x81\x85\0\0\0\0early", 11));
  ASSERT_TRUE(RunUntil([&] { return handler_.texts.size() == 1; }));
  EXPECT_EQ(handler_.texts[0], "early");
}

TEST_F(SocketLoopTest, AnUpgradeMayBeDecidedLater) {
  std::optional<SocketId> waiting;
  handler_.on_request = [&](SocketId socket, const HttpRequest&) { waiting = socket; };
  Listen();
  WebsocketTestClient client(loop_->port());
  ASSERT_TRUE(RunUntil([&] { return waiting.has_value(); }));
  handler_.on_open = [&](SocketId socket) {
    EXPECT_FALSE(handler_.inside_call);
    Send({socket}, "first");
  };
  handler_.inside_call = true;
  loop_->Upgrade(*waiting, "");
  handler_.inside_call = false;
  ASSERT_TRUE(RunUntil([&] { return client.texts().size() == 1; }, [&] { client.Read(); }));
  EXPECT_EQ(client.texts()[0], "first");
}

TEST_F(SocketLoopTest, ARefusedUpgradeIsAnsweredAndClosed) {
  handler_.on_request = [&](SocketId socket, const HttpRequest&) {
    loop_->Respond(socket, JsonError(401, "no token"));
  };
  Listen();
  TcpClient client(loop_->port());
  client.Write(Get("/ws", kUpgradeHeaders) + Get("/next"));
  const std::string answer = ReadToEnd(client);
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 401 Unauthorized\r\n"));
  EXPECT_EQ(Count(answer, "HTTP/1.1"), 1u);
}

TEST_F(SocketLoopTest, AHandshakeThatIsWrongIsAnsweredByTheEngineAndNeverOpens) {
  Listen();
  TcpClient client(loop_->port());
  client.Write(Get("/ws", "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 8\r\n"));
  EXPECT_THAT(ReadToEnd(client), StartsWith("HTTP/1.1 426 "));
  client.Close();
  EXPECT_TRUE(RunUntil([&] { return SocketsOpen() == 0; }));
  EXPECT_THAT(handler_.opened, IsEmpty());
  EXPECT_THAT(handler_.closed, IsEmpty());
}

TEST_F(SocketLoopTest, AnUpgradeToBeClosedGetsTheCloseFrameAloneAndIsNeverReported) {
  handler_.on_request = [&](SocketId socket, const HttpRequest&) {
    loop_->UpgradeAndClose(socket, "", 1008, "token expired");
  };
  Listen();
  WebsocketTestClient client(loop_->port());
  ASSERT_TRUE(RunUntil([&] { return client.closed().has_value() && client.tcp().ended(); }, [&] { client.Read(); }));
  EXPECT_TRUE(client.open());
  EXPECT_EQ(client.closed(), 1008);
  EXPECT_THAT(client.texts(), IsEmpty());
  client.tcp().Close();
  EXPECT_TRUE(RunUntil([&] { return SocketsOpen() == 0; }));
  EXPECT_THAT(handler_.opened, IsEmpty());
  EXPECT_THAT(handler_.closed, IsEmpty());
}

TEST_F(SocketLoopTest, ACloseComesBehindWhatIsQueuedAndNothingComesBehindIt) {
  Listen();
  auto client = OpenWebsocket();
  const SocketId socket = handler_.opened[0];
  Send({socket}, "before");
  Close(socket, 1001, "going away");
  Send({socket}, "after");
  Close(socket, 1011, "again");
  ASSERT_TRUE(RunUntil([&] { return !handler_.closed.empty(); }, [&] { client->Read(); }));
  EXPECT_THAT(client->texts(), ElementsAre("before"));
  EXPECT_EQ(client->closed(), 1001);
  ASSERT_THAT(handler_.closed, SizeIs(1));
  EXPECT_EQ(handler_.closed[0].socket, socket);
  EXPECT_EQ(handler_.closed[0].code, 1001);
  ASSERT_TRUE(RunUntil([&] { return client->tcp().ended(); }, [&] { client->Read(); }));
}

TEST_F(SocketLoopTest, AClientCloses) {
  Listen();
  auto client = OpenWebsocket();
  client->Close(1000);
  ASSERT_TRUE(RunUntil([&] { return client->closed() && !handler_.closed.empty(); }, [&] { client->Read(); }));
  EXPECT_EQ(client->closed(), 1000);
  EXPECT_EQ(handler_.closed[0].code, 1000);
  EXPECT_EQ(loop_->open_connections(), 0u);
}

TEST_F(SocketLoopTest, AClientThatVanishesIsReportedWith1006) {
  Listen();
  auto resets = OpenWebsocket();
  auto ends = OpenWebsocket();
  resets->tcp().Reset();
  ends->tcp().EndWriting();
  ASSERT_TRUE(RunUntil([&] { return handler_.closed.size() == 2; }));
  EXPECT_EQ(handler_.closed[0].code, 1006);
  EXPECT_EQ(handler_.closed[1].code, 1006);
}

TEST_F(SocketLoopTest, BrokenFramesAreClosedWithTheirCodesAndCounted) {
  options_.message_bytes_max = 100;
  options_.close_timeout = 50ms;  // these clients do not answer a close frame
  Listen();
  const auto close_code_after = [&](std::string_view frame) -> int {
    TcpClient client(loop_->port());
    client.Write(Get("/ws", kUpgradeHeaders));
    client.Write(frame);
    const std::string answer = ReadToEnd(client);
    const size_t close_frame = answer.find("\r\n\r\n") + 4;
    if (answer.size() < close_frame + 4) return 0;
    EXPECT_EQ(answer[close_frame], '\x88');
    return static_cast<unsigned char>(answer[close_frame + 2]) << 8 |
           static_cast<unsigned char>(answer[close_frame + 3]);
  };
  using namespace std::string_view_literals;
  EXPECT_EQ(close_code_after("\x81\x02hi"sv), 1002);                // not masked
  EXPECT_EQ(close_code_after("\x82\x82\0\0\0\0hi"sv), 1003);        // binary
  EXPECT_EQ(close_code_after("\x81\x82\0\0\0\0\xff\xff"sv), 1007);  // not UTF-8
  EXPECT_EQ(close_code_after("\x81\xfe\x01\x00\0\0\0\0"sv), 1009);  // 256 bytes to come
  const SocketLoopCounters& counters = loop_->counters();
  EXPECT_EQ(counters.closes_1002.Value(), 1u);
  EXPECT_EQ(counters.closes_1003.Value(), 1u);
  EXPECT_EQ(counters.closes_1007.Value(), 1u);
  EXPECT_EQ(counters.closes_1009.Value(), 1u);
  ASSERT_TRUE(RunUntil([&] { return handler_.closed.size() == 4; }));
  EXPECT_EQ(handler_.closed[0].code, 1002);
  EXPECT_THAT(handler_.texts, IsEmpty());
}

TEST_F(SocketLoopTest, AStaleSocketIdIsIgnored) {
  Listen();
  auto first = OpenWebsocket();
  const SocketId stale = handler_.opened[0];
  first->tcp().Reset();
  ASSERT_TRUE(RunUntil([&] { return SocketsOpen() == 0; }));
  auto second = OpenWebsocket();
  const SocketId current = handler_.opened[1];
  ASSERT_EQ(current.slot, stale.slot);
  ASSERT_NE(current.generation, stale.generation);

  Close(stale, 1001, "not you");
  Close(SocketId{123'456, 1}, 1001, "nobody");
  loop_->Respond(stale, HttpResponse());
  Send({current, SocketId{123'456, 1}}, "you");
  ASSERT_TRUE(RunUntil([&] { return second->texts().size() == 1; }, [&] { second->Read(); }));
  EXPECT_EQ(second->closed(), std::nullopt);
}

TEST_F(SocketLoopTest, FramesForAClientThatIsGoneDoNothing) {
  Listen();
  auto client = OpenWebsocket();
  const SocketId socket = handler_.opened[0];
  client->tcp().Reset();
  for (int i = 0; i < 3; ++i) {
    Send({socket}, "nobody reads this");
    loop_->Flush(1000);
  }
  ASSERT_TRUE(RunUntil([&] { return handler_.closed.size() == 1; }));
  EXPECT_EQ(handler_.closed[0].code, 1006);
  const uint64_t writes = loop_->counters().writev_calls.Value();
  Send({socket}, "nor this");
  loop_->Flush(1000);
  EXPECT_EQ(loop_->counters().writev_calls.Value(), writes);
}

TEST_F(SocketLoopTest, AUsedSlotRemembersNothingOfItsLastOwner) {
  options_.close_timeout = 50ms;
  Listen();
  {
    TcpClient half_closed(loop_->port());
    half_closed.Write(Get("/", "Connection: close\r\n"));
    half_closed.EndWriting();
    ReadToEnd(half_closed);
  }
  ASSERT_TRUE(RunUntil([&] { return SocketsOpen() == 0; }));
  auto blocked = OpenWebsocket(/*receive_buffer_bytes=*/4096);
  for (int i = 0; i < 8; ++i) Send({handler_.opened[0]}, std::string(1'000'000, 'x'));
  ASSERT_TRUE(RunUntil([&] { return SocketsOpen() == 0; }));
  EXPECT_EQ(handler_.closed[0].code, 1013);
  {
    TcpClient keeps(loop_->port());
    keeps.Write(Get("/kept"));
    ASSERT_TRUE(RunUntil([&] { return keeps.received().ends_with("/kept"); }, [&] { keeps.Read(); }));
    EXPECT_THAT(keeps.received(), HasSubstr("Connection: keep-alive\r\n"));
  }
  ASSERT_TRUE(RunUntil([&] { return SocketsOpen() == 0; }));
  auto last = OpenWebsocket();
  ASSERT_EQ(handler_.opened[1].slot, handler_.opened[0].slot);
  Send({handler_.opened[1]}, "fresh");
  ASSERT_TRUE(RunUntil([&] { return last->texts().size() == 1; }, [&] { last->Read(); }));
  last->tcp().Reset();
  ASSERT_TRUE(RunUntil([&] { return handler_.closed.size() == 2; }));
  EXPECT_EQ(handler_.closed[1].code, 1006);
}

TEST_F(SocketLoopTest, ACloseThatIsNotAnsweredEndsAfterItsTime) {
  options_.close_timeout = 30ms;
  Listen();
  auto client = OpenWebsocket();
  Close(handler_.opened[0], 1001, "going away");
  ASSERT_TRUE(RunUntil([&] { return handler_.closed.size() == 1; }));  // the client reads nothing
  EXPECT_EQ(handler_.closed[0].code, 1001);
  EXPECT_EQ(loop_->counters().close_timeouts.Value(), 1u);
  EXPECT_TRUE(RunUntil([&] { return SocketsOpen() == 0; }));
}

}  // namespace
}  // namespace presence::edge
