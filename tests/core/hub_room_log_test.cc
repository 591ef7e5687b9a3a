// Rooms with logs: what the bus brings, what is read, in which order shards get it, and who is told of a gap.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/hub.h"
#include "tests/core/room_log_stage.h"
#include "tests/fakes/hub_cluster.h"
#include "tests/fakes/hub_world.h"

namespace presence::core {
namespace {

using std::chrono::milliseconds;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

// ---------------------------------------------------------------------------------------------------------------- joins

TEST_F(RoomLog, TheFirstJoinWaitsUntilItIsKnownWhereTheLogStands) {
  world.AttachConfirmed(1, 1, {Declared(kPhone, "alice"), Declared(kLaptop, "bob")});
  world.Say(1, Joined(1, kPhone, "general"));
  EXPECT_THAT(world.Asked(), ElementsAre("read log general from 0-0 at most 0"));
  EXPECT_THAT(world.Sent(1), IsEmpty());
  world.Say(1, Joined(2, kLaptop, "general"));
  EXPECT_THAT(world.Asked(), IsEmpty()) << "one read is enough";
  world.Pass(milliseconds(100));
  EXPECT_THAT(world.Sent(1), Not(Contains(HasSubstr("ack")))) << "what waits is repeated after a lost link";
  world.AnswerLog(Page({kEpoch, 5}));
  EXPECT_THAT(world.Sent(1), ElementsAre("bind 7.1 general handle=1 reply=1 @999000000-5",
                                         "bind 8.1 general handle=1 reply=2 @999000000-5"));
  world.Bus(At(5, "old"));
  world.Bus(At(6, "new"));
  EXPECT_THAT(Got(), ElementsAre("deliver 1 @999000000-6 new"));
}

TEST_F(RoomLog, ALeaveBehindAWaitingJoinIsAnsweredInOrder) {
  world.AttachConfirmed(1, 1, {Declared(kPhone, "alice")});
  world.Say(1, Joined(1, kPhone, "general"));
  world.Say(1, Left(2, kPhone, "general"));
  EXPECT_THAT(world.Sent(1), IsEmpty());
  world.AnswerLog(Page({kEpoch, 5}));
  EXPECT_THAT(world.Sent(1), ElementsAre(HasSubstr("bind 7.1 general"), "unbind 7.1 general reply=2"));
  EXPECT_EQ(world.hub().sizes().joins_waiting, 0u);
}

// A resync repeats in order what was not acknowledged: a join, and behind it the close of another member, of whom the room is still full.
TEST_F(RoomLog, AJoinThatIsRepeatedBeforeThePreviousMembersCloseMissesNothing) {
  Resume({kEpoch, 5});
  world.Say(1, Opened(1, kLaptop, "bob"));
  world.AnswerLog(Page({kEpoch, 5}));
  world.Bus(At(6, "6"));
  world.LoseLink(1);
  world.OpenLink(2);
  world.Say(2, {Hello(2), Declared(kLaptop, "bob"), Joined(10, kLaptop, "general")});
  EXPECT_THAT(world.Sent(2), Contains("bind 8.1 general handle=1 reply=10 @999000000-6"));
  world.Say(2, {Closed(11, kPhone, "alice"), ResyncDone()});
  world.Bus(At(7, "7"));
  EXPECT_THAT(Got(2), ElementsAre("deliver 1 @999000000-7 7"));
}

TEST_F(RoomLog, AJoinThatIsRepeatedBeforeThePreviousMembersCloseWaitsUntilItIsKnownWhereTheLogStands) {
  Resume({kEpoch, 5});
  world.Say(1, Opened(1, kLaptop, "bob"));
  world.LoseLink(1);
  world.StoreDown();
  world.StoreUp();
  while (world.log_reads_open() > 0) world.AnswerLog(absl::UnavailableError("busy"));
  world.OpenLink(2);
  world.Forget();
  world.Say(2, {Hello(2), Declared(kLaptop, "bob"), Joined(10, kLaptop, "general")});
  EXPECT_THAT(world.Asked(), Contains("read log general from 0-0 at most 0"));
  EXPECT_THAT(world.Sent(2), Not(Contains(HasSubstr("bind"))));
  world.AnswerLog(Page({kEpoch, 6}));
  EXPECT_THAT(world.Sent(2), Contains("bind 8.1 general handle=1 reply=10 @999000000-6"));
}

TEST_F(RoomLog, WithoutAStoreNobodyWaits) {
  world.AttachConfirmed(1, 1, {Declared(kPhone, "alice")});
  world.StoreDown();
  world.Say(1, Joined(1, kPhone, "general"));
  EXPECT_THAT(world.Sent(1), ElementsAre("bind 7.1 general handle=1 reply=1"));
  world.Forget();
  world.StoreUp();
  world.AnswerLog(Page({kEpoch, 5}));
  EXPECT_THAT(Got(), ElementsAre("moved 1 @999000000-5 lost")) << "something may have been sent meanwhile";
}

TEST_F(RoomLog, AReadThatFailsLetsTheJoinIn) {
  world.AttachConfirmed(1, 1, {Declared(kPhone, "alice")});
  world.Say(1, Joined(1, kPhone, "general"));
  world.AnswerLog(absl::UnavailableError(""));
  EXPECT_THAT(world.Sent(1), ElementsAre("bind 7.1 general handle=1 reply=1"));
}

// -------------------------------------------------------------------------------------------------------------- resyncs

TEST_F(RoomLog, WhatAShardHasMissedIsHandedOnInOrder) {
  Resume({kEpoch, 5});
  EXPECT_THAT(world.Asked(), Contains("read log general from 999000000-5 at most 256"));
  world.Bus(At(8, "8"));  // live, while the log is read
  EXPECT_THAT(Got(), IsEmpty());
  world.AnswerLog(Page({kEpoch, 7}, {At(6, "6"), At(7, "7")}));
  EXPECT_THAT(Got(), ElementsAre("deliver 1 @999000000-6 6", "deliver 1 @999000000-7 7"));
  EXPECT_THAT(world.Asked(), ElementsAre("read log general from 999000000-7 at most 256")) << "not caught up yet";
  world.AnswerLog(Page({kEpoch, 8}, {At(8, "8")}));
  world.Bus(At(9, "9"));
  EXPECT_THAT(Got(), ElementsAre("deliver 1 @999000000-8 8", "deliver 1 @999000000-9 9"));
  EXPECT_EQ(world.hub().counters().room_log_replayed, 3u);
  EXPECT_EQ(world.hub().counters().room_gaps, 0u);
  EXPECT_EQ(world.hub().sizes().room_reads, 0u);
}

TEST_F(RoomLog, WhoHasEverythingIsNotReadFor) {
  Attach({kEpoch, 5});
  Resume({kEpoch, 5}, 2, 1, 1);
  EXPECT_EQ(world.log_reads_open(), 0u);
  world.Bus(At(6, "6"));
  EXPECT_THAT(Got(1), ElementsAre(HasSubstr("@999000000-6")));
  EXPECT_THAT(Got(2), ElementsAre(HasSubstr("@999000000-6")));
}

TEST_F(RoomLog, OnlyTheShardThatIsBehindGetsWhatItMissed) {
  Attach({kEpoch, 5});
  world.Bus(At(6, "6"));
  world.Bus(At(7, "7"));
  world.Forget();
  Resume({kEpoch, 5}, 2, 1, 1);
  world.AnswerLog(Page({kEpoch, 7}, {At(6, "6"), At(7, "7")}));
  EXPECT_THAT(Got(1), IsEmpty());
  EXPECT_THAT(Got(2), ElementsAre(HasSubstr("-6 6"), HasSubstr("-7 7")));
}

TEST_F(RoomLog, WhatTheBusBringsAgainIsDropped) {
  Attach({kEpoch, 5});
  world.Bus(At(6, "6"));
  world.Bus(At(6, "6"));
  EXPECT_THAT(Got(), ElementsAre(HasSubstr("-6 6")));
  EXPECT_EQ(world.hub().counters().room_log_duplicates, 1u);
}

TEST_F(RoomLog, AHoleOnTheBusIsFilledFromTheLog) {
  Attach({kEpoch, 5});
  world.Bus(At(7, "7"));
  EXPECT_THAT(Got(), IsEmpty());
  world.AnswerLog(Page({kEpoch, 7}, {At(6, "6"), At(7, "7")}));
  EXPECT_THAT(Got(), ElementsAre(HasSubstr("-6 6"), HasSubstr("-7 7")));
}

TEST_F(RoomLog, AStoreThatWasAwayIsReadAgain) {
  Attach({kEpoch, 5});
  world.StoreDown();
  world.Forget();
  world.StoreUp();
  EXPECT_THAT(world.Asked(), Contains("read log general from 999000000-5 at most 256"));
  world.AnswerLog(Page({kEpoch, 6}, {At(6, "6")}));
  EXPECT_THAT(Got(), ElementsAre(HasSubstr("-6 6")));
}

TEST_F(RoomLog, PagesFollowEachOther) {
  Resume({kEpoch, 1});
  world.AnswerLog(Page({kEpoch, 3}, {At(2, "2")}, /*more=*/true));
  world.AnswerLog(Page({kEpoch, 3}, {At(3, "3")}));
  EXPECT_THAT(Got(), ElementsAre(HasSubstr("-2 2"), HasSubstr("-3 3")));
  EXPECT_EQ(world.log_reads_open(), 0u);
}

TEST_F(RoomLog, AReadThatFailsIsRepeated) {
  Resume({kEpoch, 1});
  world.AnswerLog(absl::UnavailableError(""));
  EXPECT_EQ(world.log_reads_open(), 0u);
  world.Say(1, Heartbeat());
  world.Pass(milliseconds(1100));
  EXPECT_EQ(world.log_reads_open(), 1u);
}

TEST_F(RoomLog, ReadsAreBounded) {
  std::vector<std::string> rooms;
  std::vector<std::pair<std::string, RoomPosition>> seen;
  for (int i = 0; i < 100; ++i) rooms.push_back("room" + std::to_string(i));
  for (const std::string& room : rooms) seen.push_back({room, {kEpoch, 1}});
  world.OpenLink(1);
  world.Say(1, {Hello(1), Declared(kPhone, "alice", rooms), Seen(seen), ResyncDone()});
  EXPECT_EQ(world.log_reads_open(), 8u);
  for (int i = 0; i < 100; ++i) {
    ASSERT_GT(world.log_reads_open(), 0u);
    EXPECT_LE(world.log_reads_open(), 8u);
    world.AnswerLog(Page({kEpoch, 1}));
  }
  EXPECT_EQ(world.log_reads_open(), 0u);
  EXPECT_EQ(world.hub().sizes().room_reads, 0u);
}

TEST_F(RoomLog, ATickHandsOnNoMoreThanItsBytes) {
  const std::string large(600'000, 'x');
  std::vector<std::string> rooms;
  std::vector<std::pair<std::string, RoomPosition>> seen;
  for (int i = 0; i < 40; ++i) rooms.push_back("room" + std::to_string(i));
  for (const std::string& room : rooms) seen.push_back({room, {kEpoch, 1}});
  world.OpenLink(1);
  world.Say(1, {Hello(1), Declared(kPhone, "alice", rooms), Seen(seen), ResyncDone()});
  ASSERT_EQ(world.log_reads_open(), 8u);
  for (size_t left = 8; left > 0; --left) {
    // Whether the others are as large is not known: no further read is begun.
    ASSERT_EQ(world.log_reads_open(), left);
    world.AnswerLog(Page({kEpoch, 2}, {LoggedMessage({kEpoch, 2}, rooms[8 - left], large)}));
  }
  EXPECT_EQ(world.log_reads_open(), 0u) << "the tick's bytes are used up";
  world.Say(1, Heartbeat());
  world.Pass(milliseconds(100));
  EXPECT_EQ(world.log_reads_open(), 8u);
}

// ----------------------------------------------------------------------------------------------------------------- gaps

TEST_F(RoomLog, ALogThatDoesNotGoBackSoFarIsAGap) {
  Resume({kEpoch, 1});
  world.AnswerLog(Page({kEpoch, 9}, {At(9, "9")}));
  EXPECT_THAT(Got(), ElementsAre("moved 1 lost", "deliver 1 @999000000-9 9"));
  EXPECT_EQ(world.hub().counters().room_gaps, 1u);
}

TEST_F(RoomLog, ALogThatHasEndedWithItsAgeIsAGap) {
  Resume({kEpoch, 1});
  world.AnswerLog(Page({kEpoch, 9}));
  EXPECT_THAT(Got(), ElementsAre("moved 1 @999000000-9 lost"));
}

TEST_F(RoomLog, AnEmptiedRedisIsAGap) {
  Resume({kEpoch, 1});
  world.AnswerLog(Page({kNext, 0}, {}, false, /*data_since=*/kNext - 5));
  EXPECT_THAT(Got(), ElementsAre("moved 1 @1001000000-0 lost"));
}

TEST_F(RoomLog, ARoomThatWasSilentForLongIsNone) {
  const uint64_t now = kEpoch + 3'700'000'000;  // more than an hour later
  Attach({kEpoch, 1});
  world.Bus(LoggedMessage({now, 1}, "general", "first", /*previous=*/{1, 0}));
  EXPECT_THAT(Got(), ElementsAre(HasSubstr("-1 first")));
  EXPECT_EQ(world.hub().counters().room_gaps, 0u);
}

TEST_F(RoomLog, ANewEpochThatFollowsTheLastPositionIsNone) {
  Attach({kEpoch, 5});
  world.Bus(At(1, "first", kNext, {kEpoch, 5}));
  EXPECT_THAT(Got(), ElementsAre("deliver 1 @1001000000-1 first"));
}

TEST_F(RoomLog, ATailThatIsLostIsToldToEverybody) {
  Attach({kEpoch, 7});
  Attach({kEpoch, 6}, 2, 1, 1);  // has not heard the seventh
  world.Bus(At(1, "first", kNext, {kEpoch, 6}));
  world.AnswerLog(Page({kNext, 1}, {At(1, "first", kNext, {kEpoch, 6})}));
  EXPECT_THAT(Got(1), ElementsAre("moved 1 lost", "deliver 1 @1001000000-1 first"));
  EXPECT_THAT(Got(2), Contains("moved 1 lost"));
  EXPECT_THAT(world.Asked(), Contains(HasSubstr("publish"))) << "and to the other cores";
}

TEST_F(RoomLog, ATailThatAnotherCoreHasSeenIsToldOnce) {
  Attach({kEpoch, 6});
  link::v1::BusEnvelope note;
  note.set_core(0xc1);
  note.mutable_room_lost()->set_room_id("general");
  note.mutable_room_lost()->set_epoch(kEpoch);
  note.mutable_room_lost()->set_sequence(6);
  world.Bus(note);
  world.Bus(note);
  EXPECT_THAT(Got(), ElementsAre("moved 1 lost"));
}

TEST_F(RoomLog, AnEdgeThatDoesNotSayWhereItIsStartsAtWhatIsNewest) {
  Attach({kEpoch, 5});
  Resume({}, 2, 1, 1);
  EXPECT_THAT(Got(2), ElementsAre("moved 1 @999000000-5 lost"));
  world.Bus(At(6, "6"));
  EXPECT_THAT(Got(2), ElementsAre(HasSubstr("-6 6")));
}

// ------------------------------------------------------------------------------------------------------------ appending

TEST_F(RoomLog, AMessageIsAnsweredWhenItIsKeptAndCounted) {
  Attach({kEpoch, 5});
  world.Broadcast(70, "general", "{}");
  EXPECT_THAT(world.Asked(), ElementsAre(HasSubstr("append 1 general")));
  world.LoopBackAt({kEpoch, 6});
  EXPECT_THAT(world.Answers(), IsEmpty());
  world.AnswerAppend({kEpoch, 6});
  EXPECT_THAT(world.Answers(), ElementsAre("70 OK reached=1"));
  EXPECT_EQ(world.hub().counters().room_log_appended, 1u);
}

TEST_F(RoomLog, WhatIsConfirmedAndDoesNotComeIsReadFromTheLog) {
  Attach({kEpoch, 5});
  world.Broadcast(70, "general", "{}");
  world.AnswerAppend({kEpoch, 6});
  world.Forget();
  world.Say(1, Heartbeat());
  world.Pass(milliseconds(700));
  EXPECT_THAT(world.Asked(), Contains(HasSubstr("read log general from 999000000-5")));
  EXPECT_THAT(Got(), IsEmpty()) << "never without its place";
}

TEST_F(RoomLog, WhatTheStoreDoesNotConfirmIsDeliveredHereOnce) {
  Attach({kEpoch, 5});
  world.Broadcast(70, "general", "{}");
  world.AnswerAppend(AppendResult{});
  EXPECT_THAT(Got(), ElementsAre(R"(deliver 1 {"type":"message","data":{}})"));
  EXPECT_THAT(world.Answers(), ElementsAre("70 UNAVAILABLE"));
  world.LoopBackAt({kEpoch, 6});  // it had happened
  EXPECT_THAT(Got(), ElementsAre("moved 1 @999000000-6"));
  EXPECT_EQ(world.hub().counters().loopback_duplicates, 1u);
}

TEST_F(RoomLog, ARequestIdIsNeverDeliveredWithoutItsPlace) {
  Attach({kEpoch, 5});
  world.Request(70, {.room_id = "general", .user_id = {}, .data_json = "{}", .request_id = "key", .fingerprint = "f"});
  world.AnswerAppend(AppendResult{});
  EXPECT_THAT(Got(), IsEmpty());
  EXPECT_THAT(world.Answers(), ElementsAre("70 UNAVAILABLE"));
  world.LoopBackAt({kEpoch, 6});
  EXPECT_THAT(Got(), ElementsAre(HasSubstr("@999000000-6")));
}

TEST_F(RoomLog, ACoreThatIsGoneIsReplacedWithoutALoss) {
  HubCluster cluster(2, WithLogs());
  cluster[0].Attach(1, 1, {Declared(kPhone, "alice", {"general"})});
  cluster[0].Crash();
  cluster[1].Request(70, {.room_id = "general", .user_id = {}, .data_json = "{}"});
  cluster[1].OpenLink(2);
  cluster[1].Say(2, Hello(2));
  cluster[1].Say(2, Declared(kPhone, "alice", {"general"}));
  cluster[1].Say(2, Seen({{"general", {990'000'000, 0}}}));
  cluster[1].Say(2, ResyncDone());
  EXPECT_THAT(Messages(cluster[1].Sent(2)), Contains(HasSubstr("deliver 1 @")));
}

}  // namespace
}  // namespace presence::core
