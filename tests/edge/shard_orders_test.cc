// Stories of what the core orders: connections and rooms to be left, statuses, and what concerns the whole edge. The shard does what
// it would do for the client, and says so by the same events.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "edge/shard.h"
#include "tests/fakes/shard_stage.h"

namespace presence::edge {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr char kSubscribed[] = R"({"type":"subscribed","channel_id":"general","dm_id":null})";
constexpr char kUnsubscribed[] = R"({"type":"unsubscribed","channel_id":"general","dm_id":null})";
constexpr char kUnsubscribedDm[] = R"({"type":"unsubscribed","channel_id":null,"dm_id":"general"})";

class ShardOrdersTest : public ::testing::Test, public ShardStage {
 protected:
  ShardOrdersTest() : ShardOrdersTest(Options()) {}
  explicit ShardOrdersTest(ShardOptions options) : ShardStage(std::move(options)) {
    Attach();
    Forget();
  }
  void LeaveRoom(uint64_t connection, const std::string& room) {
    link::v1::CoreCommand command;
    command.mutable_leave_room()->set_connection(connection);
    command.mutable_leave_room()->set_room_id(room);
    shard.OnCommand(now(), command);
  }
  void ChangeStatus(uint64_t connection, link::v1::Status status) {
    link::v1::CoreCommand command;
    command.mutable_change_status()->set_connection(connection);
    command.mutable_change_status()->set_status(status);
    shard.OnCommand(now(), command);
  }
  void BeginDrain(uint32_t window_ms) {
    link::v1::CoreCommand command;
    command.mutable_begin_drain()->set_window_ms(window_ms);
    shard.OnCommand(now(), command);
  }
  void SetLogLevel(link::v1::LogLevel level) {
    link::v1::CoreCommand command;
    command.mutable_set_log_level()->set_level(level);
    shard.OnCommand(now(), command);
  }
  // A client that has subscribed to "general" by event #2, told so; it is bound to handle 1.
  void OpenInGeneral(uint32_t slot, const char* field = "channel_id") {
    Open(slot, "alice");
    Text(slot, std::string(R"({"type":"subscribe",")") + field + R"(":"general"})");
    Bind(slot, "general", 1, 2);
    Forget();
  }
};

// --- CloseConnection

TEST_F(ShardOrdersTest, TheCoreCanCloseAConnection) {
  Open(0, "alice");
  Bind(0, "general", 1);
  Forget();
  CloseConnection(0, 4001, "kicked");
  EXPECT_THAT(output.TakeClosed(), ElementsAre(RecordingShardOutput::Closed{0, 4001, "kicked"}));
  EXPECT_THAT(Events(), ElementsAre("closed 0:alice#2"));
  // What the client still says, or gets, meets nobody.
  Text(0, R"({"type":"ping"})");
  Deliver(1, "late");
  EXPECT_TRUE(output.sent.empty());
  EXPECT_EQ(shard.username(0), "name of alice");
  Close(0);
  EXPECT_THAT(Events(), IsEmpty());
  EXPECT_EQ(shard.connections(), 0u);
}

TEST_F(ShardOrdersTest, AClientThatDoesNotAnswerItsCloseKeepsNobodyWaiting) {
  Open(0, "alice");
  Forget();
  CloseConnection(0, 1008, "kicked");
  // Before any time has passed, and with the socket still there.
  EXPECT_THAT(Events(), ElementsAre("closed 0:alice#2"));
  EXPECT_EQ(shard.connections(), 1u);
  CloseConnection(0, 1008, "kicked");
  EXPECT_THAT(Events(), IsEmpty());
  EXPECT_THAT(output.closed, SizeIs(1));
}

TEST_F(ShardOrdersTest, ACloseCodeThatMayNotBeSentIsReplaced) {
  uint32_t slot = 0;
  for (const uint32_t code : {0u, 999u, 1004u, 1005u, 1006u, 1015u, 2000u, 5000u, 65536u + 1000u}) {
    Open(slot, "alice");
    CloseConnection(slot, code, "?");
    EXPECT_THAT(output.TakeClosed(), ElementsAre(RecordingShardOutput::Closed{slot, 1008, "?"})) << code;
    ++slot;
  }
  for (const uint16_t code : std::vector<uint16_t>{1000, 1003, 1007, 1014, 3000, 4999}) {
    Open(slot, "alice");
    CloseConnection(slot, code, "");
    EXPECT_THAT(output.TakeClosed(), ElementsAre(RecordingShardOutput::Closed{slot, code, ""}));
    ++slot;
  }
}

TEST_F(ShardOrdersTest, AnOldOrderDoesNotHitTheNextOwnerOfASlot) {
  OpenInGeneral(0);
  const uint64_t alice = Id(0);
  Close(0);
  Open(0, "bob", 2);
  Bind(0, "general", 1);
  Forget();
  LeaveRoom(alice, "general");
  ChangeStatus(alice, link::v1::STATUS_AWAY);
  link::v1::CoreCommand close;
  close.mutable_close_connection()->set_connection(alice);
  close.mutable_close_connection()->set_code(1008);
  shard.OnCommand(now(), close);
  EXPECT_THAT(Events(), IsEmpty());
  EXPECT_THAT(output.closed, IsEmpty());
  EXPECT_EQ(shard.DebugDump(), "0030000000000002 bob online general\n");
  EXPECT_EQ(shard.counters().late_commands, 3u);
}

// --- LeaveRoom

TEST_F(ShardOrdersTest, AnOrderedLeaveTakesTheWayOfAnUnsubscribe) {
  OpenInGeneral(0);
  LeaveRoom(Id(0), "general");
  EXPECT_THAT(Events(), ElementsAre("left 0:general#3"));
  EXPECT_THAT(Texts(0), IsEmpty());
  EXPECT_EQ(shard.events_held(), 1u);
  Unbind(0, "general", 3);
  EXPECT_THAT(Texts(0), ElementsAre(kUnsubscribed));
  Deliver(1, "late");
  EXPECT_THAT(Texts(0), IsEmpty());
  EXPECT_EQ(shard.rooms(), 0u);
  EXPECT_EQ(shard.events_held(), 0u);
  // Nothing keeps the client from coming back.
  Subscribe(0, "general");
  EXPECT_THAT(Events(), ElementsAre("joined 0:general#4"));
}

TEST_F(ShardOrdersTest, TheClientIsToldInTheWordsInWhichItJoined) {
  OpenInGeneral(0, "dm_id");
  Bind(0, "general", 7);  // a core that numbers anew does not change them
  LeaveRoom(Id(0), "general");
  Unbind(0, "general", 3);
  EXPECT_THAT(Texts(0), ElementsAre(kUnsubscribedDm));
}

TEST_F(ShardOrdersTest, OfTwoWordsTheLaterOneCounts) {
  OpenInGeneral(0, "channel_id");
  Text(0, R"({"type":"subscribe","dm_id":"general"})");
  Bind(0, "general", 1, 3);
  Forget();
  LeaveRoom(Id(0), "general");
  Unbind(0, "general", 4);
  EXPECT_THAT(Texts(0), ElementsAre(kUnsubscribedDm));
}

TEST_F(ShardOrdersTest, WhoIsNotInTheRoomIsToldNothingButTheCoreIs) {
  Open(0, "alice");
  Forget();
  LeaveRoom(Id(0), "general");
  EXPECT_THAT(Events(), ElementsAre("left 0:general#2"));
  Unbind(0, "general", 2);
  EXPECT_THAT(Texts(0), IsEmpty());
  EXPECT_EQ(shard.events_held(), 0u);
}

TEST_F(ShardOrdersTest, AnOrderedLeaveEndsAJoinThatIsStillUnanswered) {
  Open(0, "alice");
  Text(0, R"({"type":"subscribe","dm_id":"general"})");
  Forget();
  LeaveRoom(Id(0), "general");
  EXPECT_THAT(Events(), ElementsAre("left 0:general#3"));
  Bind(0, "general", 1, 2);
  Unbind(0, "general", 3);
  EXPECT_THAT(Texts(0), ElementsAre(R"({"type":"subscribed","channel_id":null,"dm_id":"general"})", kUnsubscribedDm));
  Deliver(1, "late");
  EXPECT_THAT(Texts(0), IsEmpty());
  EXPECT_EQ(shard.rooms(), 0u);
}

TEST_F(ShardOrdersTest, WhenTheClientIsLeavingAnywayItIsToldOnce) {
  OpenInGeneral(0);
  Unsubscribe(0, "general");
  LeaveRoom(Id(0), "general");
  EXPECT_THAT(Events(), ElementsAre("left 0:general#3", "left 0:general#4"));
  Unbind(0, "general", 3);
  Unbind(0, "general", 4);
  EXPECT_THAT(Texts(0), ElementsAre(kUnsubscribed));
}

TEST_F(ShardOrdersTest, AnswersThatCameOutOfOrderHideNoLeave) {
  OpenInGeneral(0);
  Unsubscribe(0, "general");
  Subscribe(0, "random");
  Bind(0, "random", 2, 4);
  Forget();
  LeaveRoom(Id(0), "general");
  Unbind(0, "general", 3);
  Unbind(0, "general", 5);
  EXPECT_THAT(Texts(0), ElementsAre(kUnsubscribed));
}

TEST_F(ShardOrdersTest, OtherRequestsOfTheClientDoNotMatterToAnOrderedLeave) {
  OpenInGeneral(0);
  Open(1, "bob");
  Text(1, R"({"type":"subscribe","dm_id":"general"})");
  Text(0, R"({"type":"subscribe","dm_id":"random"})");
  Forget();
  LeaveRoom(Id(0), "general");
  EXPECT_THAT(Events(), ElementsAre("left 0:general#6"));
  Unbind(0, "general", 6);
  EXPECT_THAT(Texts(0), ElementsAre(kUnsubscribed));
}

TEST_F(ShardOrdersTest, AnOrderJustBeforeTheLinkIsLostIsSaidAgainAndRepeatingItHurtsNobody) {
  OpenInGeneral(0);
  LeaveRoom(Id(0), "general");
  LinkDown();
  Forget();
  Attach();
  EXPECT_THAT(Events(), ElementsAre("hello 2", "declared 0:alice online general", "left 0:general#3", "resync done"));
  // The core has heard of nothing and orders it again.
  Bind(0, "general", 4);
  LeaveRoom(Id(0), "general");
  EXPECT_THAT(Events(), ElementsAre("left 0:general#4"));
  Unbind(0, "general", 3);
  Unbind(0, "general", 4);
  EXPECT_THAT(Texts(0), ElementsAre(kUnsubscribed));
  // And once more, when all is done.
  LeaveRoom(Id(0), "general");
  EXPECT_THAT(Events(), ElementsAre("left 0:general#5"));
  Unbind(0, "general", 5);
  EXPECT_THAT(Texts(0), IsEmpty());
  EXPECT_EQ(shard.events_held(), 0u);
  EXPECT_EQ(shard.rooms(), 0u);
}

TEST_F(ShardOrdersTest, AJoinAndAnOrderedLeaveThatALostLinkLeftUnansweredAreRepeatedInOrder) {
  Open(0, "alice");
  Subscribe(0, "general");
  LeaveRoom(Id(0), "general");
  LinkDown();
  Forget();
  Attach();
  EXPECT_THAT(Events(), ElementsAre("hello 2", "declared 0:alice online", "joined 0:general#2", "left 0:general#3",
                                    "resync done"));
  Bind(0, "general", 1, 2);
  Unbind(0, "general", 3);
  EXPECT_THAT(Texts(0), ElementsAre(kSubscribed, kUnsubscribed));
}

class SmallShardOrdersTest : public ShardOrdersTest {
 protected:
  static ShardOptions Small() {
    ShardOptions options = Options();
    options.rooms_per_connection_max = 1;
    options.events_held_max = 3;
    return options;
  }
  SmallShardOrdersTest() : ShardOrdersTest(Small()) {}
};

TEST_F(SmallShardOrdersTest, AClientCannotFillItsOwnBoundToEscapeAnOrder) {
  OpenInGeneral(0);
  Unsubscribe(0, "a");
  Unsubscribe(0, "b");
  Unsubscribe(0, "c");  // refused: 429
  Forget();
  LeaveRoom(Id(0), "general");
  EXPECT_THAT(Events(), ElementsAre("left 0:general#5"));
}

TEST_F(SmallShardOrdersTest, AnOrderThatTheShardCannotHoldIsCountedAndLeftToItsRepetition) {
  for (uint32_t slot = 0; slot < 3; ++slot) {
    Open(slot, "user");
    Unsubscribe(slot, "a");
  }
  Bind(0, "general", 1);
  Forget();
  LeaveRoom(Id(0), "general");
  EXPECT_THAT(Events(), IsEmpty());
  EXPECT_THAT(Texts(0), IsEmpty());
  EXPECT_EQ(shard.counters().events_refused, 1u);
  Acknowledge(6);
  LeaveRoom(Id(0), "general");
  EXPECT_THAT(Events(), ElementsAre("left 0:general#7"));
}

// --- ChangeStatus

TEST_F(ShardOrdersTest, AnOrderedStatusIsToldEvenIfTheDeviceHasIt) {
  Open(0, "alice");
  Forget();
  ChangeStatus(Id(0), link::v1::STATUS_AWAY);
  ChangeStatus(Id(0), link::v1::STATUS_AWAY);
  EXPECT_THAT(Events(), ElementsAre("status 0:away#2", "status 0:away#3"));
  EXPECT_THAT(Texts(0), IsEmpty());
  // The client has the last word, as before.
  Text(0, R"({"type":"status","status":"away"})");
  Text(0, R"({"type":"status","status":"online"})");
  EXPECT_THAT(Events(), ElementsAre("status 0:online#4"));
  ChangeStatus(Id(0), link::v1::STATUS_ONLINE);
  EXPECT_THAT(Events(), ElementsAre("status 0:online#5"));
}

TEST_F(ShardOrdersTest, AnOrderedStatusOutlivesTheLink) {
  Open(0, "alice");
  ChangeStatus(Id(0), link::v1::STATUS_AWAY);
  LinkDown();
  Forget();
  Attach();
  EXPECT_THAT(Events(), ElementsAre("hello 2", "declared 0:alice away", "resync done"));
  ChangeStatus(Id(0), link::v1::STATUS_AWAY);
  EXPECT_THAT(Events(), ElementsAre("status 0:away#3"));
}

TEST_F(ShardOrdersTest, AStatusThatNoDeviceHasIsSkipped) {
  Open(0, "alice");
  Forget();
  ChangeStatus(Id(0), link::v1::STATUS_OFFLINE);
  ChangeStatus(Id(0), static_cast<link::v1::Status>(9));
  EXPECT_THAT(Events(), IsEmpty());
  EXPECT_EQ(shard.counters().commands_unknown, 2u);
  EXPECT_EQ(shard.DebugDump(), "0030000000000001 alice online\n");
}

// --- the whole edge

TEST_F(ShardOrdersTest, ADrainIsPassedOnAndBeginsWhenTheEdgeSaysSo) {
  for (uint32_t slot = 0; slot < 4; ++slot) Open(slot, "user");
  BeginDrain(2000);
  EXPECT_THAT(output.drains, ElementsAre(milliseconds(2000)));
  EXPECT_TRUE(shard.ready(now()));
  AdvanceWithCore(seconds(2));
  EXPECT_THAT(output.closed, IsEmpty());

  shard.Drain(now(), output.drains[0]);
  EXPECT_FALSE(shard.ready(now()));
  AdvanceWithCore(seconds(1));
  EXPECT_THAT(output.closed, SizeIs(2));
  AdvanceWithCore(seconds(1));
  EXPECT_THAT(output.closed, SizeIs(4));
  for (const auto& closed : output.closed) EXPECT_EQ(closed.code, 1012);
}

TEST_F(ShardOrdersTest, TheEndOfTheProcessOvertakesALongDrain) {
  for (uint32_t slot = 0; slot < 4; ++slot) Open(slot, "user");
  shard.Drain(now(), seconds(100));
  AdvanceWithCore(seconds(50));
  EXPECT_THAT(output.closed, SizeIs(2));
  shard.Drain(now(), seconds(3));
  AdvanceWithCore(seconds(3));
  EXPECT_THAT(output.closed, SizeIs(4));
  EXPECT_EQ(output.closed.back().code, 1012);
}

TEST_F(ShardOrdersTest, ALogLevelIsPassedOn) {
  SetLogLevel(link::v1::LOG_LEVEL_DEBUG);
  SetLogLevel(link::v1::LOG_LEVEL_ERROR);
  EXPECT_THAT(output.log_levels, ElementsAre(link::v1::LOG_LEVEL_DEBUG, link::v1::LOG_LEVEL_ERROR));
  SetLogLevel(link::v1::LOG_LEVEL_UNSPECIFIED);
  SetLogLevel(static_cast<link::v1::LogLevel>(5));
  EXPECT_THAT(output.log_levels, SizeIs(2));
  EXPECT_EQ(shard.counters().commands_unknown, 2u);
}

TEST(ShardHelloTest, AShardSaysWhichProgramItRunsInAndSinceWhen) {
  ShardOptions options = ShardStage::Options();
  options.version = "1.2.3";
  options.started_ms = 1736856000000;
  ShardStage stage(options);
  stage.LinkUp();
  const auto events = stage.output.TakeEvents();
  ASSERT_THAT(events, SizeIs(1));
  EXPECT_EQ(events[0].hello().version(), "1.2.3");
  EXPECT_EQ(events[0].hello().started_ms(), 1736856000000);
}

}  // namespace
}  // namespace presence::edge
