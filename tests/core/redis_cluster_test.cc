// What cores say to each other through a Redis that is not well, or in which others have written.
#include "tests/core/redis_failure.h"

namespace presence::core {
namespace {

using testing::ElementsAre;
using Once = OnceResult::Outcome;

class RedisCluster : public RedisFailure {};

TEST_F(RedisCluster, WithoutRedisEverythingIsAnsweredUnavailableAtOnce) {
  AttachAndComeUp();
  server_->Kill();
  ASSERT_TRUE(RunUntil([&] { return store_->counters().connections_lost.Value() >= 2; }));  // both
  const auto start = steady_clock::now();
  EXPECT_EQ(PublishOnce("r1", "one").outcome, Once::kUnavailable);
  EXPECT_EQ(Announce().status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(GetMany({"u1"}).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(GetMany({}).status().code(), absl::StatusCode::kUnavailable);
  store_->SaveAnswer("r1", "42");
  store_->Withdraw();
  store_->Reply(1, {});
  EXPECT_LT(steady_clock::now() - start, seconds(1));
  EXPECT_EQ(store_->counters().commands_refused.Value(), 7u);
  server_->Start();
  ASSERT_TRUE(RunUntil([&] { return heard_.ups == 2; }));
  EXPECT_EQ(PublishOnce("r1", "one").outcome, Once::kPublished);
  EXPECT_THAT(*Announce(), ElementsAre(1));
}

TEST_F(RedisCluster, WhatAStalledRedisDidIsNotKnownAndRepeatingItIsSafe) {
  AttachAndComeUp();
  server_->Stall();
  store_->Announce();
  EXPECT_EQ(PublishOnce("r1", "one").outcome, Once::kUnavailable);
  ASSERT_EQ(heard_.cores.size(), 1u);
  EXPECT_FALSE(heard_.cores[0].ok());
  server_->Resume();
  ASSERT_TRUE(RunUntil([&] { return heard_.ups == 2; }));
  const Once again = PublishOnce("r1", "one").outcome;
  EXPECT_TRUE(again == Once::kPublished || again == Once::kRepeated);
  EXPECT_EQ(PublishOnce("r1", "one").outcome, Once::kRepeated);
  EXPECT_EQ(PublishOnce("r1", "two").outcome, Once::kConflict);
}

TEST_F(RedisCluster, FlushedScriptsAreLoadedAgain) {
  AttachAndComeUp();
  server_->Command({"SCRIPT", "FLUSH"});
  EXPECT_EQ(PublishOnce("r1", "one").outcome, Once::kUnavailable);
  ASSERT_TRUE(RunUntil([&] { return heard_.ups == 2; }));
  EXPECT_EQ(PublishOnce("r1", "one").outcome, Once::kPublished);
  server_->Command({"SCRIPT", "FLUSH"});
  EXPECT_FALSE(Announce().ok());
  ASSERT_TRUE(RunUntil([&] { return heard_.ups == 3; }));
  EXPECT_TRUE(Announce().ok());
}

TEST_F(RedisCluster, WhatRedisRefusesIsUnavailable) {
  AttachAndComeUp();
  server_->Command({"ACL", "SETUSER", "default", "-set", "-zadd", "-mget"});
  EXPECT_EQ(PublishOnce("r1", "one").outcome, Once::kUnavailable);
  EXPECT_FALSE(Announce().ok());
  EXPECT_FALSE(GetMany({"u1"}).ok());
  EXPECT_EQ(store_->counters().errors.Value(), 3u);
  EXPECT_EQ(heard_.downs, 0);
  server_->Command({"ACL", "SETUSER", "default", "+@all"});
  EXPECT_EQ(PublishOnce("r1", "one").outcome, Once::kPublished) << "what failed has left no trace";
}

TEST_F(RedisCluster, ASavedAnswerLivesNoLongerThanItsRequest) {
  AttachAndComeUp();
  EXPECT_EQ(PublishOnce("r1", "one").outcome, Once::kPublished);
  EXPECT_GT(server_->Command({"PTTL", "presence.request:r1"}).number, 290'000);
  server_->Command({"PEXPIRE", "presence.request:r1", "60000"});
  store_->SaveAnswer("r1", "42");
  EXPECT_EQ(PublishOnce("r1", "one").answer, "42");
  const int64_t left = server_->Command({"PTTL", "presence.request:r1"}).number;
  EXPECT_GT(left, 0);
  EXPECT_LE(left, 60'000);
}

TEST_F(RedisCluster, AReplyIsHeardFromTheFirstMoment) {
  // Subscribed before OnStoreUp is told, or this would be lost now and then.
  struct AtOnce : RecordingListener {
    void OnStoreUp(bool lost) override {
      RecordingListener::OnStoreUp(lost);
      link::v1::ClusterReplies replies;
      replies.add_replies()->set_id(static_cast<uint64_t>(ups));
      (*store)->Reply(1, replies);
    }
    std::unique_ptr<RedisStore>* store = nullptr;
  } heard;
  heard.store = &store_;
  RedisStoreOptions options{store_options_, *ParseRedisUrl(server_->UnixUrl()), {}};
  store_ = std::make_unique<RedisStore>(io_, options, heard);
  ASSERT_TRUE(RunUntil([&] { return heard.arrivals.size() == 1; }));
  server_->Command({"CLIENT", "KILL", "TYPE", "pubsub"});
  ASSERT_TRUE(RunUntil([&] { return heard.arrivals.size() == 2; }));
  EXPECT_THAT(heard.arrivals, ElementsAre("reply 1", "reply 2"));
  store_.reset();
}

TEST_F(RedisCluster, OtherBytesOnACoresOwnChannelAreCountedAndDropped) {
  AttachAndComeUp();
  server_->Command({"PUBLISH", "presence.core:0000000000000001", "\xff\xff\xff not protobuf"});
  link::v1::ClusterReplies replies;
  replies.add_replies()->set_id(7);
  server_->Command({"PUBLISH", "presence.core:0000000000000001", replies.SerializeAsString()});
  server_->Command({"PUBLISH", "presence.core:0000000000000002", replies.SerializeAsString()});
  EXPECT_TRUE(HearsTheBus());
  EXPECT_EQ(heard_.arrivals.at(0), "reply 7");
  EXPECT_EQ(store_->counters().replies_invalid.Value(), 1u);
  EXPECT_EQ(store_->counters().bus_invalid.Value(), 0u);
  EXPECT_EQ(heard_.downs, 0);
}

TEST_F(RedisCluster, CountersMayBeTheOwners) {
  RedisCounters counters;
  RedisStoreOptions options{store_options_, *ParseRedisUrl("unix:///nowhere/redis.sock"), {}, &counters};
  store_ = std::make_unique<RedisStore>(io_, options, heard_);
  store_->Withdraw();
  ASSERT_TRUE(RunUntil([&] { return counters.connections_lost.Value() >= 2; }));
  EXPECT_EQ(counters.commands_refused.Value(), 1u);
  store_.reset();
}

TEST_F(RedisCluster, WithoutATestClockTheTimeIsRedisOwn) {
  AttachAndComeUp();
  const auto now_ms = [&] {
    const auto time = server_->Command({"TIME"}).list;
    return std::stoll(time[0].text) * 1'000 + std::stoll(time[1].text) / 1'000;
  };
  const auto before = now_ms();
  EXPECT_THAT(*Announce(), ElementsAre(1));
  const auto announced = std::stoll(server_->Command({"ZSCORE", "presence.cores", "0000000000000001"}).text);
  EXPECT_GE(announced, before);
  EXPECT_LE(announced, now_ms());
}

// ------------------------------------------------------------------------------- others have written to our keys

TEST_F(RedisCluster, ARequestTakesItsKeyBack) {
  AttachAndComeUp();
  const std::vector<std::vector<std::string>> foreign{{"SET", "presence.request:r1", "a string"},
                                                      {"SET", "presence.request:r1", ""},
                                                      {"LPUSH", "presence.request:r1", "a list"}};
  for (const auto& command : foreign) {
    server_->Command(command);
    store_->SaveAnswer("r1", "42");
    EXPECT_EQ(PublishOnce("r1", "one").outcome, Once::kPublished) << command[2];
    EXPECT_GT(server_->Command({"PTTL", "presence.request:r1"}).number, 290'000);
    EXPECT_EQ(PublishOnce("r1", "one").outcome, Once::kRepeated);
    EXPECT_EQ(PublishOnce("r1", "one").answer, "");
    server_->Command({"DEL", "presence.request:r1"});
  }
  EXPECT_EQ(store_->counters().errors.Value(), 0u);
}

TEST_F(RedisCluster, AnAnnouncementTakesItsKeyBack) {
  AttachAndComeUp();
  server_->Command({"SET", "presence.cores", "a string"});
  EXPECT_THAT(*Announce(), ElementsAre(1));
  const std::string score = server_->Command({"ZSCORE", "presence.cores", "0000000000000001"}).text;
  for (const char* foreign : {"", "12", "+000000000000002", "000000000000000g", "00000000000000002"}) {
    server_->Command({"ZADD", "presence.cores", score, foreign});
  }
  server_->Command({"ZADD", "presence.cores", score, "00000000000000ab"});
  EXPECT_THAT(*Announce(), ElementsAre(1, 0xAB));
}

TEST_F(RedisCluster, AForeignKeyReadsAsOfflineAmongOthers) {
  AttachAndComeUp();
  for (const char* user : {"u1", "u3"}) EXPECT_EQ(Write(user), Outcome::kApplied);
  server_->Command({"LPUSH", "presence:u2", "a list"});
  server_->Command({"CONFIG", "RESETSTAT"});
  const auto users = GetMany({"u1", "u2", "u3"});
  ASSERT_TRUE(users.ok());
  ASSERT_EQ(users->size(), 3u);
  EXPECT_EQ((*users)[0].status, link::v1::STATUS_ONLINE);
  EXPECT_EQ((*users)[1].status, link::v1::STATUS_OFFLINE);
  EXPECT_EQ((*users)[2].status, link::v1::STATUS_ONLINE);
  const std::string statistics = server_->Command({"INFO", "commandstats"}).text;
  EXPECT_THAT(statistics, HasSubstr("cmdstat_mget:calls=1,"));
  EXPECT_THAT(statistics, testing::Not(HasSubstr("cmdstat_get:")));
}

}  // namespace
}  // namespace presence::core
