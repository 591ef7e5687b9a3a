// Rooms with logs: answers that are older than what was missed meanwhile, and positions that move although nobody is handed anything.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/core/room_log_stage.h"

namespace presence::core {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

// The command connection stands when the subscription alone is lost: what was asked before is answered after it stands again.
TEST_F(RoomLog, AReadThatOutlivesTheSubscriptionEndsNothing) {
  Resume({kEpoch, 5});
  world.StoreDown();
  world.StoreUp();  // the eleventh was published in between, and read ten was answered from before it
  world.Forget();
  world.AnswerLog(Page({kEpoch, 10}, {At(10, "10")}));  // of before
  EXPECT_THAT(Got(), IsEmpty());
  ASSERT_EQ(world.log_reads_open(), 1u) << "the shard is still behind";
  std::vector<link::v1::BusEnvelope> all;
  for (uint64_t sequence = 6; sequence <= 11; ++sequence) all.push_back(At(sequence, std::to_string(sequence)));
  world.AnswerLog(Page({kEpoch, 11}, all));
  EXPECT_THAT(Got(), testing::SizeIs(6));
  EXPECT_EQ(world.hub().counters().room_gaps, 0u);
  EXPECT_EQ(world.hub().sizes().room_reads, 0u);
}

TEST_F(RoomLog, AReadThatOutlivesTheSubscriptionMovesNobodyBack) {
  Attach({kEpoch, 10});
  Resume({kEpoch, 5}, 2, 1, 1);  // its read is under way
  world.Bus(At(11, "11"));
  EXPECT_THAT(Got(1), ElementsAre(HasSubstr("-11 11")));
  world.StoreDown();
  world.StoreUp();
  world.Forget();
  world.AnswerLog(Page({kEpoch, 10}, {At(10, "10")}));
  EXPECT_THAT(Got(1), IsEmpty()) << "neither a gap nor a step back";
  EXPECT_THAT(world.Asked(), testing::Not(Contains(HasSubstr("publish")))) << "nothing is proven to be lost";
}

TEST_F(RoomLog, AReadThatOutlivesTheRoomsStayEndsNothing) {
  Attach({kEpoch, 4});
  world.Bus(At(6, "6"));
  ASSERT_EQ(world.log_reads_open(), 1u);
  // The last member leaves, the seventh passes unheard, and another shard declares the room.
  world.Say(1, Closed(1, kPhone, "alice"));
  Resume({kEpoch, 6}, 2, 1, 1);
  world.AnswerLog(Page({kEpoch, 6}, {At(5, "5"), At(6, "6")}));
  ASSERT_EQ(world.log_reads_open(), 1u)
      << "what that page does not have may have been published while the room was not here";
  world.AnswerLog(Page({kEpoch, 7}, {At(7, "7")}));
  EXPECT_THAT(Got(2), ElementsAre(HasSubstr("-7 7")));
}

TEST_F(RoomLog, AFloorThatIsAskedForIsNotWaitedForWithoutTheBus) {
  world.AttachConfirmed(1, 1, {Declared(kPhone, "alice")});
  world.Say(1, Joined(1, kPhone, "general"));
  world.Forget();
  world.StoreDown();
  ASSERT_THAT(world.Sent(1), ElementsAre("bind 7.1 general handle=1 reply=1"));
  world.StoreUp();
  world.Forget();
  world.AnswerLog(Page({kEpoch, 10}));  // the floor, of before
  EXPECT_THAT(Got(), IsEmpty());
  world.AnswerLog(Page({kEpoch, 11}));
  EXPECT_THAT(Got(), ElementsAre("moved 1 @999000000-11 lost")) << "something may have been sent meanwhile";
}

// ----------------------------------------------------------------------------------------------------------- exclusions

link::v1::BusEnvelope Excluding(uint64_t sequence, std::string_view user) {
  link::v1::BusEnvelope message = At(sequence, std::to_string(sequence));
  message.mutable_message()->add_excluded_user_ids(std::string(user));
  return message;
}

TEST_F(RoomLog, WhoeverIsExcludedIsMovedAllTheSame) {
  Attach({kEpoch, 5});
  world.Bus(Excluding(6, "alice"));
  EXPECT_THAT(Got(), ElementsAre("moved 1 @999000000-6"));
  world.Bus(Excluding(7, "somebody else"));
  EXPECT_THAT(Got(), ElementsAre(HasSubstr("-7 7")));
}

TEST_F(RoomLog, WhoeverIsExcludedIsMovedFromTheLogToo) {
  Resume({kEpoch, 5});
  world.AnswerLog(Page({kEpoch, 6}, {Excluding(6, "alice")}));
  EXPECT_THAT(Got(), ElementsAre("moved 1 @999000000-6"));
  EXPECT_EQ(world.hub().counters().room_gaps, 0u);
}

}  // namespace
}  // namespace presence::core
