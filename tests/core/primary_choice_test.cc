#include "core/primary_choice.h"

#include <gtest/gtest.h>

#include "core/redis_sentinels.h"

namespace presence::core {
namespace {

using std::chrono::milliseconds;

class PrimaryChoiceTest : public testing::Test {
 protected:
  // Where to go after this word; empty: nowhere else.
  std::string Hears(size_t sentinel, const std::string& host, uint64_t epoch) {
    const auto moved = choice_.OnAnswer(now_, sentinel, {host, 6379, epoch});
    return moved ? moved->host : "";
  }
  void Pass(milliseconds time) { now_ += time; }

  SteadyTime now_ = SteadyTime(std::chrono::hours(1));
  PrimaryChoice choice_{3};
};

TEST_F(PrimaryChoiceTest, TheFirstWordIsFollowed) {
  EXPECT_EQ(Hears(1, "a", 0), "a");
  EXPECT_EQ(Hears(1, "a", 0), "") << "said once";
  EXPECT_EQ(Hears(0, "a", 0), "");
  EXPECT_EQ(choice_.followed()->host, "a");
}

TEST_F(PrimaryChoiceTest, AFailoverIsFollowedWhoeverSaysItFirst) {
  Hears(0, "a", 4);
  Hears(1, "a", 4);
  Hears(2, "a", 4);
  EXPECT_EQ(Hears(2, "b", 5), "b");
  EXPECT_EQ(Hears(0, "a", 4), "") << "that one has not heard of it yet";
  EXPECT_EQ(Hears(1, "a", 4), "") << "nor this one: two against one do not undo it";
  EXPECT_EQ(Hears(0, "b", 5), "");
}

TEST_F(PrimaryChoiceTest, ALoneSentinelThatMissedItLeadsNobodyBack) {
  Hears(0, "a", 4);
  Hears(1, "b", 5);
  Pass(PrimaryChoice::kFresh + milliseconds(1));
  EXPECT_EQ(Hears(0, "a", 4), "") << "the others are out of reach: it alone is no majority";
  EXPECT_EQ(choice_.followed()->host, "b");
}

TEST_F(PrimaryChoiceTest, SentinelsThatWereSetUpAnewAreFollowedWhenMostOfThemSaySo) {
  Hears(0, "a", 7);
  Hears(1, "a", 7);
  Hears(2, "a", 7);
  Pass(PrimaryChoice::kFresh + milliseconds(1));
  EXPECT_EQ(Hears(0, "c", 0), "");
  EXPECT_EQ(Hears(1, "c", 0), "c") << "two of three";
}

TEST_F(PrimaryChoiceTest, ContradictionsOfOneEpochMakeNobodyGoBackAndForth) {
  Hears(0, "a", 1);
  EXPECT_EQ(Hears(1, "b", 1), "");
  EXPECT_EQ(Hears(0, "a", 1), "");
  Pass(PrimaryChoice::kFresh + milliseconds(1));
  EXPECT_EQ(Hears(1, "b", 1), "b") << "nobody stands up for the other one any more";
}

TEST_F(PrimaryChoiceTest, AnotherPortIsAnotherPrimary) {
  Hears(0, "a", 1);
  EXPECT_TRUE(choice_.OnAnswer(now_, 0, {"a", 6380, 2}));
}

TEST(ParseSentinelTest, TakesHostAndPort) {
  EXPECT_EQ(ParseSentinel("10.0.0.1")->ToString(), "redis://10.0.0.1:26379/0");
  EXPECT_EQ(ParseSentinel("sentinel-1:5000")->ToString(), "redis://sentinel-1:5000/0");
  EXPECT_EQ(ParseSentinel("[::1]:5000")->ToString(), "redis://[::1]:5000/0");
  for (const char* wrong :
       {"", ":1", "a:", "a:0", "a:65536", "a:1x", "[::1", "[]:1", "user:secret@a:1", "redis://a:1"}) {
    EXPECT_FALSE(ParseSentinel(wrong).ok()) << wrong;
  }
}

}  // namespace
}  // namespace presence::core
