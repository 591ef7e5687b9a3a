// JWK sets as Keycloak publishes them, and as nobody should.
#include "common/jwk_set.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/evp.h>

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "common/base64url.h"
#include "common/jwt.h"
#include "tests/fakes/token_forge.h"

namespace presence {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

json RsaJwk() {
  return json::parse(*PublicJwk(RsaKeyForTests()));
}

json EcJwk() {
  return json::parse(*PublicJwk(EcKeyForTests()));
}

JwkSet ParseKeys(const json& keys) {
  auto set = JwkSet::Parse(json{{"keys", keys}}.dump());
  EXPECT_TRUE(set.ok()) << set.status();
  return *std::move(set);
}

// Why the only key of a set was left out; empty when it was not.
std::string ReasonFor(const json& jwk) {
  const JwkSet set = ParseKeys(json::array({jwk}));
  EXPECT_EQ(set.keys().size() + set.skipped().size(), 1u);
  return set.skipped().empty() ? "" : std::string(set.skipped()[0].reason);
}

json With(json jwk, const std::string& member, const json& value) {
  jwk[member] = value;
  return jwk;
}

json Without(json jwk, const std::string& member) {
  jwk.erase(member);
  return jwk;
}

TEST(JwkSetTest, FindsEachKeyByItsIdWithItsOneAlgorithm) {
  const JwkSet set = ParseKeys({EcJwk(), RsaJwk()});
  ASSERT_THAT(set.Find("rsa-1"), SizeIs(1));
  EXPECT_EQ(set.Find("rsa-1")[0].algorithm, SignatureAlgorithm::kRs256);
  EXPECT_EQ(EVP_PKEY_get_bits(set.Find("rsa-1")[0].key.get()), 2048);
  ASSERT_THAT(set.Find("ec-1"), SizeIs(1));
  EXPECT_EQ(set.Find("ec-1")[0].algorithm, SignatureAlgorithm::kEs256);
  EXPECT_THAT(set.Find("rsa-2"), IsEmpty());
  EXPECT_THAT(set.Find("rsa-"), IsEmpty());
  EXPECT_THAT(set.Find(""), IsEmpty());
  EXPECT_EQ(set.Only(), nullptr) << "two keys: none is the only one";
}

TEST(JwkSetTest, AKeyWithoutAlgGetsTheUsualOneOfItsKind) {
  const JwkSet set = ParseKeys({Without(RsaJwk(), "alg"), Without(EcJwk(), "alg")});
  ASSERT_THAT(set.keys(), SizeIs(2));
  EXPECT_EQ(set.Find("rsa-1")[0].algorithm, SignatureAlgorithm::kRs256);
  EXPECT_EQ(set.Find("ec-1")[0].algorithm, SignatureAlgorithm::kEs256);
}

TEST(JwkSetTest, ARealmsEncryptionKeyIsLeftOutAndTheRestIsKept) {
  json encryption = With(RsaJwk(), "use", "enc");
  encryption["kid"] = "enc-1";
  encryption["alg"] = "RSA-OAEP";
  const JwkSet set = ParseKeys({encryption, RsaJwk()});
  EXPECT_THAT(set.keys(), SizeIs(1));
  ASSERT_THAT(set.skipped(), SizeIs(1));
  EXPECT_EQ(set.skipped()[0].kid, "enc-1");
  EXPECT_THAT(std::string(set.skipped()[0].reason), HasSubstr("use"));
  ASSERT_NE(set.Only(), nullptr);
  EXPECT_EQ(set.Only()->kid, "rsa-1");
}

TEST(JwkSetTest, OfSeveralKeysWithOneIdAndAlgorithmTheFirstCounts) {
  const SigningKey other = NewKey(SignatureAlgorithm::kRs256, "rsa-1");
  SigningKey same_id = EcKeyForTests();
  same_id.kid = "rsa-1";
  const JwkSet set = ParseKeys({RsaJwk(), json::parse(*PublicJwk(other)), json::parse(*PublicJwk(same_id))});
  EXPECT_THAT(set.Find("rsa-1"), SizeIs(2)) << "one per algorithm";
  EXPECT_THAT(set.skipped(), SizeIs(1));
  const JwkSet first = ParseKeys(json::array({RsaJwk()}));
  EXPECT_EQ(EVP_PKEY_eq(set.Find("rsa-1")[0].key.get(), first.keys()[0].key.get()), 1);
}

TEST(JwkSetTest, AKeyWithoutIdIsFoundOnlyAsTheOnlyOne) {
  const JwkSet one = ParseKeys(json::array({Without(RsaJwk(), "kid")}));
  EXPECT_THAT(one.Find(""), IsEmpty());
  EXPECT_NE(one.Only(), nullptr);
  const JwkSet two = ParseKeys({Without(RsaJwk(), "kid"), Without(EcJwk(), "kid")});
  EXPECT_THAT(two.keys(), SizeIs(2));
  EXPECT_EQ(two.Only(), nullptr);
  const JwkSet alike = ParseKeys({Without(RsaJwk(), "kid"), Without(RsaJwk(), "kid")});
  EXPECT_EQ(alike.Only(), nullptr) << "nameless keys are not each other's duplicates";
}

TEST(JwkSetTest, KeysThatCannotVerifyAreSkippedWithAReason) {
  const json rsa = RsaJwk(), ec = EcJwk();
  EXPECT_EQ(ReasonFor(rsa), "");
  EXPECT_EQ(ReasonFor(With(rsa, "key_ops", {"sign", "verify"})), "");
  EXPECT_EQ(ReasonFor(With(rsa, "x5c", {"MIIC"})), "") << "certificates are not looked at";

  EXPECT_THAT(ReasonFor("text"), HasSubstr("not an object"));
  EXPECT_THAT(ReasonFor(Without(rsa, "kty")), HasSubstr("kty"));
  EXPECT_THAT(ReasonFor({{"kty", "oct"}, {"k", "c2VjcmV0"}, {"alg", "HS256"}}), HasSubstr("kty"));
  EXPECT_THAT(ReasonFor(With(rsa, "use", 7)), HasSubstr("use"));
  EXPECT_THAT(ReasonFor(With(rsa, "key_ops", {"encrypt"})), HasSubstr("key_ops"));
  EXPECT_THAT(ReasonFor(With(rsa, "key_ops", "verify")), HasSubstr("key_ops"));
  EXPECT_THAT(ReasonFor(With(rsa, "d", "AQAB")), HasSubstr("private"));
  EXPECT_THAT(ReasonFor(With(rsa, "kid", 1)), HasSubstr("kid"));
  EXPECT_THAT(ReasonFor(With(rsa, "kid", "")), HasSubstr("kid"));
  EXPECT_THAT(ReasonFor(With(rsa, "kid", std::string(513, 'k'))), HasSubstr("kid"));
  for (const char* alg : {"rs256", "ES256", "ES384", "EdDSA", "HS256", "RSA-OAEP", "none", ""}) {
    EXPECT_THAT(ReasonFor(With(rsa, "alg", alg)), HasSubstr("alg")) << alg;
  }
  EXPECT_THAT(ReasonFor(With(ec, "alg", "RS256")), HasSubstr("alg"));
  EXPECT_THAT(ReasonFor(With(rsa, "alg", nullptr)), HasSubstr("alg"));
}

TEST(JwkSetTest, BadRsaNumbersAreSkipped) {
  const json rsa = RsaJwk();
  const std::string modulus = rsa["n"];
  EXPECT_THAT(ReasonFor(Without(rsa, "n")), HasSubstr("n and e"));
  EXPECT_THAT(ReasonFor(With(rsa, "n", modulus + "=")), HasSubstr("n and e")) << "padding";
  EXPECT_THAT(ReasonFor(With(rsa, "n", modulus + "!!!!")), HasSubstr("n and e"));
  EXPECT_THAT(ReasonFor(With(rsa, "n", "")), HasSubstr("n and e"));
  EXPECT_THAT(ReasonFor(With(rsa, "n", Base64UrlEncode(std::string(255, '\xff')))), HasSubstr("below 2048"));
  EXPECT_THAT(ReasonFor(With(rsa, "n", Base64UrlEncode(std::string(1025, '\xff')))), HasSubstr("above 8192"));
  EXPECT_THAT(ReasonFor(With(rsa, "n", Base64UrlEncode(std::string(256, '\xfe')))), HasSubstr("even"));
  for (const std::string& exponent :
       {std::string("\x01"), std::string(1, '\0'), std::string("\x01\x00\x00", 3), std::string(9, '\x7f')}) {
    EXPECT_THAT(ReasonFor(With(rsa, "e", Base64UrlEncode(exponent))), HasSubstr("exponent"));
  }
  EXPECT_EQ(ReasonFor(With(rsa, "e", Base64UrlEncode("\x03"))), "");
}

TEST(JwkSetTest, BadCurvePointsAreSkipped) {
  const json ec = EcJwk();
  EXPECT_THAT(ReasonFor(With(ec, "crv", "P-384")), HasSubstr("x and y")) << "a point of P-256";
  EXPECT_THAT(ReasonFor(With(ec, "crv", "P-521")), HasSubstr("curve"));
  EXPECT_THAT(ReasonFor(With(ec, "crv", "secp256k1")), HasSubstr("curve"));
  EXPECT_THAT(ReasonFor(Without(ec, "y")), HasSubstr("x and y"));
  EXPECT_THAT(ReasonFor(With(ec, "x", Base64UrlEncode(std::string(31, 'x')))), HasSubstr("x and y"));
  EXPECT_THAT(ReasonFor(With(ec, "y", ec["x"])), HasSubstr("not on the curve"));
  EXPECT_THAT(ReasonFor(With(With(ec, "x", Base64UrlEncode(std::string(32, '\0'))), "y",
                             Base64UrlEncode(std::string(32, '\0')))),
              HasSubstr("not on the curve"));
}

TEST(JwkSetTest, EachAlgorithmHasKeysOfItsOwnKind) {
  const JwkSet set = KeysOf(KeysOfAllAlgorithmsForTests());
  EXPECT_THAT(set.skipped(), IsEmpty());
  for (const SignatureAlgorithm algorithm : kSignatureAlgorithms) {
    ASSERT_THAT(set.Find(AlgorithmName(algorithm)), SizeIs(1)) << AlgorithmName(algorithm);
    EXPECT_EQ(set.Find(AlgorithmName(algorithm))[0].algorithm, algorithm);
  }
}

TEST(JwkSetTest, WithoutAlgTheKindOfKeyDecides) {
  for (const SigningKey& key : KeysOfAllAlgorithmsForTests()) {
    const JwkSet set = ParseKeys(json::array({Without(json::parse(*PublicJwk(key)), "alg")}));
    ASSERT_THAT(set.keys(), SizeIs(1));
    const bool rsa = Fits(key.algorithm, KeyKind::kRsa);
    EXPECT_EQ(set.keys()[0].algorithm, rsa ? SignatureAlgorithm::kRs256 : key.algorithm) << key.kid;
  }
}

TEST(JwkSetTest, AnAlgorithmOfAnotherKindOfKeyIsRefused) {
  const auto rsa = [](SignatureAlgorithm one) { return Fits(one, KeyKind::kRsa); };
  for (const SigningKey& key : KeysOfAllAlgorithmsForTests()) {
    for (const SignatureAlgorithm other : kSignatureAlgorithms) {
      const bool fits = other == key.algorithm || (rsa(other) && rsa(key.algorithm));
      const json jwk = With(json::parse(*PublicJwk(key)), "alg", AlgorithmName(other));
      EXPECT_EQ(ReasonFor(jwk), fits ? "" : "unsupported alg") << key.kid << " as " << AlgorithmName(other);
    }
  }
}

TEST(JwkSetTest, EdwardsKeysAreOfTheirCurveAndSize) {
  const json ed = json::parse(*PublicJwk(NewKey(SignatureAlgorithm::kEdDsa, "ed-1")));
  EXPECT_EQ(ReasonFor(ed), "");
  EXPECT_EQ(ReasonFor({{"kty", "OKP"}, {"crv", "Ed448"}, {"x", Base64UrlEncode(std::string(57, 'x'))}}), "");
  for (const char* crv : {"X25519", "X448", "ed25519", "P-256", ""}) {
    EXPECT_THAT(ReasonFor(With(ed, "crv", crv)), HasSubstr("curve")) << crv;
  }
  EXPECT_THAT(ReasonFor(With(ed, "crv", "Ed448")), HasSubstr("well-formed x"));
  EXPECT_THAT(ReasonFor(Without(ed, "crv")), HasSubstr("curve"));
  EXPECT_THAT(ReasonFor(Without(ed, "x")), HasSubstr("well-formed x"));
  EXPECT_THAT(ReasonFor(With(ed, "x", Base64UrlEncode(std::string(31, 'x')))), HasSubstr("well-formed x"));
  EXPECT_THAT(ReasonFor(With(ed, "x", Base64UrlEncode(std::string(33, 'x')))), HasSubstr("well-formed x"));
  EXPECT_THAT(ReasonFor(With(ed, "d", "AQAB")), HasSubstr("private"));
}

TEST(JwkSetTest, WhatIsNoSetIsAnError) {
  for (const std::string_view text :
       {"", "null", "[]", "{}", "{\"keys\":{}}", "{\"keys\":[]", "{\"keys\":[],\"keys\":[]}", "{\"keys\":[]}x",
        "<html>502 Bad Gateway</html>", "{\"keys\":[[[[[[[[[[]]]]]]]]]]}"}) {
    EXPECT_EQ(JwkSet::Parse(text).status().code(), absl::StatusCode::kInvalidArgument) << text;
  }
  EXPECT_FALSE(JwkSet::Parse(std::string_view("{\"keys\":[]}\0{}", 14)).ok()) << "a NUL is not the end";
  const auto empty = JwkSet::Parse("{\"keys\":[]}");
  ASSERT_TRUE(empty.ok());
  EXPECT_TRUE(empty->empty());
}

TEST(JwkSetTest, DocumentAndNumberOfKeysAreBounded) {
  json keys = json::array();
  for (size_t i = 0; i < JwkSet::kKeysMax; ++i) keys.push_back({{"kty", "oct"}});
  EXPECT_TRUE(JwkSet::Parse(json{{"keys", keys}}.dump()).ok());
  keys.push_back({{"kty", "oct"}});
  EXPECT_FALSE(JwkSet::Parse(json{{"keys", keys}}.dump()).ok());

  std::string document = R"({"keys":[]})";
  document.append(JwkSet::kDocumentBytesMax - document.size(), ' ');
  EXPECT_TRUE(JwkSet::Parse(document).ok());
  EXPECT_FALSE(JwkSet::Parse(document + " ").ok());
}

TEST(JwkSetTest, WhatIsShownOfASkippedKeyIsShortAndPrintable) {
  const JwkSet set = ParseKeys(json::array({json{{"kid", std::string(300, '\n')}, {"kty", "oct"}}}));
  ASSERT_THAT(set.skipped(), SizeIs(1));
  EXPECT_EQ(set.skipped()[0].kid, std::string(64, '?'));
}

}  // namespace
}  // namespace presence
