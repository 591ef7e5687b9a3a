// A shard that goes to another core: the one that had it forgets it when the other says so, and does not wait for EDGE_GRACE.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "core/hub.h"
#include "tests/core/cluster_requests.h"
#include "tests/fakes/hub_cluster.h"
#include "tests/fakes/hub_world.h"

namespace presence::core {
namespace {

using link::v1::ClusterRequest;
using link::v1::STATUS_AWAY;
using Outcome = WriteResult::Outcome;
using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::Contains;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::IsSupersetOf;
using testing::StartsWith;

const uint64_t kPhone = ConnectionOf(7), kLaptop = ConnectionOf(8), kTablet = ConnectionOf(9);

// ------------------------------------------------------------------------------------------------------ over two cores

// The edge e1 with alice's phone is on the first core, e2 with her tablet on the second.
struct HubMoves : testing::Test {
  HubCluster cluster{2};
  HubCluster::Node &one = cluster[0], &two = cluster[1];
  HubMoves() {
    one.Attach(1, 1, {Declared(kPhone, "alice", {"general"}), Declared(kLaptop, "bob", {"general"})});
    two.Attach(2, 1, {Declared(kTablet, "alice", {"general"})}, 0xe2);
  }
  void Move() {
    one.LoseLink(1);
    two.Attach(3, 2, {Declared(kPhone, "alice", {"general"}), Declared(kLaptop, "bob", {"general"})});
  }
};

TEST_F(HubMoves, IsCountedOnceWhenItsResyncIsDone) {
  Move();
  one.Ask(80, Rooms());
  EXPECT_THAT(one.Answers(), ElementsAre("80 OK c0: c1:general=3;"));
  const HubSizes sizes = one.hub().sizes();
  EXPECT_EQ(sizes.shards, 0u);
  EXPECT_EQ(sizes.connections, 0u);
  EXPECT_EQ(sizes.users, 0u);
  EXPECT_EQ(sizes.memberships, 0u);
  EXPECT_EQ(sizes.removals, 0u) << "nothing is to be written of it";
  EXPECT_EQ(one.hub().counters().shards_taken_over, 1u);
}

TEST_F(HubMoves, StaysWhereItWasUntilTheOtherCoreHasAllOfIt) {
  one.LoseLink(1);
  two.OpenLink(3);
  two.Say(3, Hello(2));
  two.Say(3, Declared(kPhone, "alice", {"general"}));
  EXPECT_EQ(one.hub().sizes().connections, 2u);
  two.Say(3, ResyncDone());
  EXPECT_EQ(one.hub().sizes().connections, 0u);
}

TEST_F(HubMoves, OrdersAreForItsNewCoreAlone) {
  Move();
  one.Ask(80, SetStatus("alice", STATUS_AWAY));
  two.Say(3, StatusSet(1, kPhone, STATUS_AWAY));
  two.Say(2, StatusSet(1, kTablet, STATUS_AWAY));
  EXPECT_THAT(one.Answers(), ElementsAre("80 OK c0:0 c1:2"));
  one.Ask(81, Disconnect("bob"));
  two.Say(3, Closed(2, kLaptop, "bob"));
  EXPECT_THAT(one.Answers(), ElementsAre("81 OK c0:0 c1:1"));
}

// The second core has answered before it knew the connection: nobody can say that it is carried out.
TEST_F(HubMoves, AnOrderThatWaitedForItIsUnavailableAtOnceAndTheCallerRepeatsIt) {
  one.LoseLink(1);
  two.Ask(80, Disconnect("bob"));
  two.OpenLink(3);
  two.Say(3, Hello(2));
  two.Say(3, Declared(kLaptop, "bob", {"general"}));
  EXPECT_THAT(two.Answers(), IsEmpty());
  two.Say(3, ResyncDone());
  EXPECT_THAT(two.Answers(), ElementsAre(StartsWith("80 UNAVAILABLE c0:UNAVAILABLE:")));
  two.Ask(81, Disconnect("bob"));
  two.Say(3, Closed(1, kLaptop, "bob"));
  EXPECT_THAT(two.Answers(), ElementsAre("81 OK c0:0 c1:1"));
}

TEST_F(HubMoves, AnOrderGoesOnForThoseWhoHaveStayed) {
  one.Attach(4, 1, {Declared(kTablet, "bob", {})}, 0xe3);
  one.LoseLink(1);
  two.Ask(80, Disconnect("bob"));
  two.Attach(3, 2, {Declared(kLaptop, "bob", {})});
  EXPECT_EQ(one.hub().sizes().orders, 1u);
  one.Say(4, Closed(1, kTablet, "bob"));
  EXPECT_THAT(two.Answers(), ElementsAre(StartsWith("80 UNAVAILABLE")));
}

TEST_F(HubMoves, ItMayComeBack) {
  Move();
  two.LoseLink(3);
  one.Attach(5, 3, {Declared(kPhone, "alice", {"general"})});
  one.Ask(80, Rooms());
  EXPECT_THAT(one.Answers(), ElementsAre("80 OK c0:general=1; c1:general=1;"));
}

TEST_F(HubMoves, ALinkThatIsStillUpThereIsClosed) {
  two.Attach(3, 2, {Declared(kPhone, "alice", {"general"})});
  EXPECT_EQ(one.hub().sizes().links, 0u);
  EXPECT_EQ(one.hub().sizes().connections, 0u);
  EXPECT_EQ(one.hub().counters().links_superseded, 1u);
  one.Say(1, Joined(1, kPhone, "random"));
  EXPECT_EQ(one.hub().counters().late_events, 1u);
}

// The edge has given up an attempt at the first core for the second one; then what it sent there arrives all the same.
TEST_F(HubMoves, AStreamThatComesTooLateIsFoundOutByTheCoreThatHasTheShard) {
  Move();
  one.Attach(4, 1, {Declared(kPhone, "alice", {"general"})});
  EXPECT_EQ(one.hub().sizes().connections, 1u) << "it knows no better yet";
  cluster.Pass(milliseconds(100));
  EXPECT_EQ(one.hub().sizes().links, 0u);
  EXPECT_EQ(one.hub().sizes().connections, 0u);
  EXPECT_EQ(two.hub().sizes().connections, 3u);
}

TEST_F(HubMoves, ACoreThatWasAwayHearsOfItWhenItIsBack) {
  one.SetReachable(false);
  cluster.Settle();
  Move();
  EXPECT_EQ(one.hub().sizes().connections, 2u);
  one.SetReachable(true);
  cluster.Pass(milliseconds(200));
  EXPECT_EQ(one.hub().sizes().connections, 0u);
}

TEST_F(HubMoves, ACoreThatTookOneOverWhileItWasAwaySaysSoWhenItIsBack) {
  two.SetReachable(false);
  cluster.Settle();
  Move();
  EXPECT_EQ(one.hub().sizes().connections, 2u);
  two.SetReachable(true);
  cluster.Settle();
  EXPECT_EQ(one.hub().sizes().connections, 0u);
}

TEST_F(HubMoves, ACoreThatWasCutOffDoesNotBringBackWhoHasLeftMeanwhile) {
  one.SetReachable(false);
  cluster.Settle();
  one.Say(1, Opened(1, ConnectionOf(10), "carol"));
  cluster.Pass(seconds(1));
  one.LoseLink(1);
  two.Attach(3, 2, {Declared(kPhone, "alice"), Declared(kLaptop, "bob"), Declared(ConnectionOf(10), "carol")});
  two.Say(3, Closed(1, ConnectionOf(10), "carol"));
  two.Say(3, Closed(2, kLaptop, "bob"));
  cluster.Pass(seconds(20));
  EXPECT_THAT(two.Changes(), IsSupersetOf({"bob offline", "carol offline"}));
  one.SetReachable(true);
  cluster.Pass(seconds(10));
  EXPECT_THAT(two.Changes(), IsEmpty());
  EXPECT_EQ(one.hub().sizes().connections, 0u);
}

TEST_F(HubMoves, NobodySeemsToLeave) {
  ASSERT_TRUE(two.hub()
                  .OnTapOpened(cluster.now(), 1,
                               [] {
                                 link::v1::TapOrder order;
                                 order.set_user_id("bob");
                                 return order;
                               }())
                  .ok());
  cluster.Settle();
  one.LoseLink(1);
  two.OpenLink(3);
  two.Say(3, Hello(2));
  two.Say(3, Declared(kLaptop, "bob", {"general"}));
  two.Say(3, ResyncDone());
  cluster.Pass(seconds(10));
  EXPECT_THAT(two.Tapped(), ElementsAre("1 core-1 CONNECTED bob", "1 core-1 SUBSCRIBED bob general"))
      << "neither offline nor disconnected";
}

// ------------------------------------------------------------------------------------------------- what a core writes

link::v1::BusEnvelope TakenOver(uint64_t attach, uint64_t edge = kEdge, uint32_t shard = 0) {
  link::v1::BusEnvelope envelope;
  envelope.set_core(0xc1);
  envelope.mutable_shard_attached()->set_incarnation(edge);
  envelope.mutable_shard_attached()->set_shard(shard);
  envelope.mutable_shard_attached()->set_attach(attach);
  return envelope;
}

// Nor later, when EDGE_GRACE is over.
void ExpectNothingIsWritten(HubWorld& world) {
  world.Asked();
  world.Pass(seconds(10));
  world.ConfirmAll();
  EXPECT_THAT(world.Asked(), IsEmpty());
  EXPECT_TRUE(world.hub().Idle());
  EXPECT_EQ(world.hub().sizes().writes_in_flight, 0u);
  EXPECT_EQ(world.hub().sizes().removals, 0u);
}

TEST(HubTakenOver, WritesNothingOfConnectionsThatTheStoreHas) {
  HubWorld world;
  world.AttachConfirmed(1, 1, {Declared(kPhone, "alice"), Declared(kLaptop, "bob")});
  world.LoseLink(1);
  world.Bus(TakenOver(2));
  EXPECT_EQ(world.hub().sizes().connections, 0u);
  ExpectNothingIsWritten(world);
}

TEST(HubTakenOver, WritesNothingOfConnectionsThatTheStoreHasNotConfirmed) {
  HubOptions options = HubWorld::DefaultOptions();
  options.writes_in_flight_max = 1;
  for (const Outcome outcome : {Outcome::kApplied, Outcome::kFenced, Outcome::kUnavailable}) {
    HubWorld world(options);
    world.Attach(1, 1, {Declared(kPhone, "alice"), Declared(kLaptop, "bob")});
    world.Say(1, Opened(1, kTablet, "carol"));
    world.Bus(TakenOver(2));
    EXPECT_EQ(world.hub().sizes().writes_waiting, 0u);
    EXPECT_EQ(world.hub().sizes().removals, 1u) << "one of them is on its way to the store";
    world.Answer(outcome);
    ExpectNothingIsWritten(world);
  }
}

TEST(HubTakenOver, WritesNothingWhenTheStoreHasLostItsState) {
  for (const Outcome outcome : {Outcome::kApplied, Outcome::kUnavailable}) {
    HubWorld world;
    world.Attach(1, 1, {Declared(kPhone, "alice")});
    world.Bus(TakenOver(2));
    world.StoreUpWithoutItsState();
    world.Answer(outcome);
    ExpectNothingIsWritten(world);
  }
}

// Its place in the queues is void, and must not be taken for that of whoever has its row next.
TEST(HubTakenOver, LeavesNothingToWhoeverComesNext) {
  HubOptions options = HubWorld::DefaultOptions();
  options.writes_in_flight_max = 1;
  HubWorld world(options);
  world.Attach(1, 1, {Declared(kPhone, "alice"), Declared(kLaptop, "bob")});
  world.Say(1, Opened(1, kTablet, "carol"));
  world.Bus(TakenOver(2));
  world.Attach(2, 1, {Declared(kPhone, "dave"), Declared(kLaptop, "erin")}, 0xe2);
  world.Say(2, Opened(1, kTablet, "frank"));
  world.ConfirmAll();
  world.Asked();
  EXPECT_EQ(world.hub().sizes().connections, 3u);
  EXPECT_EQ(world.hub().sizes().writes_waiting, 0u);
  EXPECT_EQ(world.hub().sizes().writes_in_flight, 0u);
  world.Tick();
  EXPECT_EQ(world.Sent(2).back(), "ack 1");
}

// An end that a shard has told is true, whoever has the shard now.
TEST(HubTakenOver, RemovesThoseWhoHadLeftBefore) {
  HubWorld world;
  world.AttachConfirmed(1, 1, {Declared(kPhone, "alice"), Declared(kLaptop, "bob")});
  world.StoreDown();
  world.Say(1, Closed(1, kLaptop, "bob"));
  world.LoseLink(1);
  world.Asked();
  world.StoreUp();
  world.Bus(TakenOver(2));
  EXPECT_THAT(world.Asked(), Contains(StartsWith("remove e1/0/8.1 attach=1 bob")));
}

TEST(HubTakenOver, NotByAnOlderAttachNorByItsOwn) {
  HubWorld world;
  world.AttachConfirmed(1, 2, {Declared(kPhone, "alice")});
  EXPECT_THAT(world.ToldAttached(), ElementsAre("e1/0@2"));
  world.Bus(TakenOver(2));
  world.Bus(TakenOver(3, 0xe2));
  world.Bus(TakenOver(3, kEdge, 1));
  link::v1::BusEnvelope own = TakenOver(3);
  own.set_core(kCore);
  world.Bus(own);
  EXPECT_EQ(world.hub().sizes().connections, 1u);
  world.Pass(seconds(1));
  EXPECT_THAT(world.ToldAttached(), IsEmpty()) << "once is enough";
  world.Bus(TakenOver(1));
  EXPECT_EQ(world.hub().sizes().connections, 1u);
  world.Tick();
  EXPECT_THAT(world.ToldAttached(), ElementsAre("e1/0@2")) << "that core does not know";
}

TEST(HubTakenOver, IsSaidWhenTheResyncIsDoneAndToWhoeverComes) {
  HubWorld world;
  world.OpenLink(1);
  world.Say(1, Hello(4));
  world.Tick();
  EXPECT_THAT(world.ToldAttached(), IsEmpty());
  world.Say(1, ResyncDone());
  EXPECT_THAT(world.ToldAttached(), ElementsAre("e1/0@4"));
  link::v1::BusEnvelope greeting;
  for (const uint64_t core : {0xc1, 0xc2, 0xc3}) {
    greeting.set_core(core);
    world.Bus(greeting);
  }
  EXPECT_THAT(world.ToldAttached(), IsEmpty());
  world.Tick();
  EXPECT_THAT(world.ToldAttached(), ElementsAre("e1/0@4")) << "once for all who have come";
  world.StoreDown();
  world.LoseLink(1);
  world.StoreUp();
  EXPECT_THAT(world.ToldAttached(), IsEmpty()) << "it is not here now";
}

}  // namespace
}  // namespace presence::core
