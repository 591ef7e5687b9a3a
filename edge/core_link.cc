#include "edge/core_link.h"

#include <algorithm>
#include <asio.hpp>
#include <random>
#include <utility>

#include "common/check.h"
#include "edge/core_stream.h"

namespace presence::edge {
namespace {

using link::v1::CoreFrame;
using link::v1::EdgeEvent;
using link::v1::EdgeFrame;

// Some 10 MB; the shard holds at most 65,536 events of its own, the rest is typing and activity.
constexpr int kEventsGatheredMax = 200'000;
constexpr auto kPauseMin = std::chrono::milliseconds(100);
constexpr auto kPauseMax = std::chrono::milliseconds(1000);
// So long a core that is asked whether it takes the shard may say nothing.
constexpr auto kAnswerMax = std::chrono::seconds(1);

}  // namespace

class CoreLink::State : public std::enable_shared_from_this<CoreLink::State> {
 public:
  State(asio::io_context& io, CoreLinkOptions options, CoreLinkHandler& handler)
      : io_(io),
        options_(std::move(options)),
        handler_(handler),
        retry_(io),
        patience_(io),
        next_address_(options_.start) {
    PRESENCE_CHECK(!options_.addresses.empty(), "a link has at least one address");
  }

  void Connect() {
    if (stopping_) return;
    address_ = next_address_++ % options_.addresses.size();
    stream_ = Open(address_);
    gathering_->Clear();
    drop_reason_ = absl::OkStatus();
    handler_.OnLinkUp();
  }

  void Seek() {
    if (stopping_ || stream_ == nullptr || stream_->let_go() || candidate_ != nullptr) return;
    to_ask_.clear();
    for (size_t i = 0; i < options_.addresses.size(); ++i) {
      // One name may stand for several cores.
      if (i != address_ || options_.addresses.size() == 1) to_ask_.push_back(i);
    }
    std::shuffle(to_ask_.begin(), to_ask_.end(), random_);
    AskNext();
  }

  void Stop() {
    stopping_ = true;
    retry_.cancel();
    GiveUpSeeking();
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
    if (stream_->write_in_flight()) {
      if (gathering_->events_size() > kEventsGatheredMax) Drop("the core reads too slowly");
      return;
    }
    stream_->writing().Clear();
    if (const size_t bytes = gathering_->ByteSizeLong(); bytes <= options_.frame_bytes_max) {
      stream_->SwapWriting(gathering_);
    } else {
      MoveOneFrame(stream_->writing());
    }
    stream_->Write();
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
    GiveUpSeeking();
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
      std::shared_ptr<CoreStream> stream;  // holds the channel
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
             // All references go along, for the same reason as in CoreStream::Notices.
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
  void MoveOneFrame(EdgeFrame& to) {
    auto* from = gathering_->mutable_events();
    size_t bytes = 0;
    int count = 0;
    while (count < from->size()) {
      bytes += from->Get(count).ByteSizeLong() + 8;  // tag and length
      if (count > 0 && bytes > options_.frame_bytes_max) break;
      ++count;
    }
    for (int i = 0; i < count; ++i) to.add_events()->Swap(from->Mutable(i));
    from->DeleteSubrange(0, count);
  }

  std::shared_ptr<CoreStream> Open(size_t address) {
    ++streams_open_;
    const uint64_t number = ++last_stream_;
    auto weak = weak_from_this();
    const auto on_loop = [weak, &io = io_](auto action) {
      asio::post(io, [weak, action = std::move(action)]() mutable {
        if (auto self = weak.lock()) action(*self);
      });
    };
    auto stream = std::make_shared<CoreStream>(
        number, options_.addresses[address], options_.credentials,
        CoreStream::Notices{
            [on_loop, number] { on_loop([number](State& s) { s.OnReadable(number); }); },
            [on_loop, number](bool ok) { on_loop([number, ok](State& s) { s.OnWritten(number, ok); }); },
            [on_loop, number](absl::Status status, std::shared_ptr<CoreStream> done) {
              on_loop([number, status, done = std::move(done)](State& s) mutable {
                s.OnDone(number, status);
                done.reset();
              });
            },
        });
    stream->Start();
    return stream;
  }

  static bool Is(const std::shared_ptr<CoreStream>& stream, uint64_t number) {
    return stream != nullptr && stream->number() == number;
  }

  void OnReadable(uint64_t number) {
    if (stopping_) return;
    if (Is(candidate_, number)) return OnCandidateReadable();
    if (!Is(stream_, number) || stream_->let_go()) return;
    handler_.OnLinkFrames();
  }

  void OnWritten(uint64_t number, bool ok) {
    if (Is(candidate_, number)) return candidate_->Written();
    if (!Is(stream_, number)) return;
    stream_->Written();
    if (ok) Flush();
  }

  // --- another core, beside the one that is there. One candidate at a time, and to_ask_ is empty without one. A candidate that is not let
  // go of has stream_ beside it, though perhaps one that ends just now: when it has ended (OnDone, Drop, Stop) nobody is asked any more.

  void AskNext() {
    if (to_ask_.empty()) return;
    candidate_address_ = to_ask_.back();
    to_ask_.pop_back();
    candidate_ = Open(candidate_address_);
    handler_.OnAskForStore(candidate_->writing().add_events()->mutable_hello());
    candidate_->Write();
    patience_.expires_after(kAnswerMax);
    patience_.async_wait([weak = weak_from_this(), number = candidate_->number()](std::error_code error) {
      auto self = weak.lock();
      if (self != nullptr && !error && Is(self->candidate_, number)) self->candidate_->LetGo();
    });
  }

  void OnCandidateReadable() {
    if (candidate_->let_go()) return;
    if (!candidate_->HasFrame()) return candidate_->LetGo();  // it does not take the shard
    patience_.cancel();
    to_ask_.clear();
    stream_->LetGo();
    taken_.reset();
    stream_ = std::exchange(candidate_, nullptr);
    address_ = candidate_address_;
    next_address_ = address_ + 1;
    gathering_->Clear();
    handler_.OnLinkMoved();
    handler_.OnLinkFrames();
  }

  void GiveUpSeeking() {
    to_ask_.clear();
    patience_.cancel();
    if (candidate_ != nullptr) candidate_->LetGo();
  }

  void OnDone(uint64_t number, const absl::Status& status) {
    --streams_open_;
    if (Is(candidate_, number)) {
      patience_.cancel();
      candidate_.reset();
      return AskNext();
    }
    if (!Is(stream_, number)) return;  // it was left for another one
    GiveUpSeeking();
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
  asio::steady_timer retry_, patience_;
  std::minstd_rand random_{std::random_device()()};

  size_t address_ = 0;  // of the stream
  uint64_t next_address_;
  std::chrono::milliseconds pause_ = kPauseMin;
  std::chrono::steady_clock::time_point last_connect_{};

  std::shared_ptr<CoreStream> stream_;
  std::shared_ptr<CoreStream> candidate_;  // a core that is asked whether it takes the shard
  size_t candidate_address_ = 0;
  std::vector<size_t> to_ask_;  // addresses, behind that one
  uint64_t last_stream_ = 0;
  int streams_open_ = 0;
  bool stopping_ = false;
  absl::Status drop_reason_;

  std::unique_ptr<EdgeFrame> gathering_ = std::make_unique<EdgeFrame>();
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
void CoreLink::Seek() {
  state_->Seek();
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
