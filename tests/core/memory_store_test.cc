// The faults that a MemoryStore plays: unreachable and stalled. What it does as a store is in store_contract_test.cc.
#include "core/memory_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <vector>

#include "tests/fakes/store_backend.h"

namespace presence::core {
namespace {

using std::chrono::milliseconds;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;
using Outcome = WriteResult::Outcome;

class MemoryStoreFaults : public testing::Test {
 protected:
  MemoryStoreFaults()
      : database_([this] { return now_; }),
        mine_({.core_incarnation = 1}, database_, heard_),
        other_({.core_incarnation = 2}, database_, others_) {
    Run();
  }

  void Run() {
    while (mine_.RunPending() || other_.RunPending()) {
    }
  }
  void Send(MemoryStore& store, uint64_t id, Status status = link::v1::STATUS_ONLINE) {
    PresenceWrite write;
    write.id = id;
    write.key = {1, id};
    write.attach = 1;
    write.user_id = "u1";
    write.status = status;
    store.Write(write);
  }

  std::vector<uint64_t> Announce(MemoryStore& store, const RecordingListener& heard) {
    store.Announce();
    Run();
    return heard.cores.empty() || !heard.cores.back().ok() ? std::vector<uint64_t>{} : *heard.cores.back();
  }
  static void Reply(MemoryStore& store, uint64_t core, uint64_t id) {
    link::v1::ClusterReplies replies;
    replies.add_replies()->set_id(id);
    store.Reply(core, replies);
  }

  WallTime now_ = FromUnixMillis(1'736'856'000'000);
  RecordingListener heard_, others_;
  MemoryDatabase database_;
  MemoryStore mine_, other_;
};

TEST_F(MemoryStoreFaults, GoingAwayLosesAnswersButNotWhatWasDone) {
  Send(mine_, 1);
  mine_.SetReachable(false);
  Send(mine_, 2);
  EXPECT_THAT(heard_.written, IsEmpty()) << "told from inside a call";
  Run();
  EXPECT_EQ(heard_.downs, 1);
  EXPECT_EQ(heard_.written[1].outcome, Outcome::kUnavailable);
  EXPECT_EQ(heard_.written[2].outcome, Outcome::kUnavailable);
  EXPECT_THAT(heard_.bus, IsEmpty());
  EXPECT_THAT(others_.bus, SizeIs(1)) << "the first write was applied";
  mine_.SetReachable(true);
  Run();
  EXPECT_EQ(heard_.ups, 2);
}

TEST_F(MemoryStoreFaults, AnAnswerThatTheStoreIsAwaySurvivesASecondFault) {
  mine_.SetReachable(false);
  Send(mine_, 1);
  mine_.SetReachable(true);
  mine_.SetReachable(false);
  mine_.SetReachable(true);
  Run();
  EXPECT_EQ(heard_.written[1].outcome, Outcome::kUnavailable);
  EXPECT_EQ(heard_.downs, 1);
  EXPECT_EQ(heard_.ups, 2);
}

TEST_F(MemoryStoreFaults, ALostSubscriptionLosesWhatIsPublishedAndAnswersLate) {
  Send(mine_, 1);
  mine_.SetSubscribed(false);
  Send(mine_, 2);
  Run();
  EXPECT_EQ(heard_.downs, 1);
  EXPECT_THAT(heard_.answers, ElementsAre(2)) << "the other one is still on its way";
  EXPECT_EQ(heard_.written[2].outcome, Outcome::kUnavailable);
  Send(other_, 3, link::v1::STATUS_AWAY);
  Run();
  mine_.SetSubscribed(true);
  EXPECT_TRUE(mine_.RunPending());
  EXPECT_EQ(heard_.ups, 2);
  EXPECT_EQ(heard_.written[1].outcome, Outcome::kApplied);
  EXPECT_THAT(heard_.bus, IsEmpty());
}

TEST_F(MemoryStoreFaults, WhatIsLateIsLostWithTheConnection) {
  Send(mine_, 1);
  mine_.SetSubscribed(false);
  mine_.SetReachable(false);
  mine_.SetSubscribed(true);
  Run();
  EXPECT_EQ(heard_.written[1].outcome, Outcome::kUnavailable);
  EXPECT_EQ(heard_.downs, 1);
  EXPECT_EQ(heard_.ups, 1);
  mine_.SetReachable(true);
  Run();
  EXPECT_EQ(heard_.ups, 2);
}

TEST_F(MemoryStoreFaults, AShortStallOnlyDelays) {
  mine_.SetFrozen(true);
  Send(mine_, 1);
  Send(other_, 2);
  Run();
  EXPECT_THAT(heard_.written, IsEmpty());
  EXPECT_THAT(heard_.bus, IsEmpty());
  now_ += milliseconds(1999);
  mine_.SetFrozen(false);
  Run();
  EXPECT_EQ(heard_.written[1].outcome, Outcome::kApplied);
  EXPECT_EQ(heard_.downs, 0);
  EXPECT_THAT(heard_.bus, SizeIs(1)) << "of the other's write; the second device changed nothing";
}

TEST_F(MemoryStoreFaults, ALongStallIsGivenUpAndItsCallsStillTakeEffectAtTheThaw) {
  Send(mine_, 1);
  Run();
  mine_.SetFrozen(true);
  Send(mine_, 1, link::v1::STATUS_AWAY);
  now_ += milliseconds(2000);
  Run();
  EXPECT_EQ(heard_.downs, 1);
  EXPECT_EQ(heard_.written[1].outcome, Outcome::kUnavailable);
  EXPECT_EQ(database_.GetPresence("u1").status, link::v1::STATUS_ONLINE);
  mine_.SetFrozen(false);
  Run();
  EXPECT_EQ(heard_.ups, 2);
  EXPECT_EQ(database_.GetPresence("u1").status, link::v1::STATUS_AWAY);
  EXPECT_THAT(heard_.answers, ElementsAre(1, 1)) << "no second answer";
}

TEST_F(MemoryStoreFaults, ASweepGoesOnOneStepAtATimeAndOnlyWhileTheStoreIsUp) {
  StoreOptions loud;
  loud.quiet_period = milliseconds(0);
  MemoryStore store(loud, database_, heard_);
  for (uint64_t id = 0; id < 10; ++id) {
    const std::string user = "u" + std::to_string(id);
    PresenceWrite write;
    write.key = {1, id};
    write.attach = 1;
    write.user_id = user;
    store.Write(write);
  }
  now_ += loud.entry_lifetime;
  store.RunPending();
  const auto online = [&] { return database_.ListPresence({}, 100).users.size(); };
  store.Sweep(4);
  EXPECT_EQ(online(), 6u);
  store.RunPending();
  EXPECT_EQ(online(), 2u);
  store.SetReachable(false);
  while (store.RunPending()) {
  }
  EXPECT_EQ(online(), 2u);
  store.SetReachable(true);
  store.Sweep(4);
  EXPECT_EQ(online(), 0u);
}

TEST_F(MemoryStoreFaults, ARefreshIsAnsweredAlsoWhenTheStoreIsAway) {
  mine_.SetReachable(false);
  mine_.Refresh(7, std::vector<RefreshEntry>{{{1, 1}, 1, "u1", false}});
  Run();
  ASSERT_TRUE(heard_.refreshed.contains(7));
  EXPECT_THAT(heard_.refreshed[7], IsEmpty());
}

TEST_F(MemoryStoreFaults, AWipedDatabaseIsSaidToHaveLostItsState) {
  mine_.Sweep(1);
  mine_.SetReachable(false);
  mine_.SetReachable(true);
  Run();
  EXPECT_FALSE(heard_.lost_state);
  mine_.SetReachable(false);
  database_.Wipe();
  mine_.SetReachable(true);
  Run();
  EXPECT_TRUE(heard_.lost_state);
}

// ------------------------------------------------------------------------------------- what cores say to each other

TEST_F(MemoryStoreFaults, WithoutTheStoreEverythingIsAnsweredUnavailable) {
  mine_.PublishOnce(1, "r1", "one", {}, "");  // has happened; the answer is lost
  mine_.SetReachable(false);
  mine_.PublishOnce(2, "r2", "one", {}, "");
  mine_.Announce();
  absl::Status read;
  mine_.GetPresences(std::vector<std::string>{"u1"}, [&](const auto& users) { read = users.status(); });
  EXPECT_THAT(heard_.once, IsEmpty()) << "told from inside a call";
  Run();
  EXPECT_EQ(heard_.once[1].outcome, OnceResult::Outcome::kUnavailable);
  EXPECT_EQ(heard_.once[2].outcome, OnceResult::Outcome::kUnavailable);
  ASSERT_THAT(heard_.cores, SizeIs(1));
  EXPECT_TRUE(absl::IsUnavailable(heard_.cores[0].status()));
  EXPECT_TRUE(absl::IsUnavailable(read));
  EXPECT_THAT(others_.bus, SizeIs(1));
  mine_.SetReachable(true);
  mine_.PublishOnce(1, "r1", "one", {}, "");
  mine_.PublishOnce(2, "r2", "one", {}, "");
  Run();
  EXPECT_EQ(heard_.once[1].outcome, OnceResult::Outcome::kRepeated);
  EXPECT_EQ(heard_.once[2].outcome, OnceResult::Outcome::kPublished);
}

TEST_F(MemoryStoreFaults, AnAnnouncementAgesWhileItsCoreDoesNotReachTheStore) {
  EXPECT_THAT(Announce(mine_, heard_), ElementsAre(1));
  EXPECT_THAT(Announce(other_, others_), ElementsAre(1, 2));
  mine_.SetReachable(false);
  now_ += StoreOptions().core_lifetime - milliseconds(1);
  EXPECT_THAT(Announce(mine_, heard_), IsEmpty());
  EXPECT_THAT(Announce(other_, others_), ElementsAre(1, 2));
  now_ += milliseconds(1);
  EXPECT_THAT(Announce(other_, others_), ElementsAre(2));
  mine_.SetReachable(true);
  EXPECT_THAT(Announce(mine_, heard_), ElementsAre(1, 2));
}

TEST_F(MemoryStoreFaults, WhatWaitsForAStalledStoreHappensAtTheThawAlsoWhenItIsGivenUp) {
  mine_.SetFrozen(true);
  mine_.PublishOnce(1, "r1", "one", {}, "");
  mine_.SaveAnswer("r1", "42");
  mine_.Announce();
  Reply(mine_, 2, 9);
  now_ += milliseconds(2000);
  Run();
  EXPECT_EQ(heard_.once[1].outcome, OnceResult::Outcome::kUnavailable);
  EXPECT_THAT(others_.arrivals, IsEmpty());
  EXPECT_THAT(Announce(other_, others_), ElementsAre(2));
  mine_.SetFrozen(false);
  Run();
  EXPECT_THAT(others_.arrivals, ElementsAre("bus 0", "reply 9"));
  EXPECT_THAT(Announce(other_, others_), ElementsAre(1, 2));
  other_.PublishOnce(2, "r1", "one", {}, "");
  Run();
  EXPECT_EQ(others_.once[2].answer, "42");
}

TEST_F(MemoryStoreFaults, RepliesAreVolatileAndAShortStallKeepsTheirOrder) {
  link::v1::BusEnvelope envelope;
  mine_.SetFrozen(true);
  Reply(other_, 1, 1);
  envelope.set_sequence(2);
  other_.Publish(1, envelope, "");
  Reply(other_, 1, 3);
  Reply(other_, 2, 4);
  mine_.SetFrozen(false);
  Run();
  EXPECT_THAT(heard_.arrivals, ElementsAre("reply 1", "bus 2", "reply 3"));
  mine_.SetReachable(false);
  Reply(other_, 1, 5);
  mine_.SetReachable(true);
  Run();
  EXPECT_THAT(heard_.arrivals, SizeIs(3));
}

TEST_F(MemoryStoreFaults, AWithdrawalThatDoesNotGetThroughIsLeftToTime) {
  Announce(mine_, heard_);
  mine_.SetReachable(false);
  mine_.Withdraw();
  EXPECT_THAT(Announce(other_, others_), ElementsAre(1, 2));
  now_ += StoreOptions().core_lifetime;
  EXPECT_THAT(Announce(other_, others_), ElementsAre(2));
}

}  // namespace
}  // namespace presence::core
