// Rights to rooms against a real Redis.
#include "core/redis_rights.h"

#include <gtest/gtest.h>

#include <asio/io_context.hpp>
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "tests/fakes/redis_server.h"

namespace presence::core {
namespace {

using std::chrono::seconds;
using std::chrono::steady_clock;
using Outcome = RoomAnswer::Outcome;

class RedisRightsTest : public testing::Test, public RoomRightListener {
 protected:
  void SetUp() override {
    ASSERT_TRUE(RedisServer::Available()) << "redis-server is not installed: scripts/test installs it";
    server_ = std::make_unique<RedisServer>();
    rights_ =
        std::make_unique<RedisRights>(io_, *ParseRedisUrl(server_->UnixUrl()), SentinelOptions{}, *this, metrics_);
    ASSERT_TRUE(AwaitAnswers());
  }

  bool RunUntil(const std::function<bool()>& condition) {
    const auto deadline = steady_clock::now() + seconds(20);
    while (!condition()) {
      if (steady_clock::now() > deadline) return false;
      io_.restart();
      io_.run_one_for(std::chrono::milliseconds(10));
    }
    return true;
  }
  RoomAnswer Ask(std::string_view user, std::string_view room) {
    const uint64_t id = ++last_;
    rights_->Ask({id, user, "", room});
    EXPECT_TRUE(RunUntil([&] { return answers_.contains(id); }));
    return answers_[id];
  }
  // Until Redis is there, or again.
  bool AwaitAnswers() {
    return RunUntil([&] { return Ask("u", "r").outcome == Outcome::kAnswered; });
  }
  RoomRight Right(std::string_view user, std::string_view room) {
    const RoomAnswer answer = Ask(user, room);
    EXPECT_EQ(answer.outcome, Outcome::kAnswered);
    return answer.right;
  }
  void Add(const std::string& key, const std::string& member) {
    ASSERT_EQ(server_->Command({"SADD", key, member}).number, 1);
  }

  std::unique_ptr<RedisServer> server_;
  asio::io_context io_;
  RoomRightsMetrics metrics_;
  std::unique_ptr<RedisRights> rights_;

 private:
  void OnRoomRight(uint64_t id, const RoomAnswer& answer) override {
    EXPECT_TRUE(answers_.emplace(id, answer).second) << "answered once";
  }
  std::map<uint64_t, RoomAnswer> answers_;
  uint64_t last_ = 0;
};

TEST_F(RedisRightsTest, EachSetGrants) {
  EXPECT_EQ(Right("alice", "general"), RoomRight::kNone);
  Add("room.read:general", "alice");
  EXPECT_EQ(Right("alice", "general"), RoomRight::kRead);
  Add("room.write:general", "alice");
  EXPECT_EQ(Right("alice", "general"), RoomRight::kWrite) << "the higher one counts";
  EXPECT_EQ(Right("bob", "general"), RoomRight::kNone);
  EXPECT_EQ(Right("alice", "random"), RoomRight::kNone);
  Add("user.read:bob", "general");
  EXPECT_EQ(Right("bob", "general"), RoomRight::kRead);
  Add("user.write:bob", "general");
  EXPECT_EQ(Right("bob", "general"), RoomRight::kWrite);
  server_->Command({"SREM", "user.write:bob", "general"});
  EXPECT_EQ(Right("bob", "general"), RoomRight::kRead);
}

TEST_F(RedisRightsTest, AStarIsEverybodyOrEveryRoom) {
  Add("room.read:news", "*");
  Add("user.write:root", "*");
  EXPECT_EQ(Right("anybody", "news"), RoomRight::kRead);
  EXPECT_EQ(Right("root", "whatever"), RoomRight::kWrite);
  EXPECT_EQ(Right("anybody", "whatever"), RoomRight::kNone);
  Add("room.write:team-*", "alice");
  EXPECT_EQ(Right("alice", "team-7"), RoomRight::kNone) << "no patterns but the star alone";
}

TEST_F(RedisRightsTest, OddIdsAreBytes) {
  for (const std::string id : {"with space", "a:b", "line\r\nbreak", "\"quoted\\", "[a-z]?"}) {
    Add("room.write:" + id, id);
    EXPECT_EQ(Right(id, id), RoomRight::kWrite) << id;
    EXPECT_EQ(Right(id, id + "x"), RoomRight::kNone) << id;
  }
}

TEST_F(RedisRightsTest, SomethingElseUnderTheNameSaysNothing) {
  server_->Command({"SET", "room.write:general", "alice"});
  EXPECT_EQ(Ask("alice", "general").outcome, Outcome::kUnavailable);
  EXPECT_EQ(metrics_.failed.Value(), 1u);
  EXPECT_EQ(Right("alice", "random"), RoomRight::kNone) << "and nothing else is hurt";
}

TEST_F(RedisRightsTest, WithoutRedisItIsAnsweredAndFoundAgain) {
  Add("room.write:general", "alice");
  server_->Kill();
  ASSERT_TRUE(RunUntil([&] { return Ask("alice", "general").outcome == Outcome::kUnavailable; }));
  server_->Start();
  ASSERT_TRUE(AwaitAnswers());
  EXPECT_EQ(Right("alice", "general"), RoomRight::kNone) << "that Redis is empty";
  EXPECT_EQ(metrics_.in_flight.Value(), 0u);
}

TEST_F(RedisRightsTest, AStalledRedisIsNotWaitedForForLong) {
  server_->Stall();
  EXPECT_EQ(Ask("alice", "general").outcome, Outcome::kUnavailable);
  server_->Resume();
  EXPECT_TRUE(AwaitAnswers());
}

TEST_F(RedisRightsTest, AnAclThatGrantsReadingAloneIsEnough) {
  Add("room.write:general", "alice");
  server_->Command({"ACL", "SETUSER", "rooms", "on", ">word", "resetkeys", "%R~room.write:*", "%R~room.read:*",
                    "%R~user.write:*", "%R~user.read:*", "+@all"});
  rights_ = std::make_unique<RedisRights>(
      io_, *ParseRedisUrl("redis://rooms:word@127.0.0.1:" + std::to_string(server_->port())), SentinelOptions{}, *this,
      metrics_);
  EXPECT_TRUE(AwaitAnswers());
  EXPECT_EQ(Right("alice", "general"), RoomRight::kWrite);
}

TEST_F(RedisRightsTest, AFlushedScriptIsLoadedAgain) {
  server_->Command({"SCRIPT", "FLUSH"});
  EXPECT_EQ(Ask("alice", "general").outcome, Outcome::kUnavailable);
  EXPECT_TRUE(AwaitAnswers());
}

}  // namespace
}  // namespace presence::core
