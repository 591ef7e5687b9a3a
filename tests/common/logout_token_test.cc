// Logout tokens as Keycloak sends them, and what must not pass for one (OpenID Connect Back-Channel Logout 1.0, section 2.6).
#include "common/logout_token.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "tests/fakes/token_forge.h"

namespace presence {
namespace {

using nlohmann::json;
using std::chrono::seconds;
using ::testing::HasSubstr;

constexpr const char* kLogoutEvent = "http://schemas.openid.net/event/backchannel-logout";

class LogoutTokenTest : public testing::Test {
 protected:
  static const JwkSet& keys() {
    static const JwkSet set = KeysOf({RsaKeyForTests(), EcKeyForTests()});
    return set;
  }

  std::variant<LogoutOrder, Rejection> Verify(std::string_view token) const {
    return verifier_.Verify(token, keys(), ForgedNow());
  }
  // "ok", or why not.
  std::string Outcome(std::string_view token) const {
    const auto verdict = Verify(token);
    const auto* rejection = std::get_if<Rejection>(&verdict);
    return rejection == nullptr ? "ok" : std::string(rejection->why);
  }
  std::string OutcomeOfClaims(const json& claims) const { return Outcome(TokenOf(claims, EcKeyForTests())); }
  std::string OutcomeWith(const std::string& claim, const json& value) const {
    json claims = GoodLogoutClaims();
    claims[claim] = value;
    return OutcomeOfClaims(claims);
  }
  std::string OutcomeWithout(const std::string& claim) const {
    json claims = GoodLogoutClaims();
    claims.erase(claim);
    return OutcomeOfClaims(claims);
  }

  LogoutTokenVerifier verifier_{VerifierOptions{}};
};

TEST_F(LogoutTokenTest, AGoodOneSaysWhoseSessionEnds) {
  for (const SigningKey* key : {&RsaKeyForTests(), &EcKeyForTests()}) {
    const auto verdict = Verify(TokenOf(GoodLogoutClaims(), *key));
    ASSERT_TRUE(std::holds_alternative<LogoutOrder>(verdict));
    const auto& order = std::get<LogoutOrder>(verdict);
    EXPECT_EQ(order.user_id, "f3c1a2b4-0001");
    EXPECT_EQ(order.session_id, "session-7");
    EXPECT_EQ(order.issued_at, ForgedNow() - seconds(1));
    EXPECT_EQ(order.token_id, "logout-1");
  }
}

TEST_F(LogoutTokenTest, OneOfUserAndSessionWillDo) {
  EXPECT_EQ(OutcomeWithout("sub"), "ok");
  EXPECT_EQ(OutcomeWithout("sid"), "ok");
  json neither = GoodLogoutClaims();
  neither.erase("sub");
  neither.erase("sid");
  EXPECT_EQ(OutcomeOfClaims(neither), "neither sub nor sid");
  for (const std::string claim : {"sub", "sid"}) {
    for (const json& value : {json(""), json(7), json(nullptr), json(std::string(2049, 'x'))}) {
      EXPECT_EQ(OutcomeWith(claim, value), claim + " is malformed") << "never taken for absent";
    }
  }
}

TEST_F(LogoutTokenTest, TheSignatureIsOfTheRealmsKey) {
  EXPECT_EQ(Outcome(""), "no token");
  EXPECT_EQ(Outcome("a.b.c"), "not base64url");
  EXPECT_EQ(Outcome(TokenOf(GoodLogoutClaims(), NewKey(SignatureAlgorithm::kEs256, "ec-1"))), "signature is wrong");
  const auto unknown = Verify(TokenOf(GoodLogoutClaims(), NewKey(SignatureAlgorithm::kEs256, "ec-2")));
  EXPECT_EQ(std::get<Rejection>(unknown).fault, TokenFault::kUnknownKey);
  EXPECT_EQ(Outcome(Forge(R"({"alg":"none","kid":"ec-1"})", GoodLogoutClaims().dump(), EcKeyForTests())),
            "header alg is not supported")
      << "section 2.6 forbids none";
}

TEST_F(LogoutTokenTest, OnlyTypesOfLogoutTokens) {
  const auto outcome = [&](std::string_view typ) {
    return Outcome(Forge(R"({"alg":"ES256","kid":"ec-1","typ":")" + std::string(typ) + "\"}", GoodLogoutClaims().dump(),
                         EcKeyForTests()));
  };
  for (const std::string_view typ : {"logout+jwt", "LOGOUT+JWT", "application/logout+jwt", "JWT"}) {
    EXPECT_EQ(outcome(typ), "ok") << typ;
  }
  for (const std::string_view typ : {"at+jwt", "dpop+jwt", "secevent+jwt", ""}) {
    EXPECT_EQ(outcome(typ), "header typ is not of this kind of token") << typ;
  }
  EXPECT_EQ(Outcome(Forge(R"({"alg":"ES256","kid":"ec-1"})", GoodLogoutClaims().dump(), EcKeyForTests())), "ok");
}

TEST_F(LogoutTokenTest, TheEventIsALogout) {
  EXPECT_EQ(OutcomeWithout("events"), "events is absent or malformed");
  for (const json& events : {json(nullptr), json(kLogoutEvent), json::array({kLogoutEvent})}) {
    EXPECT_EQ(OutcomeWith("events", events), "events is absent or malformed") << events;
  }
  for (const json& events :
       {json::object(), json{{"http://schemas.openid.net/event/other", json::object()}}, json{{kLogoutEvent, nullptr}},
        json{{kLogoutEvent, true}}, json{{kLogoutEvent, "{}"}}, json{{kLogoutEvent, json::array()}}}) {
    EXPECT_EQ(OutcomeWith("events", events), "events has no logout") << events;
  }
  EXPECT_EQ(OutcomeWith("events", {{kLogoutEvent, {{"x", 1}}}, {"revoke_offline_access", true}}), "ok")
      << "as Keycloak adds to it";
}

TEST_F(LogoutTokenTest, ANonceIsForbidden) {
  for (const json& nonce : {json("n"), json(nullptr), json("")}) {
    EXPECT_EQ(OutcomeWith("nonce", nonce), "a logout token has no nonce");
  }
}

TEST_F(LogoutTokenTest, KeycloaksOtherTokensAreNoLogoutTokens) {
  for (const json& typ : {json("Bearer"), json("ID"), json("Refresh"), json("logout"), json(1)}) {
    EXPECT_EQ(OutcomeWith("typ", typ), "typ is not a logout token's") << typ;
  }
  EXPECT_EQ(OutcomeWithout("typ"), "ok");
}

TEST_F(LogoutTokenTest, AnAccessTokenIsNotALogoutTokenNorTheOtherWayRound) {
  EXPECT_EQ(Outcome(GoodToken(EcKeyForTests())), "typ is not a logout token's");
  json access = GoodClaims();
  access.erase("typ");  // of an issuer that writes none
  EXPECT_EQ(OutcomeOfClaims(access), "events is absent or malformed");

  json logout = GoodLogoutClaims();
  logout["preferred_username"] = "alice";
  const TokenVerifier verifier{VerifierOptions{}};
  const auto why = [&](const json& claims) {
    const auto verdict = verifier.Verify(TokenOf(claims, EcKeyForTests()), keys(), ForgedNow());
    const auto* rejection = std::get_if<Rejection>(&verdict);
    return rejection == nullptr ? "ok" : std::string(rejection->why);
  };
  EXPECT_EQ(why(logout), "typ is not an access token's");
  logout.erase("typ");
  EXPECT_EQ(why(logout), "it is a security event, not an access token");
}

TEST_F(LogoutTokenTest, IssuerAndAudienceAreOurs) {
  verifier_ = LogoutTokenVerifier({.issuers = {"http://keycloak:8080/realms/colink"}});
  EXPECT_EQ(OutcomeOfClaims(GoodLogoutClaims()), "ok") << "no audience is configured";
  EXPECT_EQ(OutcomeWith("iss", "http://keycloak:8080/realms/other"), "iss is not accepted");
  EXPECT_EQ(OutcomeWithout("iss"), "iss is not accepted");
  for (const VerifierOptions& options :
       {VerifierOptions{.audiences = {"colink-api", "colink-web"}}, VerifierOptions{.client_ids = {"colink-web"}},
        VerifierOptions{.audiences = {"colink-api"}, .client_ids = {"colink-web"}}}) {
    verifier_ = LogoutTokenVerifier(options);
    EXPECT_EQ(OutcomeOfClaims(GoodLogoutClaims()), "ok");
    EXPECT_EQ(OutcomeWith("aud", {"shop", "colink-web"}), "ok");
    EXPECT_EQ(OutcomeWith("aud", "shop"), "aud is not accepted");
    EXPECT_EQ(OutcomeWithout("aud"), "aud is not accepted");
  }
  json claims = GoodLogoutClaims();
  claims["aud"] = "shop";
  claims["azp"] = "colink-web";
  EXPECT_EQ(OutcomeOfClaims(claims), "aud is not accepted") << "azp is no audience";
}

TEST_F(LogoutTokenTest, ItIsOfThisMoment) {
  EXPECT_EQ(OutcomeWith("iat", kForgedNowSeconds + 30), "ok");
  EXPECT_EQ(OutcomeWith("iat", kForgedNowSeconds + 31), "iat is in the future");
  EXPECT_EQ(OutcomeWith("iat", kForgedNowSeconds - 330), "ok");
  EXPECT_EQ(OutcomeWith("iat", kForgedNowSeconds - 331), "iat is too long ago");
  EXPECT_EQ(OutcomeWith("exp", kForgedNowSeconds - 29), "ok");
  EXPECT_EQ(OutcomeWith("exp", kForgedNowSeconds - 30), "exp has passed");
  EXPECT_EQ(OutcomeWith("nbf", kForgedNowSeconds + 31), "nbf is in the future");
  EXPECT_EQ(OutcomeWith("nbf", "now"), "nbf is malformed");
  for (const std::string claim : {"iat", "exp"}) {
    EXPECT_EQ(OutcomeWithout(claim), claim + " is absent or malformed");
    EXPECT_EQ(OutcomeWith(claim, "now"), claim + " is absent or malformed");
  }
}

TEST_F(LogoutTokenTest, ItHasAnIdOfItsOwn) {
  EXPECT_EQ(OutcomeWithout("jti"), "jti is absent or malformed");
  EXPECT_EQ(OutcomeWith("jti", ""), "jti is absent or malformed");
  EXPECT_EQ(OutcomeWith("jti", 7), "jti is absent or malformed");
}

}  // namespace
}  // namespace presence
