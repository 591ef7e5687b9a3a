// The shard: the clients of one edge thread, their subscriptions, and the forwarding table that the core programs. A pure state
// machine: no I/O, clock, lock, log or random number; it is told what happened and when, and says what to do through ShardOutput.
//
// Lives on the shard's thread. Output calls happen inside the On... methods and are carried out in that order; the output must
// not call back into the shard from inside.
//
// Invariants, checked by the simulator:
//   * nothing is sent to a connection before its first `pong`, or after OnConnectionClosed;
//   * a member of a room in the forwarding table is an open connection;
//   * for a connection and a room, `subscribed` precedes the first delivery, and no delivery follows `unsubscribed`;
//   * a lost link closes nobody (before isolation_max).
//
// Of its own accord it sends a client only `pong`, `error` and a close.
//
// The core's orders (LeaveRoom, ChangeStatus, CloseConnection) take the ways that the client's own wishes take, and are told by the
// same events. A close is told at once, not when the socket is gone: nothing is delivered to it any more, and a client that does not
// answer the close frame keeps nobody waiting.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/types/span.h"
#include "common/time.h"
#include "edge/frame.h"
#include "presence/link/v1/link.pb.h"

namespace presence::edge {

struct ShardOptions {
  std::string edge_name;
  uint64_t incarnation = 0;  // random, of this process; not 0
  std::string version;       // of the program, for operators
  int64_t started_ms = 0;    // of the process, since the Unix epoch, for operators
  uint32_t shard = 0;
  std::chrono::milliseconds heartbeat_interval{
      30000};  // WS_HEARTBEAT_INTERVAL: silence for more than twice that closes
  std::chrono::milliseconds link_silence_max{3000};
  std::chrono::milliseconds link_heartbeat{1000};
  std::chrono::milliseconds ready_grace{3000};        // without a link for longer: not ready
  std::chrono::milliseconds isolation_max{30000};     // EDGE_ISOLATION_MAX; 0: never
  std::chrono::milliseconds isolation_spread{10000};  // over which the sockets are then closed with 1012
  size_t rooms_per_connection_max = 1'000;
  // Of each: joins and leaves without an answer (past it: `error` 503), closes without an acknowledgement (past it the oldest are left
  // to the core's sweep). 2 x 65,536 at 40 bytes are 5 MB.
  size_t events_held_max = 65'536;
  size_t presence_frames_per_second = 200'000;  // PRESENCE_FRAMES_PER_SECOND, of this shard
};

struct ShardCounters {
  uint64_t messages_received = 0;  // frames from clients
  uint64_t messages_sent = 0;      // frames to clients, once per connection
  uint64_t deliveries = 0;         // of those: room messages, typing, presence
  uint64_t errors = 0;             // `error` frames
  uint64_t heartbeat_timeouts = 0;
  uint64_t late_commands = 0;     // for a slot that has another owner by now, or an unknown handle
  uint64_t commands_unknown = 0;  // of a newer core, or with a value that only that one knows: skipped
  uint64_t events_refused = 0;    // 503: too many held; LeaveRoom among them: that order then expires in the core
  uint64_t closes_dropped = 0;    // too many held
  uint64_t typing_dropped = 0;    // no link
  uint64_t presence_coalesced = 0;
  uint64_t link_losses = 0, resyncs = 0;
};

class ShardOutput {
 public:
  virtual ~ShardOutput() = default;
  // A cleared event at the end of what is gathered for the link, to be filled in before the next call. Only while a link is up.
  virtual link::v1::EdgeEvent& AddEvent() = 0;
  // The link is silent or breaks the protocol: drop it. OnLinkDown is expected next.
  virtual void DropLink(std::string_view why) = 0;
  // One frame to these slots.
  virtual void Send(absl::Span<const uint32_t> slots, const FrameRef& frame, SendPolicy policy) = 0;
  // Close frame to the client; OnConnectionClosed is expected in the end.
  virtual void Close(uint32_t slot, uint16_t code, std::string_view reason) = 0;
  // The core's orders to the whole edge, not to this shard alone. As often as the core gives them: whoever carries them out knows
  // whether another shard has passed on the same before. DrainEdge makes the edge unready first, then each shard is told to Drain
  // (1012), later and from outside.
  virtual void DrainEdge(std::chrono::milliseconds window) = 0;
  virtual void SetLogLevel(link::v1::LogLevel level) = 0;  // one of DEBUG to ERROR
  // Something to log about one connection that OnConnectionClosed has not ended. `what` is a constant fmt format, in which
  // {connection} stands for the connection's name and {detail} for `detail`: "Connection {connection} subscribed to room {detail}".
  // `detail` is raw input of at most 128 bytes, to be escaped by whoever writes it.
  enum class Severity : uint8_t { kInfo, kWarning, kError };
  virtual void Report(Severity severity, uint32_t slot, std::string_view what, std::string_view detail) = 0;
};

class Shard {
 public:
  // The output must outlive the shard.
  Shard(ShardOptions options, ShardOutput& output);
  ~Shard();
  Shard(const Shard&) = delete;
  Shard& operator=(const Shard&) = delete;

  // --- clients. A slot is below 2^20 and free before OnConnectionOpened; its generation is new.
  void OnConnectionOpened(Now now, uint32_t slot, uint32_t generation, std::string_view user_id,
                          std::string_view username);  // sends the first pong
  void OnClientText(Now now, uint32_t slot, std::string_view text);
  void OnControlFrame(Now now, uint32_t slot);
  void OnConnectionClosed(Now now, uint32_t slot);

  // --- the link. After OnLinkUp the shard says Hello; after OnLinkDown it may come up again, as a new attach.
  void OnLinkUp(Now now);
  void OnCommand(Now now, const link::v1::CoreCommand& command);
  void OnLinkDown(Now now);

  // Every 100 ms or so, after everything that has arrived was handed in: activity reports, silent clients, heartbeats of the link,
  // isolation, presence frames that wait. A tick that comes more than 1 s late judges nobody silent: the next one does.
  void OnTick(Now now);

  // Closes every connection with this code, `spread` over a time; newcomers are closed at once.
  void Drain(Now now, uint16_t code, std::string_view reason, std::chrono::milliseconds spread);

  bool ready(Now now) const;   // a core is attached, or was until ready_grace ago; not draining
  bool link_live() const;      // Welcome received
  size_t connections() const;  // until OnConnectionClosed
  size_t rooms() const;        // in the forwarding table
  size_t events_held() const;  // joins, leaves and closes that a new link would have to repeat, at most
  const ShardCounters& counters() const;
  std::string_view username(uint32_t slot) const;  // until OnConnectionClosed
  std::string_view user_id(uint32_t slot) const;

  // For tests and the simulator: one line for each open connection, ordered by slot: packed id in hexadecimal, user id, status, then its
  // rooms in byte order.
  std::string DebugDump() const;

 private:
  class State;
  std::unique_ptr<State> state_;
};

}  // namespace presence::edge
