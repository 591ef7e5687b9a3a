// Stories of one shard and its clients, with a link that holds. edge/shard_resync_test.cc has those in which it does not,
// edge/shard_delivery_test.cc who gets a message, edge/shard_orders_test.cc what the core orders.
#include "edge/shard.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/fakes/shard_stage.h"

namespace presence::edge {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using Severity = ShardOutput::Severity;

constexpr char kPong[] = R"({"type":"pong","timestamp":"2025-01-14T12:00:00Z"})";

class ShardTest : public ::testing::Test, public ShardStage {
 protected:
  ShardTest() : ShardTest(Options()) {}
  explicit ShardTest(ShardOptions options) : ShardStage(std::move(options)) {
    Attach();
    Forget();
  }
};

TEST_F(ShardTest, TheFirstFrameIsAPongAndTheCoreHearsOfTheConnection) {
  Open(5, "alice");
  EXPECT_THAT(Texts(5), ElementsAre(kPong));
  EXPECT_THAT(Events(), ElementsAre("opened 5:alice#1"));
  EXPECT_EQ(shard.username(5), "name of alice");
  EXPECT_EQ(shard.user_id(5), "alice");
  EXPECT_EQ(shard.connections(), 1u);
}

TEST_F(ShardTest, ASubscriptionIsConfirmedWhenTheCoreHasBoundIt) {
  Open(0, "alice");
  Forget();
  Subscribe(0, "general");
  EXPECT_THAT(Events(), ElementsAre("joined 0:general#2"));
  EXPECT_THAT(Texts(0), IsEmpty());
  EXPECT_EQ(shard.rooms(), 0u);

  Bind(0, "general", 9, 2);
  EXPECT_THAT(Texts(0), ElementsAre(R"({"type":"subscribed","channel_id":"general","dm_id":null})"));
  EXPECT_EQ(shard.rooms(), 1u);
  EXPECT_EQ(shard.events_held(), 0u);
  ASSERT_THAT(output.reports, SizeIs(1));
  EXPECT_EQ(output.reports[0].what, "Connection {connection} subscribed to room {detail}");
  EXPECT_EQ(output.reports[0].detail, "general");
  EXPECT_EQ(output.reports[0].severity, Severity::kInfo);
}

TEST_F(ShardTest, TheConfirmationNamesTheFieldThatTheClientUsed) {
  Open(0, "alice");
  Text(0, R"({"type":"subscribe","dm_id":"channel_odd"})");
  Forget();
  Bind(0, "channel_odd", 1, 2);
  EXPECT_THAT(Texts(0), ElementsAre(R"({"type":"subscribed","channel_id":null,"dm_id":"channel_odd"})"));
  Text(0, R"({"type":"unsubscribe","dm_id":"channel_odd"})");
  Unbind(0, "channel_odd", 3);
  EXPECT_THAT(Texts(0), ElementsAre(R"({"type":"unsubscribed","channel_id":null,"dm_id":"channel_odd"})"));
}

TEST_F(ShardTest, ARepeatedSubscribeIsConfirmedAgainAndDeliversOnce) {
  Open(0, "alice");
  Subscribe(0, "general");
  Bind(0, "general", 1, 2);
  Subscribe(0, "general");
  Bind(0, "general", 1, 3);
  Forget();
  Deliver(1, "hello");
  EXPECT_THAT(Texts(0), ElementsAre("hello"));
}

TEST_F(ShardTest, LeavingARoomThatOneIsNotInIsConfirmedToo) {
  Open(0, "alice");
  Forget();
  Unsubscribe(0, "general");
  EXPECT_THAT(Events(), ElementsAre("left 0:general#2"));
  Unbind(0, "general", 2);
  EXPECT_THAT(Texts(0), ElementsAre(R"({"type":"unsubscribed","channel_id":"general","dm_id":null})"));
}

TEST_F(ShardTest, NothingIsDeliveredAfterUnsubscribedNorAfterTheClose) {
  Open(0, "alice");
  Open(1, "bob");
  Bind(0, "general", 1);
  Bind(1, "general", 1);
  Unsubscribe(0, "general");
  Unbind(0, "general", 3);
  Close(1);
  Forget();
  Deliver(1, "late");
  EXPECT_TRUE(output.sent.empty());
  EXPECT_EQ(shard.counters().late_commands, 1u);
  EXPECT_EQ(shard.rooms(), 0u);
}

TEST_F(ShardTest, TheCoreMayTakeAConnectionOutOfARoomUnasked) {
  Open(0, "alice");
  Bind(0, "general", 1);
  Forget();
  Unbind(0, "general");
  EXPECT_THAT(Texts(0), IsEmpty());
  EXPECT_EQ(shard.rooms(), 0u);
}

TEST_F(ShardTest, ARefusedJoinIsAnErrorForTheClient) {
  Open(0, "alice");
  Subscribe(0, "secret");
  Forget();
  Refuse(2, 403, "Forbidden");
  EXPECT_THAT(Texts(0), ElementsAre(R"({"type":"error","error":"Forbidden","code":403})"));
  EXPECT_EQ(shard.events_held(), 0u);
  Refuse(2, 403, "Forbidden");
  EXPECT_THAT(Texts(0), IsEmpty());
}

TEST_F(ShardTest, TypingGoesToTheCoreWithTheKindOfItsRoom) {
  Open(0, "alice");
  Forget();
  Text(0, R"({"type":"typing","channel_id":"general"})");
  Text(0, R"({"type":"typing","dm_id":"dm_1"})");
  EXPECT_THAT(Events(), ElementsAre("typing 0:general channel", "typing 0:dm_1 dm"));
  EXPECT_THAT(Texts(0), IsEmpty());
}

TEST_F(ShardTest, AStatusIsToldWhenItChanges) {
  Open(0, "alice");
  Forget();
  Text(0, R"({"type":"status","status":"online"})");
  Text(0, R"({"type":"status","status":"away"})");
  Text(0, R"({"type":"status","status":"away"})");
  Text(0, R"({"type":"status","status":"online"})");
  EXPECT_THAT(Events(), ElementsAre("status 0:away#2", "status 0:online#3"));
}

TEST_F(ShardTest, APingIsAnsweredAtOnceAndReportedOnceASecond) {
  Open(0, "alice");
  Open(1, "bob");
  Open(2, "carol");
  AdvanceWithCore(seconds(1));
  Forget();
  Text(1, R"({"type":"ping"})");
  EXPECT_THAT(Texts(1), ElementsAre(R"({"type":"pong","timestamp":"2025-01-14T12:00:01Z"})"));
  Text(1, R"({"type":"ping"})");
  Text(2, "garbage");
  shard.OnControlFrame(now(), 2);
  AdvanceWithCore(seconds(1));
  EXPECT_THAT(Events(), ElementsAre("activity 2 ping:1"));
  AdvanceWithCore(seconds(1));
  EXPECT_THAT(Events(), ElementsAre("heartbeat"));
}

TEST_F(ShardTest, TheActivityOfAFormerOwnerOfASlotIsNotReported) {
  Open(0, "alice");
  Text(0, R"({"type":"ping"})");
  Close(0);
  Open(0, "bob", 2);
  Forget();
  AdvanceWithCore(seconds(1));
  EXPECT_THAT(Events(), ElementsAre("heartbeat"));
  Text(0, R"({"type":"ping"})");
  Close(0);
  Open(0, "carol", 3);
  Text(0, R"({"type":"ping"})");
  Forget();
  AdvanceWithCore(seconds(1));
  EXPECT_THAT(Events(), ElementsAre("activity ping:0"));
}

TEST_F(ShardTest, BadInputCostsOneBoundedLineAndAnError) {
  Open(0, "alice");
  Forget();
  Text(0, std::string(50'000, 'x'));
  EXPECT_THAT(Texts(0), ElementsAre(R"({"type":"error","error":"Invalid JSON","code":400})"));
  ASSERT_THAT(output.reports, SizeIs(1));
  EXPECT_EQ(output.reports[0].detail.size(), 128u);
  EXPECT_EQ(output.reports[0].severity, Severity::kError);
  EXPECT_THAT(output.closed, IsEmpty());
  Text(0, R"({"type":"foo"})");
  EXPECT_THAT(Texts(0), ElementsAre(R"({"type":"error","error":"Invalid message type","code":400})"));
  EXPECT_EQ(shard.counters().errors, 2u);
  EXPECT_EQ(shard.counters().messages_received, 2u);
}

TEST_F(ShardTest, ACommandForAFormerOwnerOfASlotIsDropped) {
  Open(0, "alice");
  Subscribe(0, "general");
  const uint64_t alice = Id(0);
  Close(0);
  Open(0, "bob", 2);
  Forget();
  BindById(alice, "general", 1, 2);
  EXPECT_TRUE(output.sent.empty());
  EXPECT_EQ(shard.rooms(), 0u);
  EXPECT_EQ(shard.counters().late_commands, 1u);
}

// --- silence

TEST_F(ShardTest, SilenceForMoreThanTwoIntervalsEndsAConnection) {
  Open(0, "alice");
  Open(1, "bob");
  AdvanceWithCore(seconds(30));
  Text(1, R"({"type":"ping"})");
  AdvanceWithCore(seconds(30));
  EXPECT_THAT(output.closed, IsEmpty());
  output.reports.clear();
  AdvanceWithCore(milliseconds(100));
  EXPECT_THAT(output.TakeClosed(), ElementsAre(RecordingShardOutput::Closed{0, 1008, "Heartbeat timeout"}));
  ASSERT_THAT(output.reports, SizeIs(1));
  EXPECT_EQ(output.reports[0].what, "No heartbeat from {connection}, disconnecting");
  EXPECT_EQ(output.reports[0].severity, Severity::kWarning);
  AdvanceWithCore(seconds(30));
  EXPECT_THAT(output.TakeClosed(), ElementsAre(RecordingShardOutput::Closed{1, 1008, "Heartbeat timeout"}));
  EXPECT_EQ(shard.counters().heartbeat_timeouts, 2u);
}

TEST_F(ShardTest, AnyFrameIsASignOfLife) {
  for (uint32_t slot = 0; slot < 3; ++slot) Open(slot, "user");
  AdvanceWithCore(seconds(50));
  Text(0, "garbage");
  shard.OnControlFrame(now(), 1);
  Text(2, R"({"type":"typing","channel_id":"a"})");
  AdvanceWithCore(seconds(50));
  EXPECT_THAT(output.closed, IsEmpty());
}

TEST_F(ShardTest, ATickThatComesLateJudgesNobody) {
  Open(0, "alice");
  elapsed += seconds(61);
  Tick();
  EXPECT_THAT(output.closed, IsEmpty());
  EXPECT_THAT(output.dropped, IsEmpty());
  // What had waited in the socket is read now.
  Text(0, R"({"type":"ping"})");
  AdvanceWithCore(seconds(1));
  EXPECT_THAT(output.closed, IsEmpty());
}

TEST_F(ShardTest, AfterALateTickTheNextOneJudges) {
  Open(0, "alice");
  elapsed += seconds(61);
  Tick();
  Advance(milliseconds(100));
  EXPECT_THAT(output.closed, SizeIs(1));
  EXPECT_THAT(output.dropped, SizeIs(1));
}

// --- bounds

class SmallShardTest : public ShardTest {
 protected:
  static ShardOptions Small() {
    ShardOptions options = Options();
    options.rooms_per_connection_max = 2;
    options.events_held_max = 5;
    return options;
  }
  SmallShardTest() : ShardTest(Small()) {}
};

TEST_F(SmallShardTest, RoomsOfAConnectionAreBounded) {
  Open(0, "alice");
  Subscribe(0, "a");
  Bind(0, "a", 1, 2);
  Subscribe(0, "b");
  Forget();
  Subscribe(0, "c");
  EXPECT_THAT(Texts(0), ElementsAre(R"({"type":"error","error":"Too many rooms","code":429})"));
  Bind(0, "b", 2, 3);
  Forget();
  // One that it is in already is confirmed again, all the same.
  Subscribe(0, "a");
  EXPECT_THAT(Events(), ElementsAre("joined 0:a#4"));
}

TEST_F(SmallShardTest, UnansweredRequestsOfAConnectionAreBounded) {
  Open(0, "alice");
  Forget();
  for (int i = 0; i < 5; ++i) Unsubscribe(0, "a");
  EXPECT_THAT(Texts(0), ElementsAre(R"({"type":"error","error":"Too many requests","code":429})"));
}

TEST_F(SmallShardTest, WhenTooMuchIsUnansweredRequestsAreRefusedUntilTheCoreAcknowledges) {
  for (uint32_t slot = 0; slot < 3; ++slot) Open(slot, "user");
  for (uint32_t slot = 0; slot < 3; ++slot) {
    Unsubscribe(slot, "a");
    Unsubscribe(slot, "b");
  }
  EXPECT_THAT(output.sent[2], SizeIs(2));
  EXPECT_EQ(output.sent[2][1].text, R"({"type":"error","error":"Service unavailable","code":503})");
  EXPECT_EQ(shard.counters().events_refused, 1u);
  EXPECT_EQ(shard.events_held(), 5u);
  Acknowledge(8);
  EXPECT_EQ(shard.events_held(), 0u);
  Forget();
  Unsubscribe(2, "b");
  EXPECT_THAT(Texts(2), IsEmpty());
}

TEST_F(SmallShardTest, RequestsOfThoseWhoLeftMakeRoom) {
  for (uint32_t slot = 0; slot < 3; ++slot) {
    Open(slot, "user");
    Unsubscribe(slot, "a");
    Unsubscribe(slot, "b");
  }
  Close(0);
  Forget();
  Unsubscribe(2, "c");
  EXPECT_THAT(Texts(2), IsEmpty());
  EXPECT_THAT(Events(), ElementsAre("left 2:c#10"));
}

TEST_F(SmallShardTest, TooManyClosesLoseTheOldest) {
  for (uint32_t slot = 0; slot < 7; ++slot) Open(slot, "user");
  for (uint32_t slot = 0; slot < 7; ++slot) Close(slot);
  EXPECT_EQ(shard.events_held(), 5u);
  EXPECT_EQ(shard.counters().closes_dropped, 2u);
}

// --- drain

TEST_F(ShardTest, ADrainClosesEverybodyEvenlyAndNewcomersAtOnce) {
  for (uint32_t slot = 0; slot < 10; ++slot) Open(slot, "user");
  EXPECT_TRUE(shard.ready(now()));
  shard.Drain(now(), seconds(10));
  EXPECT_FALSE(shard.ready(now()));
  EXPECT_THAT(output.closed, IsEmpty());
  AdvanceWithCore(milliseconds(2500));
  EXPECT_THAT(output.closed, SizeIs(2));
  Open(20, "late");
  EXPECT_EQ(output.closed.back(), (RecordingShardOutput::Closed{20, 1012, "restart"}));
  EXPECT_THAT(Texts(20), IsEmpty());
  AdvanceWithCore(milliseconds(7500));
  EXPECT_THAT(output.closed, SizeIs(11));
  for (const auto& closed : output.TakeClosed()) Close(closed.slot);
  EXPECT_EQ(shard.connections(), 0u);
  EXPECT_EQ(shard.DebugDump(), "");
}

TEST_F(ShardTest, ADrainWithoutTimeClosesAtOnce) {
  for (uint32_t slot = 0; slot < 3; ++slot) Open(slot, "user");
  shard.Drain(now(), milliseconds(0));
  EXPECT_THAT(output.closed, SizeIs(3));
}

TEST_F(ShardTest, TheDumpShowsConnectionsAndTheirRooms) {
  Open(1, "bob");
  Open(0, "alice");
  Bind(1, "b", 1);
  Bind(1, "a", 2);
  Text(0, R"({"type":"status","status":"away"})");
  EXPECT_EQ(shard.DebugDump(), "0030000000000001 alice away\n0030000100000001 bob online a b\n");
}

}  // namespace
}  // namespace presence::edge
