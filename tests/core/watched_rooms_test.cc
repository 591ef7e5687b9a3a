#include "core/watched_rooms.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <vector>

namespace presence::core {
namespace {

using link::v1::ClusterReply;
using std::chrono::milliseconds;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class WatchedRoomsTest : public ::testing::Test {
 protected:
  struct Said {
    std::string room;
    uint64_t state;
    std::vector<std::string> users;
    bool cut = false;
  };
  static ClusterReply Reply(uint64_t core, const std::vector<Said>& said, uint32_t looked_at = 1'000) {
    ClusterReply reply;
    reply.set_core(core);
    reply.mutable_watched_rooms()->set_looked_at(looked_at);
    for (const Said& each : said) {
      link::v1::WatchedRoomUsers& users = *reply.mutable_watched_rooms()->add_rooms();
      users.set_room_id(each.room);
      users.set_state(each.state);
      for (const std::string& user : each.users) users.add_user_ids(user);
      users.set_cut(each.cut);
    }
    return reply;
  }
  // "room first | room +a,b -c too large"
  static std::string Text(const std::vector<WatchedRooms::Change>& changes) {
    std::string text;
    for (const auto& change : changes) {
      text += (text.empty() ? "" : " | ") + change.room_id;
      if (change.first) text += " first";
      for (const std::string& user : change.joined) text += " +" + user;
      for (const std::string& user : change.left) text += " -" + user;
      if (change.too_large) text += " too large";
    }
    return text;
  }
  std::string Answer(const std::vector<ClusterReply>& replies, bool complete = true) {
    return Text(rooms_.OnAnswers(now_, rooms_.Queries(false).at(0), complete, replies).changes);
  }

  SteadyTime now_{std::chrono::hours(1)};
  WatchedRooms rooms_{{.rooms_max = 3, .members_max = 4, .core_keep = milliseconds(10'000)}};
};

TEST_F(WatchedRoomsTest, AQueryNamesWhatEachCoreHasSaid) {
  rooms_.Add("room");
  EXPECT_EQ(Answer({Reply(1, {{"room", 7, {"a"}}}), Reply(2, {{"room", 8, {"b"}}})}), "room first");
  const auto queries = rooms_.Queries(false);
  ASSERT_THAT(queries, SizeIs(1));
  const link::v1::WatchedRoom& asked = queries[0].body.rooms(0);
  ASSERT_EQ(asked.known_size(), 2);
  EXPECT_EQ(asked.known(0).core(), 1u);
  EXPECT_EQ(asked.known(0).state(), 7u);
  EXPECT_EQ(asked.known(1).state(), 8u);
  EXPECT_THAT(*rooms_.Members("room"), ElementsAre("a", "b"));
}

TEST_F(WatchedRoomsTest, OnlyNewRoomsAreAskedForAtOnceAndOnlyOnce) {
  rooms_.Add("old");
  EXPECT_THAT(rooms_.Queries(true), SizeIs(1));
  rooms_.Add("new");
  const auto queries = rooms_.Queries(true);
  ASSERT_THAT(queries, SizeIs(1));
  ASSERT_EQ(queries[0].body.rooms_size(), 1);
  EXPECT_EQ(queries[0].body.rooms(0).room_id(), "new");
  EXPECT_THAT(rooms_.Queries(true), IsEmpty());
  EXPECT_EQ(rooms_.Queries(false).at(0).body.rooms_size(), 2);
}

TEST_F(WatchedRoomsTest, AThousandRoomsGoIntoAQuery) {
  WatchedRooms many{{}};
  for (int i = 0; i < 2'001; ++i) many.Add(std::to_string(i));
  const auto queries = many.Queries(false);
  ASSERT_THAT(queries, SizeIs(3));
  EXPECT_EQ(queries[0].body.rooms_size(), 1'000);
  EXPECT_EQ(queries[2].body.rooms_size(), 1);
}

TEST_F(WatchedRoomsTest, JoinsAndLeavesAreToldOnceOverAllCores) {
  rooms_.Add("room");
  EXPECT_EQ(Answer({Reply(1, {{"room", 1, {"a", "b"}}}), Reply(2, {{"room", 1, {"b", "c"}}})}), "room first");
  EXPECT_EQ(Answer({Reply(1, {{"room", 2, {"d"}}}), Reply(2, {})}), "room +d -a") << "b is still at the other core";
  EXPECT_EQ(Answer({Reply(1, {}), Reply(2, {{"room", 2, {"c"}}})}), "room -b");
  EXPECT_EQ(Answer({Reply(1, {}), Reply(2, {})}), "");
}

TEST_F(WatchedRoomsTest, WhoMovesToAnotherCoreNeitherLeavesNorJoins) {
  rooms_.Add("room");
  EXPECT_EQ(Answer({Reply(1, {{"room", 1, {"a"}}}), Reply(2, {})}), "room first");
  EXPECT_EQ(Answer({Reply(1, {{"room", 2, {}}}), Reply(2, {{"room", 1, {"a"}}})}), "");
  EXPECT_EQ(Answer({Reply(1, {{"room", 3, {"a"}}}), Reply(2, {{"room", 2, {}}})}), "");
  EXPECT_TRUE(rooms_.IsMember("room", "a"));
}

TEST_F(WatchedRoomsTest, ACoreThatIsMissingInACompleteAnswerIsGone) {
  rooms_.Add("room");
  EXPECT_EQ(Answer({Reply(1, {{"room", 1, {"a"}}}), Reply(2, {{"room", 1, {"b"}}})}), "room first");
  EXPECT_EQ(Answer({Reply(1, {})}), "room -b");
  EXPECT_EQ(rooms_.Queries(false).at(0).body.rooms(0).known_size(), 1);
}

TEST_F(WatchedRoomsTest, ACoreThatDoesNotAnswerIsKeptForAWhile) {
  rooms_.Add("room");
  EXPECT_EQ(Answer({Reply(1, {{"room", 1, {"a"}}}), Reply(2, {{"room", 1, {"b"}}})}), "room first");
  now_ += std::chrono::hours(1);  // nobody was asked, as while the bus is away
  EXPECT_EQ(Answer({Reply(1, {})}, false), "");
  now_ += milliseconds(9'999);
  EXPECT_EQ(Answer({Reply(1, {})}, false), "");
  EXPECT_EQ(Answer({Reply(1, {}), Reply(2, {})}, false), "") << "it is back";
  now_ += milliseconds(9'999);
  EXPECT_EQ(Answer({Reply(1, {})}, false), "");
  now_ += milliseconds(10'000);
  EXPECT_EQ(Answer({Reply(1, {})}, false), "room -b");
}

TEST_F(WatchedRoomsTest, IsKnownWithTheFirstCompleteAnswer) {
  rooms_.Add("room");
  EXPECT_EQ(Answer({Reply(1, {{"room", 1, {"a"}}})}, false), "");
  EXPECT_FALSE(rooms_.Known("room"));
  EXPECT_EQ(Answer({Reply(1, {}), Reply(2, {{"room", 1, {"b"}}})}), "room first");
  EXPECT_TRUE(rooms_.Known("room"));
  EXPECT_THAT(*rooms_.Members("room"), ElementsAre("a", "b"));
}

TEST_F(WatchedRoomsTest, AnAnswerThatEndsEarlySaysNothingOfTheRest) {
  rooms_.Add("a");
  rooms_.Add("b");
  auto answered = rooms_.OnAnswers(now_, rooms_.Queries(false).at(0), true,
                                   {Reply(1, {{"a", 1, {"x"}}}, 1), Reply(2, {{"a", 1, {}}, {"b", 1, {"y"}}}, 2)});
  EXPECT_EQ(Text(answered.changes), "a first");
  EXPECT_TRUE(answered.ask_again);
  EXPECT_FALSE(rooms_.Known("b"));
  const auto rest = rooms_.Queries(true);
  ASSERT_THAT(rest, SizeIs(1));
  ASSERT_EQ(rest[0].body.rooms_size(), 1);
  EXPECT_EQ(rest[0].body.rooms(0).room_id(), "b");
  answered = rooms_.OnAnswers(now_, rest[0], true, {Reply(1, {{"b", 1, {"z"}}}), Reply(2, {})});
  EXPECT_EQ(Text(answered.changes), "b first");
  EXPECT_FALSE(answered.ask_again);
  EXPECT_THAT(*rooms_.Members("b"), ElementsAre("y", "z"));
}

TEST_F(WatchedRoomsTest, AnAnswerThatEndsEarlyDropsNobody) {
  rooms_.Add("a");
  rooms_.Add("b");
  EXPECT_EQ(Answer({Reply(1, {{"a", 1, {"x"}}, {"b", 1, {"y"}}})}), "a first | b first");
  EXPECT_EQ(Answer({Reply(1, {{"a", 2, {"z"}}}, 1)}), "a +z -x");
  EXPECT_THAT(*rooms_.Members("b"), ElementsAre("y"));
}

TEST_F(WatchedRoomsTest, TooManyMembers) {
  rooms_.Add("room");
  EXPECT_EQ(Answer({Reply(1, {{"room", 1, {"a", "b", "c", "d"}}})}), "room first");
  EXPECT_EQ(Answer({Reply(1, {}), Reply(2, {{"room", 1, {"e"}}})}), "room +e too large");
}

TEST_F(WatchedRoomsTest, MoreMembersThanACoreCanSayAreTooMany) {
  rooms_.Add("room");
  EXPECT_EQ(Answer({Reply(1, {{"room", 1, {"a"}, true}})}, false), "");
  EXPECT_EQ(Answer({Reply(1, {})}), "room first too large") << "said with an answer before";
}

TEST_F(WatchedRoomsTest, AnAnswerFromBeforeTheRoomWasWatchedAnewSaysNothing) {
  rooms_.Add("room");
  EXPECT_EQ(Answer({Reply(1, {{"room", 1, {"a"}}})}), "room first");
  const auto before = rooms_.Queries(false);
  rooms_.Remove("room");
  rooms_.Add("room");
  // It leaves out what has not changed since the first watcher heard it; the second has heard nothing.
  EXPECT_EQ(Text(rooms_.OnAnswers(now_, before.at(0), true, {Reply(1, {})}).changes), "");
  EXPECT_FALSE(rooms_.Known("room"));
  EXPECT_EQ(rooms_.Queries(true).at(0).body.rooms(0).known_size(), 0);
}

TEST_F(WatchedRoomsTest, RoomsAreSharedAndBounded) {
  for (const char* room : {"a", "b", "c", "a"}) EXPECT_TRUE(rooms_.Add(room));
  EXPECT_FALSE(rooms_.Add("d"));
  rooms_.Remove("a");
  EXPECT_FALSE(rooms_.Add("d")) << "somebody else watches it";
  rooms_.Remove("a");
  EXPECT_TRUE(rooms_.Add("d"));
  EXPECT_EQ(rooms_.size(), 3u);
}

}  // namespace
}  // namespace presence::core
