#include "core/core_runtime.h"

#include <algorithm>
#include <asio.hpp>
#include <deque>
#include <future>
#include <optional>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "common/check.h"
#include "common/log.h"
#include "core/frame_gatherer.h"

namespace presence::core {
namespace {

using link::v1::CoreCommand;

// The hub handles some million events a second and a visit brings at most 1 MiB of them: a turn stays within milliseconds.
constexpr int kHandlersPerTurn = 64;

// A tick comes after everything that is ready was handed in, but no later than so many times the interval.
constexpr int kTicksDueMax = 5;

// After a stall (a stopped process, a starved machine) the links' heartbeats are still in the sockets, and gRPC's
// threads need a moment to bring them. Ticks wait for that, or live links would be judged silent.
constexpr auto kStall = std::chrono::milliseconds(1000);
constexpr auto kAfterStall = std::chrono::milliseconds(300);

absl::Status StoppingError() {
  return absl::UnavailableError("core is stopping");
}

}  // namespace

class CoreRuntime::Loop final : private StoreListener, private HubOutput {
 public:
  Loop(CoreRuntimeOptions options, const StoreFactory& make_store)
      : options_(std::move(options)),
        store_(make_store(io_, *this)),
        hub_(options_.hub, *store_.store, *this),
        ticker_(io_) {}

  ~Loop() override { Stop(); }

  void Start() {
    PRESENCE_CHECK(!thread_.joinable(), "started once");
    last_tick_ = std::chrono::steady_clock::now();
    ScheduleTick();
    asio::post(io_, [] {});  // a first turn at once: a store may have something to say already
    thread_ = std::thread([this] { Run(); });
  }

  void Stop() {
    if (!thread_.joinable()) return;
    asio::post(io_, [this] { stopped_ = true; });
    thread_.join();
  }

  bool Drain(std::chrono::milliseconds timeout) {
    auto idle = std::make_shared<std::promise<void>>();
    std::future<void> done = idle->get_future();
    asio::post(io_, [this, idle] { BeginDrain(idle); });
    return done.wait_for(timeout) == std::future_status::ready;
  }

  void OpenLink(std::shared_ptr<LinkStream> stream) {
    asio::post(io_, [this, stream = std::move(stream)] { Open(stream); });
  }

  void VisitLink(std::shared_ptr<LinkStream> stream) {
    asio::post(io_, [this, stream = std::move(stream)] { Visit(*stream); });
  }

  void WithStore(std::function<void(Store&)> read) {
    asio::post(io_, [this, read = std::move(read)] {
      Step();
      read(*store_.store);
    });
  }

  void Broadcast(std::string room_id, std::string data_json, std::function<void(const absl::Status&)> done) {
    asio::post(
        io_, [this, room_id = std::move(room_id), data_json = std::move(data_json), done = std::move(done)]() mutable {
          const uint64_t request = next_request_++;
          unanswered_.emplace(request, std::move(done));
          hub_.OnBroadcastRequested(Step(), request, room_id, data_json);
        });
  }

  const CoreMetrics& metrics() const { return metrics_; }

 private:
  struct Link {
    Link(std::shared_ptr<LinkStream> its_stream, size_t frame_bytes_max)
        : stream(std::move(its_stream)), gathered(frame_bytes_max) {}

    std::shared_ptr<LinkStream> stream;
    FrameGatherer gathered;
    bool write_in_flight = false;
    bool waits_for_flush = false;  // is in to_flush_
    bool hub_knows = true;         // the hub takes it for open
    // How it ends, once that is decided: what is gathered goes first, but not after the deadline.
    std::optional<absl::Status> ending;
    SteadyTime ending_deadline;
  };

  // A finished stream that may still be held up by a peer that does not read.
  struct Lingering {
    std::shared_ptr<LinkStream> stream;
    absl::Status why;
    SteadyTime abort_at;
  };

  // --- turns.

  void Run() {
    const auto work = asio::make_work_guard(io_);
    while (!stopped_) {
      turn_began_.reset();
      io_.run_one();
      bool more = true;
      for (int handled = 1; more && handled < kHandlersPerTurn; ++handled) more = io_.poll_one() > 0;
      EndTurn(/*all_handled=*/!more);
      if (turn_began_) metrics_.turn.Observe(std::chrono::steady_clock::now() - *turn_began_);
    }
  }

  // Everything that enters the hub begins here.
  Now Step() {
    const Now now = ReadClocks();
    if (!turn_began_) turn_began_ = now.steady;
    return now;
  }

  void EndTurn(bool all_handled) {
    if (ticks_due_ >= kTicksDueMax || (ticks_due_ > 0 && all_handled)) Tick();
    do {
      while (store_.run_pending && store_.run_pending()) {
      }
      CompleteCommand();
    } while (DropLinksOverBound());
    for (const LinkId id : to_flush_) {
      Link* link = Find(id);
      if (link == nullptr) continue;
      link->waits_for_flush = false;
      Flush(*link);
    }
    to_flush_.clear();
    if (drained_ && hub_.Idle() && unanswered_.empty() && links_.empty()) {
      drained_->set_value();
      drained_.reset();
    }
  }

  // --- time.

  void ScheduleTick() {
    ticker_.expires_after(options_.tick);
    ticker_.async_wait([this](const asio::error_code& error) {
      if (error) return;
      ++ticks_due_;
      ScheduleTick();
    });
  }

  void Tick() {
    ticks_due_ = 0;
    const Now now = Step();
    const auto gap = now.steady - std::exchange(last_tick_, now.steady);
    if (gap > kStall) {
      log::Warning("The loop stood still for {} ms",
                   std::chrono::duration_cast<std::chrono::milliseconds>(gap).count());
      ticks_resume_ = now.steady + kAfterStall;
    }
    if (now.steady < ticks_resume_) return;
    hub_.OnTick(now);
    ExpireEndings(now.steady);
    size_t backlog = 0;
    for (const auto& [id, link] : links_) backlog += link->gathered.bytes();
    metrics_.link_backlog_bytes.Set(backlog);
    metrics_.links_open.Set(links_.size());
    metrics_.broadcasts_unanswered.Set(unanswered_.size());
    metrics_.CopyHub(hub_);
  }

  // --- links.

  Link* Find(LinkId id) {
    const auto it = links_.find(id.value());
    return it == links_.end() ? nullptr : it->second.get();
  }

  void Open(const std::shared_ptr<LinkStream>& stream) {
    if (draining_ || links_.size() >= options_.links_max) {
      metrics_.links_refused.Add();
      Finish(stream, draining_ ? StoppingError() : absl::ResourceExhaustedError("too many links"));
      return;
    }
    const LinkId id = stream->id();
    const bool is_new = links_.emplace(id.value(), std::make_unique<Link>(stream, options_.frame_bytes_max)).second;
    PRESENCE_CHECK(is_new, "a link id is used once");
    metrics_.links_opened.Add();
    hub_.OnLinkOpened(Step(), id);
  }

  void Visit(LinkStream& stream) {
    stream.mailbox().Take(visited_);
    Link* link = Find(stream.id());
    if (link == nullptr) return;  // finished from here
    if (visited_.write_done) {
      link->write_in_flight = false;
      if (!*visited_.write_done) link->gathered.Clear();  // nobody is there; the end will follow
      FlushLater(*link);
    }
    for (const LinkMailbox::Frame& frame : visited_.frames) {
      metrics_.link_frames_received.Add();
      metrics_.link_bytes_received.Add(frame.bytes);
      const Now now = Step();
      for (const link::v1::EdgeEvent& event : frame.message->events()) {
        if (!link->hub_knows) break;
        hub_.OnLinkEvent(now, stream.id(), event);
      }
    }
    if (visited_.ended) {
      PeerEnded(*link, *visited_.ended);
    } else if (visited_.reading_paused) {
      stream.ResumeReading();
    }
  }

  void PeerEnded(Link& link, const absl::Status& why) {
    const LinkId id = link.stream->id();
    if (std::exchange(link.hub_knows, false)) hub_.OnLinkClosed(Step(), id);
    FinishNow(link, link.ending.value_or(why));
  }

  void FlushLater(Link& link) {
    if (!std::exchange(link.waits_for_flush, true)) to_flush_.push_back(link.stream->id());
  }

  // At most one write is in flight; whatever else there is waits for OnWriteDone.
  void Flush(Link& link) {
    if (link.write_in_flight) return;
    if (!link.gathered.empty()) {
      const std::string_view frame = link.gathered.Front();
      metrics_.link_frames_sent.Add();
      metrics_.link_bytes_sent.Add(frame.size());
      link.write_in_flight = true;
      link.stream->Write(frame);
      link.gathered.Pop();
    } else if (link.ending) {
      FinishNow(link, absl::Status(*link.ending));
    }
  }

  void EndAfterFlush(Link& link, absl::Status why) {
    link.hub_knows = false;
    link.ending = std::move(why);
    link.ending_deadline = Step().steady + options_.finish_max;
    FlushLater(link);
  }

  void Finish(const std::shared_ptr<LinkStream>& stream, const absl::Status& why) {
    stream->Finish(why);
    lingering_.push_back({stream, why, Step().steady + options_.finish_max});
  }

  // `link` is gone afterwards, with what was gathered for it.
  void FinishNow(Link& link, const absl::Status& why) {
    Finish(link.stream, why);
    if (command_link_ == &link) command_link_ = nullptr;
    links_.erase(link.stream->id().value());
  }

  bool DropLinksOverBound() {
    if (over_bound_.empty()) return false;
    for (const LinkId id : std::exchange(over_bound_, {})) {
      Link* link = Find(id);
      if (link == nullptr) continue;
      metrics_.links_dropped_over_bound.Add();
      log::Warning("Link {} of {} is dropped: more than {} bytes wait for it", id.value(), link->stream->peer(),
                   options_.link_backlog_bytes_max);
      if (std::exchange(link->hub_knows, false)) hub_.OnLinkClosed(Step(), id);
      FinishNow(*link, absl::ResourceExhaustedError("the shard reads too slowly"));
    }
    return true;
  }

  void ExpireEndings(SteadyTime now) {
    std::vector<LinkId> late;
    for (const auto& [id, link] : links_) {
      if (link->ending && now >= link->ending_deadline) late.emplace_back(id);
    }
    for (const LinkId id : late) {
      Link* link = Find(id);
      FinishNow(*link, absl::Status(*link->ending));
    }
    for (; !lingering_.empty() && lingering_.front().abort_at <= now; lingering_.pop_front()) {
      lingering_.front().stream->Abort(lingering_.front().why);
    }
  }

  void BeginDrain(std::shared_ptr<std::promise<void>> idle) {
    draining_ = true;
    hub_.StopJudging();
    drained_ = std::move(idle);
    std::vector<LinkId> open;
    for (const auto& [id, link] : links_) open.emplace_back(id);
    std::sort(open.begin(), open.end());
    for (const LinkId id : open) {
      Link* link = Find(id);
      if (!link->hub_knows) continue;
      hub_.OnLinkClosed(Step(), id);
      EndAfterFlush(*link, StoppingError());
    }
  }

  // --- HubOutput.

  CoreCommand& AddCommand(LinkId id) override {
    CompleteCommand();
    command_link_ = Find(id);
    // Whatever is still said to a link that has ended or is about to goes nowhere.
    if (command_link_ != nullptr && (!command_link_->hub_knows || OverBound(*command_link_))) command_link_ = nullptr;
    return command_;
  }

  // Encodes the command that AddCommand has given out: it has been filled in by now.
  void CompleteCommand() {
    if (Link* link = std::exchange(command_link_, nullptr)) {
      link->gathered.Append(command_);
      FlushLater(*link);
      // Dropped at the end of the turn: the hub must not be called from inside.
      if (OverBound(*link)) over_bound_.push_back(link->stream->id());
    }
    ClearForReuse(command_);
  }

  bool OverBound(const Link& link) const { return link.gathered.bytes() > options_.link_backlog_bytes_max; }

  void CloseLink(LinkId id, const absl::Status& why) override {
    CompleteCommand();
    Link* link = Find(id);
    if (link == nullptr || link->ending) return;
    log::Info("Link {} of {} is ended: {}", id.value(), link->stream->peer(), why.ToString());
    EndAfterFlush(*link, why);
  }

  void AnswerBroadcast(uint64_t request, const absl::Status& status) override {
    const auto it = unanswered_.find(request);
    PRESENCE_CHECK(it != unanswered_.end(), "a broadcast is answered once");
    const auto done = std::move(it->second);
    unanswered_.erase(it);
    done(status);
  }

  void Report(std::string_view text) override { log::Write(log::Level::kError, text); }

  // --- StoreListener.

  void OnStoreUp(bool lost_state) override {
    metrics_.store_up.Set(1);
    metrics_.store_ups.Add();
    const bool first = metrics_.store_ups.Value() == 1;
    log::Info("The store is up{}{}", first ? "" : " again", lost_state && !first ? ", without its former state" : "");
    hub_.OnStoreUp(Step(), lost_state);
    options_.on_store_changed(true);
  }

  void OnStoreDown(std::string_view why) override {
    metrics_.store_up.Set(0);
    log::Warning("The store is away: {}", Escaped(why));
    hub_.OnStoreDown(Step());
    options_.on_store_changed(false);
  }

  void OnWritten(uint64_t id, const WriteResult& result) override { hub_.OnWritten(Step(), id, result); }
  void OnRefreshed(uint64_t id, absl::Span<const uint32_t> missing) override { hub_.OnRefreshed(Step(), id, missing); }
  void OnPublished(uint64_t id, bool ok) override { hub_.OnPublished(Step(), id, ok); }
  void OnChangesRead(uint64_t id, const absl::StatusOr<ChangeLog>& changes) override {
    hub_.OnChangesRead(Step(), id, changes);
  }
  void OnBus(const link::v1::BusEnvelope& envelope) override { hub_.OnBus(Step(), envelope); }
  void OnOutsideMessage(std::string_view text) override { hub_.OnOutsideMessage(Step(), text); }
  void OnOutsidePresence(std::string_view text) override { hub_.OnOutsidePresence(Step(), text); }

  const CoreRuntimeOptions options_;
  CoreMetrics metrics_;
  asio::io_context io_{1};
  HostedStore store_;
  Hub hub_;
  asio::steady_timer ticker_;
  std::thread thread_;

  // Everything below is the loop thread's.
  bool stopped_ = false;
  bool draining_ = false;
  std::shared_ptr<std::promise<void>> drained_;
  int ticks_due_ = 0;  // timer intervals over since the last tick
  SteadyTime last_tick_;
  SteadyTime ticks_resume_;
  std::optional<SteadyTime> turn_began_;

  absl::flat_hash_map<uint64_t, std::unique_ptr<Link>> links_;
  std::deque<Lingering> lingering_;  // by abort_at
  std::vector<LinkId> to_flush_;
  std::vector<LinkId> over_bound_;
  LinkMailbox::Contents visited_;  // kept for its frames, which go back to a mailbox

  CoreCommand command_;           // the one that AddCommand has given out
  Link* command_link_ = nullptr;  // for this link; null: nobody's

  uint64_t next_request_ = 1;
  absl::flat_hash_map<uint64_t, std::function<void(const absl::Status&)>> unanswered_;
};

CoreRuntime::CoreRuntime(CoreRuntimeOptions options, const StoreFactory& make_store)
    : loop_(std::make_unique<Loop>(std::move(options), make_store)) {}
CoreRuntime::~CoreRuntime() = default;

void CoreRuntime::Start() {
  loop_->Start();
}
bool CoreRuntime::Drain(std::chrono::milliseconds timeout) {
  return loop_->Drain(timeout);
}
void CoreRuntime::Stop() {
  loop_->Stop();
}
void CoreRuntime::OpenLink(std::shared_ptr<LinkStream> stream) {
  loop_->OpenLink(std::move(stream));
}
void CoreRuntime::VisitLink(std::shared_ptr<LinkStream> stream) {
  loop_->VisitLink(std::move(stream));
}
void CoreRuntime::WithStore(std::function<void(Store&)> read) {
  loop_->WithStore(std::move(read));
}
void CoreRuntime::Broadcast(std::string room_id, std::string data_json, std::function<void(const absl::Status&)> done) {
  loop_->Broadcast(std::move(room_id), std::move(data_json), std::move(done));
}
const CoreMetrics& CoreRuntime::metrics() const {
  return loop_->metrics();
}

}  // namespace presence::core
