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
  EXPECT_THAT(world.Asked(), Contains("read log general from 0-0 at most 0 seen 999000000-5"));
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
  EXPECT_THAT(world.Asked(), ElementsAre("read log general from 999000000-7 at most 256 seen 999000000-8"))
      << "not caught up yet";
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
  ResumeRooms(100);
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
  const std::vector<std::string> rooms = ResumeRooms(40);
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

TEST_F(RoomLog, AFullLinkIsHandedNothingFromLogsUntilItHasRoom) {
  const std::vector<std::string> rooms = ResumeRooms(40);
  ASSERT_EQ(world.log_reads_open(), 8u);
  world.Fill(1);  // by what they bring
  world.Forget();
  for (int i = 0; i < 8; ++i) {
    world.AnswerLog(Page({kEpoch, 2}, {LoggedMessage({kEpoch, 2}, rooms[static_cast<size_t>(i)], "x")}));
  }
  EXPECT_THAT(Got(), IsEmpty());
  EXPECT_EQ(world.log_reads_open(), 0u) << "nor is anything read that nobody can take";
  world.Bus(LoggedMessage({kEpoch, 3}, rooms[0], "live"));
  world.Say(1, Heartbeat());
  world.Pass(milliseconds(300));
  EXPECT_THAT(Got(), IsEmpty()) << "in order";
  EXPECT_EQ(world.log_reads_open(), 0u);
  world.Drain(1);
  world.Pass(milliseconds(100));
  for (int read = 0; read < 200 && world.log_reads_open() > 0; ++read) {
    const std::string room = world.OldestLogRead();
    std::vector<link::v1::BusEnvelope> rest{LoggedMessage({kEpoch, 2}, room, "x")};
    if (room == rooms[0]) rest.push_back(LoggedMessage({kEpoch, 3}, room, "live"));
    world.AnswerLog(Page(PositionOf(rest.back()), rest));
  }
  EXPECT_THAT(Got(), testing::SizeIs(41)) << "everything, once";
  EXPECT_EQ(world.hub().counters().room_gaps, 0u);
  EXPECT_EQ(world.hub().sizes().room_reads, 0u);
}

TEST_F(RoomLog, AFullLinkHoldsUpNobodyElse) {
  Resume({kEpoch, 5});
  world.Fill(2);
  Resume({kEpoch, 4}, 2, 1, 1);
  world.AnswerLog(Page({kEpoch, 6}, {At(6, "6")}));
  EXPECT_THAT(Got(1), ElementsAre(HasSubstr("-6 6")));
  world.Bus(At(7, "7"));
  EXPECT_THAT(Got(1), ElementsAre(HasSubstr("-7 7")));
  EXPECT_THAT(Got(2), IsEmpty());
  world.Drain(2);
  world.Say(1, Heartbeat());
  world.Say(2, Heartbeat());
  world.Forget();
  world.Pass(milliseconds(100));
  EXPECT_THAT(world.Asked(), Contains("read log general from 999000000-4 at most 256 seen 999000000-7"));
}

// A page that was asked for without messages says nothing to who has fallen behind meanwhile.
TEST_F(RoomLog, WhereTheLogStandsIsNoAnswerToWhoIsBehind) {
  Attach({kEpoch, 5});
  world.StoreDown();
  world.Say(1, Opened(1, kLaptop, "bob"));
  world.StoreUp();
  world.AnswerLog(Page({kEpoch, 5}));
  world.Broadcast(70, "general", "{}");
  world.AnswerAppend({kNext, 1});  // another epoch: is the fifth still there?
  world.Say(1, Heartbeat());
  world.Pass(milliseconds(100));
  ASSERT_EQ(world.log_reads_open(), 1u);
  world.Bus(At(3, "3", kNext));  // two of them were not heard
  world.Forget();
  world.AnswerLog(Page({kNext, 3}));
  EXPECT_THAT(Got(), IsEmpty()) << "no gap";
  world.AnswerLog(Page({kNext, 3}, {At(1, "1", kNext, {kEpoch, 5}), At(2, "2", kNext), At(3, "3", kNext)}));
  EXPECT_THAT(Got(), testing::SizeIs(3));
  EXPECT_EQ(world.hub().counters().room_gaps, 0u);
}

TEST(RoomLogBounded, OfMoreRoomsThanItMayDoubtTheFormerEpochIsLeft) {
  HubOptions options = WithLogs();
  options.rooms_doubted_max = 1;
  HubWorld world(options);
  uint64_t tag = 70;
  for (const uint64_t epoch : {kEpoch, kNext}) {
    for (const char* room : {"general", "random", "help"}) {
      world.Broadcast(tag++, room, "{}");
      world.AnswerAppend({epoch, 1});
    }
  }
  EXPECT_EQ(world.hub().sizes().rooms_doubted, 1u);
  EXPECT_EQ(world.hub().counters().room_doubts_dropped, 2u);
  world.Pass(milliseconds(100));
  ASSERT_EQ(world.log_reads_open(), 1u);
  world.AnswerLog(Page({kNext, 1}));
  EXPECT_EQ(world.hub().sizes().rooms_doubted, 0u);
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

// In place of a message: what Redis has lost, somebody has proven.
link::v1::BusEnvelope Lost(uint64_t epoch) {
  link::v1::BusEnvelope note;
  note.mutable_room_lost()->set_room_id("general");
  note.set_room_epoch(epoch);
  note.set_room_sequence(1);
  note.set_room_previous_epoch(epoch);
  return note;
}

TEST_F(RoomLog, WhatIsReadIsAskedForWithAllThatIsKnownOfTheRoom) {
  Attach({kEpoch, 6});
  Attach({kEpoch, 7}, 2, 1, 1);
  world.StoreDown();
  world.Forget();
  world.StoreUpWithoutItsState();
  EXPECT_THAT(world.Asked(), Contains("read log general from 999000000-6 at most 256 seen 999000000-7"))
      << "one shard has had the seventh: a Redis without it has lost it to the other";
}

TEST_F(RoomLog, WhatTheBusHasBroughtIsKnownAfterItWasLost) {
  Resume({kEpoch, 5});
  world.Bus(At(9, "9"));  // while the shard is behind
  world.StoreDown();
  world.Forget();
  world.StoreUpWithoutItsState();
  EXPECT_THAT(world.Asked(), Contains("read log general from 999000000-5 at most 256 seen 999000000-9"));
}

TEST_F(RoomLog, WhatIsLostIsToldToEverybodyOnce) {
  Attach({kEpoch, 7});
  Attach({kEpoch, 6}, 2, 1, 1);
  world.Bus(Lost(kNext));
  ASSERT_EQ(world.log_reads_open(), 1u) << "what is left in front of the note is handed on first";
  world.AnswerLog(Page({kNext, 2}, {At(7, "7"), Lost(kNext), At(2, "next", kNext)}));
  EXPECT_THAT(Got(1), ElementsAre("moved 1 lost", "moved 1 @1001000000-1", "deliver 1 @1001000000-2 next"));
  EXPECT_THAT(Got(2), ElementsAre("deliver 1 @999000000-7 7", "moved 1 lost", "moved 1 @1001000000-1",
                                  "deliver 1 @1001000000-2 next"));
  world.Bus(At(2, "next", kNext));
  world.Bus(Lost(kNext));
  world.Bus(At(3, "third", kNext));
  EXPECT_THAT(Got(1), ElementsAre(HasSubstr("third"))) << "and no second time";
  EXPECT_EQ(world.hub().counters().room_gaps, 2u);
}

TEST_F(RoomLog, WhoSubscribesBehindTheNoteHasMissedNothing) {
  world.AttachConfirmed(1, 1, {Declared(kPhone, "alice")});
  world.Say(1, Joined(1, kPhone, "general"));
  world.AnswerLog(Page({kNext, 1}));
  world.Bus(Lost(kNext));
  world.Bus(At(2, "2", kNext));
  EXPECT_THAT(Got(), ElementsAre("deliver 1 @1001000000-2 2"));
}

TEST_F(RoomLog, WhoHasNoPositionIsToldByTheNoteToo) {
  world.AttachConfirmed(1, 1, {Declared(kPhone, "alice")});
  world.StoreDown();
  world.Say(1, Joined(1, kPhone, "general"));
  world.StoreUp();
  world.Forget();
  world.Bus(Lost(kNext));
  EXPECT_THAT(Got(), ElementsAre("moved 1 lost", "moved 1 @1001000000-1"));
}

TEST_F(RoomLog, AShardThatIsFurtherThanThisCoreIsReadFor) {
  Attach({kEpoch, 6});
  Resume({kEpoch, 9}, 2, 1, 1);
  EXPECT_THAT(world.Asked(), Contains("read log general from 999000000-9 at most 256"));
  world.AnswerLog(Page({kEpoch, 9}));
  EXPECT_THAT(Got(2), IsEmpty()) << "the bus is late here, no more";
  world.Bus(At(7, "7"));
  EXPECT_THAT(Got(1), ElementsAre(HasSubstr("-7 7")));
  EXPECT_THAT(Got(2), IsEmpty());
}

TEST_F(RoomLog, AShardThatComesWhileAnotherIsReadForIsNotMovedBackByThatPage) {
  Resume({kEpoch, 5});
  Resume({kEpoch, 9}, 2, 1, 1);
  world.AnswerLog(Page({kEpoch, 7}, {At(6, "6"), At(7, "7")}));  // from before the ninth
  EXPECT_THAT(Got(1), testing::SizeIs(2));
  EXPECT_THAT(Got(2), IsEmpty());
  world.AnswerLog(Page({kEpoch, 9}));
  EXPECT_EQ(world.log_reads_open(), 0u);
  world.Bus(At(8, "8"));
  world.Bus(At(9, "9"));
  world.Bus(At(10, "10"));
  EXPECT_THAT(Got(1), testing::SizeIs(3));
  EXPECT_THAT(Got(2), ElementsAre(HasSubstr("-10 10")));
  EXPECT_EQ(world.hub().counters().room_gaps, 0u);
}

TEST_F(RoomLog, WhatThisCoreWasAcknowledgedIsHeldAgainstAnotherRunOfRedis) {
  world.AttachConfirmed(1, 1, {Declared(kPhone, "alice")});
  world.Broadcast(70, "elsewhere", "{}");
  world.AnswerAppend({kEpoch, 6});
  world.StoreDown();
  world.Forget();
  world.StoreUp();
  EXPECT_EQ(world.log_reads_open(), 0u) << "it has kept its data";
  world.StoreDown();
  world.StoreUpWithoutItsState();
  EXPECT_THAT(world.Asked(), Contains("read log elsewhere from 0-0 at most 0 seen 999000000-6"));
  world.AnswerLog(absl::UnavailableError("busy"));
  world.Say(1, Heartbeat());
  world.Pass(milliseconds(1100));
  EXPECT_EQ(world.log_reads_open(), 1u) << "until it is answered";
  world.AnswerLog(Page({kNext, 1}));
  EXPECT_EQ(world.hub().sizes().room_reads, 0u);
  for (int i = 0; i < 70; ++i) {
    world.Say(1, Heartbeat());
    world.Pass(milliseconds(1000));
  }
  world.StoreDown();
  world.StoreUpWithoutItsState();
  EXPECT_EQ(world.log_reads_open(), 0u) << "a replica is not so far behind";
}

TEST_F(RoomLog, WhoHasSeenATailThatIsLostSaysSoWithTheNextMessage) {
  Attach({kEpoch, 7});
  Attach({kEpoch, 6}, 2, 1, 1);  // has not heard the seventh
  const link::v1::BusEnvelope first = At(1, "first", kNext, {kEpoch, 6});
  world.Bus(first);
  EXPECT_THAT(Got(2), ElementsAre(HasSubstr("first"))) << "as far as this shard knows, that follows";
  EXPECT_THAT(world.Asked(),
              Contains("read log general from 999000000-7 at most 256 seen 1001000000-1 or 999000000-7"));
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
