// WatchPresence over real gRPC, on a whole core: slow and silent clients, many of them, and the end of the core.
#include "core/watch_stream.h"

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <chrono>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "tests/core/api_client.h"
#include "tests/core/test_core.h"

namespace presence::core {
namespace {

using grpc::StatusCode;
using ::testing::ElementsAre;
using ::testing::SizeIs;

v1::WatchPresenceRequest Everyone() {
  v1::WatchPresenceRequest request;
  request.mutable_everyone();
  return request;
}

// A client that reads when it is told to.
class Watch {
 public:
  Watch(TestCore& core, const v1::WatchPresenceRequest& request)
      : stub_(v1::PresenceService::NewStub(TestCore::Dial(*core.api_server))) {
    context_.set_deadline(Deadline());
    stream_ = stub_->WatchPresence(&context_, request);
  }
  ~Watch() {
    if (!stream_) return;
    context_.TryCancel();
    Finish();
  }

  bool Read() {
    v1::WatchPresenceResponse response;
    if (!stream_->Read(&response)) return false;
    ++responses;
    for (const v1::Presence& presence : response.presences()) {
      ++rows;
      EXPECT_GE(presence.version(), belief[presence.user_id()].version());
      belief[presence.user_id()] = presence;
    }
    for (const std::string& user_id : response.left_user_ids()) belief.erase(user_id);
    done = done || response.snapshot_done();
    return true;
  }
  void ReadSnapshot() {
    while (!done) ASSERT_TRUE(Read()) << "the stream has ended";
  }
  // Until that is what it has been told of that user.
  void Await(const std::string& user_id, v1::Status status) {
    while (belief[user_id].status() != status) ASSERT_TRUE(Read()) << "the stream has ended";
  }
  void Cancel() { context_.TryCancel(); }
  grpc::Status Finish() {
    while (Read()) {
    }
    const grpc::Status status = stream_->Finish();
    stream_.reset();
    return status;
  }

  std::map<std::string, v1::Presence> belief;
  size_t responses = 0, rows = 0;
  bool done = false;

 private:
  std::unique_ptr<v1::PresenceService::Stub> stub_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReader<v1::WatchPresenceResponse>> stream_;
};

// Waits, turn by turn, for so many watchers.
void AwaitWatchers(TestCore& core, size_t count) {
  const auto deadline = Deadline();
  size_t watchers = count + 1;
  while (watchers != count && std::chrono::system_clock::now() < deadline) {
    core.OnLoop([&] { watchers = core.runtime->watches().watchers(); });
  }
  EXPECT_EQ(watchers, count);
}

TEST(WatchStream, ASnapshotAndThenEveryChange) {
  TestCore core;
  core.PutOnline("alice");
  v1::WatchPresenceRequest request;
  request.mutable_users()->add_user_ids("alice");
  request.mutable_users()->add_user_ids("bob");
  Watch watch(core, request);
  watch.ReadSnapshot();
  EXPECT_EQ(watch.belief["alice"].status(), v1::STATUS_ONLINE);
  EXPECT_EQ(watch.belief["alice"].username(), "name of alice");
  EXPECT_NE(watch.belief["alice"].version(), 0u);
  EXPECT_TRUE(watch.belief["alice"].has_last_seen_time());
  EXPECT_EQ(watch.belief["bob"].status(), v1::STATUS_OFFLINE);
  EXPECT_FALSE(watch.belief["bob"].has_last_seen_time());
  core.PutOnline("carol");
  core.PutOnline("bob", link::v1::STATUS_AWAY);
  watch.Await("bob", v1::STATUS_AWAY);
  EXPECT_THAT(watch.belief, SizeIs(2));
}

TEST(WatchStream, TheMembersOfARoom) {
  TestCore core([](CoreRuntimeOptions& options) { options.watches.rooms_every = std::chrono::milliseconds(10); });
  v1::WatchPresenceRequest request;
  request.set_room_id("room");
  Watch watch(core, request);
  watch.ReadSnapshot();
  EXPECT_THAT(watch.belief, SizeIs(0));
  TestEdge edge(core);
  edge.AttachWithRoom(0, "room");
  watch.Await("user", v1::STATUS_ONLINE);
}

TEST(WatchStream, ResumesWhereItEnded) {
  TestCore core;
  core.PutOnline("alice");
  v1::WatchPresenceRequest request = Everyone();
  request.set_resume_version(static_cast<uint64_t>(ToUnixMillis(ReadClocks().wall)) * 1'000);
  Watch watch(core, request);
  watch.ReadSnapshot();
  EXPECT_EQ(watch.belief["alice"].status(), v1::STATUS_ONLINE) << "within the overlap";
}

const StreamMetrics& Counts(const TestCore& core) {
  return core.api->metrics().streams().front().metrics;
}

TEST(WatchStream, RefusesWhatIsInvalidAndNamesTheField) {
  TestCore core;
  EXPECT_THAT(FieldsAtFault(Watch(core, {}).Finish()), ElementsAre("target"));
  v1::WatchPresenceRequest request;
  request.mutable_users();
  EXPECT_THAT(FieldsAtFault(Watch(core, request).Finish()), ElementsAre("users.user_ids"));
  request.mutable_users()->add_user_ids("alice");
  request.mutable_users()->add_user_ids("");
  EXPECT_THAT(FieldsAtFault(Watch(core, request).Finish()), ElementsAre("users.user_ids[1]"));
  request.set_room_id(std::string(2'049, 'x'));
  EXPECT_THAT(FieldsAtFault(Watch(core, request).Finish()), ElementsAre("room_id"));
  EXPECT_EQ(Counts(core).refused.load(), 4u);
  EXPECT_EQ(Counts(core).opened.Value(), 0u);
}

TEST(WatchStream, RefusesOneTooMany) {
  TestCore core([](CoreRuntimeOptions& options) { options.watches.watchers_max = 1; });
  Watch first(core, Everyone());
  first.ReadSnapshot();
  const grpc::Status refused = Watch(core, Everyone()).Finish();
  EXPECT_EQ(refused.error_code(), StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_GT(RetrySeconds(refused), 0);
  core.PutOnline("alice");
  first.Await("alice", v1::STATUS_ONLINE);
  EXPECT_EQ(Counts(core).opened.Value(), 1u);
  EXPECT_EQ(Counts(core).refused.load(), 1u);
  EXPECT_GE(Counts(core).responses.Value(), first.responses);
}

TEST(WatchStream, IsUnavailableWithoutAStore) {
  TestCore core;
  core.SetReachable(false);
  EXPECT_EQ(Watch(core, Everyone()).Finish().error_code(), StatusCode::UNAVAILABLE);
}

TEST(WatchStream, AnOutageOfTheStoreIsAPause) {
  TestCore core;
  Watch watch(core, Everyone());
  watch.ReadSnapshot();
  core.SetReachable(false);
  core.PutOnline("alice");
  core.SetReachable(true);
  watch.Await("alice", v1::STATUS_ONLINE);
}

// Ids of 2 KB, so that little fits into the connection's buffers.
std::string Long(int i) {
  return std::string(2'000, 'x') + std::to_string(i);
}

TEST(WatchStream, ASlowReaderIsToldTheNewest) {
  constexpr int kUsers = 20, kRounds = 400;
  TestCore core;
  Watch watch(core, Everyone());
  watch.ReadSnapshot();
  for (int round = 0; round < kRounds; ++round) {
    core.OnLoop([&] {
      for (int i = 0; i < kUsers; ++i) {
        const uint64_t version = static_cast<uint64_t>(round) + 1;
        core.runtime->watches().OnPresenceChanged(
            ReadClocks(),
            {Long(i), "", round + 1 == kRounds ? link::v1::STATUS_AWAY : link::v1::STATUS_ONLINE, version, 1});
      }
    });
  }
  for (int i = 0; i < kUsers; ++i) watch.Await(Long(i), v1::STATUS_AWAY);
  EXPECT_LT(watch.rows, static_cast<size_t>(kUsers * kRounds / 2)) << "16 MB do not fit into what lies between";
}

TEST(WatchStream, WhoDoesNotReadIsEnded) {
  TestCore core([](CoreRuntimeOptions& options) { options.watches.users_waiting_max = 100; });
  Watch stuck(core, Everyone());
  Watch reading(core, Everyone());
  stuck.ReadSnapshot();
  reading.ReadSnapshot();
  AwaitWatchers(core, 2);
  int changed = 0;
  size_t watchers = 2;
  while (watchers == 2 && changed < 100'000) {
    core.OnLoop([&] {
      const std::string user_id = Long(changed++);
      core.runtime->watches().OnPresenceChanged(ReadClocks(), {user_id, "", link::v1::STATUS_ONLINE, 1, 1});
      watchers = core.runtime->watches().watchers();
    });
    while (reading.rows < static_cast<size_t>(changed)) ASSERT_TRUE(reading.Read());
  }
  AwaitWatchers(core, 1);
  uint64_t ended_slow = 0;
  core.OnLoop([&] { ended_slow = core.runtime->watches().ended_slow(); });
  EXPECT_EQ(ended_slow, 1u);
  EXPECT_EQ(Counts(core).ended_slow.Value(), 1u);
  const grpc::Status status = stuck.Finish();
  EXPECT_EQ(status.error_code(), StatusCode::RESOURCE_EXHAUSTED) << "it reads again, within the linger";
  EXPECT_GT(RetrySeconds(status), 0);
}

TEST(WatchStream, ACancelledCallIsForgotten) {
  TestCore core;
  Watch idle(core, Everyone());
  idle.ReadSnapshot();
  Watch early(core, Everyone());
  early.Cancel();  // perhaps before the core has heard of it
  EXPECT_EQ(early.Finish().error_code(), StatusCode::CANCELLED);
  AwaitWatchers(core, 1);
  idle.Cancel();
  AwaitWatchers(core, 0);
  EXPECT_EQ(idle.Finish().error_code(), StatusCode::CANCELLED);
}

TEST(WatchStream, EndsWithTheCore) {
  TestCore core;
  Watch watch(core, Everyone());
  watch.ReadSnapshot();
  EXPECT_TRUE(core.runtime->Drain(std::chrono::duration_cast<std::chrono::milliseconds>(kPatience)));
  const grpc::Status status = watch.Finish();
  EXPECT_EQ(status.error_code(), StatusCode::UNAVAILABLE);
  EXPECT_EQ(status.error_message(), "core is stopping");
  EXPECT_EQ(Counts(core).ended_slow.Value(), 0u);
  EXPECT_EQ(Watch(core, Everyone()).Finish().error_code(), StatusCode::UNAVAILABLE);
}

// -------------------------------------------------------------------------------------------------------- a thousand

// Watchers of everyone over a few connections, which read as fast as they can.
class Crowd {
 public:
  Crowd(TestCore& core, int count) {
    for (int i = 0; i < count; ++i) {
      if (i % 250 == 0) stubs_.push_back(v1::PresenceService::NewStub(TestCore::Dial(*core.api_server)));
      watchers_.push_back(std::make_unique<One>(*this, *stubs_.back()));
    }
  }
  ~Crowd() {
    for (auto& watcher : watchers_) watcher->context.TryCancel();
    AwaitEnd();
  }
  // Whether so many have been told the whole snapshot, or of that user.
  bool AwaitSnapshots(size_t count) {
    return Await([this] { return snapshots_; }, count);
  }
  bool AwaitTold(const std::string& user_id, size_t count) {
    return Await([&] { return told_[user_id]; }, count);
  }
  bool AwaitEnd() {
    return Await([this] { return ended_; }, watchers_.size());
  }
  std::map<StatusCode, size_t> codes() {
    absl::MutexLock lock(&mutex_);
    return codes_;
  }

 private:
  class One final : public grpc::ClientReadReactor<v1::WatchPresenceResponse> {
   public:
    One(Crowd& crowd, v1::PresenceService::Stub& stub) : crowd_(crowd) {
      context.set_deadline(Deadline());
      stub.async()->WatchPresence(&context, &request_, this);
      StartRead(&response_);
      StartCall();
    }
    void OnReadDone(bool ok) override {
      if (!ok) return;
      {
        absl::MutexLock lock(&crowd_.mutex_);
        if (response_.snapshot_done()) ++crowd_.snapshots_;
        for (const auto& presence : response_.presences()) ++crowd_.told_[presence.user_id()];
      }
      StartRead(&response_);
    }
    void OnDone(const grpc::Status& status) override {
      absl::MutexLock lock(&crowd_.mutex_);
      ++crowd_.ended_;
      ++crowd_.codes_[status.error_code()];
    }
    grpc::ClientContext context;

   private:
    Crowd& crowd_;
    const v1::WatchPresenceRequest request_ = Everyone();
    v1::WatchPresenceResponse response_;
  };

  template <typename Count>
  bool Await(Count count, size_t wanted) {
    absl::MutexLock lock(&mutex_);
    const auto enough = [&] { return count() >= wanted; };
    return mutex_.AwaitWithTimeout(absl::Condition(&enough), absl::FromChrono(kPatience));
  }

  absl::Mutex mutex_;
  size_t snapshots_ = 0, ended_ = 0;
  std::map<std::string, size_t> told_;
  std::map<StatusCode, size_t> codes_;
  std::vector<std::unique_ptr<v1::PresenceService::Stub>> stubs_;
  std::vector<std::unique_ptr<One>> watchers_;
};

TEST(WatchStream, AThousandWatchersSeeAChange) {
  TestCore core;
  for (int i = 0; i < 10; ++i) core.PutOnline("early " + std::to_string(i));
  Crowd crowd(core, 1'000);
  EXPECT_TRUE(crowd.AwaitSnapshots(1'000));
  core.PutOnline("late");
  EXPECT_TRUE(crowd.AwaitTold("late", 1'000));
  EXPECT_TRUE(crowd.AwaitTold("early 9", 1'000));
}

TEST(WatchStream, TheCoreMayGoAwayInTheMiddle) {
  auto core = std::make_unique<TestCore>();
  Crowd crowd(*core, 200);
  EXPECT_TRUE(crowd.AwaitSnapshots(100));
  for (int i = 0; i < 50; ++i) core->PutOnline("user " + std::to_string(i));
  core.reset();
  EXPECT_TRUE(crowd.AwaitEnd());
  EXPECT_EQ(crowd.codes()[StatusCode::OK], 0u);
}

}  // namespace
}  // namespace presence::core
