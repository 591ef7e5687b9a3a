#include "core/room_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace presence::core {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::UnorderedElementsAre;

constexpr ShardIndex kShard{0}, kOtherShard{1};
constexpr ConnectionIndex kAnn{10}, kBea{20}, kCleo{30};

std::vector<std::string> Behind(const RoomTable& table, std::string_view after, size_t limit = SIZE_MAX) {
  std::vector<std::string> ids;
  table.VisitBehind(after, [&](RoomIndex room) {
    ids.push_back(table.id(room));
    return ids.size() < limit;
  });
  return ids;
}

TEST(RoomTable, TheLastMemberTakesTheRoomWithIt) {
  RoomTable table;
  const Membership ann = table.AddMember("r", kShard, kAnn);
  const Membership bea = table.AddMember("r", kOtherShard, kBea);
  EXPECT_EQ(table.size(), 1u);
  EXPECT_EQ(table.memberships(), 2u);
  table.RemoveMember(bea, kOtherShard);
  EXPECT_THAT(table.members(ann.room), ElementsAre(kAnn));
  table.RemoveMember(ann, kShard);
  EXPECT_FALSE(table.Find("r").has_value());
  EXPECT_EQ(table.size(), 0u);
  EXPECT_EQ(table.memberships(), 0u);
  EXPECT_THAT(Behind(table, ""), IsEmpty());
}

TEST(RoomTable, TheLastOneFillsTheGapAndIsNamed) {
  RoomTable table;
  const Membership ann = table.AddMember("r", kShard, kAnn);
  table.AddMember("r", kShard, kBea);
  const Membership cleo = table.AddMember("r", kOtherShard, kCleo);
  EXPECT_EQ(table.RemoveMember(ann, kShard), kCleo);
  EXPECT_THAT(table.members(ann.room), ElementsAre(kCleo, kBea));
  EXPECT_EQ(table.RemoveMember({cleo.room, 1}, kShard), kNoConnection) << "Bea was the last one: nobody moves";
  EXPECT_THAT(table.members(ann.room), ElementsAre(kCleo));
}

TEST(RoomTable, NoTwoStatesAreTheSame) {
  RoomTable table;
  std::set<uint64_t> seen{0};
  const auto is_new = [&](RoomIndex room) { return seen.insert(table.state(room)).second; };
  const Membership ann = table.AddMember("r", kShard, kAnn);
  EXPECT_TRUE(is_new(ann.room));
  const Membership bea = table.AddMember("r", kShard, kBea);
  EXPECT_TRUE(is_new(ann.room));
  table.RemoveMember(bea, kShard);
  EXPECT_TRUE(is_new(ann.room)) << "the members are those of before, but who asked in between does not know";
  const uint64_t before = table.state(ann.room);
  EXPECT_TRUE(is_new(table.AddMember("another", kShard, kAnn).room));
  EXPECT_EQ(table.state(ann.room), before) << "another room's change is not this one's";
  table.RemoveMember(ann, kShard);
  EXPECT_TRUE(is_new(table.AddMember("r", kShard, kAnn).room)) << "the room that is made again is not the old one";
}

TEST(RoomTable, ListsRoomsInByteOrderBehindACursor) {
  RoomTable table;
  const std::string high = "\xF0\x9F\x98\x80", umlaut = "\xC3\xA4", control = "a\x01";
  for (const std::string& id :
       {std::string("b"), high, std::string("a"), umlaut, std::string("Z"), control, std::string("aa")}) {
    table.AddMember(id, kShard, kAnn);
  }
  EXPECT_THAT(Behind(table, ""), ElementsAre("Z", "a", control, "aa", "b", umlaut, high));
  EXPECT_THAT(Behind(table, "a"), ElementsAre(control, "aa", "b", umlaut, high)) << "behind itself";
  EXPECT_THAT(Behind(table, "ab"), ElementsAre("b", umlaut, high)) << "behind one that is not there";
  EXPECT_THAT(Behind(table, "", 2), ElementsAre("Z", "a")) << "until it is told to stop";
  EXPECT_THAT(Behind(table, high), IsEmpty());
}

TEST(RoomTable, TheOrderOutlivesTheRowsBehindIt) {
  RoomTable table;
  std::vector<Membership> old;
  for (int i = 0; i < 1'000; ++i) old.push_back(table.AddMember("old" + std::to_string(i), kShard, kAnn));
  for (const Membership& membership : old) table.RemoveMember(membership, kShard);
  std::set<std::string> expected;
  for (int i = 0; i < 1'000; ++i) {  // into the same rows, in another order
    const std::string id = "new" + std::to_string(i * 7919 % 1'000);
    table.AddMember(id, kShard, kAnn);
    expected.insert(id);
  }
  EXPECT_EQ(Behind(table, ""), std::vector<std::string>(expected.begin(), expected.end()));
}

TEST(RoomTable, AHandleIsOfOneShardAndFreeWhenItsLastMemberLeaves) {
  RoomTable table;
  const Membership ann = table.AddMember("r", kShard, kAnn);
  const Membership bea = table.AddMember("r", kOtherShard, kBea);
  const uint32_t handle = table.HandleOf(ann.room, kShard);
  EXPECT_NE(handle, 0u);
  EXPECT_EQ(table.HandleOf(ann.room, kShard), handle);
  EXPECT_EQ(table.shards(ann.room)[1].handle, 0u) << "nobody is bound in the other shard";
  ASSERT_EQ(table.RemoveMember(ann, kShard), kBea);
  EXPECT_EQ(table.shards(ann.room).size(), 1u);
  const Membership elsewhere = table.AddMember("q", kShard, kAnn);
  EXPECT_EQ(table.HandleOf(elsewhere.room, kShard), handle) << "used again";
  table.ForgetHandles(kShard);
  EXPECT_EQ(table.shards(elsewhere.room)[0].handle, 0u);
  table.RemoveMember({bea.room, 0}, kOtherShard);
}

TEST(RoomTable, ALargeRoomGivesItsMemoryBack) {
  RoomTable table;
  std::vector<Membership> all;
  for (uint32_t i = 0; i < 10'000; ++i) all.push_back(table.AddMember("r", kShard, ConnectionIndex(i)));
  while (all.size() > 3) {
    ASSERT_EQ(table.RemoveMember(all.back(), kShard), kNoConnection);
    all.pop_back();
  }
  EXPECT_THAT(table.members(all[0].room),
              UnorderedElementsAre(ConnectionIndex(0), ConnectionIndex(1), ConnectionIndex(2)));
}

}  // namespace
}  // namespace presence::core
