// RedisStore when Redis is not well: killed, stalled, partly cut off, demoted, without its script; and what REDIS_URL may say.
// Real servers and real time; each waits for what it expects, with a deadline far behind it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <asio/io_context.hpp>
#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "core/redis_store.h"
#include "tests/fakes/redis_server.h"
#include "tests/fakes/store_backend.h"

namespace presence::core {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using std::chrono::steady_clock;
using testing::HasSubstr;
using testing::Not;
using Outcome = WriteResult::Outcome;

class RedisFailure : public testing::Test {
 protected:
  void SetUp() override {
    if (!RedisServer::Available()) GTEST_SKIP() << "redis-server is not installed";
    server_ = std::make_unique<RedisServer>();
  }

  void Attach(const std::string& url) {
    RedisStoreOptions options;
    options.address = *ParseRedisUrl(url);
    options.store.core_incarnation = 1;
    store_ = std::make_unique<RedisStore>(io_, options, heard_);
  }
  void AttachAndComeUp() {
    Attach(server_->UnixUrl());
    ASSERT_TRUE(RunUntil([&] { return heard_.ups == 1; }));
  }

  template <typename Condition>
  bool RunUntil(Condition condition, milliseconds at_most = seconds(20)) {
    const auto deadline = steady_clock::now() + at_most;
    while (!condition()) {
      if (steady_clock::now() > deadline) return false;
      io_.run_one_for(milliseconds(50));
    }
    return true;
  }

  uint64_t SendWrite() {
    PresenceWrite write;
    write.id = ++last_id_;
    write.key = {7, 7};
    write.attach = 1;
    write.user_id = "u1";
    store_->Write(write);
    return write.id;
  }
  Outcome Write() {
    const uint64_t id = SendWrite();
    EXPECT_TRUE(RunUntil([&] { return heard_.written.contains(id); }));
    return heard_.written[id].outcome;
  }
  bool HearsTheBus() {
    link::v1::BusEnvelope envelope;
    envelope.set_sequence(++last_id_);
    store_->Publish(last_id_, envelope, "");
    return RunUntil([&] { return !heard_.bus.empty() && heard_.bus.back().sequence() == last_id_; });
  }

  std::unique_ptr<RedisServer> server_;
  asio::io_context io_;
  RecordingListener heard_;
  std::unique_ptr<RedisStore> store_;
  uint64_t last_id_ = 0;
};

TEST_F(RedisFailure, AKilledRedisComesBackEmpty) {
  AttachAndComeUp();
  store_->Sweep(1);
  EXPECT_EQ(Write(), Outcome::kApplied);
  server_->Kill();
  ASSERT_TRUE(RunUntil([&] { return heard_.downs == 1; }));
  EXPECT_EQ(Write(), Outcome::kUnavailable);
  server_->Start();
  ASSERT_TRUE(RunUntil([&] { return heard_.ups == 2; }));
  EXPECT_TRUE(heard_.lost_state);
  EXPECT_EQ(heard_.downs, 1) << "said once, however often it was dialled";
  EXPECT_EQ(Write(), Outcome::kApplied);
  EXPECT_TRUE(HearsTheBus());
}

TEST_F(RedisFailure, AStalledRedisIsGivenUpAndFoundAgainWithItsState) {
  AttachAndComeUp();
  store_->Sweep(1);
  EXPECT_EQ(Write(), Outcome::kApplied);
  server_->Stall();
  const auto start = steady_clock::now();
  bool read = false;
  store_->GetPresence("u1", [&](const absl::StatusOr<StoredPresence>& presence) {
    read = presence.status().code() == absl::StatusCode::kUnavailable;
  });
  EXPECT_EQ(Write(), Outcome::kUnavailable);
  EXPECT_TRUE(read);
  EXPECT_EQ(heard_.downs, 1);
  EXPECT_THAT(heard_.why, HasSubstr("no answer within 2 s"));
  EXPECT_LT(steady_clock::now() - start, seconds(4));
  server_->Resume();
  ASSERT_TRUE(RunUntil([&] { return heard_.ups == 2; }));
  EXPECT_FALSE(heard_.lost_state);
  EXPECT_EQ(Write(), Outcome::kApplied);
  EXPECT_TRUE(HearsTheBus());
}

TEST_F(RedisFailure, NoMoreThanABoundWaitsForAStalledRedis) {
  AttachAndComeUp();
  server_->Stall();
  for (size_t i = 0; i < RedisConnection::kCommandsMax; ++i) SendWrite();
  const uint64_t one_too_many = SendWrite();
  const auto start = steady_clock::now();
  ASSERT_TRUE(RunUntil([&] { return heard_.written.contains(one_too_many); }));
  EXPECT_LT(steady_clock::now() - start, seconds(1));
  EXPECT_EQ(heard_.downs, 0);
  server_->Resume();
  ASSERT_TRUE(RunUntil([&] { return heard_.written.size() == RedisConnection::kCommandsMax + 1; }));
}

TEST_F(RedisFailure, AKilledSubscriptionIsMadeAgain) {
  AttachAndComeUp();
  EXPECT_TRUE(HearsTheBus());
  for (int i = 2; i < 5; ++i) {
    server_->Command({"CLIENT", "KILL", "TYPE", "pubsub"});
    ASSERT_TRUE(RunUntil([&] { return heard_.ups == i; }));
    EXPECT_EQ(heard_.downs, i - 1);
    EXPECT_FALSE(heard_.lost_state);
    EXPECT_TRUE(HearsTheBus());
  }
}

// A middlebox forgets the connection: it stands, but nothing comes.
TEST_F(RedisFailure, ASubscriptionThatHearsNothingIsMadeAgain) {
  AttachAndComeUp();
  // The server itself unsubscribes nobody, but may be forbidden to speak to it: as if the packets were lost.
  const std::string clients = server_->Command({"CLIENT", "LIST", "TYPE", "pubsub"}).text;
  EXPECT_THAT(clients, HasSubstr("name=presence-core"));
  server_->Command({"ACL", "SETUSER", "default", "-publish"});  // no echo, then
  ASSERT_TRUE(RunUntil([&] { return heard_.downs == 1; }));
  EXPECT_THAT(heard_.why, HasSubstr("silent"));
  server_->Command({"ACL", "SETUSER", "default", "+publish"});
  ASSERT_TRUE(RunUntil([&] { return heard_.ups == 2; }));
  EXPECT_TRUE(HearsTheBus());
}

TEST_F(RedisFailure, AFlushedScriptIsLoadedAgain) {
  AttachAndComeUp();
  EXPECT_EQ(Write(), Outcome::kApplied);
  server_->Command({"SCRIPT", "FLUSH"});
  const uint64_t first = SendWrite(), second = SendWrite();
  ASSERT_TRUE(RunUntil([&] { return heard_.ups == 2 && heard_.written.contains(second); }));
  EXPECT_EQ(heard_.written[first].outcome, Outcome::kUnavailable);
  EXPECT_EQ(heard_.answers, (std::vector<uint64_t>{1, first, second}));
  EXPECT_EQ(Write(), Outcome::kApplied);
}

TEST_F(RedisFailure, ADemotedPrimaryIsLeftAndAReplicaIsNotTaken) {
  AttachAndComeUp();
  server_->Command({"REPLICAOF", "127.0.0.1", "1"});
  EXPECT_EQ(Write(), Outcome::kUnavailable);
  ASSERT_TRUE(RunUntil([&] { return heard_.downs == 1 && store_->counters().connections_lost >= 2; }));
  EXPECT_EQ(heard_.ups, 1);
  server_->Command({"REPLICAOF", "NO", "ONE"});
  ASSERT_TRUE(RunUntil([&] { return heard_.ups == 2; }));
  EXPECT_EQ(Write(), Outcome::kApplied);
}

TEST_F(RedisFailure, AStoreThatWasNeverUpSaysNothingAndAnswersAtOnce) {
  server_->Kill();
  Attach(server_->UnixUrl());
  EXPECT_EQ(Write(), Outcome::kUnavailable);
  EXPECT_FALSE(heard_.ups > 0 || heard_.downs > 0);
  server_->Start();
  EXPECT_TRUE(RunUntil([&] { return heard_.ups == 1; }));
  EXPECT_EQ(heard_.downs, 0);
}

TEST_F(RedisFailure, OtherBytesOnTheBusAreCountedAndDropped) {
  AttachAndComeUp();
  server_->Command({"PUBLISH", "presence.bus", "\xff\xff\xff not protobuf"});
  server_->Command({"PUBLISH", "presence:updates", "\xff\xfe"});
  EXPECT_TRUE(HearsTheBus());
  EXPECT_EQ(store_->counters().bus_invalid, 1u);
  EXPECT_EQ(heard_.updates, std::vector<std::string>{"\xff\xfe"});
  EXPECT_EQ(heard_.downs, 0);
}

TEST_F(RedisFailure, AStoreMayEndWithCallsUnderWay) {
  AttachAndComeUp();
  for (int i = 0; i < 100; ++i) SendWrite();
  store_->ReadChanges(1, 0);
  store_.reset();
  io_.run_for(milliseconds(20));
  EXPECT_TRUE(heard_.written.empty());
}

TEST_F(RedisFailure, UserPasswordAndDatabaseComeFromTheUrl) {
  server_->Command({"ACL", "SETUSER", "core", "on", ">p@ss:word", "~*", "&*", "+@all"});
  server_->Command({"ACL", "SETUSER", "default", "off"});
  const std::string place = "@127.0.0.1:" + std::to_string(server_->port()) + "/3";
  Attach("redis://core:wrong" + place);
  EXPECT_TRUE(RunUntil([&] { return store_->counters().connections_lost >= 4; }));
  EXPECT_EQ(heard_.ups, 0);
  Attach("redis://core:p%40ss%3aword" + place);
  ASSERT_TRUE(RunUntil([&] { return heard_.ups == 1; }));
  EXPECT_EQ(Write(), Outcome::kApplied);
  server_->Command({"SELECT", "3"});
  EXPECT_EQ(server_->Command({"EXISTS", "presence:u1"}).number, 1);
}

TEST_F(RedisFailure, WithoutATestClockTheTimeIsRedisOwn) {
  AttachAndComeUp();
  const uint64_t id = SendWrite();
  ASSERT_TRUE(RunUntil([&] { return heard_.written.contains(id); }));
  const auto time = server_->Command({"TIME"}).list;
  const uint64_t now = std::stoull(time[0].text) * 1'000'000 + std::stoull(time[1].text);
  EXPECT_LE(heard_.written[id].user_version, now);
  EXPECT_GT(heard_.written[id].user_version, now - 20'000'000);
  store_->Sweep(10);
  store_->ReadChanges(77, now + 60'000'000);
  ASSERT_TRUE(RunUntil([&] { return heard_.changes.contains(77); }));
  EXPECT_TRUE(heard_.changes.at(77).ok() && heard_.changes.at(77)->complete);
}

// ------------------------------------------------------------------------------------------------------------ REDIS_URL

TEST(RedisUrl, SaysWhereAndHow) {
  RedisAddress address = *ParseRedisUrl("redis://:secret@redis:6379/0");
  EXPECT_EQ(address.host, "redis");
  EXPECT_EQ(address.port, 6379);
  EXPECT_EQ(address.user, "");
  EXPECT_EQ(address.password, "secret");
  EXPECT_EQ(address.database, 0u);
  EXPECT_THAT(address.ToString(), Not(HasSubstr("secret")));

  address = *ParseRedisUrl("redis://me:a%3Ab%40c@10.0.0.1/15");
  EXPECT_EQ(address.user, "me");
  EXPECT_EQ(address.password, "a:b@c");
  EXPECT_EQ(address.host, "10.0.0.1");
  EXPECT_EQ(address.port, 6379);
  EXPECT_EQ(address.database, 15u);

  EXPECT_EQ(ParseRedisUrl("redis://localhost")->host, "localhost");
  EXPECT_EQ(ParseRedisUrl("redis://localhost:7000/")->port, 7000);
  EXPECT_EQ(ParseRedisUrl("redis://[::1]:7000")->host, "::1");
  EXPECT_EQ(ParseRedisUrl("redis://[::1]:7000")->ToString(), "redis://[::1]:7000/0");
  EXPECT_EQ(ParseRedisUrl("unix:///run/redis.sock")->unix_path, "/run/redis.sock");
  EXPECT_EQ(ParseRedisUrl("unix:///run/redis.sock?db=2")->database, 2u);
}

TEST(RedisUrl, ErrorsSayWhatToWriteInstead) {
  const auto error = [](const char* url) { return std::string(ParseRedisUrl(url).status().message()); };
  EXPECT_THAT(error("rediss://redis:6379"), HasSubstr("tunnel"));
  EXPECT_THAT(error("redis:6379"), HasSubstr("write redis://"));
  EXPECT_THAT(error(""), HasSubstr("write redis://"));
  EXPECT_THAT(error("redis://"), HasSubstr("no host"));
  EXPECT_THAT(error("redis://:secret@"), HasSubstr("no host"));
  EXPECT_THAT(error("redis://host:0"), HasSubstr("port"));
  EXPECT_THAT(error("redis://host:70000"), HasSubstr("port"));
  EXPECT_THAT(error("redis://host:6379x"), HasSubstr("port"));
  EXPECT_THAT(error("redis://host:"), HasSubstr("port"));
  EXPECT_THAT(error("redis://host/one"), HasSubstr("database"));
  EXPECT_THAT(error("redis://user@host"), HasSubstr("no password"));
  EXPECT_THAT(error("redis://u:%zz@host"), HasSubstr("%25"));
  EXPECT_THAT(error("redis://[::1"), HasSubstr("]"));
  EXPECT_THAT(error("unix://relative.sock"), HasSubstr("`/`"));
  EXPECT_THAT(error("unix:///a.sock?x=1"), HasSubstr("db="));
  EXPECT_THAT(error("redis://:secret@host:x"), Not(HasSubstr("secret")));
}

}  // namespace
}  // namespace presence::core
