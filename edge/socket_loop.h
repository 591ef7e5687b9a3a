// The sockets of one shard: accepts, reads, parses HTTP, upgrades to WebSocket, queues and writes. Owns every
// descriptor, buffer and time-out of the clients; knows nothing of tokens, rooms or presence.
//
// Calls to the handler come from the loop alone, never from inside a call of this interface; the handler may call
// everything here, except the destructor.
//
// Lives on the shard's thread, inside its Asio loop: all descriptors sit in one epoll set, which a single Asio
// descriptor watches. One read buffer for the whole shard. What got something to send is flushed once at the end of the
// loop turn, in one writev: under load, messages join by themselves; an idle system waits for nothing.
//
// Invariants: a connection's queue never exceeds send_buffer_bytes_max by more than one frame, in-flight bytes
// included (by TLS, by one more record of 16 KB, which is encrypted already); a slot is used again only with its next generation; after OnClosed nothing is written to that connection.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/metrics.h"
#include "common/tls_files.h"
#include "edge/frame.h"
#include "edge/http.h"
#include "edge/peer_address.h"

namespace asio {
class io_context;
}

namespace presence::edge {

// A socket of this shard. Stale ones (an older generation) are ignored by every call.
struct SocketId {
  uint32_t slot = 0;
  uint32_t generation = 0;
  friend bool operator==(const SocketId&, const SocketId&) = default;
};

struct SocketLoopOptions {
  std::string host = "0.0.0.0";
  uint16_t port = 0;  // 0: any free one, see port()
  size_t message_bytes_max = 64 * 1024;
  size_t send_buffer_bytes_max = 1024 * 1024;
  size_t sockets_max = 19'000;  // further ones are accepted and closed at once; below the descriptor limit
  size_t head_bytes_max = kHttpHeadBytesMax;  // of a request line with its headers; more is 431; at most that constant
  // Sockets that owe a request, or are kept for a further one. One more, and of these two kinds the greater one loses its oldest.
  size_t pending_max = 4'096;
  // From accept (so a TLS handshake is in it), or from the first byte of a further request, to the request's end.
  std::chrono::milliseconds request_timeout{5000};
  std::chrono::milliseconds keep_alive_timeout{30000};
  std::chrono::milliseconds close_timeout{3000};  // for the peer's answer to a close frame, and for the last bytes
  int listen_backlog = 4096;
  std::shared_ptr<TlsFiles> tls;                 // every client speaks TLS; null: none does
  std::chrono::seconds strict_transport_age{0};  // what Strict-Transport-Security says; 0: it is not sent
};

// Written by the shard's thread, read by any.
struct SocketLoopCounters {
  Counter sockets_accepted;  // open now: accepted - closed
  Counter sockets_closed;
  Counter sockets_refused;   // closed at once: sockets_max, or no descriptors left
  Counter requests;          // whole ones; upgrades among them
  Counter requests_refused;  // answered here: malformed, too large, too slow
  Counter heads_too_long;    // of those: 431
  Counter pending_closed;    // to make room: pending_max
  Counter upgrades;          // handshakes completed
  Counter bytes_in, bytes_out;
  Counter writev_calls;
  Counter frames_written;  // whole frames and responses; those over writev_calls is how well they join
  Counter volatile_drops;
  Counter latest_replaced;
  Counter slow_closes;  // 1013
  Counter request_timeouts;
  Counter tls_handshakes, tls_failures;  // completed; given up for a fault of the client or its network
  Counter close_timeouts;                // close frames without an answer, last bytes that nobody took
  Counter closes_1002, closes_1003, closes_1007, closes_1009;  // the peer broke the protocol
};

class SocketLoopHandler {
 public:
  virtual ~SocketLoopHandler() = default;
  // A socket was accepted. False: it is reset at once, and nothing else comes about it.
  virtual bool OnAccepted(SocketId /*socket*/, const PeerAddress& /*peer*/) { return true; }
  // It is over, whatever it was: the last that is heard of it, exactly once.
  virtual void OnReleased(SocketId /*socket*/) {}
  // One whole request. Answer it exactly once, now or later, with Respond, Upgrade or UpgradeAndClose; later is not at
  // all when the client is gone by then. Until then the socket is not read further.
  virtual void OnRequest(SocketId socket, const HttpRequest& request) = 0;
  // The WebSocket that Upgrade asked for is open: from now on Send works. It does not come when the client is gone, or
  // its handshake is wrong (answered here).
  virtual void OnOpen(SocketId socket) = 0;
  // Bytes of an open WebSocket, before what they contain is reported.
  virtual void OnBytes(SocketId /*socket*/, size_t /*bytes*/) {}
  virtual void OnText(SocketId socket, std::string_view text) = 0;
  // A ping or pong frame. (A binary message is closed with 1003 by the loop itself.)
  virtual void OnControlFrame(SocketId socket) = 0;
  // An open WebSocket is over. Only after OnOpen, exactly once. `code`: what was sent or received, 1006 for none.
  virtual void OnClosed(SocketId socket, uint16_t code) = 0;
  // All that was readable has been handled, nothing is flushed yet.
  virtual void OnTurnEnd() = 0;
};

class SocketLoop {
 public:
  // Listens at once (SO_REUSEPORT). UNAVAILABLE with the reason when the address cannot be bound; INVALID_ARGUMENT when
  // OpenSSL does not take the certificate.
  static absl::StatusOr<std::unique_ptr<SocketLoop>> Listen(asio::io_context& io, const SocketLoopOptions& options,
                                                            SocketLoopHandler& handler);
  // Closes every socket, without a word to the handler.
  virtual ~SocketLoop() = default;

  virtual uint16_t port() const = 0;

  // Answers to OnRequest.
  virtual void Respond(SocketId socket, const HttpResponse& response) = 0;
  virtual void Upgrade(SocketId socket, std::string_view subprotocol) = 0;
  // Completes the handshake, sends a close frame as the only frame, closes. No OnOpen, no OnClosed.
  virtual void UpgradeAndClose(SocketId socket, std::string_view subprotocol, uint16_t code,
                               std::string_view reason) = 0;

  // Queues a reference for each of these slots (live, open connections, as the shard knows them), to be flushed at the
  // end of the turn. A connection whose queue is over its bound is flushed first; when its socket refuses, the policy
  // decides: the frame is dropped (kVolatile), or the connection is closed with 1013, reported by OnClosed in a later
  // turn.
  virtual void Send(absl::Span<const uint32_t> slots, const FrameRef& frame, SendPolicy policy) = 0;

  // From now on a longer message is closed with 1009, whatever is under way of it; at most message_bytes_max.
  virtual void LimitMessages(SocketId socket, size_t bytes_max) = 0;

  // Queues a close frame behind what is queued. OnClosed follows in a later turn, at the latest after close_timeout. After 1008 (policy)
  // the peer's answer is not awaited: nothing is read any more.
  virtual void Close(SocketId socket, uint16_t code, std::string_view reason) = 0;

  // Writes what is queued now, at most `connections_max` connections; true when nothing is left. A flush at the end of
  // the turn is scheduled by itself; call this to bound a long turn.
  virtual bool Flush(size_t connections_max) = 0;

  // No new sockets. What is open stays.
  virtual void StopListening() = 0;
  // WebSockets between OnOpen and OnClosed.
  virtual size_t open_connections() const = 0;
  virtual const SocketLoopCounters& counters() const = 0;
};

}  // namespace presence::edge
