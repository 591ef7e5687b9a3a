// What cores ask each other: queries, drains, log levels; and who is asked.
#include "tests/fakes/hub_cluster.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/hub.h"
#include "tests/core/cluster_requests.h"
#include "tests/fakes/hub_world.h"

namespace presence::core {
namespace {

using link::v1::ClusterRequest;
using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;
using testing::StartsWith;

const uint64_t kPhone = ConnectionOf(7), kLaptop = ConnectionOf(8);

ClusterRequest State() {
  ClusterRequest request;
  request.mutable_state();
  return request;
}

struct HubQueries : testing::Test {
  HubCluster cluster{3};
  HubCluster::Node &one = cluster[0], &two = cluster[1], &three = cluster[2];
  HubQueries() {
    one.Attach(1, 1, {Declared(kPhone, "alice", {"general"}), Declared(kLaptop, "bob", {"general", "random"})});
    two.Attach(2, 1, {Declared(kPhone, "alice", {"general"})}, 0xe2);
  }
};

TEST_F(HubQueries, EveryCoreAnswersInOrder) {
  two.Ask(80, Rooms());
  EXPECT_THAT(two.Answers(), ElementsAre("80 OK c0:general=2;random=1; c1:general=1; c2:"));
  EXPECT_EQ(two.hub().sizes().gathers, 0u);
}

TEST_F(HubQueries, TheOthersPartsAreThere) {
  ClusterRequest members;
  members.mutable_members()->set_room_id("general");
  members.mutable_members()->set_limit(10);
  two.Ask(80, members);
  ASSERT_EQ(two.last_replies().size(), 3u);
  EXPECT_EQ(two.last_replies()[0].members().connections(), 2u);
  EXPECT_EQ(two.last_replies()[1].members().members(0).user_id(), "alice");
  ClusterRequest connections;
  connections.mutable_connections()->set_user_id("alice");
  connections.mutable_connections()->set_limit(10);
  three.Ask(81, connections);
  ASSERT_EQ(three.last_replies().size(), 3u);
  EXPECT_EQ(three.last_replies()[0].connections().connections(0).core(), "core-0");
  EXPECT_EQ(three.last_replies()[1].connections().connections(0).name().incarnation(), 0xe2u);
  ClusterRequest watched;
  watched.mutable_watched_rooms()->add_rooms()->set_room_id("general");
  three.Ask(82, watched);
  EXPECT_EQ(three.last_replies()[0].watched_rooms().rooms(0).user_ids_size(), 2);
}

TEST_F(HubQueries, TheStateOfACoreAndItsShards) {
  HostState host;
  host.watchers = 3;
  host.link_backlog_bytes = 4;
  host.draining = true;
  one.hub().OnHostState(host);
  two.LoseLink(2);
  three.Ask(80, State());
  const link::v1::StateReply& state = three.last_replies().at(0).state();
  EXPECT_EQ(state.name(), "core-0");
  EXPECT_TRUE(state.store_up());
  EXPECT_TRUE(state.draining());
  EXPECT_EQ(state.watchers(), 3u);
  EXPECT_EQ(state.link_backlog_bytes(), 4u);
  EXPECT_EQ(state.connections(), 2u);
  EXPECT_EQ(state.users(), 2u);
  EXPECT_EQ(state.rooms(), 2u);
  EXPECT_EQ(state.memberships(), 3u);
  ASSERT_EQ(state.shards_size(), 1);
  EXPECT_EQ(state.shards(0).edge(), "edge");
  EXPECT_EQ(state.shards(0).incarnation(), kEdge);
  EXPECT_EQ(state.shards(0).attach(), 1u);
  EXPECT_TRUE(state.shards(0).attached());
  EXPECT_EQ(state.shards(0).connections(), 2u);
  EXPECT_FALSE(three.last_replies().at(1).state().shards(0).attached());
  EXPECT_EQ(three.last_replies().at(2).state().shards_size(), 0);
}

TEST_F(HubQueries, AVersionThatIsTooLongIsCutBetweenCharacters) {
  link::v1::EdgeEvent hello = Hello(1, 0, 0xe3);
  hello.mutable_hello()->set_version(std::string(63, 'v') + "\u00fc");
  one.OpenLink(5);
  one.Say(5, hello);
  three.Ask(80, State());
  const auto& shards = three.last_replies().at(0).state().shards();
  ASSERT_EQ(shards.size(), 2);
  EXPECT_EQ(shards[1].version(), std::string(63, 'v'));
}

TEST_F(HubQueries, ACoreThatDoesNotAnswerMakesItUnavailableWithWhatTheOthersSaid) {
  three.Stop();
  one.Ask(80, Rooms());
  EXPECT_THAT(one.Answers(), IsEmpty());
  cluster.Pass(milliseconds(600));
  EXPECT_THAT(one.Answers(), ElementsAre("80 UNAVAILABLE c0:general=2;random=1; c1:general=1;"));
  three.Go();
  cluster.Settle();
  EXPECT_EQ(one.hub().counters().cluster_replies_late, 1u);
}

TEST_F(HubQueries, WithoutAStoreACoreSpeaksForItself) {
  one.SetReachable(false);
  cluster.Settle();
  one.Ask(80, Rooms());
  EXPECT_THAT(one.Answers(), ElementsAre("80 UNAVAILABLE c0:general=2;random=1;"));
}

TEST_F(HubQueries, ARequestOfALaterReleaseIsUnimplemented) {
  one.Ask(80, ClusterRequest());
  EXPECT_THAT(one.Answers(), ElementsAre("80 UNIMPLEMENTED c0:UNIMPLEMENTED: c1:UNIMPLEMENTED: c2:UNIMPLEMENTED:"));
}

TEST_F(HubQueries, ACoreThatDiesIsForgottenAndANewOneIsKnownAtOnce) {
  three.Crash();
  cluster.Pass(seconds(8));
  EXPECT_EQ(one.hub().sizes().cores, 2u);
  three.Go();
  three.SetReachable(true);
  cluster.Settle();
  EXPECT_EQ(one.hub().sizes().cores, 3u) << "before the next look into the registry";
}

// ----------------------------------------------------------------------------------------------- one core alone

TEST(HubAlone, AnswersInTheTurnInWhichItHearsItself) {
  HubWorld world;
  world.AttachConfirmed(1, 1, {Declared(kPhone, "alice", {"general"})});
  world.Ask(80, Rooms());
  EXPECT_THAT(world.Asked(), ElementsAre("publish 1 request 1"));
  EXPECT_THAT(world.Answers(), IsEmpty());
  world.LoopBack();
  EXPECT_THAT(world.Answers(), ElementsAre("80 OK c0:general=1;"));
  world.TurnEnd();
  EXPECT_THAT(world.Asked(), IsEmpty()) << "its own answer needs no store";
}

TEST(HubAlone, SpeaksForItselfWhenItDoesNotHearItself) {
  HubWorld world;
  world.AttachConfirmed(1, 1, {Declared(kPhone, "alice", {"general"})});
  world.Ask(80, Rooms());
  world.Pass(milliseconds(600));
  EXPECT_THAT(world.Answers(), ElementsAre("80 UNAVAILABLE c0:general=1;"));
  world.Ask(81, Rooms());
  world.AnswerPublish(true);
  world.AnswerPublish(false);
  EXPECT_THAT(world.Answers(), ElementsAre("81 UNAVAILABLE c0:general=1;"));
}

TEST(HubAlone, AnnouncesItselfEachSecondUntilItStops) {
  HubWorld world;
  EXPECT_EQ(world.announcements(), 1);
  world.Pass(seconds(3));
  EXPECT_EQ(world.announcements(), 4);
  world.StoreDown();
  world.Pass(seconds(3));
  EXPECT_EQ(world.announcements(), 4);
  world.StoreUp();
  EXPECT_EQ(world.announcements(), 5);
  world.hub().StopJudging();
  world.hub().StopJudging();
  EXPECT_EQ(world.withdrawals(), 1);
  world.Pass(seconds(3));
  EXPECT_EQ(world.announcements(), 5);
}

TEST(HubAlone, KeepsTheLastListWhenTheRegistryDoesNotAnswer) {
  HubWorld world;
  world.Cores({kCore, 0xc1});
  world.hub().OnCoresRead(world.now(), absl::UnavailableError("away"));
  EXPECT_EQ(world.hub().sizes().cores, 2u);
}

TEST(HubAlone, RequestsAreBounded) {
  HubOptions options = HubWorld::DefaultOptions();
  options.gathers_max = 2;
  HubWorld world(options);
  for (uint64_t request = 80; request <= 82; ++request) world.Ask(request, Rooms());
  world.Broadcast(70, "general", "{}");
  EXPECT_THAT(world.Answers(), ElementsAre("82 RESOURCE_EXHAUSTED", "70 RESOURCE_EXHAUSTED"));
  EXPECT_EQ(world.hub().counters().cluster_requests_refused, 1u);
}

TEST(HubAlone, LargeAnswersGoOutApart) {
  HubWorld world;
  std::vector<std::string> rooms;
  for (int i = 0; i < 500; ++i) rooms.push_back(std::string(1900, 'r') + std::to_string(i));
  world.AttachConfirmed(1, 1, {Declared(kPhone, "alice", rooms)});
  for (uint64_t id = 1; id <= 3; ++id) {
    link::v1::BusEnvelope envelope;
    envelope.set_core(0xc1);
    envelope.set_sequence(id);
    envelope.mutable_request()->set_origin(0xc1);
    envelope.mutable_request()->set_id(id);
    envelope.mutable_request()->mutable_rooms()->set_limit(1000);
    world.Bus(envelope);
  }
  world.TurnEnd();
  EXPECT_EQ(world.Asked().size(), 3u) << "of almost 1 MiB each";
}

// ------------------------------------------------------------------------------------------------ drains and log levels

struct HubOperations : HubQueries {
  static ClusterRequest Drain(std::string_view edge) {
    ClusterRequest request;
    request.mutable_drain()->set_edge(std::string(edge));
    request.mutable_drain()->set_window_ms(5000);
    return request;
  }
};

TEST_F(HubOperations, AnEdgeIsDrainedByOneOfItsShards) {
  one.OpenLink(5);
  one.Say(5, Hello(1, 0, kEdge, 1));
  one.Say(5, Declared(ConnectionOf(1, 1, 1), "carol"));
  one.Say(5, ResyncDone());
  three.Ask(80, Drain("edge"));
  EXPECT_THAT(one.Sent(1), ElementsAre("drain 5000ms"));
  EXPECT_THAT(one.Sent(5), IsEmpty());
  EXPECT_THAT(two.Sent(2), ElementsAre("drain 5000ms")) << "another edge with the same name";
  EXPECT_THAT(three.Answers(), ElementsAre("80 OK c0:3 c1:1 c2:0"));
  three.Ask(81, Drain("nowhere"));
  EXPECT_THAT(three.Answers(), ElementsAre("81 OK c0:0 c1:0 c2:0"));
}

TEST_F(HubOperations, ACoreIsDrainedByItself) {
  ClusterRequest request;
  request.mutable_drain()->set_core(kCore);
  request.mutable_drain()->set_window_ms(5000);
  three.Ask(80, request);
  EXPECT_THAT(one.Ordered(), ElementsAre("drain 5000ms"));
  EXPECT_THAT(two.Ordered(), IsEmpty());
  EXPECT_THAT(three.Answers(), ElementsAre("80 OK c0:1 c1:0 c2:0"));
}

TEST_F(HubOperations, ALogLevelIsOfACoreAnEdgeOrAll) {
  ClusterRequest request;
  request.mutable_log_level()->set_level(link::v1::LOG_LEVEL_DEBUG);
  request.mutable_log_level()->set_core("core-1");
  one.Ask(80, request);
  EXPECT_THAT(two.Ordered(), ElementsAre("log level 1"));
  EXPECT_THAT(one.Ordered(), IsEmpty());
  EXPECT_THAT(one.Answers(), ElementsAre("80 OK c0:0 c1:1 c2:0"));
  request.mutable_log_level()->set_edge("edge");
  one.Ask(81, request);
  EXPECT_THAT(two.Ordered(), IsEmpty());
  EXPECT_THAT(one.Sent(1), ElementsAre("log level 1"));
  EXPECT_THAT(one.Answers(), ElementsAre("81 OK c0:1 c1:1 c2:0"));
  request.mutable_log_level()->set_all(true);
  one.Ask(82, request);
  EXPECT_THAT(three.Ordered(), ElementsAre("log level 1"));
  EXPECT_THAT(two.Sent(2), ElementsAre("log level 1", "log level 1"));
  EXPECT_THAT(one.Answers(), ElementsAre("82 OK c0:2 c1:2 c2:1"));
}

TEST_F(HubOperations, WhatIsHereIsToldWithoutAStoreAndTheRestIsUnavailable) {
  one.SetReachable(false);
  cluster.Settle();
  one.Ask(80, Drain("edge"));
  EXPECT_THAT(one.Sent(1), ElementsAre("drain 5000ms"));
  EXPECT_THAT(two.Sent(2), IsEmpty());
  EXPECT_THAT(one.Answers(), ElementsAre("80 UNAVAILABLE c0:2"));
  ClusterRequest request;
  request.mutable_log_level()->set_level(link::v1::LOG_LEVEL_DEBUG);
  request.mutable_log_level()->set_core("core-0");
  one.Ask(81, request);
  EXPECT_THAT(one.Ordered(), ElementsAre("log level 1"));
  request.mutable_log_level()->set_all(true);
  one.Ask(82, request);
  EXPECT_THAT(one.Ordered(), ElementsAre("log level 1"));
  EXPECT_THAT(one.Sent(1), ElementsAre("log level 1"));
  EXPECT_THAT(one.Answers(), ElementsAre("81 UNAVAILABLE c0:1", "82 UNAVAILABLE c0:2"));
}

TEST_F(HubOperations, ACoreIsNotDrainedWithoutAStore) {
  one.SetReachable(false);
  cluster.Settle();
  ClusterRequest request;
  request.mutable_drain()->set_core(kCore);
  one.Ask(80, request);
  EXPECT_THAT(one.Ordered(), IsEmpty());
  EXPECT_THAT(one.Answers(), ElementsAre("80 UNAVAILABLE"));
}

// --------------------------------------------------------------------------------------- what must be the same on all

TEST(HubSettings, CoresThatAreSetDifferentlySaySo) {
  HubCluster cluster(2);
  HubCluster::Node& one = cluster[0];
  cluster.Pass(seconds(30));
  EXPECT_EQ(one.hub().sizes().cores_set_otherwise, 0u);
  EXPECT_THAT(one.Reports(), IsEmpty());
  HubOptions options = HubWorld::DefaultOptions();
  options.room_auth_name = "claims";
  HubCluster::Node& three = cluster.Add(options);
  cluster.Settle();
  cluster.Pass(milliseconds(100));
  EXPECT_EQ(one.hub().sizes().cores_set_otherwise, 1u);
  EXPECT_THAT(one.Reports(),
              ElementsAre(StartsWith("ROOM_AUTH is open here and another value at core 00000000000000c2")));
  cluster.Pass(seconds(10));
  EXPECT_EQ(three.hub().sizes().cores_set_otherwise, 2u) << "who comes last hears of it, too";
  EXPECT_THAT(three.Reports(), SizeIs(1)) << "one line, whatever the number of cores";
  cluster.Pass(seconds(40));
  EXPECT_THAT(one.Reports(), IsEmpty()) << "once a minute";
  cluster.Pass(seconds(20));
  EXPECT_THAT(one.Reports(), SizeIs(1));
  three.Crash();
  cluster.Pass(seconds(8));
  EXPECT_EQ(one.hub().sizes().cores_set_otherwise, 0u);
}

}  // namespace
}  // namespace presence::core
