// What the identity provider is answered, and what the core is told: requests as bytes, through the real HTTP parser.
#include "edge/backchannel_logout.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/check.h"
#include "tests/fakes/token_forge.h"

namespace presence::edge {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::Pair;
using ::testing::SizeIs;

class BackchannelLogoutTest : public testing::Test {
 protected:
  static nlohmann::json Claims() { return GoodLogoutClaims(); }
  static std::string Token(const nlohmann::json& claims, const SigningKey& key = RsaKeyForTests()) {
    return SignToken(claims, key).value();
  }
  static LogoutTokenVerifier Verifier() {
    VerifierOptions options;
    options.issuers = {"http://keycloak:8080/realms/colink"};
    options.client_ids = {"colink-web"};
    return LogoutTokenVerifier(options);
  }

  static HttpRequest Request(const std::string& method, const std::string& body,
                             const std::string& type = "application/x-www-form-urlencoded") {
    auto parsed =
        ParseHttpRequest(method + " /backchannel-logout HTTP/1.1\r\nHost: presence.example\r\nContent-Type: " + type +
                         "\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body);
    PRESENCE_CHECK(parsed.ok() && parsed->has_value(), "the test's request is whole");
    return (*std::move(parsed))->request;
  }

  // The answer; none: it is still to come.
  std::optional<HttpResponse> Handle(const HttpRequest& request) {
    answer_.reset();
    logout_.Handle(request, [this](HttpResponse response) {
      EXPECT_FALSE(answer_.has_value()) << "one answer";
      EXPECT_THAT(response.headers, Contains(Pair("Cache-Control", "no-store")));
      answer_ = std::move(response);
    });
    return answer_;
  }
  std::optional<HttpResponse> Post(const std::string& body) { return Handle(Request("POST", body)); }
  int StatusOf(const std::string& body) {
    const auto response = Post(body);
    return response.has_value() ? response->status : 0;
  }

  std::shared_ptr<const JwkSet> keys_ = std::make_shared<JwkSet>(KeysOf({RsaKeyForTests()}));
  RefreshAnswer refresh_ = RefreshAnswer::kWaiting;
  std::vector<std::function<void()>> refreshes_;
  std::vector<LogoutOrder> orders_;
  std::function<void(const absl::Status&)> done_;
  std::optional<HttpResponse> answer_;

  const LogoutTokenVerifier verifier_ = Verifier();
  BackchannelLogout logout_{{.keys = [this] { return keys_; },
                             .after_key_refresh =
                                 [this](std::string_view /*kid*/, std::function<void()> again) {
                                   if (refresh_ == RefreshAnswer::kWaiting) refreshes_.push_back(std::move(again));
                                   return refresh_;
                                 },
                             .clock = [] { return ForgedNow(); },
                             .end_sessions =
                                 [this](const LogoutOrder& order, std::function<void(const absl::Status&)> done) {
                                   orders_.push_back(order);
                                   done_ = std::move(done);
                                 }},
                            verifier_};
};

TEST_F(BackchannelLogoutTest, AGoodTokenIsObeyedAndAnsweredWhenThatIsDone) {
  EXPECT_FALSE(Post("logout_token=" + Token(Claims())).has_value()) << "the core is asked first";
  ASSERT_THAT(orders_, SizeIs(1));
  EXPECT_EQ(orders_[0].user_id, "f3c1a2b4-0001");
  EXPECT_EQ(orders_[0].session_id, "session-7");
  EXPECT_EQ(ToUnixMillis(orders_[0].issued_at), (kForgedNowSeconds - 1) * 1000);
  done_(absl::OkStatus());
  ASSERT_TRUE(answer_.has_value());
  EXPECT_EQ(answer_->status, 200);
}

TEST_F(BackchannelLogoutTest, TheFormMayHoldOtherThingsAndBeEncoded) {
  std::string encoded;
  for (const char c : Token(Claims())) encoded += c == '.' ? std::string("%2E") : std::string(1, c);
  Handle(Request("POST", "a=b&logout%5Ftoken=" + encoded + "&c", "Application/X-WWW-Form-Urlencoded ; charset=utf-8"));
  EXPECT_THAT(orders_, SizeIs(1));
}

TEST_F(BackchannelLogoutTest, WhatIsNoGoodRequestReachesNobody) {
  const std::string good = "logout_token=" + Token(Claims());
  for (const std::string& body :
       {std::string(), std::string("token=x"), std::string("logout_token="), good + "&" + good,
        std::string("logout_token=%zz"), std::string("logout_token=a.b.c")}) {
    const auto response = Post(body);
    ASSERT_TRUE(response.has_value()) << body;
    EXPECT_EQ(response->status, 400) << body;
    EXPECT_THAT(response->body, HasSubstr(R"("error":"invalid_request")"));
    EXPECT_THAT(response->body, Not(HasSubstr("eyJ")));
  }
  EXPECT_EQ(Handle(Request("POST", good, "application/json"))->status, 400);
  EXPECT_EQ(Post("pad=" + std::string(BackchannelLogout::kBodyBytesMax, 'x') + "&" + good)->status, 413);
  for (const char* method : {"GET", "PUT", "OPTIONS"}) {
    const auto response = Handle(Request(method, good));
    EXPECT_EQ(response->status, 405);
    EXPECT_THAT(response->headers, Contains(Pair("Allow", "POST")));
  }
  EXPECT_THAT(orders_, IsEmpty());
}

TEST_F(BackchannelLogoutTest, ATokenForAnythingElseIsNoLogout) {
  EXPECT_EQ(StatusOf("logout_token=" + GoodToken(RsaKeyForTests())), 400) << "an access token";
  nlohmann::json claims = Claims();
  claims["aud"] = "another-client";
  EXPECT_EQ(StatusOf("logout_token=" + Token(claims)), 400);
  EXPECT_THAT(orders_, IsEmpty());
}

TEST_F(BackchannelLogoutTest, AnUnknownKeyWaitsForNewOnesOnce) {
  const SigningKey& new_key = EcKeyForTests();
  const std::string body = "logout_token=" + Token(Claims(), new_key);
  EXPECT_FALSE(Post(body).has_value());
  ASSERT_THAT(refreshes_, SizeIs(1));
  keys_ = std::make_shared<JwkSet>(KeysOf({RsaKeyForTests(), new_key}));
  refreshes_[0]();
  EXPECT_THAT(orders_, SizeIs(1));

  keys_ = std::make_shared<JwkSet>(KeysOf({RsaKeyForTests()}));
  EXPECT_FALSE(Post(body).has_value());
  ASSERT_THAT(refreshes_, SizeIs(2));
  refreshes_[1]();
  ASSERT_TRUE(answer_.has_value());
  EXPECT_EQ(answer_->status, 400);
  EXPECT_THAT(refreshes_, SizeIs(2));

  refresh_ = RefreshAnswer::kPointless;
  EXPECT_EQ(StatusOf(body), 400);
  refresh_ = RefreshAnswer::kBusy;
  EXPECT_EQ(StatusOf(body), 503);
  EXPECT_THAT(orders_, SizeIs(1));
}

TEST_F(BackchannelLogoutTest, WhatIsNotKeptMayBeTriedAgain) {
  const std::string body = "logout_token=" + Token(Claims());
  const std::vector<std::pair<absl::Status, int>> ends = {{absl::UnavailableError("away"), 503},
                                                          {absl::ResourceExhaustedError("calls"), 503},
                                                          {absl::DeadlineExceededError("late"), 504},
                                                          {absl::InvalidArgumentError("what"), 400}};
  for (const auto& [status, expected] : ends) {
    Post(body);
    done_(status);
    ASSERT_TRUE(answer_.has_value());
    EXPECT_EQ(answer_->status, expected) << status;
  }
  keys_ = nullptr;
  EXPECT_EQ(StatusOf(body), 503);
}

}  // namespace
}  // namespace presence::edge
