// What sockets may cost before they are WebSockets, and whom the handler does not want.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "edge/socket_loop.h"
#include "tests/edge/socket_loop_fixture.h"

namespace presence::edge {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

// Hears of sockets from their first moment to their last.
class DoorHandler : public RecordingHandler {
 public:
  bool OnAccepted(SocketId socket, const PeerAddress& peer) override {
    peers.push_back(peer.ToString());
    asked.push_back(socket);
    if (shut) return false;
    inside.push_back(socket);
    return true;
  }
  void OnReleased(SocketId socket) override {
    const auto found = std::find(inside.begin(), inside.end(), socket);
    ASSERT_NE(found, inside.end()) << "once for each that was let in";
    inside.erase(found);
    ++released;
  }

  std::vector<std::string> peers;
  std::vector<SocketId> asked;
  std::vector<SocketId> inside;
  int released = 0;
  bool shut = false;
};

class SocketLimitsTest : public SocketLoopTest {
 protected:
  void Listen() {
    door_.on_request = handler_.on_request;
    absl::StatusOr<std::unique_ptr<SocketLoop>> loop = SocketLoop::Listen(io_, options_, door_);
    ASSERT_TRUE(loop.ok()) << loop.status();
    loop_ = *std::move(loop);
  }
  std::unique_ptr<WebsocketTestClient> Open() {
    auto client = std::make_unique<WebsocketTestClient>(loop_->port());
    const size_t opened = door_.opened.size();
    EXPECT_TRUE(RunUntil([&] { return client->open() && door_.opened.size() > opened; }, [&] { client->Read(); }));
    return client;
  }
  std::vector<std::unique_ptr<TcpClient>> Silent(size_t count) {
    std::vector<std::unique_ptr<TcpClient>> clients;
    for (size_t i = 0; i < count; ++i) clients.push_back(std::make_unique<TcpClient>(loop_->port()));
    return clients;
  }

  DoorHandler door_;
};

TEST_F(SocketLimitsTest, WhoeverIsNotWantedIsResetAtOnce) {
  Listen();
  door_.shut = true;
  TcpClient client(loop_->port());
  client.Write(Get("/health"));
  ReadToEnd(client);
  EXPECT_TRUE(client.was_reset());
  EXPECT_THAT(client.received(), IsEmpty());
  EXPECT_THAT(door_.peers, ElementsAre("127.0.0.1"));
  EXPECT_THAT(door_.requests, IsEmpty());
  EXPECT_EQ(loop_->counters().sockets_refused.Value(), 1u);
  EXPECT_EQ(loop_->counters().sockets_accepted.Value(), 0u);
  door_.shut = false;
  auto welcome = Open();
  EXPECT_EQ(door_.released, 0);
}

TEST_F(SocketLimitsTest, WhoeverIsTurnedAwayUsesUpNothing) {
  Listen();
  door_.shut = true;
  for (int i = 0; i < 5; ++i) {
    TcpClient client(loop_->port());
    ReadToEnd(client);
  }
  door_.shut = false;
  auto welcome = Open();
  ASSERT_THAT(door_.asked, SizeIs(6));
  EXPECT_THAT(door_.asked, ::testing::Each(door_.inside[0]));
}

TEST_F(SocketLimitsTest, WhoLingersAfterItsAnswerKeepsNobodyOut) {
  options_.sockets_max = 10;
  options_.close_timeout = 10 * kPatience;
  Listen();
  auto websocket = Open();
  std::vector<std::unique_ptr<TcpClient>> lingering;
  for (int i = 0; i < 9; ++i) {
    lingering.push_back(std::make_unique<TcpClient>(loop_->port()));
    lingering.back()->Write(Get("/x", "Connection: close\r\n"));
    EXPECT_THAT(ReadToEnd(*lingering.back()), ::testing::HasSubstr("200 OK"));  // and it ends nothing
  }
  EXPECT_EQ(SocketsOpen(), 10u);
  auto first = Open();
  auto second = Open();
  EXPECT_EQ(SocketsOpen(), 10u);
  EXPECT_EQ(loop_->counters().sockets_refused.Value(), 0u);
  EXPECT_FALSE(websocket->closed() || first->closed());
  // The oldest two went: they are told so when they write.
  const auto is_gone = [](TcpClient& client) { return !client.Write("x") || !client.Write("x"); };
  EXPECT_TRUE(RunUntil([&] { return is_gone(*lingering[0]) && is_gone(*lingering[1]); }));
  EXPECT_FALSE(is_gone(*lingering[2]));
}

TEST_F(SocketLimitsTest, TheAddressIsOneInBothFamilies) {
  options_.host = "::";
  Listen();
  TcpClient v4(loop_->port()), v6(loop_->port(), TcpClient::Family::kIpv6);
  ASSERT_TRUE(RunUntil([&] { return door_.peers.size() == 2; }));
  std::sort(door_.peers.begin(), door_.peers.end());
  EXPECT_THAT(door_.peers, ElementsAre("127.0.0.1", "::1"));
}

TEST_F(SocketLimitsTest, EverySocketIsReleasedOnceHoweverItEnds) {
  options_.request_timeout = 50ms;
  Listen();
  auto websocket = Open();
  auto reset = Open();
  TcpClient silent(loop_->port()), malformed(loop_->port()), gone(loop_->port());
  malformed.Write("nonsense\r\n\r\n");
  ASSERT_TRUE(RunUntil([&] { return door_.peers.size() == 5; }));
  gone.Reset();
  reset->tcp().Reset();
  websocket->Close(1000);
  ASSERT_TRUE(RunUntil([&] { return door_.inside.empty(); },
                       [&] {
                         silent.Read();
                         malformed.Read();
                         websocket->Read();
                         if (malformed.ended()) malformed.Close();
                         if (websocket->closed()) websocket->tcp().Close();
                       }));
  EXPECT_EQ(door_.released, 5);
  EXPECT_EQ(SocketsOpen(), 0u);
}

TEST_F(SocketLimitsTest, ThousandsWhoSayNothingKeepNobodyOut) {
  options_.pending_max = 200;
  options_.request_timeout = kPatience;
  Listen();
  auto before = Open();
  auto silent = Silent(1'500);
  ASSERT_TRUE(RunUntil([&] { return door_.peers.size() == 1'501 && SocketsOpen() == 201; }));
  auto during = Open();
  auto rest = TcpClient(loop_->port());
  rest.Write(Get("/x", "Connection: close\r\n"));
  EXPECT_THAT(ReadToEnd(rest), ::testing::HasSubstr("200 OK"));
  EXPECT_FALSE(before->closed() || during->closed());
  EXPECT_GE(loop_->counters().pending_closed.Value(), 1'300u);
  EXPECT_EQ(loop_->counters().request_timeouts.Value(), 0u);
  // The oldest went.
  ASSERT_TRUE(RunUntil([&] { return silent.front()->ended(); }, [&] { silent.front()->Read(); }));
  silent.back()->Read();
  EXPECT_FALSE(silent.back()->ended());
}

TEST_F(SocketLimitsTest, SocketsThatAreKeptForAFurtherRequestCountToo) {
  options_.pending_max = 50;
  Listen();
  std::vector<std::unique_ptr<TcpClient>> idle;
  for (int i = 0; i < 120; ++i) {
    idle.push_back(std::make_unique<TcpClient>(loop_->port()));
    TcpClient* client = idle.back().get();
    client->Write(Get("/x"));
    ASSERT_TRUE(
        RunUntil([&] { return client->ended() || Count(client->received(), "200 OK") == 1; }, [&] { client->Read(); }));
  }
  EXPECT_LE(SocketsOpen(), 51u);
  EXPECT_EQ(door_.requests.size(), 120u) << "each was answered before it went";
  auto client = Open();
  EXPECT_GE(loop_->counters().pending_closed.Value(), 70u);
  // Those who wait for their first request lose nothing by it: the idle ones are more.
  TcpClient fresh(loop_->port());
  ASSERT_TRUE(RunUntil([&] { return door_.peers.size() == 122; }));
  for (size_t i = 0; i < 20; ++i) {
    idle.push_back(std::make_unique<TcpClient>(loop_->port()));
    idle.back()->Write(Get("/x"));
    ASSERT_TRUE(RunUntil([&] { return door_.requests.size() == 122 + i; }));
  }
  fresh.Write(Get("/x", "Connection: close\r\n"));
  EXPECT_THAT(ReadToEnd(fresh), ::testing::HasSubstr("200 OK"));
}

TEST_F(SocketLimitsTest, OpenWebsocketsAndRequestsThatAreWorkedOnDoNotCount) {
  options_.pending_max = 2;
  door_.on_request = nullptr;
  handler_.on_request = [this](SocketId socket, const HttpRequest& request) {
    if (request.upgrade) loop_->Upgrade(socket, "");  // everything else waits for its answer
  };
  Listen();
  std::vector<std::unique_ptr<WebsocketTestClient>> clients;
  for (int i = 0; i < 20; ++i) clients.push_back(Open());
  std::vector<std::unique_ptr<TcpClient>> waiting;
  for (size_t i = 0; i < 20; ++i) {
    waiting.push_back(std::make_unique<TcpClient>(loop_->port()));
    waiting.back()->Write(Get("/slow"));
    ASSERT_TRUE(RunUntil([&] { return door_.requests.size() == 21 + i; }));
  }
  EXPECT_EQ(loop_->counters().pending_closed.Value(), 0u);
  EXPECT_EQ(SocketsOpen(), 40u);
}

TEST_F(SocketLimitsTest, TheTimeForARequestIsAbsolute) {
  options_.request_timeout = 200ms;
  Listen();
  TcpClient slow(loop_->port());
  const std::string head = Get("/x", "A: " + std::string(10'000, 'a') + "\r\n");
  size_t sent = 0;
  auto wrote_at = std::chrono::steady_clock::now();
  // A byte each millisecond is progress, and no excuse: the whole would take ten seconds.
  ASSERT_TRUE(RunUntil([&] { return slow.ended(); },
                       [&] {
                         slow.Read();
                         const auto now = std::chrono::steady_clock::now();
                         if (slow.ended() || now - wrote_at < 1ms) return;
                         wrote_at = now;
                         slow.Write(head.substr(sent++, 1));
                       }));
  EXPECT_LT(sent, head.size());
  EXPECT_THAT(slow.received(), ::testing::HasSubstr("408"));
  EXPECT_EQ(loop_->counters().request_timeouts.Value(), 1u);
}

TEST_F(SocketLimitsTest, AHeadHasABoundThatCanBeLowered) {
  options_.head_bytes_max = 1'024;
  Listen();
  TcpClient fits(loop_->port()), over(loop_->port());
  fits.Write(Get("/x", "Connection: close\r\nA: " + std::string(900, 'a') + "\r\n"));
  EXPECT_THAT(ReadToEnd(fits), ::testing::HasSubstr("200 OK"));
  over.Write(Get("/x", "A: " + std::string(1'000, 'a') + "\r\n"));
  EXPECT_THAT(ReadToEnd(over), ::testing::HasSubstr("431"));
  EXPECT_EQ(loop_->counters().heads_too_long.Value(), 1u);
  EXPECT_THAT(door_.requests, SizeIs(1));
}

TEST_F(SocketLimitsTest, AfterAPolicyCloseNoAnswerIsAwaited) {
  options_.close_timeout = 10 * kPatience;
  Listen();
  TcpClient flooding(loop_->port());
  flooding.Write(Get("/ws", kUpgradeHeaders));
  ASSERT_TRUE(RunUntil([&] { return door_.opened.size() == 1; }));
  loop_->Close(door_.opened[0], 1008, "rate limit");
  // It does not answer, and goes on.
  const std::string frame("\x81\x81\0\0\0\0x", 7);
  ASSERT_TRUE(RunUntil([&] { return door_.closed.size() == 1 && flooding.ended(); },
                       [&] {
                         flooding.Write(frame);
                         flooding.Read();
                       }));
  EXPECT_EQ(door_.closed[0].code, 1008);
  EXPECT_THAT(flooding.received(), ::testing::EndsWith("rate limit"));
  EXPECT_FALSE(flooding.was_reset()) << "the close frame must not be lost";
  EXPECT_EQ(door_.bytes, 0u);
  EXPECT_THAT(door_.texts, IsEmpty());
  flooding.Close();
  EXPECT_TRUE(RunUntil([&] { return door_.inside.empty(); }));
}

TEST_F(SocketLimitsTest, WhoIsClosedAtTheUpgradeIsNotListenedTo) {
  options_.close_timeout = 10 * kPatience;
  Listen();
  door_.on_request = [&](SocketId socket, const HttpRequest&) { loop_->UpgradeAndClose(socket, "", 4001, "not you"); };
  TcpClient client(loop_->port());
  client.Write(Get("/ws", kUpgradeHeaders) + std::string("\x89\x80\0\0\0\0", 6));  // a ping
  const std::string received = ReadToEnd(client);
  EXPECT_THAT(received, ::testing::EndsWith("not you"));
  EXPECT_EQ(Count(received, "\x8a"), 0u) << "no pong";
  client.Close();
  EXPECT_TRUE(RunUntil([&] { return door_.inside.empty(); }));
}

TEST_F(SocketLimitsTest, WhoDoesNotAnswerACloseIsListenedToForAWhile) {
  options_.close_timeout = 10 * kPatience;
  Listen();
  TcpClient client(loop_->port());
  client.Write(Get("/ws", kUpgradeHeaders));
  ASSERT_TRUE(RunUntil([&] { return door_.opened.size() == 1; }));
  loop_->Close(door_.opened[0], 1001, "going away");
  const std::string frame = std::string("\x81\xfe\x40\x00\0\0\0\0", 8) + std::string(16 * 1024, 'x');
  for (int i = 0; i < 15; ++i) client.Write(frame);  // it may have been on its way: 240 KiB
  ASSERT_TRUE(RunUntil([&] { return Count(client.received(), "going away") == 1; }, [&] { client.Read(); }));
  io_.restart();
  io_.poll();
  client.Read();
  EXPECT_FALSE(client.ended());
  EXPECT_THAT(door_.closed, IsEmpty());
  client.Write(frame + frame);
  ReadToEnd(client);
  ASSERT_TRUE(RunUntil([&] { return door_.closed.size() == 1; }));
  EXPECT_EQ(door_.closed[0].code, 1001);
}

// What is judged is that it ends although it never stood still.
TEST_F(SocketLimitsTest, AfterAPolicyCloseASlowReaderHasNoMoreTimeThanOthers) {
  options_.close_timeout = 200ms;
  options_.send_buffer_bytes_max = 256 * 1024 * 1024;
  Listen();
  TcpClient slow(loop_->port(), TcpClient::Family::kIpv4, 64 * 1024);
  slow.Write(Get("/ws", kUpgradeHeaders));
  ASSERT_TRUE(RunUntil([&] { return door_.opened.size() == 1; }));
  const uint32_t slot = door_.opened[0].slot;
  for (int i = 0; i < 1'000; ++i) loop_->Send({&slot, 1}, FrameRef::Text(std::string(64 * 1024, 'm')), SendPolicy());
  loop_->Close(door_.opened[0], 1008, "rate limit");
  auto read_at = std::chrono::steady_clock::now();
  size_t read = 0;
  ASSERT_TRUE(RunUntil([&] { return door_.closed.size() == 1; },
                       [&] {
                         const auto now = std::chrono::steady_clock::now();
                         if (now - read_at < 1ms) return;
                         read_at = now;
                         char buffer[32 * 1024];
                         const ssize_t bytes = recv(slow.descriptor(), buffer, sizeof(buffer), MSG_DONTWAIT);
                         if (bytes > 0) read += static_cast<size_t>(bytes);
                       }));
  EXPECT_EQ(loop_->counters().close_timeouts.Value(), 1u);
  EXPECT_LT(read, size_t{32} * 1024 * 1024);
}

TEST_F(SocketLimitsTest, BytesAreReportedBeforeAndWithoutMessages) {
  Listen();
  TcpClient client(loop_->port());
  // An empty first fragment, then empty ones for ever: no message comes of it (RFC 6455, section 5.4).
  const std::string first("\x01\x80\0\0\0\0", 6), next("\x00\x80\0\0\0\0", 6);
  client.Write(Get("/ws", kUpgradeHeaders) + first);
  ASSERT_TRUE(RunUntil([&] { return door_.opened.size() == 1 && door_.bytes == 6; })) << "what came with the request";
  for (int i = 0; i < 100; ++i) client.Write(next);
  ASSERT_TRUE(RunUntil([&] { return door_.bytes == 606; }));
  EXPECT_THAT(door_.texts, IsEmpty());
}

}  // namespace
}  // namespace presence::edge
