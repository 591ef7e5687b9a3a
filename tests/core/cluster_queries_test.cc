// One core's answers.
#include "core/cluster_queries.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "tests/core/answering_core.h"

namespace presence::core {
namespace {

using link::v1::ClusterReply;
using std::chrono::milliseconds;
using testing::ElementsAre;
using testing::ElementsAreArray;
using testing::IsEmpty;
using testing::SizeIs;

TEST(AnswerRooms, InByteOrderBehindTheCursorWithConnections) {
  AnsweringCore core(1);
  core.Open("ann", {"b", "a", "\xC3\xA4"});
  core.Open("ann", {"b"});
  core.Open("bea", {"b", "Z"});
  ClusterReply reply = core.Rooms("", 10);
  EXPECT_THAT(Lines(reply.rooms().rooms()), ElementsAre("Z:1", "a:1", "b:3", "\xC3\xA4:1"));
  EXPECT_FALSE(reply.rooms().more());
  reply = core.Rooms("Z", 2);
  EXPECT_THAT(Lines(reply.rooms().rooms()), ElementsAre("a:1", "b:3"));
  EXPECT_TRUE(reply.rooms().more());
  reply = core.Rooms("aa", 2);
  EXPECT_THAT(Lines(reply.rooms().rooms()), ElementsAre("b:3", "\xC3\xA4:1"));
  EXPECT_FALSE(reply.rooms().more()) << "the last page is full, and the last one all the same";
  EXPECT_THAT(Lines(core.Rooms("", 0).rooms().rooms()), ElementsAre("Z:1")) << "a limit of 0 counts as 1";
}

TEST(AnswerRooms, EndAtOneMebibyte) {
  AnsweringCore core(1);
  std::vector<std::string> rooms;
  for (int i = 0; i < 700; ++i) rooms.push_back(Padded(std::to_string(1'000 + i), 2'048));
  core.Open("ann", rooms);
  const ClusterReply reply = core.Rooms("", 10'000);
  EXPECT_TRUE(reply.rooms().more());
  EXPECT_LE(reply.ByteSizeLong(), kAnswerBytesMax + 32);
  EXPECT_GT(reply.rooms().rooms_size(), 500);
  const ClusterReply rest = core.Rooms(reply.rooms().rooms().rbegin()->room_id(), 10'000);
  EXPECT_FALSE(rest.rooms().more());
  EXPECT_EQ(reply.rooms().rooms_size() + rest.rooms().rooms_size(), 700);
}

TEST(AnswerMembers, AUserWithSeveralDevicesIsOneMember) {
  AnsweringCore core(1);
  core.Open("cleo", {"r"});
  core.Open("ann", {"r"});
  core.Open("ann", {"r", "q"});
  core.Open("ann", {"q"});
  core.Open("bea", {"r"});
  ClusterReply reply = core.Members("r", "", 10);
  EXPECT_EQ(reply.members().connections(), 4u);
  EXPECT_THAT(Lines(reply.members().members()), ElementsAre("ann:2", "bea:1", "cleo:1"));
  EXPECT_EQ(reply.members().members(0).username(), "name of ann");
  EXPECT_FALSE(reply.members().more());
  reply = core.Members("r", "ann", 1);
  EXPECT_THAT(Lines(reply.members().members()), ElementsAre("bea:1"));
  EXPECT_EQ(reply.members().connections(), 4u) << "of the whole room, whatever the page";
  EXPECT_TRUE(reply.members().more());
  EXPECT_FALSE(core.Members("r", "bea", 1).members().more());
  EXPECT_EQ(core.Members("nowhere", "", 1).members().connections(), 0u);
}

TEST(AnswerMembers, CountIsWholeInWhateverOrderTheyJoined) {
  for (uint32_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937 random(seed);
    AnsweringCore core(1);
    std::map<std::string, uint32_t> expected;
    for (int i = 0; i < 300; ++i) {
      const std::string user = "u" + std::to_string(random() % 60);
      core.Open(user, {"r"});
      ++expected[user];
    }
    std::vector<std::string> lines;
    for (std::string after; true;) {
      const ClusterReply reply = core.Members("r", after, static_cast<uint32_t>(1 + random() % 7));
      for (const std::string& line : Lines(reply.members().members())) lines.push_back(line);
      if (!reply.members().more()) break;
      after = reply.members().members().rbegin()->user_id();
    }
    std::vector<std::string> expected_lines;
    for (const auto& [user, count] : expected) expected_lines.push_back(user + ":" + std::to_string(count));
    ASSERT_EQ(lines, expected_lines);
  }
}

TEST(AnswerMembers, EndAtOneMebibyte) {
  AnsweringCore core(1);
  for (int i = 0; i < 700; ++i) core.Open(Padded(std::to_string(1'000 + i), 2'048), {"r"});
  const ClusterReply reply = core.Members("r", "", 10'000);
  EXPECT_TRUE(reply.members().more());
  EXPECT_LE(reply.ByteSizeLong(), kAnswerBytesMax + 32);
  EXPECT_GT(reply.members().members_size(), 200);
  EXPECT_EQ(reply.members().connections(), 700u);
}

TEST(AnswerConnections, OfAUserInOrder) {
  AnsweringCore core(1);
  Shard& later = core.AddShard({8, 0}, "east");
  Shard& first = core.AddShard({7, 1}, "west", 5);
  core.Open(later, 0, "ann");
  core.Open(first, 9, "ann");
  const ConnectionIndex away = core.Open(first, 3, "ann", {"r", "q"});
  core.Open(first, 4, "bea");
  core.connections()[away].status = link::v1::STATUS_AWAY;
  core.connections()[away].last_frame = kNow.steady - milliseconds(1'500);
  ClusterReply reply = core.ConnectionsOfUser("ann", 0, 0, 10);
  EXPECT_THAT(Lines(reply.connections().connections()), ElementsAre("7/1.3@core-1", "7/1.9@core-1", "8/0.0@core-1"));
  EXPECT_FALSE(reply.connections().more());
  const link::v1::ConnectionState& state = reply.connections().connections(0);
  EXPECT_EQ(state.user_id(), "ann");
  EXPECT_EQ(state.username(), "name of ann");
  EXPECT_EQ(state.status(), link::v1::STATUS_AWAY);
  EXPECT_EQ(state.edge(), "west");
  EXPECT_EQ(state.shard(), 1u);
  EXPECT_EQ(state.room_count(), 2u);
  EXPECT_THAT(state.room_ids(), ElementsAre("r", "q"));
  EXPECT_EQ(state.silent_ms(), 1'500);
  EXPECT_EQ(state.attach(), 5u);

  reply = core.ConnectionsOfUser("ann", 7, state.name().connection(), 1);
  EXPECT_THAT(Lines(reply.connections().connections()), ElementsAre("7/1.9@core-1"));
  EXPECT_TRUE(reply.connections().more());
  core.connections().Close(away);
  EXPECT_THAT(Lines(core.ConnectionsOfUser("ann", 0, 0, 10).connections().connections()),
              ElementsAre("7/1.9@core-1", "8/0.0@core-1"))
      << "only the live ones, though the store has not heard of the end";
  EXPECT_THAT(core.ConnectionsOfUser("nobody", 0, 0, 10).connections().connections(), IsEmpty());
}

TEST(AnswerConnections, OfAnEdgeOverItsShardsAndIncarnations) {
  AnsweringCore core(1);
  Shard& west0 = core.AddShard({7, 0}, "west");
  Shard& west2 = core.AddShard({7, 2}, "west");
  Shard& east = core.AddShard({8, 0}, "east");
  Shard& again = core.AddShard({9, 0}, "west");
  core.Open(again, 0, "ann");
  core.Open(west2, 1, "ann");
  core.Open(west0, 1'500, "bea");
  core.Open(west0, 2, "cleo");
  core.Open(east, 0, "ann");
  EXPECT_THAT(Lines(core.ConnectionsOfEdge("west", 0, 0, 10).connections().connections()),
              ElementsAre("7/0.2@core-1", "7/0.1500@core-1", "7/2.1@core-1", "9/0.0@core-1"));
  // Page by page; a cursor in the middle of a shard, at the end of one, and at a connection that has gone.
  std::vector<std::string> lines;
  uint64_t incarnation = 0, id = 0;
  for (bool more = true; more;) {
    const ClusterReply reply = core.ConnectionsOfEdge("west", incarnation, id, 1);
    ASSERT_THAT(reply.connections().connections(), SizeIs(1));
    lines.push_back(Lines(reply.connections().connections())[0]);
    incarnation = reply.connections().connections(0).name().incarnation();
    id = reply.connections().connections(0).name().connection();
    more = reply.connections().more();
  }
  EXPECT_THAT(lines, ElementsAre("7/0.2@core-1", "7/0.1500@core-1", "7/2.1@core-1", "9/0.0@core-1"));
  const ClusterReply behind_gone = core.ConnectionsOfEdge("west", 7, ConnectionId{1, 4, 3}.Pack(), 10);
  EXPECT_THAT(Lines(behind_gone.connections().connections()), ElementsAre("7/2.1@core-1", "9/0.0@core-1"));
  const ClusterReply reused = core.ConnectionsOfEdge("west", 7, ConnectionId{2, 1, 0}.Pack(), 10);
  EXPECT_THAT(Lines(reused.connections().connections()), ElementsAre("7/2.1@core-1", "9/0.0@core-1"))
      << "the slot of the cursor has a new owner, behind it";
}

TEST(AnswerConnections, NameAsManyRoomsAsFit) {
  AnsweringCore core(1);
  std::vector<std::string> rooms;
  for (int i = 0; i < 10; ++i) rooms.push_back(Padded(std::to_string(i), 2'048));
  core.Open("ann", rooms);
  const ClusterReply reply = core.ConnectionsOfUser("ann", 0, 0, 1);
  EXPECT_EQ(reply.connections().connections(0).room_count(), 10u);
  EXPECT_EQ(reply.connections().connections(0).room_ids_size(), 4);
}

TEST(AnswerConnections, EndAtOneMebibyte) {
  AnsweringCore core(1);
  std::vector<std::string> rooms;
  for (int i = 0; i < 4; ++i) rooms.push_back(Padded(std::to_string(i), 2'048));
  for (int i = 0; i < 200; ++i) core.Open("ann", rooms);
  const ClusterReply reply = core.ConnectionsOfUser("ann", 0, 0, 1'000);
  EXPECT_TRUE(reply.connections().more());
  EXPECT_LE(reply.ByteSizeLong(), kAnswerBytesMax + 32);
  EXPECT_GT(reply.connections().connections_size(), 100);
}

// ------------------------------------------------------------------------------------------------------- watched rooms

link::v1::WatchedRoom& Watch(link::v1::WatchedRoomsQuery& query, const std::string& room) {
  link::v1::WatchedRoom& watched = *query.add_rooms();
  watched.set_room_id(room);
  return watched;
}
void Knows(link::v1::WatchedRoom& watched, uint64_t core, uint64_t state) {
  link::v1::CoreRoomState& known = *watched.add_known();
  known.set_core(core);
  known.set_state(state);
}

TEST(AnswerWatchedRooms, OnlyThoseThatAreNotKnownAsTheyAre) {
  AnsweringCore core(1);
  core.Open("bea", {"same", "changed", "unknown"});
  core.Open("ann", {"changed"});
  core.Open("ann", {"changed"});
  const uint64_t state = core.rooms().state(*core.rooms().Find("same"));
  link::v1::WatchedRoomsQuery query;
  Knows(Watch(query, "same"), 1, state);
  link::v1::WatchedRoom& changed = Watch(query, "changed");
  Knows(changed, 2, core.rooms().state(*core.rooms().Find("changed")));  // another core's numbers mean nothing here
  Knows(changed, 1, state);
  Watch(query, "unknown");
  Watch(query, "empty and unknown");
  Knows(Watch(query, "empty"), 1, 0);
  Knows(Watch(query, "gone"), 1, 3);
  const link::v1::WatchedRoomsReply reply = core.Watched(query);
  ASSERT_EQ(reply.rooms_size(), 4);
  EXPECT_EQ(reply.rooms(0).room_id(), "changed");
  EXPECT_THAT(reply.rooms(0).user_ids(), ElementsAre("ann", "bea"));
  EXPECT_EQ(reply.rooms(0).state(), core.rooms().state(*core.rooms().Find("changed")));
  EXPECT_FALSE(reply.rooms(0).cut());
  EXPECT_EQ(reply.rooms(1).room_id(), "unknown");
  EXPECT_THAT(reply.rooms(1).user_ids(), ElementsAre("bea"));
  EXPECT_EQ(reply.rooms(2).room_id(), "empty and unknown") << "so that the asking core knows that nobody is there";
  EXPECT_EQ(reply.rooms(2).state(), 0u);
  EXPECT_EQ(reply.rooms(3).room_id(), "gone");
  EXPECT_EQ(reply.rooms(3).state(), 0u);
  EXPECT_THAT(reply.rooms(3).user_ids(), IsEmpty());
  EXPECT_EQ(reply.looked_at(), 6u);
}

TEST(AnswerWatchedRooms, WhatDoesNotFitIsAskedForAgain) {
  AnsweringCore core(1);
  for (int i = 0; i < 300; ++i) core.Open(Padded(std::to_string(1'000 + i), 2'000), {"first", "second", "third"});
  link::v1::WatchedRoomsQuery query;
  for (const char* room : {"first", "second", "third"}) Watch(query, room);
  const link::v1::WatchedRoomsReply reply = core.Watched(query);
  ASSERT_EQ(reply.rooms_size(), 1);
  EXPECT_EQ(reply.rooms(0).user_ids_size(), 300) << "whole, though half of the next would fit, too";
  EXPECT_EQ(reply.looked_at(), 1u);
}

// The second one is so large that it is not even sorted as a whole. Every fifth user has a second device.
TEST(AnswerWatchedRooms, ARoomThatIsTooLargeIsCutInByteOrder) {
  for (const int size : {700, 3'000}) {
    SCOPED_TRACE(size);
    AnsweringCore core(1);
    std::vector<std::string> users;
    for (int i = 0; i < size; ++i) users.push_back(Padded(std::to_string(10'000 + i), 2'000));
    std::vector<std::string> devices = users;
    for (size_t i = 0; i < users.size(); i += 5) devices.push_back(users[i]);
    std::shuffle(devices.begin(), devices.end(), std::mt19937(1));
    for (const std::string& user : devices) core.Open(user, {"large"});
    link::v1::WatchedRoomsQuery query;
    Watch(query, "large");
    const link::v1::WatchedRoomsReply reply = core.Watched(query);
    ASSERT_EQ(reply.rooms_size(), 1);
    EXPECT_TRUE(reply.rooms(0).cut());
    EXPECT_LE(reply.ByteSizeLong(), kAnswerBytesMax);
    const auto& told = reply.rooms(0).user_ids();
    ASSERT_GT(told.size(), 500);
    EXPECT_TRUE(std::equal(told.begin(), told.end(), users.begin()));
    EXPECT_EQ(reply.looked_at(), 1u);
  }
}

TEST(AnswerWatchedRooms, UsersAreInByteOrder) {
  AnsweringCore core(1);
  const std::vector<std::string> users = {
      "\x01",      "a",        "a\x01", "ab",       "abcdefgh",        "abcdefgh\x01",
      "abcdefghi", "abcdefgi", "\x7F",  "\xC3\xA4", "\xF0\x9F\x98\x80"};
  for (auto user = users.rbegin(); user != users.rend(); ++user) core.Open(*user, {"r"});
  link::v1::WatchedRoomsQuery query;
  Watch(query, "r");
  EXPECT_THAT(core.Watched(query).rooms(0).user_ids(), ElementsAreArray(users));
}

TEST(AnswerWatchedRooms, AThousandRoomsAreLookedAt) {
  AnsweringCore core(1);
  link::v1::WatchedRoomsQuery query;
  for (int i = 0; i < kWatchedRoomsMax + 1; ++i) Knows(Watch(query, std::to_string(i)), 1, 0);
  EXPECT_EQ(core.Watched(query).looked_at(), static_cast<uint32_t>(kWatchedRoomsMax));
}

}  // namespace
}  // namespace presence::core
