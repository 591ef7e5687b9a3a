// Development tokens: made by cpp-jwt, checked here with OpenSSL alone.
#include "common/jwt.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "common/base64url.h"
#include "common/token_verifier.h"
#include "tests/fakes/token_forge.h"

namespace presence {
namespace {

using nlohmann::json;

std::vector<std::string> Parts(const std::string& token) {
  std::vector<std::string> parts(1);
  for (const char c : token) {
    if (c == '.') {
      parts.emplace_back();
    } else {
      parts.back().push_back(c);
    }
  }
  return parts;
}

class JwtTest : public testing::TestWithParam<SignatureAlgorithm> {
 protected:
  const SigningKey& key() const {
    return GetParam() == SignatureAlgorithm::kRs256 ? RsaKeyForTests() : EcKeyForTests();
  }
};

INSTANTIATE_TEST_SUITE_P(BothAlgorithms, JwtTest,
                         testing::Values(SignatureAlgorithm::kRs256, SignatureAlgorithm::kEs256),
                         [](const auto& instance) { return std::string(AlgorithmName(instance.param)); });

TEST_P(JwtTest, ASignedTokenNamesItsKeyAndCarriesTheClaims) {
  const auto token = SignToken(GoodClaims(), key());
  ASSERT_TRUE(token.ok()) << token.status();
  const auto parts = Parts(*token);
  ASSERT_EQ(parts.size(), 3u);
  const json header = json::parse(Base64UrlDecode(parts[0]).value());
  EXPECT_EQ(header, (json{{"alg", AlgorithmName(GetParam())}, {"kid", key().kid}, {"typ", "JWT"}}));
  const auto claims = DecodeClaims(parts[1]);
  ASSERT_TRUE(claims.ok());
  EXPECT_EQ(*claims, GoodClaims());
}

TEST_P(JwtTest, OpensslVerifiesWhatCppJwtSigned) {
  const JwkSet keys = KeysOf({RsaKeyForTests(), EcKeyForTests()});
  // Many, because every 128th ES256 signature has a number with a leading zero byte.
  for (int i = 0; i < (GetParam() == SignatureAlgorithm::kEs256 ? 400 : 3); ++i) {
    json claims = GoodClaims();
    claims["jti"] = i;
    const auto verdict = TokenVerifier({}).Verify(SignToken(claims, key()).value(), keys, ForgedNow());
    ASSERT_TRUE(std::holds_alternative<Identity>(verdict)) << i;
  }
}

TEST_P(JwtTest, AKeyWithoutIdSignsATokenWithoutOne) {
  SigningKey nameless = key();
  nameless.kid.clear();
  const auto parts = Parts(SignToken(GoodClaims(), nameless).value());
  EXPECT_FALSE(json::parse(Base64UrlDecode(parts[0]).value()).contains("kid"));
  EXPECT_FALSE(json::parse(PublicJwk(nameless).value()).contains("kid"));
}

TEST_P(JwtTest, KeysThatDoNotFitTheAlgorithmAreRefused) {
  SigningKey swapped = key();
  swapped.algorithm =
      GetParam() == SignatureAlgorithm::kRs256 ? SignatureAlgorithm::kEs256 : SignatureAlgorithm::kRs256;
  SigningKey garbage = key();
  garbage.private_pem = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
  for (const SigningKey& bad : {swapped, garbage, SigningKey{"", "k", GetParam()}}) {
    EXPECT_EQ(SignToken(GoodClaims(), bad).status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(PublicJwk(bad).status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_FALSE(PublicJwkSet({bad}).ok());
  }
}

TEST_P(JwtTest, ThePublicHalfHoldsNothingPrivate) {
  const json jwk = json::parse(PublicJwk(key()).value());
  for (const char* member : {"d", "p", "q", "dp", "dq", "qi", "k"}) EXPECT_FALSE(jwk.contains(member)) << member;
}

TEST(JwtSignTest, CppJwtsExceptionsEndInTheAdapter) {
  EXPECT_FALSE(SignToken(json::array(), RsaKeyForTests()).ok());
  EXPECT_FALSE(SignToken({{"sub", "\xff\xfe"}}, RsaKeyForTests()).ok());
}

TEST(JwtSignTest, AnEncryptedKeyIsRefusedAndNobodyIsAskedForAPassPhrase) {
  const std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> pkey(EVP_EC_gen("P-256"), &EVP_PKEY_free);
  const std::unique_ptr<BIO, decltype(&BIO_free_all)> out(BIO_new(BIO_s_mem()), &BIO_free_all);
  char pass[] = "secret";
  ASSERT_EQ(PEM_write_bio_PKCS8PrivateKey(out.get(), pkey.get(), EVP_aes_128_cbc(), pass, 6, nullptr, nullptr), 1);
  char* text = nullptr;
  const long size = BIO_get_mem_data(out.get(), &text);
  const SigningKey locked{std::string(text, static_cast<size_t>(size)), "k", SignatureAlgorithm::kEs256};
  EXPECT_FALSE(SignToken(GoodClaims(), locked).ok());
}

TEST(JwtDecodeTest, OnlyPlainObjectsOfBoundedDepth) {
  const auto decode = [](std::string_view text) { return DecodeClaims(Base64UrlEncode(text)); };
  EXPECT_EQ(decode(R"({"sub":"ä","n":[1,2.5,null]})").value(), json::parse(R"({"sub":"ä","n":[1,2.5,null]})"));
  for (const std::string_view text : {"", "[]", "1", "{\"a\":1,\"a\":2}", "{\"a\":\"\xff\"}", "{}{}"}) {
    EXPECT_EQ(decode(text).status().code(), absl::StatusCode::kInvalidArgument) << text;
  }
  const auto nested = [](int depth) {
    std::string text = "{\"a\":";
    for (int i = 1; i < depth; ++i) text += '[';
    text += '0';
    for (int i = 1; i < depth; ++i) text += ']';
    return text + "}";
  };
  EXPECT_TRUE(decode(nested(kClaimsDepthMax)).ok());
  EXPECT_FALSE(decode(nested(kClaimsDepthMax + 1)).ok());
  for (const std::string_view segment : {"e30=", "e30!", "e3\xff\xff", "e31", "A"}) {
    EXPECT_EQ(DecodeClaims(segment).status().code(), absl::StatusCode::kInvalidArgument) << segment;
  }
}

}  // namespace
}  // namespace presence
