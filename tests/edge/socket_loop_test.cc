// Requests, the upgrade, closing and time-outs.
#include "edge/socket_loop.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <string>

#include "tests/edge/socket_loop_fixture.h"

namespace presence::edge {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;
using ::testing::StartsWith;

constexpr std::string_view kUpgradeHeaders =
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

size_t Count(std::string_view text, std::string_view what) {
  size_t count = 0;
  for (size_t at = text.find(what); at != std::string_view::npos; at = text.find(what, at + 1)) ++count;
  return count;
}

// --- HTTP

TEST_F(SocketLoopTest, AKeptConnectionAnswersOneRequestAfterTheOther) {
  Listen();
  TcpClient client(loop_->port());
  for (int i = 1; i <= 3; ++i) {
    client.received().clear();
    client.Write(Get("/" + std::to_string(i)));
    ASSERT_TRUE(
        RunUntil([&] { return client.received().ends_with("\r\n\r\n/" + std::to_string(i)); }, [&] { client.Read(); }));
    EXPECT_THAT(client.received(), StartsWith("HTTP/1.1 200 OK\r\n"));
    EXPECT_THAT(client.received(), HasSubstr("Connection: keep-alive\r\n"));
  }
  EXPECT_EQ(loop_->counters().sockets_accepted.Value(), 1u);
  EXPECT_EQ(loop_->counters().requests.Value(), 3u);

  client.received().clear();
  client.Write(Get("/last", "Connection: close\r\n"));
  EXPECT_THAT(ReadToEnd(client), HasSubstr("Connection: close\r\n"));
  client.Close();
  EXPECT_TRUE(RunUntil([&] { return SocketsOpen() == 0; }));
}

TEST_F(SocketLoopTest, PipelinedRequestsAreAnsweredInOrderAndJoinIntoFewWrites) {
  Listen();
  TcpClient client(loop_->port());
  std::string requests;
  for (int i = 0; i < 40; ++i) requests += Get("/" + std::to_string(i));
  client.Write(requests);
  ASSERT_TRUE(RunUntil([&] { return client.received().ends_with("/39"); }, [&] { client.Read(); }));
  size_t at = 0;
  for (int i = 0; i < 40; ++i) {
    at = client.received().find("\r\n\r\n/" + std::to_string(i), at);
    ASSERT_NE(at, std::string::npos) << i;
  }
  EXPECT_EQ(loop_->counters().frames_written.Value(), 40u);
  EXPECT_LE(loop_->counters().writev_calls.Value(), 10u);
}

TEST_F(SocketLoopTest, ASocketIsNotReadFurtherUntilItsRequestIsAnswered) {
  std::vector<SocketId> waiting;
  handler_.on_request = [&](SocketId socket, const HttpRequest&) { waiting.push_back(socket); };
  Listen();
  TcpClient client(loop_->port());
  client.Write(Get("/1") + Get("/2"));
  ASSERT_TRUE(RunUntil([&] { return !waiting.empty(); }));
  client.Write(Get("/3"));
  TcpClient other(loop_->port());
  other.Write(Get("/other"));
  ASSERT_TRUE(RunUntil([&] { return waiting.size() == 2; }));
  EXPECT_EQ(handler_.requests.back().path, "/other");

  loop_->Respond(waiting[0], HttpResponse());
  ASSERT_TRUE(RunUntil([&] { return waiting.size() == 3; }));
  loop_->Respond(waiting[0], HttpResponse());
  loop_->Respond(waiting[0], HttpResponse());  // answered already: no effect
  ASSERT_TRUE(RunUntil([&] { return waiting.size() == 4; }));
  EXPECT_EQ(handler_.requests[2].path, "/2");
  EXPECT_EQ(handler_.requests[3].path, "/3");
}

TEST_F(SocketLoopTest, ARequestInSmallPiecesWithABody) {
  Listen();
  TcpClient client(loop_->port());
  const std::string request = "POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello";
  for (char c : request) {
    const uint64_t before = loop_->counters().bytes_in.Value();
    client.Write({&c, 1});
    ASSERT_TRUE(RunUntil([&] { return loop_->counters().bytes_in.Value() > before; }));
  }
  ASSERT_TRUE(RunUntil([&] { return !handler_.requests.empty(); }));
  EXPECT_EQ(handler_.requests[0].body, "hello");
}

TEST_F(SocketLoopTest, AHeadRequestGetsNoBody) {
  Listen();
  TcpClient client(loop_->port());
  client.Write("HEAD /x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
  const std::string answer = ReadToEnd(client);
  EXPECT_THAT(answer, HasSubstr("Content-Length: 2\r\n"));
  EXPECT_TRUE(answer.ends_with("\r\n\r\n"));
}

TEST_F(SocketLoopTest, AHalfClosedClientStillGetsItsAnswer) {
  std::optional<SocketId> waiting;
  handler_.on_request = [&](SocketId socket, const HttpRequest&) { waiting = socket; };
  Listen();
  TcpClient client(loop_->port());
  client.Write(Get("/x"));
  client.EndWriting();
  ASSERT_TRUE(RunUntil([&] { return waiting.has_value(); }));
  HttpResponse response;
  response.body = std::string(3'000'000, 'x');  // more than the socket takes at once
  loop_->Respond(*waiting, response);
  EXPECT_THAT(ReadToEnd(client), SizeIs(::testing::Gt(3'000'000)));
  EXPECT_TRUE(RunUntil([&] { return SocketsOpen() == 0; }));
}

TEST_F(SocketLoopTest, AClientThatIsGoneBeforeItsAnswerIsForgotten) {
  std::optional<SocketId> waiting;
  handler_.on_request = [&](SocketId socket, const HttpRequest&) { waiting = socket; };
  Listen();
  TcpClient client(loop_->port());
  client.Write(Get("/x"));
  ASSERT_TRUE(RunUntil([&] { return waiting.has_value(); }));
  client.Reset();
  ASSERT_TRUE(RunUntil([&] { return SocketsOpen() == 0; }));
  loop_->Respond(*waiting, HttpResponse());
  loop_->Upgrade(*waiting, "");
  loop_->UpgradeAndClose(*waiting, "", 1008, "late");
  EXPECT_EQ(loop_->counters().writev_calls.Value(), 0u);
}

TEST_F(SocketLoopTest, MalformedAndOversizedRequestsGetAJsonErrorAndAreClosed) {
  Listen();
  const std::pair<std::string, std::string> cases[] = {
      {"\x16\x03\x01 this is not HTTP", "400 Bad Request"},
      {Get("/" + std::string(kHttpHeadBytesMax, 'x')), "431 Request Header Fields Too Large"},
      {Get("/", "Content-Length: 1000000\r\n"), "413 Content Too Large"},
      {Get("/", "Transfer-Encoding: chunked\r\n"), "501 Not Implemented"},
      {"GET / HTTP/3.0\r\n\r\n", "505 HTTP Version Not Supported"},
  };
  for (const auto& [request, status] : cases) {
    TcpClient client(loop_->port());
    client.Write(request);
    const std::string answer = ReadToEnd(client);
    EXPECT_THAT(answer, StartsWith("HTTP/1.1 " + status + "\r\n"));
    EXPECT_THAT(answer, HasSubstr("\r\nConnection: close\r\n"));
    EXPECT_THAT(answer, HasSubstr("\r\n\r\n{\"error\":\""));
  }
  EXPECT_THAT(handler_.requests, IsEmpty());
  EXPECT_EQ(loop_->counters().requests_refused.Value(), 5u);
  EXPECT_TRUE(RunUntil([&] { return SocketsOpen() == 0; }));
}

TEST_F(SocketLoopTest, AnAnswerIsNotLostToAResetWhenItsClientGoesOnSending) {
  Listen();
  TcpClient client(loop_->port());
  client.Write(Get("/", "Content-Length: 150000\r\n") + std::string(150'000, 'b'));
  EXPECT_THAT(ReadToEnd(client), StartsWith("HTTP/1.1 413 "));
  EXPECT_FALSE(client.was_reset());
}

TEST_F(SocketLoopTest, AClientThatPipelinesAndDoesNotReadGetsNoFurtherAnswersMade) {
  handler_.on_request = [&](SocketId socket, const HttpRequest&) {
    HttpResponse response;
    response.body = std::string(1'000'000, 'x');
    loop_->Respond(socket, response);
  };
  Listen();
  TcpClient client(loop_->port(), TcpClient::Family::kIpv4, /*receive_buffer_bytes=*/4096);
  constexpr size_t kRequests = 40;
  std::string requests;
  for (size_t i = 0; i < kRequests; ++i) requests += Get("/");
  client.Write(requests);
  // 40 MB of answers, of which the kernel takes some 3.
  ASSERT_TRUE(RunUntil([&] { return !handler_.requests.empty(); }));
  io_.restart();
  while (io_.poll() > 0) {
  }
  EXPECT_LT(handler_.requests.size(), 12u);
  ASSERT_TRUE(
      RunUntil([&] { return Count(client.received(), "HTTP/1.1 200 OK") == kRequests; }, [&] { client.Read(); }));
}

TEST_F(SocketLoopTest, RandomBytesHurtNobody) {
  Listen();
  std::mt19937 random(11);
  for (int round = 0; round < 50; ++round) {
    TcpClient garbage(loop_->port());
    std::string bytes(1 + random() % 3000, '\0');
    for (char& c : bytes) c = static_cast<char>(random());
    if (round % 2 == 0) bytes = Get("/ws", kUpgradeHeaders) + bytes;
    garbage.Write(bytes);
    garbage.EndWriting();  // what looks like the beginning of a frame would be waited for
    ReadToEnd(garbage);
  }
  EXPECT_TRUE(RunUntil([&] { return SocketsOpen() == 0; }));
  EXPECT_EQ(handler_.closed.size(), handler_.opened.size());
  auto client = OpenWebsocket();
  EXPECT_TRUE(client->open());
}

TEST_F(SocketLoopTest, IPv6AndAnAddressThatCannotBeBound) {
  options_.host = "::1";
  Listen();
  TcpClient client(loop_->port(), TcpClient::Family::kIpv6);
  client.Write(Get("/six", "Connection: close\r\n"));
  EXPECT_THAT(ReadToEnd(client), HasSubstr("/six"));

  options_.host = "192.0.2.1";  // for documentation: nobody's address
  EXPECT_EQ(SocketLoop::Listen(io_, options_, handler_).status().code(), absl::StatusCode::kUnavailable);
  options_.host = "no such host";
  EXPECT_EQ(SocketLoop::Listen(io_, options_, handler_).status().code(), absl::StatusCode::kUnavailable);
}

// --- WebSocket

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

// --- time-outs

TEST_F(SocketLoopTest, ASilentSocketIsClosedWithoutAnAnswerAndASlowRequestGets408) {
  options_.request_timeout = 30ms;
  Listen();
  TcpClient silent(loop_->port()), slow(loop_->port()), slow_later(loop_->port());
  slow.Write("GET / HTT");
  slow_later.Write(Get("/first"));
  ASSERT_TRUE(RunUntil([&] { return slow_later.received().ends_with("/first"); }, [&] { slow_later.Read(); }));
  slow_later.Write("GET / HTT");
  EXPECT_EQ(ReadToEnd(silent), "");
  EXPECT_THAT(ReadToEnd(slow), StartsWith("HTTP/1.1 408 "));
  EXPECT_THAT(ReadToEnd(slow_later), HasSubstr("/firstHTTP/1.1 408 "));
  EXPECT_EQ(loop_->counters().request_timeouts.Value(), 3u);
}

TEST_F(SocketLoopTest, ALoopThatWasStalledReadsEverybodyBeforeItBlamesAnybody) {
  options_.request_timeout = 300ms;
  Listen();
  std::vector<std::unique_ptr<TcpClient>> clients;
  for (int i = 0; i < 300; ++i) clients.push_back(std::make_unique<TcpClient>(loop_->port()));
  ASSERT_TRUE(RunUntil([&] { return SocketsOpen() == 300; }));
  for (auto& client : clients) client->Write(Get("/in-time"));  // more events than one turn takes
  for (const auto stalled = std::chrono::steady_clock::now(); std::chrono::steady_clock::now() - stalled < 320ms;) {
  }
  ASSERT_TRUE(RunUntil([&] { return handler_.requests.size() == 300; }));
  EXPECT_EQ(loop_->counters().request_timeouts.Value(), 0u);
}

TEST_F(SocketLoopTest, TheLastBytesHaveTheirTimeForEachPieceThatTheClientTakes) {
  options_.close_timeout = 300ms;
  handler_.on_request = [&](SocketId socket, const HttpRequest&) {
    HttpResponse response;
    response.body = std::string(12'000'000, 'x');
    loop_->Respond(socket, response);
  };
  Listen();
  TcpClient client(loop_->port());
  client.Write(Get("/", "Connection: close\r\n"));
  // Reads until the server gets rid of something, pauses for half of the time-out, and so on.
  uint64_t written = 0;
  auto progress = std::chrono::steady_clock::now();
  ASSERT_TRUE(RunUntil([&] { return client.ended(); },
                       [&] {
                         const auto now = std::chrono::steady_clock::now();
                         if (loop_->counters().bytes_out.Value() != written) {
                           written = loop_->counters().bytes_out.Value();
                           progress = now;
                         }
                         if (now - progress > options_.close_timeout / 2) client.Read();
                       }));
  EXPECT_GT(client.received().size(), 12'000'000u);
  EXPECT_FALSE(client.was_reset());
}

TEST_F(SocketLoopTest, AnIdleKeptConnectionIsClosedAfterItsTimeAndAPendingAnswerHasNone) {
  options_.request_timeout = 20ms;
  options_.keep_alive_timeout = 30ms;
  std::optional<SocketId> waiting;
  handler_.on_request = [&](SocketId socket, const HttpRequest& request) {
    if (request.path == "/later") {
      waiting = socket;
    } else {
      loop_->Respond(socket, HttpResponse());
    }
  };
  Listen();
  TcpClient later(loop_->port()), idle(loop_->port());
  later.Write(Get("/later"));
  ASSERT_TRUE(RunUntil([&] { return waiting.has_value(); }));
  idle.Write(Get("/"));
  EXPECT_THAT(ReadToEnd(idle), StartsWith("HTTP/1.1 200 OK"));
  EXPECT_TRUE(RunUntil([&] { return SocketsOpen() == 1; }));
  loop_->Respond(*waiting, HttpResponse());
  EXPECT_THAT(ReadToEnd(later), StartsWith("HTTP/1.1 200 OK"));
  EXPECT_EQ(loop_->counters().request_timeouts.Value(), 0u);
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

TEST_F(SocketLoopTest, APeerThatKeepsItsSideOpenAfterTheEndIsLetGoInTime) {
  options_.close_timeout = 30ms;
  Listen();
  TcpClient client(loop_->port());
  client.Write(Get("/", "Connection: close\r\n"));
  EXPECT_THAT(ReadToEnd(client), StartsWith("HTTP/1.1 200 OK"));
  EXPECT_TRUE(RunUntil([&] { return SocketsOpen() == 0; }));
  EXPECT_EQ(loop_->counters().close_timeouts.Value(), 0u);
}

}  // namespace
}  // namespace presence::edge
