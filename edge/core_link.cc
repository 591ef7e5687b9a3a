#include "edge/core_link.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <asio.hpp>
#include <deque>
#include <mutex>
#include <random>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "common/check.h"
#include "common/shared_secret.h"
#include "common/tls_credentials.h"
#include "presence/link/v1/link.grpc.pb.h"

namespace presence::edge {
namespace {

using link::v1::CoreFrame;
using link::v1::EdgeEvent;
using link::v1::EdgeFrame;

constexpr size_t kFramesWaitingMax = 8;
// Some 10 MB; the shard holds at most 65,536 events of its own, the rest is typing and activity.
constexpr int kEventsGatheredMax = 200'000;
constexpr auto kPauseMin = std::chrono::milliseconds(100);
constexpr auto kPauseMax = std::chrono::milliseconds(1000);
// The core refuses 4 MiB messages by gRPC's default; what may come is one Deliver of 1 MiB and its frame.
constexpr int kReceiveBytesMax = 4 * 1024 * 1024;

absl::Status ToAbsl(const grpc::Status& status) {
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
}

std::shared_ptr<grpc::Channel> Dial(const std::string& address, const LinkCredentials& credentials) {
  grpc::ChannelArguments arguments;
  // Otherwise all shards of a process would share one connection, and so one core thread's attention.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetMaxReceiveMessageSize(kReceiveBytesMax);
  if (!credentials.server_name.empty()) arguments.SetSslTargetNameOverride(credentials.server_name);
  return grpc::CreateCustomChannel(
      address,
      credentials.tls == nullptr ? grpc::InsecureChannelCredentials() : MakeTlsChannelCredentials(*credentials.tls),
      arguments);
}

// Not as gRPC's call credentials: those refuse to go without TLS.
void ShowSecret(const LinkCredentials& credentials, grpc::ClientContext& context) {
  if (!credentials.secret.empty()) context.AddMetadata(kSecretMetadataKey, credentials.secret);
}

}  // namespace

// One attempt at one core. Owns itself until gRPC has said OnDone and the loop has let go.
class Stream : public grpc::ClientBidiReactor<EdgeFrame, CoreFrame>, public std::enable_shared_from_this<Stream> {
 public:
  // What the stream tells the loop. Each is posted; `owner` decides whether it still cares.
  struct Notices {
    std::function<void()> readable;
    std::function<void(bool ok)> written;
    // Carries the stream itself: the last reference to a channel must die on the loop, since gRPC would otherwise join the thread
    // of its own that it is called on.
    std::function<void(absl::Status, std::shared_ptr<Stream>)> done;
  };

  Stream(const std::string& address, const LinkCredentials& credentials, Notices notices)
      : notices_(std::move(notices)), channel_(Dial(address, credentials)), stub_(link::v1::Link::NewStub(channel_)) {
    ShowSecret(credentials, context_);
  }

  void Start() {
    self_ = shared_from_this();
    stub_->async()->Attach(&context_, this);
    AddHold();  // the loop starts writes and reads from outside the reactions
    StartRead(&reading_);
    StartCall();
  }

  // --- the loop's side.
  void Write(const EdgeFrame& frame) { StartWrite(&frame); }

  std::unique_ptr<CoreFrame> Take() {
    bool resume = false;
    std::unique_ptr<CoreFrame> frame;
    {
      std::lock_guard lock(mutex_);
      if (inbox_.empty()) return nullptr;
      frame = std::move(inbox_.front());
      inbox_.pop_front();
      resume = std::exchange(paused_, false);
    }
    if (resume && !let_go_) StartRead(&reading_);
    return frame;
  }

  void Recycle(std::unique_ptr<CoreFrame> frame) {
    frame->Clear();
    std::lock_guard lock(mutex_);
    if (spare_.size() < kFramesWaitingMax) spare_.push_back(std::move(frame));
  }

  // Ends it. No Write or Take afterwards.
  void LetGo() {
    if (std::exchange(let_go_, true)) return;
    context_.TryCancel();
    RemoveHold();
  }

  bool let_go() const { return let_go_; }

  link::v1::Link::Stub& stub() { return *stub_; }

  // --- gRPC's threads.
  void OnReadDone(bool ok) override {
    if (!ok) {
      {
        std::lock_guard lock(mutex_);
        ended_ = true;
      }
      notices_.readable();  // the loop empties the inbox, sees the end and lets go
      return;
    }
    bool wake = false;
    bool pause = false;
    {
      std::lock_guard lock(mutex_);
      auto frame = spare_.empty() ? std::make_unique<CoreFrame>() : std::move(spare_.back());
      if (!spare_.empty()) spare_.pop_back();
      frame->Swap(&reading_);
      inbox_.push_back(std::move(frame));
      wake = inbox_.size() == 1;
      pause = inbox_.size() >= kFramesWaitingMax;
      paused_ = pause;
    }
    if (wake) notices_.readable();
    if (!pause) StartRead(&reading_);
  }
  void OnWriteDone(bool ok) override { notices_.written(ok); }
  void OnDone(const grpc::Status& status) override {
    const auto done = std::move(notices_.done);  // this object may be gone before the call returns
    done(ToAbsl(status), std::move(self_));
  }

  bool Ended() {
    std::lock_guard lock(mutex_);
    return ended_ && inbox_.empty();
  }

 private:
  Notices notices_;
  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<link::v1::Link::Stub> stub_;
  grpc::ClientContext context_;
  CoreFrame reading_;
  std::shared_ptr<Stream> self_;
  bool let_go_ = false;  // the loop's

  std::mutex mutex_;
  std::deque<std::unique_ptr<CoreFrame>> inbox_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::unique_ptr<CoreFrame>> spare_ ABSL_GUARDED_BY(mutex_);
  bool paused_ ABSL_GUARDED_BY(mutex_) = false;  // eight frames wait: the next read is started by Take
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
};

class CoreLink::State : public std::enable_shared_from_this<CoreLink::State> {
 public:
  State(asio::io_context& io, CoreLinkOptions options, CoreLinkHandler& handler)
      : io_(io), options_(std::move(options)), handler_(handler), retry_(io), next_address_(options_.start) {
    PRESENCE_CHECK(!options_.addresses.empty(), "a link has at least one address");
  }

  void Connect() {
    if (stopping_) return;
    const std::string& address = options_.addresses[next_address_++ % options_.addresses.size()];
    ++streams_open_;
    const uint64_t number = ++stream_number_;
    auto weak = weak_from_this();
    const auto on_loop = [weak, &io = io_](auto action) {
      asio::post(io, [weak, action = std::move(action)]() mutable {
        if (auto self = weak.lock()) action(*self);
      });
    };
    stream_ = std::make_shared<Stream>(
        address, options_.credentials,
        Stream::Notices{
            [on_loop, number] { on_loop([number](State& s) { s.OnReadable(number); }); },
            [on_loop, number](bool ok) { on_loop([number, ok](State& s) { s.OnWritten(number, ok); }); },
            [on_loop, number](absl::Status status, std::shared_ptr<Stream> stream) {
              on_loop([number, status, stream = std::move(stream)](State& s) mutable {
                s.OnDone(number, status);
                stream.reset();
              });
            },
        });
    write_in_flight_ = false;
    gathering_->Clear();
    drop_reason_ = absl::OkStatus();
    stream_->Start();
    handler_.OnLinkUp();
  }

  void Stop() {
    stopping_ = true;
    retry_.cancel();
    if (stream_ != nullptr) stream_->LetGo();
    for (auto* context : calls_) context->TryCancel();
  }
  bool stopped() const { return stopping_ && streams_open_ == 0 && calls_.empty(); }

  EdgeEvent& AddEvent() {
    PRESENCE_CHECK(stream_ != nullptr, "events need a stream");
    return *gathering_->add_events();
  }

  void Flush() {
    if (stream_ == nullptr || stream_->let_go() || gathering_->events_size() == 0) return;
    if (write_in_flight_) {
      if (gathering_->events_size() > kEventsGatheredMax) Drop("the core reads too slowly");
      return;
    }
    writing_->Clear();
    if (const size_t bytes = gathering_->ByteSizeLong(); bytes <= options_.frame_bytes_max) {
      writing_.swap(gathering_);
    } else {
      MoveOneFrame();
    }
    write_in_flight_ = true;
    stream_->Write(*writing_);
  }

  const CoreFrame* TakeFrame() {
    if (stream_ == nullptr) return nullptr;
    if (taken_ != nullptr) stream_->Recycle(std::move(taken_));
    taken_ = stream_->Take();
    if (taken_ == nullptr && stream_->Ended()) stream_->LetGo();
    return taken_.get();
  }

  void Drop(std::string_view why) {
    if (stream_ == nullptr) return;
    drop_reason_ = absl::UnavailableError(absl::string_view(why.data(), why.size()));
    stream_->LetGo();
  }

  template <typename Request, typename Response, typename Method>
  void Call(Request request, std::chrono::milliseconds timeout, Method method,
            std::function<void(const absl::StatusOr<Response>&)> done) {
    if (stream_ == nullptr || calls_.size() >= calls_in_flight_max) {
      asio::post(io_, [done = std::move(done), away = stream_ == nullptr] {
        done(away ? absl::UnavailableError("no core is attached") : absl::ResourceExhaustedError("too many calls"));
      });
      return;
    }
    struct Pending {
      grpc::ClientContext context;
      Request request;
      Response response;
      std::shared_ptr<Stream> stream;  // holds the channel
    };
    auto pending = std::make_shared<Pending>();
    pending->request = std::move(request);
    pending->stream = stream_;
    ShowSecret(options_.credentials, pending->context);
    pending->context.set_deadline(std::chrono::system_clock::now() + timeout);
    calls_.push_back(&pending->context);
    method(stream_->stub(), &pending->context, &pending->request, &pending->response,
           [self = shared_from_this(), pending, done = std::move(done)](const grpc::Status& status) mutable {
             asio::io_context& io = self->io_;
             // All references go along, for the same reason as in Stream::Notices.
             asio::post(io, [self = std::move(self), pending = std::move(pending), done = std::move(done),
                             result = ToAbsl(status)] {
               std::erase(self->calls_, &pending->context);
               if (self->stopping_) return;
               done(result.ok() ? absl::StatusOr<Response>(std::move(pending->response))
                                : absl::StatusOr<Response>(result));
             });
           });
  }

 private:
  // The gathered frame is over the bound: its first events go, the rest stays. Rare: a resync, or a stalled core.
  void MoveOneFrame() {
    auto* from = gathering_->mutable_events();
    size_t bytes = 0;
    int count = 0;
    while (count < from->size()) {
      bytes += from->Get(count).ByteSizeLong() + 8;  // tag and length
      if (count > 0 && bytes > options_.frame_bytes_max) break;
      ++count;
    }
    for (int i = 0; i < count; ++i) writing_->add_events()->Swap(from->Mutable(i));
    from->DeleteSubrange(0, count);
  }

  void OnReadable(uint64_t number) {
    if (number != stream_number_ || stream_ == nullptr) return;
    if (stream_->let_go() || stopping_) return;
    handler_.OnLinkFrames();
  }

  void OnWritten(uint64_t number, bool ok) {
    if (number != stream_number_ || stream_ == nullptr) return;
    write_in_flight_ = false;
    if (ok) Flush();
  }

  void OnDone(uint64_t number, const absl::Status& status) {
    --streams_open_;
    PRESENCE_CHECK(number == stream_number_, "streams end one by one");
    taken_.reset();
    stream_.reset();
    if (stopping_) return;
    handler_.OnLinkDown(drop_reason_.ok() ? status : drop_reason_);
    retry_.expires_after(NextPause());
    retry_.async_wait([weak = weak_from_this()](std::error_code error) {
      if (auto self = weak.lock(); self != nullptr && !error) self->Connect();
    });
  }

  std::chrono::milliseconds NextPause() {
    const auto now = std::chrono::steady_clock::now();
    if (now - last_connect_ > std::chrono::seconds(3)) pause_ = kPauseMin;
    last_connect_ = now;
    const auto pause = pause_;
    if (next_address_ % options_.addresses.size() == 0) pause_ = std::min(pause_ * 2, kPauseMax);
    std::uniform_int_distribution<int64_t> jitter(pause.count() / 2, pause.count());
    return std::chrono::milliseconds(jitter(random_));
  }

  friend class CoreLink;

  asio::io_context& io_;
  const CoreLinkOptions options_;
  CoreLinkHandler& handler_;
  asio::steady_timer retry_;
  std::minstd_rand random_{std::random_device()()};

  uint64_t next_address_;
  std::chrono::milliseconds pause_ = kPauseMin;
  std::chrono::steady_clock::time_point last_connect_{};

  std::shared_ptr<Stream> stream_;
  uint64_t stream_number_ = 0;
  int streams_open_ = 0;
  bool stopping_ = false;
  absl::Status drop_reason_;

  std::unique_ptr<EdgeFrame> gathering_ = std::make_unique<EdgeFrame>();
  std::unique_ptr<EdgeFrame> writing_ = std::make_unique<EdgeFrame>();
  bool write_in_flight_ = false;
  std::unique_ptr<CoreFrame> taken_;

  std::vector<grpc::ClientContext*> calls_;
};

CoreLink::CoreLink(asio::io_context& io, CoreLinkOptions options, CoreLinkHandler& handler)
    : state_(std::make_shared<State>(io, std::move(options), handler)) {}
CoreLink::~CoreLink() = default;

void CoreLink::Start() {
  state_->Connect();
}
void CoreLink::Stop() {
  state_->Stop();
}
bool CoreLink::stopped() const {
  return state_->stopped();
}
EdgeEvent& CoreLink::AddEvent() {
  return state_->AddEvent();
}
void CoreLink::Flush() {
  state_->Flush();
}
const CoreFrame* CoreLink::TakeFrame() {
  return state_->TakeFrame();
}
void CoreLink::Drop(std::string_view why) {
  state_->Drop(why);
}

void CoreLink::LookUpPresence(std::string_view user_id, std::chrono::milliseconds timeout, PresenceDone done) {
  link::v1::LookUpPresenceRequest request;
  request.set_user_id(user_id.data(), user_id.size());
  state_->Call<link::v1::LookUpPresenceRequest, link::v1::PresenceRecord>(
      std::move(request), timeout,
      [](link::v1::Link::Stub& stub, auto... arguments) { stub.async()->LookUpPresence(std::move(arguments)...); },
      std::move(done));
}

void CoreLink::ListPresence(uint32_t limit, std::string_view after_user_id, std::chrono::milliseconds timeout,
                            PresenceListDone done) {
  link::v1::ListPresenceRequest request;
  request.set_limit(limit);
  request.set_after_user_id(after_user_id.data(), after_user_id.size());
  state_->Call<link::v1::ListPresenceRequest, link::v1::ListPresenceResponse>(
      std::move(request), timeout,
      [](link::v1::Link::Stub& stub, auto... arguments) { stub.async()->ListPresence(std::move(arguments)...); },
      std::move(done));
}

void CoreLink::EndSessions(const link::v1::EndSessionsRequest& request, std::chrono::milliseconds timeout,
                           EndSessionsDone done) {
  state_->Call<link::v1::EndSessionsRequest, link::v1::EndSessionsResponse>(
      request, timeout,
      [](link::v1::Link::Stub& stub, auto... arguments) { stub.async()->EndSessions(std::move(arguments)...); },
      std::move(done));
}

}  // namespace presence::edge
