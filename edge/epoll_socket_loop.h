// SocketLoop on Linux: the turn of a shard's sockets. See socket_loop.h for what it promises.
//
// A turn: report what is over, take a batch of events, read each ready socket once, expire deadlines, let the handler
// end its turn, write a slice of what is queued. When something is left the next turn is posted, behind whatever else
// the Asio loop has to do; otherwise the epoll set is watched.
//
// Edge-triggered: an event is remembered in the socket (`readable`, `blocked`) until a read or write finds the end of
// it. So a socket costs one epoll_ctl in its life (a second one when it first blocks); one that is not read for a
// while, because its request awaits an answer, needs no change of interest and cannot spin; and what was read does not
// stay on the kernel's ready list to be looked at again by the next wait, as level-triggered events do.
//
// socket_loop.cc has the turn, socket_connections.cc reading, writing and ending a connection, socket_http.cc requests
// and the upgrade, socket_tls.cc handshakes and what lies between TLS and the rest.
#pragma once

#include <sys/epoll.h>
#include <sys/uio.h>

#include <array>
#include <asio/io_context.hpp>
#include <asio/posix/stream_descriptor.hpp>
#include <asio/steady_timer.hpp>
#include <memory>
#include <string_view>

#include "edge/deadline_list.h"
#include "edge/listener.h"
#include "edge/socket_loop.h"
#include "edge/socket_table.h"
#include "edge/tls_server.h"

namespace presence::edge {

class EpollSocketLoop final : public SocketLoop {
 public:
  EpollSocketLoop(asio::io_context& io, const SocketLoopOptions& options, SocketLoopHandler& handler,
                  std::unique_ptr<Listener> listener, std::unique_ptr<TlsServer> tls, int epoll_descriptor);
  ~EpollSocketLoop() override;

  absl::Status Start();

  uint16_t port() const override { return port_; }
  void Respond(SocketId socket, const HttpResponse& response) override;
  void Upgrade(SocketId socket, std::string_view subprotocol) override;
  void UpgradeAndClose(SocketId socket, std::string_view subprotocol, uint16_t code, std::string_view reason) override;
  void Send(absl::Span<const uint32_t> slots, const FrameRef& frame, SendPolicy policy) override;
  void LimitMessages(SocketId socket, size_t bytes_max) override;
  void Close(SocketId socket, uint16_t code, std::string_view reason) override;
  bool Flush(size_t connections_max) override;
  void StopListening() override;
  size_t open_connections() const override { return open_connections_; }
  const SocketLoopCounters& counters() const override { return counters_; }

  // From the engines, by way of their sockets.
  void EngineOutput(Socket& socket, std::string_view bytes);
  void EngineOpened(Socket& socket);
  void EngineMessage(Socket& socket, MessageKind kind, std::string_view payload);
  void EngineControlFrame(Socket& socket);
  void EngineEnded(Socket& socket, uint16_t code);

 private:
  static constexpr size_t kEventsPerTurnMax = 256;
  static constexpr size_t kReadBufferBytes = 64 * 1024;
  static constexpr size_t kBuffersPerWriteMax = 1024;  // UIO_MAXIOV

  // What a peer may still send before its answer to our close frame, because it was on its way; what comes after that
  // is not parsed any more.
  static constexpr uint32_t kClosingBytesMax = 256 * 1024;

  // A whole handshake is 0.2 ms of CPU with a P-256 key and 1 ms with RSA 2048, some hundred times what a message costs:
  // a crowd that connects must not hold up those who are there.
  static constexpr size_t kHandshakesPerTurnMax = 8;

  struct IoResult {
    // kWouldBlock of a write: the socket took `bytes`, which may be some, and no more.
    enum class Outcome : uint8_t { kDone, kWouldBlock, kEnd, kError };
    Outcome outcome;
    size_t bytes = 0;
    size_t taken = 0;  // of a read: off the descriptor, which with TLS is more, and may be so for no data
  };

  // --- the turn
  void ScheduleTurn();
  void WatchEpollSet();
  void Turn();
  void EndTurn();
  bool TakeEvents();
  void TakeEvent(Socket& socket, uint32_t events);
  void AcceptClients();
  bool Admit(const Listener::Accepted& accepted);
  void MakeRoomForSockets();
  void MakeRoomForRequests();
  void PauseAccepting();
  bool WatchListener();
  void ServeReady();
  void Serve(Socket& socket);
  void ReportOver();
  bool ExpireDeadlines();
  void Expire(Socket& socket);
  void ArmTimer();

  // --- the lists of sockets with something to do
  void MarkReady(Socket& socket);
  void MarkDirty(Socket& socket);
  void MarkOver(Socket& socket);
  void SetDeadline(Socket& socket, DeadlineKind kind);

  // --- one connection
  // All bytes of a descriptor go through these two.
  IoResult ReadSome(Socket& socket);
  IoResult WriteSome(Socket& socket, size_t buffers, size_t bytes);
  IoResult Read(Socket& socket);  // ReadSome, and what it says about readiness
  void ReadWebsocket(Socket& socket);
  void FeedWebsocket(Socket& socket, std::string_view bytes, size_t taken);
  void Discard(Socket& socket);
  void WriteQueued(Socket& socket);
  void Block(Socket& socket);
  void Deliver(Socket& socket, const FrameRef& frame, SendPolicy policy);
  void CloseSlow(Socket& socket);
  void BeginClose(Socket& socket, uint16_t code, std::string_view reason);
  void Finish(Socket& socket);
  void Drained(Socket& socket);
  void Terminate(Socket& socket);

  // --- TLS
  bool AwaitsHandshake(const Socket& socket) const;
  static bool HasMore(const TlsStream& tls, const Socket& socket);
  void MarkHandshake(Socket& socket);
  void ServeHandshakes();
  void StepHandshake(Socket& socket);
  void GiveUpHandshake(Socket& socket);
  IoResult ReadTls(Socket& socket);
  IoResult WriteTls(Socket& socket, size_t buffers);
  bool EndTls(Socket& socket);

  // --- HTTP
  void ServeHttp(Socket& socket);
  bool ServeOneRequest(Socket& socket);
  void ReadHttp(Socket& socket);
  void Refuse(Socket& socket, int status, std::string_view error);
  Socket* FindAwaitingAnswer(SocketId id);
  void QueueAnswer(Socket& socket, const HttpResponse& response, bool keep_alive);
  void AcceptUpgrade(Socket& socket, std::string_view subprotocol);
  void OpenEngine(Socket& socket);

  const SocketLoopOptions options_;
  SocketLoopHandler& handler_;
  SocketLoopCounters counters_;
  SocketTable table_;
  size_t open_connections_ = 0;

  std::unique_ptr<Listener> listener_;
  const uint16_t port_;
  bool listener_watched_ = false;

  asio::io_context& io_;
  asio::posix::stream_descriptor epoll_set_;
  asio::steady_timer timer_;
  SteadyTime timer_due_ = SteadyTime::max();
  // What Asio still holds of us when we are gone finds this empty.
  const std::shared_ptr<EpollSocketLoop*> self_ = std::make_shared<EpollSocketLoop*>(this);

  bool in_turn_ = false;
  bool turn_posted_ = false;
  bool watching_ = false;
  bool more_to_do_ = false;  // beyond what the lists below hold
  int expiry_postponed_turns_ = 0;
  Socket* serving_http_ = nullptr;

  SocketFifo ready_;       // may have something to read, or a request to go on with
  SocketFifo dirty_;       // has something to write
  SocketFifo over_;        // to be reported, or freed
  SocketFifo handshakes_;  // in a TLS handshake, with something to read

  std::array<size_t, 5> waiting_{};  // sockets with a deadline of each kind
  DeadlineList request_deadlines_, keep_alive_deadlines_, close_deadlines_, drain_deadlines_;
  DeadlineList accept_retries_{std::chrono::milliseconds(100)};
  DeadlineNode accept_retry_;

  std::array<epoll_event, kEventsPerTurnMax> events_;
  std::array<iovec, kBuffersPerWriteMax> buffers_;
  const std::unique_ptr<TlsServer> tls_;         // null: clients speak plainly
  const std::unique_ptr<char[]> record_buffer_;  // what goes into one TLS record; null without TLS
  const std::string strict_transport_;           // the header's value; empty: none
  const std::unique_ptr<char[]> read_buffer_ = std::make_unique<char[]>(kReadBufferBytes);
};

}  // namespace presence::edge
