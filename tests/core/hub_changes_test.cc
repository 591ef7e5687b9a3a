// Presence changes on their way to clients: from the bus, and from the change log what was missed of them.
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
using testing::ElementsAre;
using testing::IsEmpty;

const uint64_t kPhone = ConnectionOf(7);

HubOptions RoomScope() {
  HubOptions options = HubWorld::DefaultOptions();
  options.scope = PresenceScope::kRooms;
  return options;
}

// ---------------------------------------------------------------------------------------------------- changes delivered

TEST(HubChanges, GoToEveryoneOnEveryLink) {
  HubWorld world;
  world.Attach(1, 1, {Declared(kPhone, "alice")}, kEdge, 0);
  world.Attach(2, 1, {}, kEdge, 1);
  world.Bus(Changed("bob", STATUS_AWAY, 50));
  EXPECT_THAT(world.Sent(1), ElementsAre("presence bob@50 away everyone"));
  EXPECT_THAT(world.Sent(2), ElementsAre("presence bob@50 away everyone"));
  EXPECT_EQ(world.hub().counters().presence_changes, 1u);
}

TEST(HubChanges, OlderOnesAndRepetitionsAreDropped) {
  HubWorld world;
  world.Attach(1, 1);
  world.Bus(Changed("bob", STATUS_AWAY, 50));
  world.Bus(Changed("bob", STATUS_ONLINE, 49));
  world.Bus(Changed("bob", STATUS_AWAY, 50));
  world.Bus(Changed("alice", STATUS_ONLINE, 49));
  EXPECT_THAT(world.Sent(1), ElementsAre("presence bob@50 away everyone", "presence alice@49 online everyone"));
}

TEST(HubChanges, InRoomScopeGoToThoseWhoShareARoom) {
  HubWorld world(RoomScope());
  world.Attach(1, 1, {Declared(kPhone, "alice", {"general", "random"})}, kEdge, 0);
  world.Attach(2, 1, {Declared(ConnectionOf(1, 1, 1), "carol", {"lounge"})}, kEdge, 1);
  world.Bus(Changed("bob", STATUS_ONLINE, 50, {"random", "nowhere", "general", "random"}));
  EXPECT_THAT(world.Sent(1), ElementsAre("presence bob@50 online rooms=1,2"));
  EXPECT_THAT(world.Sent(2), IsEmpty());
}

TEST(HubChanges, InRoomScopeAJoinOfTheSameVersionIsDelivered) {
  HubWorld world(RoomScope());
  world.Attach(1, 1, {Declared(kPhone, "alice", {"general", "random"})});
  world.Bus(Changed("bob", STATUS_ONLINE, 50, {"random"}));
  world.Bus(Changed("bob", STATUS_ONLINE, 50, {"general"}));
  EXPECT_THAT(world.Sent(1), ElementsAre("presence bob@50 online rooms=2", "presence bob@50 online rooms=1"));
}

TEST(HubChanges, InRoomScopeJoinsAndLeavesAreWrittenAndAcknowledgedWithTheWrite) {
  HubWorld world(RoomScope());
  world.AttachConfirmed(1, 1, {Declared(kPhone, "alice", {"general"})});
  world.Say(1, Joined(1, kPhone, "random"));
  EXPECT_THAT(world.Asked(), ElementsAre("assert e1/0/7.1 attach=1 alice online rooms=general,random"));
  world.Tick();
  EXPECT_THAT(world.Sent(1), ElementsAre("bind 7.1 random handle=2 reply=1"));
  world.ConfirmAll();
  world.Tick();
  EXPECT_THAT(world.Sent(1), ElementsAre("ack 1"));
  world.Say(1, Left(2, kPhone, "general"));
  EXPECT_THAT(world.Asked(), ElementsAre("assert e1/0/7.1 attach=1 alice online rooms=random"));
}

// --------------------------------------------------------------------------------------------------------- change log

TEST(HubHealing, AShardIsToldWhatItMissedBetweenTwoLinks) {
  HubWorld world;
  world.OpenLink(1);
  world.Say(1, Hello(4, 90'000'000));
  EXPECT_THAT(world.Asked(), IsEmpty());
  world.Say(1, ResyncDone());
  EXPECT_THAT(world.Asked(), ElementsAre("read changes since 85000000"));
  world.Forget();
  world.Attach(2, 1, {}, kEdge, 1);
  world.AnswerRead(ChangeLog{
      true, {LoggedChange("bob", STATUS_AWAY, 90'000'000), LoggedChange("alice", STATUS_OFFLINE, 95'000'000)}});
  EXPECT_THAT(world.Sent(1), ElementsAre("presence alice@95000000 offline everyone"));
  EXPECT_THAT(world.Sent(2), IsEmpty()) << "it alone";
}

TEST(HubHealing, AShardThatWasAwayForTooLongIsToldEverything) {
  HubWorld world;
  world.OpenLink(1);
  world.Say(1, {Hello(4, 90'000'000), ResyncDone()});
  world.Forget();
  world.AnswerRead(ChangeLog{false, {LoggedChange("bob", STATUS_AWAY, 10'000'000)}});
  EXPECT_THAT(world.Sent(1), ElementsAre("presence bob@10000000 away everyone"));
}

TEST(HubHealing, AShardThatHasSeenNothingReadsNothing) {
  HubWorld world;
  world.OpenLink(1);
  world.Say(1, {Hello(1), ResyncDone()});
  EXPECT_THAT(world.Asked(), IsEmpty());
}

TEST(HubHealing, TheBusMayBeFasterThanTheLog) {
  HubWorld world;
  world.OpenLink(1);
  world.Say(1, {Hello(4, 90'000'000), ResyncDone()});
  world.Bus(Changed("bob", STATUS_ONLINE, 99'000'000));
  world.Forget();
  world.AnswerRead(ChangeLog{true, {LoggedChange("bob", STATUS_AWAY, 95'000'000)}});
  EXPECT_THAT(world.Sent(1), IsEmpty()) << "an older status must not follow a newer one";
}

TEST(HubHealing, WhatCameByTheBusSinceHelloIsNotSaidAgain) {
  HubWorld world;
  world.Bus(Changed("carol", STATUS_ONLINE, 96'000'000));
  world.OpenLink(1);
  world.Say(1, Hello(4, 90'000'000));
  world.Bus(Changed("bob", STATUS_ONLINE, 99'000'000));
  world.Say(1, ResyncDone());
  world.Forget();
  world.AnswerRead(ChangeLog{
      true, {LoggedChange("carol", STATUS_ONLINE, 96'000'000), LoggedChange("bob", STATUS_ONLINE, 99'000'000)}});
  EXPECT_THAT(world.Sent(1), ElementsAre("presence carol@96000000 online everyone"));
}

TEST(HubHealing, AReadThatFailsIsRepeated) {
  HubWorld world;
  world.OpenLink(1);
  world.Say(1, {Hello(4, 90'000'000), ResyncDone()});
  world.AnswerRead(absl::UnavailableError("away"));
  world.Forget();
  world.Pass(milliseconds(900));
  EXPECT_THAT(world.Asked(), IsEmpty());
  world.Pass(milliseconds(200));
  EXPECT_THAT(world.Asked(), ElementsAre("read changes since 85000000"));
}

// The subscription broke and came back: what was published in between is in the log.
TEST(HubHealing, AChangeMissedDuringAResubscriptionIsDelivered) {
  HubWorld world;
  world.Attach(1, 1);
  world.Bus(Changed("alice", STATUS_ONLINE, 100'000'000));
  world.Bus(Changed("bob", STATUS_ONLINE, 101'000'000));
  world.StoreDown();
  world.Forget();
  world.StoreUp();
  EXPECT_THAT(world.Asked(), ElementsAre("read changes since 96000000"));
  world.Bus(Changed("dave", STATUS_AWAY, 104'000'000));  // the bus stands before the log is read
  world.Forget();
  world.AnswerRead(
      ChangeLog{true,
                {LoggedChange("alice", STATUS_ONLINE, 100'000'000), LoggedChange("bob", STATUS_OFFLINE, 102'000'000),
                 LoggedChange("carol", STATUS_ONLINE, 103'000'000), LoggedChange("dave", STATUS_AWAY, 104'000'000)}});
  EXPECT_THAT(world.Sent(1),
              ElementsAre("presence bob@102000000 offline everyone", "presence carol@103000000 online everyone"));
  world.Bus(Changed("carol", STATUS_ONLINE, 103'000'000));
  EXPECT_THAT(world.Sent(1), IsEmpty()) << "healed already";
}

TEST(HubHealing, AGapBeforeTheFirstChangeIsHealedFromWhenTheStoreCameUp) {
  HubWorld world;
  world.StoreDown();
  world.StoreUp();
  EXPECT_THAT(world.Asked(), ElementsAre("read changes since 1699999995000000"));
}

TEST(HubHealing, ASecondOutageBeforeTheLogWasReadLosesNothing) {
  HubWorld world;
  world.Bus(Changed("alice", STATUS_ONLINE, 100'000'000));
  world.StoreDown();
  world.StoreUp();
  world.Bus(Changed("bob", STATUS_ONLINE, 150'000'000));
  world.StoreDown();
  world.Forget();
  world.StoreUp();
  EXPECT_THAT(world.Asked(), ElementsAre("read changes since 95000000"));
}

TEST(HubHealing, InRoomScopeGoesToTheRoomsOfTheUserNow) {
  HubWorld world(RoomScope());
  world.OpenLink(1);
  world.Say(1, {Hello(4, 90'000'000), Declared(kPhone, "alice", {"general"}), ResyncDone()});
  world.Forget();
  world.AnswerRead(ChangeLog{true,
                             {LoggedChange("bob", STATUS_AWAY, 95'000'000, {"general"}),
                              LoggedChange("carol", STATUS_AWAY, 95'000'001, {"lounge"})}});
  EXPECT_THAT(world.Sent(1), ElementsAre("presence bob@95000000 away rooms=1"));
}

}  // namespace
}  // namespace presence::core
