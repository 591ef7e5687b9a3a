// Several cores' answers as one page.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "core/cluster_queries.h"
#include "tests/core/answering_core.h"

namespace presence::core {
namespace {

using link::v1::ClusterReply;
using std::chrono::milliseconds;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

TEST(MergeRooms, ARoomOnThreeCoresIsOneRoom) {
  AnsweringCore a(1), b(2), c(3), empty(4);
  a.Open("ann", {"a", "r"});
  b.Open("ann", {"r", "z"});
  b.Open("bea", {"r"});
  c.Open("cleo", {"b", "r"});
  const RoomsPage page = MergeRooms({a.Rooms("", 10), empty.Rooms("", 10), b.Rooms("", 10), c.Rooms("", 10)}, 10);
  EXPECT_THAT(Lines(page.rooms), ElementsAre("a:1", "b:1", "r:4", "z:1"));
  EXPECT_FALSE(page.more);
}

// The naive merge takes the lowest three of what it was told: a, b and y. Then c, which the first core did not get to, is never told.
TEST(MergeRooms, NothingIsToldBehindTheEndOfACutAnswer) {
  ClusterReply cut, complete;
  for (const char* id : {"a", "b"}) cut.mutable_rooms()->add_rooms()->set_room_id(id);
  cut.mutable_rooms()->set_more(true);
  for (const char* id : {"b", "y"}) {
    link::v1::RoomCount& room = *complete.mutable_rooms()->add_rooms();
    room.set_room_id(id);
    room.set_connections(5);
  }
  RoomsPage page = MergeRooms({cut, complete}, 3);
  EXPECT_THAT(Lines(page.rooms), ElementsAre("a:0", "b:5")) << "the last key of a cut answer is whole";
  EXPECT_TRUE(page.more);
  page = MergeRooms({complete, cut}, 1);
  EXPECT_THAT(Lines(page.rooms), ElementsAre("a:0"));
  EXPECT_TRUE(page.more);
  // Alone, with nothing else behind it: more follows all the same.
  page = MergeRooms({cut}, 2);
  EXPECT_THAT(Lines(page.rooms), SizeIs(2));
  EXPECT_TRUE(page.more);
}

TEST(MergeRooms, TheFirstEndOfSeveralCounts) {
  ClusterReply early, late;
  for (const char* id : {"m", "n"}) late.mutable_rooms()->add_rooms()->set_room_id(id);
  late.mutable_rooms()->set_more(true);
  for (const char* id : {"c", "d"}) early.mutable_rooms()->add_rooms()->set_room_id(id);
  early.mutable_rooms()->set_more(true);
  const RoomsPage page = MergeRooms({late, early}, 10);
  EXPECT_THAT(Lines(page.rooms), ElementsAre("c:0", "d:0"));
  EXPECT_TRUE(page.more);
}

TEST(MergeRooms, AnErrorIsNoRoom) {
  ClusterReply broken, other;
  broken.set_code(12);
  broken.mutable_rooms()->add_rooms()->set_room_id("half an answer");
  other.mutable_count()->set_count(7);
  const RoomsPage page = MergeRooms({broken, other}, 10);
  EXPECT_THAT(page.rooms, IsEmpty());
  EXPECT_FALSE(page.more);
  EXPECT_FALSE(MergeRooms({}, 10).more);
}

TEST(MergeMembers, AUserOnTwoCoresIsOneMember) {
  AnsweringCore a(1), b(2), elsewhere(3);
  a.Open("ann", {"r"});
  a.Open("cleo", {"r"});
  b.Open("ann", {"r"});
  b.Open("ann", {"r"});
  b.Open("bea", {"r"});
  elsewhere.Open("ann", {"q"});
  ClusterReply nameless = b.Members("r", "", 10);
  for (link::v1::MemberCount& member : *nameless.mutable_members()->mutable_members()) member.clear_username();
  MembersPage page = MergeMembers({nameless, a.Members("r", "", 10), elsewhere.Members("r", "", 10)}, 10);
  EXPECT_EQ(page.connections, 5u);
  EXPECT_THAT(Lines(page.members), ElementsAre("ann:3", "bea:1", "cleo:1"));
  EXPECT_EQ(page.members[0].username(), "name of ann") << "from whoever knows it";
  EXPECT_FALSE(page.more);
  page = MergeMembers({a.Members("r", "", 2), b.Members("r", "", 2)}, 2);
  EXPECT_THAT(Lines(page.members), ElementsAre("ann:3", "bea:1"));
  EXPECT_EQ(page.connections, 5u);
  EXPECT_TRUE(page.more);
}

TEST(MergeConnections, AConnectionThatMovedIsToldByItsNewCore) {
  AnsweringCore before(1), after(2);
  Shard& lost = before.AddShard({7, 0}, "west", 3);
  Shard& attached = after.AddShard({7, 0}, "west", 4);
  before.Open(lost, 0, "ann", {"old"});
  before.Open(lost, 1, "ann");  // not declared to the new core yet, or closed in between: nobody can tell
  const ConnectionIndex moved = after.Open(attached, 0, "ann", {"new", "newer"});
  after.connections()[moved].last_frame =
      kNow.steady - milliseconds(900);  // its former core believes it to be livelier
  for (const bool swapped : {false, true}) {
    std::vector<ClusterReply> replies = {before.ConnectionsOfUser("ann", 0, 0, 10),
                                         after.ConnectionsOfUser("ann", 0, 0, 10)};
    if (swapped) std::swap(replies[0], replies[1]);
    const ConnectionsPage page = MergeConnections(replies, 10);
    EXPECT_THAT(Lines(page.connections), ElementsAre("7/0.0@core-2", "7/0.1@core-1"));
    EXPECT_EQ(page.connections[0].room_count(), 2u);
    EXPECT_FALSE(page.more);
  }
  const ConnectionsPage first =
      MergeConnections({before.ConnectionsOfUser("ann", 0, 0, 1), after.ConnectionsOfUser("ann", 0, 0, 1)}, 1);
  EXPECT_THAT(Lines(first.connections), ElementsAre("7/0.0@core-2")) << "twice the same is one entry of the page";
  EXPECT_TRUE(first.more);
}

// Three cores with rooms, users and devices at random, read in pages of a random size with answers of another: what comes out is what is
// there, each once, in order. A failure names its seed.
TEST(MergeAtRandom, PagesAreTheWhole) {
  for (uint32_t seed = 1; seed <= 60; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937 random(seed);
    std::vector<std::unique_ptr<AnsweringCore>> cores;
    for (uint64_t i = 1; i <= 3; ++i) cores.push_back(std::make_unique<AnsweringCore>(i));
    std::map<std::string, int> rooms, members, owned;
    for (int i = 0; i < 120; ++i) {
      AnsweringCore& core = *cores[seed % 3 == 0 ? 0 : random() % 3];  // in a third of the runs, two cores are empty
      const std::string user =
          std::string(1, static_cast<char>('a' + random() % 26)) + (random() % 4 == 0 ? "\xC3\xBF" : "");
      std::set<std::string> in{"everybody"};
      for (uint32_t n = random() % 4; n > 0; --n)
        in.insert(std::string(1 + random() % 3, static_cast<char>('a' + random() % 9)));
      core.Open(user, {in.begin(), in.end()});
      for (const std::string& room : in) ++rooms[room];
      ++members[user];
      if (user == "a") ++owned[user];
    }
    const auto ask = [&](auto question) {
      std::vector<ClusterReply> replies;
      for (const auto& core : cores) replies.push_back(question(*core, static_cast<uint32_t>(1 + random() % 5)));
      return replies;
    };
    const auto limit = static_cast<uint32_t>(1 + random() % 6);

    std::vector<std::string> lines, expected;
    std::string after;
    for (bool more = true; more;) {
      const RoomsPage page =
          MergeRooms(ask([&](AnsweringCore& core, uint32_t n) { return core.Rooms(after, n); }), limit);
      ASSERT_FALSE(page.rooms.empty() && page.more) << "no way to go on";
      for (const std::string& line : Lines(page.rooms)) lines.push_back(line);
      if (!page.rooms.empty()) after = page.rooms.back().room_id();
      more = page.more;
    }
    for (const auto& [room, count] : rooms) expected.push_back(room + ":" + std::to_string(count));
    ASSERT_EQ(lines, expected);

    lines.clear();
    expected.clear();
    after.clear();
    for (bool more = true; more;) {
      const MembersPage page = MergeMembers(
          ask([&](AnsweringCore& core, uint32_t n) { return core.Members("everybody", after, n); }), limit);
      ASSERT_EQ(page.connections, 120u);
      for (const std::string& line : Lines(page.members)) lines.push_back(line);
      if (!page.members.empty()) after = page.members.back().user_id();
      more = page.more;
    }
    for (const auto& [user, count] : members) expected.push_back(user + ":" + std::to_string(count));
    ASSERT_EQ(lines, expected);

    std::set<std::string> seen;
    uint64_t incarnation = 0, id = 0;
    int told = 0;
    for (bool more = true; more;) {
      const ConnectionsPage page = MergeConnections(
          ask([&](AnsweringCore& core, uint32_t n) { return core.ConnectionsOfUser("a", incarnation, id, n); }), limit);
      for (const std::string& line : Lines(page.connections)) ASSERT_TRUE(seen.insert(line).second);
      told += static_cast<int>(page.connections.size());
      if (!page.connections.empty()) incarnation = page.connections.back().name().incarnation();
      if (!page.connections.empty()) id = page.connections.back().name().connection();
      more = page.more;
    }
    ASSERT_EQ(told, owned["a"]);
  }
}

}  // namespace
}  // namespace presence::core
