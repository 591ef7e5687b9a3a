#include "edge/shard_thread.h"

#include <algorithm>
#include <asio.hpp>
#include <optional>
#include <thread>
#include <utility>

#include "common/log.h"
#include "edge/client_addresses.h"
#include "edge/client_log.h"
#include "edge/client_protocol.h"
#include "edge/edge_metrics.h"
#include "edge/rest.h"
#include "edge/shard.h"
#include "edge/shard_door.h"
#include "edge/shard_options.h"

namespace presence::edge {
namespace {

using std::chrono::milliseconds;

constexpr auto kTick = milliseconds(100);
// A turn handles so much of the link before it flushes, and flushes so many connections before it looks around (DESIGN.md).
constexpr int kDeliveriesPerTurnMax = 64;
constexpr size_t kPayloadBytesPerTurnMax = 256 * 1024;
constexpr size_t kFlushSlice = 512;

// What a command has clients sent; null: nothing that would count against the bounds of a turn.
const std::string* PayloadOf(const link::v1::CoreCommand& command) {
  switch (command.command_case()) {
    case link::v1::CoreCommand::kDeliver:
      return &command.deliver().text();
    case link::v1::CoreCommand::kDeliverTo:
      return &command.deliver_to().text();
    case link::v1::CoreCommand::kDeliverPresence:
      return &command.deliver_presence().text();
    default:
      return nullptr;
  }
}

log::Level LevelOf(link::v1::LogLevel level) {
  switch (level) {
    case link::v1::LOG_LEVEL_DEBUG:
      return log::Level::kDebug;
    case link::v1::LOG_LEVEL_INFO:
      return log::Level::kInfo;
    case link::v1::LOG_LEVEL_WARNING:
      return log::Level::kWarning;
    default:
      return log::Level::kError;
  }
}

log::LineLimit refused_link_lines("links that the core refuses", 1, 3);

class WiredShard final : public ShardThread, SocketLoopHandler, ShardOutput, CoreLinkHandler {
 public:
  WiredShard(EdgeContext& context, uint32_t index)
      : context_(context),
        index_(index),
        stats_(*context.stats[index]),
        clients_(context.proxies, context.addresses, stats_),
        log_(context.incarnation, index),
        shard_(ShardOptionsOf(context, index), *this),
        door_({.context = context,
               .stats = stats_,
               .clients = clients_,
               .io = io_,
               .ready = [this](Now now) { return shard_.ready(now); }}),
        link_(io_, LinkOptionsOf(context, index), *this),
        rest_(RestSources(), context.gate, context.logout_tokens, link_),
        tick_(io_),
        drain_poll_(io_) {}

  ~WiredShard() override { Stop(); }

  absl::Status Listen(uint16_t port) {
    auto sockets = SocketLoop::Listen(io_, SocketOptionsOf(context_, port), *this);
    if (!sockets.ok()) return sockets.status();
    sockets_ = *std::move(sockets);
    return absl::OkStatus();
  }

  uint16_t port() const override { return sockets_->port(); }
  const SocketLoopCounters& socket_counters() const override { return sockets_->counters(); }

  void Start() override {
    asio::post(io_, [this] {
      link_.Start();
      Tick();
    });
    thread_ = std::thread([this] { io_.run(); });
  }

  void SendAway(milliseconds window) override {
    asio::post(io_, [this, window] {
      if (ending_ || stopping_) return;
      shard_.Drain(ReadClocks(), window);
      link_.Flush();
    });
  }

  void BeginDrain(milliseconds window, milliseconds deadline, std::function<void()> done) override {
    asio::post(io_, [this, window, deadline, done = std::move(done)] {
      ending_ = true;
      // The listener stays until the end: whoever asks /health or for a socket meanwhile is told 503, not refused.
      shard_.Drain(ReadClocks(), window);
      link_.Flush();
      AwaitDrained(std::chrono::steady_clock::now() + deadline, done);
    });
  }

  void Stop() override {
    if (!thread_.joinable()) return;
    asio::post(io_, [this] {
      tick_.cancel();
      drain_poll_.cancel();
      stopping_ = true;
      command_frame_ = nullptr;  // it belongs to the stream that ends now
      link_.Stop();
      AwaitLinkStopped();
    });
    thread_.join();
  }

 private:
  // --- SocketLoopHandler
  bool OnAccepted(SocketId socket, const PeerAddress& peer) override {
    return clients_.OnAccepted(socket.slot, peer, std::chrono::steady_clock::now());
  }
  void OnReleased(SocketId socket) override {
    door_.Forget(socket.slot);
    clients_.OnReleased(socket.slot, std::chrono::steady_clock::now());
  }
  void OnRequest(SocketId socket, const HttpRequest& request) override {
    if (auto refused = clients_.Refuse(socket.slot, request, std::chrono::steady_clock::now())) {
      for (auto& header : context_.gate.CorsHeaders(request)) refused->headers.push_back(std::move(header));
      return sockets_->Respond(socket, *refused);
    }
    if (request.path == kWebsocketPath) {
      return door_.DecideUpgrade(*sockets_, socket, request);
    }
    stats_.rest_requests.Add();
    const auto started = std::chrono::steady_clock::now();
    const bool is_logout = request.path == kBackchannelLogoutPath && request.method == "POST";
    rest_.Handle(request, ReadClocks().wall, [this, socket, started, is_logout](HttpResponse response) {
      if (response.status >= 400) stats_.rest_errors.Add();
      if (is_logout) CountLogout(response.status);
      stats_.rest_seconds.Observe(std::chrono::steady_clock::now() - started);
      sockets_->Respond(socket, response);
    });
  }

  void CountLogout(int status) {
    Counter& outcome = status == 200   ? stats_.logouts_done
                       : status >= 500 ? stats_.logouts_not_kept
                                       : stats_.logouts_refused;
    outcome.Add();
  }

  void OnOpen(SocketId socket) override {
    const std::optional<Identity> identity = door_.TakeAdmitted(socket);
    log_.Open(socket);
    if (!identity.has_value()) {
      sockets_->LimitMessages(socket, kAuthFrameBytesMax);
      return shard_.OnUnprovenOpened(ReadClocks(), socket.slot, socket.generation);
    }
    shard_.OnConnectionOpened(ReadClocks(), socket.slot, socket.generation, FactsOf(*identity));
    Welcome(socket);
  }
  // A user is there.
  void Welcome(SocketId socket) {
    stats_.connections_total.Add();
    log_.Connected(socket.slot, shard_.username(socket.slot), shard_.user_id(socket.slot));
  }
  void OnText(SocketId socket, std::string_view text) override {
    shard_.OnClientText(ReadClocks(), socket.slot, text);
    if (std::optional<TokenToCheck> check = std::exchange(token_to_check_, std::nullopt)) {
      door_.Judge(check->token, [this, socket = check->socket](Now now, const TokenCheck& verdict, bool waited) {
        OnTokenJudged(now, socket, verdict);
        if (waited) link_.Flush();
      });
    }
  }
  void OnTokenJudged(Now now, SocketId socket, const TokenCheck& check) {
    const bool was_unproven = log_.IsOpen(socket) && shard_.user_id(socket.slot).empty();
    shard_.OnTokenChecked(now, socket.slot, socket.generation, check);
    if (!was_unproven || shard_.user_id(socket.slot).empty()) return;
    sockets_->LimitMessages(socket, context_.config.message_bytes_max);
    Welcome(socket);
  }
  void OnBytes(SocketId socket, size_t bytes) override { shard_.OnBytesReceived(ReadClocks(), socket.slot, bytes); }
  void OnControlFrame(SocketId socket) override { shard_.OnControlFrame(ReadClocks(), socket.slot); }
  void OnClosed(SocketId socket, uint16_t code) override {
    const std::string_view user_id = shard_.user_id(socket.slot);
    if (!user_id.empty()) log_.Disconnected(socket.slot, shard_.username(socket.slot), user_id, code);
    log_.Closed(socket.slot, code);
    shard_.OnConnectionClosed(ReadClocks(), socket.slot);
  }
  void OnTurnEnd() override { link_.Flush(); }

  // --- ShardOutput
  link::v1::EdgeEvent& AddEvent() override { return link_.AddEvent(); }
  void DropLink(std::string_view why) override { link_.Drop(why); }
  void Send(absl::Span<const uint32_t> slots, const FrameRef& frame, SendPolicy policy) override {
    sockets_->Send(slots, frame, policy);
  }
  void Close(uint32_t slot, uint16_t code, std::string_view reason) override {
    sockets_->Close(log_.SocketOf(slot), code, reason);
  }
  void CheckToken(uint32_t slot, std::string_view token) override {
    token_to_check_ = {log_.SocketOf(slot), std::string(token)};
  }
  void SeekCore() override {
    asio::post(io_, [this] { link_.Seek(); });  // it asks the shard what to say: not from inside
  }
  void DrainEdge(milliseconds window) override { context_.drain_edge(window); }
  void SetLogLevel(link::v1::LogLevel level) override {
    const log::Level wanted = LevelOf(level);
    const bool is_news = log::SetLevel(wanted) != wanted;  // or another shard has done it
    // Never hidden by the new level itself.
    if (is_news) log::Write(std::max(wanted, log::Level::kInfo), fmt::format("Log level {}", log::LevelName(wanted)));
  }
  void Report(Severity severity, uint32_t slot, std::string_view what, std::string_view detail) override {
    log_.Report(severity, slot, what, detail);
  }

  // --- CoreLinkHandler
  void OnLinkUp() override {
    shard_.OnLinkUp(ReadClocks());
    link_.Flush();
  }
  void OnLinkFrames() override {
    if (turn_scheduled_) {
      frames_waiting_ = true;  // said once for each frame that finds the inbox empty: not to be forgotten
    } else {
      LinkTurn();
    }
  }
  void OnLinkDown(const absl::Status& why) override {
    const bool was_live = shard_.link_live();
    command_frame_ = nullptr;
    shard_.OnLinkDown(ReadClocks());
    if (absl::IsUnauthenticated(why)) {
      // Not to be outlived by trying: somebody has to set something.
      if (refused_link_lines.Admit(log::Level::kError)) {
        log::Error("Shard {} is refused by its core: {}", index_, Escaped(std::string(why.message())));
      }
    } else if (was_live) {
      log::Warning("Shard {} lost its core: {}", index_, Escaped(std::string(why.message())));
    } else if (link_failures_++ % 20 == 0) {
      log::Warning("Shard {} finds no core at CORE_LINK: {}", index_, Escaped(std::string(why.message())));
    }
  }

  void OnAskForStore(link::v1::Hello* hello) override { shard_.AskForStore(hello); }
  void OnLinkMoved() override {
    command_frame_ = nullptr;
    log::Info("Shard {} leaves its core, which is cut off from Redis, for another one", index_);
    shard_.OnLinkMoved(ReadClocks());
  }

  // Commands of the link, up to the bound of a turn; then what they queued is flushed, slice by slice, with the sockets
  // getting their turn in between; then the next ones. So a big room delays nobody by more than a slice.
  void LinkTurn() {
    turn_scheduled_ = false;
    if (stopping_) return;
    const Now now = ReadClocks();
    const bool was_live = shard_.link_live();
    int deliveries = 0;
    size_t payload_bytes = 0;
    while (deliveries < kDeliveriesPerTurnMax && payload_bytes < kPayloadBytesPerTurnMax) {
      if (command_frame_ == nullptr || next_command_ == command_frame_->commands_size()) {
        next_command_ = 0;
        command_frame_ = link_.TakeFrame();
        if (command_frame_ == nullptr) break;
        continue;
      }
      const auto& command = command_frame_->commands(next_command_++);
      if (const std::string* payload = PayloadOf(command)) {
        ++deliveries;
        payload_bytes += payload->size();
      }
      shard_.OnCommand(now, command);
    }
    if (!was_live && shard_.link_live()) {
      link_failures_ = 0;
      log::Info("Shard {} is attached to a core", index_);
    }
    link_.Flush();
    FlushSlice(now.steady);
  }

  void FlushSlice(SteadyTime turn_started) {
    turn_scheduled_ = false;
    if (stopping_) return;
    if (!sockets_->Flush(kFlushSlice)) {
      turn_scheduled_ = true;
      asio::post(io_, [this, turn_started] { FlushSlice(turn_started); });
      return;
    }
    stats_.turn_seconds.Observe(std::chrono::steady_clock::now() - turn_started);
    if (std::exchange(frames_waiting_, false) || command_frame_ != nullptr) {
      turn_scheduled_ = true;
      asio::post(io_, [this] { LinkTurn(); });
    }
  }

  void Tick() {
    // Posted, so that whatever is readable by now is handled first.
    asio::post(io_, [this] {
      if (stopping_) return;
      const Now now = ReadClocks();
      shard_.OnTick(now);
      link_.Flush();
      Publish(shard_, now, stats_);
    });
    tick_.expires_after(kTick);
    tick_.async_wait([this](std::error_code error) {
      if (!error && !stopping_) Tick();
    });
  }

  void AwaitDrained(SteadyTime deadline, std::function<void()> done) {
    const bool gone = sockets_->open_connections() == 0 && shard_.connections() == 0 && shard_.events_held() == 0;
    if (gone || std::chrono::steady_clock::now() >= deadline) {
      sockets_->StopListening();
      return done();
    }
    drain_poll_.expires_after(milliseconds(20));
    drain_poll_.async_wait([this, deadline, done = std::move(done)](std::error_code error) {
      if (!error) AwaitDrained(deadline, done);
    });
  }

  void AwaitLinkStopped() {
    if (link_.stopped()) return io_.stop();
    drain_poll_.expires_after(milliseconds(5));
    drain_poll_.async_wait([this](std::error_code) { AwaitLinkStopped(); });
  }

  Rest::Sources RestSources() {
    return {.service_name = context_.config.service_name,
            .health = [this] { return HealthOf(context_); },
            .metrics = [this] { return context_.metrics.Text(); },
            .keys = [this] { return context_.keys.Current(); },
            .after_key_refresh =
                [this](std::string_view kid, std::function<void()> again) {
                  return door_.AfterKeyRefresh(kid, std::move(again));
                }};
  }

  EdgeContext& context_;
  const uint32_t index_;
  ShardStats& stats_;
  ClientAddresses clients_;
  ClientLog log_;

  asio::io_context io_{1};
  Shard shard_;
  ShardDoor door_;
  CoreLink link_;
  Rest rest_;
  std::unique_ptr<SocketLoop> sockets_;
  asio::steady_timer tick_, drain_poll_;
  std::thread thread_;
  bool ending_ = false;    // the process is told to end
  bool stopping_ = false;  // the loop is about to

  struct TokenToCheck {
    SocketId socket;
    std::string token;
  };
  std::optional<TokenToCheck> token_to_check_;  // of the message that is being handled

  const link::v1::CoreFrame* command_frame_ = nullptr;
  int next_command_ = 0;
  bool turn_scheduled_ = false;
  bool frames_waiting_ = false;
  uint64_t link_failures_ = 0;
};

}  // namespace

absl::StatusOr<std::unique_ptr<ShardThread>> ShardThread::Create(EdgeContext& context, uint32_t shard, uint16_t port) {
  auto wired = std::make_unique<WiredShard>(context, shard);
  if (auto status = wired->Listen(port); !status.ok()) return status;
  return wired;
}

}  // namespace presence::edge
