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
#include "core/server_stream.h"
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

// -------------------------------------------------------------------------------------- the stream itself: its end

// Says as much as it is asked for each time.
class TalkingStream final : public LoopStream<v1::WatchPresenceResponse> {
 public:
  struct Seen {
    absl::Mutex mutex;
    std::weak_ptr<TalkingStream> stream;
    int filled = 0, closed = 0;
    absl::Notification gone;
  };

  TalkingStream(grpc::CallbackServerContext& context, CoreRuntime& runtime, std::chrono::milliseconds linger,
                Seen& seen)
      : LoopStream(context, runtime, linger), seen_(seen) {}
  ~TalkingStream() override { seen_.gone.Notify(); }

  void Say(size_t bytes, int times) {
    bytes_ = bytes;
    times_ = times;
    Pump();
  }
  using LoopStream::End;

 private:
  void Begin() override {
    absl::MutexLock lock(&seen_.mutex);
    seen_.stream = std::static_pointer_cast<TalkingStream>(shared_from_this());
  }
  bool Fill(v1::WatchPresenceResponse* response) override {
    if (times_ == 0) return false;
    --times_;
    response->add_left_user_ids(std::string(bytes_, 'x'));
    absl::MutexLock lock(&seen_.mutex);
    ++seen_.filled;
    return true;
  }
  void Close() override {
    absl::MutexLock lock(&seen_.mutex);
    ++seen_.closed;
  }

  Seen& seen_;
  size_t bytes_ = 0;
  int times_ = 0;
};

class ServerStreamTest : public ::testing::Test, private v1::PresenceService::CallbackService {
  // Its connection is read, as that of any living process is; the stream only when it is told to.
  struct Client final : grpc::ClientReadReactor<v1::WatchPresenceResponse> {
    void OnReadDone(bool ok) override {
      if (!ok) return;
      ++read;
      StartRead(&response);
    }
    void OnDone(const grpc::Status& its_status) override {
      status = its_status;
      done.Notify();
    }
    const v1::WatchPresenceRequest request;
    v1::WatchPresenceResponse response;
    int read = 0;
    grpc::Status status;
    absl::Notification done;
  };

 protected:
  explicit ServerStreamTest(std::chrono::milliseconds linger = std::chrono::hours(1)) : linger_(linger) {
    int port = 0;
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
    stub_ = v1::PresenceService::NewStub(
        grpc::CreateChannel("127.0.0.1:" + std::to_string(port), grpc::InsecureChannelCredentials()));
    context_.set_deadline(Deadline());
    client_ = std::make_unique<Client>();
    stub_->async()->WatchPresence(&context_, &client_->request, client_.get());
    client_->AddHold();
    client_->StartCall();
  }
  ~ServerStreamTest() override {
    context_.TryCancel();
    if (client_) Finish();
    server_->Shutdown(std::chrono::system_clock::now());
  }

  // On the loop, once it has begun.
  void WithStream(const std::function<void(TalkingStream&)>& work) {
    const auto begun = [this] { return seen_.stream.lock() != nullptr; };
    std::shared_ptr<TalkingStream> stream;
    {
      absl::MutexLock lock(&seen_.mutex);
      ASSERT_TRUE(seen_.mutex.AwaitWithTimeout(absl::Condition(&begun), absl::FromChrono(kPatience)));
      stream = seen_.stream.lock();
    }
    core_.OnLoop([&] { work(*stream); });
  }
  // Reads to the end.
  grpc::Status Finish() {
    client_->StartRead(&client_->response);
    client_->RemoveHold();
    EXPECT_TRUE(client_->done.WaitForNotificationWithTimeout(absl::FromChrono(kPatience)));
    read_ = client_->read;
    const grpc::Status status = client_->status;
    client_.reset();
    return status;
  }
  bool Gone() { return seen_.gone.WaitForNotificationWithTimeout(absl::FromChrono(kPatience)); }
  int filled() {
    absl::MutexLock lock(&seen_.mutex);
    return seen_.filled;
  }

  TestCore core_;
  TalkingStream::Seen seen_;
  grpc::ClientContext context_;
  std::unique_ptr<Client> client_;
  int read_ = 0;
  std::unique_ptr<grpc::Server> server_;

 private:
  grpc::ServerWriteReactor<v1::WatchPresenceResponse>* WatchPresence(grpc::CallbackServerContext* context,
                                                                     const v1::WatchPresenceRequest*) override {
    return TalkingStream::Start(std::make_shared<TalkingStream>(*context, *core_.runtime, linger_, seen_));
  }

  const std::chrono::milliseconds linger_;
  std::unique_ptr<v1::PresenceService::Stub> stub_;
};

TEST_F(ServerStreamTest, IsGoneAsSoonAsItsEndHasArrived) {
  WithStream([](TalkingStream& stream) {
    stream.Say(10, 3);
    stream.End(absl::UnavailableError("enough"));  // one write is in flight
    stream.End(absl::InternalError("twice"));
  });
  const grpc::Status status = Finish();
  EXPECT_EQ(read_, 1);
  EXPECT_EQ(status.error_code(), StatusCode::UNAVAILABLE);
  EXPECT_EQ(status.error_message(), "enough");
  EXPECT_TRUE(Gone()) << "the linger is an hour: nothing may wait for it";
  EXPECT_EQ(seen_.closed, 1);
}

TEST_F(ServerStreamTest, IsGoneWithItsClient) {
  WithStream([](TalkingStream& stream) { stream.Say(1'000'000, 1'000'000); });
  context_.TryCancel();
  EXPECT_TRUE(Gone());
  EXPECT_EQ(seen_.closed, 1);
  EXPECT_LT(filled(), 1'000);
}

TEST_F(ServerStreamTest, IsGoneWithItsServer) {
  WithStream([](TalkingStream& stream) { stream.Say(1'000'000, 1'000'000); });
  server_->Shutdown(std::chrono::system_clock::now());
  EXPECT_TRUE(Gone());
}

class ShortLingerTest : public ServerStreamTest {
 protected:
  ShortLingerTest() : ServerStreamTest(std::chrono::milliseconds(50)) {}
};

TEST_F(ShortLingerTest, AClientThatNeverReadsIsCutOff) {
  WithStream([](TalkingStream& stream) {
    stream.Say(16'000'000, 10);  // far more than HTTP/2 lets go without the client
    stream.End(absl::ResourceExhaustedError("too slow"));
  });
  EXPECT_TRUE(Gone());
  EXPECT_EQ(filled(), 1);
  EXPECT_NE(Finish().error_code(), StatusCode::OK);
}

}  // namespace
}  // namespace presence::core
