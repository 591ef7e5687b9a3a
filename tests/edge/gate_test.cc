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

// ---- REST

TEST_F(GateTest, RestCallsNeedABearerTokenWhenThatIsConfigured) {
  const auto status = [&](std::vector<std::string> headers, const JwkSet* set) {
    const Request request{
        .target = "/presence?token=" + TokenOf("u1"), .headers = std::move(headers), .upgrade = false};
    const auto refused = gate_.RefuseRest(request.Parse(), set, ForgedNow());
    return refused ? refused->status : 200;
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
