// A server stream that is filled on the loop, over real gRPC: its end, however it comes.
#include "core/server_stream.h"

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "presence/v1/presence.grpc.pb.h"
#include "tests/core/test_core.h"

namespace presence::core {
namespace {

using grpc::StatusCode;

// Says as much as it is asked for each time.
class TalkingStream final : public LoopStream<v1::WatchPresenceResponse> {
 public:
  struct Seen {
    absl::Mutex mutex;
    std::weak_ptr<TalkingStream> stream;
    int filled = 0, closed = 0;
    StreamMetrics metrics;
    absl::Notification gone;
  };

  TalkingStream(grpc::CallbackServerContext& context, CoreRuntime& runtime, std::chrono::milliseconds linger,
                Seen& seen)
      : LoopStream(context, runtime, seen.metrics, linger), seen_(seen) {}
  ~TalkingStream() override { seen_.gone.Notify(); }

  void Say(size_t bytes, int times) {
    bytes_ = bytes;
    times_ = times;
    Pump();
  }
  using LoopStream::End;
  using LoopStream::EndSlow;

 private:
  void Begin() override {
    Opened();
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
  EXPECT_EQ(seen_.metrics.opened.Value(), 1u);
  EXPECT_EQ(seen_.metrics.responses.Value(), 1u);
  EXPECT_EQ(seen_.metrics.ended_slow.Value(), 0u);
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
    stream.EndSlow(absl::ResourceExhaustedError("too slow"));
  });
  EXPECT_TRUE(Gone());
  EXPECT_EQ(filled(), 1);
  EXPECT_EQ(seen_.metrics.ended_slow.Value(), 1u);
  EXPECT_NE(Finish().error_code(), StatusCode::OK);
}

}  // namespace
}  // namespace presence::core
