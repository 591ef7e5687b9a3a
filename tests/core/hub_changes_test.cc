// Presence changes on their way to clients: from the bus, and from the change log what was missed of them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "core/hub.h"
#include "tests/fakes/hub_world.h"

namespace presence::core {
namespace {

using link::v1::STATUS_AWAY;
using link::v1::STATUS_OFFLINE;
using link::v1::STATUS_ONLINE;
using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::AllOf;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;
using testing::StartsWith;

const uint64_t kPhone = ConnectionOf(7);

HubOptions RoomScope() {
  HubOptions options = HubWorld::DefaultOptions();
  options.scope = PresenceScope::kRooms;
  return options;
}

// The shard of this link comes back with a connection, having been told of everything up to that version.
void ComesBack(HubWorld& world, uint64_t link, uint64_t watermark) {
  world.OpenLink(link);
  world.Say(link, {Hello(4, watermark), Declared(kPhone, "alice"), ResyncDone()});
  world.ConfirmAll();
}

// Of users user00000, user00001 and so on.
std::string Numbered(int number) {
  std::string digits = std::to_string(number);
  return "user" + std::string(5 - digits.size(), '0') + digits;
}
ChangeLog LogOf(int users, uint64_t version) {
  ChangeLog log;
  for (int i = 0; i < users; ++i) log.changes.push_back(LoggedChange(Numbered(i), STATUS_ONLINE, version));
  return log;
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
  world.Say(1, Hello(4, 1'090'000'000));
  EXPECT_THAT(world.Asked(), IsEmpty());
  world.Say(1, {Declared(kPhone, "erin"), ResyncDone()});
  EXPECT_THAT(world.Asked(), Contains("read changes since 1085000000"));
  world.Forget();
  world.Attach(2, 1, {}, kEdge, 1);
  world.AnswerRead(ChangeLog{
      true, {LoggedChange("bob", STATUS_AWAY, 1'085'000'000), LoggedChange("alice", STATUS_OFFLINE, 1'095'000'000)}});
  EXPECT_THAT(world.Sent(1), ElementsAre("presence alice@1095000000 offline everyone"));
  EXPECT_THAT(world.Sent(2), IsEmpty()) << "it alone";
}

TEST(HubHealing, AShardThatWasAwayForTooLongIsToldOfEveryoneButThoseWhoHaveNotChanged) {
  HubWorld world;
  ComesBack(world, 1, 1'090'000'000);
  world.Forget();
  world.AnswerRead(ChangeLog{
      false, {LoggedChange("bob", STATUS_AWAY, 1'010'000'000), LoggedChange("carol", STATUS_AWAY, 1'095'000'000)}});
  EXPECT_THAT(world.Sent(1), ElementsAre("presence carol@1095000000 away everyone"));
}

// Its last core had lost the bus for a moment, and died before it read what it had missed, just before the watermark.
TEST(HubHealing, AShardIsToldWhatItsLastCoreMissedJustBeforeTheWatermark) {
  HubWorld world;
  ComesBack(world, 1, 1'090'000'000);
  world.Forget();
  world.AnswerRead(ChangeLog{
      true, {LoggedChange("bob", STATUS_AWAY, 1'085'000'000), LoggedChange("carol", STATUS_OFFLINE, 1'085'000'001)}});
  EXPECT_THAT(world.Sent(1), ElementsAre("presence carol@1085000001 offline everyone"));
}

TEST(HubHealing, AShardWithoutConnectionsReadsNothing) {
  HubWorld world;
  world.OpenLink(1);
  world.Say(1, {Hello(4, 1'090'000'000), ResyncDone()});
  EXPECT_THAT(world.Asked(), IsEmpty());
}

// Its clients came before it found a core. They may have read statuses elsewhere.
TEST(HubHealing, AShardThatWasNeverAttachedIsToldWhatItsConnectionsMayHaveMissed) {
  HubWorld world;
  world.Bus(Changed("bob", STATUS_ONLINE, 1'000'000'000));
  world.OpenLink(1);
  world.Say(1, {Hello(1), Declared(kPhone, "alice"), ResyncDone()});
  EXPECT_THAT(world.Sent(1), ElementsAre("welcome watermark=940000000")) << "should this link be lost at once";
  EXPECT_THAT(world.Asked(), Contains("read changes since 935000000"));
  world.AnswerRead(ChangeLog{true, {LoggedChange("carol", STATUS_OFFLINE, 950'000'000)}});
  EXPECT_THAT(world.Sent(1), ElementsAre("presence carol@950000000 offline everyone"));
  world.Tick();
  EXPECT_THAT(world.Sent(1), ElementsAre("ack 0 watermark=1000000000"));
}

TEST(HubHealing, ALinkFromBeforeTheStoreWasUpMissesNothing) {
  HubWorld world(HubWorld::DefaultOptions(), HubWorld::StoreAtStart::kAway);
  world.OpenLink(1);
  world.Say(1, {Hello(1), ResyncDone()});
  for (int i = 0; i < 60; ++i) {
    world.Pass(seconds(1));
    world.Say(1, Heartbeat());
  }
  world.StoreUp();
  EXPECT_THAT(world.Asked(), ElementsAre("read changes since 990000000")) << "from the Hello on";
}

TEST(HubHealing, TheBusMayBeFasterThanTheLog) {
  HubWorld world;
  world.OpenLink(1);
  ComesBack(world, 1, 1'090'000'000);
  world.Bus(Changed("bob", STATUS_ONLINE, 1'099'000'000));
  world.Forget();
  world.AnswerRead(ChangeLog{true, {LoggedChange("bob", STATUS_AWAY, 1'095'000'000)}});
  EXPECT_THAT(world.Sent(1), IsEmpty()) << "an older status must not follow a newer one";
}

TEST(HubHealing, WhatCameByTheBusSinceHelloIsNotSaidAgain) {
  HubWorld world;
  world.Bus(Changed("carol", STATUS_ONLINE, 1'096'000'000));
  world.OpenLink(1);
  world.Say(1, Hello(4, 1'090'000'000));
  world.Bus(Changed("bob", STATUS_ONLINE, 1'099'000'000));
  world.Say(1, {Declared(kPhone, "erin"), ResyncDone()});
  world.Forget();
  world.AnswerRead(ChangeLog{
      true, {LoggedChange("carol", STATUS_ONLINE, 1'096'000'000), LoggedChange("bob", STATUS_ONLINE, 1'099'000'000)}});
  EXPECT_THAT(world.Sent(1), ElementsAre("presence carol@1096000000 online everyone"));
}

TEST(HubHealing, AReadThatFailsIsRepeated) {
  HubWorld world;
  world.OpenLink(1);
  ComesBack(world, 1, 1'090'000'000);
  world.AnswerRead(absl::UnavailableError("away"));
  world.Forget();
  world.Pass(milliseconds(900));
  EXPECT_THAT(world.Asked(), IsEmpty());
  world.Pass(milliseconds(200));
  EXPECT_THAT(world.Asked(), ElementsAre("read changes since 1085000000"));
}

// The subscription broke and came back: what was published in between is in the log.
TEST(HubHealing, AChangeMissedDuringAResubscriptionIsDelivered) {
  HubWorld world;
  world.Attach(1, 1);
  world.Bus(Changed("alice", STATUS_ONLINE, 1'100'000'000));
  world.Bus(Changed("bob", STATUS_ONLINE, 1'101'000'000));
  world.StoreDown();
  world.Forget();
  world.StoreUp();
  EXPECT_THAT(world.Asked(), ElementsAre("read changes since 1096000000"));
  world.Bus(Changed("dave", STATUS_AWAY, 1'104'000'000));  // the bus stands before the log is read
  world.Forget();
  world.AnswerRead(ChangeLog{
      true,
      {LoggedChange("alice", STATUS_ONLINE, 1'100'000'000), LoggedChange("bob", STATUS_OFFLINE, 1'102'000'000),
       LoggedChange("carol", STATUS_ONLINE, 1'103'000'000), LoggedChange("dave", STATUS_AWAY, 1'104'000'000)}});
  EXPECT_THAT(world.Sent(1),
              ElementsAre("presence bob@1102000000 offline everyone", "presence carol@1103000000 online everyone"));
  world.Bus(Changed("carol", STATUS_ONLINE, 1'103'000'000));
  EXPECT_THAT(world.Sent(1), IsEmpty()) << "healed already";
}

TEST(HubHealing, AnIncompleteLogSaysNothingOfThoseWhoHaveNotChanged) {
  HubWorld world;
  world.Attach(1, 1);
  world.Bus(Changed("alice", STATUS_ONLINE, 1'100'000'000));
  world.StoreDown();
  world.StoreUp();
  world.Forget();
  world.AnswerRead(ChangeLog{
      false, {LoggedChange("bob", STATUS_ONLINE, 1'095'000'000), LoggedChange("carol", STATUS_ONLINE, 1'097'000'000)}});
  EXPECT_THAT(world.Sent(1), ElementsAre("presence carol@1097000000 online everyone"));
}

TEST(HubHealing, AGapBeforeTheFirstChangeIsHealedFromWhenTheStoreCameUp) {
  HubWorld world;
  world.StoreDown();
  world.StoreUp();
  EXPECT_THAT(world.Asked(), ElementsAre("read changes since 990000000"));
}

TEST(HubHealing, ASecondOutageBeforeTheLogWasReadLosesNothing) {
  HubWorld world;
  world.Bus(Changed("alice", STATUS_ONLINE, 1'100'000'000));
  world.StoreDown();
  world.StoreUp();
  world.Bus(Changed("bob", STATUS_ONLINE, 1'150'000'000));
  world.StoreDown();
  world.Forget();
  world.StoreUp();
  EXPECT_THAT(world.Asked(), ElementsAre("read changes since 1095000000"));
}

// --------------------------------------------------------------------------------------------------------- a long log

TEST(HubPages, ALongLogGoesOutInPagesThatTheLinkCanCarry) {
  HubWorld world;
  ComesBack(world, 1, 1'090'000'000);
  world.Attach(2, 1, {Declared(ConnectionOf(1, 1, 1), "erin")}, kEdge, 1);
  world.Bus(Changed("zoe", STATUS_AWAY, 1'100'000'000));
  world.Forget();
  world.AnswerRead(LogOf(4'500, 1'095'000'000));
  EXPECT_THAT(world.Sent(1), SizeIs(2'000));
  world.Pass(milliseconds(100));
  EXPECT_THAT(world.Sent(1), SizeIs(2'000));
  world.Pass(milliseconds(100));
  const HubWorld::Lines last = world.Sent(1);
  ASSERT_THAT(last, AllOf(SizeIs(501), Contains("presence user04499@1095000000 online everyone")));
  EXPECT_THAT(last.back(), "ack 0 watermark=1100000000") << "only now, behind the last of it";
  EXPECT_THAT(world.Sent(2), Not(Contains(StartsWith("presence")))) << "it alone";
}

TEST(HubPages, WhatTheCoreItselfHasMissedGoesToAllInPagesAndTheLinksOwnBehindIt) {
  HubWorld world;
  world.Attach(1, 1, {Declared(kPhone, "alice")});
  world.StoreDown();
  world.StoreUp();
  ComesBack(world, 2, 1'090'000'000);
  world.Forget();
  world.AnswerRead(LogOf(2'500, 1'095'000'000));
  EXPECT_THAT(world.Sent(2), SizeIs(2'000));
  world.AnswerRead(ChangeLog{true, {LoggedChange("bob", STATUS_OFFLINE, 1'095'000'000)}});
  EXPECT_THAT(world.Sent(2), IsEmpty()) << "the page is full";
  world.Tick();
  EXPECT_THAT(world.Sent(2), AllOf(SizeIs(502), Contains("presence bob@1095000000 offline everyone")));
}

// However long ago: this core remembers 15 s of versions, and a log may take longer.
TEST(HubPages, AnOlderStatusDoesNotFollowANewerOneThatOvertookIt) {
  HubWorld world;
  ComesBack(world, 1, 1'090'000'000);
  world.AnswerRead(LogOf(2'003, 1'095'000'000));
  world.Bus(Changed(Numbered(2'000), STATUS_AWAY, 1'100'000'000));
  world.Bus(Changed(Numbered(2'001), STATUS_ONLINE, 1'095'000'000));
  world.Bus(Changed("zoe", STATUS_AWAY, 1'200'000'000));
  world.Forget();
  world.Tick();
  EXPECT_THAT(world.Sent(1),
              ElementsAre("presence user02002@1095000000 online everyone", "ack 0 watermark=1200000000"));
}

TEST(HubPages, AStoreThatGoesAwayBetweenThemIsReadAgain) {
  HubWorld world;
  ComesBack(world, 1, 1'090'000'000);
  world.AnswerRead(LogOf(3'000, 1'095'000'000));
  world.StoreDown();
  world.Forget();
  world.StoreUp();
  EXPECT_THAT(world.Asked(), ElementsAre("read changes since 990000000", "read changes since 1085000000"));
  world.Tick();
  EXPECT_THAT(world.Sent(1), IsEmpty()) << "what was read is old";
  world.AnswerRead(ChangeLog{});
  world.AnswerRead(ChangeLog{true, {LoggedChange(Numbered(2'500), STATUS_OFFLINE, 1'096'000'000)}});
  EXPECT_THAT(world.Sent(1), ElementsAre("presence user02500@1096000000 offline everyone"));
}

// ---------------------------------------------------------------------------------------------------------- watermark

TEST(HubWatermark, AShardIsToldAtMostOnceASecondHowFarItHasBeenTold) {
  HubWorld world;
  world.Attach(1, 1, {Declared(kPhone, "alice")});
  world.Bus(Changed("bob", STATUS_AWAY, 1'100'000'000));
  world.Forget();
  world.Pass(milliseconds(900));
  EXPECT_THAT(world.Sent(1), IsEmpty());
  world.Bus(Changed("bob", STATUS_ONLINE, 1'101'000'000));
  world.Pass(milliseconds(200));
  EXPECT_THAT(world.Sent(1), ElementsAre("presence bob@1101000000 online everyone", "ack 0 watermark=1101000000"));
  world.Say(1, Heartbeat());
  world.Pass(milliseconds(2'500));
  EXPECT_THAT(world.Sent(1), ElementsAre("heartbeat", "heartbeat")) << "no news";
}

TEST(HubWatermark, ComesWithTheAcknowledgementAndDoesNotChangeIt) {
  HubWorld world;
  world.AttachConfirmed(1, 1);
  world.Say(1, Opened(7, kPhone, "alice"));
  world.ConfirmAll();
  world.Bus(Changed("bob", STATUS_AWAY, 1'100'000'000));
  world.Pass(seconds(1));
  EXPECT_THAT(world.Sent(1), AllOf(Contains("ack 7"), Contains("ack 7 watermark=1100000000")));
}

TEST(HubWatermark, StandsWhileTheShardOrItsCoreHasSomethingToCatchUpWith) {
  HubWorld world;
  ComesBack(world, 1, 1'090'000'000);
  world.Bus(Changed("bob", STATUS_AWAY, 1'100'000'000));
  world.Pass(seconds(2));
  EXPECT_THAT(world.Sent(1), Not(Contains(HasSubstr("ack")))) << "its own log is not read";
  world.StoreDown();
  world.Say(1, Heartbeat());
  world.Pass(seconds(2));
  world.StoreUp();
  world.AnswerRead(absl::UnavailableError("that of the first time"));
  world.Say(1, Heartbeat());
  world.Pass(milliseconds(500));
  world.OpenLink(2);
  world.Say(2, Hello(1, 5, kEdge, 1));
  world.Bus(Changed("bob", STATUS_ONLINE, 1'105'000'000));
  world.OpenLink(3);
  world.Say(3, Hello(1, 5, kEdge, 2));
  EXPECT_THAT(world.Sent(3), ElementsAre("welcome watermark=1100000000")) << "of the core's own it is not sure";
  EXPECT_THAT(world.Sent(1), Not(Contains(HasSubstr("ack"))));
  world.AnswerRead(ChangeLog{});
  world.Tick();
  EXPECT_THAT(world.Sent(1), Not(Contains(HasSubstr("ack")))) << "one of two is read";
  world.AnswerRead(ChangeLog{});
  world.Tick();
  EXPECT_THAT(world.Sent(1), ElementsAre("ack 0 watermark=1105000000"));
}

// ------------------------------------------------------------------------------------------------------- in room scope

TEST(HubHealing, InRoomScopeGoesToTheRoomsOfTheUserNow) {
  HubWorld world(RoomScope());
  world.OpenLink(1);
  world.Say(1, {Hello(4, 1'090'000'000), Declared(kPhone, "alice", {"general"}), ResyncDone()});
  world.Forget();
  world.AnswerRead(ChangeLog{true,
                             {LoggedChange("bob", STATUS_AWAY, 1'095'000'000, {"general"}),
                              LoggedChange("carol", STATUS_AWAY, 1'095'000'001, {"lounge"})}});
  EXPECT_THAT(world.Sent(1), ElementsAre("presence bob@1095000000 away rooms=1"));
}

}  // namespace
}  // namespace presence::core
