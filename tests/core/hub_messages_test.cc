// Messages to rooms and users: who gets them, who is counted, and what a repeated call does.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/hub.h"
#include "tests/fakes/hub_cluster.h"
#include "tests/fakes/hub_world.h"

namespace presence::core {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

const uint64_t kPhone = ConnectionOf(7), kLaptop = ConnectionOf(8), kTablet = ConnectionOf(9);
using Outcome = OnceResult::Outcome;

MessageRequest ToRoom(std::string_view room, std::string_view request_id = {}, std::string_view fingerprint = "f") {
  return {.room_id = room,
          .user_id = {},
          .data_json = "{}",
          .request_id = request_id,
          .fingerprint = request_id.empty() ? std::string_view() : fingerprint};
}
MessageRequest ToUser(std::string_view user, std::string_view request_id = {}) {
  return {.room_id = {}, .user_id = user, .data_json = "{}", .request_id = request_id, .fingerprint = request_id};
}

// Two cores: alice has a phone and a laptop on the first, a tablet on the second; bob is with her on both.
struct TwoCores : testing::Test {
  HubCluster cluster{2};
  HubCluster::Node &one = cluster[0], &two = cluster[1];
  TwoCores() {
    one.Attach(1, 1,
               {Declared(kPhone, "alice", {"general"}), Declared(kLaptop, "alice", {"random"}),
                Declared(kTablet, "bob", {"general"})});
    two.Attach(2, 1, {Declared(kPhone, "alice", {"general"}), Declared(kLaptop, "bob", {"general"})}, 0xe2);
  }
};

TEST_F(TwoCores, CountTogetherWhomAMessageReached) {
  one.Request(70, ToRoom("general"));
  EXPECT_THAT(one.Answers(), ElementsAre("70 OK reached=4"));
  two.Request(71, ToRoom("random"));
  EXPECT_THAT(two.Answers(), ElementsAre("71 OK reached=1"));
  one.Request(72, ToRoom("nobody is here"));
  EXPECT_THAT(one.Answers(), ElementsAre("72 OK reached=0"));
}

TEST_F(TwoCores, AMessageToAUserReachesAllDevicesWhateverTheirRooms) {
  two.Request(70, ToUser("alice"));
  EXPECT_THAT(two.Answers(), ElementsAre("70 OK reached=3"));
  EXPECT_THAT(one.Sent(1), ElementsAre(R"(deliver to 7.1,8.1 {"type":"message","data":{}})"));
  EXPECT_THAT(two.Sent(2), ElementsAre(R"(deliver to 7.1 {"type":"message","data":{}})"));
  one.Request(71, ToUser("carol"));
  EXPECT_THAT(one.Answers(), ElementsAre("71 OK reached=0"));
}

TEST_F(TwoCores, ExcludedUsersGetNothingAndAreNotCounted) {
  const std::vector<std::string> excluded = {"alice", "carol", "alice"};
  MessageRequest message = ToRoom("general");
  message.excluded_user_ids = excluded;
  one.Request(70, message);
  EXPECT_THAT(one.Answers(), ElementsAre("70 OK reached=2"));
  EXPECT_THAT(one.Sent(1), ElementsAre(R"(deliver 1 except=7.1 {"type":"message","data":{}})"));
  EXPECT_THAT(two.Sent(2), ElementsAre(R"(deliver 1 except=7.1 {"type":"message","data":{}})"));
}

TEST_F(TwoCores, AShardWithNobodyElseIsNotTold) {
  const std::vector<std::string> excluded = {"alice"};
  MessageRequest message = ToRoom("random");
  message.excluded_user_ids = excluded;
  one.Request(70, message);
  EXPECT_THAT(one.Answers(), ElementsAre("70 OK reached=0"));
  EXPECT_THAT(one.Sent(1), IsEmpty());
}

TEST_F(TwoCores, ALostLinkIsNotCounted) {
  two.LoseLink(2);
  one.Request(70, ToRoom("general"));
  one.Request(71, ToUser("alice"));
  EXPECT_THAT(one.Answers(), ElementsAre("70 OK reached=2", "71 OK reached=2"));
}

TEST_F(TwoCores, ACoreThatDoesNotAnswerMakesTheCountIncomplete) {
  two.Stop();
  one.Request(70, ToRoom("general"));
  EXPECT_THAT(one.Answers(), IsEmpty());
  cluster.Pass(milliseconds(600));
  EXPECT_THAT(one.Answers(), ElementsAre("70 OK reached=2 incomplete"));
  two.Go();
  cluster.Settle();
  EXPECT_EQ(one.hub().counters().cluster_replies_late, 1u);
  EXPECT_EQ(one.hub().counters().gathers_incomplete, 1u);
  EXPECT_EQ(one.hub().sizes().gathers, 0u);
}

TEST_F(TwoCores, ACoreThatHasLeftIsNotWaitedFor) {
  two.Crash();
  cluster.Pass(seconds(8));
  EXPECT_EQ(one.hub().sizes().cores, 1u);
  one.Request(70, ToRoom("general"));
  EXPECT_THAT(one.Answers(), ElementsAre("70 OK reached=2"));
}

TEST_F(TwoCores, ACoreThatStopsIsTakenOutOfTheRegistry) {
  two.hub().StopJudging();
  cluster.Pass(seconds(2));
  EXPECT_EQ(one.hub().sizes().cores, 1u);
}

TEST_F(TwoCores, RoomAndUserMessagesKeepOneOrder) {
  one.hub().OnMessageRequested(cluster.now(), 70, ToRoom("general"));
  one.hub().OnMessageRequested(cluster.now(), 71, ToUser("alice"));
  one.hub().OnMessageRequested(cluster.now(), 72, ToRoom("general"));
  cluster.Settle();
  EXPECT_THAT(two.Sent(2), ElementsAre(HasSubstr("deliver 1"), HasSubstr("deliver to"), HasSubstr("deliver 1")));
}

// --------------------------------------------------------------------------------------------------------- request_id

TEST_F(TwoCores, ARepeatOnAnotherCoreSendsNothingAndIsAnsweredAsTheFirst) {
  one.Request(70, ToRoom("general", "key"));
  EXPECT_THAT(one.Answers(), ElementsAre("70 OK reached=4"));
  EXPECT_THAT(two.Sent(2), SizeIs(1));
  two.Request(71, ToRoom("general", "key"));
  EXPECT_THAT(two.Answers(), ElementsAre("71 OK reached=4 repeated"));
  EXPECT_THAT(two.Sent(2), IsEmpty());
  EXPECT_THAT(one.Sent(1), SizeIs(1)) << "the first one";
  EXPECT_EQ(two.hub().counters().requests_repeated, 1u);
  EXPECT_EQ(two.hub().sizes().gathers, 0u);
}

TEST_F(TwoCores, ARequestIdIsForOneMessage) {
  one.Request(70, ToRoom("general", "key", "this"));
  one.Answers();
  two.Request(71, ToRoom("general", "key", "that"));
  EXPECT_THAT(two.Answers(), ElementsAre("71 ALREADY_EXISTS"));
  EXPECT_THAT(two.Sent(2), SizeIs(1));
}

TEST_F(TwoCores, ARepeatWhileTheFirstIsStillCountingIsIncomplete) {
  two.Stop();
  one.Request(70, ToRoom("general", "key"));
  one.Request(71, ToRoom("general", "key"));
  EXPECT_THAT(one.Answers(), ElementsAre("71 OK reached=0 incomplete repeated"));
  cluster.Pass(milliseconds(600));
  EXPECT_THAT(one.Answers(), ElementsAre("70 OK reached=2 incomplete"));
  one.Request(72, ToRoom("general", "key"));
  EXPECT_THAT(one.Answers(), ElementsAre("72 OK reached=2 incomplete repeated"));
}

// A stalled Redis: what was not answered is repeated, and the first one takes effect after all.
TEST_F(TwoCores, ARepeatNeverDoublesAMessage) {
  one.hub().OnMessageRequested(cluster.now(), 70, ToUser("alice", "key"));
  cluster.Settle();
  one.SetReachable(false);
  cluster.Settle();
  one.Request(71, ToUser("alice", "key"));
  EXPECT_THAT(one.Answers(), ElementsAre("70 OK reached=3", "71 UNAVAILABLE"));
  one.SetReachable(true);
  cluster.Settle();
  one.Request(72, ToUser("alice", "key"));
  EXPECT_THAT(one.Answers(), ElementsAre("72 OK reached=3 repeated"));
  EXPECT_THAT(two.Sent(2), SizeIs(1));
}

struct HubOnce : testing::Test {
  HubWorld world;
  HubOnce() { world.AttachConfirmed(1, 1, {Declared(kPhone, "alice", {"general"})}); }
};

TEST_F(HubOnce, IsDeliveredWhenItComesBackAndNeverWithout) {
  world.Request(70, ToRoom("general", "key"));
  EXPECT_THAT(world.Asked(), ElementsAre("publish once key f with a copy"));
  world.Pass(seconds(2));
  world.AnswerOnce(Outcome::kUnavailable);
  EXPECT_THAT(world.Sent(1), testing::Not(testing::Contains(HasSubstr("deliver"))));
  EXPECT_THAT(world.Answers(), ElementsAre("70 UNAVAILABLE"));
  world.LoopBack();  // it had been published, and comes late
  EXPECT_THAT(world.Sent(1), ElementsAre(HasSubstr("deliver 1")));
}

TEST_F(HubOnce, IsNotTakenForSomethingThatWasDeliveredBefore) {
  world.Broadcast(70, "general", "1");
  world.Request(71, ToRoom("general", "key"));
  world.LoopBack();
  world.LoopBack();
  EXPECT_THAT(world.Sent(1), SizeIs(2));
  EXPECT_EQ(world.hub().counters().loopback_duplicates, 0u);
}

TEST_F(HubOnce, TheAnswerIsSavedWhenAllHaveCounted) {
  world.Cores({kCore, 0xc1});
  world.Request(70, ToRoom("general", "key"));
  world.Forget();
  world.LoopBack();
  world.AnswerOnce(Outcome::kPublished);
  EXPECT_THAT(world.Asked(), IsEmpty());
  EXPECT_FALSE(world.Answers().size());
  world.Count(0xc1, 1, 4);
  EXPECT_THAT(world.Asked(), ElementsAre("save answer key 5 0"));
  EXPECT_THAT(world.Answers(), ElementsAre("70 OK reached=5"));
}

TEST_F(HubOnce, IsIdleWhenTheStoreHasAnswered) {
  world.Request(70, ToRoom("general", "key"));
  EXPECT_FALSE(world.hub().Idle());
  world.AnswerOnce(Outcome::kPublished);
  EXPECT_TRUE(world.hub().Idle());
}

TEST_F(HubOnce, WithoutAStoreNothingIsSent) {
  world.StoreDown();
  world.Forget();
  world.Request(70, ToRoom("general", "key"));
  EXPECT_THAT(world.Answers(), ElementsAre("70 UNAVAILABLE"));
  EXPECT_THAT(world.Sent(1), IsEmpty());
  EXPECT_THAT(world.Asked(), IsEmpty());
}

TEST(HubOnceBounds, ThoseThatWaitForTheStoreAreBoundedWithTheOthers) {
  HubOptions options = HubWorld::DefaultOptions();
  options.publications_waiting_max = 2;
  HubWorld world(options);
  world.Request(1, ToRoom("general", "a"));
  world.Request(2, ToRoom("general"));
  world.Request(3, ToRoom("general", "b"));
  EXPECT_THAT(world.Answers(), ElementsAre("3 RESOURCE_EXHAUSTED"));
  world.AnswerOnce(Outcome::kConflict);
  EXPECT_THAT(world.Answers(), ElementsAre("1 ALREADY_EXISTS"));
  world.Request(4, ToRoom("general", "b"));
  EXPECT_THAT(world.Answers(), IsEmpty());
}

TEST(HubOnceBounds, TheirBytesAreBoundedToo) {
  HubOptions options = HubWorld::DefaultOptions();
  options.publication_bytes_max = 100;
  HubWorld world(options);
  const std::string data = "\"" + std::string(90, 'x') + "\"";
  MessageRequest message = ToRoom("general", "a");
  message.data_json = data;
  world.Request(1, message);
  world.Request(2, ToRoom("general"));
  EXPECT_THAT(world.Answers(), ElementsAre("2 RESOURCE_EXHAUSTED"));
}

// ------------------------------------------------------------------------------------------------------ one core alone

TEST_F(HubOnce, CopiesForOutsidersAreOfRoomMessagesForEverybodyOnly) {
  world.Request(70, ToUser("alice"));
  EXPECT_THAT(world.Asked(), ElementsAre(HasSubstr("publish 1 to alice")));
  const std::vector<std::string> excluded = {"bob"};
  MessageRequest message = ToRoom("general");
  message.excluded_user_ids = excluded;
  world.Request(71, message);
  EXPECT_THAT(world.Asked(), ElementsAre(HasSubstr("publish 2 message general")));
  world.Request(72, ToUser("alice", "key"));
  EXPECT_THAT(world.Asked(), ElementsAre("publish once key key"));
}

TEST_F(HubOnce, AUserMessageThatLoopsBackLateIsDeliveredOnce) {
  world.Request(70, ToUser("alice"));
  world.AnswerPublish();
  world.Forget();
  world.Pass(milliseconds(600));
  EXPECT_THAT(world.Sent(1), ElementsAre(HasSubstr("deliver to 7.1")));
  EXPECT_THAT(world.Answers(), ElementsAre("70 OK reached=1"));
  world.LoopBack();
  EXPECT_THAT(world.Sent(1), IsEmpty());
}

TEST_F(HubOnce, WithoutAStoreAUserMessageStaysAmongThisCoresEdges) {
  world.StoreDown();
  world.Forget();
  world.Request(70, ToUser("alice"));
  EXPECT_THAT(world.Sent(1), ElementsAre(HasSubstr("deliver to 7.1")));
  EXPECT_THAT(world.Answers(), ElementsAre("70 UNAVAILABLE"));
}

TEST_F(HubOnce, ACountForAnotherCoreGoesOutAtTheEndOfTheTurn) {
  auto message = MessageFrom(0xc1, 1, "general", "x");
  message.mutable_message()->set_count_id(7);
  world.Bus(message);
  message.set_sequence(2);
  message.mutable_message()->set_count_id(8);
  world.Bus(message);
  world.Bus(MessageFrom(0xc1, 3, "general", "of an older core: nobody counts"));
  EXPECT_THAT(world.Asked(), IsEmpty());
  world.TurnEnd();
  EXPECT_THAT(world.Asked(), ElementsAre("reply to c1 7=c0:1 8=c0:1"));
  world.TurnEnd();
  EXPECT_THAT(world.Asked(), IsEmpty());
}

TEST_F(HubOnce, TheFirstWordOfACoreMakesItKnown) {
  EXPECT_EQ(world.hub().sizes().cores, 1u);
  link::v1::BusEnvelope greeting;
  greeting.set_core(0xc1);
  world.Bus(greeting);
  EXPECT_EQ(world.hub().sizes().cores, 2u);
  world.Request(70, ToRoom("general"));
  world.LoopBack();
  world.AnswerPublish();
  EXPECT_THAT(world.Answers(), IsEmpty()) << "it is waited for";
  world.Cores({kCore});
  EXPECT_THAT(world.Answers(), ElementsAre("70 OK reached=1"));
}

TEST_F(HubOnce, TypingOfTheApiGoesByTheBus) {
  link::v1::RoomTyping typing;
  typing.set_room_id("general");
  typing.set_kind(link::v1::ROOM_KIND_CHANNEL);
  typing.set_user_id("carol");
  typing.set_username("Carol");
  EXPECT_TRUE(world.hub().OnTypingRequested(world.now(), typing).ok());
  EXPECT_THAT(world.Asked(), ElementsAre("typing general carol Carol", "publish 1 typing general carol"));
  world.LoopBack();
  EXPECT_THAT(world.Sent(1), ElementsAre(HasSubstr("\"username\":\"Carol\"")));
  world.StoreDown();
  world.Forget();
  EXPECT_TRUE(absl::IsUnavailable(world.hub().OnTypingRequested(world.now(), typing)));
  EXPECT_THAT(world.Sent(1), ElementsAre(HasSubstr("\"username\":\"Carol\"")));
}

TEST_F(HubOnce, ChangesOfPresenceAreToldOnceEach) {
  world.Bus(Changed("alice", link::v1::STATUS_ONLINE, 1'000'000'100));
  world.Bus(Changed("alice", link::v1::STATUS_ONLINE, 1'000'000'100));
  world.Bus(Changed("alice", link::v1::STATUS_AWAY, 1'000'000'099));
  world.Bus(Changed("alice", link::v1::STATUS_AWAY, 1'000'000'200));
  EXPECT_THAT(world.Changes(), ElementsAre("alice@1000000100 online", "alice@1000000200 away"));
}

}  // namespace
}  // namespace presence::core
