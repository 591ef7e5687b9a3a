// What was ordered of connections and is not carried out yet.
#include "core/orders.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace presence::core {
namespace {

using std::chrono::milliseconds;
using testing::ElementsAre;
using Kind = OrderCommand::Kind;

const ConnectionKey kPhone{0xe1, 7}, kLaptop{0xe1, 8}, kTablet{0xe2, 7};

struct OrdersTest : testing::Test {
  Orders orders{4};
  const SteadyTime deadline{std::chrono::hours(1)};

  void Order(uint64_t id, Kind kind, std::vector<ConnectionKey> targets, std::string room = "") {
    OrderCommand command;
    command.kind = kind;
    command.text = std::move(room);
    command.status = link::v1::STATUS_AWAY;
    orders.Add({1, id}, command, deadline, targets);
  }
  // "7 2": order 7 was carried out by two; "7 1 late".
  std::vector<std::string> Finished() {
    std::vector<std::string> finished;
    while (const std::optional<OrderResult> result = orders.TakeFinished()) {
      finished.push_back(std::to_string(result->origin.id) + " " + std::to_string(result->count) +
                         (result->complete ? "" : " late"));
    }
    return finished;
  }
  std::vector<Kind> Pending(const ConnectionKey& key) const {
    std::vector<Kind> pending;
    orders.ForEachOf(key, [&](const OrderCommand& command) { pending.push_back(command.kind); });
    return pending;
  }
};

TEST_F(OrdersTest, OneThatConcernsNobodyIsDoneAtOnce) {
  Order(7, Kind::kClose, {});
  EXPECT_THAT(Finished(), ElementsAre("7 0"));
}

TEST_F(OrdersTest, ItIsDoneWhenAllHaveCarriedItOut) {
  Order(7, Kind::kClose, {kPhone, kLaptop});
  orders.Gone(kPhone);
  orders.Gone(kPhone);
  orders.Gone(kTablet);
  EXPECT_THAT(Finished(), ElementsAre());
  orders.Gone(kLaptop);
  EXPECT_THAT(Finished(), ElementsAre("7 2"));
  EXPECT_EQ(orders.size(), 0u);
}

TEST_F(OrdersTest, ALeaveIsOfItsRoomAlone) {
  Order(7, Kind::kLeave, {kPhone}, "general");
  orders.Left(kPhone, "random");
  orders.HasStatus(kPhone, link::v1::STATUS_AWAY);
  EXPECT_THAT(Finished(), ElementsAre());
  orders.Left(kPhone, "general");
  EXPECT_THAT(Finished(), ElementsAre("7 1"));
}

TEST_F(OrdersTest, AConnectionThatIsGoneHasLeftItsRoomsButHasNoStatus) {
  Order(7, Kind::kLeave, {kPhone}, "general");
  Order(8, Kind::kStatus, {kPhone, kLaptop});
  orders.Gone(kPhone);
  EXPECT_THAT(Finished(), ElementsAre("7 1"));
  orders.HasStatus(kLaptop, link::v1::STATUS_ONLINE);
  EXPECT_THAT(Finished(), ElementsAre()) << "another status";
  orders.HasStatus(kLaptop, link::v1::STATUS_AWAY);
  EXPECT_THAT(Finished(), ElementsAre("8 1"));
}

TEST_F(OrdersTest, TwoOrdersOfOneThingAreBothDoneByOneEvent) {
  Order(7, Kind::kLeave, {kPhone}, "general");
  Order(8, Kind::kLeave, {kPhone}, "general");
  orders.Left(kPhone, "general");
  EXPECT_THAT(Finished(), ElementsAre("7 1", "8 1"));
}

TEST_F(OrdersTest, WhatIsPendingIsToldAgainOldestFirst) {
  Order(7, Kind::kLeave, {kPhone}, "general");
  Order(8, Kind::kStatus, {kPhone, kTablet});
  Order(9, Kind::kClose, {kPhone});
  EXPECT_THAT(Pending(kPhone), ElementsAre(Kind::kLeave, Kind::kStatus, Kind::kClose));
  EXPECT_THAT(Pending(kTablet), ElementsAre(Kind::kStatus));
  EXPECT_THAT(Pending(kLaptop), ElementsAre());
}

TEST_F(OrdersTest, TimeEndsItWithWhatWasDone) {
  Order(7, Kind::kClose, {kPhone, kLaptop});
  orders.Gone(kPhone);
  orders.OnTick(deadline - milliseconds(1));
  EXPECT_THAT(Finished(), ElementsAre());
  orders.OnTick(deadline);
  EXPECT_THAT(Finished(), ElementsAre("7 1 late"));
  EXPECT_EQ(orders.size(), 0u);
  EXPECT_THAT(Pending(kLaptop), ElementsAre());
  orders.Gone(kLaptop);
  EXPECT_THAT(Finished(), ElementsAre());
}

TEST_F(OrdersTest, TheyAreBoundedByTheirTargets) {
  Order(7, Kind::kClose, {kPhone, kLaptop, kTablet});
  EXPECT_TRUE(orders.HasRoomFor(1));
  EXPECT_FALSE(orders.HasRoomFor(2));
  orders.Gone(kPhone);
  EXPECT_TRUE(orders.HasRoomFor(2));
}

}  // namespace
}  // namespace presence::core
