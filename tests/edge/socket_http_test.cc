// Requests and their answers, errors, time-outs.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <string>

#include "edge/socket_loop.h"
#include "tests/edge/socket_loop_fixture.h"

namespace presence::edge {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::StartsWith;

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
  options_.close_timeout = 800ms;
  handler_.on_request = [&](SocketId socket, const HttpRequest&) {
    HttpResponse response;
    response.body = std::string(60'000'000, 'x');
    loop_->Respond(socket, response);
  };
  Listen();
  TcpClient client(loop_->port());
  client.Write(Get("/", "Connection: close\r\n"));
  // Reads until the server gets rid of something, pauses for an eighth of the time-out, and so on: longer than the
  // time-out altogether, and far from it each time.
  uint64_t written = 0;
  auto progress = std::chrono::steady_clock::now();
  ASSERT_TRUE(RunUntil([&] { return client.ended(); },
                       [&] {
                         const auto now = std::chrono::steady_clock::now();
                         if (loop_->counters().bytes_out.Value() != written) {
                           written = loop_->counters().bytes_out.Value();
                           progress = now;
                         }
                         if (now - progress > options_.close_timeout / 8) client.Read();
                       }));
  EXPECT_GT(client.received().size(), 60'000'000u);
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
