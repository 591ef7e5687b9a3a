// The test client against a server that the tests script: what it accepts, what it must notice, and what it says.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <thread>

#include "common/jwk_set.h"
#include "common/token_verifier.h"
#include "edge/cli/auto_test.h"
#include "edge/cli/dev_keys.h"
#include "edge/cli/frames.h"
#include "edge/cli/options.h"
#include "edge/cli/ws_connection.h"
#include "edge/websocket_engine.h"

namespace presence::edge::cli {
namespace {

using namespace std::chrono_literals;
using nlohmann::json;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

// A service with one client, on a free port of this machine. `faults` is what it does wrong.
class FakeService : private WebsocketEngineHandler {
 public:
  struct Faults {
    std::string refusal = {};              // answers the handshake with this instead
    bool greets = true;                    // a pong first
    std::set<std::string> ignores = {};    // frame types that get no answer
    bool leaks_after_unsubscribe = false;  // goes on sending typing
    bool closes_on_ping = false;           // with 1012
    bool leaves_out_null_members = false;  // "subscribed" without the absent one
  };

  explicit FakeService(Faults faults) : faults_(std::move(faults)) {
    listener_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(bind(listener_, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    EXPECT_EQ(listen(listener_, 4), 0);
    socklen_t size = sizeof address;
    getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
    url_ = "ws://127.0.0.1:" + std::to_string(ntohs(address.sin_port)) + "/ws";
    thread_ = std::thread([this] { Serve(); });
  }
  ~FakeService() override {
    Finish();
    close(listener_);
  }

  const std::string& url() const { return url_; }
  // Ends the service; the bytes of the handshake that it got.
  const std::string& Finish() {
    shutdown(listener_, SHUT_RDWR);  // wakes the thread
    if (thread_.joinable()) thread_.join();
    return request_;
  }

 private:
  void Serve() {
    const int client = accept(listener_, nullptr, nullptr);
    if (client < 0) return;
    client_ = client;
    const int on = 1;
    setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    engine_ = WebsocketEngine::Server({}, *this);
    char buffer[4096];
    while (!ended_) {
      pollfd wanted[] = {{client, POLLIN, 0}, {listener_, POLLIN, 0}};
      if (poll(wanted, 2, -1) < 0 || (wanted[1].revents & POLLHUP) != 0) break;
      const ssize_t size = recv(client, buffer, sizeof buffer, 0);
      if (size <= 0) break;
      if (request_.empty()) {
        request_.assign(buffer, static_cast<size_t>(size));
        if (!faults_.refusal.empty()) {
          OnOutput(faults_.refusal);
          break;
        }
      }
      engine_->Feed({buffer, static_cast<size_t>(size)});
    }
    close(client);
  }

  void OnOutput(std::string_view bytes) override {
    EXPECT_EQ(send(client_, bytes.data(), bytes.size(), MSG_NOSIGNAL), static_cast<ssize_t>(bytes.size()));
  }
  void OnOpen() override {
    if (faults_.greets) Send({{"type", "pong"}, {"timestamp", "2025-01-14T12:00:00Z"}});
  }
  void OnControlFrame() override {}
  void OnEnded(uint16_t) override { ended_ = true; }

  void OnMessage(MessageKind, std::string_view payload) override {
    const json frame = json::parse(payload);
    const std::string type = frame["type"];
    // What others cause comes in between.
    Send({{"type", "presence"},
          {"user_id", "u-9"},
          {"username", "zoe"},
          {"status", "away"},
          {"timestamp", "2025-01-14T12:00:00Z"}});
    if (faults_.ignores.contains(type)) return;
    const json channel = frame.value("channel_id", json(nullptr));
    const json dm = frame.value("dm_id", json(nullptr));
    const std::string room = (channel.is_null() ? dm : channel).is_null() ? "" : (channel.is_null() ? dm : channel);
    if (type == "ping" && faults_.closes_on_ping) return engine_->Close(1012, "restart");
    if (type == "ping") Send({{"type", "pong"}, {"timestamp", "2025-01-14T12:00:01Z"}});
    if (type == "subscribe") {
      rooms_.insert(room);
      json confirmation = {{"type", "subscribed"}, {"channel_id", channel}, {"dm_id", dm}};
      if (faults_.leaves_out_null_members) confirmation.erase(channel.is_null() ? "channel_id" : "dm_id");
      Send(confirmation);
    }
    if (type == "unsubscribe") {
      if (!faults_.leaks_after_unsubscribe) rooms_.erase(room);
      Send({{"type", "unsubscribed"}, {"channel_id", channel}, {"dm_id", dm}});
    }
    if (type == "typing" && rooms_.contains(room)) {
      Send({{"type", "typing"}, {"channel_id", channel}, {"dm_id", dm}, {"user_id", "u-1"}, {"username", "alice"}});
    }
  }

  void Send(const json& frame) { engine_->SendText(frame.dump()); }

  const Faults faults_;
  int listener_ = -1;
  int client_ = -1;
  std::string url_;
  std::string request_;
  std::unique_ptr<WebsocketEngine> engine_;
  std::set<std::string> rooms_;
  bool ended_ = false;
  std::thread thread_;
};

struct AutoRun {
  bool good = false;
  std::vector<std::string> lines;
  std::string request;
};

AutoRun RunAgainst(FakeService::Faults faults, Duration timeout = 5s, TokenPlace place = TokenPlace::kHeader) {
  AutoRun run;
  FakeService service(std::move(faults));
  Options options;
  options.url = service.url();
  options.timeout = timeout;
  options.token_place = place;
  run.good = RunAutoTest(options, "the-token", [&](const std::string& line) { run.lines.push_back(line); });
  run.request = service.Finish();
  return run;
}

TEST(AutoTest, AGoodServicePassesAllSevenSteps) {
  const AutoRun run = RunAgainst({});
  EXPECT_TRUE(run.good);
  EXPECT_THAT(run.lines, ElementsAre(StartsWith("Testing ws://127.0.0.1:"), StartsWith("ok 1/7 connect: "),
                                     StartsWith("ok 2/7 subscribe to #general: "), StartsWith("ok 3/7 typing: "),
                                     StartsWith("ok 4/7 heartbeat: "), StartsWith("ok 5/7 subscribe to #random: "),
                                     StartsWith("ok 6/7 unsubscribe from #general: "),
                                     StartsWith("ok 7/7 direct messages: "), "All 7 steps are good."));
}

TEST(AutoTest, TheTokenTravelsWhereItIsTold) {
  EXPECT_THAT(RunAgainst({}).request,
              AllOf(StartsWith("GET /ws HTTP/1.1"), HasSubstr("Authorization: Bearer the-token\r\n")));
  EXPECT_THAT(RunAgainst({}, 5s, TokenPlace::kUrl).request, StartsWith("GET /ws?token=the-token HTTP/1.1"));
  EXPECT_THAT(RunAgainst({}, 5s, TokenPlace::kSubprotocol).request,
              HasSubstr("Sec-WebSocket-Protocol: presence.v1, bearer.the-token\r\n"));
}

TEST(AutoTest, ARefusedTokenIsExplained) {
  const AutoRun run = RunAgainst({.refusal = "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"});
  EXPECT_FALSE(run.good);
  EXPECT_THAT(run.lines,
              ElementsAre(StartsWith("Testing"),
                          AllOf(StartsWith("FAILED 1/7 connect: "), HasSubstr("401 Unauthorized"), HasSubstr("token")),
                          StartsWith("not run: the other 6"), "0 of 7 steps are good."));
}

TEST(AutoTest, SomethingThatIsNoWebServerIsNamed) {
  EXPECT_THAT(RunAgainst({.refusal = "-ERR unknown command\r\n"}).lines[1], HasSubstr("no web server"));
}

TEST(AutoTest, AServiceThatDoesNotGreetFailsTheFirstStepOnly) {
  const AutoRun run = RunAgainst({.greets = false}, 100ms);
  EXPECT_THAT(run.lines[1], StartsWith("FAILED 1/7"));
  EXPECT_THAT(run.lines[2], StartsWith("ok 2/7"));
  EXPECT_THAT(run.lines.back(), "6 of 7 steps are good.");
}

TEST(AutoTest, AMissingAnswerIsNamedWithWhatCameInstead) {
  const AutoRun run = RunAgainst({.ignores = {"typing"}}, 100ms);
  EXPECT_FALSE(run.good);
  EXPECT_THAT(run.lines[3],
              AllOf(StartsWith("FAILED 3/7 typing: "), HasSubstr("no own typing frame back in channel_general"),
                    HasSubstr("the last frame was {"), HasSubstr("zoe")));
}

TEST(AutoTest, ARoomThatGoesOnAfterUnsubscribingIsNoticed) {
  EXPECT_THAT(RunAgainst({.leaks_after_unsubscribe = true}).lines[6], StartsWith("FAILED 6/7"));
}

TEST(AutoTest, AConfirmationWithoutItsNullMemberIsNoticed) {
  EXPECT_THAT(RunAgainst({.leaves_out_null_members = true}).lines[2], StartsWith("FAILED 2/7"));
}

TEST(AutoTest, AServiceThatLeavesIsExplainedByItsCloseCode) {
  const AutoRun run = RunAgainst({.closes_on_ping = true});
  EXPECT_THAT(run.lines[4], AllOf(StartsWith("FAILED 4/7"), HasSubstr("1012"), HasSubstr("restarts")));
  EXPECT_THAT(run.lines[5], StartsWith("not run: the other 3"));
}

TEST(WsConnectionTest, NobodyListening) {
  std::string url;
  { url = FakeService({}).url(); }
  const auto connection = WsConnection::Connect(url, "t", TokenPlace::kHeader, 5s);
  EXPECT_TRUE(absl::IsUnavailable(connection.status()));
  EXPECT_THAT(std::string(connection.status().message()), HasSubstr("is presence-edge running?"));
}

TEST(WsUrlTest, TakesHostAndPort) {
  const auto url = ParseWsUrl("ws://[::1]:8006/ws?x=1");
  ASSERT_TRUE(url.ok());
  EXPECT_EQ(url->host, "::1");
  EXPECT_EQ(url->port, "8006");
  EXPECT_EQ(ParseWsUrl("ws://h")->port, "80");
  EXPECT_FALSE(ParseWsUrl("ws://h")->tls);
  EXPECT_EQ(ParseWsUrl("wss://h/ws")->port, "443");
  EXPECT_TRUE(ParseWsUrl("wss://h/ws")->tls);
  for (const char* bad : {"http://h/ws", "wss://", "ws://", "ws://:80/ws", "ws://h:0/ws", "ws://h:99999/",
                          "ws://h:http/", "ws://u@h/ws", "ws://h/ws#f"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(ParseWsUrl(bad).status())) << bad;
  }
}

absl::StatusOr<Options> Parse(const std::vector<std::string>& arguments,
                              const std::map<std::string, std::string>& set = {}) {
  return ParseOptions(arguments, [&](const std::string& name) -> std::optional<std::string> {
    const auto found = set.find(name);
    return found == set.end() ? std::nullopt : std::optional(found->second);
  });
}

TEST(OptionsTest, ACommandAndItsOptionsInAnyOrder) {
  const auto options = Parse({"--user", "bob", "auto", "--timeout=2s", "--token-in=url"});
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->command, Command::kAuto);
  EXPECT_EQ(options->user, "bob");
  EXPECT_EQ(options->name, "bob");
  EXPECT_EQ(options->timeout, 2s);
  EXPECT_EQ(options->token_place, TokenPlace::kUrl);
  EXPECT_EQ(Parse({})->command, Command::kInteractive);
}

TEST(OptionsTest, TokensFitTheEdgeOfTheSameShell) {
  const auto options = Parse({}, {{"KEYCLOAK_URL", "http://keycloak:8080/"}, {"KEYCLOAK_CLIENT_ID", "colink-api"}});
  EXPECT_EQ(options->issuer, "http://keycloak:8080/realms/colink");
  EXPECT_EQ(options->client_id, "colink-api");
  EXPECT_EQ(Parse({}, {{"JWT_ISSUER", "https://one,https://two"}})->issuer, "https://one");
}

TEST(OptionsTest, MistakesSayWhatToDo) {
  const auto message = [](const std::vector<std::string>& arguments) {
    return std::string(Parse(arguments).status().message());
  };
  EXPECT_THAT(message({"autp"}), HasSubstr("did you mean \"auto\"?"));
  EXPECT_THAT(message({"--uzer=x"}), HasSubstr("did you mean --user?"));
  EXPECT_THAT(message({"auto", "x"}), HasSubstr("unexpected argument"));
  EXPECT_THAT(message({"--user"}), HasSubstr("--user has no value"));
  EXPECT_THAT(message({"--timeout=soon"}), HasSubstr("expected a time such as 5s"));
  EXPECT_THAT(message({"keys"}), HasSubstr("--out"));
  EXPECT_THAT(message({"token"}), HasSubstr("--user"));
}

TEST(OptionsTest, SpansOfTime) {
  EXPECT_EQ(ParseSpan("90"), 90s);
  EXPECT_EQ(ParseSpan("30m"), 30min);
  EXPECT_EQ(ParseSpan("-1h"), -1h);
  EXPECT_EQ(ParseSpan("7d"), 24h * 7);
  for (const char* bad : {"", "h", "1w", "1.5h", "99999999999999999999s", "9999999999d"})
    EXPECT_EQ(ParseSpan(bad), std::nullopt) << bad;
}

TEST(FramesTest, RoomsAsPeopleWriteThem) {
  EXPECT_EQ(SubscribeFrame(*ParseRoom("channel_general")), R"({"type":"subscribe","channel_id":"channel_general"})");
  EXPECT_EQ(SubscribeFrame(*ParseRoom("#general")), R"({"type":"subscribe","channel_id":"channel_general"})");
  EXPECT_EQ(TypingFrame(*ParseRoom("dm:dm_123")), R"({"type":"typing","dm_id":"dm_123"})");
  EXPECT_EQ(TypingFrame(*ParseRoom("a b")), R"({"type":"typing","channel_id":"a b"})") << "ids may hold spaces";
  for (const char* bad : {"", "#", "dm:"}) EXPECT_FALSE(ParseRoom(bad).ok()) << bad;
}

TEST(FramesTest, WhatComesIsDescribedInOneSafeLine) {
  const auto describe = [](const char* text) { return Describe(ParseServerFrame(text)); };
  EXPECT_THAT(describe(R"({"type":"presence","user_id":"u-1","username":"alice","status":"online"})"),
              HasSubstr("alice (u-1) is online"));
  EXPECT_THAT(describe(R"({"type":"typing","channel_id":null,"dm_id":"dm_1","user_id":"u","username":"a\u001b[2Jb"})"),
              HasSubstr("dm:dm_1  a\\x1b[2Jb"));
  EXPECT_THAT(describe(R"({"type":"message","data":{"content":"Hi\nthere","user_id":"u-1","channel_id":"c"}})"),
              HasSubstr("c  u-1: Hi\\nthere"));
  EXPECT_THAT(describe(R"({"type":"error","error":"Invalid message type","code":400})"),
              AllOf(HasSubstr("error 400"), HasSubstr("Invalid message type")));
  EXPECT_THAT(describe(R"({"type":"auth","status":"ok","expires_at":"2025-01-14T12:10:00Z"})"),
              HasSubstr("ok, good until 2025-01-14T12:10:00Z"));
  EXPECT_THAT(describe(R"({"type":"token_expiring","expires_at":"2025-01-14T12:10:00Z"})"),
              HasSubstr("ends at 2025-01-14T12:10:00Z"));
  EXPECT_THAT(describe(R"({"type":"reconnect","after_ms":420})"), HasSubstr("in 420 ms"));
  EXPECT_THAT(describe(R"({"room_id":"c","x":1})"), HasSubstr(R"({"room_id":"c","x":1})"));
  EXPECT_THAT(describe("not JSON\n"), HasSubstr("not JSON\\n"));
  EXPECT_THAT(describe(R"({"type":7,"code":"x"})"), HasSubstr("other"));
}

// A folder of its own that goes away with the test.
class DevKeysTest : public ::testing::Test {
 protected:
  DevKeysTest() {
    std::string name = (std::filesystem::temp_directory_path() / "presence-cli-test-XXXXXX").string();
    folder_ = mkdtemp(name.data());
  }
  ~DevKeysTest() override { std::filesystem::remove_all(folder_); }
  std::string folder_;
};

TEST_F(DevKeysTest, ATokenOfTheKeyIsGoodForAnEdgeWithTheSet) {
  const auto files = CreateKeys(folder_ + "/keys");
  ASSERT_TRUE(files.ok()) << files.status();
  struct stat private_file {};
  ASSERT_EQ(stat(files->private_key.c_str(), &private_file), 0);
  EXPECT_EQ(private_file.st_mode & 0777, 0600u);

  std::stringstream jwks;
  jwks << std::ifstream(files->jwks).rdbuf();
  EXPECT_THAT(jwks.str(), Not(HasSubstr("\"d\"")));  // nothing of the private half
  const auto keys = JwkSet::Parse(jwks.str());
  ASSERT_TRUE(keys.ok()) << keys.status();

  Options options;
  options.user = "user-123";
  options.name = "Alice";
  const WallTime now = FromUnixMillis(1736856000000);
  const auto token = SignDevelopmentToken(options, files->private_key, now);
  ASSERT_TRUE(token.ok()) << token.status();
  const TokenVerifier verifier({.issuers = {"presence-cli"}, .client_ids = {"presence-cli"}});
  const auto verdict = verifier.Verify(*token, *keys, now);
  ASSERT_TRUE(std::holds_alternative<Identity>(verdict)) << std::get<Rejection>(verdict).why;
  EXPECT_EQ(std::get<Identity>(verdict).user_id, "user-123");
  EXPECT_EQ(std::get<Identity>(verdict).username, "Alice");
  EXPECT_EQ(std::get<Rejection>(verifier.Verify(*token, *keys, now + 2h)).fault, TokenFault::kExpired);

  options.expires = -1h;
  const auto over = SignDevelopmentToken(options, files->private_key, now);
  EXPECT_EQ(std::get<Rejection>(verifier.Verify(*over, *keys, now)).fault, TokenFault::kExpired);
}

TEST_F(DevKeysTest, AKeyIsNeverOverwritten) {
  ASSERT_TRUE(CreateKeys(folder_).ok());
  EXPECT_TRUE(absl::IsAlreadyExists(CreateKeys(folder_).status()));
}

TEST_F(DevKeysTest, TheKeyIsFoundInTheBuildFolderAboveTheProgram) {
  const auto files = CreateKeys(folder_ + "/build/dev-keys");
  ASSERT_TRUE(files.ok());
  const auto found = FindKey(Options(), folder_ + "/build/release/bin/presence-cli");
  // The current folder comes first; a developer's own tree may hold a key, too.
  ASSERT_TRUE(found.ok());
  EXPECT_THAT(*found, ::testing::EndsWith("build/dev-keys/private.pem"));
  Options named;
  named.key_path = "/some/key.pem";
  EXPECT_EQ(*FindKey(named, ""), "/some/key.pem");
  EXPECT_TRUE(absl::IsNotFound(SignDevelopmentToken(named, "/some/key.pem", WallTime()).status()));
}

}  // namespace
}  // namespace presence::edge::cli
