// RFC 8725, JSON Web Token Best Current Practices, section by section: what each asks of a verifier, and that ours does it. The
// faults of other verifiers that are tried here, cpp-jwt among them, each stand under the section that forbids them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "common/base64url.h"
#include "common/jwt.h"
#include "common/logout_token.h"
#include "common/token_verifier.h"
#include "tests/fakes/token_forge.h"

namespace presence {
namespace {

using nlohmann::json;
using ::testing::AnyOf;
using ::testing::HasSubstr;
using ::testing::Ne;

// One key for each algorithm, called as the algorithm is.
const JwkSet& AllKeys() {
  static const JwkSet set = KeysOf(KeysOfAllAlgorithmsForTests());
  return set;
}

const SigningKey& KeyOf(SignatureAlgorithm algorithm) {
  return KeysOfAllAlgorithmsForTests()[static_cast<size_t>(algorithm)];
}

// "ok", or why not.
std::string Outcome(std::string_view token, const VerifierOptions& options = {}) {
  const TokenVerdict verdict = TokenVerifier(options).Verify(token, AllKeys(), ForgedNow());
  const auto* rejection = std::get_if<Rejection>(&verdict);
  return rejection == nullptr ? "ok" : std::string(rejection->why);
}

std::string HeaderOf(std::string_view alg, std::string_view kid) {
  return json{{"alg", alg}, {"kid", kid}}.dump();
}

std::string OutcomeOfHeader(std::string_view header) {
  return Outcome(Forge(header, GoodClaims().dump(), KeyOf(SignatureAlgorithm::kRs256)));
}

std::string OutcomeWith(const std::string& claim, const json& value, const VerifierOptions& options = {}) {
  json claims = GoodClaims();
  claims[claim] = value;
  return Outcome(TokenOf(claims, KeyOf(SignatureAlgorithm::kEs256)), options);
}

std::string MessageOf(std::string_view header, std::string_view payload = GoodClaims().dump()) {
  return Base64UrlEncode(header) + "." + Base64UrlEncode(payload);
}

std::string Hmac(std::string_view message, std::string_view secret) {
  unsigned char mac[EVP_MAX_MD_SIZE];
  unsigned int mac_bytes = 0;
  HMAC(EVP_sha256(), secret.data(), static_cast<int>(secret.size()),
       reinterpret_cast<const unsigned char*>(message.data()), message.size(), mac, &mac_bytes);
  return std::string(reinterpret_cast<char*>(mac), mac_bytes);
}

class Rfc8725Algorithm : public testing::TestWithParam<SignatureAlgorithm> {
 protected:
  const SigningKey& key() const { return KeyOf(GetParam()); }
  std::string header() const { return HeaderOf(AlgorithmName(GetParam()), key().kid); }
};

INSTANTIATE_TEST_SUITE_P(Each, Rfc8725Algorithm, testing::ValuesIn(kSignatureAlgorithms),
                         [](const auto& instance) { return std::string(AlgorithmName(instance.param)); });

// ---- 3.1 Perform Algorithm Verification

TEST_P(Rfc8725Algorithm, S3_1_AKeyIsUsedWithItsOneAlgorithmAlone) {
  ASSERT_EQ(Outcome(GoodToken(key())), "ok");
  for (const SigningKey& other : KeysOfAllAlgorithmsForTests()) {
    if (other.algorithm == GetParam()) continue;
    // The right signature of one algorithm under another's key id, with each of the two names in the header.
    EXPECT_EQ(Outcome(Forge(HeaderOf(AlgorithmName(GetParam()), other.kid), GoodClaims().dump(), key())),
              "header alg is not the key's");
    EXPECT_EQ(Outcome(Forge(HeaderOf(AlgorithmName(other.algorithm), other.kid), GoodClaims().dump(), key())),
              "signature is wrong")
        << other.kid;
  }
}

TEST(Rfc8725, S3_1_AnRsaKeyDoesNotVerifyAnotherPaddingOrDigestOfItsOwn) {
  // The very key that is published for RS256 signs with each of the others, and says so or not.
  SigningKey key = KeyOf(SignatureAlgorithm::kRs256);
  for (const SignatureAlgorithm algorithm : kSignatureAlgorithms) {
    if (!Fits(algorithm, KeyKind::kRsa)) continue;
    key.algorithm = algorithm;
    const bool own = algorithm == SignatureAlgorithm::kRs256;
    EXPECT_EQ(Outcome(Forge(HeaderOf("RS256", key.kid), GoodClaims().dump(), key)), own ? "ok" : "signature is wrong");
    EXPECT_EQ(Outcome(Forge(HeaderOf(AlgorithmName(algorithm), key.kid), GoodClaims().dump(), key)),
              own ? "ok" : "header alg is not the key's");
  }
}

TEST(Rfc8725, S3_1_AnHmacWithAPublicKeyAsSecretIsNoSignature) {
  for (const SigningKey& key : KeysOfAllAlgorithmsForTests()) {
    for (const std::string_view alg : {std::string_view("HS256"), AlgorithmName(key.algorithm)}) {
      const std::string message = MessageOf(HeaderOf(alg, key.kid));
      const std::string token = message + "." + Base64UrlEncode(Hmac(message, PublicJwk(key).value()));
      EXPECT_THAT(Outcome(token), AnyOf("header alg is not supported", "signature is wrong")) << key.kid;
    }
  }
}

TEST(Rfc8725, S3_1_TheNameOfAnAlgorithmIsComparedByteForByte) {
  for (const std::string_view alg : {"rs256", "Rs256", "RS256 ", " RS256", "RS256\\u0000", "RS-256", "SHA256", ""}) {
    EXPECT_EQ(OutcomeOfHeader(R"({"kid":"RS256","alg":")" + std::string(alg) + "\"}"), "header alg is not supported")
        << alg;
  }
}

// ---- 3.2 Use Appropriate Algorithms

TEST(Rfc8725, S3_2_NoneIsNoAlgorithmInAnySpelling) {
  for (const std::string_view alg : {"none", "None", "NONE", "nOnE", ""}) {
    const std::string message = MessageOf(HeaderOf(alg, "RS256"));
    EXPECT_THAT(Outcome(message + "."), Ne("ok")) << "as RFC 7515 writes unsecured tokens";
    EXPECT_THAT(Outcome(message), Ne("ok"));
    EXPECT_EQ(Outcome(message + ".AAAA"), "header alg is not supported");
    EXPECT_EQ(OutcomeOfHeader(HeaderOf(alg, "RS256")), "header alg is not supported")
        << "a good signature does not help";
  }
}

TEST(Rfc8725, S3_2_PkcsEncryptionAndSymmetricAlgorithmsAreUnknown) {
  for (const std::string_view alg : {"RSA1_5", "RSA-OAEP", "dir", "HS256", "HS384", "HS512", "ES256K", "A128KW"}) {
    EXPECT_EQ(OutcomeOfHeader(HeaderOf(alg, "RS256")), "header alg is not supported") << alg;
  }
}

TEST_P(Rfc8725Algorithm, S3_2_SignaturesOfOddFormAreWrong) {
  const std::string message = MessageOf(header());
  const std::string good = RawSignature(message, key());
  ASSERT_EQ(Outcome(message + "." + Base64UrlEncode(good)), "ok");
  const std::string zeros(good.size(), '\0'), ones(good.size(), '\1'), highest(good.size(), '\xff');
  for (const std::string& wrong :
       {zeros, ones, highest, good.substr(1), good.substr(0, good.size() - 1), good + '\0', '\0' + good, good + good,
        good.substr(0, good.size() / 2), zeros + good, std::string(1, '\0'), std::string(1, '\1')}) {
    EXPECT_EQ(Outcome(message + "." + Base64UrlEncode(wrong)), "signature is wrong");
  }
}

TEST_P(Rfc8725Algorithm, S3_2_NoSingleBitOfASignatureCanBeChanged) {
  const std::string message = MessageOf(header());
  const std::string good = RawSignature(message, key());
  for (size_t i = 0; i < good.size(); i += 3) {
    std::string wrong = good;
    wrong[i] = static_cast<char>(wrong[i] ^ (1 << i % 8));
    ASSERT_EQ(Outcome(message + "." + Base64UrlEncode(wrong)), "signature is wrong") << i;
  }
}

TEST(Rfc8725, S3_2_TheSaltOfPssIsAsLongAsTheDigest) {
  for (const SignatureAlgorithm algorithm :
       {SignatureAlgorithm::kPs256, SignatureAlgorithm::kPs384, SignatureAlgorithm::kPs512}) {
    const SigningKey& key = KeyOf(algorithm);
    const std::string message = MessageOf(HeaderOf(AlgorithmName(algorithm), key.kid));
    for (const int salt_bytes : {0, 1, 20, RSA_PSS_SALTLEN_MAX}) {
      EXPECT_EQ(Outcome(message + "." + Base64UrlEncode(RawSignature(message, key, salt_bytes))), "signature is wrong")
          << AlgorithmName(algorithm) << " with " << salt_bytes;
    }
  }
}

// The psychic signature: r = s = 0 verified everything once (CVE-2022-21449); and numbers not below the curve's order.
TEST(Rfc8725, S3_2_EcdsaNumbersAreFromOneToBelowTheOrder) {
  struct Case {
    SignatureAlgorithm algorithm;
    std::string_view order_hex;  // SEC 2, sections 2.4.2 and 2.5.1
  };
  for (const auto& [algorithm, order_hex] :
       {Case{SignatureAlgorithm::kEs256, "FFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551"},
        Case{SignatureAlgorithm::kEs384,
             "FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF"
             "581A0DB248B0A77AECEC196ACCC52973"}}) {
    const size_t bytes = EcdsaNumberBytes(algorithm);
    std::string order(bytes, '\0');
    for (size_t i = 0; i < bytes; ++i) {
      order[i] = static_cast<char>(std::stoi(std::string(order_hex.substr(2 * i, 2)), nullptr, 16));
    }
    const SigningKey& key = KeyOf(algorithm);
    const std::string message = MessageOf(HeaderOf(AlgorithmName(algorithm), key.kid));
    const std::string good = RawSignature(message, key);
    const std::string zero(bytes, '\0'), r = good.substr(0, bytes), s = good.substr(bytes);
    for (const std::string& wrong : {zero + zero, zero + s, r + zero, s + r, order + s, r + order, order + order}) {
      EXPECT_EQ(Outcome(message + "." + Base64UrlEncode(wrong)), "signature is wrong");
    }
    const std::string der = "\x30\x44\x02\x20" + r + "\x02\x20" + s;
    EXPECT_EQ(Outcome(message + "." + Base64UrlEncode(der)), "signature is wrong") << "as TLS spells it";
  }
}

// ---- 3.3 Validate All Cryptographic Operations

TEST_P(Rfc8725Algorithm, S3_3_AnotherKeyOfThatNameSignsNothing) {
  EXPECT_EQ(Outcome(GoodToken(NewKey(GetParam(), key().kid))), "signature is wrong");
}

TEST_P(Rfc8725Algorithm, S3_3_TheSignatureIsOverHeaderAndPayload) {
  const std::string good = GoodToken(key());
  const size_t first = good.find('.'), second = good.rfind('.');
  json claims = GoodClaims();
  claims["sub"] = "root";
  const std::string header = good.substr(0, first), payload = good.substr(first + 1, second - first - 1),
                    signature = good.substr(second + 1);
  EXPECT_EQ(Outcome(header + "." + Base64UrlEncode(claims.dump()) + "." + signature), "signature is wrong");
  json other = json::parse(Base64UrlDecode(header).value());
  other["x"] = 1;
  EXPECT_EQ(Outcome(Base64UrlEncode(other.dump()) + "." + payload + "." + signature), "signature is wrong");
}

TEST(Rfc8725, S3_3_OneValueHasOneSpelling) {
  const std::string good = GoodToken(KeyOf(SignatureAlgorithm::kEdDsa));
  ASSERT_EQ(Outcome(good), "ok");
  for (const std::string_view more : {"!!!!", "=", "==", "A", "AAAA", "\n", " ", "%3D", "\x80", "\xff"}) {
    EXPECT_THAT(Outcome(good + std::string(more)), Ne("ok")) << "a lenient decoder would not see it";
  }
  // 64 bytes are 86 characters; the last four bits of the last one mean nothing, and must be zero.
  std::string other_bits = good;
  other_bits.back() = static_cast<char>(other_bits.back() + 1);
  EXPECT_EQ(Outcome(other_bits), "not base64url");
  EXPECT_THAT(Outcome(GoodToken(KeyOf(SignatureAlgorithm::kRs256)).append(1, '\0')), Ne("ok"));
}

// ---- 3.4 Validate Cryptographic Inputs

std::string ReasonFor(const json& jwk) {
  const auto set = JwkSet::Parse(json{{"keys", {jwk}}}.dump());
  return set->skipped().empty() ? "" : std::string(set->skipped()[0].reason);
}

TEST(Rfc8725, S3_4_PointsAreOnTheCurveThatIsNamed) {
  for (const SignatureAlgorithm algorithm : {SignatureAlgorithm::kEs256, SignatureAlgorithm::kEs384}) {
    const json good = json::parse(*PublicJwk(KeyOf(algorithm)));
    ASSERT_EQ(ReasonFor(good), "");
    json off = good;
    std::string y = Base64UrlDecode(good["y"].get<std::string>()).value();
    y.back() = static_cast<char>(y.back() ^ 1);
    off["y"] = Base64UrlEncode(y);
    EXPECT_EQ(ReasonFor(off), "EC point is not on the curve") << "invalid-curve attack";
    json infinity = good;
    infinity["x"] = infinity["y"] = Base64UrlEncode(std::string(y.size(), '\0'));
    EXPECT_EQ(ReasonFor(infinity), "EC point is not on the curve");
    json other_curve = good;
    other_curve["crv"] = algorithm == SignatureAlgorithm::kEs256 ? "P-384" : "P-256";
    EXPECT_THAT(ReasonFor(other_curve), Ne(""));
  }
}

// ---- 3.5 Ensure Cryptographic Keys Have Sufficient Entropy

TEST(Rfc8725, S3_5_WeakKeysVerifyNothing) {
  const json rsa = json::parse(*PublicJwk(KeyOf(SignatureAlgorithm::kRs256)));
  const auto with = [&](const char* member, const std::string& bytes) {
    json jwk = rsa;
    jwk[member] = Base64UrlEncode(bytes);
    return ReasonFor(jwk);
  };
  EXPECT_THAT(with("n", std::string(128, '\xff')), HasSubstr("below 2048")) << "1024 bits";
  EXPECT_THAT(with("n", std::string(1, '\0') + std::string(255, '\xff')), HasSubstr("below 2048")) << "2040 bits";
  EXPECT_THAT(with("e", "\x01"), HasSubstr("exponent")) << "every message would be its own signature";
  EXPECT_THAT(ReasonFor({{"kty", "oct"}, {"k", "c2VjcmV0"}, {"alg", "HS256"}}), HasSubstr("kty"))
      << "passwords sign nothing";
}

// ---- 3.6 Avoid Compression of Encryption Inputs

TEST(Rfc8725, S3_6_ACompressedOrEncryptedTokenIsNotRead) {
  EXPECT_EQ(OutcomeOfHeader(R"({"alg":"RSA-OAEP","enc":"A256GCM","zip":"DEF","kid":"RS256"})"),
            "header alg is not supported");
  EXPECT_THAT(Outcome("e30.e30.e30.e30.e30"), Ne("ok")) << "the five parts of an encrypted one";
}

// ---- 3.7 Use UTF-8

TEST(Rfc8725, S3_7_NamesAreUtf8AndNothingElse) {
  const SigningKey& key = KeyOf(SignatureAlgorithm::kEs256);
  const std::string header = HeaderOf("ES256", key.kid);
  for (const std::string_view bad : {"\xff", "\xc0\xaf", "\xed\xa0\x80", "\xf5\x80\x80\x80", "\\ud800", "a\xe4"}) {
    json claims = GoodClaims();
    claims["sub"] = "@";
    std::string payload = claims.dump();
    payload.replace(payload.find("\"@\"") + 1, 1, bad);
    EXPECT_EQ(Outcome(Forge(header, payload, key)), "claims are not a plain JSON object");
  }
  EXPECT_EQ(OutcomeOfHeader("{\"alg\":\"RS256\",\"kid\":\"\xff\"}"), "header is not a plain JSON object");
  EXPECT_EQ(Outcome(Forge(header, "\xEF\xBB\xBF" + GoodClaims().dump(), key)), "claims are not a plain JSON object")
      << "a byte order mark";
  EXPECT_EQ(OutcomeWith("sub", "Zoë ☃"), "ok");
}

// ---- 3.8 Validate Issuer and Subject

TEST(Rfc8725, S3_8_TheIssuerIsOursAndTheSubjectIsThere) {
  const VerifierOptions ours{.issuers = {"http://keycloak:8080/realms/colink"}};
  EXPECT_EQ(OutcomeWith("iss", "http://keycloak:8080/realms/colink", ours), "ok");
  for (const json& other : {json("http://keycloak:8080/realms/colink/"), json("HTTP://keycloak:8080/realms/colink"),
                            json("http://keycloak:8080/realms/colin"), json(nullptr), json::array({ours.issuers[0]})}) {
    EXPECT_EQ(OutcomeWith("iss", other, ours), "iss is not accepted") << other;
  }
  for (const json& subject : {json(""), json(nullptr), json(7), json::array({"a"}), json(std::string("a\0b", 3))}) {
    EXPECT_EQ(OutcomeWith("sub", subject), "sub is absent or malformed") << subject;
  }
}

// ---- 3.9 Use and Validate Audience

TEST(Rfc8725, S3_9_TheAudienceIsOneOfOursAsAStringOrInAnArray) {
  const VerifierOptions ours{.audiences = {"colink-api"}};
  for (const json& good : {json("colink-api"), json::array({"colink-api"}), json::array({"account", "colink-api"})}) {
    EXPECT_EQ(OutcomeWith("aud", good, ours), "ok") << good;
  }
  for (const json& other : {json("account"), json("colink-api "), json("COLINK-API"), json::array(), json(nullptr),
                            json(1), json::array({json::array({"colink-api"})}), json{{"colink-api", true}}}) {
    EXPECT_EQ(OutcomeWith("aud", other, ours), "aud is not accepted") << other;
  }
}

// ---- 3.10 Do Not Trust Received Claims

TEST(Rfc8725, S3_10_AKidIsLookedUpAndNothingElse) {
  for (const std::string_view kid : {"../../../../dev/null", "' OR '1'='1", "RS256; ls", "http://127.0.0.1/", "RS256 ",
                                     "rs256", "RS256\\u0000", "%52S256"}) {
    EXPECT_EQ(OutcomeOfHeader(R"({"alg":"RS256","kid":")" + std::string(kid) + "\"}"), "no key has this kid") << kid;
  }
  EXPECT_EQ(OutcomeOfHeader(HeaderOf("RS256", std::string(JwkSet::kKidBytesMax, 'k'))), "no key has this kid");
  EXPECT_EQ(OutcomeOfHeader(HeaderOf("RS256", std::string(JwkSet::kKidBytesMax + 1, 'k'))), "header kid is malformed")
      << "no key can have it, and nobody shall be asked for it";
  for (const std::string_view kid : {"\"\"", "null", "1", "[\"RS256\"]", "{}", "true"}) {
    EXPECT_EQ(OutcomeOfHeader(R"({"alg":"RS256","kid":)" + std::string(kid) + "}"), "header kid is malformed") << kid;
  }
}

TEST(Rfc8725, S3_10_KeysThatATokenBringsAlongCountForNothing) {
  const SigningKey attacker = NewKey(SignatureAlgorithm::kRs256, "RS256");
  json header = json::parse(HeaderOf("RS256", "RS256"));
  header["jwk"] = json::parse(PublicJwk(attacker).value());
  header["jku"] = "http://127.0.0.1:1/keys";
  header["x5u"] = "http://127.0.0.1:1/certificate";
  header["x5c"] = {"MIIC"};
  header["x5t"] = "AAAA";
  EXPECT_EQ(Outcome(Forge(header.dump(), GoodClaims().dump(), attacker)), "signature is wrong");
  EXPECT_EQ(OutcomeOfHeader(header.dump()), "ok") << "signed by ours: they are ignored, not refused";
}

TEST(Rfc8725, S3_10_NoMemberStandsTwice) {
  for (const std::string_view header :
       {R"({"alg":"none","alg":"RS256","kid":"RS256"})", R"({"alg":"RS256","kid":"x","kid":"RS256"})",
        R"({"alg":"RS256","\u0061lg":"RS256","kid":"RS256"})"}) {
    EXPECT_EQ(OutcomeOfHeader(header), "header is not a plain JSON object") << header;
  }
  const SigningKey& key = KeyOf(SignatureAlgorithm::kEs256);
  std::string payload = GoodClaims().dump();
  payload.replace(payload.size() - 1, 1, R"(,"sub":"root"})");
  EXPECT_EQ(Outcome(Forge(HeaderOf("ES256", key.kid), payload, key)), "claims are not a plain JSON object");
}

TEST(Rfc8725, S3_10_DeepNestingIsCutOffAndAnUnsignedPayloadIsNotRead) {
  const std::string deep = std::string(2000, '[') + std::string(2000, ']');
  EXPECT_EQ(OutcomeOfHeader(R"({"alg":"RS256","kid":"RS256","x":)" + deep + "}"), "header is not a plain JSON object");
  const SigningKey& key = KeyOf(SignatureAlgorithm::kEs256);
  EXPECT_EQ(Outcome(Forge(HeaderOf("ES256", key.kid), R"({"x":)" + deep + "}", key)),
            "claims are not a plain JSON object");
  EXPECT_EQ(Outcome(MessageOf(HeaderOf("ES256", key.kid), deep) + "." + Base64UrlEncode(std::string(64, '\1'))),
            "signature is wrong");
}

TEST(Rfc8725, S3_10_ExtensionsThatMustBeUnderstoodAreRefused) {
  for (const std::string_view crit : {R"(["b64"])", R"(["exp"])", "[]", "null", "\"b64\""}) {
    EXPECT_EQ(OutcomeOfHeader(R"({"alg":"RS256","kid":"RS256","b64":false,"crit":)" + std::string(crit) + "}"),
              "header has crit");
  }
}

TEST(Rfc8725, S3_10_TimesAreNumbersAndExpiryIsRequired) {
  json eternal = GoodClaims();
  eternal.erase("exp");
  EXPECT_EQ(Outcome(TokenOf(eternal, KeyOf(SignatureAlgorithm::kEs256))), "exp is absent or malformed");
  for (const json& exp :
       {json(-1), json(std::to_string(kForgedNowSeconds + 300)), json(nullptr), json(1e300), json(9e18)}) {
    EXPECT_EQ(OutcomeWith("exp", exp), "exp is absent or malformed") << exp;
  }
  EXPECT_EQ(OutcomeWith("exp", kForgedNowSeconds - 31), "exp has passed");
  EXPECT_EQ(OutcomeWith("nbf", 0), "ok") << "as older Keycloaks write it";
  EXPECT_EQ(OutcomeWith("nbf", kForgedNowSeconds + 31), "nbf is in the future");
  EXPECT_EQ(OutcomeWith("nbf", -1), "nbf is malformed");
  EXPECT_EQ(OutcomeWith("iat", kForgedNowSeconds + 31), "iat is in the future");
}

// ---- 3.11 Use Explicit Typing

TEST(Rfc8725, S3_11_ATokenOfAnotherTypeIsRefused) {
  for (const std::string_view typ : {"logout+jwt", "dpop+jwt", "secevent+jwt", "application/logout+jwt", "JOSE", ""}) {
    EXPECT_EQ(OutcomeOfHeader(json{{"alg", "RS256"}, {"kid", "RS256"}, {"typ", typ}}.dump()),
              "header typ is not of this kind of token")
        << typ;
  }
  for (const std::string_view typ : {"JWT", "at+jwt", "application/at+jwt"}) {
    EXPECT_EQ(OutcomeOfHeader(json{{"alg", "RS256"}, {"kid", "RS256"}, {"typ", typ}}.dump()), "ok") << typ;
  }
}

// ---- 3.12 Use Mutually Exclusive Validation Rules for Different Kinds of JWTs

TEST(Rfc8725, S3_12_IdRefreshAndLogoutTokensAreNoAccessTokens) {
  for (const std::string_view typ : {"ID", "Refresh", "Offline", "Logout", "DPoP", "bearer"}) {
    EXPECT_EQ(OutcomeWith("typ", typ), "typ is not an access token's") << typ;
  }
  // Of issuers that have no `typ`.
  const auto without_typ = [](const std::string& claim, const json& value) {
    json claims = GoodClaims();
    claims.erase("typ");
    claims[claim] = value;
    return Outcome(TokenOf(claims, KeyOf(SignatureAlgorithm::kEs256)));
  };
  EXPECT_EQ(without_typ("scope", "openid"), "ok");
  for (const std::string claim : {"at_hash", "c_hash", "s_hash"}) {
    EXPECT_EQ(without_typ(claim, "MTIzNDU2Nzg5MDEyMzQ1Ng"), "it is an ID token, not an access token") << claim;
  }
  EXPECT_EQ(without_typ("events", GoodLogoutClaims()["events"]), "it is a security event, not an access token");
}

TEST(Rfc8725, S3_12_AnAccessTokenLogsNobodyOut) {
  const LogoutTokenVerifier verifier{VerifierOptions{}};
  for (const SigningKey& key : KeysOfAllAlgorithmsForTests()) {
    EXPECT_TRUE(std::holds_alternative<Rejection>(verifier.Verify(GoodToken(key), AllKeys(), ForgedNow())));
    EXPECT_TRUE(
        std::holds_alternative<LogoutOrder>(verifier.Verify(TokenOf(GoodLogoutClaims(), key), AllKeys(), ForgedNow())))
        << key.kid;
    EXPECT_THAT(Outcome(TokenOf(GoodLogoutClaims(), key)), Ne("ok"));
  }
}

}  // namespace
}  // namespace presence
