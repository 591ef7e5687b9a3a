// Connections that their edge has sent to another one: the user's presence is left as it is until the client is back, or the time over.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/hub.h"
#include "tests/core/cluster_requests.h"
#include "tests/fakes/hub_cluster.h"
#include "tests/fakes/hub_world.h"

namespace presence::core {
namespace {

using link::v1::STATUS_OFFLINE;
using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::Contains;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::Not;
using Outcome = WriteResult::Outcome;

const uint64_t kPhone = ConnectionOf(7), kLaptop = ConnectionOf(8), kTablet = ConnectionOf(9);

class HubDrain : public testing::Test {
 protected:
  HubDrain() { world.AttachConfirmed(1, 1, {Declared(kPhone, "alice", {"general"})}); }

  HubWorld world;
};

TEST_F(HubDrain, TheEntryLingersAndTheRoomIsLeft) {
  world.Say(1, Closed(1, kPhone, "alice", 12'500));
  EXPECT_THAT(world.Asked(), ElementsAre("linger e1/0/7.1 attach=1 alice for=12500ms previous=online@10"));
  EXPECT_EQ(world.hub().sizes().connections, 0u);
  EXPECT_EQ(world.hub().sizes().rooms, 0u);
  EXPECT_EQ(world.hub().DebugDump(), "edge 00000000000000e1 shard 0 attach 1 attached\n");
  EXPECT_EQ(world.hub().counters().connections_sent_away, 1u);
}

TEST_F(HubDrain, ItIsAcknowledgedWhenTheStoreHasIt) {
  world.Say(1, Closed(1, kPhone, "alice", 12'500));
  world.Tick();
  EXPECT_THAT(world.Sent(1), Not(Contains("ack 1")));
  world.Answer(Outcome::kApplied);
  world.Tick();
  EXPECT_THAT(world.Sent(1), Contains("ack 1")) << "the edge may end: this core is not needed any more, either";
  EXPECT_TRUE(world.hub().Idle());
}

TEST_F(HubDrain, NothingIsHeldForEver) {
  world.Say(1, Closed(1, kPhone, "alice", 4'000'000'000));
  EXPECT_THAT(world.Asked(), ElementsAre("linger e1/0/7.1 attach=1 alice for=30000ms previous=online@10"));
  world.Answer(Outcome::kApplied);
  world.Pass(seconds(31));
  EXPECT_EQ(world.hub().sizes().removals, 0u);
}

TEST_F(HubDrain, AWriteThatIsRepeatedSaysWhatIsLeft) {
  world.Say(1, Closed(1, kPhone, "alice", 10'000));
  world.Answer(Outcome::kUnavailable);
  world.Forget();
  world.Pass(milliseconds(1'100));
  EXPECT_THAT(world.Asked(), Contains("linger e1/0/7.1 attach=1 alice for=9000ms previous=online@10"));
  world.Answer(Outcome::kApplied);
}

// The client may be back at another core, which has not been able to say so either.
TEST_F(HubDrain, AStoreThatIsBackTooLateHoldsOnForALittle) {
  world.StoreDown();
  world.Say(1, Closed(1, kPhone, "alice", 10'000));
  world.Pass(seconds(11));
  world.Forget();
  world.StoreUp();
  EXPECT_THAT(world.Asked(), Contains("linger e1/0/7.1 attach=1 alice for=5000ms previous=online@10"));
}

TEST_F(HubDrain, AStoreThatIsBackJustInTimeHoldsOnForALittle) {
  world.StoreDown();
  world.Say(1, Closed(1, kPhone, "alice", 10'000));
  world.Pass(seconds(9));
  world.Forget();
  world.StoreUp();
  EXPECT_THAT(world.Asked(), Contains("linger e1/0/7.1 attach=1 alice for=5000ms previous=online@10"));
}

TEST_F(HubDrain, AStoreThatHasHeardOfItIsToldTheEndWhenItHasLostIt) {
  world.Say(1, Closed(1, kPhone, "alice", 10'000));
  world.Answer(Outcome::kApplied);
  world.StoreDown();
  world.Pass(seconds(11));
  world.Forget();
  world.StoreUpWithoutItsState();
  EXPECT_THAT(world.Asked(), Contains("remove e1/0/7.1 attach=1 alice previous=unknown@10"));
}

TEST_F(HubDrain, WhoIsNotExpectedAnywhereIsNotHeldWhenTheStoreIsBack) {
  world.StoreDown();
  world.Say(1, Closed(1, kPhone, "alice"));
  world.Forget();
  world.StoreUp();
  EXPECT_THAT(world.Asked(), Contains("remove e1/0/7.1 attach=1 alice previous=online@10"));
}

// Two cores, and a Redis that was away for longer than the hold: nobody who is back at the other core is shown offline meanwhile.
TEST(HubDrainAcrossCores, WhoIsBackAtAnotherCoreIsNotSeenToLeaveWhenTheStoreComesBack) {
  HubCluster cluster(2);
  HubCluster::Node &one = cluster[0], &two = cluster[1];
  one.Attach(1, 1, {Declared(kPhone, "alice"), Declared(kLaptop, "bob")});
  two.Attach(2, 1, {}, 0xe2);
  cluster.Pass(seconds(20));  // a young store expires nobody
  one.SetReachable(false);
  two.SetReachable(false);
  cluster.Settle();
  one.Say(1, Closed(1, kPhone, "alice", 10'000));
  one.Say(1, Closed(2, kLaptop, "bob", 10'000));
  two.Say(2, Opened(1, kTablet, "alice"));
  cluster.Pass(seconds(15));
  two.Changes();
  one.SetReachable(true);
  cluster.Pass(seconds(1));
  two.SetReachable(true);
  cluster.Pass(seconds(3));
  EXPECT_THAT(two.Changes(), IsEmpty());
  cluster.Pass(seconds(30));
  EXPECT_THAT(two.Changes(), ElementsAre("bob offline")) << "who is not back";
}

TEST_F(HubDrain, AStoreThatHasLostEverythingIsToldAgain) {
  world.Say(1, Closed(1, kPhone, "alice", 10'000));
  world.Answer(Outcome::kApplied);
  world.Pass(seconds(2));
  world.Forget();
  world.StoreDown();
  world.StoreUpWithoutItsState();
  EXPECT_THAT(world.Asked(), Contains("linger e1/0/7.1 attach=1 alice for=8000ms previous=online@10"));
}

TEST_F(HubDrain, AnotherCoresConnectionLingersToo) {
  world.Say(1, Closed(1, kLaptop, "bob", 10'000));
  EXPECT_THAT(world.Asked(), ElementsAre("linger e1/0/8.1 attach=1 bob for=10000ms"));
  world.Answer(Outcome::kApplied);
  world.Tick();
  EXPECT_THAT(world.Sent(1), Contains("ack 1"));
}

// The close is repeated before the end of the declaration: else that would close the connection first, for good.
TEST_F(HubDrain, ACloseThatIsRepeatedAfterALostLinkIsHeardFirst) {
  world.LoseLink(1);
  world.Forget();
  world.OpenLink(2);
  world.Say(2, {Hello(2), Closed(1, kPhone, "alice", 9'000), ResyncDone()});
  EXPECT_THAT(world.Asked(), Contains("linger e1/0/7.1 attach=2 alice for=9000ms previous=online@10"));
  world.ConfirmAll();
  EXPECT_THAT(world.Asked(), Not(Contains(testing::HasSubstr("remove"))));
}

TEST_F(HubDrain, AnEdgeThatIsGivenUpEndsThoseAloneWhomItHasNotSentAway) {
  world.Say(1, Opened(1, kLaptop, "bob"));
  world.Say(1, Closed(2, kPhone, "alice", 20'000));
  world.ConfirmAll();
  world.Forget();
  world.LoseLink(1);
  world.Pass(seconds(6));
  EXPECT_THAT(world.Asked(), ElementsAre("remove e1/0/8.1 attach=1 bob previous=online@10"));
  EXPECT_THAT(world.Reports(), testing::SizeIs(1));
}

TEST_F(HubDrain, AnEdgeThatHasSentEverybodyAwayIsNotMissed) {
  world.Say(1, Closed(1, kPhone, "alice", 20'000));
  world.ConfirmAll();
  world.LoseLink(1);
  world.Pass(seconds(6));
  EXPECT_THAT(world.Reports(), IsEmpty());
  EXPECT_EQ(world.hub().sizes().shards, 0u);
}

// ------------------------------------------------------------- who is sent out for good is not expected back

// On the first core an edge that sends its clients away: alice's phone and laptop, of two sessions, and bob's tablet.
struct HubExpected : testing::Test {
  HubCluster cluster{2};
  HubCluster::Node &one = cluster[0], &two = cluster[1];
  HubExpected() {
    cluster.Pass(seconds(20));  // a young store expires nobody
    one.Attach(1, 1,
               {WithToken(Declared(kPhone, "alice"), "s1", 900), WithToken(Declared(kLaptop, "alice"), "s2", 900),
                Declared(kTablet, "bob")});
    one.Say(1, Closed(1, kPhone, "alice", 20'000));
    one.Say(1, Closed(2, kLaptop, "alice", 20'000));
    one.Say(1, Closed(3, kTablet, "bob", 20'000));
    cluster.Pass(seconds(1));
    cluster.Forget();
  }
};

TEST_F(HubExpected, WhoIsDisconnectedIsOfflineAtOnce) {
  two.Ask(80, Disconnect("alice"));
  EXPECT_THAT(two.Changes(), ElementsAre("alice offline"));
  EXPECT_THAT(two.Answers(), ElementsAre("80 OK c0:0 c1:0")) << "no connection was there to be closed";
  cluster.Pass(seconds(60));
  EXPECT_THAT(two.Changes(), ElementsAre("bob offline"));
  EXPECT_EQ(one.hub().sizes().removals, 0u);
}

TEST_F(HubExpected, WhoIsLoggedOutIsOfflineAtOnce) {
  two.Ask(80, EndSessions("alice", "", 950));
  EXPECT_THAT(two.Changes(), ElementsAre("alice offline"));
}

TEST_F(HubExpected, OneSessionEndsAndTheOtherIsStillExpected) {
  two.Ask(80, EndSessions("alice", "s1", 950));
  EXPECT_THAT(two.Changes(), IsEmpty());
  two.Ask(81, EndSessions("", "s2", 950));
  EXPECT_THAT(two.Changes(), ElementsAre("alice offline"));
}

TEST_F(HubExpected, ATokenOfAfterTheLogoutIsNotConcerned) {
  two.Ask(80, EndSessions("alice", "", 899));
  EXPECT_THAT(two.Changes(), IsEmpty());
}

TEST_F(HubExpected, WhoIsBackAlreadyStays) {
  two.Attach(2, 1, {}, 0xe2);
  two.Say(2, Opened(1, kTablet, "bob"));
  cluster.Forget();
  one.Ask(80, Disconnect("bob"));
  EXPECT_THAT(two.Changes(), IsEmpty()) << "until its edge has closed it";
  two.Say(2, Closed(2, kTablet, "bob"));
  EXPECT_THAT(two.Changes(), ElementsAre("bob offline"));
}

TEST_F(HubDrain, AnEndThatTheStoreHasLostIsToldAgain) {
  world.Say(1, Closed(1, kPhone, "alice", 20'000));
  world.Answer(Outcome::kApplied);
  world.Ask(80, Disconnect("alice"));
  world.LoopBack();
  EXPECT_THAT(world.Asked(), Contains("remove e1/0/7.1 attach=1 alice previous=online@10"));
  world.ConfirmAll(STATUS_OFFLINE, 11);
  world.Forget();
  world.StoreDown();
  world.StoreUpWithoutItsState();
  EXPECT_THAT(world.Asked(), Not(Contains(testing::HasSubstr("linger"))));
  world.ConfirmAll(STATUS_OFFLINE, 11);
  world.Pass(seconds(31));
  EXPECT_EQ(world.hub().sizes().removals, 0u);
}

TEST_F(HubDrain, WhatIsOnItsWayToTheStoreIsOvertaken) {
  world.Say(1, Closed(1, kPhone, "alice", 20'000));
  world.Ask(80, Disconnect("alice"));
  world.LoopBack();
  world.Forget();
  world.Answer(Outcome::kApplied);
  EXPECT_THAT(world.Asked(), ElementsAre("remove e1/0/7.1 attach=1 alice previous=online@10"));
  world.ConfirmAll(STATUS_OFFLINE, 11);
  world.Pass(seconds(31));
  EXPECT_EQ(world.hub().sizes().removals, 0u);
}

// What is remembered of one is forgotten to note the end of the other.
TEST(HubDrainBounded, WhoeverIsNotRememberedAnyMoreIsLeftToItsTime) {
  HubOptions options = HubWorld::DefaultOptions();
  options.removals_max = 2;
  HubWorld world(options);
  world.AttachConfirmed(1, 1, {Declared(kPhone, "alice"), Declared(kLaptop, "alice")});
  world.Say(1, Closed(1, kPhone, "alice", 20'000));
  world.Say(1, Closed(2, kLaptop, "alice", 20'000));
  world.ConfirmAll();
  world.Forget();
  world.Ask(80, Disconnect("alice"));
  world.LoopBack();
  EXPECT_THAT(world.Asked(), Contains(testing::HasSubstr("remove e1/0/8.1")));
  world.ConfirmAll(STATUS_OFFLINE, 11);
  world.Pass(seconds(31));
  EXPECT_EQ(world.hub().sizes().removals, 0u);
}

// The edge has told the client to come back elsewhere just before the order came.
TEST_F(HubDrain, WhoIsOrderedOutIsNotHeldHoweverItsEdgeHasClosedIt) {
  world.Ask(80, Disconnect("alice"));
  world.LoopBack();
  world.Forget();
  world.Say(1, Closed(1, kPhone, "alice", 20'000));
  EXPECT_THAT(world.Asked(), Contains("remove e1/0/7.1 attach=1 alice previous=online@10"));
}

}  // namespace
}  // namespace presence::core
