#include "edge/socket_table.h"

#include "edge/epoll_socket_loop.h"

namespace presence::edge {

// The target was 250 bytes beside the engine.
static_assert(sizeof(Socket) <= 128);

void Socket::OnOutput(std::string_view bytes) {
  loop->EngineOutput(*this, bytes);
}
void Socket::OnOpen() {
  loop->EngineOpened(*this);
}
void Socket::OnMessage(MessageKind kind, std::string_view payload) {
  loop->EngineMessage(*this, kind, payload);
}
void Socket::OnControlFrame() {
  loop->EngineControlFrame(*this);
}
void Socket::OnEnded(uint16_t code) {
  loop->EngineEnded(*this, code);
}

Socket& SocketFifo::Pop() {
  Socket& socket = *sockets_[next_++];
  if (next_ == sockets_.size()) {
    sockets_.clear();
    next_ = 0;
  } else if (next_ >= 4096 && next_ * 2 >= sockets_.size()) {
    // A list that is never quite empty must not grow for ever.
    sockets_.erase(sockets_.begin(), sockets_.begin() + static_cast<ptrdiff_t>(next_));
    next_ = 0;
  }
  return socket;
}

Socket& SocketTable::Allocate() {
  if (free_.empty()) {
    const auto first = static_cast<uint32_t>(slots());
    chunks_.push_back(std::make_unique<Socket[]>(kChunkSockets));
    for (uint32_t i = kChunkSockets; i-- > 0;) {
      Socket& socket = chunks_.back()[i];
      socket.loop = &loop_;
      socket.slot = first + i;
      free_.push_back(socket.slot);
    }
  }
  Socket& socket = *At(free_.back());
  free_.pop_back();
  ++in_use_;
  return socket;
}

void SocketTable::Return(Socket& socket) {
  free_.push_back(socket.slot);
  --in_use_;
}

void SocketTable::Free(Socket& socket) {
  DeadlineList::Remove(socket);
  socket.queue.Clear();
  socket.engine.reset();
  socket.http.reset();
  socket.tls.reset();
  socket.descriptor = -1;
  ++socket.generation;
  socket.closing_bytes = 0;
  socket.close_code = 0;
  socket.state = SocketState::kFree;
  socket.deadline = DeadlineKind::kNone;
  socket.readable = socket.read_to_end = socket.peer_ended = false;
  socket.blocked = socket.watches_out = false;
  socket.announced = socket.engine_ended = false;
  Return(socket);
}

}  // namespace presence::edge
