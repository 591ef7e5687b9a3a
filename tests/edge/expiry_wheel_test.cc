// The wheel against a plain list, and clocks that are set.
#include "edge/expiry_wheel.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <vector>

namespace presence::edge {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::UnorderedElementsAre;

constexpr int64_t kStart = 1'736'856'000;

std::vector<uint32_t> Due(ExpiryWheel& wheel, int64_t now, size_t count_max = SIZE_MAX) {
  std::vector<uint32_t> due;
  wheel.TakeDue(now, count_max, &due);
  return due;
}

TEST(ExpiryWheelTest, EachComesInItsSecondAndOnce) {
  ExpiryWheel wheel;
  EXPECT_THAT(Due(wheel, kStart), IsEmpty());
  wheel.Add(5, kStart + 2);
  wheel.Add(6, kStart + 2);
  wheel.Add(7, kStart + 4096 + 2);  // the same bucket, a turn later
  wheel.Add(8, kStart);             // the second that is now
  EXPECT_THAT(Due(wheel, kStart), ElementsAre(8));
  EXPECT_THAT(Due(wheel, kStart + 1), IsEmpty());
  EXPECT_THAT(Due(wheel, kStart + 2), UnorderedElementsAre(5, 6));
  EXPECT_THAT(Due(wheel, kStart + 2), IsEmpty());
  EXPECT_THAT(Due(wheel, kStart + 4096 + 1), IsEmpty());
  EXPECT_THAT(Due(wheel, kStart + 4096 + 2), ElementsAre(7));
}

TEST(ExpiryWheelTest, RemovedAndMovedOnesDoNotCome) {
  ExpiryWheel wheel;
  Due(wheel, kStart);
  for (uint32_t slot = 0; slot < 4; ++slot) wheel.Add(slot, kStart + 3);
  wheel.Remove(1);
  wheel.Remove(1);
  wheel.Remove(99);
  wheel.Add(2, kStart + 5);
  EXPECT_THAT(Due(wheel, kStart + 4), UnorderedElementsAre(0, 3));
  EXPECT_THAT(Due(wheel, kStart + 5), ElementsAre(2));
}

TEST(ExpiryWheelTest, WhatIsOverAlreadyComesAtOnce) {
  ExpiryWheel wheel;
  Due(wheel, kStart);
  wheel.Add(0, kStart - 10'000);
  EXPECT_THAT(Due(wheel, kStart), ElementsAre(0));
}

TEST(ExpiryWheelTest, AClockSetForwardMakesDueWhatLiesBehindIt) {
  ExpiryWheel wheel;
  Due(wheel, kStart);
  wheel.Add(0, kStart + 60);
  wheel.Add(1, kStart + 50'000);
  wheel.Add(2, kStart + 90'001);
  EXPECT_THAT(Due(wheel, kStart + 90'000), UnorderedElementsAre(0, 1));
  EXPECT_THAT(Due(wheel, kStart + 90'001), ElementsAre(2));
}

TEST(ExpiryWheelTest, AClockSetBackMakesNothingDueAndLosesNothing) {
  ExpiryWheel wheel;
  Due(wheel, kStart);
  wheel.Add(0, kStart + 60);
  EXPECT_THAT(Due(wheel, kStart + 30), IsEmpty());
  EXPECT_THAT(Due(wheel, kStart - 100'000), IsEmpty());
  wheel.Add(1, kStart - 99'990);
  EXPECT_THAT(Due(wheel, kStart - 99'991), IsEmpty());
  EXPECT_THAT(Due(wheel, kStart - 99'990), ElementsAre(1));
  EXPECT_THAT(Due(wheel, kStart + 59), IsEmpty());
  EXPECT_THAT(Due(wheel, kStart + 60), ElementsAre(0));
}

TEST(ExpiryWheelTest, ManyAtOnceComeInPortions) {
  ExpiryWheel wheel;
  Due(wheel, kStart);
  for (uint32_t slot = 0; slot < 10; ++slot) wheel.Add(slot, kStart + 1 + slot % 2);
  EXPECT_THAT(Due(wheel, kStart + 9, 4), SizeIs(4));
  EXPECT_THAT(Due(wheel, kStart + 9, 4), SizeIs(4));
  wheel.Add(10, kStart);
  EXPECT_THAT(Due(wheel, kStart + 9, 4), SizeIs(3));
  EXPECT_THAT(Due(wheel, kStart + 9, 4), IsEmpty());
}

TEST(ExpiryWheelTest, DoesWhatAPlainListWould) {
  std::minstd_rand random(7);
  const auto below = [&random](uint32_t bound) { return static_cast<int64_t>(random() % bound); };
  ExpiryWheel wheel;
  std::map<uint32_t, int64_t> model;
  int64_t now = kStart;
  Due(wheel, now);
  for (int step = 0; step < 20'000; ++step) {
    const auto slot = static_cast<uint32_t>(below(200));
    if (below(4) == 0) {
      wheel.Remove(slot);
      model.erase(slot);
    } else {
      const int64_t due = now + below(3) * below(6000) - 5;
      wheel.Add(slot, due);
      model[slot] = due;
    }
    now += below(100) == 0 ? below(9000) : below(3);
    std::vector<uint32_t> due = Due(wheel, now);
    std::sort(due.begin(), due.end());
    std::vector<uint32_t> expected;
    for (const auto& [each, second] : model) {
      if (second <= now) expected.push_back(each);
    }
    for (const uint32_t each : expected) model.erase(each);
    ASSERT_EQ(due, expected) << "step " << step;
  }
}

}  // namespace
}  // namespace presence::edge
