// Taps over two cores: an operator at one of them sees what happens on both.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/hub.h"
#include "tests/fakes/hub_cluster.h"
#include "tests/fakes/hub_world.h"

namespace presence::core {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::Contains;
using testing::ElementsAre;
using testing::IsEmpty;

const uint64_t kPhone = ConnectionOf(7), kLaptop = ConnectionOf(8);

link::v1::TapOrder OfUser(std::string_view user) {
  link::v1::TapOrder order;
  order.set_user_id(std::string(user));
  return order;
}
link::v1::TapOrder OfRoom(std::string_view room) {
  link::v1::TapOrder order;
  order.set_room_id(std::string(room));
  return order;
}

struct HubTaps : testing::Test {
  HubCluster cluster{2};
  HubCluster::Node &one = cluster[0], &two = cluster[1];
  HubTaps() {
    one.Attach(1, 1, {Declared(kLaptop, "bob", {"general"})});
    two.Attach(2, 1, {}, 0xe2);
  }
  void Open(HubCluster::Node& node, uint64_t tap, const link::v1::TapOrder& order) {
    ASSERT_TRUE(node.hub().OnTapOpened(cluster.now(), tap, order).ok());
    cluster.Settle();
  }
};

TEST_F(HubTaps, TheLifeOfAConnectionOnAnotherCore) {
  Open(one, 1, OfUser("alice"));
  two.Say(2, Opened(1, kPhone, "alice"));
  two.Say(2, Joined(2, kPhone, "general"));
  two.Say(2, StatusSet(3, kPhone, link::v1::STATUS_AWAY));
  two.Say(2, Typing(kPhone, "general"));
  two.Say(2, Left(4, kPhone, "general"));
  two.Say(2, Joined(5, kPhone, "random"));
  two.Say(2, Closed(6, kPhone, "alice"));
  const HubCluster::Lines lines = one.Tapped();
  // Its connection is known to its core; presence and typing to all: then the core that was asked tells of them, and it alone.
  HubCluster::Lines of_one, of_two;
  for (const std::string& line : lines) (line.starts_with("1 core-0") ? of_one : of_two).push_back(line);
  EXPECT_THAT(of_two,
              ElementsAre("1 core-1 CONNECTED alice", "1 core-1 SUBSCRIBED alice general", "1 core-1 STATUS alice away",
                          "1 core-1 UNSUBSCRIBED alice general", "1 core-1 SUBSCRIBED alice random",
                          "1 core-1 UNSUBSCRIBED alice random", "1 core-1 DISCONNECTED alice"));
  EXPECT_THAT(of_one, ElementsAre("1 core-0 PRESENCE alice online", "1 core-0 PRESENCE alice away",
                                  "1 core-0 TYPING alice general", "1 core-0 PRESENCE alice offline"));
  EXPECT_THAT(two.Tapped(), IsEmpty());
}

TEST_F(HubTaps, ARoomShowsItsMessagesAndOrders) {
  Open(two, 4, OfRoom("general"));
  one.Request(70, {.room_id = "general", .user_id = {}, .data_json = "1"});
  one.Request(71, {.room_id = "random", .user_id = {}, .data_json = "2"});
  link::v1::ClusterRequest order;
  order.mutable_unsubscribe()->set_user_id("bob");
  order.mutable_unsubscribe()->set_room_id("general");
  one.Ask(80, order);
  EXPECT_THAT(two.Tapped(), testing::UnorderedElementsAre(R"(4 core-1 MESSAGE general {"type":"message","data":1})",
                                                          "4 core-0 ORDER bob general unsubscribe"));
}

TEST_F(HubTaps, LastsWhileItIsRenewedAndEndsWhenItIsClosed) {
  Open(one, 1, OfUser("alice"));
  cluster.Pass(seconds(20));
  EXPECT_EQ(two.hub().sizes().taps, 1u);
  two.Say(2, Opened(1, kPhone, "alice"));
  EXPECT_THAT(one.Tapped(), Contains("1 core-1 CONNECTED alice"));
  one.hub().OnTapClosed(cluster.now(), 1);
  cluster.Settle();
  EXPECT_EQ(two.hub().sizes().taps, 0u);
  EXPECT_EQ(one.hub().sizes().taps, 0u);
  one.hub().OnTapClosed(cluster.now(), 1);
}

TEST_F(HubTaps, EndsWithTheCoreThatWantedIt) {
  Open(one, 1, OfUser("alice"));
  one.Crash();
  cluster.Pass(seconds(6));
  EXPECT_EQ(two.hub().sizes().taps, 0u);
}

TEST_F(HubTaps, WithoutAStoreItShowsThisCoreAndThenBothAgain) {
  one.SetReachable(false);
  cluster.Settle();
  Open(one, 1, OfUser("alice"));
  one.Say(1, Opened(1, kPhone, "alice"));
  EXPECT_THAT(one.Tapped(), Contains("1 core-0 CONNECTED alice"));
  one.SetReachable(true);
  cluster.Pass(milliseconds(200));
  two.Say(2, Opened(1, kPhone, "alice"));
  EXPECT_THAT(one.Tapped(), Contains("1 core-1 CONNECTED alice"));
}

TEST_F(HubTaps, AreBounded) {
  for (uint64_t tap = 1; tap <= 64; ++tap) Open(one, tap, OfUser("alice"));
  EXPECT_TRUE(absl::IsResourceExhausted(one.hub().OnTapOpened(cluster.now(), 65, OfUser("alice"))));
  EXPECT_EQ(two.hub().sizes().taps, 64u);
  one.hub().OnTapClosed(cluster.now(), 7);
  Open(one, 66, OfUser("alice"));
}

TEST_F(HubTaps, EventsAreCountedAndNeverTakenForAnswers) {
  Open(one, 1, OfUser("alice"));
  one.Ask(80, link::v1::ClusterRequest());
  one.Answers();
  two.Say(2, Opened(1, kPhone, "alice"));
  EXPECT_GE(two.hub().counters().tap_events, 1u);
  EXPECT_EQ(one.hub().counters().cluster_replies_late, 0u);
}

}  // namespace
}  // namespace presence::core
