// WatchPresence of a room, without gRPC: members of all cores come and go.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <string>

#include "tests/fakes/watch_stage.h"

namespace presence::core {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::SizeIs;

class RoomWatchTest : public ::testing::Test {
 protected:
  explicit RoomWatchTest(const WatchOptions& options = {}) : stage_(options) {
    for (const char* user : {"a", "b", "c", "d"}) stage_.Write(user, kOnline, 1);
    stage_.members[1]["room"] = {"a"};
    stage_.members[2]["room"] = {"b"};
  }
  // With the cores' first answer.
  StagedReader& Watch() {
    StagedReader& reader = stage_.WatchRoom("room");
    stage_.EndTurn();
    stage_.AnswerCores();
    stage_.Settle();
    return reader;
  }

  WatchStage stage_;
};

TEST_F(RoomWatchTest, TheFirstAnswerIsTheSnapshot) {
  StagedReader& reader = stage_.WatchRoom("room");
  stage_.Settle();
  EXPECT_FALSE(reader.ready) << "nobody knows who is in it";
  EXPECT_THAT(stage_.asked, SizeIs(1)) << "at once, not with the next second";
  stage_.AnswerCores();
  stage_.Settle();
  EXPECT_EQ(reader.Read(), "snapshot a=ONLINE@1 b=ONLINE@1 done");
  stage_.Change("a", kAway, 2);
  stage_.Change("c", kAway, 2);
  stage_.Settle();
  EXPECT_EQ(reader.Read(), "a=AWAY@2") << "c is no member";
}

TEST_F(RoomWatchTest, AnEmptyRoomIsWatchedToo) {
  stage_.members[1].clear();
  stage_.members[2].clear();
  StagedReader& reader = Watch();
  EXPECT_EQ(reader.Read(), "snapshot done");
  stage_.members[2]["room"] = {"d"};
  stage_.NextLook();
  EXPECT_EQ(reader.Read(), "d=ONLINE@1");
}

TEST_F(RoomWatchTest, WhoJoinsIsToldAndWhoLeavesIsToldNoMore) {
  StagedReader& reader = Watch();
  reader.Read();
  stage_.members[1]["room"] = {"c"};
  stage_.NextLook();
  EXPECT_EQ(reader.Read(), "c=ONLINE@1 -a");
  stage_.Change("a", kAway, 2);
  stage_.Change("c", kAway, 2);
  stage_.Settle();
  EXPECT_EQ(reader.Read(), "c=AWAY@2");
}

TEST_F(RoomWatchTest, AJoinIsNotToldBehindANewerChange) {
  StagedReader& reader = Watch();
  reader.Read();
  stage_.members[1]["room"] = {"a", "c"};
  stage_.Wait(seconds(1));
  stage_.AnswerCores();
  stage_.EndTurn();  // c is read now
  stage_.Change("c", kAway, 2);
  stage_.EndTurn();
  EXPECT_EQ(reader.Read(), "c=AWAY@2");
  stage_.Settle();
  EXPECT_EQ(reader.Read(), "");
}

TEST_F(RoomWatchTest, WhoLeavesWhileTheRowIsReadIsNotTold) {
  StagedReader& reader = Watch();
  reader.Read();
  stage_.members[1]["room"] = {"a", "c"};
  stage_.Wait(seconds(1));
  stage_.AnswerCores();
  stage_.members[1]["room"] = {"a"};
  stage_.Wait(seconds(1));
  stage_.AnswerCores();
  stage_.Settle();
  EXPECT_EQ(reader.Read(), "-c");
}

TEST_F(RoomWatchTest, WhoLeavesDuringTheSnapshotIsNotInIt) {
  StagedReader& reader = stage_.WatchRoom("room");
  stage_.EndTurn();
  stage_.AnswerCores();
  stage_.EndTurn();  // the rows are read now
  stage_.members[1]["room"] = {};
  stage_.Wait(seconds(1));
  stage_.AnswerCores();
  stage_.Settle();
  EXPECT_EQ(reader.Read(), "snapshot b=ONLINE@1 -a done");
}

TEST_F(RoomWatchTest, WhoLeavesAndComesBackUnseenWaitsOnce) {
  StagedReader& reader = Watch();
  reader.Read();
  stage_.members[1]["room"] = {};
  stage_.NextLook();
  stage_.members[1]["room"] = {"a"};
  stage_.NextLook();
  EXPECT_EQ(reader.Read(), "a=ONLINE@1");
}

TEST_F(RoomWatchTest, WhoMovesToAnotherCoreIsNotMentioned) {
  StagedReader& reader = Watch();
  reader.Read();
  stage_.members[1]["room"] = {};
  stage_.members[2]["room"] = {"a", "b"};
  stage_.NextLook();
  EXPECT_EQ(reader.Read(), "");
  stage_.Change("a", kAway, 2);
  stage_.Settle();
  EXPECT_EQ(reader.Read(), "a=AWAY@2");
}

TEST_F(RoomWatchTest, ACoreThatVanishesTakesItsMembersAlong) {
  StagedReader& reader = Watch();
  reader.Read();
  stage_.members.erase(2);
  stage_.NextLook(absl::UnavailableError("a core did not answer in time"));
  EXPECT_EQ(reader.Read(), "");
  stage_.NextLook();
  EXPECT_EQ(reader.Read(), "-b");
}

TEST_F(RoomWatchTest, ACoreThatNeverAnswersIsTakenForGoneAfterAWhile) {
  StagedReader& reader = Watch();
  reader.Read();
  stage_.members.erase(2);
  const absl::Status late = absl::UnavailableError("a core did not answer in time");
  for (int i = 0; i < 10; ++i) stage_.NextLook(late);
  EXPECT_EQ(reader.Read(), "");
  stage_.NextLook(late);
  EXPECT_EQ(reader.Read(), "-b");
}

TEST_F(RoomWatchTest, AnOutageOfTheBusIsOnlyAPause) {
  StagedReader& reader = Watch();
  reader.Read();
  for (int i = 0; i < 60; ++i) {
    stage_.Wait(seconds(1), /*caught_up=*/false);
    stage_.Settle();
  }
  EXPECT_THAT(stage_.asked, SizeIs(0)) << "only this core would answer";
  // The other cores come back a moment later.
  const auto away = std::exchange(stage_.members[2]["room"], {});
  stage_.members.erase(2);
  stage_.NextLook(absl::UnavailableError("a core did not answer in time"));
  stage_.members[2]["room"] = away;
  stage_.NextLook();
  EXPECT_EQ(reader.Read(), "");
}

TEST_F(RoomWatchTest, OfWhichNobodyKnowsWhoIsInItCannotBeWatched) {
  StagedReader& known = Watch();
  stage_.members[1]["other"] = {"c"};
  StagedReader& unknown = stage_.WatchRoom("other");
  stage_.EndTurn();
  stage_.AnswerCores(absl::UnavailableError("the store is away"));
  stage_.Settle();
  ASSERT_TRUE(unknown.ended);
  EXPECT_TRUE(absl::IsUnavailable(*unknown.ended));
  EXPECT_FALSE(known.ended);
}

TEST_F(RoomWatchTest, TwoWatchersShareTheRoom) {
  StagedReader& first = Watch();
  first.Read();
  StagedReader& second = stage_.WatchRoom("room");
  stage_.Settle();
  EXPECT_THAT(stage_.asked, SizeIs(0)) << "it is known";
  EXPECT_EQ(second.Read(), "snapshot a=ONLINE@1 b=ONLINE@1 done");
  stage_.watches.Close(first.id);
  stage_.members[1]["room"] = {"a", "c"};
  stage_.NextLook();
  EXPECT_EQ(second.Read(), "c=ONLINE@1");
  stage_.watches.Close(second.id);
  stage_.Wait(seconds(1));
  EXPECT_THAT(stage_.asked, SizeIs(0)) << "nobody watches it any more";
  stage_.Change("a", kAway, 2);
  StagedReader& third = Watch();
  EXPECT_EQ(third.Read(), "snapshot a=AWAY@2 b=ONLINE@1 c=ONLINE@1 done");
}

TEST_F(RoomWatchTest, AMemberOfSeveralRoomsIsToldToTheWatchersOfEach) {
  stage_.members[1]["other"] = {"a"};
  StagedReader& room = Watch();
  StagedReader& other = stage_.WatchRoom("other");
  stage_.EndTurn();
  stage_.AnswerCores();
  stage_.Settle();
  room.Read();
  other.Read();
  stage_.members[1]["other"] = {};
  stage_.NextLook();
  stage_.Change("a", kAway, 2);
  stage_.Settle();
  EXPECT_EQ(room.Read(), "a=AWAY@2");
  EXPECT_EQ(other.Read(), "-a");
}

TEST_F(RoomWatchTest, AJoinThatCannotBeReadIsReadWithTheNextLook) {
  StagedReader& reader = Watch();
  reader.Read();
  stage_.store.away = true;
  stage_.members[1]["room"] = {"a", "c", "d"};
  stage_.NextLook();
  stage_.NextLook();
  EXPECT_FALSE(reader.ended) << "a pause";
  EXPECT_EQ(reader.Read(), "");
  StagedReader& late = stage_.WatchRoom("room");
  stage_.Settle();
  ASSERT_TRUE(late.ended) << "its snapshot cannot be read";
  EXPECT_TRUE(absl::IsUnavailable(*late.ended));
  stage_.store.away = false;
  stage_.store.reads.clear();
  stage_.members[1]["room"] = {"a", "c"};  // d has left meanwhile
  stage_.Settle();
  EXPECT_THAT(stage_.store.reads, SizeIs(0)) << "a store in trouble is not asked all the time";
  stage_.NextLook();
  EXPECT_EQ(reader.Read(), "c=ONLINE@1 -d");
  stage_.NextLook();
  EXPECT_THAT(stage_.store.reads, ElementsAre("users c")) << "once, and of d nothing";
}

TEST_F(RoomWatchTest, AJoinThatCannotBeReadIsForgottenWithItsRoom) {
  StagedReader& reader = Watch();
  stage_.store.away = true;
  stage_.members[1]["room"] = {"a", "c"};
  stage_.NextLook();
  stage_.watches.Close(reader.id);
  stage_.store.away = false;
  stage_.store.reads.clear();
  StagedReader& other = stage_.WatchRoom("other");
  stage_.EndTurn();
  stage_.AnswerCores();
  stage_.Settle();
  stage_.NextLook();
  EXPECT_EQ(other.Read(), "snapshot done");
  EXPECT_THAT(stage_.store.reads, SizeIs(0));
}

// While one look is under way, and slowly, new rooms do not hold back the next one.
TEST_F(RoomWatchTest, NewRoomsDoNotStopTheLooks) {
  StagedReader& reader = Watch();
  reader.Read();
  stage_.members[1]["room"] = {"a", "c"};
  for (int i = 0; i < 5; ++i) {
    stage_.WatchRoom("new " + std::to_string(i));
    stage_.EndTurn();
    stage_.Wait(milliseconds(300));
  }
  EXPECT_THAT(stage_.asked, SizeIs(2)) << "for the first new room, and for all";
  stage_.AnswerCores();
  stage_.Settle();
  EXPECT_EQ(reader.Read(), "c=ONLINE@1");
  EXPECT_THAT(stage_.asked, SizeIs(1)) << "the look has told of all rooms but the last";
}

class SmallRoomWatchTest : public RoomWatchTest {
 protected:
  SmallRoomWatchTest() : RoomWatchTest({.members_watched_max = 5, .rooms = {.rooms_max = 2, .members_max = 3}}) {}
};

TEST_F(SmallRoomWatchTest, ARoomMayHaveTooManyMembers) {
  StagedReader& reader = Watch();
  EXPECT_EQ(reader.Read(), "snapshot a=ONLINE@1 b=ONLINE@1 done");
  stage_.members[2]["room"] = {"b", "c", "d"};
  stage_.NextLook();
  ASSERT_TRUE(reader.ended);
  EXPECT_TRUE(absl::IsResourceExhausted(*reader.ended));
  StagedReader& again = Watch();
  ASSERT_TRUE(again.ended);
  EXPECT_TRUE(absl::IsResourceExhausted(*again.ended));
}

// And members of all rooms are bounded together, those who leave with the look that ends it included.
TEST_F(SmallRoomWatchTest, AllRoomsTogetherMayHaveTooManyMembers) {
  for (int round = 0; round < 10; ++round) {
    stage_.members[1]["room"] = {"a", "c"};
    StagedReader& room = Watch();
    stage_.members[1]["other"] = {"a", "d"};
    StagedReader& other = stage_.WatchRoom("other");
    stage_.EndTurn();
    stage_.AnswerCores();
    stage_.Settle();
    ASSERT_FALSE(room.ended) << round;
    ASSERT_FALSE(other.ended) << round;
    stage_.members[1]["other"] = {"b", "c", "d"};
    stage_.NextLook();
    ASSERT_TRUE(other.ended);
    EXPECT_TRUE(absl::IsResourceExhausted(*other.ended));
    EXPECT_FALSE(room.ended);
    stage_.watches.Close(room.id);
  }
}

TEST_F(SmallRoomWatchTest, WatchedRoomsAreBounded) {
  stage_.WatchRoom("room");
  stage_.WatchRoom("other");
  EXPECT_FALSE(stage_.WatchRoom("room").ended);
  StagedReader& refused = stage_.WatchRoom("third");
  ASSERT_TRUE(refused.ended);
  EXPECT_TRUE(absl::IsResourceExhausted(*refused.ended));
}

}  // namespace
}  // namespace presence::core
