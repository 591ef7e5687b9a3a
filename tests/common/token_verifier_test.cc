// What an attacker, a misconfigured issuer or a bad cable can do to a token (RFC 8725), and what Keycloak really sends.
#include "common/token_verifier.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <string_view>

#include "common/base64url.h"
#include "common/jwt.h"
#include "tests/fakes/token_forge.h"

namespace presence {
namespace {

using nlohmann::json;
using std::chrono::seconds;
using ::testing::HasSubstr;

constexpr std::string_view kRsHeader = R"({"alg":"RS256","kid":"rsa-1","typ":"JWT"})";
constexpr std::string_view kEsHeader = R"({"alg":"ES256","kid":"ec-1"})";

class TokenVerifierTest : public testing::Test {
 protected:
  static const JwkSet& keys() {
    static const JwkSet set = KeysOf({RsaKeyForTests(), EcKeyForTests()});
    return set;
  }

  TokenVerdict Verify(std::string_view token) const { return verifier_.Verify(token, keys(), ForgedNow()); }

  // "ok", or why not.
  std::string Outcome(std::string_view token) const { return Describe(Verify(token)); }
  static std::string Describe(const TokenVerdict& verdict) {
    const auto* rejection = std::get_if<Rejection>(&verdict);
    if (rejection == nullptr) return "ok";
    switch (rejection->fault) {
      case TokenFault::kMissing:
        return "missing: " + std::string(rejection->why);
      case TokenFault::kInvalid:
        return "invalid: " + std::string(rejection->why);
      case TokenFault::kExpired:
        return "expired: " + std::string(rejection->why);
      case TokenFault::kUnknownKey:
        return "unknown key: " + std::string(rejection->why);
    }
    return "";
  }

  // The outcome for a well-signed token whose header or claims are these.
  std::string OutcomeOfHeader(std::string_view header) const {
    return Outcome(Forge(header, GoodClaims().dump(), RsaKeyForTests()));
  }
  std::string OutcomeOfPayload(std::string_view payload) const {
    return Outcome(Forge(kEsHeader, payload, EcKeyForTests()));
  }
  std::string OutcomeOfClaims(const json& claims) const { return OutcomeOfPayload(claims.dump()); }
  std::string OutcomeWith(const std::string& claim, const json& value) const {
    json claims = GoodClaims();
    claims[claim] = value;
    return OutcomeOfClaims(claims);
  }
  std::string OutcomeWithout(const std::string& claim) const {
    json claims = GoodClaims();
    claims.erase(claim);
    return OutcomeOfClaims(claims);
  }

  TokenVerifier verifier_{VerifierOptions{}};
};

TEST_F(TokenVerifierTest, AGoodTokenNamesItsUser) {
  for (const SigningKey* key : {&RsaKeyForTests(), &EcKeyForTests()}) {
    const TokenVerdict verdict = Verify(GoodToken(*key));
    ASSERT_EQ(Describe(verdict), "ok");
    const Identity& identity = std::get<Identity>(verdict);
    EXPECT_EQ(identity.user_id, "f3c1a2b4-0001");
    EXPECT_EQ(identity.username, "alice");
    EXPECT_EQ(identity.session_id, "session-7");
    EXPECT_EQ(identity.expires_at, ForgedNow() + seconds(300));
    EXPECT_EQ(identity.issued_at, ForgedNow() - seconds(5));
  }
}

TEST_F(TokenVerifierTest, NoTokenIsMissingAndNotInvalid) {
  EXPECT_EQ(Outcome(""), "missing: no token");
}

// ---- Form

TEST_F(TokenVerifierTest, OnlyThreePartsOfBase64Url) {
  const std::string good = GoodToken(EcKeyForTests());
  const size_t first = good.find('.'), second = good.rfind('.');
  for (const std::string& token : {std::string("x"),
                                   std::string("."),
                                   std::string(".."),
                                   std::string("..."),
                                   std::string("a.b.c"),
                                   good.substr(0, second),
                                   good.substr(0, first),
                                   good.substr(first),
                                   good + ".",
                                   good + ".e30",
                                   "." + good,
                                   good.substr(0, second + 1),
                                   good + "=",
                                   good + "==",
                                   good + "!!!!",
                                   good + " ",
                                   " " + good,
                                   good + "\n",
                                   good + std::string(1, '\0'),
                                   good + "\xc3\xa4",
                                   "Bearer " + good,
                                   good.substr(0, first) + ".." + good.substr(second + 1),
                                   good.substr(0, first) + "=" + good.substr(first)}) {
    EXPECT_THAT(Outcome(token), HasSubstr("invalid: ")) << token;
  }
}

TEST_F(TokenVerifierTest, BytesAbove7fNeverGetAnywhere) {
  const std::string good = GoodToken(EcKeyForTests());
  for (size_t i = 0; i < good.size(); ++i) {
    std::string token = good;
    token[i] = static_cast<char>(0x80 + i % 128);
    EXPECT_THAT(Outcome(token), HasSubstr("invalid: ")) << i;
  }
}

TEST_F(TokenVerifierTest, TheLengthIsBoundedBeforeAnythingIsRead) {
  json claims = GoodClaims();
  const auto token_with = [&](size_t filling) {
    claims["x"] = std::string(filling, 'x');
    return SignToken(claims, EcKeyForTests()).value();
  };
  size_t filling = 5500;
  while (token_with(filling + 1).size() <= TokenVerifier::kTokenBytesMax) ++filling;
  EXPECT_EQ(Outcome(token_with(filling)), "ok");
  EXPECT_EQ(Outcome(token_with(filling + 1)), "invalid: longer than 8 KiB");
  EXPECT_EQ(Outcome(std::string(10'000'000, '.')), "invalid: longer than 8 KiB");
}

// ---- Header

TEST_F(TokenVerifierTest, AlgNoneIsRefusedInEverySpelling) {
  for (const std::string_view alg : {"none", "None", "NONE", ""}) {
    const std::string header = json{{"alg", alg}, {"kid", "rsa-1"}}.dump();
    EXPECT_EQ(OutcomeOfHeader(header), "invalid: header alg is not supported") << alg;
    const std::string message = Base64UrlEncode(header) + "." + Base64UrlEncode(GoodClaims().dump());
    EXPECT_THAT(Outcome(message + "."), HasSubstr("invalid: ")) << "empty signature";
    EXPECT_THAT(Outcome(message + ".AAAA"), HasSubstr("invalid: "));
  }
}

TEST_F(TokenVerifierTest, AnHmacWithThePublicKeyAsSecretIsRefused) {
  const std::string secret = PublicJwk(RsaKeyForTests()).value();
  for (const std::string_view alg : {"HS256", "RS256"}) {
    const std::string message =
        Base64UrlEncode(json{{"alg", alg}, {"kid", "rsa-1"}}.dump()) + "." + Base64UrlEncode(GoodClaims().dump());
    unsigned char mac[EVP_MAX_MD_SIZE];
    unsigned int mac_bytes = 0;
    HMAC(EVP_sha256(), secret.data(), static_cast<int>(secret.size()),
         reinterpret_cast<const unsigned char*>(message.data()), message.size(), mac, &mac_bytes);
    const std::string token =
        message + "." + Base64UrlEncode(std::string_view(reinterpret_cast<char*>(mac), mac_bytes));
    EXPECT_THAT(Outcome(token), HasSubstr("invalid: ")) << alg;
  }
}

TEST_F(TokenVerifierTest, TheAlgorithmIsTheKeysAndSpelledExactly) {
  EXPECT_EQ(OutcomeOfHeader(kRsHeader), "ok");
  for (const std::string_view alg : {"rs256", "Rs256", "RS256 ", "HS256", "ES256K", "ES512", "Ed25519"}) {
    EXPECT_EQ(OutcomeOfHeader(json{{"alg", alg}, {"kid", "rsa-1"}}.dump()), "invalid: header alg is not supported")
        << alg;
  }
  for (const std::string_view alg : {"RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"}) {
    EXPECT_EQ(OutcomeOfHeader(json{{"alg", alg}, {"kid", "rsa-1"}}.dump()), "invalid: header alg is not the key's")
        << alg;
  }
  EXPECT_EQ(OutcomeOfHeader(R"({"alg":"RS256","kid":"ec-1"})"), "invalid: header alg is not the key's");
  EXPECT_THAT(OutcomeOfHeader(R"({"alg":["RS256"],"kid":"rsa-1"})"), HasSubstr("header alg"));
  EXPECT_THAT(OutcomeOfHeader(R"({"kid":"rsa-1"})"), HasSubstr("header alg"));
}

TEST_F(TokenVerifierTest, AnUnknownKeyIsSaidToBeUnknownButOnlyInAPlausibleHeader) {
  EXPECT_EQ(OutcomeOfHeader(R"({"alg":"RS256","kid":"rsa-2"})"), "unknown key: no key has this kid");
  EXPECT_THAT(OutcomeOfHeader(R"({"alg":"none","kid":"rsa-2"})"), HasSubstr("invalid: "));
  for (const std::string_view kid : {"../../dev/null", "' OR 1=1 --", "rsa-1 ", "RSA-1", "rsa-1\\u0000"}) {
    EXPECT_EQ(OutcomeOfHeader(R"({"alg":"RS256","kid":")" + std::string(kid) + "\"}"),
              "unknown key: no key has this kid")
        << kid;
  }
  for (const std::string_view kid : {"\"\"", "null", "1", "[\"rsa-1\"]", "{}"}) {
    EXPECT_EQ(OutcomeOfHeader(R"({"alg":"RS256","kid":)" + std::string(kid) + "}"), "invalid: header kid is malformed")
        << kid;
  }
}

TEST_F(TokenVerifierTest, AMissingKidWillDoWhenThereIsOneKeyOnly) {
  const std::string token = Forge(R"({"alg":"RS256"})", GoodClaims().dump(), RsaKeyForTests());
  EXPECT_EQ(Outcome(token), "invalid: header has no kid");
  const auto verify_with = [&](const SigningKey& key) {
    return Describe(verifier_.Verify(token, KeysOf({key}), ForgedNow()));
  };
  EXPECT_EQ(verify_with(RsaKeyForTests()), "ok");
  EXPECT_EQ(verify_with(EcKeyForTests()), "invalid: header alg is not the key's");
}

TEST_F(TokenVerifierTest, KeysThatTheTokenBringsAlongCountForNothing) {
  const SigningKey attacker = NewKey(SignatureAlgorithm::kRs256, "rsa-1");
  json header = json::parse(kRsHeader);
  header["jwk"] = json::parse(PublicJwk(attacker).value());
  header["jku"] = "https://attacker.example/keys";
  header["x5c"] = {"MIIC"};
  EXPECT_EQ(Outcome(Forge(header.dump(), GoodClaims().dump(), attacker)), "invalid: signature is wrong");
  EXPECT_EQ(OutcomeOfHeader(header.dump()), "ok") << "signed by ours: they are ignored, not refused";
}

TEST_F(TokenVerifierTest, CriticalExtensionsAreRefused) {
  for (const std::string_view crit : {R"(["b64"])", "[]", "null", "\"exp\""}) {
    EXPECT_EQ(OutcomeOfHeader(R"({"alg":"RS256","kid":"rsa-1","crit":)" + std::string(crit) + "}"),
              "invalid: header has crit");
  }
}

TEST_F(TokenVerifierTest, OnlyTypesOfAccessTokens) {
  const auto outcome = [&](std::string_view typ) {
    return OutcomeOfHeader(R"({"alg":"RS256","kid":"rsa-1","typ":)" + std::string(typ) + "}");
  };
  for (const std::string_view typ : {R"("JWT")", R"("jwt")", R"("at+jwt")", R"("AT+JWT")", R"("application/at+jwt")"}) {
    EXPECT_EQ(outcome(typ), "ok") << typ;
  }
  for (const std::string_view typ : {R"("logout+jwt")", R"("dpop+jwt")", R"("application/")", R"("")", "null", "1"}) {
    EXPECT_EQ(outcome(typ), "invalid: header typ is not of this kind of token") << typ;
  }
}

TEST_F(TokenVerifierTest, TheHeaderIsOnePlainObject) {
  for (const std::string& header :
       {std::string("[]"), std::string("\"RS256\""), std::string(kRsHeader) + "{}", std::string(kRsHeader) + "x",
        std::string(kRsHeader) + std::string("\0x", 2), "\xEF\xBB\xBF" + std::string(kRsHeader),
        std::string(R"({"alg":"none","alg":"RS256","kid":"rsa-1"})"),
        std::string(R"({"alg":"RS256","kid":"rsa-1","\u0061lg":"RS256"})"), std::string("{\"alg\":\"RS256\""),
        R"({"alg":"RS256","kid":"rsa-1","x":)" + std::string(1000, '[') + std::string(1000, ']') + "}",
        std::string(5000, '[')}) {
    EXPECT_EQ(OutcomeOfHeader(header), "invalid: header is not a plain JSON object") << header.substr(0, 60);
  }
}

// ---- Signature

TEST_F(TokenVerifierTest, ASignatureByAnotherKeyOfThatNameIsWrong) {
  EXPECT_EQ(Outcome(GoodToken(NewKey(SignatureAlgorithm::kRs256, "rsa-1"))), "invalid: signature is wrong");
  EXPECT_EQ(Outcome(GoodToken(NewKey(SignatureAlgorithm::kEs256, "ec-1"))), "invalid: signature is wrong");
}

TEST_F(TokenVerifierTest, RsaSignaturesOfOddSizeAreWrong) {
  const std::string message = Base64UrlEncode(kRsHeader) + "." + Base64UrlEncode(GoodClaims().dump());
  const std::string signature = RawSignature(message, RsaKeyForTests());
  ASSERT_EQ(Outcome(message + "." + Base64UrlEncode(signature)), "ok");
  for (const std::string& wrong : {signature.substr(1), signature.substr(0, 255), signature + '\0', '\0' + signature,
                                   std::string(256, '\0'), std::string(256, '\xff'), std::string(1, '\1')}) {
    EXPECT_EQ(Outcome(message + "." + Base64UrlEncode(wrong)), "invalid: signature is wrong");
  }
}

TEST_F(TokenVerifierTest, EcdsaSignaturesAreExactlyTwoNumbersOfTheCurve) {
  const std::string message = Base64UrlEncode(kEsHeader) + "." + Base64UrlEncode(GoodClaims().dump());
  const std::string good = RawSignature(message, EcKeyForTests());
  ASSERT_EQ(Outcome(message + "." + Base64UrlEncode(good)), "ok");
  const std::string zero(32, '\0'), r = good.substr(0, 32), s = good.substr(32);
  std::string order(32, '\0');  // n of P-256 (SEC 2, section 2.4.2): the first number that is too large
  const std::string hex = "FFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551";
  for (size_t i = 0; i < 32; ++i) order[i] = static_cast<char>(std::stoi(hex.substr(2 * i, 2), nullptr, 16));
  const std::string der = "\x30\x44\x02\x20" + r + "\x02\x20" + s;
  for (const std::string& wrong : {zero + zero, zero + s, r + zero, s + r, r, r + s.substr(1), good + '\0', order + s,
                                   r + order, std::string(64, '\xff'), std::string(96, '\1'), der}) {
    EXPECT_EQ(Outcome(message + "." + Base64UrlEncode(wrong)), "invalid: signature is wrong");
  }
}

TEST_F(TokenVerifierTest, NoSingleChangedByteVerifies) {
  std::mt19937 random(20260917);
  constexpr std::string_view kLetters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.";
  for (const SigningKey* key : {&RsaKeyForTests(), &EcKeyForTests()}) {
    const std::string good = GoodToken(*key);
    for (size_t i = 0; i < good.size(); ++i) {
      for (int round = 0; round < 4; ++round) {
        // Mostly letters of the alphabet, which get past the form; sometimes any other byte.
        const char letter = round < 3 ? kLetters[random() % kLetters.size()] : static_cast<char>(random());
        if (letter == good[i]) continue;
        std::string token = good;
        token[i] = letter;
        ASSERT_NE(Outcome(token), "ok") << "byte " << i << " became " << static_cast<int>(letter);
      }
      std::string shorter = good, longer = good;
      shorter.erase(i, 1);
      longer.insert(i, 1, kLetters[random() % kLetters.size()]);
      ASSERT_NE(Outcome(shorter), "ok") << i;
      ASSERT_NE(Outcome(longer), "ok") << i;
    }
  }
}

TEST_F(TokenVerifierTest, AFailedVerificationLeavesNoErrorBehindForTls) {
  EXPECT_NE(Outcome(GoodToken(NewKey(SignatureAlgorithm::kRs256, "rsa-1"))), "ok");
  EXPECT_EQ(ERR_peek_error(), 0u);
}

// ---- Claims: times

TEST_F(TokenVerifierTest, ExpIsRequiredAndANumber) {
  EXPECT_THAT(OutcomeWithout("exp"), HasSubstr("invalid: exp"));
  const std::string later = std::to_string(kForgedNowSeconds + 300);
  for (const json& exp : {json(-1), json(later), json(nullptr), json(true), json::array({kForgedNowSeconds + 300}),
                          json(1e300), json(-0.5), json(9e18), json(kForgedNowSeconds * 1000)}) {
    EXPECT_THAT(OutcomeWith("exp", exp), HasSubstr("invalid: exp")) << exp;
  }
  EXPECT_EQ(OutcomeWith("exp", static_cast<double>(kForgedNowSeconds) + 0.5), "ok")
      << "fractions are allowed (RFC 7519, section 2)";
  EXPECT_THAT(OutcomeOfPayload(R"({"exp":1e999,"sub":"a","preferred_username":"a"})"), HasSubstr("invalid: "));
  EXPECT_EQ(OutcomeWith("exp", 0), "expired: exp has passed");
}

TEST_F(TokenVerifierTest, ExpiryHasALeewayForClocksThatDiffer) {
  EXPECT_EQ(OutcomeWith("exp", kForgedNowSeconds - 29), "ok");
  EXPECT_EQ(OutcomeWith("exp", kForgedNowSeconds - 30), "expired: exp has passed");
  verifier_ = TokenVerifier({.leeway = seconds(0)});
  EXPECT_EQ(OutcomeWith("exp", kForgedNowSeconds + 1), "ok");
  EXPECT_EQ(OutcomeWith("exp", kForgedNowSeconds), "expired: exp has passed");
}

TEST_F(TokenVerifierTest, NbfAndIatAreNotInTheFuture) {
  for (const std::string claim : {"nbf", "iat"}) {
    EXPECT_EQ(OutcomeWith(claim, kForgedNowSeconds + 30), "ok") << claim;
    EXPECT_EQ(OutcomeWith(claim, kForgedNowSeconds + 31), "invalid: " + claim + " is in the future");
    EXPECT_EQ(OutcomeWith(claim, 0), "ok") << "as older Keycloaks write nbf";
    EXPECT_EQ(OutcomeWithout(claim), "ok") << claim;
    for (const json& value : {json("0"), json(-1), json(nullptr), json(1e300)}) {
      EXPECT_EQ(OutcomeWith(claim, value), "invalid: " + claim + " is malformed") << value;
    }
  }
}

TEST_F(TokenVerifierTest, AForeignTokenIsInvalidEvenWhenItIsExpired) {
  verifier_ = TokenVerifier({.issuers = {"https://sso.example/realms/colink"}});
  EXPECT_EQ(OutcomeWith("exp", 0), "invalid: iss is not accepted");
}

// ---- Claims: parties

TEST_F(TokenVerifierTest, TheIssuerIsOneOfTheConfiguredNames) {
  verifier_ = TokenVerifier({.issuers = {"https://sso.example/realms/colink", "http://keycloak:8080/realms/colink"}});
  EXPECT_EQ(OutcomeOfClaims(GoodClaims()), "ok");
  EXPECT_EQ(OutcomeWith("iss", "https://sso.example/realms/colink"), "ok") << "the outer name";
  for (const json& issuer : {json("https://sso.example/realms/other"), json("https://sso.example/realms/colink/"),
                             json("HTTPS://sso.example/realms/colink"), json(""), json(nullptr),
                             json::array({"https://sso.example/realms/colink"})}) {
    EXPECT_EQ(OutcomeWith("iss", issuer), "invalid: iss is not accepted") << issuer;
  }
  EXPECT_EQ(OutcomeWithout("iss"), "invalid: iss is not accepted");
}

TEST_F(TokenVerifierTest, AnAudienceIsAStringOrOneOfAnArray) {
  verifier_ = TokenVerifier({.audiences = {"presence", "colink-api"}});
  EXPECT_EQ(OutcomeOfClaims(GoodClaims()), "ok");
  EXPECT_EQ(OutcomeWith("aud", "presence"), "ok");
  for (const json& audience : {json("account"), json("colink-ap"), json::array(), json::array({"account"}),
                               json::array({json::array({"presence"})}), json(nullptr), json(1), json::object()}) {
    EXPECT_EQ(OutcomeWith("aud", audience), "invalid: aud is not accepted") << audience;
  }
  EXPECT_EQ(OutcomeWithout("aud"), "invalid: aud is not accepted");
  json claims = GoodClaims();
  claims["aud"] = "account";
  claims["azp"] = "presence";
  EXPECT_EQ(OutcomeOfClaims(claims), "invalid: aud is not accepted") << "azp is not an audience";
}

TEST_F(TokenVerifierTest, AClientIdIsAcceptedAsAzpOrAsAudience) {
  verifier_ = TokenVerifier({.client_ids = {"colink-api"}});
  EXPECT_EQ(OutcomeOfClaims(GoodClaims()), "ok") << "in aud";
  EXPECT_EQ(OutcomeWith("aud", "account"), "invalid: neither azp nor aud is accepted");
  json claims = GoodClaims();
  claims.erase("aud");
  claims["azp"] = "colink-api";
  EXPECT_EQ(OutcomeOfClaims(claims), "ok");
  claims["azp"] = json::array({"colink-api"});
  EXPECT_EQ(OutcomeOfClaims(claims), "invalid: neither azp nor aud is accepted");
}

TEST_F(TokenVerifierTest, KeycloaksOtherTokensAreNoAccessTokens) {
  for (const std::string_view typ : {"ID", "Refresh", "Offline", "Logout", "DPoP", "bearer"}) {
    EXPECT_EQ(OutcomeWith("typ", typ), "invalid: typ is not an access token's") << typ;
  }
  EXPECT_THAT(OutcomeWith("typ", json::array({"Refresh"})), HasSubstr("invalid: typ"));
  EXPECT_EQ(OutcomeWith("typ", "Bearer"), "ok");
  EXPECT_EQ(OutcomeWithout("typ"), "ok");
}

// ---- Claims: the user

TEST_F(TokenVerifierTest, UserIdAndNameAreBothRequired) {
  for (const std::string claim : {"sub", "preferred_username"}) {
    const std::string refused = "invalid: " + claim + " is absent or malformed";
    EXPECT_EQ(OutcomeWithout(claim), refused);
    for (const json& value : {json(""), json(nullptr), json(7), json::array({"a"}), json::object(),
                              json(std::string("a\0b", 3)), json(std::string(2049, 'u'))}) {
      EXPECT_EQ(OutcomeWith(claim, value), refused) << value.dump().substr(0, 40);
    }
    EXPECT_EQ(OutcomeWith(claim, std::string(2048, 'u')), "ok") << claim;
    EXPECT_EQ(OutcomeWith(claim, "Zoë ☃"), "ok") << claim;
  }
  for (const std::string_view bad : {"\xff", "\xc0\xaf", "\xed\xa0\x80", "\\ud800"}) {
    EXPECT_THAT(OutcomeOfPayload(R"({"exp":1760000300,"preferred_username":"a","sub":")" + std::string(bad) + "\"}"),
                HasSubstr("invalid: "))
        << "not UTF-8";
  }
}

TEST_F(TokenVerifierTest, ASessionIdMayBeAbsentButNotMalformed) {
  EXPECT_EQ(OutcomeWithout("sid"), "ok");
  EXPECT_EQ(OutcomeWith("sid", 7), "invalid: sid is malformed");
}

TEST_F(TokenVerifierTest, TheClaimsAreOnePlainObject) {
  const std::string good = GoodClaims().dump();
  for (const std::string& payload :
       {std::string("[]"), std::string("null"), good + "x", good + std::string("\0x", 2), "\xEF\xBB\xBF" + good,
        good.substr(0, good.size() - 1) + R"(,"sub":"root"})",
        good.substr(0, good.size() - 1) + R"(,"\u0073ub":"root"})",
        good.substr(0, good.size() - 1) + R"(,"x":{"a":1,"a":2}})",
        good.substr(0, good.size() - 1) + ",\"x\":" + std::string(2000, '[') + std::string(2000, ']') + "}"}) {
    EXPECT_EQ(OutcomeOfPayload(payload), "invalid: claims are not a plain JSON object") << payload.substr(0, 40);
  }
}

TEST_F(TokenVerifierTest, NothingOfThePayloadIsReadBeforeTheSignatureIsGood) {
  const std::string header = Base64UrlEncode(kEsHeader);
  const std::string deep = Base64UrlEncode(std::string(5000, '['));
  EXPECT_EQ(Outcome(header + "." + deep + "." + Base64UrlEncode(std::string(64, '\1'))), "invalid: signature is wrong");
}

// ---- Roles

TEST_F(TokenVerifierTest, RolesAreReadWhenAskedFor) {
  json claims = GoodClaims();
  claims["realm_access"] = {{"roles", {"writer", "offline_access", "reader"}}};
  claims["resource_access"] = {{"api", {{"roles", {"owner"}}}}, {"other", {{"roles", {"guest"}}}}};
  const std::string token = Forge(kEsHeader, claims.dump(), EcKeyForTests());
  EXPECT_THAT(std::get<Identity>(Verify(token)).roles, testing::IsEmpty());

  const std::vector<std::string> wanted = {"reader", "writer", "owner", "guest"};
  const TokenVerifier realm_only({.roles = wanted});
  EXPECT_THAT(std::get<Identity>(realm_only.Verify(token, keys(), ForgedNow())).roles,
              testing::ElementsAre("reader", "writer"));
  const TokenVerifier with_client({.roles = wanted, .role_clients = {"api"}});
  EXPECT_THAT(std::get<Identity>(with_client.Verify(token, keys(), ForgedNow())).roles,
              testing::ElementsAre("reader", "writer", "owner"));
}

TEST_F(TokenVerifierTest, RightsToRoomsAreReadWhenAskedFor) {
  json claims = GoodClaims();
  claims["rooms"] = {"team-*"};
  claims["resource_access"] = {{"web", {{"roles", {"room:read:news"}}}}};
  const std::string token = Forge(kEsHeader, claims.dump(), EcKeyForTests());
  EXPECT_TRUE(std::get<Identity>(Verify(token)).room_rights.empty());
  const TokenVerifier verifier({.room_claims = {"rooms", "room:", {"web"}}});
  const RoomRights rights = std::get<Identity>(verifier.Verify(token, keys(), ForgedNow())).room_rights;
  EXPECT_THAT(rights.write(), testing::ElementsAre("team-*"));
  EXPECT_THAT(rights.read(), testing::ElementsAre("news"));
}

TEST_F(TokenVerifierTest, AUserNameMayBeAbsentWhenThatIsAllowedButNotMalformed) {
  verifier_ = TokenVerifier({.username_required = false});
  EXPECT_EQ(OutcomeWithout("preferred_username"), "ok");
  EXPECT_EQ(OutcomeWith("preferred_username", 7), "invalid: preferred_username is absent or malformed");
}

}  // namespace
}  // namespace presence
