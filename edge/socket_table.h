// What a shard keeps for each socket, and the table of them.
//
// Sockets live in chunks, so a pointer to one is good as long as the table; a slot that is freed is used again with its
// next generation. An open WebSocket costs a Socket and its engine: the HTTP side is freed at the upgrade, an empty
// write queue owns nothing.
//
// Lives on the shard's thread. Does no I/O.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "edge/deadline_list.h"
#include "edge/socket_loop.h"
#include "edge/tls_stream.h"
#include "edge/websocket_engine.h"
#include "edge/write_queue.h"

namespace presence::edge {

class EpollSocketLoop;

enum class SocketState : uint8_t {
  kFree,
  kHttp,
  kOpening,    // the engine has the request
  kOpen,       // Send works
  kClosing,    // our close frame is queued, the peer's is awaited
  kFinishing,  // nothing more is read; what is queued is still written
  kDraining,   // all is written; the peer's end is awaited, so that the last bytes are not lost to a reset
  kDead,       // the descriptor is closed; the slot is freed in a later turn
};

enum class DeadlineKind : uint8_t { kNone, kRequest, kKeepAlive, kClose, kDrain };

// Until the upgrade.
struct HttpConversation {
  enum class Phase : uint8_t {
    kReading,
    kAwaitingAnswer,
    kUpgrading,  // the handler said so, the loop does it
  };
  struct Farewell {
    uint16_t code;
    std::string reason;
  };

  std::string input;  // read and not yet parsed
  Phase phase = Phase::kReading;
  // Of the request that awaits its answer.
  bool keep_alive = false;
  bool head_request = false;
  bool upgrade = false;
  std::string head;
  // Of the answer.
  std::string subprotocol;
  std::optional<Farewell> farewell;  // UpgradeAndClose
};

class Socket final : public WebsocketEngineHandler, public DeadlineNode {
 public:
  void OnOutput(std::string_view bytes) override;
  void OnOpen() override;
  void OnMessage(MessageKind kind, std::string_view payload) override;
  void OnControlFrame() override;
  void OnEnded(uint16_t code) override;

  SocketId id() const { return {slot, generation}; }
  uint64_t event_key() const { return uint64_t{generation} << 32 | slot; }  // in the epoll set

  EpollSocketLoop* loop = nullptr;
  WriteQueue queue;
  std::unique_ptr<WebsocketEngine> engine;
  std::unique_ptr<HttpConversation> http;
  std::unique_ptr<TlsStream> tls;  // from the client's first byte to the last of ours
  int descriptor = -1;
  uint32_t closing_bytes = 0;  // read since our close frame
  uint32_t slot = 0;
  uint32_t generation = 1;
  uint16_t close_code = 0;  // what OnClosed will say; 0: not known yet
  SocketState state = SocketState::kFree;
  DeadlineKind deadline = DeadlineKind::kNone;

  bool readable = false;     // there may be something to read
  bool read_to_end = false;  // the peer has ended its side: a short read is not the last one
  bool peer_ended = false;   // that end has been read
  bool blocked = false;      // the socket took less than was offered; epoll says when it takes more
  bool watches_out = false;  // EPOLLOUT is in its epoll mask
  bool announced = false;    // OnOpen was called, OnClosed was not
  bool engine_ended = false;
  // In which of the loop's lists it is. These survive the reuse of a slot: the lists hold sockets, not generations.
  bool in_ready = false;
  bool in_dirty = false;
  bool in_over = false;
  bool in_handshakes = false;
};

// First in, first out.
class SocketFifo {
 public:
  bool empty() const { return next_ == sockets_.size(); }
  size_t size() const { return sockets_.size() - next_; }
  void Push(Socket& socket) { sockets_.push_back(&socket); }
  // REQUIRES: not empty.
  Socket& Pop();

 private:
  std::vector<Socket*> sockets_;
  size_t next_ = 0;
};

class SocketTable {
 public:
  explicit SocketTable(EpollSocketLoop& loop) : loop_(loop) {}

  // A free slot; its state is still kFree.
  Socket& Allocate();
  // As if it had never been allocated: nobody has heard of this generation. REQUIRES: its state is still kFree.
  void Return(Socket& socket);
  // All that the socket held is let go, and its generation ends.
  void Free(Socket& socket);

  // nullptr: no such slot.
  Socket* At(uint32_t slot) {
    const uint32_t chunk = slot / kChunkSockets;
    return chunk < chunks_.size() ? &chunks_[chunk][slot % kChunkSockets] : nullptr;
  }
  // nullptr: the slot has another owner, or none.
  Socket* Find(SocketId id) {
    Socket* socket = At(id.slot);
    return socket != nullptr && socket->generation == id.generation && socket->state != SocketState::kFree ? socket
                                                                                                           : nullptr;
  }
  size_t in_use() const { return in_use_; }
  size_t slots() const { return chunks_.size() * kChunkSockets; }

 private:
  static constexpr uint32_t kChunkSockets = 256;

  EpollSocketLoop& loop_;
  std::vector<std::unique_ptr<Socket[]>> chunks_;
  std::vector<uint32_t> free_;  // the one used last is used first: it is warm
  size_t in_use_ = 0;
};

}  // namespace presence::edge
