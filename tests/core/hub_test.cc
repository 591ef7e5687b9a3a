// Links, connections and rooms: what a shard says, and what it is told.
#include "core/hub.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/fakes/hub_world.h"

namespace presence::core {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::StartsWith;

using Outcome = HubWorld::Outcome;

const uint64_t kPhone = ConnectionOf(7);
const uint64_t kLaptop = ConnectionOf(8);

// ------------------------------------------------------------------------------------------------- beginning of a link

TEST(HubLink, BeginsWithHelloWhichIsWelcomed) {
  HubWorld world;
  world.OpenLink(1);
  world.Say(1, Hello(1));
  EXPECT_THAT(world.Sent(1), ElementsAre("welcome watermark=940000000"));
}

TEST(HubLink, WelcomeNamesTheNewestPresenceVersion) {
  HubWorld world;
  world.OpenLink(1);
  world.Say(1, Hello(1, 5));
  EXPECT_THAT(world.Sent(1), ElementsAre("welcome watermark=995000000")) << "none seen: since when the store is up";
  world.Bus(Changed("alice", link::v1::STATUS_ONLINE, 1'000'001'700));
  world.Bus(Changed("bob", link::v1::STATUS_ONLINE, 1'000'001'600));
  world.OpenLink(2);
  world.Say(2, Hello(2, 5));
  EXPECT_THAT(world.Sent(2), ElementsAre("welcome watermark=1000001700"));
}

TEST(HubLink, AnythingBeforeHelloBreaksIt) {
  for (const auto& event : {ResyncDone(), Heartbeat(), Declared(kPhone, "alice"), Opened(1, kPhone, "alice")}) {
    HubWorld world;
    world.OpenLink(1);
    world.Say(1, event);
    EXPECT_THAT(world.Sent(1), ElementsAre("closed INVALID_ARGUMENT")) << event.ShortDebugString();
  }
}

TEST(HubLink, SpeaksProtocolOneOnly) {
  HubWorld world;
  auto hello = Hello(1);
  hello.mutable_hello()->set_protocol(2);
  world.OpenLink(1);
  world.Say(1, hello);
  EXPECT_THAT(world.Sent(1), ElementsAre("closed FAILED_PRECONDITION"));
}

TEST(HubLink, BrokenRulesEndIt) {
  const std::string long_id(2049, 'x'), nul_id("a\0b", 3);
  const std::vector<std::vector<link::v1::EdgeEvent>> broken = {
      {Hello(2)},
      {ResyncDone()},
      {Declared(kPhone, "alice")},
      {Opened(1, ConnectionOf(7, 1, /*shard=*/3), "alice")},
      {Opened(1, kPhone, "")},
      {Opened(1, kPhone, long_id)},
      {Opened(1, kPhone, nul_id)},
      {Opened(0, kPhone, "alice")},
      {Opened(1, kPhone, "alice"), Joined(1, kPhone, "general")},
      {Opened(2, kPhone, "alice"), Joined(1, kPhone, "general")},
      {Opened(1, kPhone, "alice"), Joined(2, kPhone, "")},
      {Opened(1, kPhone, "alice"), Left(2, kPhone, long_id)},
      {Opened(1, kPhone, "alice"), StatusSet(2, kPhone, link::v1::STATUS_OFFLINE)},
      {Opened(1, kPhone, "alice"), Typing(kPhone, "general", link::v1::ROOM_KIND_UNSPECIFIED)},
      {Closed(1, kPhone, nul_id)},
      {Activity({ConnectionOf(7, 1, 3)})},
  };
  for (size_t i = 0; i < broken.size(); ++i) {
    HubWorld world;
    world.Attach(1, 1);
    world.Say(1, broken[i]);
    EXPECT_THAT(world.Sent(1), Contains("closed INVALID_ARGUMENT")) << "case " << i;
  }
}

TEST(HubLink, EventsOfALaterReleaseAreSkippedAndAcknowledged) {
  HubWorld world;
  world.Attach(1, 1);
  link::v1::EdgeEvent unknown;
  unknown.set_sequence(9);
  world.Say(1, unknown);
  world.Tick();
  EXPECT_THAT(world.Sent(1), ElementsAre("ack 9"));
  EXPECT_EQ(world.hub().counters().late_events, 1u);
}

TEST(HubLink, WhatArrivesOnAClosedLinkIsIgnored) {
  HubWorld world;
  world.Attach(1, 1);
  world.Say(1, Hello(2));
  world.Forget();
  world.Say(1, Opened(1, kPhone, "alice"));
  EXPECT_THAT(world.Sent(1), IsEmpty());
  EXPECT_THAT(world.Asked(), IsEmpty());
}

// ----------------------------------------------------------------------------------------------- superseding, silence

TEST(HubLink, AHigherAttachTakesTheShardOver) {
  HubWorld world;
  world.AttachConfirmed(1, 1, {Declared(kPhone, "alice", {"general"})});
  world.OpenLink(2);
  world.Say(2, Hello(2));
  EXPECT_THAT(world.Sent(1), ElementsAre("closed FAILED_PRECONDITION"));
  EXPECT_THAT(world.Sent(2), ElementsAre("welcome watermark=940000000"));
  EXPECT_EQ(world.hub().counters().links_superseded, 1u);
  EXPECT_EQ(world.hub().sizes().connections, 1u);
}

TEST(HubLink, AnOldAttachThatComesLateIsRefused) {
  HubWorld world;
  world.Attach(1, 5);
  for (const uint64_t late : {4, 5}) {
    world.OpenLink(2);
    world.Say(2, Hello(late));
    EXPECT_THAT(world.Sent(2), ElementsAre("closed FAILED_PRECONDITION"));
  }
  EXPECT_THAT(world.Sent(1), IsEmpty());
}

TEST(HubLink, ShardsOfOneEdgeAndEdgesWithOneShardNumberAreApart) {
  HubWorld world;
  world.Attach(1, 1, {}, kEdge, 0);
  world.Attach(2, 1, {}, kEdge, 1);
  world.Attach(3, 1, {}, kEdge + 1, 0);
  EXPECT_EQ(world.hub().sizes().shards, 3u);
  EXPECT_EQ(world.hub().sizes().links, 3u);
}

TEST(HubLink, SilenceEndsIt) {
  HubWorld world;
  world.Attach(1, 1);
  world.Pass(milliseconds(3000));
  EXPECT_THAT(world.Sent(1), Not(Contains(StartsWith("closed"))));
  world.Pass(milliseconds(100));
  EXPECT_THAT(world.Sent(1), Contains("closed UNAVAILABLE"));
  EXPECT_EQ(world.hub().counters().links_silent, 1u);
}

TEST(HubLink, AHeartbeatIsASignOfLife) {
  HubWorld world;
  world.Attach(1, 1);
  for (int i = 0; i < 10; ++i) {
    world.Pass(seconds(1));
    world.Say(1, Heartbeat());
  }
  EXPECT_THAT(world.Sent(1), Not(Contains(StartsWith("closed"))));
}

TEST(HubLink, ACoreThatWasStalledBlamesNobody) {
  HubWorld world;
  world.AttachConfirmed(1, 1, {Declared(kPhone, "alice")});
  world.Attach(2, 1, {Declared(ConnectionOf(7, 1, 1), "bob")}, kEdge, 1);
  world.LoseLink(2);
  world.Stall(seconds(20));
  world.Tick();
  world.Pass(milliseconds(900));
  EXPECT_THAT(world.Sent(1), Not(Contains(StartsWith("closed"))));
  EXPECT_EQ(world.hub().sizes().connections, 2u) << "the grace of a lost edge does not run out in a stall either";
  world.Pass(milliseconds(200));
  EXPECT_THAT(world.Sent(1), Contains("closed UNAVAILABLE")) << "it had a second to speak, and did not";
  EXPECT_EQ(world.hub().sizes().connections, 1u);
}

TEST(HubLink, AnIdleLinkGetsAHeartbeatEachSecond) {
  HubWorld world;
  world.Attach(1, 1);
  world.Tick();
  for (int i = 0; i < 2; ++i) {
    world.Pass(milliseconds(1000));
    EXPECT_THAT(world.Sent(1), ElementsAre("heartbeat"));
    world.Say(1, Heartbeat());
  }
}

TEST(HubLink, ABusyLinkGetsNone) {
  HubWorld world;
  world.AttachConfirmed(1, 1, {Declared(kPhone, "alice", {"general"})});
  for (int i = 1; i <= 20; ++i) {
    world.Bus(MessageFrom(0xc1, i, "general", "{}"));
    world.Say(1, Heartbeat());
    world.Pass(milliseconds(500));
  }
  EXPECT_THAT(world.Sent(1), Not(Contains("heartbeat")));
}

// -------------------------------------------------------------------------------------------------------------- resync

TEST(HubResync, DeclaredRoomsAreBoundWithoutReplyAsTheyArrive) {
  HubWorld world;
  world.OpenLink(1);
  world.Say(1, Hello(1));
  world.Say(1, Declared(kPhone, "alice", {"general", "random", "general"}));
  EXPECT_THAT(world.Sent(1), ElementsAre("welcome watermark=940000000", "bind 7.1 general handle=1 reply=0",
                                         "bind 7.1 random handle=2 reply=0"));
  world.Bus(MessageFrom(0xc1, 1, "random", "{}"));
  EXPECT_THAT(world.Sent(1), ElementsAre("deliver 2 {}")) << "also before ResyncDone";
}

TEST(HubResync, NobodyIsToldAnythingOnAReattachButRoomsGetNewHandles) {
  HubWorld world;
  world.AttachConfirmed(1, 1, {Declared(kPhone, "alice", {"general"}), Declared(kLaptop, "bob", {"random"})});
  world.LoseLink(1);
  world.OpenLink(2);
  world.Say(2, Hello(2));
  world.Bus(MessageFrom(0xc1, 1, "random", "{}"));
  EXPECT_THAT(world.Sent(2), ElementsAre("welcome watermark=940000000"))
      << "a handle of the old attach means nothing now";
  world.Say(2, {Declared(kLaptop, "bob", {"random"}), Declared(kPhone, "alice", {"general"}), ResyncDone()});
  EXPECT_THAT(world.Sent(2), ElementsAre("bind 8.1 random handle=1 reply=0", "bind 7.1 general handle=2 reply=0"));
  EXPECT_THAT(world.Asked(), ElementsAre("assert e1/0/8.1 attach=2 bob online", "assert e1/0/7.1 attach=2 alice online",
                                         "read changes since 935000000"))
      << "the fence moves up";
  EXPECT_EQ(world.hub().sizes().rooms, 2u);
  EXPECT_EQ(world.hub().sizes().memberships, 2u);
}

TEST(HubResync, WhatIsNotDeclaredIsClosedAndLeft) {
  HubWorld world;
  world.AttachConfirmed(1, 1,
                        {Declared(kPhone, "alice", {"general", "random"}), Declared(kLaptop, "bob", {"general"})});
  world.LoseLink(1);
  world.Attach(2, 2, {Declared(kPhone, "alice", {"random"})});
  EXPECT_EQ(world.hub().DebugDump(),
            "edge 00000000000000e1 shard 0 attach 2 attached\n  0000000700000001 alice online random\n");
  world.ConfirmAll();
  world.Bus(MessageFrom(0xc1, 1, "general", "{}"));
  EXPECT_THAT(world.Sent(2), IsEmpty());
  EXPECT_EQ(world.hub().sizes().rooms, 1u);
}

TEST(HubResync, AnUndeclaredConnectionIsTakenOutOfTheStoreWithTheNewAttach) {
  HubWorld world;
  world.AttachConfirmed(1, 1, {Declared(kPhone, "alice")});
  world.LoseLink(1);
  world.OpenLink(2);
  world.Say(2, {Hello(2), ResyncDone()});
  EXPECT_THAT(world.Asked(), ElementsAre("remove e1/0/7.1 attach=2 alice previous=online@10"));
}

TEST(HubResync, ASlotWithANewOwnerWasLeftByTheFormerOne) {
  HubWorld world;
  world.AttachConfirmed(1, 1, {Declared(ConnectionOf(7, 1), "alice", {"general"})});
  world.LoseLink(1);
  world.OpenLink(2);
  world.Say(2, {Hello(2), Declared(ConnectionOf(7, 2), "bob"), ResyncDone()});
  EXPECT_THAT(world.Asked(), ElementsAre("remove e1/0/7.1 attach=2 alice previous=online@10",
                                         "assert e1/0/7.2 attach=2 bob online", "read changes since 935000000"));
}

TEST(HubResync, AnEventLostWithTheLinkIsRepeatedAndAnswered) {
  HubWorld world;
  world.AttachConfirmed(1, 1, {Declared(kPhone, "alice")});
  // The join arrives, but link and answer are lost; the shard declares no room and repeats the event.
  world.Say(1, Joined(5, kPhone, "general"));
  world.LoseLink(1);
  world.Attach(2, 2, {Declared(kPhone, "alice")});
  EXPECT_EQ(world.hub().sizes().memberships, 0u) << "the shard does not deliver to it yet";
  world.Say(2, Joined(5, kPhone, "general"));
  EXPECT_THAT(world.Sent(2), ElementsAre("bind 7.1 general handle=1 reply=5"));
  world.Tick();
  EXPECT_THAT(world.Sent(2), ElementsAre("ack 5"));
}

TEST(HubResync, RepeatsOfWhatIsAlreadySoAreAnsweredAndWriteNothing) {
  HubWorld world;
  world.AttachConfirmed(1, 1, {Declared(kPhone, "alice", {"general"}, link::v1::STATUS_AWAY)});
  world.Say(1, {Opened(1, kPhone, "alice"), Joined(2, kPhone, "general"), Left(3, kPhone, "random"),
                StatusSet(4, kPhone, link::v1::STATUS_AWAY)});
  EXPECT_THAT(world.Asked(), IsEmpty());
  world.Tick();
  EXPECT_THAT(world.Sent(1), ElementsAre("bind 7.1 general handle=1 reply=2", "unbind 7.1 random reply=3", "ack 4"));
}

TEST(HubResync, AnOldOpenRepeatedAfterTheSlotHasANewOwnerDisturbsNobody) {
  HubWorld world;
  world.AttachConfirmed(1, 1, {Declared(ConnectionOf(7, 2), "bob")});
  world.Say(1, {Opened(1, ConnectionOf(7, 1), "alice"), Closed(2, ConnectionOf(7, 1), "alice")});
  EXPECT_THAT(world.Asked(), ElementsAre("remove e1/0/7.1 attach=1 alice"));
  EXPECT_EQ(world.hub().sizes().connections, 1u);
}

// ---------------------------------------------------------------------------------------------------- acknowledgements

TEST(HubAcknowledge, WaitsForTheStoreWithOpens) {
  HubWorld world;
  world.Attach(1, 1);
  world.Say(1, Opened(1, kPhone, "alice"));
  world.Tick();
  EXPECT_THAT(world.Sent(1), IsEmpty());
  world.Answer(Outcome::kApplied);
  EXPECT_THAT(world.Sent(1), IsEmpty()) << "acknowledgements are gathered until the next tick";
  world.Tick();
  EXPECT_THAT(world.Sent(1), ElementsAre("ack 1"));
}

TEST(HubAcknowledge, IsCumulativeSoAJoinWaitsForTheOpenBeforeIt) {
  HubWorld world;
  world.Attach(1, 1);
  world.Say(1, {Joined(1, kPhone, "general"), Opened(2, kPhone, "alice"), Joined(3, kPhone, "general")});
  EXPECT_THAT(world.Sent(1), ElementsAre("bind 7.1 general handle=1 reply=3"));
  world.Tick();
  EXPECT_THAT(world.Sent(1), ElementsAre("ack 1"));
  world.ConfirmAll();
  world.Tick();
  EXPECT_THAT(world.Sent(1), ElementsAre("ack 3"));
  world.Tick();
  EXPECT_THAT(world.Sent(1), IsEmpty()) << "once";
}

TEST(HubAcknowledge, CoversAFailedWriteOnlyWhenItsRepetitionIsConfirmed) {
  HubWorld world;
  world.Attach(1, 1);
  world.Say(1, Opened(1, kPhone, "alice"));
  world.Answer(Outcome::kUnavailable);
  world.Tick();
  EXPECT_THAT(world.Sent(1), IsEmpty());
  world.Pass(seconds(1));
  world.ConfirmAll();
  world.Tick();
  EXPECT_THAT(world.Sent(1), Contains("ack 1"));
}

TEST(HubAcknowledge, AFlickeringStatusDoesNotHoldItUp) {
  HubWorld world;
  world.AttachConfirmed(1, 1, {Declared(kPhone, "alice")});
  uint64_t sequence = 0;
  for (int i = 0; i < 4; ++i) {
    world.Say(1, StatusSet(++sequence, kPhone, link::v1::STATUS_AWAY));
    world.Say(1, StatusSet(++sequence, kPhone, link::v1::STATUS_ONLINE));
    if (i > 0) world.Answer(Outcome::kApplied);
  }
  world.Tick();
  EXPECT_THAT(world.Sent(1), ElementsAre("ack 6")) << "through what the last confirmed write held";
}

TEST(HubAcknowledge, ClosesWaitForTheStoreAndFencedIsConfirmed) {
  HubWorld world;
  world.AttachConfirmed(1, 1, {Declared(kPhone, "alice")});
  world.Say(1, Closed(7, kPhone, "alice"));
  world.Tick();
  EXPECT_THAT(world.Sent(1), IsEmpty());
  world.Answer(Outcome::kFenced);
  world.Tick();
  EXPECT_THAT(world.Sent(1), ElementsAre("ack 7"));
}

TEST(HubAcknowledge, EventsOfUnknownConnectionsAreCountedAndAcknowledged) {
  HubWorld world;
  world.Attach(1, 1);
  world.Say(1, {Joined(1, kPhone, "general"), Left(2, kPhone, "general"), StatusSet(3, kPhone, link::v1::STATUS_AWAY),
                Typing(kPhone, "general"), Activity({kPhone})});
  EXPECT_THAT(world.Sent(1), IsEmpty());
  EXPECT_THAT(world.Asked(), IsEmpty());
  EXPECT_EQ(world.hub().counters().late_events, 5u);
  world.Tick();
  EXPECT_THAT(world.Sent(1), ElementsAre("ack 3"));
}

// --------------------------------------------------------------------------------------------------------------- rooms

TEST(HubRooms, ABroadcastCostsOneCommandForEachShardWithMembers) {
  HubWorld world;
  world.Attach(1, 1, {Declared(kPhone, "alice", {"general"}), Declared(kLaptop, "alice", {"general"})}, kEdge, 0);
  world.Attach(2, 1, {Declared(ConnectionOf(1, 1, 1), "bob", {"random", "general"})}, kEdge, 1);
  world.Attach(3, 1, {Declared(ConnectionOf(1, 1, 2), "carol", {"random"})}, kEdge, 2);
  world.Bus(MessageFrom(0xc1, 1, "general", R"({"type":"message","data":{}})"));
  EXPECT_THAT(world.Sent(1), ElementsAre(R"(deliver 1 {"type":"message","data":{}})"));
  EXPECT_THAT(world.Sent(2), ElementsAre(R"(deliver 2 {"type":"message","data":{}})"));
  EXPECT_THAT(world.Sent(3), IsEmpty());
  EXPECT_EQ(world.hub().counters().deliveries, 2u);
}

TEST(HubRooms, LeavingEndsDeliveryAndFreesRoomAndHandle) {
  HubWorld world;
  world.AttachConfirmed(1, 1, {Declared(kPhone, "alice", {"general", "random"})});
  world.Say(1, Left(1, kPhone, "general"));
  EXPECT_THAT(world.Sent(1), ElementsAre("unbind 7.1 general reply=1"));
  world.Bus(MessageFrom(0xc1, 1, "general", "{}"));
  EXPECT_THAT(world.Sent(1), IsEmpty());
  EXPECT_EQ(world.hub().sizes().rooms, 1u);
  world.Say(1, Joined(2, kPhone, "lounge"));
  EXPECT_THAT(world.Sent(1), ElementsAre("bind 7.1 lounge handle=1 reply=2"));
}

TEST(HubRooms, ARoomStaysWhileOneOfItsMembersDoes) {
  HubWorld world;
  world.AttachConfirmed(1, 1, {Declared(kPhone, "alice", {"general"}), Declared(kLaptop, "bob", {"general"})});
  world.Say(1, Closed(1, kPhone, "alice"));
  world.Bus(MessageFrom(0xc1, 1, "general", "{}"));
  EXPECT_THAT(world.Sent(1), ElementsAre("deliver 1 {}"));
  world.Say(1, Closed(2, kLaptop, "bob"));
  EXPECT_EQ(world.hub().sizes().rooms, 0u);
  EXPECT_EQ(world.hub().sizes().memberships, 0u);
}

TEST(HubRooms, OneConnectionMayJoinSoManyAndNoMore) {
  HubOptions options = HubWorld::DefaultOptions();
  options.rooms_per_connection_max = 2;
  HubWorld world(options);
  world.AttachConfirmed(1, 1, {Declared(kPhone, "alice", {"a", "b"})});
  world.Say(1, {Joined(1, kPhone, "c"), Joined(2, kPhone, "b")});
  world.Tick();
  EXPECT_THAT(world.Sent(1), ElementsAre("refuse reply=1 429", "bind 7.1 b handle=2 reply=2", "ack 2"));
  EXPECT_EQ(world.hub().counters().joins_refused, 1u);
}

TEST(HubRooms, IdsAreBytesNotPrefixesOrCase) {
  HubWorld world;
  world.AttachConfirmed(1, 1, {Declared(kPhone, "alice", {"general"})});
  for (const auto* other : {"General", "genera", "general ", "general2"}) {
    world.Bus(MessageFrom(0xc1, 1, other, "{}"));
    EXPECT_THAT(world.Sent(1), IsEmpty()) << other;
  }
}

TEST(HubRooms, ALostLinkGetsNothingAndKeepsItsMembersForTheGrace) {
  HubWorld world;
  world.AttachConfirmed(1, 1, {Declared(kPhone, "alice", {"general"})});
  world.LoseLink(1);
  world.Bus(MessageFrom(0xc1, 1, "general", "{}"));
  EXPECT_THAT(world.Sent(1), IsEmpty());
  EXPECT_EQ(world.hub().sizes().memberships, 1u);
}

}  // namespace
}  // namespace presence::core
