// Who gets in, who gets which answer: requests as bytes, through the real HTTP parser.
#include "edge/gate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/jwt.h"
#include "edge/http.h"
#include "tests/fakes/token_forge.h"

namespace presence::edge {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Key;
using ::testing::Not;
using ::testing::Pair;

struct Request {
  std::string method = "GET";
  std::string target = "/ws";
  std::vector<std::string> headers = {};
  bool upgrade = true;

  HttpRequest Parse() const {
    std::string text = method + " " + target + " HTTP/1.1\r\nHost: presence.example:8006\r\n";
    if (upgrade) {
      text +=
          "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
          "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    }
    for (const std::string& header : headers) text += header + "\r\n";
    auto parsed = ParseHttpRequest(text + "\r\n");
    PRESENCE_CHECK(parsed.ok() && parsed->has_value(), "the test's request is whole");
    return (*std::move(parsed))->request;
  }
};

class GateTest : public testing::Test {
 protected:
  static const JwkSet& keys() {
    static const JwkSet set = KeysOf({RsaKeyForTests(), EcKeyForTests()});
    return set;
  }
  static Gate::Options Options() {
    Gate::Options options;
    options.allowed_origins = {"http://localhost:3000", "https://App.Example"};
    options.rest_auth = true;
    return options;
  }
  static std::string TokenOf(std::string_view user) {
    nlohmann::json claims = GoodClaims();
    claims["sub"] = user;
    return SignToken(claims, EcKeyForTests()).value();
  }
  static std::string ExpiredToken() {
    nlohmann::json claims = GoodClaims();
    claims["exp"] = 1;
    return SignToken(claims, EcKeyForTests()).value();
  }

  GateDecision Decide(const Request& request) const {
    return gate_.DecideUpgrade(request.Parse(), &keys(), ForgedNow());
  }
  GateDecision DecideWithoutKeys(const Request& request) const {
    return gate_.DecideUpgrade(request.Parse(), nullptr, ForgedNow());
  }

  // The decision in one line: "admit <user> <subprotocol>", "refuse <status>", "close <code> <reason> <subprotocol>".
  static std::string Describe(const GateDecision& decision) {
    if (const auto* admit = std::get_if<Admit>(&decision.outcome)) {
      return "admit " + admit->identity.user_id + " " + admit->subprotocol;
    }
    if (const auto* refuse = std::get_if<Refuse>(&decision.outcome)) {
      return "refuse " + std::to_string(refuse->response.status);
    }
    if (const auto* unproven = std::get_if<AdmitUnproven>(&decision.outcome))
      return "unproven " + unproven->subprotocol;
    const auto& close = std::get<AdmitAndClose>(decision.outcome);
    return "close " + std::to_string(close.code) + " " + std::string(close.reason) + " " + close.subprotocol;
  }
  std::string Outcome(const Request& request) const { return Describe(Decide(request)); }
  std::string OutcomeFromOrigin(const std::string& origin, const std::string& target = "/ws") const {
    return Outcome({.target = target, .headers = {"Origin: " + origin}});
  }

  Gate gate_{Options()};
};

// ---- Where the token is

TEST_F(GateTest, TheTokenComesInTheQuery) {
  EXPECT_EQ(Outcome({.target = "/ws?token=" + TokenOf("u1")}), "admit u1 ");
  EXPECT_EQ(Outcome({.target = "/ws?a=b&token=" + TokenOf("u1") + "&c"}), "admit u1 ");
}

TEST_F(GateTest, TheTokenComesInTheAuthorizationHeader) {
  for (const std::string scheme : {"Bearer ", "bearer ", "BEARER ", "Bearer   "}) {
    EXPECT_EQ(Outcome({.headers = {"Authorization: " + scheme + TokenOf("u1")}}), "admit u1 ") << scheme;
  }
  for (const std::string value : {"Basic dTpw", "Bearer", "Bearer ", "BearerX", ""}) {
    EXPECT_EQ(Outcome({.headers = {"Authorization: " + value}}), "refuse 401") << value;
  }
}

TEST_F(GateTest, TheTokenComesAsASubprotocolAndIsNeverSelected) {
  const std::string bearer = "bearer." + TokenOf("u1");
  for (const std::string& offer :
       {"presence.v1, " + bearer, bearer + ",presence.v1", bearer + ", other, presence.v1"}) {
    EXPECT_EQ(Outcome({.headers = {"Sec-WebSocket-Protocol: " + offer}}), "admit u1 presence.v1");
  }
  EXPECT_EQ(Outcome({.headers = {"Sec-WebSocket-Protocol: presence.v1", "Sec-WebSocket-Protocol: " + bearer}}),
            "admit u1 presence.v1")
      << "one offer per line";
  EXPECT_EQ(Outcome({.headers = {"Sec-WebSocket-Protocol: " + bearer}}), "admit u1 ");
  EXPECT_EQ(Outcome({.headers = {"Sec-WebSocket-Protocol: presence.v1, bearer."}}), "refuse 401");
}

TEST_F(GateTest, TheOfferedSubprotocolIsSelectedWhereverTheTokenIs) {
  const std::string target = "/ws?token=" + TokenOf("u1");
  EXPECT_EQ(Outcome({.target = target, .headers = {"Sec-WebSocket-Protocol: chat, presence.v1"}}),
            "admit u1 presence.v1");
  EXPECT_EQ(Outcome({.target = target, .headers = {"Sec-WebSocket-Protocol: chat"}}), "admit u1 ");
}

TEST_F(GateTest, QueryGoesBeforeHeaderGoesBeforeSubprotocol) {
  const std::string header = "Authorization: Bearer " + TokenOf("header");
  const std::string subprotocol = "Sec-WebSocket-Protocol: bearer." + TokenOf("subprotocol");
  EXPECT_EQ(Outcome({.target = "/ws?token=" + TokenOf("query"), .headers = {header, subprotocol}}), "admit query ");
  EXPECT_EQ(Outcome({.headers = {subprotocol, header}}), "admit header ");
  EXPECT_EQ(Outcome({.target = "/ws?token=", .headers = {header, subprotocol}}), "admit header ")
      << "an empty one is none";
  EXPECT_EQ(Outcome({.target = "/ws?token=bad", .headers = {header}}), "refuse 401") << "a bad one is not skipped";
}

// ---- What is refused, and how

TEST_F(GateTest, AProgramGets401WithAChallenge) {
  const auto missing = Decide({});
  ASSERT_EQ(Describe(missing), "refuse 401");
  const HttpResponse& response = std::get<Refuse>(missing.outcome).response;
  EXPECT_THAT(response.headers, Contains(Pair("WWW-Authenticate", "Bearer")));
  EXPECT_THAT(response.body, HasSubstr("\"token missing\""));

  const auto answer = [&](const std::string& token) {
    const GateDecision decision = Decide({.target = "/ws?token=" + token});
    EXPECT_EQ(Describe(decision), "refuse 401");
    EXPECT_FALSE(decision.why.empty());
    const HttpResponse& refused = std::get<Refuse>(decision.outcome).response;
    EXPECT_THAT(refused.headers, Contains(Pair("WWW-Authenticate", HasSubstr("invalid_token"))));
    EXPECT_THAT(refused.body, Not(HasSubstr(token))) << "no answer repeats the token";
    return refused.body;
  };
  EXPECT_THAT(answer("nonsense"), HasSubstr("\"token invalid\""));
  EXPECT_THAT(answer(ExpiredToken()), HasSubstr("\"token expired\""));
}

TEST_F(GateTest, ABrowserIsUpgradedAndClosedBecauseItCannotReadThe401) {
  EXPECT_EQ(OutcomeFromOrigin("http://localhost:3000"), "close 1008 token missing ");
  EXPECT_EQ(OutcomeFromOrigin("http://localhost:3000", "/ws?token=x"), "close 1008 token invalid ");
  EXPECT_EQ(OutcomeFromOrigin("http://localhost:3000", "/ws?token=" + ExpiredToken()), "close 1008 token expired ");
  EXPECT_EQ(Outcome({.headers = {"Origin: http://localhost:3000", "Sec-WebSocket-Protocol: presence.v1, bearer.x"}}),
            "close 1008 token invalid presence.v1")
      << "browsers fail a handshake that selects none of the offered";
}

TEST_F(GateTest, AnUnknownKeyIsReportedSoThatTheKeysCanBeFetched) {
  const std::string token = GoodToken(NewKey(SignatureAlgorithm::kEs256, "ec-2"));
  const GateDecision decision = Decide({.target = "/ws?token=" + token});
  EXPECT_TRUE(decision.unknown_key);
  EXPECT_EQ(decision.kid, "ec-2");
  EXPECT_EQ(Describe(decision), "refuse 401");
  EXPECT_FALSE(Decide({.target = "/ws?token=x"}).unknown_key);
  EXPECT_FALSE(Decide({.target = "/ws?token=" + TokenOf("u1")}).unknown_key);
}

TEST_F(GateTest, BeforeTheKeysAreThereTheClientIsAskedToComeBack) {
  const std::string target = "/ws?token=" + TokenOf("u1");
  const GateDecision program = DecideWithoutKeys({.target = target});
  ASSERT_EQ(Describe(program), "refuse 503");
  EXPECT_THAT(std::get<Refuse>(program.outcome).response.headers, Contains(Key("Retry-After")));
  EXPECT_EQ(Describe(DecideWithoutKeys({.target = target, .headers = {"Origin: http://localhost:3000"}})),
            "close 1013 try again later ");
  EXPECT_EQ(Describe(DecideWithoutKeys({})), "refuse 401") << "no key is needed to see that there is no token";
}

TEST_F(GateTest, WhoCannotWaitForNewKeysIsAskedToComeBack) {
  const auto answer = [&](std::vector<std::string> headers) {
    return gate_.TooManyWaitForKeys(Request{.headers = std::move(headers)}.Parse());
  };
  ASSERT_EQ(Describe(answer({})), "refuse 503");
  EXPECT_THAT(std::get<Refuse>(answer({}).outcome).response.headers, Contains(Key("Retry-After")));
  EXPECT_EQ(Describe(answer({"Origin: http://localhost:3000"})), "close 1013 try again later ");
}

// ---- Tokens that are remembered

TEST_F(GateTest, ATokenThatComesAgainIsNotVerifiedAgain) {
  // With another key in its place the signature would be wrong, if anybody looked; nobody but this test exchanges one.
  JwkSet mine = KeysOf({EcKeyForTests()}), other = KeysOf({NewKey(SignatureAlgorithm::kEs256, "ec-1")});
  const auto outcome = [&](const std::string& token) {
    return Describe(gate_.DecideUpgrade(Request{.target = "/ws?token=" + token}.Parse(), &mine, ForgedNow()));
  };
  const std::string token = TokenOf("u1");
  ASSERT_EQ(outcome(token), "admit u1 ");
  std::swap(const_cast<VerificationKey&>(mine.keys()[0]), const_cast<VerificationKey&>(other.keys()[0]));
  EXPECT_EQ(outcome(token), "admit u1 ");
  EXPECT_EQ(outcome(TokenOf("u1")), "refuse 401") << "another signature, another token";
  EXPECT_EQ(outcome(token + "!!!!"), "refuse 401");
}

TEST_F(GateTest, ATokenThatIsRememberedEndsWithItsTimeOrItsKey) {
  const Request request{.target = "/ws?token=" + TokenOf("u1")};
  const auto outcome = [&](const JwkSet& set, int64_t seconds) {
    return Describe(gate_.DecideUpgrade(request.Parse(), &set, ForgedNow() + std::chrono::seconds(seconds)));
  };
  ASSERT_EQ(outcome(keys(), 0), "admit u1 ");
  EXPECT_EQ(outcome(keys(), 329), "admit u1 ");
  EXPECT_EQ(outcome(keys(), 330), "refuse 401");
  EXPECT_EQ(outcome(keys(), -36), "refuse 401") << "iat is in the future of a clock that was set back";
  const JwkSet rotated = KeysOf({RsaKeyForTests()});
  EXPECT_EQ(outcome(rotated, 0), "refuse 401") << "the key is withdrawn";
}

TEST_F(GateTest, OnlyUpgradesByGetOfThePath) {
  const std::string query = "?token=" + TokenOf("u1");
  for (const std::string path : {"/", "/ws/", "/WS", "/wsx", "/%77s", "//ws"}) {
    EXPECT_EQ(Outcome({.target = path + query}), "refuse 404") << path;
  }
  const auto post = Decide({.method = "POST", .target = "/ws" + query});
  ASSERT_EQ(Describe(post), "refuse 405");
  EXPECT_THAT(std::get<Refuse>(post.outcome).response.headers, Contains(Pair("Allow", "GET")));
  const auto plain = Decide({.target = "/ws" + query, .upgrade = false});
  ASSERT_EQ(Describe(plain), "refuse 426");
  EXPECT_THAT(std::get<Refuse>(plain.outcome).response.headers, Contains(Pair("Upgrade", "websocket")));
}

// ---- Origin

TEST_F(GateTest, OriginsOfTheListAndTheEdgesOwnMayComeIn) {
  const std::string target = "/ws?token=" + TokenOf("u1");
  for (const std::string origin :
       {"http://localhost:3000", "HTTP://LOCALHOST:3000", "https://app.example", "https://app.example:443",
        "http://presence.example:8006", "https://presence.example:8006"}) {
    EXPECT_EQ(OutcomeFromOrigin(origin, target), "admit u1 ") << origin;
  }
}

TEST_F(GateTest, AForeignOriginGets403EvenWithAGoodToken) {
  const std::string target = "/ws?token=" + TokenOf("u1");
  for (const std::string origin :
       {"http://evil.example", "null", "", "http://localhost:3001", "http://localhost", "https://localhost:3000",
        "http://app.example", "https://app.example.evil.example", "https://evil.example/https://app.example",
        "https://app.example:8443", "https://xapp.example", "http://presence.example", "ws://presence.example:8006",
        "http://localhost:3000/", "http://localhost:3000 http://evil.example"}) {
    const GateDecision decision = Decide({.target = target, .headers = {"Origin: " + origin}});
    ASSERT_EQ(Describe(decision), "refuse 403") << origin;
    EXPECT_THAT(std::get<Refuse>(decision.outcome).response.body, Not(HasSubstr("evil")));
  }
  EXPECT_EQ(Outcome({.target = target, .headers = {"Origin: http://localhost:3000", "Origin: http://evil.example"}}),
            "refuse 403")
      << "two of them";
  EXPECT_EQ(OutcomeFromOrigin("http://evil.example"), "refuse 403") << "whatever the token";
}

TEST_F(GateTest, AStarAllowsAnyOrigin) {
  Gate::Options options = Options();
  options.allowed_origins = {"*"};
  gate_ = Gate(options);
  EXPECT_EQ(OutcomeFromOrigin("http://evil.example", "/ws?token=" + TokenOf("u1")), "admit u1 ");
  EXPECT_EQ(OutcomeFromOrigin("null"), "close 1008 token missing ");
}

TEST_F(GateTest, ASlashAtTheEndOfAConfiguredOriginDoesNoHarm) {
  Gate::Options options = Options();
  options.allowed_origins = {"https://chat.example/"};
  gate_ = Gate(options);
  EXPECT_EQ(OutcomeFromOrigin("https://chat.example", "/ws?token=" + TokenOf("u1")), "admit u1 ");
}

// ---- The token as the first message

class GateWithFirstMessageTest : public GateTest {
 protected:
  GateWithFirstMessageTest() {
    Gate::Options options = Options();
    options.auth_first_message = true;
    gate_ = Gate(options);
  }
};

TEST_F(GateWithFirstMessageTest, ATokenMayBeMissingButNotBad) {
  EXPECT_EQ(Outcome({.headers = {"Sec-WebSocket-Protocol: presence.v1"}}), "unproven presence.v1");
  EXPECT_EQ(OutcomeFromOrigin("https://app.example"), "unproven ");
  EXPECT_EQ(Outcome({.target = "/ws?token=" + TokenOf("u1")}), "admit u1 ");
  EXPECT_EQ(Outcome({.target = "/ws?token=bad"}), "refuse 401");
  EXPECT_EQ(OutcomeFromOrigin("https://app.example", "/ws?token=bad"), "close 1008 token invalid ");
}

TEST_F(GateWithFirstMessageTest, WhatElseIsRefusedStaysSo) {
  EXPECT_EQ(OutcomeFromOrigin("http://evil.example"), "refuse 403");
  EXPECT_EQ(Outcome({.upgrade = false}), "refuse 426");
  EXPECT_EQ(Describe(DecideWithoutKeys({})), "refuse 503") << "its token could not be verified either";
}

TEST_F(GateWithFirstMessageTest, TheMessagesTokenIsJudgedLikeAnyOther) {
  const auto user = [&](const std::string& token) {
    const TokenVerdict verdict = gate_.Verify(token, keys(), ForgedNow());
    const auto* identity = std::get_if<Identity>(&verdict);
    return identity == nullptr ? "" : identity->user_id;
  };
  EXPECT_EQ(user(TokenOf("u1")), "u1");
  EXPECT_EQ(user(ExpiredToken()), "");
  EXPECT_EQ(user(""), "");
}

// ---- REST

TEST_F(GateTest, RestCallsNeedABearerTokenWhenThatIsConfigured) {
  const auto status = [&](std::vector<std::string> headers, const JwkSet* set) {
    const Request request{
        .target = "/presence?token=" + TokenOf("u1"), .headers = std::move(headers), .upgrade = false};
    const auto refused = gate_.RefuseRest(request.Parse(), set, ForgedNow());
    return refused ? refused->response.status : 200;
  };
  EXPECT_EQ(status({"Authorization: Bearer " + TokenOf("u1")}, &keys()), 200);
  EXPECT_EQ(status({"Authorization: Bearer " + ExpiredToken()}, &keys()), 401);
  EXPECT_EQ(status({}, &keys()), 401) << "the query is for browsers' WebSockets alone";
  EXPECT_EQ(status({"Authorization: Bearer " + TokenOf("u1")}, nullptr), 503);
  EXPECT_EQ(status({}, nullptr), 401);
  Gate::Options open = Options();
  open.rest_auth = false;
  gate_ = Gate(open);
  EXPECT_EQ(status({}, nullptr), 200);
}

TEST_F(GateTest, ARestCallsUnknownKeyIsReportedToo) {
  const auto refusal = [&](const std::string& token) {
    const Request request{.target = "/presence", .headers = {"Authorization: Bearer " + token}, .upgrade = false};
    return gate_.RefuseRest(request.Parse(), &keys(), ForgedNow());
  };
  const auto unknown = refusal(GoodToken(NewKey(SignatureAlgorithm::kEs256, "ec-2")));
  ASSERT_TRUE(unknown.has_value());
  EXPECT_TRUE(unknown->unknown_key);
  EXPECT_EQ(unknown->kid, "ec-2");
  EXPECT_EQ(unknown->response.status, 401) << "if the key does not come";
  const auto expired = refusal(ExpiredToken());
  ASSERT_TRUE(expired.has_value());
  EXPECT_FALSE(expired->unknown_key);
}

TEST_F(GateTest, AnAllowedPageMayReadTheAnswerAndCachesAreTold) {
  const auto headers = [&](std::vector<std::string> lines) {
    return gate_.CorsHeaders(Request{.target = "/presence", .headers = std::move(lines), .upgrade = false}.Parse());
  };
  EXPECT_THAT(headers({"Origin: https://app.example"}),
              ElementsAre(Pair("Vary", "Origin"), Pair("Access-Control-Allow-Origin", "https://app.example")));
  EXPECT_THAT(headers({"Origin: http://evil.example"}), ElementsAre(Pair("Vary", "Origin")));
  EXPECT_THAT(headers({}), ElementsAre(Pair("Vary", "Origin")));
  Gate::Options any = Options();
  any.allowed_origins = {"*"};
  gate_ = Gate(any);
  EXPECT_THAT(headers({"Origin: http://evil.example"}), ElementsAre(Pair("Access-Control-Allow-Origin", "*")));
}

TEST_F(GateTest, PreflightsAreAnsweredForAllowedPages) {
  const auto answer = [&](std::string method, std::vector<std::string> lines) {
    return gate_.AnswerPreflight(
        Request{.method = std::move(method), .target = "/presence", .headers = std::move(lines), .upgrade = false}
            .Parse());
  };
  const std::string asked = "Access-Control-Request-Method: GET";
  const auto good = answer("OPTIONS", {"Origin: https://app.example", asked});
  ASSERT_TRUE(good.has_value());
  EXPECT_EQ(good->status, 204);
  EXPECT_EQ(good->body, "");
  EXPECT_THAT(good->headers, Contains(Pair("Access-Control-Allow-Origin", "https://app.example")));
  EXPECT_THAT(good->headers, Contains(Pair("Access-Control-Allow-Headers", HasSubstr("Authorization"))));
  const auto foreign = answer("OPTIONS", {"Origin: http://evil.example", asked});
  ASSERT_TRUE(foreign.has_value());
  EXPECT_EQ(foreign->status, 403);
  EXPECT_THAT(foreign->headers, Not(Contains(Key("Access-Control-Allow-Origin"))));
  EXPECT_FALSE(answer("GET", {"Origin: https://app.example", asked}).has_value());
  EXPECT_FALSE(answer("OPTIONS", {"Origin: https://app.example"}).has_value());
  EXPECT_FALSE(answer("OPTIONS", {asked}).has_value());
}

}  // namespace
}  // namespace presence::edge
