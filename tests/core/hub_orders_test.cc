// Orders to connections: carried out when the shards say so, given again when a link was lost, and over when time is.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/hub.h"
#include "tests/core/cluster_requests.h"
#include "tests/fakes/hub_cluster.h"
#include "tests/fakes/hub_world.h"

namespace presence::core {
namespace {

using link::v1::ClusterRequest;
using link::v1::STATUS_AWAY;
using link::v1::STATUS_ONLINE;
using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

const uint64_t kPhone = ConnectionOf(7), kLaptop = ConnectionOf(8), kTablet = ConnectionOf(9);

ClusterRequest DisconnectOne(uint64_t edge, uint64_t connection) {
  ClusterRequest request;
  request.mutable_disconnect()->mutable_connection()->set_incarnation(edge);
  request.mutable_disconnect()->mutable_connection()->set_connection(connection);
  request.mutable_disconnect()->set_code(1008);
  request.mutable_disconnect()->set_reason("bye");
  return request;
}
ClusterRequest Unsubscribe(std::string_view user, std::string_view room) {
  ClusterRequest request;
  request.mutable_unsubscribe()->set_user_id(std::string(user));
  request.mutable_unsubscribe()->set_room_id(std::string(room));
  return request;
}

// Two cores: alice has a phone and a laptop on the first and a tablet on the second.
struct HubOrders : testing::Test {
  HubCluster cluster;
  HubCluster::Node &one = cluster[0], &two = cluster[1];
  explicit HubOrders(const HubOptions& options = HubWorld::DefaultOptions()) : cluster(2, options) {
    one.Attach(1, 1,
               {Declared(kPhone, "alice", {"general"}), Declared(kLaptop, "alice", {"random"}),
                Declared(kTablet, "bob", {"general"})});
    two.Attach(2, 1, {Declared(kTablet, "alice", {"general"})}, 0xe2);
  }
};

TEST_F(HubOrders, AUserIsDisconnectedOnAllCoresWhenAllShardsHaveSaidSo) {
  two.Ask(80, Disconnect("alice"));
  EXPECT_THAT(one.Sent(1), ElementsAre("close 8.1 1008 bye", "close 7.1 1008 bye"));
  EXPECT_THAT(two.Sent(2), ElementsAre("close 9.1 1008 bye"));
  EXPECT_EQ(one.hub().sizes().orders, 2u);
  one.Say(1, Closed(1, kPhone, "alice"));
  two.Say(2, Closed(1, kTablet, "alice"));
  EXPECT_THAT(two.Answers(), IsEmpty());
  one.Say(1, Closed(2, kLaptop, "alice"));
  EXPECT_THAT(two.Answers(), ElementsAre("80 OK c0:2 c1:1"));
  EXPECT_EQ(one.hub().sizes().orders, 0u);
  EXPECT_EQ(two.hub().sizes().gathers, 0u);
}

TEST_F(HubOrders, OneConnectionIsClosedByItsName) {
  one.Ask(80, DisconnectOne(0xe2, kTablet));
  EXPECT_THAT(two.Sent(2), ElementsAre("close 9.1 1008 bye"));
  EXPECT_THAT(one.Sent(1), IsEmpty()) << "that of the same number belongs to another edge";
  two.Say(2, Closed(1, kTablet, "alice"));
  EXPECT_THAT(one.Answers(), ElementsAre("80 OK c0:0 c1:1"));
  one.Ask(81, DisconnectOne(0xe2, ConnectionOf(9, 2)));
  one.Ask(82, DisconnectOne(0xe7, kTablet));
  EXPECT_THAT(one.Answers(), ElementsAre("81 OK c0:0 c1:0", "82 OK c0:0 c1:0"));
}

TEST_F(HubOrders, NobodyIsNoError) {
  one.Ask(80, Disconnect("carol"));
  EXPECT_THAT(one.Answers(), ElementsAre("80 OK c0:0 c1:0"));
}

TEST_F(HubOrders, AForcedLeaveConcernsThoseInTheRoom) {
  two.Ask(80, Unsubscribe("alice", "general"));
  EXPECT_THAT(one.Sent(1), ElementsAre("leave 7.1 general"));
  EXPECT_THAT(two.Sent(2), ElementsAre("leave 9.1 general"));
  one.Say(1, Left(1, kPhone, "general"));
  EXPECT_THAT(one.Sent(1), ElementsAre("unbind 7.1 general reply=1"));
  two.Say(2, Left(1, kTablet, "general"));
  EXPECT_THAT(two.Answers(), ElementsAre("80 OK c0:1 c1:1"));
}

// The client leaves of its own accord while the order is on its way: that does it, and what the shard says of the order changes nothing.
TEST_F(HubOrders, AForcedLeaveThatRacesWithTheClientsOwn) {
  two.Ask(80, Unsubscribe("alice", "general"));
  two.Say(2, Left(1, kTablet, "general"));
  one.Say(1, Left(1, kPhone, "general"));
  EXPECT_THAT(two.Answers(), ElementsAre("80 OK c0:1 c1:1"));
  one.Say(1, Left(2, kPhone, "general"));
  EXPECT_THAT(one.Sent(1),
              ElementsAre("leave 7.1 general", "unbind 7.1 general reply=1", "unbind 7.1 general reply=2"));
}

TEST_F(HubOrders, AStatusIsThatOfEveryDevice) {
  one.Ask(80, SetStatus("alice", STATUS_AWAY));
  EXPECT_THAT(one.Sent(1), ElementsAre("status 8.1 away", "status 7.1 away"));
  one.Say(1, StatusSet(1, kPhone, STATUS_AWAY));
  one.Say(1, StatusSet(2, kLaptop, STATUS_ONLINE));  // the client's own, from before
  two.Say(2, StatusSet(1, kTablet, STATUS_AWAY));
  EXPECT_THAT(one.Answers(), IsEmpty());
  one.Say(1, StatusSet(3, kLaptop, STATUS_AWAY));
  EXPECT_THAT(one.Answers(), ElementsAre("80 OK c0:2 c1:1"));
}

TEST_F(HubOrders, ADeviceThatIsGoneHasNoStatus) {
  one.Ask(80, SetStatus("alice", STATUS_AWAY));
  one.Say(1, StatusSet(1, kPhone, STATUS_AWAY));
  one.Say(1, Closed(2, kLaptop, "alice"));
  two.Say(2, Closed(1, kTablet, "alice"));
  EXPECT_THAT(one.Answers(), ElementsAre("80 OK c0:1 c1:0"));
}

// ---------------------------------------------------------------------------------------------------------- lost links

TEST_F(HubOrders, AKickThatWasLostWithTheLinkOverridesTheDeclaration) {
  two.Ask(80, Disconnect("alice"));
  two.Say(2, Closed(1, kTablet, "alice"));
  one.LoseLink(1);
  one.Sent(1);
  one.OpenLink(3);
  one.Say(3, Hello(2));
  EXPECT_THAT(one.Sent(3), IsEmpty()) << "not before the shard has named it";
  one.Say(3, Declared(kPhone, "alice", {"general"}));
  EXPECT_THAT(one.Sent(3), ElementsAre("bind 7.1 general handle=1 reply=0", "close 7.1 1008 bye"));
  one.Say(3, Closed(1, kPhone, "alice"));
  EXPECT_THAT(two.Answers(), IsEmpty());
  one.Say(3, ResyncDone());  // the laptop was not named: it is gone
  EXPECT_THAT(two.Answers(), ElementsAre("80 OK c0:2 c1:1"));
}

TEST_F(HubOrders, AConnectionWithoutALinkIsToldWhenItIsDeclared) {
  one.LoseLink(1);
  one.Ask(80, Unsubscribe("bob", "general"));
  one.OpenLink(3);
  one.Say(3, Hello(2));
  one.Say(3, Declared(kTablet, "bob", {"general", "random"}));
  EXPECT_THAT(one.Sent(3), ElementsAre("bind 9.1 general handle=1 reply=0", "bind 9.1 random handle=2 reply=0",
                                       "leave 9.1 general"));
  one.Say(3, Left(1, kTablet, "general"));
  EXPECT_THAT(one.Answers(), ElementsAre("80 OK c0:1 c1:0"));
}

TEST_F(HubOrders, WhatTheDeclarationSaysIsSoNeedNotBeSaidAgain) {
  one.Ask(80, Unsubscribe("bob", "general"));
  one.Ask(81, SetStatus("bob", STATUS_AWAY));
  one.LoseLink(1);
  one.OpenLink(3);
  one.Say(3, Hello(2));
  one.Say(3, Declared(kTablet, "bob", {}, STATUS_AWAY));
  EXPECT_THAT(one.Sent(3), IsEmpty());
  EXPECT_THAT(one.Answers(), testing::UnorderedElementsAre("80 OK c0:1 c1:0", "81 OK c0:1 c1:0"));
}

TEST_F(HubOrders, AnOrderEndsAfterThreeSecondsAndTheCallerRepeatsIt) {
  one.LoseLink(1);
  two.Ask(80, Disconnect("alice"));
  two.Say(2, Closed(1, kTablet, "alice"));
  cluster.Pass(milliseconds(2900));
  EXPECT_THAT(two.Answers(), IsEmpty());
  cluster.Pass(milliseconds(200));
  EXPECT_THAT(two.Answers(), ElementsAre(testing::StartsWith("80 UNAVAILABLE")));
  EXPECT_EQ(one.hub().sizes().orders, 0u);
  EXPECT_EQ(one.hub().counters().orders_expired, 1u);
  one.OpenLink(3);
  one.Say(3, Hello(2));
  one.Say(3, Declared(kPhone, "alice", {}));
  EXPECT_THAT(one.Sent(3), IsEmpty()) << "it is over";
}

// Given up is not gone: a stalled edge comes back with its clients, and what was ordered of them is then still to be done.
TEST_F(HubOrders, AnEdgeThatIsGivenUpHasSaidNothing) {
  one.LoseLink(1);
  cluster.Pass(seconds(4));
  one.Ask(80, Disconnect("bob"));
  cluster.Pass(milliseconds(1500));
  EXPECT_EQ(one.hub().counters().edges_expired, 1u);
  EXPECT_THAT(one.Answers(), IsEmpty());
  one.OpenLink(3);
  one.Say(3, Hello(2));
  one.Say(3, Declared(kTablet, "bob", {}));
  EXPECT_THAT(one.Sent(3), ElementsAre("close 9.1 1008 bye"));
  one.Say(3, Closed(1, kTablet, "bob"));
  EXPECT_THAT(one.Answers(), ElementsAre("80 OK c0:1 c1:0"));
}

TEST_F(HubOrders, ACancelledCallLeavesTheOrderAsItIs) {
  one.Ask(80, Disconnect("bob"));
  one.hub().OnClusterCancelled(cluster.now(), 80);
  EXPECT_THAT(one.Answers(), ElementsAre("80 CANCELLED c1:0"));
  one.LoseLink(1);
  one.OpenLink(3);
  one.Say(3, Hello(2));
  one.Say(3, Declared(kTablet, "bob", {}));
  EXPECT_THAT(one.Sent(3), ElementsAre("close 9.1 1008 bye"));
  one.Say(3, Closed(1, kTablet, "bob"));
  EXPECT_THAT(one.Answers(), IsEmpty());
}

// -------------------------------------------------------------------------------------------------------- other trouble

TEST_F(HubOrders, WithoutAStoreNothingIsOrdered) {
  one.SetReachable(false);
  cluster.Settle();
  one.Ask(80, Disconnect("alice"));
  EXPECT_THAT(one.Answers(), ElementsAre("80 UNAVAILABLE"));
  EXPECT_THAT(one.Sent(1), IsEmpty());
}

TEST_F(HubOrders, ACoreThatCannotHearIsUnavailable) {
  two.Stop();
  one.Ask(80, Disconnect("bob"));
  one.Say(1, Closed(1, kTablet, "bob"));
  cluster.Pass(milliseconds(3100));
  EXPECT_THAT(one.Answers(), ElementsAre("80 UNAVAILABLE c0:1"));
}

struct BoundedOrders : HubOrders {
  static HubOptions Few() {
    HubOptions options = HubWorld::DefaultOptions();
    options.orders_max = 2;
    return options;
  }
  BoundedOrders() : HubOrders(Few()) {}
};

TEST_F(BoundedOrders, AreRefusedAsAWhole) {
  one.Ask(80, Disconnect("bob"));
  one.Sent(1);
  one.Ask(81, Disconnect("alice"));
  EXPECT_THAT(one.Sent(1), IsEmpty());
  EXPECT_EQ(one.hub().sizes().orders, 1u);
  two.Say(2, Closed(1, kTablet, "alice"));
  EXPECT_THAT(one.Answers(), ElementsAre(testing::StartsWith("81 RESOURCE_EXHAUSTED c0:RESOURCE_EXHAUSTED:")));
}

// An order that comes back late is carried out: the caller, who was told UNAVAILABLE, has not been told that it is not.
TEST(HubLateOrders, AreCarriedOutWhateverWasDeliveredMeanwhile) {
  HubWorld world;
  world.AttachConfirmed(1, 1, {Declared(kPhone, "alice", {"general"})});
  world.Ask(80, Disconnect("alice"));
  world.Broadcast(70, "general", "1");
  world.Forget();
  world.Pass(milliseconds(700));
  EXPECT_THAT(world.Sent(1), ElementsAre(HasSubstr("deliver 1")));
  world.LoopBack();
  EXPECT_THAT(world.Sent(1), ElementsAre("close 7.1 1008 bye"));
  world.LoopBack();
  EXPECT_EQ(world.hub().counters().loopback_duplicates, 1u);
}

TEST(HubLateOrders, AreUnavailableWhenTheyDoNotComeBack) {
  HubWorld world;
  world.AttachConfirmed(1, 1, {Declared(kPhone, "alice", {"general"})});
  world.Ask(80, Disconnect("alice"));
  world.AnswerPublish();
  world.Forget();
  world.Pass(milliseconds(3100));
  EXPECT_THAT(world.Answers(), ElementsAre("80 UNAVAILABLE"));
  world.Ask(81, Disconnect("alice"));
  world.AnswerPublish(false);
  EXPECT_THAT(world.Answers(), ElementsAre("81 UNAVAILABLE"));
}

}  // namespace
}  // namespace presence::core
