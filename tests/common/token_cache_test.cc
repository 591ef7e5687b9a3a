// A memory of good tokens that never says more than the verifier would.
#include "common/token_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <vector>

#include "tests/fakes/token_forge.h"

namespace presence {
namespace {

using std::chrono::seconds;

constexpr uint64_t kKeys = 7;

WallTime At(int64_t second) {
  return ForgedNow() + seconds(second);
}

TokenDigest DigestOfNumber(int number) {
  return DigestOf("token " + std::to_string(number));
}

TEST(TokenDigestTest, ItIsSha256OfTheWholeText) {
  const TokenDigest digest = DigestOf("abc");  // FIPS 180-4's example
  EXPECT_EQ(digest[0], 0xba);
  EXPECT_EQ(digest[1], 0x78);
  EXPECT_EQ(digest[31], 0xad);
  EXPECT_NE(DigestOf("a.b.c"), DigestOf("a.b.c!!!!"));
  EXPECT_NE(DigestOf(std::string_view("a\0b", 3)), DigestOf("a"));
}

TEST(TokenCacheTest, WhatWasKeptIsFoundUnderTheSameKeys) {
  TokenCache<std::string> cache(64);
  EXPECT_FALSE(cache.Find(DigestOf("a"), kKeys, At(0)));
  cache.Keep(DigestOf("a"), kKeys, "alice", {At(-10), At(10)});
  EXPECT_EQ(cache.Find(DigestOf("a"), kKeys, At(0)), "alice");
  EXPECT_FALSE(cache.Find(DigestOf("b"), kKeys, At(0)));
  EXPECT_FALSE(cache.Find(DigestOf("a"), kKeys + 1, At(0))) << "the keys have changed";
  EXPECT_FALSE(cache.Find(DigestOf("a"), kKeys - 1, At(0)));
}

TEST(TokenCacheTest, TheTimesOfTheTokenAreCheckedEachTime) {
  TokenCache<int> cache(64);
  cache.Keep(DigestOf("a"), kKeys, 1, {At(-10), At(10)});
  EXPECT_TRUE(cache.Find(DigestOf("a"), kKeys, At(9)));
  EXPECT_FALSE(cache.Find(DigestOf("a"), kKeys, At(10)));
  EXPECT_TRUE(cache.Find(DigestOf("a"), kKeys, At(-10))) << "a clock may be set back";
  EXPECT_FALSE(cache.Find(DigestOf("a"), kKeys, At(-11)));
}

TEST(TokenCacheTest, NewKeysForgetEverything) {
  TokenCache<int> cache(64);
  for (int i = 0; i < 64; ++i) cache.Keep(DigestOfNumber(i), kKeys, i, {At(0), At(10)});
  const size_t before = cache.size();
  for (int i = 100; i < 300; ++i) cache.Keep(DigestOfNumber(i), kKeys + 1, i, {At(0), At(10)});
  EXPECT_LE(cache.size(), 64u);
  EXPECT_GT(before, 32u);
  for (int i = 0; i < 64; ++i) {
    EXPECT_FALSE(cache.Find(DigestOfNumber(i), kKeys, At(0)));
    EXPECT_FALSE(cache.Find(DigestOfNumber(i), kKeys + 1, At(0)));
  }
}

TEST(TokenCacheTest, WhatAnOlderSetVerifiedComesTooLate) {
  TokenCache<int> cache(64);
  cache.Keep(DigestOf("a"), kKeys, 1, {At(0), At(10)});
  cache.Keep(DigestOf("a"), kKeys - 1, 2, {At(0), At(10)});
  EXPECT_EQ(cache.Find(DigestOf("a"), kKeys, At(0)), 1);
  EXPECT_FALSE(cache.Find(DigestOf("a"), kKeys - 1, At(0)));
}

TEST(TokenCacheTest, ItIsBoundedAndTheOldestMakesRoom) {
  constexpr int kMany = 10'000;
  TokenCache<int> cache(160);
  for (int i = 0; i < kMany; ++i) {
    cache.Keep(DigestOfNumber(i), kKeys, i, {At(0), At(10)});
    cache.Keep(DigestOfNumber(i), kKeys, i, {At(0), At(10)});  // again: takes no second place
    ASSERT_EQ(cache.Find(DigestOfNumber(i), kKeys, At(0)), i) << "the newest is always there";
  }
  EXPECT_EQ(cache.size(), 160u);
  int found = 0;
  for (int i = 0; i < kMany; ++i) found += cache.Find(DigestOfNumber(i), kKeys, At(0)) ? 1 : 0;
  EXPECT_EQ(found, 160);
  for (int i = 0; i < kMany / 2; ++i) ASSERT_FALSE(cache.Find(DigestOfNumber(i), kKeys, At(0))) << i;
}

TEST(TokenCacheTest, SeveralThreadsMayUseIt) {
  TokenCache<std::string> cache(256);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&cache, t] {
      for (int i = 0; i < 5000; ++i) {
        const int number = (i * 7 + t) % 400;
        const uint64_t keys = kKeys + static_cast<uint64_t>(i / 1000);
        cache.Keep(DigestOfNumber(number), keys, std::to_string(number), {At(0), At(10)});
        const auto found = cache.Find(DigestOfNumber(number), keys, At(0));
        ASSERT_EQ(found.value_or(std::to_string(number)), std::to_string(number));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_LE(cache.size(), 256u);
}

// ---- With the verifier

TEST(TokenValidityTest, ItIsExactlyWhenTheVerifierSaysYes) {
  const JwkSet keys = KeysOf({EcKeyForTests()});
  const TokenVerifier verifier({.leeway = seconds(30)});
  for (const auto& [nbf, iat] : {std::pair{-100, -50}, std::pair{-50, -100}, std::pair{0, 0}, std::pair{20, 10}}) {
    nlohmann::json claims = GoodClaims();
    claims["nbf"] = kForgedNowSeconds + nbf;
    claims["iat"] = kForgedNowSeconds + iat;
    const std::string token = TokenOf(claims, EcKeyForTests());
    const auto good_at = [&](int64_t second) {
      return std::holds_alternative<Identity>(verifier.Verify(token, keys, At(second)));
    };
    const auto verdict = verifier.Verify(token, keys, ForgedNow());
    const auto [from, until] = verifier.ValidityOf(std::get<Identity>(verdict));
    for (int64_t second = -150; second < 400; ++second) {
      ASSERT_EQ(good_at(second), At(second) >= from && At(second) < until) << second;
    }
  }
}

TEST(JwkSetIdTest, EachParsedSetHasAnotherOne) {
  const JwkSet first = KeysOf({EcKeyForTests()}), second = KeysOf({EcKeyForTests()});
  EXPECT_NE(first.id(), 0u);
  EXPECT_LT(first.id(), second.id());
}

}  // namespace
}  // namespace presence
