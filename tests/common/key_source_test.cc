// Keys from a file and from an HTTP server of the test's own, which is slow, wrong or away at will.
#include "common/key_source.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "common/jwt.h"
#include "tests/fakes/token_forge.h"

namespace presence {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;

constexpr milliseconds kPatience{20'000};  // only a failing test waits that long

// One connection at a time, one request each. Every answer is what was last set; a request that comes while answers are
// held waits for the next one, or for the end.
class KeyServer {
 public:
  KeyServer()
      : end_(eventfd(0, 0)),
        answered_(eventfd(0, EFD_NONBLOCK)),
        listener_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    PRESENCE_CHECK(bind(listener_, reinterpret_cast<sockaddr*>(&address), size) == 0 && listen(listener_, 16) == 0 &&
                       getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size) == 0,
                   "the test can listen");
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] { Serve(); });
  }
  ~KeyServer() {
    Signal(end_);
    thread_.join();
    for (const int fd : {end_, answered_, listener_}) close(fd);
  }
  KeyServer(const KeyServer&) = delete;
  KeyServer& operator=(const KeyServer&) = delete;

  std::string url() const { return "http://127.0.0.1:" + std::to_string(port_) + "/certs"; }

  void Answer(int status, std::string_view body, std::string_view extra_headers = "") {
    AnswerRaw("HTTP/1.1 " + std::to_string(status) + " X\r\nConnection: close\r\nContent-Length: " +
              std::to_string(body.size()) + "\r\n" + std::string(extra_headers) + "\r\n" + std::string(body));
  }
  void AnswerRaw(std::string bytes) {
    {
      const std::lock_guard lock(mutex_);
      answer_ = std::move(bytes);
    }
    Signal(answered_);
  }
  void HoldAnswers() {
    const std::lock_guard lock(mutex_);
    answer_.clear();
  }
  int requests() const {
    const std::lock_guard lock(mutex_);
    return requests_;
  }
  bool AwaitRequests(int count) const {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, kPatience, [&] { return requests_ >= count; });
  }
  std::string last_request() const {
    const std::lock_guard lock(mutex_);
    return last_request_;
  }

 private:
  static void Signal(int event) {
    const uint64_t one = 1;
    PRESENCE_CHECK(write(event, &one, sizeof(one)) == sizeof(one), "the event can be written");
  }
  // Waits for either; false when the server is to end.
  bool Await(int fd, int other_fd = -1) const {
    pollfd polled[3] = {{end_, POLLIN, 0}, {fd, POLLIN, 0}, {other_fd, POLLIN, 0}};
    while (poll(polled, 3, -1) < 0) {
    }
    return polled[0].revents == 0;
  }
  void Serve() {
    while (Await(listener_)) {
      const int peer = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
      if (peer < 0) continue;
      ServeOne(peer);
      close(peer);
    }
  }
  void ServeOne(int peer) {
    std::string request;
    char buffer[2048];
    while (request.find("\r\n\r\n") == std::string::npos) {
      if (!Await(peer)) return;
      const ssize_t got = read(peer, buffer, sizeof(buffer));
      if (got <= 0) return;
      request.append(buffer, static_cast<size_t>(got));
    }
    {
      const std::lock_guard lock(mutex_);
      ++requests_;
      last_request_ = request;
    }
    changed_.notify_all();
    std::string answer;
    while ((answer = CurrentAnswer()).empty()) {
      if (!Await(peer, answered_)) return;
      char byte;
      if (recv(peer, &byte, 1, MSG_DONTWAIT) == 0) return;  // the client has given up
      uint64_t count;
      if (read(answered_, &count, sizeof(count)) < 0 && errno != EAGAIN) return;
    }
    for (size_t sent = 0; sent < answer.size();) {
      const ssize_t put = send(peer, answer.data() + sent, answer.size() - sent, MSG_NOSIGNAL);
      if (put <= 0) return;
      sent += static_cast<size_t>(put);
    }
  }

  std::string CurrentAnswer() const {
    const std::lock_guard lock(mutex_);
    return answer_;
  }

  const int end_;       // event: the test is over
  const int answered_;  // event: there is a new answer
  const int listener_;
  uint16_t port_ = 0;
  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  std::string answer_;  // empty: held
  std::string last_request_;
  int requests_ = 0;
  std::thread thread_;
};

// Waits for what another thread will bring about; there is no event to wait on from outside, hence the yielding.
bool Await(const std::function<bool()>& condition) {
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::yield();
  }
  return true;
}

std::string SetWith(std::string_view kid) {
  SigningKey key = EcKeyForTests();
  key.kid = kid;
  return PublicJwkSet({key}).value();
}

bool Has(const KeySource& source, std::string_view kid) {
  const auto keys = source.Current();
  return keys != nullptr && !keys->Find(kid).empty();
}

// Requests that are waited for together.
class Refreshes {
 public:
  explicit Refreshes(KeySource& source) : source_(source) {}
  void Ask(const std::string& kid) {
    ++asked_;
    ASSERT_EQ(source_.RequestRefresh(kid, [this] { ++called_; }), RefreshAnswer::kWaiting);
  }
  int called() const { return called_; }
  bool AwaitAll() const {
    return Await([this] { return called_ == asked_; });
  }

 private:
  KeySource& source_;
  int asked_ = 0;
  std::atomic<int> called_{0};
};

class KeySourceTest : public testing::Test {
 protected:
  KeySourceTest() {
    std::string pattern = std::filesystem::temp_directory_path() / "key_source_test.XXXXXX";
    PRESENCE_CHECK(mkdtemp(pattern.data()) != nullptr, "a directory can be made");
    directory_ = pattern;
  }
  ~KeySourceTest() override { std::filesystem::remove_all(directory_); }

  std::filesystem::path file() const { return directory_ / "jwks.json"; }
  // As deployments do it: the new file takes the place of the old one.
  void Replace(std::string_view text) const {
    const auto fresh = directory_ / "fresh";
    std::ofstream(fresh) << text;
    std::filesystem::rename(fresh, file());
  }

  // Refreshes by itself only after an hour, retries quickly.
  static KeySourceOptions FromUrl(const std::string& url) {
    KeySourceOptions options;
    options.url = url;
    options.refresh_default = options.refresh_max = milliseconds(3'600'000);
    options.retry_min = milliseconds(1);
    options.retry_max = milliseconds(4);
    options.requested_refresh_interval = milliseconds(0);
    options.unknown_kid_memory = milliseconds(0);
    return options;
  }
  KeySourceOptions FromFile() const {
    KeySourceOptions options;
    options.file = file();
    options.file_poll_interval = milliseconds(1);
    return options;
  }

  // Asks for a refresh and waits until that attempt is over.
  static void Refresh(KeySource& source, std::string_view kid = "wanted") {
    std::mutex mutex;
    std::condition_variable over;
    bool done = false;
    ASSERT_EQ(source.RequestRefresh(kid,
                                    [&] {
                                      const std::lock_guard lock(mutex);
                                      done = true;
                                      over.notify_all();
                                    }),
              RefreshAnswer::kWaiting);
    std::unique_lock lock(mutex);
    ASSERT_TRUE(over.wait_for(lock, kPatience, [&] { return done; }));
  }

  std::filesystem::path directory_;
};

TEST_F(KeySourceTest, ExactlyOneSourceAndOnlyHttp) {
  const auto code = [](std::string file, std::string url) {
    KeySourceOptions options;
    options.file = std::move(file);
    options.url = std::move(url);
    return KeySource::Start(options).status().code();
  };
  EXPECT_EQ(code("", ""), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code("a", "http://b"), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code("", "file:///etc/passwd"), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code("", "ftp://b"), absl::StatusCode::kInvalidArgument);
}

TEST_F(KeySourceTest, TheUrlIsKeycloaks) {
  EXPECT_EQ(CertsUrl("http://keycloak:8080", "colink"),
            "http://keycloak:8080/realms/colink/protocol/openid-connect/certs");
  EXPECT_EQ(CertsUrl("https://sso.example/auth/", "my realm"),
            "https://sso.example/auth/realms/my%20realm/protocol/openid-connect/certs");
}

// ---- HTTP

TEST_F(KeySourceTest, KeysAreFetchedAtOnce) {
  KeyServer server;
  server.Answer(200, SetWith("k1"));
  const auto source = KeySource::Start(FromUrl(server.url())).value();
  ASSERT_TRUE(Await([&] { return source->Ready(); }));
  EXPECT_TRUE(Has(*source, "k1"));
  EXPECT_TRUE(Await([&] { return source->stats().attempts == 1; }));
  EXPECT_EQ(source->last_error(), "");
  EXPECT_THAT(server.last_request(), HasSubstr("GET /certs HTTP/1.1\r\n"));
}

TEST_F(KeySourceTest, ItKeepsTryingUntilTheServerHasRecovered) {
  KeyServer server;
  server.Answer(500, "boom");
  const auto source = KeySource::Start(FromUrl(server.url())).value();
  ASSERT_TRUE(server.AwaitRequests(3));
  EXPECT_FALSE(source->Ready());
  EXPECT_TRUE(Await([&] { return source->last_error() == "answered with status 500"; }));
  server.Answer(200, "<html>starting up</html>");
  EXPECT_TRUE(Await([&] { return source->last_error() == "JWK set: not JSON"; }));
  server.Answer(200, R"({"keys":[{"kty":"oct","kid":"s"}]})");
  EXPECT_TRUE(Await([&] { return source->last_error() == "JWK set: no usable key; the first: unsupported kty"; }));
  EXPECT_FALSE(source->Ready());
  server.Answer(200, SetWith("k1"));
  ASSERT_TRUE(Await([&] { return source->Ready() && source->last_error().empty(); }));
  EXPECT_GE(source->stats().failures, 3u);
  EXPECT_EQ(source->stats().changes, 1u);
}

TEST_F(KeySourceTest, NobodyListeningIsAnErrorAndNotTheEnd) {
  std::string url;
  { url = KeyServer().url(); }
  const auto source = KeySource::Start(FromUrl(url)).value();
  EXPECT_TRUE(Await([&] { return source->stats().failures >= 3; }));
  EXPECT_FALSE(source->Ready());
  EXPECT_NE(source->last_error(), "");
}

TEST_F(KeySourceTest, GoodKeysAreKeptWhileTheServerIsBad) {
  KeyServer server;
  server.Answer(200, SetWith("k1"));
  const auto source = KeySource::Start(FromUrl(server.url())).value();
  ASSERT_TRUE(Await([&] { return source->Ready(); }));
  const auto before = source->Current();
  for (const std::string_view body : {"", "{}", R"({"keys":[]})"}) {
    server.Answer(200, body);
    Refresh(*source);
    EXPECT_NE(source->last_error(), "") << body;
    EXPECT_EQ(source->Current(), before) << "the same set";
  }
  server.Answer(503, SetWith("k2"));
  Refresh(*source);
  EXPECT_EQ(source->Current(), before);
}

TEST_F(KeySourceTest, AfterARotationARequestedRefreshBringsTheNewKey) {
  KeyServer server;
  server.Answer(200, SetWith("k1"));
  const auto source = KeySource::Start(FromUrl(server.url())).value();
  ASSERT_TRUE(Await([&] { return source->Ready(); }));
  const auto held = source->Current();
  server.Answer(200, SetWith("k2"));
  Refresh(*source);
  EXPECT_TRUE(Has(*source, "k2"));
  EXPECT_FALSE(Has(*source, "k1"));
  EXPECT_EQ(held->Find("k1").size(), 1u) << "who holds the old set may go on using it";
}

TEST_F(KeySourceTest, AnUnchangedSetIsNotBuiltAgain) {
  KeyServer server;
  server.Answer(200, SetWith("k1"));
  const auto source = KeySource::Start(FromUrl(server.url())).value();
  ASSERT_TRUE(Await([&] { return source->Ready(); }));
  const auto before = source->Current();
  Refresh(*source);
  EXPECT_EQ(source->Current(), before);
  EXPECT_EQ(source->stats().changes, 1u);
}

TEST_F(KeySourceTest, MaxAgeSaysWhenToFetchAgainWithinBounds) {
  KeyServer server;
  KeySourceOptions options = FromUrl(server.url());
  options.refresh_min = milliseconds(1);
  server.Answer(200, SetWith("k1"), "Cache-Control: public, Max-Age=0\r\n");
  const auto eager = KeySource::Start(options).value();
  EXPECT_TRUE(server.AwaitRequests(5)) << "0 is raised to refresh_min";

  KeyServer other;
  other.Answer(200, SetWith("k1"), "Cache-Control: max-age=99999999999999999999\r\nCache-Control: max-age=86400\r\n");
  options.url = other.url();
  options.refresh_max = milliseconds(1);
  const auto bounded = KeySource::Start(options).value();
  EXPECT_TRUE(other.AwaitRequests(5)) << "a day is cut to refresh_max";
}

TEST_F(KeySourceTest, WhatACacheOnTheWayHasUsedUpIsTakenOff) {
  KeyServer server;
  KeySourceOptions options = FromUrl(server.url());
  options.refresh_min = milliseconds(1);
  server.Answer(200, SetWith("k1"), "Cache-Control: max-age=3600\r\nAge: 3600\r\n");
  const auto source = KeySource::Start(options).value();
  EXPECT_TRUE(server.AwaitRequests(3)) << "nothing is left of the hour";

  KeyServer other;
  options.url = other.url();
  other.Answer(200, SetWith("k1"), "Cache-Control: max-age=3600\r\nAge: -1\r\n");
  const auto fresh = KeySource::Start(options).value();
  ASSERT_TRUE(Await([&] { return fresh->stats().attempts == 1; }));
  Refresh(*fresh);
  EXPECT_EQ(other.requests(), 2) << "nonsense is no age";
}

TEST_F(KeySourceTest, WithoutMaxAgeItWaitsForTheDefault) {
  KeyServer server;
  server.Answer(200, SetWith("k1"));
  KeySourceOptions options = FromUrl(server.url());
  options.refresh_default = milliseconds(1);
  const auto source = KeySource::Start(options).value();
  EXPECT_TRUE(server.AwaitRequests(5));
}

TEST_F(KeySourceTest, RequestedRefreshesAreLimitedToAFewAtOnce) {
  KeyServer server;
  server.Answer(200, SetWith("k1"));
  KeySourceOptions options = FromUrl(server.url());
  options.requested_refreshes_at_once = 3;
  options.requested_refresh_interval = milliseconds(3'600'000);
  const auto source = KeySource::Start(options).value();
  ASSERT_TRUE(Await([&] { return source->stats().attempts == 1; }));
  for (const std::string_view kid : {"junk-1", "junk-2", "junk-3"}) Refresh(*source, kid);
  EXPECT_EQ(server.requests(), 4);
  EXPECT_EQ(source->RequestRefresh("junk-4", [] { FAIL() << "not within the hour"; }), RefreshAnswer::kWaiting);
}

TEST_F(KeySourceTest, AfterThatOneFetchPerIntervalIsWaitedFor) {
  KeyServer server;
  server.Answer(200, SetWith("k1"));
  KeySourceOptions options = FromUrl(server.url());
  options.requested_refreshes_at_once = 1;
  options.requested_refresh_interval = milliseconds(50);
  const auto source = KeySource::Start(options).value();
  ASSERT_TRUE(Await([&] { return source->stats().attempts == 1; }));
  const auto started = std::chrono::steady_clock::now();
  for (const std::string_view kid : {"a", "b", "c", "d"}) Refresh(*source, kid);
  EXPECT_GE(std::chrono::steady_clock::now() - started, milliseconds(150)) << "three of the four had to wait";
  EXPECT_EQ(server.requests(), 5);
}

TEST_F(KeySourceTest, AnIdThatWasLookedForInVainIsNotLookedForAgain) {
  KeyServer server;
  server.Answer(200, SetWith("k1"));
  KeySourceOptions options = FromUrl(server.url());
  options.unknown_kid_memory = milliseconds(3'600'000);
  const auto source = KeySource::Start(options).value();
  ASSERT_TRUE(Await([&] { return source->stats().attempts == 1; }));
  Refresh(*source, "junk");
  EXPECT_EQ(source->RequestRefresh("junk", [] { FAIL() << "must not be called"; }), RefreshAnswer::kPointless);
  EXPECT_EQ(server.requests(), 2);
  Refresh(*source, "other");
  Refresh(*source, "k1");
  Refresh(*source, "k1");  // the set has it: nobody would ask
  EXPECT_EQ(server.requests(), 5);
}

TEST_F(KeySourceTest, InVainCountsOnlyWhenTheServerHasAnswered) {
  KeyServer server;
  server.Answer(200, SetWith("k1"));
  KeySourceOptions options = FromUrl(server.url());
  options.unknown_kid_memory = milliseconds(3'600'000);
  const auto source = KeySource::Start(options).value();
  ASSERT_TRUE(Await([&] { return source->stats().attempts == 1; }));
  server.Answer(503, "");
  Refresh(*source, "k2");
  server.Answer(200, SetWith("k2"));
  Refresh(*source, "k2");
  EXPECT_TRUE(Has(*source, "k2"));
}

TEST_F(KeySourceTest, TheMemoryOfVainIdsIsBoundedAndLosesTheOldest) {
  KeyServer server;
  server.Answer(200, SetWith("k1"));
  KeySourceOptions options = FromUrl(server.url());
  options.unknown_kid_memory = milliseconds(3'600'000);
  const auto source = KeySource::Start(options).value();
  ASSERT_TRUE(Await([&] { return source->stats().attempts == 1; }));
  server.HoldAnswers();
  Refreshes all(*source);
  all.Ask("first");
  ASSERT_TRUE(server.AwaitRequests(2));
  server.Answer(200, SetWith("k1"));
  ASSERT_TRUE(all.AwaitAll());
  server.HoldAnswers();
  all.Ask("filler");  // while it is looked for, the others gather for one fetch
  ASSERT_TRUE(server.AwaitRequests(3));
  for (int i = 0; i < 255; ++i) all.Ask("junk-" + std::to_string(i));
  server.Answer(200, SetWith("k1"));
  ASSERT_TRUE(all.AwaitAll());
  EXPECT_EQ(source->RequestRefresh("junk-0", {}), RefreshAnswer::kPointless);
  EXPECT_EQ(source->RequestRefresh("first", {}), RefreshAnswer::kWaiting) << "257 were looked for since";
}

TEST_F(KeySourceTest, ANewKeyIsFoundAtOnceAfterStrangersHaveAskedForJunk) {
  KeyServer server;
  server.Answer(200, SetWith("k1"));
  KeySourceOptions options = FromUrl(server.url());
  options.requested_refresh_interval = milliseconds(3'600'000);
  options.unknown_kid_memory = milliseconds(3'600'000);
  const auto source = KeySource::Start(options).value();
  ASSERT_TRUE(Await([&] { return source->stats().attempts == 1; }));
  Refresh(*source, "junk");
  for (int i = 0; i < 100; ++i) EXPECT_EQ(source->RequestRefresh("junk", {}), RefreshAnswer::kPointless);
  server.Answer(200, SetWith("k2"));
  Refresh(*source, "k2");
  EXPECT_TRUE(Has(*source, "k2"));
}

TEST_F(KeySourceTest, RequestsThatComeTogetherShareOneFetch) {
  KeyServer server;
  server.Answer(200, SetWith("k1"));
  const auto source = KeySource::Start(FromUrl(server.url())).value();
  ASSERT_TRUE(Await([&] { return source->stats().attempts == 1; }));
  server.HoldAnswers();
  Refreshes all(*source);
  all.Ask("k2");
  ASSERT_TRUE(server.AwaitRequests(2));
  for (int i = 0; i < 10; ++i) all.Ask("k2");
  EXPECT_EQ(all.called(), 0);
  server.Answer(200, SetWith("k2"));
  EXPECT_TRUE(all.AwaitAll());
  EXPECT_TRUE(Has(*source, "k2"));
  EXPECT_EQ(server.requests(), 2) << "the key has come: a second look is not needed";
}

TEST_F(KeySourceTest, ARequestDuringAFetchIsForTheOneAfterIt) {
  KeyServer server;
  server.HoldAnswers();
  const auto source = KeySource::Start(FromUrl(server.url())).value();
  ASSERT_TRUE(server.AwaitRequests(1));
  // What is under way may have been answered before the key was published.
  std::atomic<int> requests_when_called{0};
  ASSERT_EQ(source->RequestRefresh("k2", [&] { requests_when_called = server.requests(); }), RefreshAnswer::kWaiting);
  server.Answer(200, SetWith("k1"));
  EXPECT_TRUE(Await([&] { return requests_when_called == 2; }));
}

TEST_F(KeySourceTest, WaitersAreBounded) {
  KeyServer server;  // holds every answer
  const auto source = KeySource::Start(FromUrl(server.url())).value();
  ASSERT_TRUE(server.AwaitRequests(1));
  int taken = 0;
  while (taken < 10'000 && source->RequestRefresh("k1", {}) == RefreshAnswer::kWaiting) ++taken;
  EXPECT_EQ(taken, 1024);
  EXPECT_EQ(source->RequestRefresh("k1", {}), RefreshAnswer::kBusy) << "which is not to say that the key is unknown";
}

TEST_F(KeySourceTest, ASlowServerIsGivenUpAndTriedAgain) {
  KeyServer server;  // holds every answer
  KeySourceOptions options = FromUrl(server.url());
  options.fetch_timeout = milliseconds(20);
  const auto source = KeySource::Start(options).value();
  EXPECT_TRUE(server.AwaitRequests(2));
  server.Answer(200, SetWith("k1"));
  EXPECT_TRUE(Await([&] { return source->Ready(); }));
}

TEST_F(KeySourceTest, AnEndlessAnswerIsCutOff) {
  KeyServer server;
  const std::string much(JwkSet::kDocumentBytesMax + 1, ' ');
  server.AnswerRaw("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + much);
  const auto source = KeySource::Start(FromUrl(server.url())).value();
  EXPECT_TRUE(Await([&] { return source->last_error() == "the answer is too long"; })) << source->last_error();
}

TEST_F(KeySourceTest, RedirectsAreNotFollowed) {
  KeyServer server, elsewhere;
  elsewhere.Answer(200, SetWith("k1"));
  server.Answer(302, "", "Location: " + elsewhere.url() + "\r\n");
  const auto source = KeySource::Start(FromUrl(server.url())).value();
  EXPECT_TRUE(Await([&] { return source->last_error() == "answered with status 302"; }));
  EXPECT_EQ(elsewhere.requests(), 0);
}

TEST_F(KeySourceTest, StoppingDoesNotWaitForAHangingFetch) {
  KeyServer server;  // holds every answer
  KeySourceOptions options = FromUrl(server.url());
  options.fetch_timeout = milliseconds(600'000);
  auto source = KeySource::Start(options).value();
  ASSERT_TRUE(server.AwaitRequests(1));
  ASSERT_EQ(source->RequestRefresh("k1", [] { FAIL() << "dropped at the end"; }), RefreshAnswer::kWaiting);
  source.reset();  // the time limit of the test is the assertion
}

TEST_F(KeySourceTest, AfterAStopTheKeysStayAndNobodyIsCalled) {
  KeyServer server;
  server.Answer(200, SetWith("k1"));
  const auto source = KeySource::Start(FromUrl(server.url())).value();
  ASSERT_TRUE(Await([&] { return source->Ready(); }));
  source->Stop();
  source->Stop();
  EXPECT_TRUE(Has(*source, "k1"));
  EXPECT_EQ(source->RequestRefresh("k2", [] { FAIL() << "must not be called"; }), RefreshAnswer::kPointless);
}

TEST_F(KeySourceTest, StoppingDoesNotWaitForTheNextAttempt) {
  KeyServer server;
  server.Answer(200, SetWith("k1"));
  auto source = KeySource::Start(FromUrl(server.url())).value();
  ASSERT_TRUE(Await([&] { return source->Ready(); }));
  source.reset();
}

// ---- File

TEST_F(KeySourceTest, AFileIsReadAndWatched) {
  Replace(SetWith("k1"));
  const auto source = KeySource::Start(FromFile()).value();
  ASSERT_TRUE(Await([&] { return Has(*source, "k1"); }));
  Replace(SetWith("k2"));
  EXPECT_TRUE(Await([&] { return Has(*source, "k2"); }));
  std::ofstream(file()) << SetWith("k3");  // in place
  EXPECT_TRUE(Await([&] { return Has(*source, "k3"); }));
}

TEST_F(KeySourceTest, AFileMayComeLaterAndItsLossChangesNothing) {
  const auto source = KeySource::Start(FromFile()).value();
  EXPECT_TRUE(Await([&] { return source->last_error() == "no such file"; }));
  EXPECT_FALSE(source->Ready());
  Replace(SetWith("k1"));
  ASSERT_TRUE(Await([&] { return Has(*source, "k1") && source->last_error().empty(); }));
  Replace("half a docum");
  EXPECT_TRUE(Await([&] { return source->last_error() == "JWK set: not JSON"; }));
  std::filesystem::remove(file());
  EXPECT_TRUE(Await([&] { return source->last_error() == "no such file"; }));
  EXPECT_TRUE(Has(*source, "k1"));
}

TEST_F(KeySourceTest, AHugeFileIsRefused) {
  Replace(std::string(JwkSet::kDocumentBytesMax + 1, ' '));
  const auto source = KeySource::Start(FromFile()).value();
  EXPECT_TRUE(Await([&] { return source->last_error() == "JWK set: longer than 256 KiB"; }));
}

TEST_F(KeySourceTest, AFileIsReadAtOnceOnRequest) {
  Replace(SetWith("k1"));
  KeySourceOptions options = FromFile();
  options.file_poll_interval = milliseconds(3'600'000);
  const auto source = KeySource::Start(options).value();
  ASSERT_TRUE(Await([&] { return Has(*source, "k1"); }));
  Replace(SetWith("k2"));
  Refresh(*source);
  EXPECT_TRUE(Has(*source, "k2"));
}

}  // namespace
}  // namespace presence
