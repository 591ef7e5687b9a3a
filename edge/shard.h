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
// Of its own accord it sends a client only `pong`, `error`, `auth`, `token_expiring`, `reconnect` and a close; what the core
// orders it to say are `subscribed`, `unsubscribed` and `gap`.
//
// Whom it sends to another edge (Drain, or no core for isolation_max) it tells `reconnect` with a time, and closes with 1012 in the same
// breath. Those times are 200 ms and more, spread, so that the others see no more than reconnects_per_second of a shard's clients come, as far as
// reconnect_spread_max allows; they follow from the connection's id and the incarnation, not from a generator. The core is asked to
// hold the user's presence for that time and return_time more.
//
// The core's orders (LeaveRoom, ChangeStatus, CloseConnection) take the ways that the client's own wishes take, and are told by the
// same events. A close is told at once, not when the socket is gone: nothing is delivered to it any more, and a client that does not
// answer the close frame keeps nobody waiting.
//
// Tokens are verified outside: what a client shows by `auth` is handed out by CheckToken, and the verdict comes back by OnTokenChecked.
// A connection that was opened without a token (OnUnprovenOpened) is told nothing, is heard for that one frame alone, and is unknown to
// the core until the verdict; it does not live longer than auth_timeout, or than its check.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/types/span.h"
#include "common/room_rights.h"
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

  // Who is sent to another edge. A handshake with TLS and a new token is 0.6 ms of a processor.
  uint32_t reconnects_per_second = 1'000;
  std::chrono::milliseconds reconnect_spread_min{500}, reconnect_spread_max{10'000};
  std::chrono::milliseconds return_time{10'000};  // to connect, past the time that a client was told
  size_t rooms_per_connection_max = 1'000;
  // Of each: joins and leaves without an answer (past it: `error` 503), closes without an acknowledgement (past it the oldest are left
  // to the core's sweep). 2 x 65,536 at 40 bytes are 5 MB.
  size_t events_held_max = 65'536;
  size_t presence_frames_per_second = 200'000;  // PRESENCE_FRAMES_PER_SECOND, of this shard

  // What one connection may send: a rate, and what may come at once after a pause. 0: no limit.
  uint64_t frames_per_second = 0, frames_burst = 1;  // WS_FRAMES_PER_SECOND, WS_FRAMES_BURST
  uint64_t bytes_per_second = 0, bytes_burst = 1;    // WS_BYTES_PER_SECOND, WS_BYTES_BURST

  bool close_expired = false;  // WS_TOKEN_EXPIRY=close; else a token counts when it is shown, and no longer
  std::chrono::milliseconds expiry_warning{60000};  // WS_TOKEN_EXPIRY_WARNING: before the token's end; 0: none
  std::chrono::milliseconds expiry_leeway{30000};   // as long as a token may still be shown after its end
  std::chrono::milliseconds auth_timeout{5000};     // WS_AUTH_TIMEOUT: until the first frame of an unproven connection
  // WS_AUTH_PENDING_MAX. With the frame of 8.5 KiB that each may be in the midst of: 11 MB.
  size_t unproven_max = 1'000;
};

// What a good token says. The views live as long as the call that has it.
struct TokenFacts {
  std::string_view user_id{};
  std::string_view username{};
  std::string_view session_id{};  // empty: it names none
  int64_t issued_at_ms = 0;       // since the Unix epoch; 0: it does not say
  WallTime expires_at;
  const RoomRights* room_rights = nullptr;  // null: it says nothing of rooms
};

// The answer to CheckToken.
struct TokenCheck {
  enum class Outcome : uint8_t {
    kGood,
    kExpired,
    kInvalid,
    kUnavailable,  // it cannot be said at the moment: there are no keys
  };
  Outcome outcome = Outcome::kInvalid;
  TokenFacts facts{};  // with kGood
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
  uint64_t room_duplicates = 0;  // messages of a room's log that the shard had had
  uint64_t gaps = 0;             // `gap` frames, once per connection
  uint64_t link_losses = 0, resyncs = 0;
  uint64_t tokens_renewed = 0;  // by `auth`
  uint64_t tokens_refused =
      0;  // `auth` with a token that is bad, expired or somebody else's; of unproven connections, too
  uint64_t expired_closes = 0;      // 4401
  uint64_t unproven_closes = 0;     // no good token as the first frame, or none in time
  uint64_t unproven_refused = 0;    // more than unproven_max at once
  uint64_t frames_over_frames = 0;  // refused: over frames_per_second
  uint64_t frames_over_bytes = 0;   // refused: over bytes_per_second
  uint64_t rate_closes = 0;         // of those who went on all the same
  uint64_t rooms_over_limit = 0;    // subscriptions refused: rooms_per_connection_max
  uint64_t sent_away = 0;           // told to go to another edge
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
  // Verify this token, with the keys of the moment; one with an unknown key may wait for newer ones. OnTokenChecked is expected next, later
  // and from outside. At most one at a time for each connection; it is pointless when that has ended meanwhile.
  virtual void CheckToken(uint32_t slot, std::string_view token) = 0;
  // The core's orders to the whole edge, not to this shard alone. As often as the core gives them: whoever carries them out knows
  // whether another shard has passed on the same before. DrainEdge makes the edge unready first, then each shard is told to Drain
  // (1012), later and from outside.
  virtual void DrainEdge(std::chrono::milliseconds window) = 0;
  virtual void SetLogLevel(link::v1::LogLevel level) = 0;  // one of DEBUG to ERROR
  // The core of this shard is cut off from the store: ask the others once, each by a stream beside the link that begins with what
  // AskForStore says. The first that takes the shard is its link from then on: OnLinkMoved. Until then the link is as it was. Nothing
  // while a round is under way.
  virtual void SeekCore() = 0;
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

  // --- clients. A slot is below 2^20 and free before it is opened, in one of two ways; its generation is new.
  void OnConnectionOpened(Now now, uint32_t slot, uint32_t generation,
                          const TokenFacts& token);  // sends the first pong
  void OnUnprovenOpened(Now now, uint32_t slot, uint32_t generation);
  void OnTokenChecked(Now now, uint32_t slot, uint32_t generation, const TokenCheck& check);
  //
  // Over its limits a connection's messages get `error` 429 and are not acted upon, but are a sign of life all the same; a control
  // frame counts as a message, though nobody is told of one that is too many. Who goes on is closed with 1008: after 100 refusals at
  // once, or 10 a second for long, or when the bytes run ahead by a second burst.
  void OnBytesReceived(Now now, uint32_t slot, size_t bytes);  // as read, before what they contain
  void OnClientText(Now now, uint32_t slot, std::string_view text);
  void OnControlFrame(Now now, uint32_t slot);
  void OnConnectionClosed(Now now, uint32_t slot);

  // --- the link. After OnLinkUp the shard says Hello; after OnLinkDown it may come up again, as a new attach.
  void OnLinkUp(Now now);
  void OnCommand(Now now, const link::v1::CoreCommand& command);
  void OnLinkDown(Now now);
  // A Hello for a core that might take the shard over, while a link is up; void when that has ended.
  void AskForStore(link::v1::Hello* hello);
  // A core has answered the newest of those: its Welcome comes next, and nothing more from the link that was.
  void OnLinkMoved(Now now);

  // Every 100 ms or so, after everything that has arrived was handed in: activity reports, silent clients, heartbeats of the link,
  // isolation, presence frames that wait. A tick that comes more than 1 s late judges nobody silent: the next one does.
  void OnTick(Now now);

  // Sends everybody to another edge, spread over this time; newcomers are closed at once, with 1012, too. For good: a second call only
  // sets another pace for those who are left.
  void Drain(Now now, std::chrono::milliseconds spread);

  bool ready(Now now) const;   // a core is attached, or was until ready_grace ago; not draining
  bool link_live() const;      // Welcome received
  size_t connections() const;  // until OnConnectionClosed, unproven ones included
  size_t rooms() const;        // in the forwarding table
  size_t events_held() const;  // joins, leaves and closes that a new link would have to repeat, at most
  const ShardCounters& counters() const;
  // Until OnConnectionClosed; empty for one that has shown no good token.
  std::string_view username(uint32_t slot) const;
  std::string_view user_id(uint32_t slot) const;

  // For tests and the simulator: one line for each open connection, ordered by slot: packed id in hexadecimal, user id, status, then its
  // rooms in byte order.
  std::string DebugDump() const;

 private:
  class State;
  std::unique_ptr<State> state_;
};

}  // namespace presence::edge
