// Stories of presence on its way to the clients of one shard.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>
#include <string>

#include "edge/presence_pacer.h"
#include "edge/shard.h"
#include "tests/fakes/shard_stage.h"

namespace presence::edge {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class ShardPresenceTest : public ::testing::Test, public ShardStage {
 protected:
  static ShardOptions Paced() {
    ShardOptions options = Options();
    options.presence_frames_per_second = 100;  // 10 saved up by a quiet time
    return options;
  }
  ShardPresenceTest() : ShardStage(Paced()) {
    Attach();
    for (uint32_t slot = 0; slot < 4; ++slot) Open(slot, "user" + std::to_string(slot));
    Forget();
  }
};

TEST_F(ShardPresenceTest, AChangeGoesToEveryoneAtOnce) {
  DeliverPresence("x", 10, "x online");
  for (uint32_t slot = 0; slot < 4; ++slot) EXPECT_THAT(Texts(slot), ElementsAre("x online"));
  EXPECT_EQ(output.send_calls, 1u);
}

TEST_F(ShardPresenceTest, ASlowReaderGetsTheNewestOfEachUser) {
  DeliverPresence("x", 10, "x online");
  DeliverPresence("y", 11, "y online");
  DeliverPresence("x", 12, "x away");
  ASSERT_THAT(output.sent[0], SizeIs(3));
  for (const auto& sent : output.sent[0]) EXPECT_EQ(sent.policy.send_class, SendClass::kLatest);
  EXPECT_EQ(output.sent[0][0].policy.key, output.sent[0][2].policy.key);
  EXPECT_NE(output.sent[0][0].policy.key, output.sent[0][1].policy.key);
}

TEST_F(ShardPresenceTest, MembersOfSeveralRoomsGetItOnce) {
  Bind(0, "a", 1);
  Bind(1, "a", 1);
  Bind(1, "b", 2);
  Bind(2, "b", 2);
  for (uint64_t version : {10, 11}) {
    DeliverPresence("x", version, "x", {1, 2, 99});
    for (uint32_t slot = 0; slot < 3; ++slot) EXPECT_THAT(Texts(slot), ElementsAre("x"));
    EXPECT_THAT(Texts(3), IsEmpty());
  }
  DeliverPresence("x", 12, "y", {2});
  EXPECT_THAT(Texts(0), IsEmpty());
  EXPECT_THAT(Texts(1), ElementsAre("y"));
}

TEST_F(ShardPresenceTest, WhatExceedsTheBudgetWaitsInOrder) {
  // Budget for 10 frames; the third change is begun with 2 left, the fourth finds a debt.
  for (const char* user : {"a", "b", "c", "d", "e"}) DeliverPresence(user, 10, user);
  EXPECT_THAT(Texts(0), ElementsAre("a", "b", "c"));
  Advance(milliseconds(100));
  EXPECT_THAT(Texts(0), ElementsAre("d", "e"));
}

TEST_F(ShardPresenceTest, WhatWaitsIsReplacedByTheNewestOfTheSameUser) {
  for (const char* user : {"a", "b", "c"}) DeliverPresence(user, 10, user);
  Forget();
  DeliverPresence("d", 20, "d1");
  DeliverPresence("e", 21, "e1");
  DeliverPresence("d", 22, "d2");
  DeliverPresence("d", 19, "d0");
  Advance(milliseconds(100));
  EXPECT_THAT(Texts(0), ElementsAre("d2", "e1"));
  EXPECT_EQ(shard.counters().presence_coalesced, 1u);
}

TEST_F(ShardPresenceTest, TheRateHoldsOverTime) {
  for (int i = 0; i < 1000; ++i) DeliverPresence("user" + std::to_string(i), 10, "x");
  Forget();
  AdvanceWithCore(seconds(10));
  EXPECT_NEAR(static_cast<double>(output.sent[0].size()), 10 * 100 / 4, 2);
}

TEST_F(ShardPresenceTest, AUserIsNeverShownOlderThanBefore) {
  DeliverPresence("x", 10, "x online");
  DeliverPresence("x", 9, "x offline");
  DeliverPresence("x", 10, "x online");
  EXPECT_THAT(Texts(0), ElementsAre("x online"));
  // From an outsider, without a version: counts as newer.
  DeliverPresence("x", 0, "x away");
  EXPECT_THAT(Texts(0), ElementsAre("x away"));
}

TEST_F(ShardPresenceTest, RoomsOfALaterJoinGetTheSameVersion) {
  Bind(0, "a", 1);
  Bind(1, "b", 2);
  DeliverPresence("x", 10, "x", {1});
  DeliverPresence("x", 10, "x", {2});
  EXPECT_THAT(Texts(0), ElementsAre("x"));
  EXPECT_THAT(Texts(1), ElementsAre("x"));
}

TEST_F(ShardPresenceTest, ThePresenceOfRoomsDoesNotOvertakeWhatWaitsForEveryone) {
  Bind(0, "a", 1);
  for (const char* user : {"a", "b", "c"}) DeliverPresence(user, 10, user);
  Forget();
  DeliverPresence("d", 20, "d1");
  DeliverPresence("d", 21, "d2", {1});
  Advance(milliseconds(100));
  EXPECT_THAT(Texts(0), ElementsAre("d2"));
  EXPECT_THAT(Texts(1), ElementsAre("d2"));
}

TEST_F(ShardPresenceTest, HelloNamesWhatTheCoreHasVouchedForNotWhatWasSeen) {
  PassedOn(10);
  // Seen, but what came before it may still be missing.
  DeliverPresence("x", 12, "x");
  LinkDown();
  Forget();
  LinkUp();
  EXPECT_EQ(output.events[0].hello().presence_watermark(), 10u);
  Welcome(20);
  PassedOn(15);
  PassedOn(14);
  LinkDown();
  Forget();
  LinkUp();
  EXPECT_EQ(output.events[0].hello().presence_watermark(), 15u);
}

TEST(ShardWatermarkTest, StartsWithWhatTheFirstWelcomeNames) {
  ShardStage stage;
  const auto named_by_hello = [&stage](uint64_t welcome) {
    stage.LinkDown();
    stage.Forget();
    stage.LinkUp();
    const uint64_t watermark = stage.output.events[0].hello().presence_watermark();
    stage.Welcome(welcome);
    return watermark;
  };
  EXPECT_EQ(named_by_hello(500), 0u);
  EXPECT_EQ(named_by_hello(900), 500u);
  EXPECT_EQ(named_by_hello(0), 500u);
}

TEST(PresencePacerTest, ForgetsUsersButNeverLetsTwoShareAKey) {
  PresencePacer pacer(1'000'000'000);
  const SteadyTime now = SteadyTime() + seconds(1);
  std::set<uint32_t> keys;
  constexpr int kUsers = 50'000;
  for (int i = 0; i < kUsers; ++i) keys.insert(pacer.Offer(now, "user" + std::to_string(i), 1, "x", true).key);
  EXPECT_EQ(keys.size(), static_cast<size_t>(kUsers));
}

}  // namespace
}  // namespace presence::edge
