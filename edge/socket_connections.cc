// Reading, writing and ending one connection.
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "edge/epoll_socket_loop.h"

namespace presence::edge {
namespace {

constexpr size_t kUnbounded = SIZE_MAX;
constexpr uint16_t kCloseUnsupportedData = 1003;
constexpr uint16_t kCloseAbnormal = 1006;
constexpr uint16_t kClosePolicyViolation = 1008;
constexpr uint16_t kCloseTryAgainLater = 1013;

// A peer that sends pings and reads nothing would make us keep a pong of 2 bytes, and 50 more to hold it, for each; one
// answer, to the latest, is enough (RFC 6455, section 5.5.3).
constexpr SendPolicy kPongPolicy{SendClass::kLatest, UINT32_MAX};
constexpr SendPolicy kReliablePolicy{SendClass::kReliable, 0};

bool IsPong(std::string_view frame) {
  return !frame.empty() && static_cast<unsigned char>(frame[0]) == 0x8A;
}

}  // namespace

EpollSocketLoop::IoResult EpollSocketLoop::ReadSome(Socket& socket) {
  using Outcome = IoResult::Outcome;
  if (socket.tls != nullptr) return ReadTls(socket);
  ssize_t bytes;
  do {
    bytes = recv(socket.descriptor, read_buffer_.get(), kReadBufferBytes, 0);
  } while (bytes < 0 && errno == EINTR);
  if (bytes > 0) return {Outcome::kDone, static_cast<size_t>(bytes), static_cast<size_t>(bytes)};
  if (bytes == 0) return {Outcome::kEnd};
  return {errno == EAGAIN ? Outcome::kWouldBlock : Outcome::kError};
}

// The first `buffers` of buffers_, which hold `size` bytes. What writev does, and no SIGPIPE.
EpollSocketLoop::IoResult EpollSocketLoop::WriteSome(Socket& socket, size_t buffers, size_t size) {
  using Outcome = IoResult::Outcome;
  if (socket.tls != nullptr) return WriteTls(socket, buffers);
  msghdr message{};
  message.msg_iov = buffers_.data();
  message.msg_iovlen = buffers;
  ssize_t bytes;
  do {
    bytes = sendmsg(socket.descriptor, &message, MSG_NOSIGNAL);
  } while (bytes < 0 && errno == EINTR);
  if (bytes < 0) return {errno == EAGAIN ? Outcome::kWouldBlock : Outcome::kError};
  const auto taken = static_cast<size_t>(bytes);
  return {taken < size ? Outcome::kWouldBlock : Outcome::kDone, taken};
}

EpollSocketLoop::IoResult EpollSocketLoop::Read(Socket& socket) {
  const IoResult result = ReadSome(socket);
  switch (result.outcome) {
    case IoResult::Outcome::kDone: {
      counters_.bytes_in.Add(result.bytes);
      // What comes after a short read raises a new event; except for an end that was announced before it, and for what
      // TLS holds.
      const bool more = socket.tls != nullptr ? socket.tls->more() : result.bytes == kReadBufferBytes;
      socket.readable = more || socket.read_to_end;
      break;
    }
    case IoResult::Outcome::kEnd:
      socket.peer_ended = true;
      socket.readable = false;
      break;
    case IoResult::Outcome::kWouldBlock:
      socket.readable = socket.tls != nullptr && HasMore(*socket.tls, socket);
      break;
    case IoResult::Outcome::kError:
      socket.readable = false;
      break;
  }
  return result;
}

void EpollSocketLoop::ReadWebsocket(Socket& socket) {
  if (!socket.readable) return;
  const IoResult result = Read(socket);
  switch (result.outcome) {
    case IoResult::Outcome::kDone:
    case IoResult::Outcome::kWouldBlock:  // TLS may have taken bytes for itself
      FeedWebsocket(socket, {read_buffer_.get(), result.bytes}, result.taken);
      break;
    case IoResult::Outcome::kEnd:
    case IoResult::Outcome::kError:
      return Terminate(socket);
  }
  if (socket.readable) MarkReady(socket);
}

// `taken`: what they were on the wire, which is what the peer is charged for.
void EpollSocketLoop::FeedWebsocket(Socket& socket, std::string_view bytes, size_t taken) {
  if (socket.state == SocketState::kOpen) {
    if (taken > 0) handler_.OnBytes(socket.id(), taken);
  } else if (socket.state == SocketState::kClosing) {
    socket.closing_bytes += static_cast<uint32_t>(taken);
    if (socket.closing_bytes > kClosingBytesMax) Finish(socket);
  }
  const bool wanted = socket.state == SocketState::kOpen || socket.state == SocketState::kClosing;
  if (wanted && !bytes.empty()) socket.engine->Feed(bytes);
}

void EpollSocketLoop::Discard(Socket& socket) {
  if (!socket.readable) return;
  const IoResult::Outcome outcome = Read(socket).outcome;
  if (outcome == IoResult::Outcome::kEnd || outcome == IoResult::Outcome::kError) return Terminate(socket);
  if (socket.readable) MarkReady(socket);
}

// --- writing

void EpollSocketLoop::Send(absl::Span<const uint32_t> slots, const FrameRef& frame, SendPolicy policy) {
  for (const uint32_t slot : slots) {
    Socket* socket = table_.At(slot);
    if (socket != nullptr && socket->state == SocketState::kOpen) Deliver(*socket, frame, policy);
  }
}

void EpollSocketLoop::Deliver(Socket& socket, const FrameRef& frame, SendPolicy policy) {
  PushResult result = socket.queue.Push(frame, policy, options_.send_buffer_bytes_max);
  // Much was queued in this turn: that is no fault of the reader until its socket refuses.
  while ((result == PushResult::kDropped || result == PushResult::kFull) && !socket.blocked) {
    WriteQueued(socket);
    if (socket.state != SocketState::kOpen) return;
    result = socket.queue.Push(frame, policy, options_.send_buffer_bytes_max);
  }
  switch (result) {
    case PushResult::kQueued:
      return MarkDirty(socket);
    case PushResult::kReplaced:
      return counters_.latest_replaced.Add();
    case PushResult::kDropped:
      return counters_.volatile_drops.Add();
    case PushResult::kFull:
      if (policy.send_class == SendClass::kVolatile) return counters_.volatile_drops.Add();
      return CloseSlow(socket);
  }
}

bool EpollSocketLoop::Flush(size_t connections_max) {
  for (size_t i = 0; i < connections_max && !dirty_.empty(); ++i) {
    Socket& socket = dirty_.Pop();
    socket.in_dirty = false;
    if (socket.descriptor >= 0 && !socket.blocked) WriteQueued(socket);
  }
  return dirty_.empty();
}

// One writev.
void EpollSocketLoop::WriteQueued(Socket& socket) {
  size_t buffers = 0;
  const size_t bytes = socket.queue.Gather(kBuffersPerWriteMax, [this, &buffers](std::string_view frame) {
    buffers_[buffers++] = {const_cast<char*>(frame.data()), frame.size()};
  });
  if (buffers == 0) {
    if (socket.state == SocketState::kFinishing) Drained(socket);  // TLS had no room for its last word
    return;
  }
  const IoResult result = WriteSome(socket, buffers, bytes);
  counters_.writev_calls.Add();
  if (result.outcome == IoResult::Outcome::kError) return Terminate(socket);
  counters_.bytes_out.Add(result.bytes);
  counters_.frames_written.Add(socket.queue.Consume(result.bytes));
  if (result.outcome == IoResult::Outcome::kWouldBlock) {
    // A long answer over a slow line has its time-out for each piece, not for the whole. What a WebSocket leaves in its
    // queue has not: who is closed for being slow, or worse, does not stay by being slow.
    const bool last_answer = socket.state == SocketState::kFinishing && socket.engine == nullptr;
    const bool last_bytes = last_answer || socket.deadline == DeadlineKind::kKeepAlive;
    if (last_bytes && result.bytes > 0) SetDeadline(socket, socket.deadline);
    Block(socket);
  } else if (!socket.queue.empty()) {
    MarkDirty(socket);
  } else {
    Drained(socket);
  }
}

void EpollSocketLoop::Block(Socket& socket) {
  socket.blocked = true;
  if (socket.watches_out) return;
  socket.watches_out = true;
  epoll_event event{};
  event.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
  event.data.u64 = socket.event_key();
  // This looks at the socket anew: room that has come since the write is not missed.
  if (epoll_ctl(epoll_set_.native_handle(), EPOLL_CTL_MOD, socket.descriptor, &event) != 0) Terminate(socket);
}

// --- ending

// The close frame cannot get into a full socket, so it takes the place of all that waits behind what is on its way.
void EpollSocketLoop::CloseSlow(Socket& socket) {
  counters_.slow_closes.Add();
  socket.queue.DropUnstarted();
  BeginClose(socket, kCloseTryAgainLater, "slow consumer");
}

void EpollSocketLoop::LimitMessages(SocketId id, size_t bytes_max) {
  Socket* socket = table_.Find(id);
  if (socket == nullptr || socket->state != SocketState::kOpen) return;
  socket->engine->LimitMessages(std::min(bytes_max, options_.message_bytes_max));
}

void EpollSocketLoop::Close(SocketId id, uint16_t code, std::string_view reason) {
  Socket* socket = table_.Find(id);
  if (socket == nullptr || socket->state != SocketState::kOpen) return;
  BeginClose(*socket, code, reason);
  // Whoever broke a policy may not listen either: what it still sends is not even parsed. It has our close frame, and then our end.
  if (code == kClosePolicyViolation) Finish(*socket);
}

void EpollSocketLoop::BeginClose(Socket& socket, uint16_t code, std::string_view reason) {
  socket.state = SocketState::kClosing;
  socket.close_code = code;
  SetDeadline(socket, DeadlineKind::kClose);
  socket.engine->Close(code, reason);
}

// Nothing more is read. What is queued is written, then the peer is told that this is the end.
void EpollSocketLoop::Finish(Socket& socket) {
  socket.state = SocketState::kFinishing;
  if (socket.deadline != DeadlineKind::kClose) SetDeadline(socket, DeadlineKind::kClose);
  if (socket.queue.empty()) {
    Drained(socket);
  } else {
    MarkDirty(socket);
  }
}

// All is written.
void EpollSocketLoop::Drained(Socket& socket) {
  if (socket.state == SocketState::kHttp) {
    // Further requests may have waited for this.
    if (socket.readable || !socket.http->input.empty()) MarkReady(socket);
    return;
  }
  if (socket.state != SocketState::kFinishing || !EndTls(socket)) return;
  if (socket.peer_ended) return Terminate(socket);
  // A descriptor that is closed with unread input resets the connection, and the peer may lose our last bytes with it
  // (RFC 9112, section 9.6). So: only our side ends, and whatever still comes is read and dropped until the peer's
  // does.
  shutdown(socket.descriptor, SHUT_WR);
  socket.state = SocketState::kDraining;
  SetDeadline(socket, DeadlineKind::kDrain);
  MarkOver(socket);
  socket.readable = true;
  MarkReady(socket);
}

void EpollSocketLoop::Terminate(Socket& socket) {
  if (socket.state == SocketState::kDead) return;
  if (socket.close_code == 0) socket.close_code = kCloseAbnormal;
  if (!socket.queue.empty()) {
    // The kernel holds megabytes for a peer that does not read, and would try for minutes to deliver them: a reset
    // frees them.
    const linger abort{1, 0};
    setsockopt(socket.descriptor, SOL_SOCKET, SO_LINGER, &abort, sizeof(abort));
  }
  socket.tls.reset();
  close(std::exchange(socket.descriptor, -1));  // which takes it out of the epoll set
  socket.queue.Clear();
  SetDeadline(socket, DeadlineKind::kNone);
  socket.state = SocketState::kDead;
  MarkOver(socket);
}

// --- from the engines

void EpollSocketLoop::EngineOutput(Socket& socket, std::string_view bytes) {
  switch (socket.state) {
    case SocketState::kOpening:
    case SocketState::kOpen:
    case SocketState::kClosing:
      break;
    default:
      return;
  }
  const bool pong = IsPong(bytes);
  const PushResult result = socket.queue.Push(FrameRef::Raw(bytes), pong ? kPongPolicy : kReliablePolicy,
                                              pong ? options_.send_buffer_bytes_max : kUnbounded);
  if (result == PushResult::kQueued) MarkDirty(socket);
}

void EpollSocketLoop::EngineOpened(Socket& socket) {
  if (socket.state != SocketState::kOpening) return;
  counters_.upgrades.Add();
  socket.state = SocketState::kOpen;
  if (const auto& farewell = socket.http->farewell; farewell.has_value()) {
    BeginClose(socket, farewell->code, farewell->reason);
    return Finish(socket);  // whoever was never let in is not listened to, either
  }
  socket.announced = true;
  ++open_connections_;
  handler_.OnOpen(socket.id());
}

void EpollSocketLoop::EngineMessage(Socket& socket, MessageKind kind, std::string_view payload) {
  if (socket.state != SocketState::kOpen) return;
  if (kind == MessageKind::kText) return handler_.OnText(socket.id(), payload);
  counters_.closes_1003.Add();
  BeginClose(socket, kCloseUnsupportedData, "text messages only");
}

void EpollSocketLoop::EngineControlFrame(Socket& socket) {
  if (socket.state == SocketState::kOpen) handler_.OnControlFrame(socket.id());
}

void EpollSocketLoop::EngineEnded(Socket& socket, uint16_t code) {
  socket.engine_ended = true;
  switch (socket.state) {
    case SocketState::kOpening:
    case SocketState::kOpen:
    case SocketState::kClosing:
      break;
    default:
      return;
  }
  if (socket.state == SocketState::kOpen) {
    if (code == 1002) counters_.closes_1002.Add();
    if (code == 1007) counters_.closes_1007.Add();
    if (code == 1009) counters_.closes_1009.Add();
  }
  if (socket.close_code == 0) socket.close_code = code;
  Finish(socket);
}

}  // namespace presence::edge
