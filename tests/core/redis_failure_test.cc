// RedisStore when Redis is not well: killed, stalled, partly cut off, demoted, without its script, refusing single
// calls, or with foreign keys in it. Real servers and real time; each waits for what it expects, with a deadline far
// behind it.
#include "tests/core/redis_failure.h"

#include "common/log.h"

namespace presence::core {
namespace {

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

// Overloaded, it still answers one command after the other.
TEST_F(RedisFailure, ASlowRedisIsNotTakenForOneThatIsGone) {
  struct Listening final : RedisConnection::Listener {
    void OnConnectionReady(RedisConnection&) override {}
    void OnConnectionLost(RedisConnection&, std::string_view why) override { lost = why; }
    void OnMessage(std::string_view, std::string_view) override {}
    std::string lost;
  } listener;
  RedisConnection connection(io_, {.address = *ParseRedisUrl(server_->UnixUrl()), .name = "test", .channels = {}},
                             listener);
  ASSERT_TRUE(RunUntil([&] { return connection.ready(); }));
  RedisCommand slow;
  slow.Start(4).Add("EVAL").Add(
      "local function now() local time = redis.call('TIME') return time[1] * 1000000 + time[2] end "
      "local from = now() while now() - from < 600000 do end return 1");
  // Redis answers when it has carried out what it has read: not more than one of these at once.
  slow.Add("0").Add(std::string(100'000, 'x'));
  int answers = 0;
  for (int i = 0; i < 5; ++i) {
    ASSERT_TRUE(connection.Send(slow, [&](RedisReply reply) { answers += static_cast<int>(reply.number()); }));
  }
  ASSERT_TRUE(RunUntil([&] { return answers == 5 || !listener.lost.empty(); }));
  EXPECT_EQ(answers, 5) << "the last one waits for longer than 2 s, and none is silent for so long";
  EXPECT_EQ(listener.lost, "");
}

TEST_F(RedisFailure, NoMoreThanABoundWaitsForAStalledRedis) {
  AttachAndComeUp();
  server_->Stall();
  for (size_t i = 0; i < RedisConnection::kCommandsMax; ++i) SendWrite();
  const uint64_t one_too_many = SendWrite();
  const uint64_t refresh = SendRefresh({"u1"});
  const auto start = steady_clock::now();
  ASSERT_TRUE(RunUntil([&] { return heard_.written.contains(one_too_many) && heard_.refreshed.contains(refresh); }));
  EXPECT_TRUE(heard_.refreshed[refresh].empty()) << "nothing is known to be missing";
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
  ASSERT_TRUE(RunUntil([&] { return heard_.downs == 1 && store_->counters().connections_lost.Value() >= 2; }));
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
  EXPECT_EQ(store_->counters().bus_invalid.Value(), 1u);
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
  EXPECT_TRUE(RunUntil([&] { return store_->counters().connections_lost.Value() >= 4; }));
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

// ------------------------------------------------------------------------------------- Redis is up and refuses

TEST_F(RedisFailure, ARefreshThatRedisRefusesIsAnswered) {
  AttachAndComeUp();
  EXPECT_EQ(Write(), Outcome::kApplied);
  server_->Command({"CONFIG", "SET", "min-replicas-to-write", "1"});
  EXPECT_TRUE(Refresh({"u1", "nobody"}).empty()) << "of a refused call nothing is known";
  EXPECT_EQ(Refresh(std::vector<std::string_view>(300, "u1")), std::vector<uint32_t>());
  EXPECT_EQ(heard_.downs, 0);
  server_->Command({"CONFIG", "SET", "min-replicas-to-write", "0"});
  EXPECT_EQ(Refresh({"u1", "nobody"}), std::vector<uint32_t>{1});
}

// Full memory. What needs none is done: publications without a request_id, and the subscription hears them.
TEST_F(RedisFailure, WritesThatRedisHasNoMemoryForAreUnavailableAndItStaysUp) {
  AttachAndComeUp();
  EXPECT_EQ(Write("u1"), Outcome::kApplied);
  server_->Command({"CONFIG", "SET", "maxmemory", "1"});
  EXPECT_EQ(Write("u2"), Outcome::kUnavailable);
  EXPECT_EQ(PublishOnce("key", "a").outcome, OnceResult::Outcome::kUnavailable);
  EXPECT_EQ(Announce().status().code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(HearsTheBus());
  EXPECT_TRUE(GetMany({"u1"}).ok());
  EXPECT_TRUE(Refresh({"u1"}).empty()) << "nobody is missing";
  EXPECT_EQ(heard_.downs, 0);
  server_->Command({"CONFIG", "SET", "maxmemory", "0"});
  EXPECT_EQ(Write("u2"), Outcome::kApplied);
  EXPECT_EQ(PublishOnce("key", "a").outcome, OnceResult::Outcome::kPublished) << "it was not kept that it was sent";
}

TEST_F(RedisFailure, ARefreshReadsEachUserOnce) {
  AttachAndComeUp();
  EXPECT_EQ(Write("u1"), Outcome::kApplied);
  EXPECT_EQ(Write("u2"), Outcome::kApplied);
  std::vector<std::string_view> users;
  for (int i = 0; i < 100; ++i) users.insert(users.end(), {"u1", "u2"});
  server_->Command({"CONFIG", "RESETSTAT"});
  EXPECT_TRUE(Refresh(users).empty());
  const std::string statistics = server_->Command({"INFO", "commandstats"}).text;
  for (const char* command : {"hgetall", "zadd", "expire"}) {
    EXPECT_THAT(statistics, HasSubstr(std::string("cmdstat_") + command + ":calls=2,"));
  }
}

// A user whose hash cannot be read may be online: nobody may be told anything else.
TEST_F(RedisFailure, ChangesAreReadAsAWholeOrNotAtAll) {
  AttachAndComeUp();
  EXPECT_EQ(Write("u2"), Outcome::kApplied);
  EXPECT_EQ(Write("u1"), Outcome::kApplied);
  for (const char* barred : {"-hgetall", "-hget", "-time", "-zrangebyscore"}) {
    server_->Command({"ACL", "SETUSER", "default", barred});
    EXPECT_EQ(Changes().status().code(), absl::StatusCode::kUnavailable) << barred;
    server_->Command({"ACL", "SETUSER", "default", "+@all"});
  }
  server_->Command({"ACL", "SETUSER", "default", "resetkeys", "~presence.[cso]*", "~presence.user:u1"});
  EXPECT_EQ(Changes().status().code(), absl::StatusCode::kUnavailable)
      << "the last reply is good, one before it is not";
  server_->Command({"ACL", "SETUSER", "default", "allkeys"});
  const auto log = Changes();
  ASSERT_TRUE(log.ok());
  ASSERT_EQ(log->changes.size(), 2u);
  for (const StoredChange& change : log->changes) EXPECT_EQ(change.presence.status, link::v1::STATUS_ONLINE);
}

TEST_F(RedisFailure, ARedisThatCannotBeInspectedIsNotTakenAndTheLogSaysWhy) {
  std::string lines;  // written by the log's thread, read behind Stop
  log::Start({.sink = [&](std::string_view line) { lines += line; }});
  server_->Command({"ACL", "SETUSER", "default", "-info"});
  Attach(server_->UnixUrl());
  EXPECT_TRUE(RunUntil([&] { return store_->counters().connections_lost.Value() >= 2; }));
  server_->Command({"ACL", "SETUSER", "default", "+info", "-hget"});
  const uint64_t lost = store_->counters().connections_lost.Value();
  EXPECT_TRUE(RunUntil([&] { return store_->counters().connections_lost.Value() >= lost + 2; }));
  EXPECT_EQ(heard_.ups, 0);
  server_->Command({"ACL", "SETUSER", "default", "+hget"});
  EXPECT_TRUE(RunUntil([&] { return heard_.ups == 1; }));
  EXPECT_EQ(Write(), Outcome::kApplied);
  log::Stop();
  EXPECT_THAT(lines, HasSubstr("Redis refuses INFO: NOPERM"));
  EXPECT_THAT(lines, HasSubstr("Redis refuses HGET presence.sweep: NOPERM"));
}

// ------------------------------------------------------------------------------- others have written to our keys

TEST_F(RedisFailure, AWriteTakesItsUsersKeyBack) {
  AttachAndComeUp();
  server_->Command({"SET", "presence.user:u1", "a string"});
  EXPECT_EQ(Write(), Outcome::kApplied);
  EXPECT_EQ(server_->Command({"TYPE", "presence.user:u1"}).text, "hash");
  server_->Command({"HSET", "presence.user:u1", "held", "for ever"});
  EXPECT_EQ(Write(), Outcome::kApplied);
}

TEST_F(RedisFailure, AForeignKeyHarmsNoOtherUsersRefreshAndRead) {
  AttachAndComeUp();
  for (const char* user : {"u1", "u2", "u3"}) EXPECT_EQ(Write(user), Outcome::kApplied);
  server_->Command({"SET", "presence.user:u2", "a string"});
  const auto log = Changes();
  ASSERT_TRUE(log.ok());
  EXPECT_EQ(log->changes.size(), 3u);
  server_->Command({"HDEL", "presence.user:u3", "state"});
  EXPECT_EQ(Refresh({"u1", "u2", "u3"}), (std::vector<uint32_t>{1, 2})) << "missing: their core asserts them again";
  EXPECT_EQ(Write("u3"), Outcome::kApplied);
  EXPECT_EQ(Refresh({"u3"}), std::vector<uint32_t>());
}

TEST_F(RedisFailure, ASweepEndsOthersBesideAForeignKey) {
  AttachLoudAndComeUp();
  for (const char* user : {"u1", "u2", "u3"}) EXPECT_EQ(Write(user), Outcome::kApplied);
  server_->Command({"SET", "presence.user:u1", "a string"});
  server_->Command({"HSET", "presence.user:u2", "held", "for ever"});
  now_ += store_options_.entry_lifetime;
  Sweep();
  EXPECT_THAT(Stored("u2"), HasSubstr("offline"));
  EXPECT_THAT(Stored("u3"), HasSubstr("offline"));
  EXPECT_EQ(server_->Command({"EXISTS", "presence.deadlines", "presence.user:u1"}).number, 0);
}

TEST_F(RedisFailure, AUserWhomASweepCannotEndIsPutOffAndStandsInNobodysWay) {
  AttachLoudAndComeUp();
  for (const char* user : {"u1", "u2"}) EXPECT_EQ(Write(user), Outcome::kApplied);
  now_ += store_options_.entry_lifetime;
  server_->Command({"ACL", "SETUSER", "default", "resetkeys", "~presence.*", "~presence:u2"});
  Sweep();
  server_->Command({"ACL", "SETUSER", "default", "allkeys"});
  EXPECT_EQ(store_->counters().sweeps_failed.Value(), 1u);
  EXPECT_THAT(Stored("u1"), HasSubstr("online"));
  EXPECT_THAT(Stored("u2"), HasSubstr("offline"));
  now_ += store_options_.entry_lifetime;
  Sweep();
  EXPECT_THAT(Stored("u1"), HasSubstr("offline"));
}

}  // namespace
}  // namespace presence::core
