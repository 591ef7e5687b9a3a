#include "edge/socket_loop.h"

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <asio/error_code.hpp>
#include <asio/post.hpp>
#include <cerrno>
#include <exception>
#include <system_error>
#include <utility>

#include "absl/status/status.h"
#include "edge/epoll_socket_loop.h"

namespace presence::edge {
namespace {

constexpr uint64_t kListenerEvent = UINT64_MAX;  // no socket has slot and generation 2^32 - 1
constexpr size_t kFlushSlice = 512;
constexpr size_t kOverPerTurnMax = 512;
constexpr size_t kExpiredPerTurnMax = 512;
constexpr size_t kAcceptsPerTurnMax = 64;
// Deadlines wait until what is readable has been read: a loop that was stalled must not blame its clients. Not for
// ever.
constexpr int kExpiryPostponedTurnsMax = 64;
// Deadlines that are close together share one wake-up.
constexpr std::chrono::milliseconds kTimerGrain{10};

SocketId IdOf(uint64_t key) {
  return {static_cast<uint32_t>(key), static_cast<uint32_t>(key >> 32)};
}

// The cheapest end: nothing is left of it here, TIME_WAIT included.
void Reset(int descriptor) {
  const linger abort{1, 0};
  setsockopt(descriptor, SOL_SOCKET, SO_LINGER, &abort, sizeof(abort));
  close(descriptor);
}

}  // namespace

absl::StatusOr<std::unique_ptr<SocketLoop>> SocketLoop::Listen(asio::io_context& io, const SocketLoopOptions& options,
                                                               SocketLoopHandler& handler) {
  std::unique_ptr<TlsServer> tls;
  if (options.tls != nullptr) {
    absl::StatusOr<std::unique_ptr<TlsServer>> made = TlsServer::Create(options.tls);
    if (!made.ok()) return made.status();
    tls = *std::move(made);
  }
  absl::StatusOr<std::unique_ptr<Listener>> listener = Listener::Open(options);
  if (!listener.ok()) return listener.status();
  const int epoll_descriptor = epoll_create1(EPOLL_CLOEXEC);
  if (epoll_descriptor < 0) {
    return absl::UnavailableError("epoll_create1: " + std::generic_category().message(errno));
  }
  try {
    auto loop =
        std::make_unique<EpollSocketLoop>(io, options, handler, *std::move(listener), std::move(tls), epoll_descriptor);
    if (absl::Status status = loop->Start(); !status.ok()) return status;
    return loop;
  } catch (const std::exception& e) {
    return absl::UnavailableError(std::string("Asio does not take the epoll set: ") + e.what());
  }
}

EpollSocketLoop::EpollSocketLoop(asio::io_context& io, const SocketLoopOptions& options, SocketLoopHandler& handler,
                                 std::unique_ptr<Listener> listener, std::unique_ptr<TlsServer> tls,
                                 int epoll_descriptor)
    : options_(options),
      handler_(handler),
      table_(*this),
      listener_(std::move(listener)),
      port_(listener_->port()),
      io_(io),
      epoll_set_(io, epoll_descriptor),
      timer_(io),
      request_deadlines_(options.request_timeout),
      keep_alive_deadlines_(options.keep_alive_timeout),
      close_deadlines_(options.close_timeout),
      drain_deadlines_(options.close_timeout),
      tls_(std::move(tls)),
      record_buffer_(tls_ != nullptr ? std::make_unique<char[]>(TlsStream::kRecordBytesMax) : nullptr),
      strict_transport_(options.strict_transport_age.count() > 0
                            ? "max-age=" + std::to_string(options.strict_transport_age.count())
                            : "") {}

EpollSocketLoop::~EpollSocketLoop() {
  for (uint32_t slot = 0; slot < table_.slots(); ++slot) {
    Socket& socket = *table_.At(slot);
    if (socket.state == SocketState::kFree) continue;
    if (socket.descriptor >= 0) close(socket.descriptor);
    socket.state = SocketState::kDead;  // what the engine says in its end goes nowhere
    if (socket.engine != nullptr && !socket.engine_ended) socket.engine->Eof();
    table_.Free(socket);
  }
}

absl::Status EpollSocketLoop::Start() {
  if (!WatchListener()) {
    return absl::UnavailableError("epoll_ctl: " + std::generic_category().message(errno));
  }
  WatchEpollSet();
  return absl::OkStatus();
}

void EpollSocketLoop::StopListening() {
  DeadlineList::Remove(accept_retry_);
  listener_.reset();  // which takes it out of the epoll set
  listener_watched_ = false;
}

// --- the turn

void EpollSocketLoop::ScheduleTurn() {
  if (in_turn_ || turn_posted_) return;
  turn_posted_ = true;
  asio::post(io_, [weak = std::weak_ptr<EpollSocketLoop*>(self_)] {
    const auto self = weak.lock();
    if (self == nullptr) return;
    (*self)->turn_posted_ = false;
    (*self)->Turn();
  });
}

void EpollSocketLoop::WatchEpollSet() {
  if (watching_) return;
  watching_ = true;
  epoll_set_.async_wait(asio::posix::stream_descriptor::wait_read,
                        [weak = std::weak_ptr<EpollSocketLoop*>(self_)](const asio::error_code& error) {
                          const auto self = weak.lock();
                          if (self == nullptr) return;
                          (*self)->watching_ = false;
                          if (!error) (*self)->Turn();
                        });
}

void EpollSocketLoop::Turn() {
  in_turn_ = true;
  more_to_do_ = false;
  ReportOver();
  const bool all_taken = TakeEvents();
  ServeReady();
  ServeHandshakes();
  if ((all_taken && ready_.empty() && handshakes_.empty()) || ++expiry_postponed_turns_ > kExpiryPostponedTurnsMax) {
    expiry_postponed_turns_ = 0;
    if (!ExpireDeadlines()) more_to_do_ = true;
  } else {
    more_to_do_ = true;
  }
  handler_.OnTurnEnd();
  Flush(kFlushSlice);
  in_turn_ = false;
  EndTurn();
}

void EpollSocketLoop::EndTurn() {
  ArmTimer();
  if (more_to_do_ || !ready_.empty() || !dirty_.empty() || !over_.empty() || !handshakes_.empty()) {
    ScheduleTurn();  // which looks at the epoll set itself
  } else if (!turn_posted_) {
    WatchEpollSet();
  }
}

// Whether there was room for all events.
bool EpollSocketLoop::TakeEvents() {
  const int count = epoll_wait(epoll_set_.native_handle(), events_.data(), kEventsPerTurnMax, 0);
  for (int i = 0; i < count; ++i) {
    const epoll_event& event = events_[static_cast<size_t>(i)];
    if (event.data.u64 == kListenerEvent) {
      if (listener_ != nullptr) AcceptClients();
    } else if (Socket* socket = table_.Find(IdOf(event.data.u64)); socket != nullptr) {
      TakeEvent(*socket, event.events);
    }
  }
  return count < static_cast<int>(kEventsPerTurnMax);
}

void EpollSocketLoop::TakeEvent(Socket& socket, uint32_t events) {
  if (socket.state == SocketState::kDead) return;
  constexpr uint32_t kGone = EPOLLERR | EPOLLHUP;
  // Reading would find out. But these are not read, and nothing can be written to them any more.
  const bool not_read =
      socket.state == SocketState::kFinishing ||
      (socket.state == SocketState::kHttp && socket.http->phase == HttpConversation::Phase::kAwaitingAnswer);
  if ((events & kGone) != 0 && not_read) return Terminate(socket);
  if ((events & (EPOLLIN | EPOLLRDHUP | kGone)) != 0) {
    socket.readable = true;
    if ((events & (EPOLLRDHUP | kGone)) != 0) socket.read_to_end = true;
    MarkReady(socket);
  }
  if ((events & EPOLLOUT) != 0 && socket.blocked) {
    socket.blocked = false;
    MarkDirty(socket);
    if (socket.tls != nullptr && socket.tls->read_waits_for_room()) {
      socket.readable = true;
      MarkReady(socket);
    }
  }
}

// Those with something to read, in the order in which they became ready; each once, so that none delays the others by
// more than one buffer.
void EpollSocketLoop::ServeReady() {
  for (size_t count = std::min(ready_.size(), kEventsPerTurnMax); count > 0; --count) {
    Socket& socket = ready_.Pop();
    socket.in_ready = false;
    Serve(socket);
  }
}

void EpollSocketLoop::Serve(Socket& socket) {
  if (AwaitsHandshake(socket)) return MarkHandshake(socket);
  switch (socket.state) {
    case SocketState::kHttp:
      return ServeHttp(socket);
    case SocketState::kOpen:
    case SocketState::kClosing:
      return ReadWebsocket(socket);
    case SocketState::kDraining:
      return Discard(socket);
    case SocketState::kFree:
    case SocketState::kOpening:
    case SocketState::kFinishing:
    case SocketState::kDead:
      return;
  }
}

// Here, and nowhere else, engines die and slots are freed: no call of theirs is on the stack.
void EpollSocketLoop::ReportOver() {
  for (size_t count = std::min(over_.size(), kOverPerTurnMax); count > 0; --count) {
    Socket& socket = over_.Pop();
    socket.in_over = false;
    if (std::exchange(socket.announced, false)) {
      --open_connections_;
      handler_.OnClosed(socket.id(), socket.close_code);
    }
    // A connection that breaks in its handshake holds itself in memory until it hears of its end.
    if (socket.engine != nullptr && !socket.engine_ended) socket.engine->Eof();
    socket.engine.reset();
    socket.http.reset();
    if (socket.state == SocketState::kDead) {
      counters_.sockets_closed.Add();
      handler_.OnReleased(socket.id());
      table_.Free(socket);
    }
  }
}

// --- accepting

void EpollSocketLoop::AcceptClients() {
  for (size_t i = 0; i < kAcceptsPerTurnMax && listener_ != nullptr; ++i) {
    const Listener::Accepted accepted = listener_->Accept();
    switch (accepted.outcome) {
      case Listener::Outcome::kNobody:
        return;
      case Listener::Outcome::kExhausted:
        return PauseAccepting();
      case Listener::Outcome::kLost:
        counters_.sockets_refused.Add();
        break;
      case Listener::Outcome::kAccepted:
        if (!Admit(accepted)) counters_.sockets_refused.Add();
        break;
    }
  }
}

// False: it was one too many, and is closed.
bool EpollSocketLoop::Admit(const Listener::Accepted& accepted) {
  const int descriptor = accepted.descriptor;
  MakeRoomForSockets();
  if (table_.in_use() >= options_.sockets_max) {
    close(descriptor);
    return false;
  }
  Socket& socket = table_.Allocate();
  if (!handler_.OnAccepted(socket.id(), accepted.peer)) {
    table_.Return(socket);  // generations are not for those who are turned away, as many as may come
    Reset(descriptor);
    return false;
  }
  epoll_event event{};
  event.events = EPOLLIN | EPOLLRDHUP | EPOLLET;  // EPOLLOUT comes with the first blocked write, see Block
  event.data.u64 = socket.event_key();
  if (epoll_ctl(epoll_set_.native_handle(), EPOLL_CTL_ADD, descriptor, &event) != 0) {
    handler_.OnReleased(socket.id());
    table_.Free(socket);
    close(descriptor);
    return false;
  }
  socket.descriptor = descriptor;
  socket.state = SocketState::kHttp;
  socket.http = std::make_unique<HttpConversation>();
  MakeRoomForRequests();
  SetDeadline(socket, DeadlineKind::kRequest);
  counters_.sockets_accepted.Add();
  return true;
}

// Who has all that it was sent, and lingers, keeps nobody out.
void EpollSocketLoop::MakeRoomForSockets() {
  if (table_.in_use() < options_.sockets_max || waiting_[static_cast<size_t>(DeadlineKind::kDrain)] == 0) return;
  Terminate(static_cast<Socket&>(*drain_deadlines_.First()));
  ReportOver();  // which frees its slot: no call of an engine is on the stack here, either
}

// A thousand sockets that say nothing keep nobody out: they go first.
void EpollSocketLoop::MakeRoomForRequests() {
  const size_t silent = waiting_[static_cast<size_t>(DeadlineKind::kRequest)];
  const size_t idle = waiting_[static_cast<size_t>(DeadlineKind::kKeepAlive)];
  if (silent + idle < options_.pending_max || silent + idle == 0) return;
  counters_.pending_closed.Add();
  Terminate(static_cast<Socket&>(*(silent >= idle ? request_deadlines_ : keep_alive_deadlines_).First()));
}

// The listener is level-triggered, so that a turn may leave clients for the next one; hence it has to be taken out to
// wait.
void EpollSocketLoop::PauseAccepting() {
  epoll_ctl(epoll_set_.native_handle(), EPOLL_CTL_DEL, listener_->descriptor(), nullptr);
  listener_watched_ = false;
  accept_retries_.Add(accept_retry_, std::chrono::steady_clock::now());
}

bool EpollSocketLoop::WatchListener() {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = kListenerEvent;
  listener_watched_ = epoll_ctl(epoll_set_.native_handle(), EPOLL_CTL_ADD, listener_->descriptor(), &event) == 0;
  return listener_watched_;
}

// --- deadlines

void EpollSocketLoop::SetDeadline(Socket& socket, DeadlineKind kind) {
  if (socket.deadline != DeadlineKind::kNone) --waiting_[static_cast<size_t>(socket.deadline)];
  if (kind != DeadlineKind::kNone) ++waiting_[static_cast<size_t>(kind)];
  socket.deadline = kind;
  if (kind == DeadlineKind::kNone) return DeadlineList::Remove(socket);
  DeadlineList& list = kind == DeadlineKind::kRequest     ? request_deadlines_
                       : kind == DeadlineKind::kKeepAlive ? keep_alive_deadlines_
                       : kind == DeadlineKind::kClose     ? close_deadlines_
                                                          : drain_deadlines_;
  list.Add(socket, std::chrono::steady_clock::now());
  if (!in_turn_) ArmTimer();
}

// Whether none is left that is due.
bool EpollSocketLoop::ExpireDeadlines() {
  const SteadyTime now = std::chrono::steady_clock::now();
  if (accept_retries_.FirstDue(now) != nullptr) {
    DeadlineList::Remove(accept_retry_);
    if (!WatchListener()) accept_retries_.Add(accept_retry_, now);
  }
  size_t expired = 0;
  for (DeadlineList* list : {&request_deadlines_, &keep_alive_deadlines_, &close_deadlines_, &drain_deadlines_}) {
    while (DeadlineNode* node = list->FirstDue(now)) {
      if (++expired > kExpiredPerTurnMax) return false;
      Expire(static_cast<Socket&>(*node));
    }
  }
  return true;
}

void EpollSocketLoop::Expire(Socket& socket) {
  const DeadlineKind kind = socket.deadline;
  SetDeadline(socket, DeadlineKind::kNone);
  if (kind == DeadlineKind::kRequest) {
    counters_.request_timeouts.Add();
    if (!socket.http->input.empty()) return Refuse(socket, 408, "The request took too long");
  } else if (kind == DeadlineKind::kClose) {
    counters_.close_timeouts.Add();
  }
  Terminate(socket);
}

void EpollSocketLoop::ArmTimer() {
  const SteadyTime due = std::min({request_deadlines_.NextDue(), keep_alive_deadlines_.NextDue(),
                                   close_deadlines_.NextDue(), drain_deadlines_.NextDue(), accept_retries_.NextDue()});
  // A timer that fires too early finds nothing due and is armed again; most deadlines are removed long before they are
  // due.
  if (due >= timer_due_) return;
  timer_due_ = std::max(due, std::chrono::steady_clock::now() + kTimerGrain);
  timer_.expires_at(timer_due_);
  timer_.async_wait([weak = std::weak_ptr<EpollSocketLoop*>(self_)](const asio::error_code& error) {
    const auto self = weak.lock();
    if (self == nullptr || error) return;
    (*self)->timer_due_ = SteadyTime::max();
    (*self)->Turn();
  });
}

// --- the lists

void EpollSocketLoop::MarkReady(Socket& socket) {
  if (std::exchange(socket.in_ready, true)) return;
  ready_.Push(socket);
  ScheduleTurn();
}

void EpollSocketLoop::MarkDirty(Socket& socket) {
  if (socket.in_dirty || socket.blocked) return;  // a blocked one comes back with EPOLLOUT
  socket.in_dirty = true;
  dirty_.Push(socket);
  ScheduleTurn();
}

void EpollSocketLoop::MarkOver(Socket& socket) {
  if (std::exchange(socket.in_over, true)) return;
  over_.Push(socket);
  ScheduleTurn();
}

}  // namespace presence::edge
