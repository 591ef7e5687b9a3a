// The faults that a MemoryStore plays: unreachable and stalled. What it does as a store is in store_contract_test.cc.
#include "core/memory_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <string>

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
      : database_([this] { return now_; }), mine_({}, database_, heard_), other_({}, database_, others_) {
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

}  // namespace
}  // namespace presence::core
