// Stories of who gets a message: the members of a room, all but some of them, or connections by name.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "edge/shard.h"
#include "tests/fakes/shard_stage.h"

namespace presence::edge {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class ShardDeliveryTest : public ::testing::Test, public ShardStage {
 protected:
  ShardDeliveryTest() {
    Attach();
    Forget();
  }
  // Four clients; the first three are in "general", whose handle is 1.
  void OpenARoom() {
    for (uint32_t slot = 0; slot < 4; ++slot) Open(slot, "user" + std::to_string(slot));
    for (uint32_t slot = 0; slot < 3; ++slot) Bind(slot, "general", 1);
    Forget();
  }
  void DeliverToOthers(uint32_t handle, const std::string& text, const std::vector<uint64_t>& excluded) {
    link::v1::CoreCommand command;
    command.mutable_deliver()->set_handle(handle);
    command.mutable_deliver()->set_text(text);
    command.mutable_deliver()->mutable_excluded_connections()->Add(excluded.begin(), excluded.end());
    shard.OnCommand(now(), command);
  }
  void DeliverTo(const std::vector<uint64_t>& connections, const std::string& text) {
    link::v1::CoreCommand command;
    command.mutable_deliver_to()->set_text(text);
    command.mutable_deliver_to()->mutable_connections()->Add(connections.begin(), connections.end());
    shard.OnCommand(now(), command);
  }
  uint64_t IdOfAnotherShard(uint32_t slot) const { return ConnectionId{kShard + 1, slot, 1}.Pack(); }
};

TEST_F(ShardDeliveryTest, ADeliveryReachesTheMembersOfItsRoomInOneCall) {
  for (uint32_t slot = 0; slot < 4; ++slot) Open(slot, "user" + std::to_string(slot));
  Bind(0, "general", 1);
  Bind(1, "general", 1);
  Bind(2, "general", 1);
  Bind(2, "other", 2);
  Bind(3, "other", 2);
  Forget();
  Deliver(1, R"({"type":"message","data":{}})");
  EXPECT_EQ(output.send_calls, 1u);
  for (uint32_t slot : {0u, 1u, 2u}) EXPECT_THAT(Texts(slot), ElementsAre(R"({"type":"message","data":{}})"));
  EXPECT_THAT(Texts(3), IsEmpty());
  EXPECT_EQ(shard.counters().deliveries, 3u);
}

TEST_F(ShardDeliveryTest, OnlyTypingIsVolatile) {
  Open(0, "alice");
  Bind(0, "general", 1);
  Forget();
  Deliver(1, "message");
  Deliver(1, "typing", /*is_volatile=*/true);
  ASSERT_THAT(output.sent[0], SizeIs(2));
  EXPECT_EQ(output.sent[0][0].policy.send_class, SendClass::kReliable);
  EXPECT_EQ(output.sent[0][1].policy.send_class, SendClass::kVolatile);
}

TEST_F(ShardDeliveryTest, AnExcludedMemberGetsNothingAndTheOthersDo) {
  OpenARoom();
  DeliverToOthers(1, "not for user1", {Id(1)});
  EXPECT_THAT(Texts(0), ElementsAre("not for user1"));
  EXPECT_THAT(Texts(1), IsEmpty());
  EXPECT_THAT(Texts(2), ElementsAre("not for user1"));
  EXPECT_THAT(Texts(3), IsEmpty());
  EXPECT_EQ(output.send_calls, 1u);
  EXPECT_EQ(shard.counters().deliveries, 2u);
  // It was about that message alone.
  Deliver(1, "for all");
  EXPECT_THAT(Texts(1), ElementsAre("for all"));
  DeliverToOthers(1, "not for user2", {Id(2)});
  EXPECT_THAT(Texts(1), ElementsAre("not for user2"));
  EXPECT_THAT(Texts(2), ElementsAre("for all"));
}

TEST_F(ShardDeliveryTest, WhoIsExcludedTwiceOrIsNoMemberChangesNothingForTheOthers) {
  OpenARoom();
  DeliverToOthers(1, "hello", {Id(0), Id(3), Id(0)});
  EXPECT_THAT(Texts(0), IsEmpty());
  EXPECT_THAT(Texts(1), ElementsAre("hello"));
  EXPECT_THAT(Texts(2), ElementsAre("hello"));
}

TEST_F(ShardDeliveryTest, WhenAllAreExcludedNothingIsSent) {
  OpenARoom();
  DeliverToOthers(1, "for nobody", {Id(0), Id(1), Id(2)});
  EXPECT_EQ(output.send_calls, 0u);
  EXPECT_EQ(shard.counters().messages_sent, 4u);  // the first pongs
}

TEST_F(ShardDeliveryTest, ExcludingAFormerOwnerOfASlotExcludesNobody) {
  OpenARoom();
  const uint64_t former = Id(1);
  Close(1);
  Open(1, "successor", 2);
  Bind(1, "general", 1);
  Forget();
  DeliverToOthers(1, "hello", {former, IdOfAnotherShard(0), ~uint64_t{0}});
  for (uint32_t slot : {0u, 1u, 2u}) EXPECT_THAT(Texts(slot), ElementsAre("hello")) << slot;
}

TEST_F(ShardDeliveryTest, AMessageToConnectionsReachesThemWhateverTheirRooms) {
  OpenARoom();
  DeliverTo({Id(3), Id(0)}, "to you");
  EXPECT_THAT(Texts(0), ElementsAre("to you"));
  EXPECT_THAT(Texts(3), ElementsAre("to you"));
  EXPECT_THAT(Texts(1), IsEmpty());
  EXPECT_EQ(output.send_calls, 1u);
  EXPECT_EQ(shard.counters().deliveries, 2u);
  EXPECT_EQ(shard.counters().messages_sent, 6u);
  EXPECT_EQ(shard.counters().late_commands, 0u);
}

TEST_F(ShardDeliveryTest, AMessageToConnectionsIsNeverDropped) {
  OpenARoom();
  DeliverTo({Id(0)}, "to you");
  ASSERT_THAT(output.sent[0], SizeIs(1));
  EXPECT_EQ(output.sent[0][0].policy.send_class, SendClass::kReliable);
}

TEST_F(ShardDeliveryTest, AConnectionThatIsNamedTwiceGetsAMessageOnce) {
  OpenARoom();
  DeliverTo({Id(0), Id(0)}, "to you");
  EXPECT_THAT(Texts(0), ElementsAre("to you"));
}

TEST_F(ShardDeliveryTest, AMessageToConnectionsThatAreGoneIsCountedLateForEach) {
  OpenARoom();
  const uint64_t former = Id(1);
  Close(1);
  Open(1, "successor", 2);
  Forget();
  DeliverTo({former, Id(2), IdOfAnotherShard(0)}, "to you");
  EXPECT_THAT(Texts(1), IsEmpty());
  EXPECT_THAT(Texts(2), ElementsAre("to you"));
  EXPECT_EQ(shard.counters().late_commands, 2u);
  DeliverTo({former}, "to you");
  EXPECT_EQ(output.send_calls, 1u);
}

TEST_F(ShardDeliveryTest, NobodyWhoIsBeingClosedGetsAMessage) {
  OpenARoom();
  CloseConnection(0, 4000, "bye");
  Forget();
  DeliverTo({Id(0)}, "to you");
  DeliverToOthers(1, "hello", {Id(1)});
  EXPECT_THAT(Texts(0), IsEmpty());
  EXPECT_THAT(Texts(2), ElementsAre("hello"));
}

}  // namespace
}  // namespace presence::edge
