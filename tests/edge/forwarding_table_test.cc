#include "edge/forwarding_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

namespace presence::edge {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

TEST(ForwardingTableTest, BindingTwiceIsBindingOnce) {
  ForwardingTable table;
  EXPECT_TRUE(table.Bind(7, "a", 1));
  EXPECT_TRUE(table.Bind(7, "a", 1));
  EXPECT_THAT(table.MembersOf(1), ElementsAre(7));
  EXPECT_EQ(table.RoomsOf(7), 1u);
}

TEST(ForwardingTableTest, ARoomTakesANewHandleAndTheOldOneMeansNothing) {
  ForwardingTable table;
  EXPECT_TRUE(table.Bind(1, "a", 1));
  EXPECT_TRUE(table.Bind(2, "a", 5));
  EXPECT_THAT(table.MembersOf(1), IsEmpty());
  EXPECT_THAT(table.MembersOf(5), UnorderedElementsAre(1, 2));
  EXPECT_TRUE(table.Bind(2, "b", 1));
}

TEST(ForwardingTableTest, TheHandleOfAnEmptyRoomIsFreeEvenWhileTheRoomIsHeld) {
  ForwardingTable table;
  const RoomIndex held = table.Hold("a");
  table.Bind(1, "a", 1);
  table.RemoveSlot(1);
  EXPECT_TRUE(table.Bind(2, "b", 1));
  EXPECT_EQ(table.IdOf(held), "a");
  table.Release(held);
  EXPECT_EQ(table.rooms_with_members(), 1u);
}

TEST(ForwardingTableTest, ARoomIdMayBeUsedAgainAfterItWasForgotten) {
  ForwardingTable table;
  for (int i = 0; i < 3; ++i) {
    EXPECT_TRUE(table.Bind(1, "a", 3));
    EXPECT_TRUE(table.Unbind(1, "a"));
    EXPECT_FALSE(table.Unbind(1, "a"));
    EXPECT_EQ(table.rooms_with_members(), 0u);
  }
}

TEST(ForwardingTableTest, TheWordOfEachMemberStaysWithItWhateverMovesAroundIt) {
  ForwardingTable table;
  const RoomIndex a = table.Hold("a"), b = table.Hold("b");
  EXPECT_EQ(table.KindOf(1, a), link::v1::ROOM_KIND_UNSPECIFIED);
  for (const uint32_t slot : {1u, 2u, 3u}) {
    table.Bind(slot, "a", 1);
    table.Bind(slot, "b", 2);
  }
  table.Name(2, b, link::v1::ROOM_KIND_DM);
  table.Name(3, a, link::v1::ROOM_KIND_DM);
  table.Name(9, a, link::v1::ROOM_KIND_DM);  // not in there: nobody's word
  table.Unbind(1, "a");                      // member 3 moves in "a"
  table.Unbind(2, "a");                      // seat "b" of 2 moves
  table.Bind(3, "a", 5);                     // a new handle
  EXPECT_EQ(table.KindOf(1, b), link::v1::ROOM_KIND_CHANNEL);
  EXPECT_EQ(table.KindOf(2, b), link::v1::ROOM_KIND_DM);
  EXPECT_EQ(table.KindOf(3, a), link::v1::ROOM_KIND_DM);
  EXPECT_EQ(table.KindOf(3, b), link::v1::ROOM_KIND_CHANNEL);
  EXPECT_EQ(table.KindOf(2, a), link::v1::ROOM_KIND_UNSPECIFIED);
  // Who comes back has said nothing yet.
  table.Unbind(3, "a");
  table.Bind(3, "a", 1);
  EXPECT_EQ(table.KindOf(3, a), link::v1::ROOM_KIND_CHANNEL);
}

// Against the plainest model: sets.
TEST(ForwardingTableTest, AgreesWithSetsOverRandomSteps) {
  for (uint32_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    ForwardingTable table;
    std::map<int, std::set<uint32_t>> model;  // room → slots; the handle of room n is n + 1
    for (int step = 0; step < 3000; ++step) {
      const uint32_t slot = static_cast<uint32_t>(random() % 12);
      const int room = static_cast<int>(random() % 9);
      const std::string id = "room" + std::to_string(room);
      switch (random() % 8) {
        case 0: {
          table.RemoveSlot(slot);
          for (auto& [unused, slots] : model) slots.erase(slot);
          break;
        }
        case 1:
        case 2:
        case 3: {
          EXPECT_EQ(table.Unbind(slot, id), model[room].erase(slot) == 1);
          break;
        }
        default: {
          EXPECT_TRUE(table.Bind(slot, id, static_cast<uint32_t>(room) + 1));
          model[room].insert(slot);
        }
      }
      size_t rooms = 0;
      for (int i = 0; i < 9; ++i) {
        const absl::Span<const uint32_t> members = table.MembersOf(static_cast<uint32_t>(i) + 1);
        ASSERT_EQ(std::set<uint32_t>(members.begin(), members.end()), model[i]);
        ASSERT_EQ(members.size(), model[i].size());
        rooms += model[i].empty() ? 0 : 1;
      }
      ASSERT_EQ(table.rooms_with_members(), rooms);
      std::set<std::string> seen;
      table.VisitRoomsOf(slot, [&seen](std::string_view room_id) { seen.emplace(room_id); });
      for (int i = 0; i < 9; ++i) {
        ASSERT_EQ(seen.count("room" + std::to_string(i)), model[i].count(slot));
        ASSERT_EQ(table.Contains(slot, "room" + std::to_string(i)), model[i].count(slot) == 1);
      }
    }
  }
}

}  // namespace
}  // namespace presence::edge
