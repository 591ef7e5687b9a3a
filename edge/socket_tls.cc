// TLS between the descriptors and the rest: handshakes by the turn, and outcomes in the loop's own terms.
#include "common/log.h"
#include "edge/epoll_socket_loop.h"

namespace presence::edge {
namespace {

// Over all shards. Anybody can cause these, and nobody can do much about them.
log::LineLimit tls_lines("TLS handshakes", 10, 20);

}  // namespace

bool EpollSocketLoop::AwaitsHandshake(const Socket& socket) const {
  return tls_ != nullptr && socket.state == SocketState::kHttp && (socket.tls == nullptr || !socket.tls->established());
}

// After a call that would block. An end that was announced with the last bytes raises no further event. (Who waits for
// room is asked again when there is some.)
bool EpollSocketLoop::HasMore(const TlsStream& tls, const Socket& socket) {
  return tls.more() || (socket.read_to_end && !tls.read_waits_for_room());
}

void EpollSocketLoop::MarkHandshake(Socket& socket) {
  if (std::exchange(socket.in_handshakes, true)) return;
  handshakes_.Push(socket);
  ScheduleTurn();
}

// A few in each turn, in the order in which they came; everybody else has had a turn before.
void EpollSocketLoop::ServeHandshakes() {
  for (size_t steps = 0; steps < kHandshakesPerTurnMax && !handshakes_.empty();) {
    Socket& socket = handshakes_.Pop();
    socket.in_handshakes = false;
    if (!socket.readable || !AwaitsHandshake(socket)) continue;
    ++steps;
    StepHandshake(socket);
  }
}

void EpollSocketLoop::StepHandshake(Socket& socket) {
  // Not before the client speaks: a silent socket costs no more than without TLS.
  if (socket.tls == nullptr) socket.tls = tls_->Accept(socket.descriptor);
  if (socket.tls == nullptr) return Terminate(socket);
  switch (socket.tls->Handshake()) {
    case TlsStream::Outcome::kDone:
      counters_.tls_handshakes.Add();
      return MarkReady(socket);  // a request may have come in the same packet
    case TlsStream::Outcome::kWouldBlock:
      socket.readable = HasMore(*socket.tls, socket);
      if (socket.readable) return MarkHandshake(socket);
      if (socket.tls->read_waits_for_room()) Block(socket);
      return;
    case TlsStream::Outcome::kPlainHttp:
      counters_.tls_failures.Add();
      socket.tls.reset();
      return Refuse(socket, 400, "This port speaks TLS: https:// and wss://");
    case TlsStream::Outcome::kEnd:
    case TlsStream::Outcome::kError:
      return GiveUpHandshake(socket);
  }
}

void EpollSocketLoop::GiveUpHandshake(Socket& socket) {
  counters_.tls_failures.Add();
  // Who hangs up says no more than a port scan.
  if (const std::string& reason = socket.tls->reason(); !reason.empty() && tls_lines.Admit(log::Level::kInfo)) {
    log::Info("TLS handshake failed: {}", Escaped(reason));
  }
  Terminate(socket);
}

EpollSocketLoop::IoResult EpollSocketLoop::ReadTls(Socket& socket) {
  const TlsStream::Result result = socket.tls->Read(read_buffer_.get(), kReadBufferBytes);
  const size_t taken = socket.tls->bytes_taken();
  switch (result.outcome) {
    case TlsStream::Outcome::kDone:
      return {IoResult::Outcome::kDone, result.bytes, taken};
    case TlsStream::Outcome::kWouldBlock:
      if (socket.tls->read_waits_for_room()) Block(socket);
      return {socket.descriptor >= 0 ? IoResult::Outcome::kWouldBlock : IoResult::Outcome::kError, 0, taken};
    case TlsStream::Outcome::kEnd:
      return {IoResult::Outcome::kEnd};
    case TlsStream::Outcome::kError:
    case TlsStream::Outcome::kPlainHttp:
      break;
  }
  return {IoResult::Outcome::kError};
}

EpollSocketLoop::IoResult EpollSocketLoop::WriteTls(Socket& socket, size_t buffers) {
  // Who is sent away before the handshake cannot be told why.
  if (!socket.tls->established()) return {IoResult::Outcome::kError};
  const TlsStream::Result result = socket.tls->Write({buffers_.data(), buffers}, record_buffer_.get());
  switch (result.outcome) {
    case TlsStream::Outcome::kDone:
      return {IoResult::Outcome::kDone, result.bytes};
    case TlsStream::Outcome::kWouldBlock:
      return {IoResult::Outcome::kWouldBlock, result.bytes};
    default:
      return {IoResult::Outcome::kError};
  }
}

// Tells the peer that this is all; false: there is no room yet, and this comes again when there is. What the peer still
// sends will be dropped without being decrypted, so TLS is over here.
bool EpollSocketLoop::EndTls(Socket& socket) {
  if (socket.tls == nullptr) return true;
  if (socket.tls->EndWriting() == TlsStream::Outcome::kWouldBlock) {
    Block(socket);
    return false;
  }
  socket.tls.reset();
  return true;
}

}  // namespace presence::edge
