#include "edge/rate_limit.h"

#include <gtest/gtest.h>

#include <limits>

namespace presence::edge {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::nanoseconds;
using std::chrono::seconds;

const SteadyTime kNow = SteadyTime() + hours(1);

int TakeAll(const RateLimit& limit, RateLimit::Bucket& bucket, SteadyTime now) {
  int taken = 0;
  while (taken < 1'000'000 && limit.Take(bucket, now)) ++taken;
  return taken;
}

TEST(RateLimitTest, ABurstAtOnceThenTheRate) {
  const RateLimit limit(10, 30);
  RateLimit::Bucket bucket;
  EXPECT_EQ(TakeAll(limit, bucket, kNow), 30);
  EXPECT_EQ(TakeAll(limit, bucket, kNow + milliseconds(99)), 0);
  EXPECT_EQ(TakeAll(limit, bucket, kNow + milliseconds(100)), 1);
  EXPECT_EQ(TakeAll(limit, bucket, kNow + milliseconds(1'100)), 10);
  EXPECT_EQ(TakeAll(limit, bucket, kNow + hours(24)), 30) << "a long pause saves up no more than the burst";
}

TEST(RateLimitTest, WhatIsRefusedCostsNothing) {
  const RateLimit limit(10, 5);
  RateLimit::Bucket bucket;
  EXPECT_FALSE(limit.Take(bucket, kNow, 6));
  EXPECT_TRUE(limit.Take(bucket, kNow, 5));
  for (int i = 0; i < 1'000; ++i) EXPECT_FALSE(limit.Take(bucket, kNow));
  EXPECT_TRUE(limit.Take(bucket, kNow + milliseconds(100)));
}

TEST(RateLimitTest, WhatIsChargedMayBeOwedUpToOneBurst) {
  const RateLimit limit(1'000, 2'000);
  RateLimit::Bucket bucket;
  limit.Charge(bucket, kNow, 2'000);
  EXPECT_FALSE(limit.Owes(bucket, kNow));
  limit.Charge(bucket, kNow, 1'000);
  EXPECT_TRUE(limit.Owes(bucket, kNow));
  EXPECT_FALSE(limit.OwesAll(bucket, kNow));
  EXPECT_FALSE(limit.Owes(bucket, kNow + seconds(1)));
  limit.Charge(bucket, kNow, 1'000'000'000'000);
  EXPECT_TRUE(limit.OwesAll(bucket, kNow));
  EXPECT_TRUE(limit.Owes(bucket, kNow + milliseconds(1'999)));
  EXPECT_FALSE(limit.Owes(bucket, kNow + milliseconds(2'000))) << "no more than one burst was owed";
  EXPECT_FALSE(limit.IsFull(bucket, kNow + milliseconds(3'999)));
  EXPECT_TRUE(limit.IsFull(bucket, kNow + milliseconds(4'000)));
}

TEST(RateLimitTest, TheTimeToTheNextUnitIsExact) {
  const RateLimit limit(3, 2);
  RateLimit::Bucket bucket;
  EXPECT_EQ(limit.TimeToNext(bucket, kNow), Duration::zero());
  TakeAll(limit, bucket, kNow);
  const Duration wait = limit.TimeToNext(bucket, kNow);
  EXPECT_GT(wait, milliseconds(300));
  EXPECT_FALSE(limit.Take(bucket, kNow + wait - nanoseconds(1)));
  EXPECT_TRUE(limit.Take(bucket, kNow + wait));
}

TEST(RateLimitTest, NoRateIsNoLimit) {
  const RateLimit limit(0, 1);
  RateLimit::Bucket bucket;
  EXPECT_TRUE(limit.off());
  EXPECT_EQ(TakeAll(limit, bucket, kNow), 1'000'000);
  limit.Charge(bucket, kNow, std::numeric_limits<uint64_t>::max());
  EXPECT_FALSE(limit.Owes(bucket, kNow));
  EXPECT_FALSE(limit.OwesAll(bucket, kNow));
  EXPECT_TRUE(limit.IsFull(bucket, kNow));
  EXPECT_EQ(limit.TimeToNext(bucket, kNow), Duration::zero());
}

TEST(RateLimitTest, TheGreatestNumbersDoNotOverflow) {
  const RateLimit limit(1, std::numeric_limits<uint64_t>::max());
  RateLimit::Bucket bucket;
  EXPECT_TRUE(limit.Take(bucket, kNow, std::numeric_limits<uint64_t>::max())) << "counts as the greatest burst";
  EXPECT_FALSE(limit.Take(bucket, kNow));
  for (int i = 0; i < 10; ++i) limit.Charge(bucket, kNow, std::numeric_limits<uint64_t>::max());
  EXPECT_TRUE(limit.OwesAll(bucket, kNow));
}

TEST(RateLimitTest, AUnitThatIsMoreThanTheBurstCanStillBeHad) {
  const RateLimit limit(5, 0);
  RateLimit::Bucket bucket;
  EXPECT_EQ(TakeAll(limit, bucket, kNow), 1);
}

static_assert(sizeof(RateLimit::Bucket) == 8);

}  // namespace
}  // namespace presence::edge
