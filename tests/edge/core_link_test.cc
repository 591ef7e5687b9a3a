// The link against real gRPC servers on loopback: found, lost, found elsewhere, held back, stopped.

#include "edge/core_link.h"

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <asio.hpp>
#include <atomic>
#include <mutex>

#include "presence/link/v1/link.grpc.pb.h"

namespace presence::edge {
namespace {

using link::v1::CoreFrame;
using link::v1::EdgeFrame;

// A core that keeps what it is told and says what the test wants. Synchronous: one gRPC thread per stream.
class FakeCore final : public link::v1::Link::Service {
 public:
  // What it does with a stream: kSilent leaves it open and says nothing.
  enum class Answer { kWelcome, kUnavailable, kSilent };

  explicit FakeCore(int frames_at_once = 0) : frames_at_once_(frames_at_once) {
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
    address_ = "127.0.0.1:" + std::to_string(port);
  }
  ~FakeCore() override { Shutdown(); }

  void Shutdown() {
    if (server_ != nullptr) server_->Shutdown(std::chrono::system_clock::now());
    server_.reset();
  }
  const std::string& address() const { return address_; }
  void SetAnswer(Answer answer) { answer_ = answer; }
  int attaches() const { return attaches_; }
  int streams_ended() const { return streams_ended_; }
  std::vector<uint64_t> greeted() {
    std::lock_guard lock(mutex_);
    return greeted_;
  }
  int frames_sent() const { return frames_sent_; }
  std::vector<uint64_t> typing_seen() {
    std::lock_guard lock(mutex_);
    return seen_;
  }

 private:
  // Welcomes, then so many frames with ascending numbers, then one for each event that comes.
  grpc::Status Attach(grpc::ServerContext*, grpc::ServerReaderWriter<CoreFrame, EdgeFrame>* stream) override {
    ++attaches_;
    if (answer_ == Answer::kUnavailable) return grpc::Status(grpc::StatusCode::UNAVAILABLE, "no store");
    EdgeFrame events;
    if (answer_ == Answer::kSilent) {
      while (stream->Read(&events)) {
      }
      ++streams_ended_;
      return grpc::Status::CANCELLED;
    }
    CoreFrame frame;
    frame.add_commands()->mutable_welcome()->set_core("fake");
    stream->Write(frame);
    for (int i = 0; i < frames_at_once_; ++i) {
      frame.Clear();
      auto* deliver = frame.add_commands()->mutable_deliver();
      deliver->set_handle(static_cast<uint32_t>(i + 1));
      deliver->set_text(std::string(64 * 1024, 'x'));
      if (!stream->Write(frame)) return grpc::Status::CANCELLED;
      ++frames_sent_;
    }
    while (stream->Read(&events)) {
      std::lock_guard lock(mutex_);
      for (const auto& event : events.events()) {
        if (event.has_hello()) {
          greeted_.push_back(event.hello().attach());
        } else {
          seen_.push_back(event.typing_started().connection());
        }
      }
    }
    ++streams_ended_;
    return grpc::Status(grpc::StatusCode::UNAVAILABLE, "the core is stopping");
  }
  grpc::Status LookUpPresence(grpc::ServerContext*, const link::v1::LookUpPresenceRequest* request,
                              link::v1::PresenceRecord* record) override {
    record->set_user_id(request->user_id());
    record->set_status(link::v1::STATUS_AWAY);
    return grpc::Status::OK;
  }
  grpc::Status EndSessions(grpc::ServerContext*, const link::v1::EndSessionsRequest* request,
                           link::v1::EndSessionsResponse* response) override {
    response->set_connections(
        request->user_id() == "alice" && request->session_id() == "s1" && request->logged_out_at_ms() == 5000 ? 3 : 0);
    return grpc::Status::OK;
  }

  const int frames_at_once_;
  std::unique_ptr<grpc::Server> server_;
  std::string address_;
  std::atomic<Answer> answer_{Answer::kWelcome};
  std::atomic<int> attaches_{0}, frames_sent_{0}, streams_ended_{0};
  std::mutex mutex_;
  std::vector<uint64_t> seen_, greeted_;
};

class CoreLinkTest : public testing::Test, protected CoreLinkHandler {
 protected:
  void Start(std::vector<std::string> addresses) {
    CoreLinkOptions options;
    options.addresses = std::move(addresses);
    link_ = std::make_unique<CoreLink>(io_, options, static_cast<CoreLinkHandler&>(*this));
    link_->Start();
  }
  ~CoreLinkTest() override {
    if (link_ == nullptr) return;
    link_->Stop();
    EXPECT_TRUE(RunUntil([&] { return link_->stopped(); }));
  }

  bool RunUntil(const std::function<bool()>& condition) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (!condition()) {
      if (std::chrono::steady_clock::now() > deadline) return false;
      io_.restart();
      io_.run_one_for(std::chrono::milliseconds(10));
    }
    return true;
  }

  void OnLinkUp() override { ++ups_; }
  void OnLinkFrames() override {
    if (!taking_) return;
    while (const CoreFrame* frame = link_->TakeFrame()) {
      for (const auto& command : frame->commands()) {
        welcomes_ += command.has_welcome();
        if (command.has_deliver()) handles_.push_back(command.deliver().handle());
      }
    }
  }
  void OnLinkDown(const absl::Status& why) override { downs_.push_back(why); }
  void OnAskForStore(link::v1::Hello* hello) override { hello->set_attach(static_cast<uint64_t>(++asks_)); }
  void OnLinkMoved() override { ++moves_; }

  void Type(uint64_t connection) {
    link_->AddEvent().mutable_typing_started()->set_connection(connection);
    link_->Flush();
  }

  asio::io_context io_;
  std::unique_ptr<CoreLink> link_;
  bool taking_ = true;
  int ups_ = 0, welcomes_ = 0, asks_ = 0, moves_ = 0;
  std::vector<uint32_t> handles_;
  std::vector<absl::Status> downs_;
};

TEST_F(CoreLinkTest, EventsGoUpInOrderWhateverIsInFlight) {
  FakeCore core;
  Start({core.address()});
  ASSERT_TRUE(RunUntil([&] { return welcomes_ == 1; }));
  std::vector<uint64_t> sent;
  for (uint64_t i = 1; i <= 2'000; ++i) {
    Type(i);
    sent.push_back(i);
    if (i % 7 == 0) io_.poll();
  }
  ASSERT_TRUE(RunUntil([&] { return core.typing_seen().size() == sent.size(); }));
  EXPECT_EQ(core.typing_seen(), sent);
}

TEST_F(CoreLinkTest, MoreThanAFrameMayHoldIsSplit) {
  FakeCore core;
  Start({core.address()});
  ASSERT_TRUE(RunUntil([&] { return welcomes_ == 1; }));
  for (uint64_t i = 0; i < 100'000; ++i) link_->AddEvent().mutable_typing_started()->set_connection(i + 1);
  link_->Flush();
  ASSERT_TRUE(RunUntil([&] { return core.typing_seen().size() == 100'000; }));
  EXPECT_EQ(core.typing_seen().back(), 100'000u);
}

TEST_F(CoreLinkTest, AnAddressWhereNobodyListensIsPassedOver) {
  FakeCore gone;
  FakeCore there;
  const std::string nobody = gone.address();
  gone.Shutdown();
  Start({nobody, there.address()});
  ASSERT_TRUE(RunUntil([&] { return welcomes_ == 1; }));
  EXPECT_EQ(there.attaches(), 1);
  EXPECT_FALSE(downs_.empty());
  EXPECT_EQ(downs_.front().code(), absl::StatusCode::kUnavailable);
}

TEST_F(CoreLinkTest, ACoreThatStopsIsReplacedByTheNext) {
  FakeCore first;
  FakeCore second;
  Start({first.address(), second.address()});
  ASSERT_TRUE(RunUntil([&] { return welcomes_ == 1; }));
  ASSERT_EQ(first.attaches(), 1);
  first.Shutdown();
  ASSERT_TRUE(RunUntil([&] { return welcomes_ == 2; }));
  EXPECT_EQ(second.attaches(), 1);
  Type(7);
  EXPECT_TRUE(RunUntil([&] { return second.typing_seen() == std::vector<uint64_t>{7}; }));
}

TEST_F(CoreLinkTest, DropEndsTheStreamWithTheReasonAndItComesBack) {
  FakeCore core;
  Start({core.address()});
  ASSERT_TRUE(RunUntil([&] { return welcomes_ == 1; }));
  link_->Drop("silent");
  Type(1);  // between Drop and OnLinkDown events may still be added; they go nowhere
  ASSERT_TRUE(RunUntil([&] { return !downs_.empty(); }));
  EXPECT_EQ(downs_.front().message(), "silent");
  EXPECT_TRUE(RunUntil([&] { return welcomes_ == 2; }));
}

TEST_F(CoreLinkTest, FramesThatAreNotTakenHoldTheCoreBackAndNoneIsLost) {
  constexpr int kFrames = 2'000;  // 128 MiB: far more than any window of gRPC
  FakeCore core(kFrames);
  taking_ = false;
  Start({core.address()});
  ASSERT_TRUE(RunUntil([&] { return core.frames_sent() > 8; }));
  // The core's writes block: it gets no further however often the loop turns.
  int before = -1;
  ASSERT_TRUE(RunUntil([&] { return std::exchange(before, core.frames_sent()) == core.frames_sent(); }));
  EXPECT_LT(core.frames_sent(), kFrames);
  taking_ = true;
  OnLinkFrames();
  ASSERT_TRUE(RunUntil([&] { return handles_.size() == kFrames; }));
  for (uint32_t i = 0; i < kFrames; ++i) ASSERT_EQ(handles_[i], i + 1);
}

TEST_F(CoreLinkTest, CallsAreAnsweredAndFailWithoutACore) {
  {
    FakeCore core;
    Start({core.address()});
    ASSERT_TRUE(RunUntil([&] { return welcomes_ == 1; }));
    std::optional<absl::StatusOr<link::v1::PresenceRecord>> answer;
    link_->LookUpPresence("alice", std::chrono::seconds(10), [&](const auto& record) { answer = record; });
    ASSERT_TRUE(RunUntil([&] { return answer.has_value(); }));
    ASSERT_TRUE(answer->ok()) << answer->status();
    EXPECT_EQ((*answer)->user_id(), "alice");
    EXPECT_EQ((*answer)->status(), link::v1::STATUS_AWAY);
    link::v1::EndSessionsRequest logout;
    logout.set_user_id("alice");
    logout.set_session_id("s1");
    logout.set_logged_out_at_ms(5000);
    std::optional<absl::StatusOr<link::v1::EndSessionsResponse>> ended;
    link_->EndSessions(logout, std::chrono::seconds(10), [&](const auto& response) { ended = response; });
    ASSERT_TRUE(RunUntil([&] { return ended.has_value(); }));
    ASSERT_TRUE(ended->ok()) << ended->status();
    EXPECT_EQ((*ended)->connections(), 3u);
  }
  ASSERT_TRUE(RunUntil([&] { return !downs_.empty(); }));
  std::optional<absl::Status> failure;
  link_->ListPresence(10, "", std::chrono::seconds(10), [&](const auto& page) { failure = page.status(); });
  ASSERT_TRUE(RunUntil([&] { return failure.has_value(); }));
  EXPECT_EQ(failure->code(), absl::StatusCode::kUnavailable);
}

// ------------------------------------------------------------------------------------ a better core, beside the one there is

TEST_F(CoreLinkTest, ABetterCoreTakesThePlaceOfTheFirstWhenItHasAnswered) {
  FakeCore first, second;
  Start({first.address(), second.address()});
  ASSERT_TRUE(RunUntil([&] { return welcomes_ == 1; }));
  link_->Seek();
  link_->Seek();  // one round at a time
  ASSERT_TRUE(RunUntil([&] { return welcomes_ == 2; }));
  EXPECT_EQ(moves_, 1);
  EXPECT_EQ(asks_, 1);
  EXPECT_EQ(ups_, 1) << "it says its Hello by OnAskForStore";
  Type(7);
  EXPECT_TRUE(RunUntil([&] { return second.typing_seen() == std::vector<uint64_t>{7}; }));
  EXPECT_EQ(second.greeted(), std::vector<uint64_t>{1});
  EXPECT_TRUE(RunUntil([&] { return first.streams_ended() == 1; }));
  EXPECT_TRUE(downs_.empty());
  // From there it goes on as from any other.
  second.Shutdown();
  EXPECT_TRUE(RunUntil([&] { return welcomes_ == 3; }));
  EXPECT_EQ(first.attaches(), 2);
}

TEST_F(CoreLinkTest, WhileNoCoreTakesItTheLinkIsAsItWas) {
  FakeCore first, second, third, gone;
  second.SetAnswer(FakeCore::Answer::kUnavailable);
  third.SetAnswer(FakeCore::Answer::kSilent);
  const std::string nobody = gone.address();
  gone.Shutdown();
  Start({first.address(), second.address(), third.address(), nobody});
  ASSERT_TRUE(RunUntil([&] { return welcomes_ == 1; }));
  for (int round = 1; round <= 2; ++round) {
    // Of the round before the last core may still be about to fail.
    ASSERT_TRUE(RunUntil([&] { return link_->Seek(), asks_ > 3 * (round - 1); }));
    ASSERT_TRUE(
        RunUntil([&] { return asks_ == 3 * round && second.attaches() == round && third.streams_ended() == round; }));
    Type(static_cast<uint64_t>(round));
    ASSERT_TRUE(RunUntil([&] { return first.typing_seen().size() == static_cast<size_t>(round); }));
  }
  EXPECT_EQ(first.attaches(), 1);
  EXPECT_EQ(moves_, 0);
  EXPECT_TRUE(downs_.empty());
}

TEST_F(CoreLinkTest, ALostLinkEndsTheSearch) {
  FakeCore first, second;
  Start({first.address(), second.address()});
  ASSERT_TRUE(RunUntil([&] { return welcomes_ == 1; }));
  second.SetAnswer(FakeCore::Answer::kSilent);
  link_->Seek();
  ASSERT_TRUE(RunUntil([&] { return second.attaches() == 1; }));
  link_->Drop("silent");
  second.SetAnswer(FakeCore::Answer::kWelcome);
  ASSERT_TRUE(RunUntil([&] { return welcomes_ == 2 && second.streams_ended() == 1; }));
  EXPECT_EQ(moves_, 0);
}

TEST_F(CoreLinkTest, StopsInTheMidstOfASearch) {
  FakeCore first, second;
  second.SetAnswer(FakeCore::Answer::kSilent);
  Start({first.address(), second.address()});
  ASSERT_TRUE(RunUntil([&] { return welcomes_ == 1; }));
  link_->Seek();
  ASSERT_TRUE(RunUntil([&] { return second.attaches() == 1; }));
}

}  // namespace
}  // namespace presence::edge
