// Presence: what the store is told, when, and what becomes of a store that is away.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/hub.h"
#include "tests/fakes/hub_world.h"

namespace presence::core {
namespace {

using link::v1::STATUS_AWAY;
using link::v1::STATUS_OFFLINE;
using link::v1::STATUS_ONLINE;
using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;
using testing::StartsWith;

using Outcome = HubWorld::Outcome;

const uint64_t kPhone = ConnectionOf(7);
const uint64_t kLaptop = ConnectionOf(8);

// -------------------------------------------------------------------------------------------------------------- writes

TEST(HubPresence, ConnectionsAreAssertedAndRemoved) {
  HubWorld world;
  world.Attach(1, 3);
  world.Say(1, Opened(1, kPhone, "alice"));
  world.Say(1, Opened(2, kLaptop, "alice"));
  EXPECT_THAT(world.Asked(),
              ElementsAre("assert e1/0/7.1 attach=3 alice online", "assert e1/0/8.1 attach=3 alice online"));
  world.ConfirmAll(STATUS_ONLINE, 10);
  world.Say(1, StatusSet(3, kPhone, STATUS_AWAY));
  EXPECT_THAT(world.Asked(), ElementsAre("assert e1/0/7.1 attach=3 alice away"));
  world.ConfirmAll(STATUS_ONLINE, 10);
  world.Say(1, Closed(4, kLaptop, "alice"));
  EXPECT_THAT(world.Asked(), ElementsAre("remove e1/0/8.1 attach=3 alice previous=online@10"));
  EXPECT_EQ(world.hub().sizes().users, 1u);
}

TEST(HubPresence, ChangesWhileAWriteIsUnderWayBecomeOne) {
  HubWorld world;
  world.Attach(1, 1);
  world.Say(1, {Opened(1, kPhone, "alice"), StatusSet(2, kPhone, STATUS_AWAY), StatusSet(3, kPhone, STATUS_ONLINE),
                StatusSet(4, kPhone, STATUS_AWAY)});
  EXPECT_THAT(world.Asked(), ElementsAre("assert e1/0/7.1 attach=1 alice online"));
  world.Answer(Outcome::kApplied);
  EXPECT_THAT(world.Asked(), ElementsAre("assert e1/0/7.1 attach=1 alice away"));
  world.Answer(Outcome::kApplied);
  EXPECT_THAT(world.Asked(), IsEmpty());
  EXPECT_TRUE(world.hub().Idle());
}

TEST(HubPresence, ARemovalWaitsForTheAssertBeforeIt) {
  HubWorld world;
  world.Attach(1, 1);
  world.Say(1, {Opened(1, kPhone, "alice"), Closed(2, kPhone, "alice")});
  EXPECT_THAT(world.Asked(), ElementsAre("assert e1/0/7.1 attach=1 alice online"));
  world.Answer(Outcome::kApplied);
  EXPECT_THAT(world.Asked(), ElementsAre("remove e1/0/7.1 attach=1 alice previous=online@10"));
}

TEST(HubPresence, WritesInFlightAreBoundedAndTheRestWaitsItsTurn) {
  HubOptions options = HubWorld::DefaultOptions();
  options.writes_in_flight_max = 2;
  HubWorld world(options);
  world.Attach(1, 1);
  for (uint32_t i = 1; i <= 4; ++i) world.Say(1, Opened(i, ConnectionOf(i), "alice"));
  EXPECT_THAT(world.Asked(), SizeIs(2));
  EXPECT_EQ(world.hub().sizes().writes_waiting, 2u);
  world.Answer(Outcome::kApplied);
  EXPECT_THAT(world.Asked(), ElementsAre("assert e1/0/3.1 attach=1 alice online"));
  world.ConfirmAll();
  EXPECT_THAT(world.Asked(), ElementsAre("assert e1/0/4.1 attach=1 alice online"));
  EXPECT_TRUE(world.hub().Idle());
}

TEST(HubPresence, TheStoreLearnsHowLongAClientHasBeenSilent) {
  HubWorld world;
  world.OpenLink(1);
  world.Say(1, {Hello(1), Declared(kPhone, "alice", {}, STATUS_AWAY, 1500)});
  EXPECT_THAT(world.Asked(), ElementsAre("assert e1/0/7.1 attach=1 alice away silent=1500ms"));
  world.ConfirmAll();
  world.Pass(milliseconds(300));
  world.Say(1, {ResyncDone(), Activity({kPhone})});
  world.Pass(milliseconds(200));
  world.Forget();
  world.Say(1, StatusSet(1, kPhone, STATUS_ONLINE));
  EXPECT_THAT(world.Asked(), ElementsAre("assert e1/0/7.1 attach=1 alice online silent=200ms"));
}

TEST(HubPresence, TheEndOfAConnectionOfAnotherCoreIsPassedOn) {
  HubWorld world;
  world.Attach(1, 4);
  world.Say(1, Closed(9, kPhone, "alice"));
  EXPECT_THAT(world.Asked(), ElementsAre("remove e1/0/7.1 attach=4 alice"));
  world.Tick();
  EXPECT_THAT(world.Sent(1), IsEmpty());
  world.ConfirmAll(STATUS_OFFLINE, 11);
  world.Tick();
  EXPECT_THAT(world.Sent(1), ElementsAre("ack 9"));
}

TEST(HubPresence, WhatAHigherAttachHasTakenOverIsLetBe) {
  HubWorld world;
  world.Attach(1, 1);
  world.Say(1, Opened(1, kPhone, "alice"));
  world.Answer(Outcome::kFenced);
  world.Forget();
  world.Say(1, Activity({kPhone}));
  world.StoreDown();
  world.StoreUpWithoutItsState();
  EXPECT_THAT(world.Asked(), Not(Contains(HasSubstr("e1/0/7.1"))));
  EXPECT_EQ(world.hub().counters().fenced, 1u);
  world.LoseLink(1);
  world.StoreDown();
  world.Attach(2, 5, {Declared(kPhone, "alice")});
  world.StoreUpWithoutItsState();
  EXPECT_THAT(world.Asked(), Contains(StartsWith("reassert e1/0/7.1 attach=5 alice")))
      << "until its shard comes back higher";
}

// --------------------------------------------------------------------------------------------------------- edge grace

TEST(HubGrace, ALostEdgeIsWaitedForAndThenItsConnectionsAreClosed) {
  HubWorld world;
  world.AttachConfirmed(1, 2, {Declared(kLaptop, "bob"), Declared(kPhone, "alice", {"general"})});
  world.LoseLink(1);
  world.Pass(milliseconds(4900));
  EXPECT_THAT(world.Asked(), Not(Contains(HasSubstr("remove"))));
  EXPECT_EQ(world.hub().sizes().connections, 2u);
  world.Pass(milliseconds(100));
  EXPECT_THAT(world.Asked(), ElementsAre("remove e1/0/7.1 attach=2 alice previous=online@10",
                                         "remove e1/0/8.1 attach=2 bob previous=online@10"));
  EXPECT_EQ(world.hub().sizes().connections, 0u);
  EXPECT_EQ(world.hub().sizes().rooms, 0u);
  EXPECT_EQ(world.hub().sizes().shards, 0u);
  EXPECT_EQ(world.hub().counters().edges_expired, 1u);
  EXPECT_THAT(world.Reports(), ElementsAre(HasSubstr("2 connections are closed")));
}

TEST(HubGrace, AnEdgeThatComesBackInTimeLosesNobody) {
  HubWorld world;
  world.AttachConfirmed(1, 1, {Declared(kPhone, "alice")});
  world.LoseLink(1);
  world.Pass(milliseconds(4900));
  world.Attach(2, 2, {Declared(kPhone, "alice")});
  for (int i = 0; i < 10; ++i) {
    world.Say(2, Heartbeat());
    world.Pass(seconds(1));
  }
  EXPECT_THAT(world.Asked(), Not(Contains(HasSubstr("remove"))));
}

// Shard 0 left this core for another one, where it attached as 2. This core notices the loss late, and says that its
// connections are gone: with attach 1, so the store refuses, and this core never says so again.
TEST(HubGrace, ALateRemovalOfTheOldAttachIsFencedAfterAReattachAtAnotherCore) {
  HubWorld world;
  world.AttachConfirmed(1, 1, {Declared(kPhone, "alice")});
  world.Pass(milliseconds(3100));
  EXPECT_THAT(world.Sent(1), Contains("closed UNAVAILABLE"));
  world.Pass(milliseconds(5000));
  EXPECT_THAT(world.Asked(), ElementsAre("remove e1/0/7.1 attach=1 alice previous=online@10"));
  world.Answer(Outcome::kFenced);
  world.StoreDown();
  world.StoreUpWithoutItsState();
  EXPECT_THAT(world.Asked(), Not(Contains(StartsWith("remove"))));
  EXPECT_EQ(world.hub().sizes().removals, 0u) << "nothing is left of it here";
}

// The edge may have gone to another core, which could not say so.
TEST(HubGrace, WhileTheStoreIsAwayNobodyIsGivenUpAndThenTheGraceBeginsAnew) {
  HubWorld world;
  world.AttachConfirmed(1, 2, {Declared(kPhone, "alice")});
  world.LoseLink(1);
  world.Pass(milliseconds(4000));
  world.StoreDown();
  world.Pass(seconds(10));
  EXPECT_EQ(world.hub().sizes().connections, 1u);
  world.StoreUp();
  world.Pass(milliseconds(4900));
  EXPECT_THAT(world.Asked(), Not(Contains(HasSubstr("remove"))));
  world.Pass(milliseconds(200));
  EXPECT_THAT(world.Asked(), Contains(StartsWith("remove e1/0/7.1")));
}

// The core stops, and takes longer than EDGE_GRACE: its edges are on their way to another core.
TEST(HubGrace, ACoreThatStopsJudgesNobody) {
  HubWorld world;
  world.AttachConfirmed(1, 1, {Declared(kPhone, "alice")}, kEdge, 0);
  world.AttachConfirmed(2, 1, {Declared(ConnectionOf(1, 1, 1), "bob")}, kEdge, 1);
  world.LoseLink(1);
  world.hub().StopJudging();
  world.Pass(seconds(10));
  EXPECT_THAT(world.Asked(), Not(Contains(HasSubstr("remove"))));
  EXPECT_THAT(world.Sent(2), Not(Contains(StartsWith("closed"))));
  EXPECT_EQ(world.hub().sizes().connections, 2u);
}

// ------------------------------------------------------------------------------------------------------ a store away

TEST(HubOutage, WhatHappensMeanwhileIsWrittenAsReassertsOnReturn) {
  HubWorld world;
  world.AttachConfirmed(1, 1, {Declared(kPhone, "alice")});
  world.StoreDown();
  world.Say(1, {StatusSet(1, kPhone, STATUS_AWAY), Opened(2, kLaptop, "bob")});
  world.Tick();
  EXPECT_THAT(world.Asked(), IsEmpty());
  EXPECT_THAT(world.Sent(1), IsEmpty()) << "not acknowledged";
  EXPECT_FALSE(world.hub().Idle());
  world.StoreUp();
  EXPECT_THAT(world.Asked(),
              ElementsAre(StartsWith("read changes"), "reassert e1/0/7.1 attach=1 alice away previous=online@10",
                          "reassert e1/0/8.1 attach=1 bob online"));
  world.ConfirmAll();
  world.Tick();
  EXPECT_THAT(world.Sent(1), ElementsAre("ack 2"));
  EXPECT_TRUE(world.hub().Idle());
}

TEST(HubOutage, EveryoneIsReassertedWithWhatWasLastKnownThroughTheSameWindow) {
  HubOptions options = HubWorld::DefaultOptions();
  options.writes_in_flight_max = 1;
  HubWorld world(options);
  world.AttachConfirmed(1, 1, {Declared(kPhone, "alice"), Declared(kLaptop, "bob")});
  world.Bus(Changed("bob", STATUS_AWAY, 77));  // another device of his, at another core
  world.StoreDown();
  world.StoreUpWithoutItsState();
  EXPECT_THAT(world.Asked(),
              ElementsAre(StartsWith("read changes"), "reassert e1/0/7.1 attach=1 alice online previous=online@10"));
  world.Answer(Outcome::kApplied);
  EXPECT_THAT(world.Asked(), ElementsAre("reassert e1/0/8.1 attach=1 bob online previous=away@77"));
  EXPECT_EQ(world.hub().counters().reasserted, 2u);
}

TEST(HubOutage, AWriteInFlightWhenItWentAwayIsRepeated) {
  HubWorld world;
  world.Attach(1, 1);
  world.Say(1, Opened(1, kPhone, "alice"));
  world.StoreDown();
  world.Answer(Outcome::kUnavailable);
  world.Forget();
  world.StoreUp();
  EXPECT_THAT(world.Asked(), Contains("reassert e1/0/7.1 attach=1 alice online"));
}

TEST(HubOutage, AStoreThatRefusesIsNotAskedInACircle) {
  HubWorld world;
  world.Attach(1, 1);
  world.Say(1, Opened(1, kPhone, "alice"));
  world.Answer(Outcome::kUnavailable);
  world.Forget();
  world.Pass(milliseconds(900));
  EXPECT_THAT(world.Asked(), IsEmpty());
  world.Pass(milliseconds(200));
  EXPECT_THAT(world.Asked(), ElementsAre(StartsWith("reassert e1/0/7.1 attach=1 alice online")));
}

TEST(HubOutage, RemovalsOfTheLastHalfMinuteAreRepeatedSinceTheStoreMayHaveLostThem) {
  HubWorld world;
  world.AttachConfirmed(1, 1, {Declared(kPhone, "alice"), Declared(kLaptop, "bob")});
  world.Say(1, Closed(1, kPhone, "alice"));
  world.ConfirmAll(STATUS_OFFLINE, 11);
  for (int i = 0; i < 20; ++i) {
    world.Pass(seconds(1));
    world.Say(1, Heartbeat());
  }
  world.StoreDown();
  for (int i = 0; i < 60; ++i) {  // its absence does not count: what it lost was written just before
    world.Pass(seconds(1));
    world.Say(1, Heartbeat());
  }
  world.Forget();
  world.StoreUpWithoutItsState();
  EXPECT_THAT(world.Asked(), Contains("remove e1/0/7.1 attach=1 alice previous=offline@11"));
  EXPECT_EQ(world.hub().sizes().removals, 1u);
  world.ConfirmAll(STATUS_OFFLINE, 11);
  for (int i = 0; i < 29; ++i) {
    world.Pass(seconds(1));
    world.Say(1, Heartbeat());
  }
  EXPECT_EQ(world.hub().sizes().removals, 1u) << "the repetition may be lost like the first one";
  world.Pass(seconds(2));
  EXPECT_EQ(world.hub().sizes().removals, 0u) << "30 s old now, and forgotten";
  world.StoreDown();
  world.Forget();
  world.StoreUpWithoutItsState();
  EXPECT_THAT(world.Asked(), Not(Contains(StartsWith("remove"))));
}

// The store has lost that bob is there by a device of another core: it must not take him for gone before that one says so.
TEST(HubOutage, ARepeatedRemovalDoesNotCallAUserGoneWhoIsThereByAnotherDevice) {
  HubWorld world;
  world.AttachConfirmed(1, 1, {Declared(kPhone, "alice"), Declared(kLaptop, "bob")});
  world.Say(1, Closed(1, kLaptop, "bob"));
  world.ConfirmAll(STATUS_OFFLINE, 11);
  world.Bus(Changed("bob", STATUS_AWAY, 12));  // he is there by another core
  world.StoreDown();
  world.Forget();
  world.StoreUpWithoutItsState();
  EXPECT_THAT(world.Asked(), Contains("remove e1/0/8.1 attach=1 bob previous=unknown@12"));
  world.ConfirmAll(STATUS_ONLINE, 13);
  world.Say(1, {Opened(2, ConnectionOf(1), "bob")});
  world.ConfirmAll(STATUS_ONLINE, 14);
  world.StoreDown();
  world.Say(1, Closed(3, ConnectionOf(1), "bob"));
  world.Forget();
  world.StoreUpWithoutItsState();
  EXPECT_THAT(world.Asked(), Contains("remove e1/0/1.1 attach=1 bob previous=online@14"))
      << "this one was not confirmed";
}

TEST(HubOutage, ARemovalIsWrittenBehindTheOtherDevicesOfItsUserThatTheStoreHasLost) {
  HubOptions options = HubWorld::DefaultOptions();
  options.writes_in_flight_max = 1;
  HubWorld world(options);
  world.AttachConfirmed(1, 1, {Declared(kPhone, "alice"), Declared(kLaptop, "bob"), Declared(ConnectionOf(9), "bob")});
  world.StoreDown();
  world.Say(1, Closed(1, kLaptop, "bob"));  // awaited: it would go first
  world.Forget();
  world.StoreUpWithoutItsState();
  EXPECT_THAT(world.Asked(),
              ElementsAre(StartsWith("read changes"), "reassert e1/0/9.1 attach=1 bob online previous=online@10",
                          "remove e1/0/8.1 attach=1 bob previous=online@10"));
}

TEST(HubOutage, ARemovalIsForgottenAfterHalfAMinute) {
  HubWorld world;
  world.AttachConfirmed(1, 1, {Declared(kPhone, "alice")});
  world.Say(1, Closed(1, kPhone, "alice"));
  world.ConfirmAll(STATUS_OFFLINE, 11);
  EXPECT_EQ(world.hub().sizes().removals, 1u);
  world.Pass(milliseconds(29'900));
  EXPECT_EQ(world.hub().sizes().removals, 1u);
  world.Pass(milliseconds(200));
  EXPECT_EQ(world.hub().sizes().removals, 0u);
}

TEST(HubOutage, EndsThatTheStoreCannotHearAreBoundedAndTheRestIsLeftToTheSweep) {
  HubOptions options = HubWorld::DefaultOptions();
  options.removals_max = 3;
  HubWorld world(options);
  world.AttachConfirmed(1, 1, {Declared(kPhone, "alice")});
  world.StoreDown();
  world.Say(1, Closed(1, kPhone, "alice"));
  uint64_t sequence = 1;
  for (uint32_t i = 1; i <= 10; ++i) {
    world.Say(1, Opened(++sequence, ConnectionOf(8, i), "bob"));
    world.Say(1, Closed(++sequence, ConnectionOf(8, i), "bob"));
  }
  EXPECT_EQ(world.hub().sizes().removals, 3u);
  EXPECT_EQ(world.hub().counters().removals_forgotten, 8u);
  world.Forget();
  world.StoreUp();
  EXPECT_THAT(world.Asked(),
              ElementsAre(StartsWith("read changes"), "remove e1/0/7.1 attach=1 alice previous=online@10",
                          "remove e1/0/8.1 attach=1 bob", "remove e1/0/8.2 attach=1 bob"));
  world.ConfirmAll(STATUS_OFFLINE, 11);
  world.Tick();
  EXPECT_THAT(world.Sent(1), ElementsAre("ack 21"));
}

TEST(HubOutage, RememberedRemovalsGiveWayToNewOnes) {
  HubOptions options = HubWorld::DefaultOptions();
  options.removals_max = 2;
  HubWorld world(options);
  world.Attach(1, 1);
  for (uint32_t i = 1; i <= 10; ++i) {
    world.Say(1, Closed(i, ConnectionOf(i), "alice"));
    world.ConfirmAll(STATUS_OFFLINE, 11);
    world.Pass(milliseconds(100));
    world.Say(1, Heartbeat());
  }
  EXPECT_LE(world.hub().sizes().removals, 2u);
}

TEST(HubOutage, ARepeatedRemovalThatIsFencedIsForgotten) {
  HubWorld world;
  world.AttachConfirmed(1, 1, {Declared(kPhone, "alice")});
  world.Say(1, Closed(1, kPhone, "alice"));
  world.ConfirmAll(STATUS_OFFLINE, 11);
  world.StoreDown();
  world.StoreUpWithoutItsState();
  EXPECT_EQ(world.hub().sizes().removals, 1u);
  world.Answer(Outcome::kFenced);
  EXPECT_EQ(world.hub().sizes().removals, 0u);
}

TEST(HubOutage, SweepsOnceASecondWhileTheStoreIsUp) {
  HubWorld world;
  const int before = world.sweeps();
  world.Pass(seconds(5));
  EXPECT_EQ(world.sweeps() - before, 5);
  world.StoreDown();
  world.Pass(seconds(5));
  EXPECT_EQ(world.sweeps() - before, 5);
}

// The subscription broke and came back: the store has all that it has confirmed.
TEST(HubOutage, AStoreThatWasOnlyAwayHearsAgainWhatItDidNotConfirmAndNothingElse) {
  HubWorld world;
  world.AttachConfirmed(1, 1,
                        {Declared(kPhone, "alice"), Declared(kLaptop, "bob"), Declared(ConnectionOf(9), "carol")});
  world.Say(1, Closed(1, ConnectionOf(9), "carol"));
  world.ConfirmAll(STATUS_OFFLINE, 11);
  world.Say(1, StatusSet(2, kLaptop, STATUS_AWAY));
  world.StoreDown();
  world.Answer(Outcome::kUnavailable);
  world.Forget();
  world.StoreUp();
  EXPECT_THAT(world.Asked(),
              ElementsAre(StartsWith("read changes"), "reassert e1/0/8.1 attach=1 bob away previous=online@10"));
  world.ConfirmAll(STATUS_AWAY, 12);
  world.Say(1, Activity({kPhone, kLaptop}));
  EXPECT_THAT(world.Asked(), ElementsAre("refresh e1/0/7.1@1 e1/0/8.1@1")) << "which finds what has expired";
}

TEST(HubOutage, WhatClientsDoGoesInFrontOfMereRepetitions) {
  HubOptions options = HubWorld::DefaultOptions();
  options.writes_in_flight_max = 1;
  HubWorld world(options);
  world.AttachConfirmed(
      1, 1, {Declared(ConnectionOf(1), "alice"), Declared(ConnectionOf(2), "bob"), Declared(ConnectionOf(3), "carol")});
  world.StoreDown();
  world.StoreUpWithoutItsState();
  world.Say(1, {Opened(1, kPhone, "dave"), StatusSet(2, ConnectionOf(3), STATUS_AWAY)});
  world.ConfirmAll();
  EXPECT_THAT(
      world.Asked(),
      ElementsAre(StartsWith("read changes"), StartsWith("reassert e1/0/1.1"), "assert e1/0/7.1 attach=1 dave online",
                  "reassert e1/0/3.1 attach=1 carol away previous=online@10", StartsWith("reassert e1/0/2.1")));
  EXPECT_TRUE(world.hub().Idle());
}

TEST(HubOutage, RepetitionsAreNotKeptOutByClientsForGood) {
  HubOptions options = HubWorld::DefaultOptions();
  options.writes_in_flight_max = 1;
  HubWorld world(options);
  world.AttachConfirmed(1, 1, {Declared(ConnectionOf(1), "alice"), Declared(ConnectionOf(2), "bob")});
  world.StoreDown();
  world.StoreUpWithoutItsState();
  world.Say(1, Opened(1, ConnectionOf(10), "carol"));
  for (uint32_t i = 2; i <= 20; ++i) {  // one more before each answer: those who are awaited never run out
    world.Say(1, Opened(i, ConnectionOf(9 + i), "carol"));
    world.Answer(Outcome::kApplied);
  }
  EXPECT_THAT(world.Asked(), Contains(StartsWith("reassert e1/0/2.1")));
}

TEST(HubOutage, AShardThatSaysMoreThanCanBeAwaitedIsSentToResync) {
  HubOptions options = HubWorld::DefaultOptions();
  options.awaiting_max = 3;
  HubWorld world(options);
  world.AttachConfirmed(1, 1, {Declared(kPhone, "alice")});
  world.StoreDown();
  for (uint32_t i = 1; i <= 3; ++i) world.Say(1, StatusSet(i, kPhone, i % 2 == 0 ? STATUS_ONLINE : STATUS_AWAY));
  EXPECT_THAT(world.Sent(1), IsEmpty());
  world.Say(1, StatusSet(4, kPhone, STATUS_ONLINE));
  EXPECT_THAT(world.Sent(1), ElementsAre("closed RESOURCE_EXHAUSTED"));
  world.AttachConfirmed(2, 2, {Declared(kPhone, "alice")});
  world.StoreUp();
  world.ConfirmAll();
  EXPECT_EQ(world.hub().sizes().connections, 1u) << "nobody is lost by it";
  EXPECT_TRUE(world.hub().Idle());
}

// ----------------------------------------------------------------------------------------------------------- refreshes

TEST(HubRefresh, OneForEachReportOfActivity) {
  HubWorld world;
  world.AttachConfirmed(1, 1,
                        {Declared(kPhone, "alice"), Declared(kLaptop, "bob"), Declared(ConnectionOf(9), "carol")});
  world.Say(1, Activity({kPhone}, {kLaptop}));
  EXPECT_THAT(world.Asked(), ElementsAre("refresh e1/0/7.1@1 e1/0/8.1@1(ping)"));
}

TEST(HubRefresh, NotOfWhatTheStoreDoesNotHaveYet) {
  HubWorld world;
  world.AttachConfirmed(1, 1, {Declared(kPhone, "alice")});
  world.Say(1, {Opened(1, kLaptop, "bob"), StatusSet(2, kPhone, STATUS_AWAY)});
  world.Forget();
  world.Say(1, Activity({kPhone, kLaptop}));
  EXPECT_THAT(world.Asked(), IsEmpty());
}

// The store has ended an entry: this core's link may be the remains of an edge that is gone. A re-assert at once would
// bring a dead user back; one after a further frame has arrived will not.
TEST(HubRefresh, AMissingEntryIsReassertedOnlyAfterTheLinkHasProvenAlive) {
  HubWorld world;
  world.AttachConfirmed(1, 1, {Declared(kPhone, "alice"), Declared(kLaptop, "bob")});
  world.Say(1, Activity({kPhone, kLaptop}));
  world.Forget();
  world.AnswerRefresh({1});
  world.Pass(seconds(1));
  EXPECT_THAT(world.Asked(), IsEmpty());
  world.Say(1, Heartbeat());
  EXPECT_THAT(world.Asked(), ElementsAre("reassert e1/0/8.1 attach=1 bob online silent=1000ms previous=online@10"));
  world.ConfirmAll();
  world.Say(1, Heartbeat());
  EXPECT_THAT(world.Asked(), IsEmpty()) << "once";
}

TEST(HubRefresh, ALinkThatDiesAfterTheAnswerResurrectsNobody) {
  HubWorld world;
  world.AttachConfirmed(1, 1, {Declared(kPhone, "alice")});
  world.Say(1, Activity({kPhone}));
  world.Forget();
  world.AnswerRefresh({0});
  world.Pass(seconds(10));
  EXPECT_THAT(world.Asked(), ElementsAre("remove e1/0/7.1 attach=1 alice previous=online@10"));
}

TEST(HubRefresh, AClosedConnectionIsNotResurrectedByALateAnswer) {
  HubWorld world;
  world.AttachConfirmed(1, 1, {Declared(kPhone, "alice")});
  world.Say(1, {Activity({kPhone}), Closed(1, kPhone, "alice")});
  world.ConfirmAll(STATUS_OFFLINE, 11);
  world.Forget();
  world.AnswerRefresh({0});
  world.Say(1, {Heartbeat(), Opened(2, ConnectionOf(7, 2), "bob")});
  EXPECT_THAT(world.Asked(), ElementsAre("assert e1/0/7.2 attach=1 bob online"));
}

TEST(HubRefresh, AnAnswerForAnEarlierLinkOfTheShardIsVoid) {
  HubWorld world;
  world.AttachConfirmed(1, 1, {Declared(kPhone, "alice")});
  world.Say(1, Activity({kPhone}));
  world.LoseLink(1);
  world.AttachConfirmed(2, 2, {Declared(kPhone, "alice")});
  world.AnswerRefresh({0});
  world.Say(2, Heartbeat());
  EXPECT_THAT(world.Asked(), IsEmpty());
}

TEST(HubRefresh, WhatALinkAwaitsGoesWithIt) {
  HubWorld world;
  world.AttachConfirmed(1, 1, {Declared(kPhone, "alice")}, kEdge, 0);
  world.AttachConfirmed(2, 1, {Declared(ConnectionOf(1, 1, 1), "bob")}, kEdge, 1);
  world.Say(1, {Activity({kPhone}), Activity({kPhone})});
  world.Say(2, Activity({ConnectionOf(1, 1, 1)}));
  EXPECT_EQ(world.hub().sizes().refreshes_unanswered, 3u);
  world.LoseLink(1);
  EXPECT_EQ(world.hub().sizes().refreshes_unanswered, 1u);
}

TEST(HubRefresh, AStalledStoreIsNotGivenMoreAndMore) {
  HubWorld world;
  world.AttachConfirmed(1, 1, {Declared(kPhone, "alice")});
  for (int i = 0; i < 20; ++i) world.Say(1, Activity({kPhone}));
  EXPECT_THAT(world.Asked(), SizeIs(4));
}

}  // namespace
}  // namespace presence::core
