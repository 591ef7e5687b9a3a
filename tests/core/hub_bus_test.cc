// Messages and typing between cores, and what others publish.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/hub.h"
#include "tests/fakes/hub_world.h"

namespace presence::core {
namespace {

using link::v1::STATUS_ONLINE;
using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

const uint64_t kPhone = ConnectionOf(7);

// A core with alice in general, on link 1.
struct HubBus : testing::Test {
  HubWorld world;
  HubBus() { world.AttachConfirmed(1, 1, {Declared(kPhone, "alice", {"general"})}); }
};

// ------------------------------------------------------------------------------------------------------------ messages

TEST_F(HubBus, AMessageIsDeliveredWhenItComesBackSoThatAllCoresSeeOneOrder) {
  world.Broadcast(70, "general", R"({"content":"hi"})");
  EXPECT_THAT(
      world.Asked(),
      ElementsAre(
          R"(publish 1 message general {"type":"message","data":{"content":"hi"}})",
          R"(outside {"origin":"presence.core/00000000000000c0","room_id":"general","type":"message","data":{"content":"hi"}})"));
  EXPECT_THAT(world.Sent(1), IsEmpty());
  world.Bus(MessageFrom(0xc1, 8, "general", R"({"from":"another core"})"));
  world.LoopBack();
  EXPECT_THAT(world.Sent(1), ElementsAre(R"(deliver 1 {"from":"another core"})",
                                         R"(deliver 1 {"type":"message","data":{"content":"hi"}})"));
  EXPECT_THAT(world.Answers(), IsEmpty());
  world.AnswerPublish();
  EXPECT_THAT(world.Answers(), ElementsAre("70 OK reached=1"));
  EXPECT_TRUE(world.hub().Idle());
}

// Redis stalls after it was told: this core's own edges get the message in time, and not once more when Redis recovers.
TEST_F(HubBus, AMessageThatLoopsBackLateIsNotDeliveredTwice) {
  world.Broadcast(70, "general", "1");
  world.Broadcast(71, "general", "2");
  world.Forget();
  world.Pass(milliseconds(500));
  EXPECT_THAT(world.Sent(1), IsEmpty());
  world.Pass(milliseconds(100));
  EXPECT_THAT(world.Sent(1), ElementsAre(HasSubstr("\"data\":1"), HasSubstr("\"data\":2")));
  EXPECT_EQ(world.hub().counters().delivered_locally, 2u);
  world.Broadcast(72, "general", "3");
  for (int i = 0; i < 3; ++i) world.LoopBack();
  EXPECT_THAT(world.Sent(1), ElementsAre(HasSubstr("\"data\":3")));
  EXPECT_EQ(world.hub().counters().loopback_duplicates, 2u);
  EXPECT_EQ(world.hub().sizes().publications_waiting, 0u);
}

TEST_F(HubBus, OnlyWhatIsOverdueIsDeliveredLocally) {
  world.Broadcast(70, "general", "1");
  world.Pass(milliseconds(300));
  world.Broadcast(71, "general", "2");
  world.Pass(milliseconds(300));
  EXPECT_THAT(world.Sent(1), ElementsAre(HasSubstr("\"data\":1")));
  world.LoopBack();
  world.LoopBack();
  EXPECT_THAT(world.Sent(1), ElementsAre(HasSubstr("\"data\":2")));
}

TEST_F(HubBus, AMessageThatTheBusLostIsDeliveredBeforeTheNextOne) {
  world.Broadcast(70, "general", "1");
  world.Broadcast(71, "general", "2");
  world.Bus(MessageFrom(kCore, 2, "general", "two"));
  EXPECT_THAT(world.Sent(1), ElementsAre(HasSubstr("\"data\":1"), "deliver 1 two"));
}

TEST_F(HubBus, AStoreThatGoesAwayLeavesNothingUndelivered) {
  world.Broadcast(70, "general", "1");
  world.Forget();
  world.StoreDown();
  EXPECT_THAT(world.Sent(1), ElementsAre(HasSubstr("\"data\":1")));
  world.AnswerPublish(false);
  EXPECT_THAT(world.Answers(), ElementsAre("70 UNAVAILABLE"));
  EXPECT_THAT(world.Sent(1), IsEmpty());
  world.Broadcast(71, "general", "2");
  EXPECT_THAT(world.Sent(1), ElementsAre(HasSubstr("\"data\":2")));
  EXPECT_THAT(world.Asked(), IsEmpty());
  EXPECT_THAT(world.Answers(), ElementsAre("71 UNAVAILABLE"));
}

TEST_F(HubBus, APublicationThatFailsIsDeliveredHereBehindThoseBeforeIt) {
  world.Broadcast(70, "general", "1");
  world.Broadcast(71, "general", "2");
  world.AnswerPublish(true);
  world.AnswerPublish(false);
  EXPECT_THAT(world.Sent(1), ElementsAre(HasSubstr("\"data\":1"), HasSubstr("\"data\":2")));
  EXPECT_THAT(world.Answers(), ElementsAre("70 OK reached=1", "71 UNAVAILABLE"));
}

TEST(HubBusBounds, MessagesThatWaitForTheStoreAreBoundedInNumber) {
  HubOptions options = HubWorld::DefaultOptions();
  options.publications_waiting_max = 2;
  HubWorld world(options);
  for (uint64_t request = 1; request <= 3; ++request) world.Broadcast(request, "general", "{}");
  EXPECT_THAT(world.Answers(), ElementsAre("3 RESOURCE_EXHAUSTED"));
  EXPECT_EQ(world.hub().counters().broadcasts_refused, 1u);
  world.AnswerPublish();
  world.LoopBack();
  world.Forget();
  world.Broadcast(4, "general", "{}");
  EXPECT_THAT(world.Answers(), IsEmpty()) << "there is room again";
}

TEST(HubBusBounds, AndInBytes) {
  HubOptions options = HubWorld::DefaultOptions();
  options.publication_bytes_max = 1000;
  HubWorld world(options);
  const std::string large = "\"" + std::string(1000, 'x') + "\"";
  world.Broadcast(1, "general", large);
  world.Broadcast(2, "general", "{}");
  EXPECT_THAT(world.Answers(), ElementsAre("2 RESOURCE_EXHAUSTED"));
}

// -------------------------------------------------------------------------------------------------------------- typing

TEST_F(HubBus, TypingGoesThroughTheStoreToEverySubscriberTheSenderIncluded) {
  world.Say(1, Typing(kPhone, "general"));
  EXPECT_THAT(world.Asked(), ElementsAre("typing general alice alice", "publish 1 typing general alice"));
  EXPECT_THAT(world.Sent(1), IsEmpty());
  world.LoopBack();
  EXPECT_THAT(
      world.Sent(1),
      ElementsAre(
          R"(typing 1 {"type":"typing","channel_id":"general","dm_id":null,"user_id":"alice","username":"alice"})"));
}

TEST_F(HubBus, TypingInADirectMessageNamesTheDm) {
  world.Say(1, Typing(kPhone, "general", link::v1::ROOM_KIND_DM));
  world.LoopBack();
  EXPECT_THAT(world.Sent(1), ElementsAre(HasSubstr(R"("channel_id":null,"dm_id":"general")")));
}

TEST_F(HubBus, TypingWithoutAStoreStaysAmongThisCoresEdges) {
  world.StoreDown();
  world.Say(1, Typing(kPhone, "general"));
  EXPECT_THAT(world.Asked(), IsEmpty());
  EXPECT_THAT(world.Sent(1), ElementsAre(HasSubstr("\"type\":\"typing\"")));
}

TEST(HubBusBounds, TypingIsTheFirstThingToGo) {
  HubOptions options = HubWorld::DefaultOptions();
  options.publications_waiting_max = 6;
  HubWorld world(options);
  world.AttachConfirmed(1, 1, {Declared(kPhone, "alice", {"general"})});
  for (int i = 0; i < 10; ++i) world.Say(1, Typing(kPhone, "general"));
  EXPECT_THAT(world.Asked(), SizeIs(6)) << "three times two calls";
  world.Broadcast(1, "general", "{}");
  EXPECT_THAT(world.Answers(), IsEmpty()) << "there is room for a message";
}

// ------------------------------------------------------------------------------------------------------------- outside

TEST_F(HubBus, AnOutsideMessageReachesItsRoomByteForByte) {
  const std::string text = "  {\"content\" : \"a\\u00e9\\n\", \"room_id\":\"gener\\u0061l\" }\n";
  world.hub().OnOutsideMessage(world.now(), text);
  EXPECT_THAT(world.Sent(1), ElementsAre("deliver 1 " + text));
  EXPECT_EQ(world.hub().counters().messages_from_outside, 1u);
}

TEST_F(HubBus, CopiesOfCoresAreSkipped) {
  world.Broadcast(70, "general", "{}");
  const std::string copy = world.Asked().back().substr(std::string("outside ").size());
  world.hub().OnOutsideMessage(world.now(), copy);
  world.hub().OnOutsidePresence(world.now(), R"({"origin":"presence.core/00000000000000c1","type":"presence"})");
  EXPECT_THAT(world.Sent(1), IsEmpty());
  EXPECT_EQ(world.hub().counters().outside_invalid, 0u);
}

TEST_F(HubBus, WhatIsNotAMessageIsCountedAndReportedNowAndThen) {
  for (int i = 0; i < 100; ++i) world.hub().OnOutsideMessage(world.now(), "{\"room_id\":7}");
  EXPECT_THAT(world.Reports(), ElementsAre(HasSubstr("message:broadcast")));
  EXPECT_EQ(world.hub().counters().outside_invalid, 100u);
  world.Stall(seconds(1));
  world.hub().OnOutsidePresence(world.now(), "\xff\xfe");
  EXPECT_THAT(world.Reports(), ElementsAre(HasSubstr("100")));
}

TEST_F(HubBus, NobodysPresenceIsNotTold) {
  world.Bus(Changed("", STATUS_ONLINE, 2'000'000'000));
  world.Bus(Changed(std::string(2049, 'u'), STATUS_ONLINE, 2'000'000'001));
  world.Bus(Changed("carol", link::v1::STATUS_UNSPECIFIED, 2'000'000'002));
  EXPECT_THAT(world.Changes(), IsEmpty());
  EXPECT_THAT(world.Sent(1), IsEmpty());
  world.Bus(Changed("carol", STATUS_ONLINE, 2'000'000'003));
  EXPECT_THAT(world.Changes(), SizeIs(1));
}

TEST_F(HubBus, OutsidePresenceIsPassedOnInTheDocumentedShapeAndTouchesNoVersion) {
  world.hub().OnOutsidePresence(
      world.now(),
      R"({"extra":1,"type":"presence","user_id":"alice","username":"Al","status":"away","timestamp":"2025-01-14T12:00:00Z"})");
  EXPECT_THAT(world.Sent(1), ElementsAre("presence alice@0 away everyone"));
  world.StoreDown();
  world.Forget();
  world.StoreUpWithoutItsState();
  EXPECT_THAT(world.Asked(), testing::Contains("reassert e1/0/7.1 attach=1 alice online previous=online@10"));
}

TEST(HubOutside, InRoomScopePresenceGoesToTheRoomsOfThatUserHere) {
  HubOptions options = HubWorld::DefaultOptions();
  options.scope = PresenceScope::kRooms;
  HubWorld world(options);
  world.Attach(1, 1,
               {Declared(kPhone, "alice", {"general"}), Declared(ConnectionOf(8), "alice", {"random", "general"}),
                Declared(ConnectionOf(9), "bob", {"lounge"})});
  world.hub().OnOutsidePresence(
      world.now(), R"({"type":"presence","user_id":"alice","status":"away","timestamp":"2025-01-14T12:00:00Z"})");
  EXPECT_THAT(world.Sent(1), ElementsAre("presence alice@0 away rooms=1,2"));
  world.hub().OnOutsidePresence(
      world.now(), R"({"type":"presence","user_id":"carol","status":"away","timestamp":"2025-01-14T12:00:00Z"})");
  EXPECT_THAT(world.Sent(1), IsEmpty());
}

}  // namespace
}  // namespace presence::core
