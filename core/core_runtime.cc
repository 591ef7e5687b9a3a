#include "core/core_runtime.h"

#include <asio.hpp>
#include <future>
#include <optional>
#include <string_view>
#include <thread>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "common/check.h"
#include "common/log.h"

namespace presence::core {
namespace {

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

log::Level ToLogLevel(link::v1::LogLevel level) {
  switch (level) {
    case link::v1::LOG_LEVEL_DEBUG:
      return log::Level::kDebug;
    case link::v1::LOG_LEVEL_WARNING:
      return log::Level::kWarning;
    case link::v1::LOG_LEVEL_ERROR:
      return log::Level::kError;
    default:
      return log::Level::kInfo;
  }
}

}  // namespace

class CoreRuntime::Loop final : private StoreListener, private HubOutput, private RoomRightListener {
 public:
  Loop(CoreRuntimeOptions options, const StoreFactory& make_store)
      : options_(std::move(options)),
        store_(make_store(io_, *this)),
        links_(options_.links, hub_, clock_, metrics_),
        authorizer_(options_.make_room_authorizer ? options_.make_room_authorizer(io_, *this) : nullptr),
        hub_(options_.hub, *store_.store, *this, authorizer_.get()),
        watches_(
            options_.watches, *store_.store,
            [this](link::v1::ClusterRequest body, AskDone done) { AskFromLoop(std::move(body), std::move(done)); }),
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
    asio::post(io_, [this, stream = std::move(stream)] { links_.Open(stream); });
  }

  void VisitLink(std::shared_ptr<LinkStream> stream) {
    asio::post(io_, [this, stream = std::move(stream)] { links_.Visit(*stream); });
  }

  void OnLoop(std::function<void(LoopParts&)> work) {
    asio::post(io_, [this, work = std::move(work)] {
      LoopParts parts{clock_.Read(), *store_.store};
      work(parts);
    });
  }

  void Send(OutgoingMessage message, MessageDone done) {
    asio::post(io_, [this, message = std::move(message), done = std::move(done)]() mutable {
      if (message.given_up && message.given_up()) return done(absl::CancelledError("nobody waits for it"), {});
      const uint64_t request = ++last_message_;
      messages_.emplace(request, std::move(done));
      hub_.OnMessageRequested(clock_.Read(), request,
                              {.room_id = message.room_id,
                               .user_id = message.user_id,
                               .data_json = message.data_json,
                               .excluded_user_ids = message.excluded_user_ids,
                               .request_id = message.request_id,
                               .fingerprint = message.fingerprint});
    });
  }

  void SetTyping(link::v1::RoomTyping typing, std::function<void(const absl::Status&)> done) {
    asio::post(io_, [this, typing = std::move(typing), done = std::move(done)] {
      done(hub_.OnTypingRequested(clock_.Read(), typing));
    });
  }

  void Ask(uint64_t request, link::v1::ClusterRequest body, AskDone done) {
    asio::post(io_, [this, request, body = std::move(body), done = std::move(done)]() mutable {
      asked_.emplace(request, std::move(done));
      hub_.OnClusterRequested(clock_.Read(), request, std::move(body));
    });
  }

  void GiveUp(uint64_t request) {
    asio::post(io_, [this, request] {
      if (asked_.contains(request)) hub_.OnClusterCancelled(clock_.Read(), request);
    });
  }

  void OpenTap(uint64_t tap, link::v1::TapOrder target, std::shared_ptr<TapSink> sink) {
    asio::post(io_, [this, tap, target = std::move(target), sink = std::move(sink)] {
      if (stopping_) return sink->OnTapRefused(StoppingError());
      if (const absl::Status status = hub_.OnTapOpened(clock_.Read(), tap, target); !status.ok()) {
        return sink->OnTapRefused(status);
      }
      taps_.emplace(tap, sink);
    });
  }

  void CloseTap(uint64_t tap) {
    asio::post(io_, [this, tap] {
      if (taps_.erase(tap) != 0) hub_.OnTapClosed(clock_.Read(), tap);
    });
  }

  Watches& watches() { return watches_; }
  const CoreMetrics& metrics() const { return metrics_; }

 private:
  // --- turns.

  void Run() {
    const auto work = asio::make_work_guard(io_);
    while (!stopped_) {
      clock_.Forget();
      io_.run_one();
      bool more = true;
      for (int handled = 1; more && handled < kHandlersPerTurn; ++handled) more = io_.poll_one() > 0;
      EndTurn(/*all_handled=*/!more);
      if (clock_.began()) metrics_.turn.Observe(std::chrono::steady_clock::now() - *clock_.began());
    }
  }

  void EndTurn(bool all_handled) {
    if (ticks_due_ >= kTicksDueMax || (ticks_due_ > 0 && all_handled)) Tick();
    do {
      // In every turn: what the store has answered to a watcher's read needs no clock, and must be told at once all the same.
      const Now now = ReadClocks();
      watches_.OnTurnEnd(now);
      hub_.OnTurnEnd(now);
    } while (RunStore() || !links_.Complete());
    links_.Flush();
    if (drained_ && hub_.Idle() && messages_.empty() && links_.empty()) {
      drained_->set_value();
      drained_.reset();
    }
  }

  // True: the store had answers to give.
  bool RunStore() {
    bool ran = false;
    while (store_.run_pending && store_.run_pending()) ran = true;
    return ran;
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
    const Now now = clock_.Read();
    const auto gap = now.steady - std::exchange(last_tick_, now.steady);
    if (gap > kStall) {
      log::Warning("The loop stood still for {} ms",
                   std::chrono::duration_cast<std::chrono::milliseconds>(gap).count());
      ticks_resume_ = now.steady + kAfterStall;
    }
    if (now.steady < ticks_resume_) return;
    hub_.OnHostState(
        {.watchers = watches_.watchers(), .link_backlog_bytes = links_.backlog_bytes(), .draining = links_.draining()});
    hub_.OnTick(now);
    watches_.OnTick(now, hub_.caught_up());
    links_.OnTick(now.steady);
    metrics_.link_backlog_bytes.Set(links_.backlog_bytes());
    metrics_.links_open.Set(links_.size());
    metrics_.broadcasts_unanswered.Set(messages_.size());
    metrics_.watchers.Set(watches_.watchers());
    metrics_.CopyHub(hub_);
  }

  // --- the end.

  void BeginDrain(std::shared_ptr<std::promise<void>> idle) {
    hub_.StopJudging();
    watches_.Shutdown(StoppingError());
    stopping_ = true;
    // Each of them will say CloseTap, which is posted.
    for (const auto& [tap, sink] : taps_) sink->OnTapRefused(StoppingError());
    drained_ = std::move(idle);
    links_.Drain(std::chrono::milliseconds(0), StoppingError());
  }

  void DrainCore(std::chrono::milliseconds window) override {
    // Not from inside the hub.
    asio::post(io_, [this, window] {
      if (links_.draining()) return;
      log::Info("An operator drains this core: {} links are sent away over {} ms", links_.size(), window.count());
      options_.on_draining();
      links_.Drain(window, absl::UnavailableError("the core is being drained"));
    });
  }

  void SetLogLevel(link::v1::LogLevel level) override {
    log::SetLevel(ToLogLevel(level));
    log::Info("An operator has set the log level");
  }

  // --- HubOutput.

  link::v1::CoreCommand& AddCommand(LinkId id) override { return links_.AddCommand(id); }
  size_t BacklogBytes(LinkId id) const override { return links_.backlog_bytes(id); }
  void CloseLink(LinkId id, const absl::Status& why) override { links_.CloseLink(id, why); }

  void AnswerMessage(uint64_t request, const absl::Status& status, const MessageAnswer& answer) override {
    const auto it = messages_.find(request);
    PRESENCE_CHECK(it != messages_.end(), "a message is answered once");
    const MessageDone done = std::move(it->second);
    messages_.erase(it);
    done(status, answer);
  }

  void AnswerCluster(uint64_t request, const absl::Status& status,
                     std::vector<link::v1::ClusterReply> replies) override {
    const auto it = asked_.find(request);
    PRESENCE_CHECK(it != asked_.end(), "a request is answered once");
    const AskDone done = std::move(it->second);
    asked_.erase(it);
    done(status, std::move(replies));
  }

  // From the turn's end: the watches ask by themselves, with numbers of their own.
  void AskFromLoop(link::v1::ClusterRequest body, AskDone done) {
    const uint64_t request = kLoopRequests | ++last_loop_request_;
    asked_.emplace(request, std::move(done));
    hub_.OnClusterRequested(clock_.Read(), request, std::move(body));
  }

  void Tapped(uint64_t tap, const link::v1::TapEvents& events) override {
    if (const auto it = taps_.find(tap); it != taps_.end()) it->second->OnTapped(events);
  }

  void PresenceChanged(const PresenceChange& change) override { watches_.OnPresenceChanged(clock_.Read(), change); }

  void Report(std::string_view text) override { log::Write(log::Level::kError, text); }

  // --- StoreListener.

  void OnStoreUp(bool lost_state) override {
    metrics_.store_up.Set(1);
    metrics_.store_ups.Add();
    const bool first = metrics_.store_ups.Value() == 1;
    log::Info("The store is up{}{}", first ? "" : " again", lost_state && !first ? ", without its former state" : "");
    hub_.OnStoreUp(clock_.Read(), lost_state);
    options_.on_store_changed(true);
  }

  void OnStoreDown(std::string_view why) override {
    metrics_.store_up.Set(0);
    log::Warning("The store is away: {}", Escaped(why));
    hub_.OnStoreDown(clock_.Read());
    options_.on_store_changed(false);
  }

  void OnWritten(uint64_t id, const WriteResult& result) override { hub_.OnWritten(clock_.Read(), id, result); }
  void OnRefreshed(uint64_t id, absl::Span<const uint32_t> missing) override {
    hub_.OnRefreshed(clock_.Read(), id, missing);
  }
  void OnPublished(uint64_t id, bool ok) override { hub_.OnPublished(clock_.Read(), id, ok); }
  void OnPublishedOnce(uint64_t id, const OnceResult& result) override {
    hub_.OnPublishedOnce(clock_.Read(), id, result);
  }
  void OnAppended(uint64_t id, const AppendResult& result) override { hub_.OnAppended(clock_.Read(), id, result); }
  void OnRoomLogRead(uint64_t id, const absl::StatusOr<RoomLogPage>& page) override {
    hub_.OnRoomLogRead(clock_.Read(), id, page);
  }
  void OnLogoutKept(uint64_t id, bool ok) override { hub_.OnLogoutKept(clock_.Read(), id, ok); }
  void OnLogoutsRead(const absl::StatusOr<LogoutLog>& log) override { hub_.OnLogoutsRead(clock_.Read(), log); }
  void OnCoresRead(const absl::StatusOr<std::vector<uint64_t>>& cores) override {
    hub_.OnCoresRead(clock_.Read(), cores);
  }
  void OnChangesRead(uint64_t id, const absl::StatusOr<ChangeLog>& changes) override {
    if ((id & Watches::kReadIds) != 0) return watches_.OnChangesRead(id, changes);
    hub_.OnChangesRead(clock_.Read(), id, changes);
  }
  void OnBus(const link::v1::BusEnvelope& envelope) override { hub_.OnBus(clock_.Read(), envelope); }
  void OnReplies(const link::v1::ClusterReplies& replies) override { hub_.OnReplies(clock_.Read(), replies); }
  void OnOutsideMessage(std::string_view text) override { hub_.OnOutsideMessage(clock_.Read(), text); }
  void OnOutsidePresence(std::string_view text) override { hub_.OnOutsidePresence(clock_.Read(), text); }

  // --- RoomRightListener.

  void OnRoomRight(uint64_t question, const RoomAnswer& answer) override {
    hub_.OnRoomRight(clock_.Read(), question, answer);
  }

  // Of requests that are asked from the loop; NextRequest stays below.
  static constexpr uint64_t kLoopRequests = uint64_t{1} << 63;

  const CoreRuntimeOptions options_;
  CoreMetrics metrics_;
  asio::io_context io_{1};
  TurnClock clock_;
  HostedStore store_;
  LoopLinks links_;  // with a reference to hub_, which it does not use before the first link
  std::unique_ptr<RoomAuthorizer> authorizer_;
  Hub hub_;
  Watches watches_;
  asio::steady_timer ticker_;
  std::thread thread_;

  // Everything below is the loop thread's.
  bool stopped_ = false;
  bool stopping_ = false;
  std::shared_ptr<std::promise<void>> drained_;
  int ticks_due_ = 0;  // timer intervals over since the last tick
  SteadyTime last_tick_;
  SteadyTime ticks_resume_;

  uint64_t last_message_ = 0, last_loop_request_ = 0;
  // Who waits for the hub's answer, by request. Bounded by the hub and by the services' budgets.
  absl::flat_hash_map<uint64_t, MessageDone> messages_;
  absl::flat_hash_map<uint64_t, AskDone> asked_;
  absl::flat_hash_map<uint64_t, std::shared_ptr<TapSink>> taps_;
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
void CoreRuntime::OnLoop(std::function<void(LoopParts&)> work) {
  loop_->OnLoop(std::move(work));
}
void CoreRuntime::Send(OutgoingMessage message, MessageDone done) {
  loop_->Send(std::move(message), std::move(done));
}
void CoreRuntime::SetTyping(link::v1::RoomTyping typing, std::function<void(const absl::Status&)> done) {
  loop_->SetTyping(std::move(typing), std::move(done));
}
void CoreRuntime::Ask(uint64_t request, link::v1::ClusterRequest body, AskDone done) {
  loop_->Ask(request, std::move(body), std::move(done));
}
void CoreRuntime::GiveUp(uint64_t request) {
  loop_->GiveUp(request);
}
void CoreRuntime::OpenTap(uint64_t tap, link::v1::TapOrder target, std::shared_ptr<TapSink> sink) {
  loop_->OpenTap(tap, std::move(target), std::move(sink));
}
void CoreRuntime::CloseTap(uint64_t tap) {
  loop_->CloseTap(tap);
}
Watches& CoreRuntime::watches() {
  return loop_->watches();
}
const CoreMetrics& CoreRuntime::metrics() const {
  return loop_->metrics();
}

}  // namespace presence::core
