// The hub: rooms, subscriptions and presence of all shards that are attached to this core. A pure state machine: no I/O, clock,
// lock, log or random number; it is told what happened and when, and says what to do through two sinks, the Store and HubOutput.
//
// Lives on one thread. Calls into the sinks happen inside the On... methods, in the order in which they must be carried out;
// a sink must not call back into the hub from inside (queue, and call later). For one link the order of AddCommand is
// the order on the wire. For the store the order of calls is the order of their answers.
//
// Invariants, checked by the simulator at every quiet point:
//   * for a live link, the shard's forwarding table is exactly the rooms of its connections here;
//   * a room has a handle in a link exactly while a connection of that shard is in it;
//   * a shard that another core has by a higher attach is not here: not counted, not ordered, nothing written of it;
//   * everybody with a live connection is online or away in the store, nobody without one is, within the bounds of DESIGN.md;
//   * every member of a room gets its messages in the order of the bus; of a room with a log, without a hole, each once, whatever the
//     shard and the bus went through meanwhile, or is told of the hole (hub_room_log.cc).
//
// Does not do: authentication, JSON from clients (the edge's), reads of presence for REST and gRPC (those go to the Store directly),
// WatchPresence (watches.h, which is told of every change).
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/ids.h"
#include "common/time.h"
#include "core/room_authorizer.h"
#include "core/store.h"
#include "presence/link/v1/link.pb.h"

namespace presence::core {

// One Attach stream, numbered by the runtime, never used twice.
using LinkId = StrongId<struct LinkIdTag, uint64_t>;

enum class PresenceScope : uint8_t { kEveryone, kRooms };

// Who may be in which room. kClaims: whom the token lets in. kAsked: whom a RoomAuthorizer lets in.
enum class RoomAuth : uint8_t { kOpen, kClaims, kAsked };

// Of RoomAuth::kAsked.
struct RoomAccessOptions {
  std::chrono::milliseconds cache{60'000};   // ROOM_AUTH_CACHE: lifetime of an answer that does not say
  std::chrono::milliseconds denied{5'000};   // the same of a refusal, where that is shorter
  std::chrono::milliseconds retry{5'000};    // after nobody has answered
  std::chrono::milliseconds grace{300'000};  // ROOM_AUTH_GRACE: so long members stay while nobody answers
  size_t rows_max = 200'000;                 // answers that are remembered, beside those about who is in a room
  size_t checks_max = 32;                    // questions at a time about who is in a room already; joins come on top
  size_t joins_max = 65'536;                 // that wait for an answer; further ones are refused with 503
  size_t joins_per_link_max = 8'192;
};

// A message of the API, to a room or to a user. Views live for the call.
struct MessageRequest {
  std::string_view room_id, user_id;  // exactly one is not empty; valid ids
  std::string_view data_json;         // the text of a JSON object, valid
  absl::Span<const std::string> excluded_user_ids{};
  std::string_view request_id{};   // the idempotency key; empty: none
  std::string_view fingerprint{};  // of everything above: what a repeat of request_id must equal
};

struct MessageAnswer {
  uint32_t reached = 0;  // connections
  bool count_incomplete = false;
  bool repeated = false;  // request_id was known: nothing was sent, `reached` is that of the first time
};

// A change of somebody's presence that this core tells its shards. Views live for the call.
struct PresenceChange {
  std::string_view user_id, username;
  Status status = link::v1::STATUS_UNSPECIFIED;
  uint64_t version = 0;
  int64_t changed_ms = 0;
};

// What the hub does not know itself and GetClusterState shows.
struct HostState {
  uint64_t watchers = 0;
  uint64_t link_backlog_bytes = 0;
  bool draining = false;
};

struct HubOptions {
  std::string core_name;
  uint64_t incarnation = 0;  // random, of this process
  std::string version;       // of the program, for operators
  int64_t started_ms = 0;    // of the process, since the Unix epoch, for operators
  PresenceScope scope = PresenceScope::kEveryone;
  std::chrono::milliseconds edge_grace{5000};        // EDGE_GRACE
  std::chrono::milliseconds link_silence_max{3000};  // then a link is lost
  std::chrono::milliseconds heartbeat_interval{1000};
  // Without the store for so long, when there are other cores: then its shards are told to look for one that has it, spread over
  // isolation_spread. An entry of the store ends 2 H + 3 s after its client's last frame, of which the store has heard up to H + 1 s before
  // it was lost: H + 2 s are left for waiting, for the spread, and for half a second in which a shard is attached elsewhere and declared.
  std::chrono::milliseconds isolation_max{2500};
  std::chrono::milliseconds isolation_spread{1000};
  // Each is told again after so long, at first: a core that could take it may just be lacking store_settled; and later. A store that is
  // back at one core expires nobody for 15 s: those are two rounds more.
  std::chrono::milliseconds seek_first{1000}, seek_every{5000};
  // A core takes such a shard when it has had the store for so long: one that comes back to all at about the same time moves nobody.
  std::chrono::milliseconds store_settled{2000};
  std::chrono::milliseconds loopback_max{500};      // a publication not heard back by then is delivered locally
  size_t writes_in_flight_max = 512;                // transitions sent to the store and not answered
  size_t publications_waiting_max = 10'000;         // published, not heard back; further broadcasts are refused
  size_t publication_bytes_max = size_t{64} << 20;  // of the texts of those: refused, too
  std::chrono::seconds room_log_age{0};             // ROOM_LOG_AGE, where rooms have logs; 0: they have none
  // While more than so much waits for a link, its shard is handed nothing from logs. A page is 256 KiB and a message of 1 MiB at most: with
  // that there are still 10 MiB, of the 16 after which a link is given up, for what cannot wait.
  size_t replay_backlog_max = size_t{4} << 20;
  // Events of one link that the store has not confirmed. 16 B each are 2 MiB; a shard of 15,000 clients would have to open and close
  // each of them four times while the store is away. Past it the link ends with RESOURCE_EXHAUSTED: the resync says all at once.
  size_t awaiting_max = 131'072;
  size_t removals_max = 200'000;  // ends that the store must hear of, some 250 B each; then: the sweep
  // Connections of lost shards that are kept while the store is away; past it those that are lost for longest are left to the sweep.
  size_t set_aside_max = 200'000;
  // Rooms of which a former epoch is to be held against the log, some 150 B each. Of more: what Redis has lost of that epoch may stay hidden.
  size_t rooms_doubted_max = 200'000;
  size_t rooms_per_connection_max = 1'000;  // a further join is refused with 429
  size_t room_subscribers_max = 100'000;    // ROOM_SUBSCRIBERS_MAX, of one room here: likewise; 0: no limit
  RoomAuth room_auth = RoomAuth::kOpen;
  std::string room_auth_name = "open";  // ROOM_AUTH, in which the other cores are to agree
  RoomAccessOptions room_access;
  std::chrono::milliseconds gather_max{500};  // for the other cores' answers to a message or a query
  // For the shards' events behind an order: a lost link is back by then. What a shard does not say is not known to be done: of an edge that
  // is given up, too, since it may come back with its clients.
  std::chrono::milliseconds order_max{3000};
  size_t gathers_max = 20'000;           // requests to all cores that are not answered; further ones are refused
  size_t orders_max = 100'000;           // to connections, not carried out; further ones are refused
  size_t taps_max = 64;                  // opened here, and as many of each other core
  size_t tap_events_per_second = 1'000;  // of each tap; what is beyond is counted and left out
};

// Counted here, read by the runtime for /metrics after a step.
struct HubCounters {
  uint64_t events = 0, commands = 0;
  uint64_t messages_published = 0, messages_from_bus = 0, messages_from_outside = 0, typing_from_bus = 0;
  uint64_t presence_changes = 0, presence_from_outside = 0;
  uint64_t deliveries = 0;       // Deliver and DeliverPresence commands: one per link and message
  uint64_t outside_invalid = 0;  // message:broadcast and presence:updates that were dropped
  uint64_t loopback_duplicates = 0, delivered_locally = 0;
  uint64_t fenced = 0, reasserted = 0, resyncs = 0, links_superseded = 0, links_silent = 0, edges_expired = 0;
  uint64_t shards_taken_over = 0,
           shards_sent_away = 0;  // by another core; told to look for one, since this one was cut off from the store
  uint64_t joins_refused = 0, broadcasts_refused = 0, late_events = 0, removals_forgotten = 0;
  // Rooms' logs: messages that the store confirmed; reads; messages handed to a shard from a log; those of the bus that a shard had had by then;
  // `gap`s: rooms of a shard whose members were told that messages may be lost.
  uint64_t room_log_appended = 0, room_log_reads = 0, room_log_replayed = 0, room_log_duplicates = 0, room_gaps = 0;
  uint64_t room_doubts_dropped = 0;                            // too many at once
  uint64_t user_messages_from_bus = 0, requests_repeated = 0;  // request_id known
  uint64_t cluster_requests = 0, cluster_requests_refused = 0, gathers_incomplete = 0, cluster_replies_late = 0;
  uint64_t orders = 0, orders_done = 0, orders_expired = 0;
  uint64_t tap_events = 0, tap_events_left_out = 0;
  // Joins: no right; nobody could say, or too many waited; the room is full.
  uint64_t joins_forbidden = 0, joins_unchecked = 0, joins_room_full = 0;
  uint64_t typing_forbidden = 0, typing_unchecked = 0;
  uint64_t room_rights_asked = 0, room_rights_unanswered = 0, room_rights_forgotten = 0, subscriptions_revoked = 0;
  uint64_t logouts_kept = 0, sessions_ended = 0;                  // asked for here; connections that it has closed here
  uint64_t connections_logged_out = 0, connections_too_many = 0;  // that the store has refused
  uint64_t tokens_renewed = 0;
  uint64_t connections_sent_away = 0;  // by their edges, to others: their users' presence is held
};

struct HubSizes {
  size_t links = 0, shards = 0, connections = 0, users = 0, rooms = 0, memberships = 0;
  size_t removals = 0;  // connections that are gone, unconfirmed or remembered for 30 s
  size_t writes_in_flight = 0, writes_waiting = 0, publications_waiting = 0;
  size_t refreshes_unanswered = 0;
  size_t cores = 0;                // that are live, this one included
  size_t cores_set_otherwise = 0;  // of the others, those with another ROOM_AUTH
  size_t gathers = 0, orders = 0, taps = 0;
  size_t room_reads = 0;                                          // of logs, wanted or under way
  size_t rooms_doubted = 0;                                       // what was seen there, Redis may have lost
  size_t room_rights = 0, room_questions = 0, joins_waiting = 0;  // remembered; under way; for an answer
};

class HubOutput {
 public:
  virtual ~HubOutput() = default;

  // A cleared command at the end of what is gathered for the link, to be filled in before the next call.
  virtual link::v1::CoreCommand& AddCommand(LinkId link) = 0;
  // How many bytes wait for the link, about: what may wait longer is then not said yet.
  virtual size_t BacklogBytes(LinkId /*link*/) const { return 0; }
  // Ends the stream with this status. No further command follows for it; OnLinkClosed is not expected any more.
  virtual void CloseLink(LinkId link, const absl::Status& why) = 0;
  // Exactly once for each OnMessageRequested. `answer` with OK only.
  virtual void AnswerMessage(uint64_t request, const absl::Status& status, const MessageAnswer& answer) = 0;
  // Exactly once for each OnClusterRequested, with the answers that have come, in order of the cores' incarnations. OK: all live cores
  // have answered, each with OK; UNAVAILABLE: not all have, or the store is away (then this core's answer alone is there, if it
  // needs nobody else); a core's own error, when one has answered with it; RESOURCE_EXHAUSTED.
  virtual void AnswerCluster(uint64_t request, const absl::Status& status,
                             std::vector<link::v1::ClusterReply> replies) = 0;
  // For a tap that was opened here.
  virtual void Tapped(uint64_t tap, const link::v1::TapEvents& events) = 0;
  // Every change that the shards are told, once, in their order; of one user, versions only grow.
  virtual void PresenceChanged(const PresenceChange& change) = 0;
  // An operator's orders to this process.
  virtual void DrainCore(std::chrono::milliseconds window) = 0;
  virtual void SetLogLevel(link::v1::LogLevel level) = 0;
  // An ERROR line for operators, about input: what came in and was dropped, or an edge that has not come back. At most a few a
  // second. `text` is already escaped.
  virtual void Report(std::string_view text) = 0;
};

class Hub {
 public:
  // The sinks must outlive the hub.
  // `authorizer`: for RoomAuth::kAsked, else null.
  Hub(HubOptions options, Store& store, HubOutput& output, RoomAuthorizer* authorizer = nullptr);
  ~Hub();
  Hub(const Hub&) = delete;
  Hub& operator=(const Hub&) = delete;

  // --- links. Events of an unknown or closed link are counted and ignored.
  void OnLinkOpened(Now now, LinkId link);
  void OnLinkEvent(Now now, LinkId link, const link::v1::EdgeEvent& event);
  void OnLinkClosed(Now now, LinkId link);

  // --- the store's answers; see StoreListener.
  // `lost_state`: all that this core knows is asserted again; otherwise only what the store has not confirmed.
  // While it is away nobody is closed and this core delivers among its shards. When it stays away for isolation_max and another core was
  // ever known, each shard is told to look for one that has the store (SeekCore), and again and again. It stays until it has found
  // one. A shard that looks for such a core here (Hello.only_with_store) is taken, or its link ends with UNAVAILABLE.
  void OnStoreUp(Now now, bool lost_state);
  void OnStoreDown(Now now);
  void OnWritten(Now now, uint64_t id, const WriteResult& result);
  void OnRefreshed(Now now, uint64_t id, absl::Span<const uint32_t> missing);
  void OnPublished(Now now, uint64_t id, bool ok);
  void OnChangesRead(Now now, uint64_t id, const absl::StatusOr<ChangeLog>& log);
  void OnPublishedOnce(Now now, uint64_t id, const OnceResult& result);
  void OnAppended(Now now, uint64_t id, const AppendResult& result);
  void OnRoomLogRead(Now now, uint64_t id, const absl::StatusOr<RoomLogPage>& page);
  void OnLogoutKept(Now now, uint64_t id, bool ok);
  void OnLogoutsRead(Now now, const absl::StatusOr<LogoutLog>& log);
  void OnCoresRead(Now now, const absl::StatusOr<std::vector<uint64_t>>& cores);
  void OnBus(Now now, const link::v1::BusEnvelope& envelope);
  void OnReplies(Now now, const link::v1::ClusterReplies& replies);
  void OnOutsideMessage(Now now, std::string_view text);
  void OnOutsidePresence(Now now, std::string_view text);

  // --- what the RoomAuthorizer heard.
  void OnRoomRight(Now now, uint64_t question, const RoomAnswer& answer);

  // --- the API. `request` is the caller's number, never used twice.

  // Answered by AnswerMessage: OK when it is published and every live core has counted, or gather_max has passed. UNAVAILABLE: the
  // store could not publish it; then this core's own edges have it, unless it has a request_id: then nobody has, or all, and the
  // caller repeats it. ALREADY_EXISTS: request_id was used with another fingerprint. RESOURCE_EXHAUSTED: too many wait.
  void OnMessageRequested(Now now, uint64_t request, const MessageRequest& message);

  // Volatile. OK, or UNAVAILABLE: the store is away (this core's own edges have it all the same).
  absl::Status OnTypingRequested(Now now, const link::v1::RoomTyping& typing);

  // Asks all live cores, this one included; `body` without origin and id. Answered by AnswerCluster at the first tick past gather_max, or
  // past order_max for orders to connections. A core that leaves the registry meanwhile is awaited no longer, but for such orders: its
  // shards may be at another one that has answered before they came. While the store is away nobody else is asked: drains of edges and
  // log levels are carried out here, as far as they concern this core and what is attached to it; a core is not drained, since nobody
  // knows who could take over; orders to connections are not given.
  // EndSessions is kept in the store before anybody is asked: UNAVAILABLE also when that has failed.
  void OnClusterRequested(Now now, uint64_t request, link::v1::ClusterRequest body);
  // Nobody waits for it any more: it is answered with CANCELLED, if it is not yet. Orders go on.
  void OnClusterCancelled(Now now, uint64_t request);

  // Tells of what happens to this user or in this room on all cores, by Tapped, until OnTapClosed. RESOURCE_EXHAUSTED over taps_max.
  absl::Status OnTapOpened(Now now, uint64_t tap, const link::v1::TapOrder& target);
  void OnTapClosed(Now now, uint64_t tap);

  // Before each tick, at least once a second.
  void OnHostState(const HostState& state);

  // At the end of each turn of the loop: what has gathered for other cores goes out.
  void OnTurnEnd(Now now);

  // Every 100 ms or so, after everything that has arrived was handed in. Heartbeats, silent links, grace, sweep, re-asserts.
  void OnTick(Now now);

  // This core stops: from now on nobody is judged, neither a silent link nor a lost edge. EDGE_GRACE may be shorter than the stop, and
  // whoever was attached here is on the way to another core.
  void StopJudging();

  // Nothing that this hub has accepted is still on its way to the store: a core that stops may exit.
  bool Idle() const;
  bool store_up() const;
  // The bus stands, and every change that this core missed while it did not has been told.
  bool caught_up() const;
  const HubCounters& counters() const;
  HubSizes sizes() const;

  // For tests and the simulator: the ids of the live connections of a shard, and their rooms, in a readable, sorted form.
  std::string DebugDump() const;

 private:
  class State;
  std::unique_ptr<State> state_;
};

}  // namespace presence::core
