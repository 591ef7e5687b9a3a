// The loop thread with a memory store and streams that the test plays by hand.
#include "core/core_runtime.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "core/memory_store.h"
#include "tests/core/link_events.h"

namespace presence::core {
namespace {

using link::v1::CoreCommand;
using link::v1::CoreFrame;
using link::v1::EdgeEvent;

// Only ever reached by a test that fails.
constexpr absl::Duration kPatience = absl::Seconds(20);

// The transport of one stream. Writes stay in flight until the test completes them.
class PlayedStream final : public LinkStream {
 public:
  explicit PlayedStream(CoreRuntime& runtime) : LinkStream(runtime.NextLinkId(), "played"), runtime_(runtime) {}

  // --- what the edge and the network do.
  void Say(std::initializer_list<EdgeEvent> events) {
    LinkMailbox::Frame frame{.message = mailbox().Blank(), .bytes = 100};
    *frame.message = Frame(events);
    Wake(mailbox().AddFrame(std::move(frame)).wake);
  }
  void CompleteWrite(bool ok = true) {
    {
      absl::MutexLock lock(&mutex_);
      ASSERT_TRUE(write_in_flight_);
      write_in_flight_ = false;
    }
    Wake(mailbox().AddWriteDone(ok));
  }
  void End(const absl::Status& why) { Wake(mailbox().AddEnd(why)); }

  // --- what the core has done.

  // The frame in flight; waits for one.
  CoreFrame AwaitWrite() {
    absl::MutexLock lock(&mutex_);
    const auto in_flight = [this] {
      mutex_.AssertHeld();
      return write_in_flight_;
    };
    EXPECT_TRUE(mutex_.AwaitWithTimeout(absl::Condition(&in_flight), kPatience)) << "nothing was written";
    return written_;
  }
  // Completes writes until one brings a command of this kind, which stays in flight.
  CoreCommand AwaitCommand(CoreCommand::CommandCase kind) {
    for (int frames = 0; frames < 1000; ++frames) {
      const CoreFrame frame = AwaitWrite();
      for (const CoreCommand& command : frame.commands()) {
        if (command.command_case() == kind) return command;
      }
      CompleteWrite();
    }
    ADD_FAILURE() << "no such command";
    return {};
  }
  absl::Status AwaitFinish() {
    absl::MutexLock lock(&mutex_);
    const auto finished = [this] {
      mutex_.AssertHeld();
      return finished_.has_value();
    };
    EXPECT_TRUE(mutex_.AwaitWithTimeout(absl::Condition(&finished), kPatience)) << "not finished";
    return finished_.value_or(absl::OkStatus());
  }
  bool AwaitAbort() {
    absl::MutexLock lock(&mutex_);
    return mutex_.AwaitWithTimeout(absl::Condition(&aborted_), kPatience);
  }

 private:
  void Wake(bool needed) {
    if (needed) runtime_.VisitLink(shared_from_this());
  }

  void Write(std::string_view frame) override {
    absl::MutexLock lock(&mutex_);
    EXPECT_FALSE(write_in_flight_) << "a second write: gRPC would abort the process";
    EXPECT_FALSE(finished_.has_value()) << "a write after Finish";
    EXPECT_TRUE(written_.ParseFromArray(frame.data(), static_cast<int>(frame.size())));
    write_in_flight_ = true;
  }
  void ResumeReading() override {}
  void Finish(const absl::Status& why) override {
    absl::MutexLock lock(&mutex_);
    EXPECT_FALSE(finished_.has_value()) << "finished twice";
    finished_ = why;
  }
  void Abort(const absl::Status&) override {
    absl::MutexLock lock(&mutex_);
    aborted_ = true;
  }

  CoreRuntime& runtime_;
  absl::Mutex mutex_;
  CoreFrame written_ ABSL_GUARDED_BY(mutex_);
  bool write_in_flight_ ABSL_GUARDED_BY(mutex_) = false;
  std::optional<absl::Status> finished_ ABSL_GUARDED_BY(mutex_);
  bool aborted_ ABSL_GUARDED_BY(mutex_) = false;
};

class CoreRuntimeTest : public testing::Test {
 protected:
  CoreRuntimeTest() {
    options_.hub.core_name = "core-under-test";
    options_.hub.incarnation = 99;
    options_.hub.link_silence_max = std::chrono::hours(1);  // played streams send no heartbeats
    options_.tick = std::chrono::milliseconds(5);
    options_.links.finish_max = std::chrono::milliseconds(20);
    options_.on_store_changed = [this](bool up) {
      absl::MutexLock lock(&mutex_);
      store_up_ = up;
    };
  }

  void Start() {
    runtime_ = std::make_unique<CoreRuntime>(options_, [this](asio::io_context&, StoreListener& listener) {
      StoreOptions of_the_store;
      of_the_store.core_incarnation = options_.hub.incarnation;
      auto store = std::make_unique<MemoryStore>(of_the_store, database_, listener);
      store_ = store.get();
      return HostedStore{[this] { return store_->RunPending(); }, std::move(store)};
    });
    runtime_->Start();
    AwaitStore(true);
  }

  void AwaitStore(bool up) {
    absl::MutexLock lock(&mutex_);
    const auto as_wanted = [this, up] {
      mutex_.AssertHeld();
      return store_up_ == up;
    };
    ASSERT_TRUE(mutex_.AwaitWithTimeout(absl::Condition(&as_wanted), kPatience));
  }

  void SetReachable(bool reachable) {
    runtime_->OnLoop([this, reachable](LoopParts&) { store_->SetReachable(reachable); });
    AwaitStore(reachable);
  }

  std::shared_ptr<PlayedStream> Open() {
    auto stream = std::make_shared<PlayedStream>(*runtime_);
    runtime_->OpenLink(stream);
    return stream;
  }

  // A shard with one connection in `room`, whose handle is returned; nothing is in flight afterwards.
  uint32_t AttachWithRoom(PlayedStream& stream, uint32_t shard, const std::string& room) {
    stream.Say({Hello(1, shard), ResyncDone(), Opened(1, Connection(0, shard), "user"),
                Joined(2, Connection(0, shard), room)});
    const uint32_t handle = stream.AwaitCommand(CoreCommand::kBind).bind().handle();
    stream.CompleteWrite();
    return handle;
  }

  absl::Status Broadcast(const std::string& room, const std::string& data_json) {
    absl::Notification answered;
    absl::Status answer;
    OutgoingMessage message;
    message.room_id = room;
    message.data_json = data_json;
    runtime_->Send(std::move(message), [&](const absl::Status& status, const MessageAnswer&) {
      answer = status;
      answered.Notify();
    });
    EXPECT_TRUE(answered.WaitForNotificationWithTimeout(kPatience));
    return answer;
  }

  // Waits until the loop has done everything that was asked for so far.
  void Settle() {
    absl::Notification settled;
    runtime_->OnLoop([&](LoopParts&) { settled.Notify(); });
    EXPECT_TRUE(settled.WaitForNotificationWithTimeout(kPatience));
  }

  CoreRuntimeOptions options_;
  MemoryDatabase database_{[] { return ReadClocks().wall; }};
  MemoryStore* store_ = nullptr;
  absl::Mutex mutex_;
  std::optional<bool> store_up_ ABSL_GUARDED_BY(mutex_);
  std::unique_ptr<CoreRuntime> runtime_;
};

TEST_F(CoreRuntimeTest, WelcomesAShard) {
  Start();
  const auto stream = Open();
  stream->Say({Hello()});
  const CoreCommand welcome = stream->AwaitCommand(CoreCommand::kWelcome);
  EXPECT_EQ(welcome.welcome().core(), "core-under-test");
  EXPECT_EQ(welcome.welcome().incarnation(), 99u);
}

TEST_F(CoreRuntimeTest, BroadcastsReachTheRoomOfEveryShard) {
  Start();
  const auto one = Open(), two = Open();
  const uint32_t handle_one = AttachWithRoom(*one, 1, "room");
  const uint32_t handle_two = AttachWithRoom(*two, 2, "room");
  EXPECT_EQ(Broadcast("room", R"({"n":1})"), absl::OkStatus());
  for (const auto& [stream, handle] : {std::pair(one, handle_one), std::pair(two, handle_two)}) {
    const CoreCommand deliver = stream->AwaitCommand(CoreCommand::kDeliver);
    EXPECT_EQ(deliver.deliver().handle(), handle);
    EXPECT_EQ(deliver.deliver().text(), R"({"type":"message","data":{"n":1}})");
  }
}

TEST_F(CoreRuntimeTest, GathersWhileAWriteIsInFlight) {
  Start();
  const auto stream = Open();
  AttachWithRoom(*stream, 0, "room");
  ASSERT_EQ(Broadcast("room", R"({"n":0})"), absl::OkStatus());
  stream->AwaitCommand(CoreCommand::kDeliver);  // in flight from here on: the shard does not read
  for (int n = 1; n <= 50; ++n) {
    ASSERT_EQ(Broadcast("room", R"({"n":)" + std::to_string(n) + "}"), absl::OkStatus());
  }
  stream->CompleteWrite();
  std::vector<std::string> texts;
  const CoreFrame frame = stream->AwaitWrite();
  for (const CoreCommand& command : frame.commands()) {
    if (command.has_deliver()) texts.push_back(command.deliver().text());
  }
  ASSERT_EQ(texts.size(), 50u) << "one frame takes all that has gathered";
  EXPECT_EQ(texts.front(), R"({"type":"message","data":{"n":1}})");
  EXPECT_EQ(texts.back(), R"({"type":"message","data":{"n":50}})");
}

TEST_F(CoreRuntimeTest, DropsAShardThatReadsTooSlowly) {
  options_.links.backlog_bytes_max = 64 * 1024;
  Start();
  const auto slow = Open(), quick = Open();
  AttachWithRoom(*slow, 1, "room");
  AttachWithRoom(*quick, 2, "room");
  const std::string payload = R"({"x":")" + std::string(10'000, 'x') + R"("})";
  for (int n = 0; n < 10; ++n) {
    ASSERT_EQ(Broadcast("room", payload), absl::OkStatus());
    quick->AwaitCommand(CoreCommand::kDeliver);
    quick->CompleteWrite();
  }
  EXPECT_EQ(slow->AwaitFinish().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(slow->AwaitAbort()) << "what is in flight must not keep the stream for ever";
  EXPECT_EQ(runtime_->metrics().links_dropped_over_bound.Value(), 1u);
  ASSERT_EQ(Broadcast("room", payload), absl::OkStatus());
  quick->AwaitCommand(CoreCommand::kDeliver);  // the others do not notice
}

TEST_F(CoreRuntimeTest, HandlesWhatArrivedBeforeTheEnd) {
  Start();
  const auto stream = Open();
  stream->Say({Hello(), ResyncDone()});
  stream->Say({Opened(1, Connection(0), "last-words")});
  stream->End(absl::OkStatus());
  EXPECT_EQ(stream->AwaitFinish(), absl::OkStatus());
  absl::Notification read;
  runtime_->OnLoop([&](LoopParts& loop) {
    loop.store.GetPresence("last-words", [&](absl::StatusOr<StoredPresence> presence) {
      EXPECT_EQ(presence->status, link::v1::STATUS_ONLINE);
      read.Notify();
    });
  });
  EXPECT_TRUE(read.WaitForNotificationWithTimeout(kPatience));
}

TEST_F(CoreRuntimeTest, FinishesEachStreamOnceWhoeverEndsIt) {
  Start();
  const auto stream = Open();
  stream->Say({Hello(), ResyncDone()});
  stream->AwaitCommand(CoreCommand::kWelcome);
  stream->End(absl::CancelledError("gone"));
  stream->End(absl::CancelledError("gone, said twice"));
  EXPECT_EQ(stream->AwaitFinish().code(), absl::StatusCode::kCancelled);
  stream->CompleteWrite(/*ok=*/false);  // too late to matter
  Settle();
}

TEST_F(CoreRuntimeTest, EndsAStreamThatBreaksTheProtocol) {
  Start();
  const auto stream = Open();
  stream->Say({Joined(1, Connection(0), "room")});  // before Hello
  EXPECT_EQ(stream->AwaitFinish().code(), absl::StatusCode::kInvalidArgument);
  stream->Say({Hello()});  // ignored
  Settle();
}

TEST_F(CoreRuntimeTest, PassesOnWhatWasGatheredBeforeItEndsAStream) {
  options_.links.finish_max = std::chrono::hours(1);
  Start();
  const auto stream = Open();
  AttachWithRoom(*stream, 0, "room");
  ASSERT_EQ(Broadcast("room", R"({"n":1})"), absl::OkStatus());
  stream->AwaitCommand(CoreCommand::kDeliver);
  ASSERT_EQ(Broadcast("room", R"({"n":2})"), absl::OkStatus());
  stream->Say({Hello(/*attach=*/2)});  // a second Hello breaks the protocol
  Settle();
  stream->CompleteWrite();
  EXPECT_EQ(stream->AwaitCommand(CoreCommand::kDeliver).deliver().text(), R"({"type":"message","data":{"n":2}})");
  stream->CompleteWrite();
  EXPECT_EQ(stream->AwaitFinish().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(CoreRuntimeTest, SaysWhenTheStoreComesAndGoes) {
  Start();
  const auto stream = Open();
  AttachWithRoom(*stream, 0, "room");
  SetReachable(false);
  EXPECT_EQ(runtime_->metrics().store_up.Value(), 0u);
  EXPECT_EQ(Broadcast("room", R"({"n":1})").code(), absl::StatusCode::kUnavailable);
  stream->AwaitCommand(CoreCommand::kDeliver);  // this core's own edges have it nevertheless
  stream->CompleteWrite();
  SetReachable(true);
  EXPECT_EQ(runtime_->metrics().store_ups.Value(), 2u);
  EXPECT_EQ(Broadcast("room", R"({"n":2})"), absl::OkStatus());
}

TEST_F(CoreRuntimeTest, DrainsByEndingLinksAndRefusingFurtherOnes) {
  Start();
  const auto stream = Open();
  AttachWithRoom(*stream, 0, "room");
  EXPECT_TRUE(runtime_->Drain(std::chrono::seconds(20)));
  EXPECT_EQ(stream->AwaitFinish(), absl::UnavailableError("core is stopping"));
  EXPECT_EQ(Open()->AwaitFinish(), absl::UnavailableError("core is stopping"));
}

TEST_F(CoreRuntimeTest, DrainGivesUpOnAStoreThatDoesNotAnswer) {
  Start();
  runtime_->OnLoop([this](LoopParts&) { store_->SetFrozen(true); });
  const auto stream = Open();
  stream->Say({Hello(), ResyncDone(), Opened(1, Connection(0), "user")});
  stream->AwaitCommand(CoreCommand::kWelcome);
  Settle();
  EXPECT_FALSE(runtime_->Drain(std::chrono::milliseconds(50)));
}

TEST_F(CoreRuntimeTest, BoundsTheNumberOfLinks) {
  options_.links.links_max = 1;
  Start();
  const auto first = Open();
  EXPECT_EQ(Open()->AwaitFinish().code(), absl::StatusCode::kResourceExhausted);
  first->Say({Hello()});
  first->AwaitCommand(CoreCommand::kWelcome);
}

// An operator's drain: the links end one after the other, the core goes on.
TEST_F(CoreRuntimeTest, IsDrainedByAnOrderOverAWindow) {
  std::atomic<bool> draining{false};
  options_.on_draining = [&] { draining = true; };
  Start();
  const auto first = Open(), second = Open();
  AttachWithRoom(*first, 0, "room");
  AttachWithRoom(*second, 1, "room");
  link::v1::ClusterRequest order;
  order.mutable_drain()->set_core(options_.hub.incarnation);
  order.mutable_drain()->set_window_ms(50);
  absl::Notification answered;
  runtime_->Ask(runtime_->NextRequest(), order,
                [&](const absl::Status& status, std::vector<link::v1::ClusterReply> replies) {
                  EXPECT_EQ(status, absl::OkStatus());
                  ASSERT_EQ(replies.size(), 1u);
                  EXPECT_EQ(replies[0].count().count(), 2u);
                  answered.Notify();
                });
  ASSERT_TRUE(answered.WaitForNotificationWithTimeout(kPatience));
  EXPECT_EQ(first->AwaitFinish(), absl::UnavailableError("the core is being drained"));
  EXPECT_EQ(second->AwaitFinish(), absl::UnavailableError("the core is being drained"));
  EXPECT_TRUE(draining);
  EXPECT_EQ(Open()->AwaitFinish(), absl::UnavailableError("the core is being drained"));
  EXPECT_EQ(Broadcast("room", "{}"), absl::OkStatus());
}

TEST_F(CoreRuntimeTest, AnswersWhoHasGivenUpOnce) {
  Start();
  SetReachable(false);
  const uint64_t request = runtime_->NextRequest();
  link::v1::ClusterRequest query;
  query.mutable_rooms()->set_limit(1);
  std::atomic<int> answers{0};
  runtime_->Ask(request, query, [&](const absl::Status& status, const std::vector<link::v1::ClusterReply>&) {
    EXPECT_FALSE(status.ok());
    ++answers;
  });
  runtime_->GiveUp(request);
  runtime_->GiveUp(request);
  runtime_->GiveUp(request + 1000);
  Settle();
  EXPECT_EQ(answers, 1);
}

}  // namespace
}  // namespace presence::core
