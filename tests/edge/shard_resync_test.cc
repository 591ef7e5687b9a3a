// Stories of a shard whose link is lost and found again.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "edge/shard.h"
#include "tests/fakes/shard_stage.h"

namespace presence::edge {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::Contains;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr char kSubscribed[] = R"({"type":"subscribed","channel_id":"general","dm_id":null})";
constexpr char kUnsubscribed[] = R"({"type":"unsubscribed","channel_id":"general","dm_id":null})";

class ShardResyncTest : public ::testing::Test, public ShardStage {
 protected:
  ShardResyncTest() : ShardResyncTest(Options()) {}
  explicit ShardResyncTest(ShardOptions options) : ShardStage(std::move(options)) {}
};

TEST_F(ShardResyncTest, BeforeWelcomeOnlyHelloIsSaid) {
  Open(0, "alice");
  Subscribe(0, "general");
  LinkUp();
  Text(0, R"({"type":"status","status":"away"})");
  Text(0, R"({"type":"typing","channel_id":"general"})");
  Advance(seconds(2));
  const auto events = output.TakeEvents();
  ASSERT_THAT(events, SizeIs(1));
  EXPECT_EQ(events[0].sequence(), 0u);
  EXPECT_EQ(events[0].hello().protocol(), 1u);
  EXPECT_EQ(events[0].hello().edge(), "edge-1");
  EXPECT_EQ(events[0].hello().incarnation(), 77u);
  EXPECT_EQ(events[0].hello().shard(), kShard);
  EXPECT_EQ(events[0].hello().attach(), 1u);
  EXPECT_FALSE(shard.link_live());
  EXPECT_EQ(shard.counters().typing_dropped, 1u);
}

TEST_F(ShardResyncTest, AfterWelcomeEverythingIsDeclared) {
  Attach();
  Open(0, "alice");
  Open(1, "bob");
  Bind(0, "general", 1);
  Bind(0, "random", 2);
  LinkDown();
  Text(1, R"({"type":"status","status":"away"})");
  Text(1, R"({"type":"status","status":"online"})");
  Text(1, R"({"type":"status","status":"away"})");
  Open(2, "carol");
  Forget();
  Attach();
  EXPECT_THAT(Events(), ElementsAre("hello 2", "declared 0:alice online general random", "declared 1:bob away",
                                    "declared 2:carol online", "resync done"));
  EXPECT_TRUE(shard.link_live());
  EXPECT_EQ(shard.counters().link_losses, 1u);
  EXPECT_EQ(shard.counters().resyncs, 1u);
}

TEST_F(ShardResyncTest, TheDeclarationSaysHowLongAClientHasBeenSilent) {
  Open(0, "alice");
  elapsed += milliseconds(1000);
  Text(0, R"({"type":"ping"})");
  elapsed += milliseconds(500);
  shard.OnControlFrame(now(), 0);
  elapsed += milliseconds(250);
  Attach();
  const auto events = output.TakeEvents();
  ASSERT_THAT(events, SizeIs(3));
  EXPECT_EQ(events[1].connection_declared().silent_ms(), 250u);
  EXPECT_EQ(events[1].connection_declared().since_ping_ms(), 750u);
  EXPECT_EQ(events[1].connection_declared().username(), "name of alice");
}

TEST_F(ShardResyncTest, ALostLinkClosesNobodyAndPingsAreAnswered) {
  Attach();
  Open(0, "alice");
  LinkDown();
  Forget();
  Text(0, R"({"type":"ping"})");
  Advance(seconds(20));
  EXPECT_THAT(Texts(0), SizeIs(1));
  EXPECT_THAT(output.closed, IsEmpty());
}

TEST_F(ShardResyncTest, AJoinThatWasLostWithTheLinkIsRepeatedAndAnsweredOnce) {
  Attach();
  Open(0, "alice");
  Subscribe(0, "general");
  LinkDown();
  Forget();
  Attach();
  EXPECT_THAT(Events(), ElementsAre("hello 2", "declared 0:alice online", "joined 0:general#2", "resync done"));
  Bind(0, "general", 1, 2);
  EXPECT_THAT(Texts(0), ElementsAre(kSubscribed));
  // Once answered, it is not repeated, and not answered again.
  Bind(0, "general", 1, 2);
  EXPECT_THAT(Texts(0), IsEmpty());
  LinkDown();
  Forget();
  Attach();
  EXPECT_THAT(Events(), ElementsAre("hello 3", "declared 0:alice online general", "resync done"));
}

TEST_F(ShardResyncTest, RequestsMadeDuringTheOutageAreSentInOrder) {
  Attach();
  Open(0, "alice");
  Bind(0, "general", 1);
  LinkDown();
  Unsubscribe(0, "general");
  Subscribe(0, "random");
  Subscribe(0, "general");
  Forget();
  Attach();
  EXPECT_THAT(Events(), ElementsAre("hello 2", "declared 0:alice online general", "left 0:general#2",
                                    "joined 0:random#3", "joined 0:general#4", "resync done"));
  Bind(0, "general", 5);
  EXPECT_THAT(Texts(0), IsEmpty());
  Unbind(0, "general", 2);
  Bind(0, "random", 6, 3);
  Bind(0, "general", 7, 4);
  EXPECT_THAT(Texts(0),
              ElementsAre(kUnsubscribed, R"({"type":"subscribed","channel_id":"random","dm_id":null})", kSubscribed));
}

TEST_F(ShardResyncTest, ACloseDuringTheOutageIsToldUntilItIsAcknowledged) {
  Attach();
  Open(0, "alice");
  Subscribe(0, "general");
  LinkDown();
  Subscribe(0, "random");
  Close(0);
  Forget();
  Attach();
  EXPECT_THAT(Events(), ElementsAre("hello 2", "closed 0:alice#4", "resync done"));
  LinkDown();
  Attach();
  EXPECT_THAT(Events(), ElementsAre("hello 3", "closed 0:alice#4", "resync done"));
  Acknowledge(4);
  EXPECT_EQ(shard.events_held(), 0u);
  LinkDown();
  Attach();
  EXPECT_THAT(Events(), ElementsAre("hello 4", "resync done"));
}

TEST_F(ShardResyncTest, RepeatedEventsKeepTheirOrderAcrossConnections) {
  Attach();
  Open(0, "alice");
  Open(1, "bob");
  Open(2, "carol");
  LinkDown();
  Subscribe(0, "a");
  Close(1);
  Subscribe(0, "b");
  Close(2);
  Forget();
  Attach();
  EXPECT_THAT(Events(), ElementsAre("hello 2", "declared 0:alice online", "joined 0:a#4", "closed 1:bob#5",
                                    "joined 0:b#6", "closed 2:carol#7", "resync done"));
}

TEST_F(ShardResyncTest, WhoCameAndWentDuringTheOutageIsNotMentioned) {
  Attach();
  LinkDown();
  Open(0, "alice");
  Subscribe(0, "general");
  Close(0);
  Forget();
  Attach();
  EXPECT_THAT(Events(), ElementsAre("hello 2", "resync done"));
  EXPECT_EQ(shard.events_held(), 0u);
}

TEST_F(ShardResyncTest, AnAcknowledgedRequestIsNotRepeated) {
  Attach();
  Open(0, "alice");
  Subscribe(0, "a");
  Subscribe(0, "b");
  Acknowledge(2);
  LinkDown();
  Forget();
  Attach();
  EXPECT_THAT(Events(), Contains("joined 0:b#3"));
  EXPECT_EQ(shard.events_held(), 1u);
}

TEST_F(ShardResyncTest, HandlesAreOfOneAttach) {
  Attach();
  Open(0, "alice");
  Open(1, "bob");
  Bind(0, "general", 1);
  Bind(1, "random", 2);
  LinkDown();
  Attach();
  Forget();
  Deliver(1, "nobody");
  EXPECT_TRUE(output.sent.empty());
  // The new core numbers as it likes; one Bind is enough for a room whose members were all declared.
  Bind(0, "general", 2);
  Deliver(2, "hello");
  EXPECT_THAT(Texts(0), ElementsAre("hello"));
  EXPECT_THAT(Texts(1), IsEmpty());
}

TEST_F(ShardResyncTest, ARoomThatTheNewCoreDoesNotGrantIsLeftSilently) {
  Attach();
  Open(0, "alice");
  Bind(0, "general", 1);
  LinkDown();
  Attach();
  Forget();
  Unbind(0, "general");
  EXPECT_EQ(shard.rooms(), 0u);
  EXPECT_THAT(Texts(0), IsEmpty());
}

// --- a link that is no good

TEST_F(ShardResyncTest, ASilentCoreLosesItsLink) {
  Attach();
  Advance(milliseconds(3000));
  EXPECT_THAT(output.dropped, IsEmpty());
  Advance(milliseconds(100));
  EXPECT_THAT(output.dropped, ElementsAre("the core is silent"));
  EXPECT_FALSE(shard.link_live());
  // Given up: nothing is said or heard any more.
  Forget();
  Open(0, "alice");
  Bind(0, "general", 1);
  Advance(seconds(5));
  EXPECT_THAT(Events(), IsEmpty());
  EXPECT_EQ(shard.rooms(), 0u);
  EXPECT_THAT(output.dropped, SizeIs(1));
  LinkDown();
  Attach();
  EXPECT_THAT(Events(), ElementsAre("hello 2", "declared 0:alice online", "resync done"));
}

TEST_F(ShardResyncTest, ACoreThatDoesNotGreetLosesItsLink) {
  LinkUp();
  Advance(milliseconds(3100));
  EXPECT_THAT(output.dropped, SizeIs(1));
}

TEST_F(ShardResyncTest, AnIdleLinkSaysOneHeartbeatASecond) {
  Attach();
  Forget();
  AdvanceWithCore(seconds(5));
  EXPECT_THAT(Events(), ElementsAre("heartbeat", "heartbeat", "heartbeat", "heartbeat", "heartbeat"));
}

TEST_F(ShardResyncTest, WelcomeComesFirstAndOnce) {
  Open(0, "alice");
  LinkUp();
  Bind(0, "general", 1);
  EXPECT_THAT(output.dropped, SizeIs(1));
  EXPECT_EQ(shard.rooms(), 0u);
  LinkDown();
  Attach();
  Welcome();
  EXPECT_THAT(output.dropped, SizeIs(2));
}

TEST_F(ShardResyncTest, AHandleThatMeansAnotherRoomEndsTheLink) {
  Attach();
  Open(0, "alice");
  Bind(0, "general", 1);
  Bind(0, "random", 1);
  EXPECT_THAT(output.dropped, SizeIs(1));
  for (const uint32_t bad : {0u, 1u << 24, UINT32_MAX}) {
    LinkDown();
    Attach();
    output.dropped.clear();
    Bind(0, "random", bad);
    EXPECT_THAT(output.dropped, SizeIs(1)) << bad;
  }
}

TEST_F(ShardResyncTest, AnUnknownCommandIsSkipped) {
  Attach();
  shard.OnCommand(now(), link::v1::CoreCommand());
  EXPECT_THAT(output.dropped, IsEmpty());
  EXPECT_EQ(shard.counters().commands_unknown, 1u);
}

// --- a better core

TEST_F(ShardResyncTest, AnotherCoreIsLookedForBesideTheLink) {
  Attach();
  Open(0, "alice");
  Bind(0, "general", 1);
  Forget();
  link::v1::CoreCommand seek;
  seek.mutable_seek_core();
  shard.OnCommand(now(), seek);
  EXPECT_EQ(output.seeks, 1);
  link::v1::Hello asked, moved;
  shard.AskForStore(&asked);
  EXPECT_TRUE(asked.only_with_store());
  EXPECT_EQ(asked.attach(), 2u);
  EXPECT_EQ(asked.incarnation(), 77u);
  // The first one has refused. All the while the link serves as before.
  shard.AskForStore(&moved);
  EXPECT_EQ(moved.attach(), 3u);
  Subscribe(0, "random");
  const auto joined = output.TakeEvents();
  ASSERT_THAT(joined, SizeIs(1));
  shard.OnLinkMoved(now());
  EXPECT_FALSE(shard.link_live());
  EXPECT_TRUE(shard.ready(now()));
  Welcome();
  const auto events = output.TakeEvents();
  ASSERT_THAT(events, SizeIs(3)) << "no second Hello";
  EXPECT_THAT(events[0].connection_declared().room_ids(), ElementsAre("general"));
  EXPECT_EQ(events[1].sequence(), joined[0].sequence());
  EXPECT_TRUE(events[1].has_room_joined());
  EXPECT_TRUE(events[2].has_resync_done());
  EXPECT_THAT(output.TakeClosed(), IsEmpty());
  EXPECT_EQ(shard.counters().link_losses, 1u);
}

// --- readiness and isolation

TEST_F(ShardResyncTest, AShardIsReadyWithACoreAndForAMomentAfter) {
  Tick();
  EXPECT_FALSE(shard.ready(now()));
  LinkUp();
  EXPECT_FALSE(shard.ready(now()));
  Welcome();
  EXPECT_TRUE(shard.ready(now()));
  LinkDown();
  Advance(seconds(3));
  EXPECT_TRUE(shard.ready(now()));
  Advance(milliseconds(100));
  EXPECT_FALSE(shard.ready(now()));
  // A link that does not get as far as Welcome changes nothing.
  LinkUp();
  EXPECT_FALSE(shard.ready(now()));
}

TEST_F(ShardResyncTest, WithoutAnyCoreForTooLongTheClientsAreSentAway) {
  Attach();
  for (uint32_t slot = 0; slot < 10; ++slot) Open(slot, "user");
  LinkDown();
  Advance(milliseconds(29'900));
  EXPECT_THAT(output.closed, IsEmpty());
  Advance(milliseconds(5'100));
  EXPECT_THAT(output.closed, SizeIs(5));
  Open(20, "late");
  EXPECT_THAT(output.closed, SizeIs(6));
  Advance(seconds(5));
  EXPECT_THAT(output.closed, SizeIs(11));
  for (const auto& closed : output.closed) EXPECT_EQ(closed.code, 1012);
}

TEST_F(ShardResyncTest, ACoreThatComesBackEndsTheIsolation) {
  Attach();
  for (uint32_t slot = 0; slot < 10; ++slot) Open(slot, "user");
  LinkDown();
  Advance(seconds(35));
  EXPECT_THAT(output.closed, SizeIs(5));
  Attach();
  AdvanceWithCore(seconds(10));
  Open(20, "new");
  EXPECT_THAT(output.closed, SizeIs(5));
  EXPECT_TRUE(shard.ready(now()));
}

TEST_F(ShardResyncTest, TriesThatFailDoNotEndTheIsolation) {
  Attach();
  Open(0, "alice");
  LinkDown();
  for (int i = 0; i < 41; ++i) {
    LinkUp();
    Advance(milliseconds(500));
    LinkDown();
    Advance(milliseconds(500));
  }
  EXPECT_THAT(output.closed, SizeIs(1));
}

class PatientShardTest : public ShardResyncTest {
 protected:
  static ShardOptions Patient() {
    ShardOptions options = Options();
    options.isolation_max = milliseconds(0);
    options.heartbeat_interval = std::chrono::hours(1);
    return options;
  }
  PatientShardTest() : ShardResyncTest(Patient()) {}
};

TEST_F(PatientShardTest, IsolationCanBeSwitchedOff) {
  Open(0, "alice");
  Advance(seconds(120));
  EXPECT_THAT(output.closed, IsEmpty());
}

TEST_F(PatientShardTest, ActivityWithoutALinkIsNotKept) {
  Attach();
  Open(0, "alice");
  LinkDown();
  Text(0, R"({"type":"ping"})");
  Advance(seconds(2));
  Attach();
  Forget();
  AdvanceWithCore(seconds(2));
  EXPECT_THAT(Events(), Each("heartbeat"));
}

}  // namespace
}  // namespace presence::edge
