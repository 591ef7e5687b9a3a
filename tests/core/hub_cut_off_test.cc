// A core that alone is cut off from the store: it tells its shards to look for another one, and takes nobody's place when it is back.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "core/hub.h"
#include "tests/fakes/hub_cluster.h"
#include "tests/fakes/hub_world.h"

namespace presence::core {
namespace {

using link::v1::STATUS_AWAY;
using Outcome = WriteResult::Outcome;
using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::AllOf;
using testing::AnyOf;
using testing::Contains;
using testing::Each;
using testing::ElementsAre;
using testing::Ge;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Le;
using testing::Not;
using testing::StartsWith;

const uint64_t kPhone = ConnectionOf(7), kLaptop = ConnectionOf(8);

link::v1::EdgeEvent HelloForTheStore(uint64_t attach, uint64_t edge) {
  link::v1::EdgeEvent event = Hello(attach, 0, edge);
  event.mutable_hello()->set_only_with_store(true);
  return event;
}

// A core that knows of another one. Three shards of one device each, on links 1 to 3.
struct HubCutOff : testing::Test {
  HubWorld world;
  HubCutOff() {
    for (uint64_t i = 1; i <= 3; ++i) world.AttachConfirmed(i, 1, {Declared(kPhone, "alice", {"general"})}, 0xe0 + i);
    world.Cores({kCore, 0xc1});
    world.Tick();
  }
  void CutOffFor(milliseconds time) {
    world.StoreDown();
    PassAlive(time);
  }
  // With signs of life of all links that are there.
  void PassAlive(milliseconds time) {
    for (; time.count() > 0; time -= milliseconds(100)) {
      for (uint64_t link = 1; link <= 9; ++link)
        world.Say(link, Heartbeat());  // of one that is closed it is merely late
      world.Pass(milliseconds(100));
    }
  }
  // How often these three were told to look for another core, since the last call.
  std::vector<size_t> Seeks() {
    std::vector<size_t> seeks;
    for (uint64_t link = 1; link <= 3; ++link) {
      const auto sent = world.Sent(link);
      seeks.push_back(static_cast<size_t>(std::count(sent.begin(), sent.end(), "seek core")));
    }
    return seeks;
  }
  // Another core has taken them: they end their links here.
  void AllMove() {
    for (uint64_t link = 1; link <= 3; ++link) world.LoseLink(link);
  }
  size_t links() { return world.hub().sizes().links; }
};

TEST_F(HubCutOff, TellsItsShardsOneByOneWithinASecondAndEndsNoLink) {
  CutOffFor(milliseconds(2500));
  EXPECT_THAT(Seeks(), Each(0u)) << "Redis may just restart";
  std::vector<uint64_t> told;
  for (int i = 0; i < 10; ++i) {
    PassAlive(milliseconds(100));
    told.push_back(world.hub().counters().shards_sent_away);
  }
  EXPECT_EQ(told.back(), 3u);
  EXPECT_THAT(told, Contains(1u));
  EXPECT_THAT(told, Contains(2u));
  EXPECT_THAT(Seeks(), Each(1u));
  EXPECT_EQ(links(), 3u) << "a link ends when its shard has found a better core, not before";
}

// The one to which it could go may be cut off as well now, and be back before this one is.
TEST_F(HubCutOff, TellsThemAgainEverMoreRarelyUntilTheStoreIsBack) {
  CutOffFor(milliseconds(3600));
  EXPECT_THAT(Seeks(), Each(1u));
  PassAlive(seconds(1));
  EXPECT_THAT(Seeks(), Each(1u));
  PassAlive(seconds(5));
  EXPECT_THAT(Seeks(), Each(AllOf(Ge(1u), Le(3u))));
  PassAlive(seconds(50));
  EXPECT_THAT(Seeks(), Each(10u));
  EXPECT_EQ(links(), 3u);
  world.StoreUp();
  PassAlive(seconds(20));
  EXPECT_THAT(Seeks(), Each(0u));
}

TEST_F(HubCutOff, AStoreThatComesAndGoesTellsNobodyMoreOften) {
  for (int i = 0; i < 10; ++i) {
    CutOffFor(milliseconds(3600));
    world.StoreUp();
    PassAlive(milliseconds(100));
  }
  EXPECT_THAT(Seeks(), Each(Le(20u))) << "37 s";
  EXPECT_EQ(links(), 3u);
  for (int i = 0; i < 20; ++i) {
    CutOffFor(milliseconds(2400));
    world.StoreUp();
    PassAlive(milliseconds(100));
  }
  EXPECT_THAT(Seeks(), Each(0u)) << "back before isolation_max each time";
}

TEST_F(HubCutOff, CountsFromTheStoresLastAnswerNotFromWhenItWasGivenUp) {
  PassAlive(milliseconds(2500));  // a store that answers nothing is given up after some 2 s
  world.StoreDown();
  PassAlive(milliseconds(1000));
  EXPECT_THAT(Seeks(), Each(1u));
}

TEST_F(HubCutOff, KeepsEverybodyThroughARestartOfRedis) {
  for (int i = 0; i < 10; ++i) {
    PassAlive(seconds(1));
    world.Cores({kCore, 0xc1});
  }
  CutOffFor(seconds(2));
  world.StoreUp();
  PassAlive(seconds(1));
  EXPECT_THAT(Seeks(), Each(0u));
}

TEST_F(HubCutOff, StaysAsItIsWhileTheStoreIsUp) {
  PassAlive(seconds(10));
  EXPECT_THAT(Seeks(), Each(0u)) << "slow, but there";
}

TEST(HubAlone, KeepsEverybodyHoweverLongTheStoreIsAway) {
  HubWorld world;
  world.AttachConfirmed(1, 1, {Declared(kPhone, "alice")});
  world.Cores({kCore});
  world.Tick();
  world.StoreDown();
  for (int i = 0; i < 20; ++i) {
    world.Say(1, Heartbeat());
    world.Pass(seconds(1));
  }
  EXPECT_EQ(world.hub().counters().shards_sent_away, 0u);
}

// The other one was cut off a moment ago, and may be back: this core cannot hear of that any more.
TEST_F(HubCutOff, TellsThemAlsoOfACoreThatItHasKnownOnce) {
  world.Cores({kCore});
  CutOffFor(milliseconds(3600));
  EXPECT_THAT(Seeks(), Each(1u));
}

TEST_F(HubCutOff, WhoeverHasNoCoreIsTakenAndToldAtOnceToLookFurther) {
  CutOffFor(seconds(4));
  world.OpenLink(4);
  world.Say(4, {Hello(6, 0, 0xe7), Declared(kPhone, "bob", {"general"}), ResyncDone()});
  EXPECT_EQ(links(), 4u);
  PassAlive(milliseconds(100));
  EXPECT_THAT(world.Sent(4), Contains("seek core"));
}

TEST_F(HubCutOff, WhoeverComesForTheStoreAloneIsRefusedAndNothingHasHappened) {
  world.StoreDown();
  world.Tick();
  world.OpenLink(4);
  world.Say(4, HelloForTheStore(5, 0xe7));
  EXPECT_THAT(world.Sent(4), ElementsAre("closed UNAVAILABLE"));
  world.OpenLink(5);
  world.Say(5, HelloForTheStore(2, 0xe1));
  EXPECT_THAT(world.Sent(5), ElementsAre("closed UNAVAILABLE"));
  EXPECT_EQ(world.hub().sizes().shards, 3u);
  EXPECT_EQ(links(), 3u) << "the one that asked its own core once more stays";
}

// A Redis that restarts is back at all cores within a second or two: nobody has to go anywhere.
TEST_F(HubCutOff, AShardIsTakenByACoreThatHasHadTheStoreForTwoSeconds) {
  CutOffFor(seconds(4));
  world.StoreUp();
  PassAlive(milliseconds(1900));
  world.OpenLink(4);
  world.Say(4, HelloForTheStore(5, 0xe7));
  EXPECT_THAT(world.Sent(4), ElementsAre("closed UNAVAILABLE"));
  PassAlive(milliseconds(100));
  world.OpenLink(5);
  world.Say(5, HelloForTheStore(6, 0xe7));
  EXPECT_THAT(world.Sent(5), ElementsAre(StartsWith("welcome")));
}

TEST_F(HubCutOff, DeliversAmongThoseWhoAreStillHere) {
  CutOffFor(seconds(20));
  world.Attach(4, 2, {Declared(kPhone, "alice", {"general"})}, 0xe1);
  world.Attach(5, 2, {Declared(kPhone, "bob", {"general"})}, 0xe2);
  world.Forget();
  world.Say(4, Typing(kPhone, "general"));
  EXPECT_THAT(world.Sent(5), Contains(StartsWith("typing 1")));
}

// Given up before, its removals would reach the store in front of what the other core says, and the users would be shown offline.
TEST_F(HubCutOff, KeepsShardsThatHaveLeftUntilTheOtherCoreCanSayThatItHasThem) {
  CutOffFor(seconds(4));
  AllMove();
  PassAlive(seconds(16));
  EXPECT_EQ(world.hub().sizes().shards, 3u);
  world.StoreUp();
  for (uint64_t edge = 0xe1; edge <= 0xe3; ++edge) {
    link::v1::BusEnvelope attached;
    attached.set_core(0xc1);
    attached.mutable_shard_attached()->set_incarnation(edge);
    attached.mutable_shard_attached()->set_attach(2);
    world.Bus(attached);
  }
  EXPECT_EQ(world.hub().sizes().shards, 0u);
  world.Pass(seconds(10));
  EXPECT_THAT(world.Asked(), Not(Contains(StartsWith("remove"))));
  EXPECT_THAT(world.Reports(), IsEmpty()) << "their edges are alive, and elsewhere";
}

// Tombstones live for 15 s: of who has left at another core before that, the store knows nothing any more.
TEST_F(HubCutOff, BringsBackNobodyOfAShardThatWasAwayForLong) {
  world.StoreDown();
  world.Say(1, Opened(1, kLaptop, "bob"));
  world.Say(2, StatusSet(1, kPhone, STATUS_AWAY));
  PassAlive(seconds(4));
  AllMove();
  PassAlive(seconds(16));
  for (int i = 0; i < 2; ++i) {
    world.Forget();
    i == 0 ? world.StoreUp() : world.StoreUpWithoutItsState();
    world.AnswerLogoutRead(LogoutLog{true, {StoredLogout{"alice", {}}}});
    world.Tick();
    EXPECT_THAT(world.Asked(), Not(Contains(AnyOf(HasSubstr("assert"), StartsWith("remove")))));
    world.StoreDown();
    world.Pass(seconds(1));
  }
  EXPECT_EQ(world.hub().sizes().connections, 4u);
  EXPECT_TRUE(world.hub().Idle());
}

TEST_F(HubCutOff, BringsBackNobodyWhoseWriteWasUnderWayWhenTheStoreWentAway) {
  world.Say(2, StatusSet(1, kPhone, STATUS_AWAY));
  world.Say(3, StatusSet(1, kPhone, STATUS_AWAY));
  CutOffFor(seconds(4));
  AllMove();
  PassAlive(seconds(16));
  world.Answer(Outcome::kUnavailable);
  world.Forget();
  world.StoreUp();
  world.Answer(Outcome::kApplied);  // a store that answers late, all the same
  world.Pass(seconds(1));
  world.StoreDown();
  world.StoreUpWithoutItsState();
  EXPECT_THAT(world.Asked(), Not(Contains(HasSubstr("assert"))));
}

TEST_F(HubCutOff, RepeatsAtOnceWhatItKnowsOfAShardThatWasAwayForAMoment) {
  CutOffFor(seconds(4));
  AllMove();
  world.Forget();
  world.StoreUpWithoutItsState();
  EXPECT_THAT(world.Asked(), Contains(StartsWith("reassert e2/0/7.1 attach=1 alice online")))
      << "what was told of it elsewhere is fenced by its tombstone";
}

TEST_F(HubCutOff, AShardThatWasAwayForLongMayComeBackAndIsWrittenAgain) {
  world.StoreDown();
  world.Say(1, Opened(1, kLaptop, "bob"));
  PassAlive(seconds(4));
  AllMove();
  PassAlive(seconds(16));
  world.Attach(4, 2, {Declared(kPhone, "alice", {"general"})}, 0xe1);
  world.StoreUpWithoutItsState();
  EXPECT_THAT(world.Asked(), AllOf(Contains(StartsWith("reassert e1/0/7.1 attach=2 alice online")),
                                   Contains(StartsWith("remove e1/0/8.1 attach=2 bob"))));
  EXPECT_EQ(world.hub().sizes().memberships, 1u);
  world.OpenLink(5);
  world.Say(5, {Hello(2, 0, 0xe2), Declared(kPhone, "alice", {"general"})});
  EXPECT_THAT(world.Asked(), Contains(StartsWith("assert e2/0/7.1 attach=2 alice online")));
  EXPECT_EQ(world.hub().sizes().memberships, 2u);
  world.Say(5, ResyncDone());
  world.ConfirmAll();
  EXPECT_TRUE(world.hub().Idle());
}

TEST_F(HubCutOff, AShardThatHasComeBackMayBeLostAgain) {
  for (const uint64_t attach : {2, 3}) {
    world.StoreDown();
    world.LoseLink(attach + 2);
    AllMove();
    PassAlive(seconds(20));
    EXPECT_EQ(world.hub().sizes().memberships, 0u);
    world.Forget();
    world.StoreUpWithoutItsState();
    EXPECT_THAT(world.Asked(), Not(Contains(HasSubstr("assert"))));
    world.AttachConfirmed(attach + 3, attach, {Declared(kPhone, "alice", {"general"})}, 0xe1);
    EXPECT_EQ(world.hub().sizes().memberships, 1u);
  }
}

TEST_F(HubCutOff, AShardThatNobodyHasEndsWhenItsGraceWhenItsGraceIsOverAfterTheStoresReturn) {
  CutOffFor(seconds(4));
  AllMove();
  PassAlive(seconds(16));
  world.StoreUp();
  world.Pass(seconds(4));
  EXPECT_THAT(world.Asked(), Not(Contains(StartsWith("remove"))));
  world.Pass(seconds(2));
  EXPECT_THAT(world.Asked(), Contains(StartsWith("remove e2/0/7.1 attach=1 alice")));
  EXPECT_EQ(world.hub().sizes().shards, 0u);
}

// It may be for hours, and its clients are back by another edge.
TEST_F(HubCutOff, AShardThatIsAwayFillsNoRoomsWhileTheStoreIsAway) {
  CutOffFor(seconds(3));
  AllMove();
  world.Attach(4, 2, {Declared(kPhone, "alice", {"general"})}, 0xe1);
  PassAlive(seconds(4));
  EXPECT_EQ(world.hub().sizes().memberships, 3u);
  PassAlive(seconds(3));
  EXPECT_EQ(world.hub().sizes().memberships, 1u);
  EXPECT_EQ(world.hub().sizes().connections, 3u) << "who they are is said to the store when it is back";
}

// Writes that it refuses are no silence: it is there. Then it restarts.
TEST_F(HubCutOff, KeepsEverybodyThroughARestartOfARedisThatTookNoWrites) {
  for (int i = 0; i < 60; ++i) {
    PassAlive(seconds(1));
    world.hub().OnCoresRead(world.now(), absl::UnavailableError("the store is away"));
  }
  world.StoreDown();
  world.hub().OnCoresRead(world.now(), absl::UnavailableError("the store is away"));
  PassAlive(seconds(2));
  EXPECT_THAT(Seeks(), Each(0u));
  PassAlive(milliseconds(1500));
  EXPECT_THAT(Seeks(), Each(1u));
}

TEST_F(HubCutOff, AnErrorWhileItIsAwayIsNoAnswer) {
  world.StoreDown();
  for (int i = 0; i < 7; ++i) {
    PassAlive(milliseconds(500));
    world.hub().OnCoresRead(world.now(), absl::UnavailableError("the store is away"));
  }
  EXPECT_THAT(Seeks(), Each(1u));
}

TEST_F(HubCutOff, SpreadsThemHoweverLongNobodyLookedIntoTheRegistry) {
  PassAlive(seconds(60));
  world.StoreDown();
  world.Tick();
  EXPECT_LT(world.hub().counters().shards_sent_away, 2u);
  PassAlive(milliseconds(900));
  EXPECT_THAT(Seeks(), Each(1u));
}

// EDGE_GRACE may be longer than what the store remembers.
TEST(HubCutOffPatient, BringsBackNobodyAndGivesTheEdgeItsTime) {
  HubOptions options = HubWorld::DefaultOptions();
  options.edge_grace = seconds(60);
  HubWorld world(options);
  world.AttachConfirmed(1, 1, {Declared(kPhone, "alice")});
  world.StoreDown();
  world.LoseLink(1);
  world.Pass(seconds(11));
  world.Forget();
  world.StoreUpWithoutItsState();
  world.Pass(seconds(59));
  EXPECT_THAT(world.Asked(), Not(Contains(AnyOf(HasSubstr("assert"), StartsWith("remove")))));
  world.Pass(seconds(2));
  EXPECT_THAT(world.Asked(), Contains(StartsWith("remove e1/0/7.1 attach=1 alice")));
}

// A core that stood still hears of its store after that: what waits for it is handed in before anybody is judged.
TEST_F(HubCutOff, JudgesNobodyRightAfterAStall) {
  world.Stall(seconds(8));
  world.StoreDown();
  for (uint64_t link = 1; link <= 3; ++link) world.Say(link, Heartbeat());
  world.Tick();
  EXPECT_THAT(Seeks(), Each(0u));
  world.StoreUp();
  PassAlive(seconds(3));
  EXPECT_THAT(Seeks(), Each(0u));
  EXPECT_EQ(links(), 3u);
}

// Its Welcome may come too late: then the shard has stayed, or gone elsewhere, and has a lower attach there.
TEST(HubCutOffOffer, IsNothingUntilTheShardGoesOn) {
  HubCluster cluster(2);
  HubCluster::Node &one = cluster[0], &two = cluster[1];
  cluster.Pass(seconds(20));
  two.Attach(1, 1, {Declared(kPhone, "alice")});
  two.LoseLink(1);
  one.Attach(2, 2, {Declared(kPhone, "alice")});
  cluster.Pass(seconds(1));
  two.OpenLink(3);
  two.Say(3, HelloForTheStore(3, kEdge));
  EXPECT_EQ(two.hub().sizes().shards, 0u);
  two.LoseLink(3);
  two.Changes();
  cluster.Pass(seconds(60));
  EXPECT_THAT(two.Changes(), IsEmpty());
  EXPECT_EQ(one.hub().sizes().connections, 1u);
  two.OpenLink(4);
  two.Say(4, HelloForTheStore(4, kEdge));
  two.Say(4, Declared(kPhone, "alice"));
  EXPECT_EQ(two.hub().sizes().connections, 1u);
  two.Say(4, ResyncDone());
  EXPECT_EQ(one.hub().sizes().connections, 0u);
}

// A shard may be empty and, after our Welcome, take a client before we hear of it again: between the two the change went to others only.
TEST(HubCutOffOffer, WhatChangedSinceItIsToldToAShardThatWasEmpty) {
  HubWorld world;
  world.Attach(1, 1);
  world.Pass(seconds(3));
  world.Say(1, Heartbeat());
  world.OpenLink(2);
  world.Say(2, HelloForTheStore(2, 0xe7));
  const uint64_t version = 3'000'000'000;
  world.Bus(Changed("bob", STATUS_AWAY, version));
  world.Forget();
  world.Say(2, {ResyncDone(), Opened(1, kPhone, "alice")});
  EXPECT_THAT(world.Asked(), Contains(StartsWith("read changes since")));
  world.AnswerRead(ChangeLog{.changes = {LoggedChange("bob", STATUS_AWAY, version)}});
  EXPECT_THAT(world.Sent(2), Contains("presence bob@3000000000 away everyone"));
}

TEST_F(HubCutOff, AnOfferIsFencedWhenItIsTakenUp) {
  PassAlive(seconds(3));
  for (const uint64_t link : {4, 5}) {
    world.OpenLink(link);
    world.Say(link, HelloForTheStore(link, 0xe7));
  }
  world.Say(5, ResyncDone());
  world.Forget();
  world.Say(4, ResyncDone());
  EXPECT_THAT(world.Sent(4), ElementsAre("closed FAILED_PRECONDITION"));
}

// ------------------------------------------------------------------------- what is left of lost shards is bounded, too

TEST(HubSetAside, KeepsNoMoreConnectionsThanItMayAndForgetsTheOldestShards) {
  HubOptions options = HubWorld::DefaultOptions();
  options.set_aside_max = 3;
  HubWorld world(options);
  for (uint64_t i = 1; i <= 3; ++i) {
    world.AttachConfirmed(i, 1, {Declared(kPhone, "alice", {"general"}), Declared(kLaptop, "bob")}, 0xe0 + i);
  }
  world.StoreDown();
  for (uint64_t i = 3; i >= 1; --i) {
    world.LoseLink(i);
    for (uint64_t other = 1; other < i; ++other) world.Say(other, Heartbeat());
    world.Pass(seconds(1));
  }
  world.Pass(seconds(6));
  EXPECT_EQ(world.hub().sizes().connections, 2u);
  EXPECT_EQ(world.hub().sizes().removals, 0u) << "nothing is to be said of them";
  EXPECT_THAT(world.hub().DebugDump(), StartsWith("edge 00000000000000e1")) << "it was lost last";
  EXPECT_EQ(world.hub().counters().removals_forgotten, 4u);
  world.Forget();
  world.StoreUpWithoutItsState();
  world.Pass(seconds(10));
  EXPECT_THAT(world.Asked(), Not(Contains(HasSubstr(" e3/")))) << "the sweep ends what is left of it";
}

TEST(HubSetAside, ALostShardWithoutConnectionsIsForgotten) {
  HubWorld world;
  world.AttachConfirmed(1, 1, {}, 0xe1);
  world.StoreDown();
  world.LoseLink(1);
  world.Pass(seconds(6));
  EXPECT_EQ(world.hub().sizes().shards, 0u);
}

}  // namespace
}  // namespace presence::core
