#include "core/connection_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

namespace presence::core {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::UnorderedElementsAre;

uint64_t Id(uint32_t shard, uint32_t slot, uint32_t generation = 1) {
  return ConnectionId{shard, slot, generation}.Pack();
}

google::protobuf::RepeatedPtrField<std::string> Ids(const std::vector<std::string>& ids) {
  return {ids.begin(), ids.end()};
}

class ConnectionTableTest : public testing::Test {
 protected:
  ConnectionIndex Open(uint32_t slot, std::string_view user) { return table_.Open(shard_, Id(0, slot), user, "name"); }
  std::vector<std::string> RoomsOf(ConnectionIndex connection) {
    std::vector<std::string> ids;
    for (const Membership& membership : table_[connection].rooms) ids.push_back(rooms_.id(membership.room));
    return ids;
  }
  std::vector<ConnectionIndex> MembersOf(std::string_view room_id) {
    const auto room = rooms_.Find(room_id);
    if (!room) return {};
    return {rooms_.members(*room).begin(), rooms_.members(*room).end()};
  }
  // Each connection is where its memberships say, and the rooms hold nobody else.
  void ExpectBothSidesAgree() {
    size_t memberships = 0;
    for (uint32_t i = 0; i < table_.records().end(); ++i) {
      const ConnectionIndex index(i);
      if (!table_.records().used(index)) continue;
      for (const Membership& membership : table_[index].rooms) {
        ASSERT_LT(membership.position, rooms_.members(membership.room).size());
        ASSERT_EQ(rooms_.members(membership.room)[membership.position], index);
        ++memberships;
      }
    }
    size_t members = 0, members_by_shard = 0;
    rooms_.VisitBehind("", [&](RoomIndex room) {
      members += rooms_.members(room).size();
      for (const RoomShard& entry : rooms_.shards(room)) members_by_shard += entry.members;
      return true;
    });
    EXPECT_EQ(members, memberships);
    EXPECT_EQ(members_by_shard, memberships);
    EXPECT_EQ(rooms_.memberships(), memberships);
  }

  RoomTable rooms_;
  ConnectionTable table_{rooms_};
  Shard& shard_ = table_.AddShard({7, 0});
};

TEST_F(ConnectionTableTest, JoiningAndLeavingMovesOthersAlong) {
  const ConnectionIndex ann = Open(0, "ann"), bea = Open(1, "bea"), cleo = Open(2, "cleo");
  for (const ConnectionIndex one : {ann, bea, cleo}) table_.Join(one, "r");
  table_.Join(cleo, "q");
  EXPECT_TRUE(table_.Leave(ann, "r"));
  EXPECT_THAT(MembersOf("r"), UnorderedElementsAre(bea, cleo));
  ExpectBothSidesAgree();
  EXPECT_TRUE(table_.Leave(cleo, "r")) << "from the place that it was moved to";
  EXPECT_THAT(MembersOf("r"), ElementsAre(bea));
  EXPECT_THAT(RoomsOf(cleo), ElementsAre("q"));
  EXPECT_FALSE(table_.Leave(cleo, "r")) << "already left";
  EXPECT_FALSE(table_.Leave(cleo, "unknown"));
  EXPECT_TRUE(table_.InRoom(bea, "r"));
  EXPECT_FALSE(table_.InRoom(ann, "r"));
  ExpectBothSidesAgree();
}

TEST_F(ConnectionTableTest, AClosedConnectionIsNoMember) {
  const ConnectionIndex ann = Open(0, "ann"), bea = Open(1, "bea");
  for (const char* room : {"a", "b", "c", "d", "e"}) {
    table_.Join(ann, room);
    table_.Join(bea, room);
  }
  table_.Close(ann);
  EXPECT_THAT(MembersOf("a"), ElementsAre(bea));
  EXPECT_THAT(RoomsOf(ann), IsEmpty());
  ExpectBothSidesAgree();
  table_.Close(bea);
  EXPECT_EQ(rooms_.size(), 0u);
  ExpectBothSidesAgree();
}

TEST_F(ConnectionTableTest, ADeclarationReplacesTheRooms) {
  const ConnectionIndex ann = Open(0, "ann"), bea = Open(1, "bea");
  for (const char* room : {"a", "b", "c"}) table_.Join(ann, room);
  table_.Join(bea, "a");
  table_.SetRooms(ann, Ids({"c", "d", "c", "a", "d"}));
  EXPECT_THAT(RoomsOf(ann), ElementsAre("c", "d", "a")) << "in the order of the declaration, each once";
  EXPECT_THAT(MembersOf("b"), IsEmpty());
  EXPECT_THAT(MembersOf("a"), UnorderedElementsAre(ann, bea));
  ExpectBothSidesAgree();
  table_.SetRooms(ann, Ids({}));
  EXPECT_THAT(RoomsOf(ann), IsEmpty());
  EXPECT_THAT(MembersOf("a"), ElementsAre(bea));
  ExpectBothSidesAgree();
}

TEST_F(ConnectionTableTest, ARoomThatIsDeclaredAgainHasNotChanged) {
  const ConnectionIndex ann = Open(0, "ann");
  const RoomIndex room = table_.Join(ann, "r");
  table_.Join(ann, "q");
  const uint64_t before = rooms_.state(room);
  table_.SetRooms(ann, Ids({"new", "r"}));
  EXPECT_EQ(rooms_.Find("r"), room);
  EXPECT_EQ(rooms_.state(room), before);
}

// Random joins, leaves, declarations and ends on three shards, against sets of names. A failure names its seed.
TEST(ConnectionTableAtRandom, IsWhatSetsOfNamesAre) {
  constexpr uint32_t kSlots = 40, kShards = 3;
  for (uint32_t seed = 1; seed <= 40; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937 random(seed);
    const auto below = [&random](uint32_t end) { return static_cast<uint32_t>(random() % end); };
    RoomTable rooms;
    ConnectionTable table(rooms);
    for (uint32_t shard = 0; shard < kShards; ++shard) table.AddShard({7, shard});
    std::map<uint64_t, std::set<std::string>> model;  // rooms by connection id
    uint32_t generation = 0;
    const auto room_id = [&] { return std::string("r") + std::to_string(below(seed % 2 == 0 ? 3 : 30)); };

    for (int step = 0; step < 1'500; ++step) {
      Shard& shard = *table.FindShard({7, below(kShards)});
      const uint32_t slot = below(kSlots);
      const ConnectionIndex index = shard.InSlot(slot);
      if (index == kNoConnection) {
        const uint64_t id = Id(shard.key.shard, slot, ++generation);
        table.Open(shard, id, "u" + std::to_string(below(20)), "");
        model[id];
        continue;
      }
      std::set<std::string>& expected = model[table[index].id];
      const std::string room = room_id();
      switch (below(8)) {
        case 0:
          model.erase(table[index].id);
          table.Close(index);
          table.Forget(index);
          break;
        case 1: {
          std::vector<std::string> declared;
          for (uint32_t i = below(6); i > 0; --i) declared.push_back(room_id());
          table.SetRooms(index, Ids(declared));
          expected = {declared.begin(), declared.end()};
          break;
        }
        case 2:
        case 3:
          ASSERT_EQ(table.Leave(index, room), expected.erase(room) == 1);
          break;
        default:
          ASSERT_EQ(table.InRoom(index, room), expected.contains(room));
          if (expected.insert(room).second) table.Join(index, room);
      }
    }

    std::map<std::string, std::multiset<uint64_t>> members, expected_members;
    for (const auto& [id, room_ids] : model) {
      for (const std::string& id_of_room : room_ids) expected_members[id_of_room].insert(id);
    }
    rooms.VisitBehind("", [&](RoomIndex room) {
      for (const ConnectionIndex member : rooms.members(room)) members[rooms.id(room)].insert(table[member].id);
      return true;
    });
    ASSERT_EQ(members, expected_members);
    for (const auto& [id, room_ids] : model) {
      const ConnectionId parts = ConnectionId::Unpack(id);
      const ConnectionIndex index = table.FindShard({7, parts.shard})->Find(id, table.records());
      ASSERT_NE(index, kNoConnection);
      ASSERT_EQ(table[index].rooms.size(), room_ids.size());
      for (const Membership& membership : table[index].rooms) {
        ASSERT_TRUE(room_ids.contains(rooms.id(membership.room)));
        ASSERT_EQ(rooms.members(membership.room)[membership.position], index);
      }
    }
  }
}

}  // namespace
}  // namespace presence::core
