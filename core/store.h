// The shared state of all cores and the bus between them: what Redis is to the service, as an interface.
//
// Two implementations, one contract (tests/core/store_contract_test.cc runs against both): RedisStore, and
// MemoryStore for one core with nothing to install and for the simulator. Lives on the core's loop thread. Every call
// returns at once and is answered later, through the listener or the given callback, on the same thread, never from
// inside the call. Writes, refreshes and publications of one store are answered in the order of the calls; a read,
// which may take several rounds, may be answered behind calls made after it. A store never throws.
//
// Keys in Redis, beside the specified presence:{user_id} and typing:{room_id}:{user_id}; none matches presence:*
//   presence.user:{user_id}  hash: the user's connection entries and tombstones, derived and held status, name
//   presence.deadlines       zset: user -> the earliest moment at which one of the user's entries or a held status
//                            ends (ms)
//   presence.online          zset, all scores 0: users who are not offline, for pages in byte order
//   presence.changes         zset: user -> version (us) of the last change, the last 10 minutes
//   presence.sweep           hash: when the last sweep was, by which Redis run, until when nothing expires, since
//                            when the change log is whole
//   presence.cores           zset: core incarnation (16 hexadecimal digits) -> when it was last announced (ms)
//   presence.logouts         zset: "user:{user_id}" or "session:{session_id}" -> when that logout was kept (us), the last 10 minutes
//   revoked:user:{user_id}, revoked:session:{session_id}
//                            when that user, or session, was logged out (ms); lives for LOGOUT_LIFETIME
//   presence.request:{id}    of a request_id of the API, for 5 minutes: its fingerprint and what it was answered
//   presence.log:{room_id}   stream: the room's log, see Append; entries are epoch-sequence, each with its link.v1.BusEnvelope
//   presence.room:{room_id}  the room's position and what the log holds, for an hour after the last message
//   presence.rooms           since when this Redis has kept its data (us): what is older may have been lost with it
//   presence.bus             channel: link.v1.BusEnvelope
//   presence.core:{core}     channel: link.v1.ClusterReplies to that core; incarnation as above
//
// Every transition is one atomic script (core/presence_transition.lua):
//   * Entries whose deadline has passed are dropped first, unless the store is quiet (see Sweep).
//   * The fence: an entry holds the attach that wrote it. A write with a lower attach changes nothing and is answered
//     kFenced; an equal or higher one takes over. A removal leaves a tombstone with its attach for 15 s: only a higher
//     attach brings the entry back, not the same one, since a shard never opens a closed connection again, and no
//     Refresh. Of one user the 64 tombstones that end last are kept.
//   * Logouts: a token is void when it was issued at the time of a kept logout of its user or session, or before it. Tokens say that in
//     whole seconds: who logs in again in the very second of a logout gets a void token, too, and needs one of the next second; the
//     other way round a token of just before the logout would stay good. A kAssert or kReassert by a void token does what a
//     kRemove would do to an entry that is there, but for the tombstone (its answer may be lost, and is asked for again), and is answered
//     kRevoked.
//   * The limit: a newcomer that has no entry is answered kTooMany, and nothing is written, when the user has
//     connections_per_user_max live ones. Tombstones do not count, nor do entries that linger, nor does what has expired, unless the
//     store is quiet.
//   * An entry lingers when its connection is gone and the client is expected at another edge: it counts as present, as it was, until
//     linger_for is over, and takes no Refresh and no assert of its own attach. A newcomer takes the place of one of its user's, the
//     least present: that one becomes a tombstone. So nobody who is on the way is seen to leave, and nobody is counted twice.
//   * A user's status is that of the most present live entry: online over away over offline.
//   * When it differs from the previous status: version = max(previous version + 1, now in microseconds);
//     presence:{user_id}, presence.online and presence.changes follow; link.v1.PresenceChanged is published on
//     presence.bus and the specified JSON object, with "origin" as its first member, on presence:updates. When it
//     does not differ, nothing is published, except, with rooms in the entries, a join: PresenceChanged with the
//     newly joined rooms alone, same version, bus only.
//   * The user's hash outlives the last entry by 10 minutes, so that versions keep growing.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "core/room_position.h"
#include "presence/link/v1/link.pb.h"

namespace presence::core {

using link::v1::Status;

struct StoreOptions {
  std::chrono::seconds presence_ttl{300};           // of presence:{user_id}, WS_PRESENCE_TTL
  std::chrono::seconds typing_ttl{5};               // WS_TYPING_TTL
  std::chrono::milliseconds entry_lifetime{63000};  // 2 H + 3 s after the last frame
  std::chrono::milliseconds tombstone_lifetime{15000};
  std::chrono::milliseconds quiet_period{15000};  // after Redis was away: nothing expires
  std::chrono::milliseconds sweep_gap_max{3000};  // a longer one means that Redis, or every core, was away
  std::chrono::minutes change_log_lifetime{10};
  // A core that was not announced for so long is not live. Longer than its shards need to be with another core: 3 s of silence, and
  // some 2 s until they are attached and declared. Else the others would answer for all while nobody has those connections.
  std::chrono::milliseconds core_lifetime{6000};
  std::chrono::minutes request_lifetime{5};  // of a request_id
  // Of a kept logout, LOGOUT_LIFETIME: at least that of the tokens that it voids. Keycloak lets no session live longer than 10 h.
  std::chrono::seconds logout_lifetime{36'000};
  // Of a room's log, whichever is reached first. What is over goes with an append, and up to a sixteenth more with it.
  size_t room_log_length = 1'000;           // ROOM_LOG_LENGTH
  size_t room_log_bytes = size_t{4} << 20;  // of the envelopes
  std::chrono::seconds room_log_age{120};   // ROOM_LOG_AGE: at least; see Append
  uint32_t connections_per_user_max = 0;    // over all cores, CONNECTIONS_PER_USER; 0: no limit
  uint64_t core_incarnation = 0;            // names this core in "origin"
};

// One device of one user.
struct ConnectionKey {
  uint64_t incarnation = 0;  // of the edge process
  uint64_t connection = 0;   // ConnectionId, packed
  friend bool operator==(const ConnectionKey&, const ConnectionKey&) = default;
};

struct PresenceWrite {
  enum class Kind : uint8_t {
    kAssert,    // the connection is there, with this status and these rooms
    kReassert,  // the same, after the store was away or has lost it: see previous_*
    kRemove,    // it is gone
    kLinger,  // the same, but its client is expected elsewhere: an entry that is live lingers; without one this is a kRemove
  };
  Kind kind = Kind::kAssert;
  uint64_t id = 0;  // the caller's; comes back in OnWritten
  ConnectionKey key;
  uint64_t attach = 0;
  std::string_view user_id;  // the views must live until the call returns
  std::string_view username;
  Status status = link::v1::STATUS_ONLINE;      // kAssert, kReassert: AWAY or ONLINE
  std::chrono::milliseconds silent_for{0};      // since the client's last frame
  absl::Span<const std::string_view> room_ids;  // PRESENCE_SCOPE=rooms; else empty
  std::chrono::milliseconds linger_for{0};      // kLinger: more than 0
  // All but kAssert: what the caller last knew of the user, in place of a previous state that the store has lost, or has
  // in an earlier version. UNSPECIFIED and 0: nothing. While the store is quiet, a kReassert or kLinger never lowers the
  // status below the previous one: that is held, and the user is judged again by the first sweep after the quiet period.
  Status previous_status = link::v1::STATUS_UNSPECIFIED;
  uint64_t previous_version = 0;
  // kAssert, kReassert: of the connection's newest token.
  std::string_view session_id;  // empty: it names no session
  int64_t issued_at_ms = 0;     // 0: it does not say, and counts as older than every logout
  bool newcomer = false;        // it has just come, and the store has never confirmed it: the limit concerns it
};

// The connection is not there any more.
constexpr bool IsEnd(PresenceWrite::Kind kind) {
  return kind == PresenceWrite::Kind::kRemove || kind == PresenceWrite::Kind::kLinger;
}

struct WriteResult {
  enum class Outcome : uint8_t {
    kApplied,
    kFenced,
    kRevoked,  // the connection's user, or session, is logged out
    kTooMany,  // the user has as many connections as one may have
    kUnavailable,
  };
  Outcome outcome = Outcome::kUnavailable;
  Status user_status = link::v1::STATUS_UNSPECIFIED;  // derived, after the write; of all but kUnavailable
  uint64_t user_version = 0;
};

struct RefreshEntry {
  ConnectionKey key;
  uint64_t attach = 0;
  std::string_view user_id;
  bool pinged = false;  // also moves last_seen
};

struct StoredPresence {
  std::string user_id;
  std::string username;  // empty: not known
  Status status = link::v1::STATUS_OFFLINE;
  int64_t last_seen_ms = 0;  // 0: not known
  uint64_t version = 0;      // 0: not known
};

struct PresencePage {
  std::vector<StoredPresence> users;
  bool more = false;
};

struct StoredChange {
  StoredPresence presence;
  int64_t changed_ms = 0;
  std::vector<std::string> room_ids;  // PRESENCE_SCOPE=rooms: the user's rooms now
};

struct ChangeLog {
  // False: `since` is older than the log, or than what Redis has lost; `changes` then holds whom the log still names
  // since then, those who went offline among them, and everybody else who is not offline.
  bool complete = true;
  std::vector<StoredChange> changes;
};

// A logout: of a session, or, without one, of all sessions of the user.
struct Logout {
  std::string_view user_id, session_id;  // one at least; with both the session alone is meant. Views live for the call
  int64_t logged_out_at_ms = 0;          // 1 to 2^53
};

struct StoredLogout {
  std::string user_id, session_id;  // one of them is empty
};

struct LogoutLog {
  // False: not all are there, since there are too many, or what was asked for is older than the log.
  bool complete = true;
  std::vector<StoredLogout> logouts;
};

// A publication that happens once for each request_id.
struct OnceResult {
  enum class Outcome : uint8_t {
    kPublished,
    kRepeated,     // the same was published before: nothing happened
    kConflict,     // something else was, under that request_id: nothing happened
    kUnavailable,  // whether it happened is not known; repeating it is safe
  };
  Outcome outcome = Outcome::kUnavailable;
  std::string answer;  // kRepeated: as given to SaveAnswer; empty when that has not come yet
};

struct AppendResult {
  OnceResult::Outcome outcome = OnceResult::Outcome::kUnavailable;  // without a request_id never kRepeated or kConflict
  std::string answer;                                               // as in OnceResult
  RoomPosition position{};                                          // kPublished: of the message
};

// What of a room's log is to be read. Views live for the call.
struct RoomLogQuery {
  std::string_view room_id;
  RoomPosition after{};    // what stands behind it; not known: all
  size_t entries_max = 0;  // of one page
  RoomPosition seen{};     // as far as the caller knows, the room has come that far; not known: it knows nothing
  RoomPosition doubted{};  // the same of an earlier epoch, of which it does not know whether all was kept
};

// A part of a room's log, oldest first.
struct RoomLogPage {
  std::vector<link::v1::BusEnvelope> entries;  // as published, each with its position
  bool more = false;                           // behind the last one
  // Of the room, when this was read. Of a room of which nothing is known: the moment, with the sequence 0.
  RoomPosition current;
  uint64_t data_since = 0;  // us: since when Redis has kept its data
};

// What a store tells its core.
class StoreListener {
 public:
  virtual ~StoreListener() = default;

  // The store answers again and the subscription to the bus stands; also the first time. `lost_state`: its run id has
  // changed or its sweep key was missing. A store that was never up has said nothing; one that goes away says
  // OnStoreDown once.
  virtual void OnStoreUp(bool lost_state) = 0;
  virtual void OnStoreDown(std::string_view why) = 0;

  virtual void OnWritten(uint64_t id, const WriteResult& result) = 0;
  // The entries of one Refresh that are missing, fenced or tombstoned, by their position in the call. One of which
  // nothing is known, because Redis refused or did not answer, is not named.
  virtual void OnRefreshed(uint64_t id, absl::Span<const uint32_t> missing) = 0;
  virtual void OnPublished(uint64_t id, bool ok) = 0;
  virtual void OnPublishedOnce(uint64_t id, const OnceResult& result) = 0;
  virtual void OnAppended(uint64_t id, const AppendResult& result) = 0;
  virtual void OnRoomLogRead(uint64_t id, const absl::StatusOr<RoomLogPage>& page) = 0;
  // Of Announce: the incarnations of all live cores, this one included, ascending; or UNAVAILABLE.
  virtual void OnCoresRead(const absl::StatusOr<std::vector<uint64_t>>& cores) = 0;
  virtual void OnChangesRead(uint64_t id, const absl::StatusOr<ChangeLog>& log) = 0;
  virtual void OnLogoutKept(uint64_t id, bool ok) = 0;
  virtual void OnLogoutsRead(const absl::StatusOr<LogoutLog>& log) = 0;

  // From the bus, in Redis' order, what this core published itself included.
  virtual void OnBus(const link::v1::BusEnvelope& envelope) = 0;
  // To this core, by Reply. In one order with what comes from the bus.
  virtual void OnReplies(const link::v1::ClusterReplies& replies) = 0;
  // From message:broadcast and presence:updates: as published, by anybody, valid or not.
  virtual void OnOutsideMessage(std::string_view text) = 0;
  virtual void OnOutsidePresence(std::string_view text) = 0;
};

class Store {
 public:
  static constexpr size_t kPresencesMax = 1'000;  // of one GetPresences
  static constexpr size_t kLogoutsMax = 10'000;   // of one ReadLogouts
  // Of one ReadRoomLog: a page ends with the entry that reaches it.
  static constexpr size_t kRoomLogPageBytes = size_t{256} << 10;

  virtual ~Store() = default;

  // One transition. Answered by OnWritten; kUnavailable when the store is away or has answered nothing for 2 s
  // (whether it was applied is then unknown: repeating it is safe).
  virtual void Write(const PresenceWrite& write) = 0;

  // Moves deadlines and TTLs of entries that exist. Answered by OnRefreshed, always; when the store is away or
  // refuses, it names nothing.
  virtual void Refresh(uint64_t id, absl::Span<const RefreshEntry> entries) = 0;

  // Once a second from every core: touches the sweep key and, unless the store is quiet, ends up to `users_max`
  // users' expired entries, with the same transition. The store is quiet for quiet_period after a gap of more than
  // sweep_gap_max between two sweeps, a missing sweep key or a new run id. When there were as many, the store goes on
  // by itself with the next ones, one bounded step after the other, as long as it is up: after the death of a host
  // with thousands of users the last one is offline within seconds of the first. No answer.
  virtual void Sweep(int users_max) = 0;

  // SETEX typing:{room_id}:{user_id}. Volatile: no answer.
  virtual void SetTyping(std::string_view room_id, std::string_view user_id, std::string_view username) = 0;

  // Publishes on presence.bus and, unless `outside` is empty, that text on message:broadcast. Answered by
  // OnPublished.
  virtual void Publish(uint64_t id, const link::v1::BusEnvelope& envelope, std::string_view outside) = 0;

  // The same, unless that request_id was used within request_lifetime: one atomic script. Answered by OnPublishedOnce.
  virtual void PublishOnce(uint64_t id, std::string_view request_id, std::string_view fingerprint,
                           const link::v1::BusEnvelope& envelope, std::string_view outside) = 0;
  // A message to a room: numbers it, keeps it in the room's log, and publishes it on presence.bus with its position and, unless `outside`
  // is empty, that text on message:broadcast. With a request_id (else empty) once, as PublishOnce. One atomic script (core/room_log.lua).
  // `envelope` has no position yet. Answered by OnAppended; kUnavailable: whether it happened is not known. The log keeps
  // room_log_length entries, room_log_bytes of them, each for room_log_age: twice that in a room that is never silent, at most four times; what
  // one room knows of itself lives for kRoomMemory. A new epoch begins where room_position.h says.
  virtual void Append(uint64_t id, std::string_view request_id, std::string_view fingerprint,
                      const link::v1::BusEnvelope& envelope, std::string_view outside) = 0;
  // What stands in the log, and where the room is. Answered by OnRoomLogRead, UNAVAILABLE as below. Whether something is missing in between is
  // for the caller to see: see Follows. When `seen` or `doubted` proves that Redis has lost something (IsLost), that is put down first, in the
  // log and on the bus, for all: a new epoch that begins with link.v1.RoomLost.
  virtual void ReadRoomLog(uint64_t id, const RoomLogQuery& query) = 0;

  // What a repeat of that request_id is to be answered from now on; its lifetime stays. No answer.
  virtual void SaveAnswer(std::string_view request_id, std::string_view answer) = 0;

  // Keeps it for logout_lifetime; of several of one user or session the latest counts. One atomic script (core/keep_logout.lua). Answered
  // by OnLogoutKept; not `ok`: whether it is kept is not known, and repeating it is safe. From then on every write by a void
  // token is refused, whichever core asks.
  virtual void KeepLogout(uint64_t id, const Logout& logout) = 0;
  // What was kept within that time, by the clock of the store. Answered by OnLogoutsRead: for a core that did not hear the bus.
  virtual void ReadLogouts(std::chrono::milliseconds within) = 0;

  // Once a second: this core is live. Answered by OnCoresRead.
  virtual void Announce() = 0;
  // This core stops: it is not live any more. No answer.
  virtual void Withdraw() = 0;
  // To that core alone. Volatile: no answer.
  virtual void Reply(uint64_t core, const link::v1::ClusterReplies& replies) = 0;

  // Reads. Each callback is called exactly once, with UNAVAILABLE when the store is away or has answered nothing for 2 s.
  // A user without an entry, or with a corrupt one, reads as OFFLINE.
  virtual void GetPresence(std::string_view user_id, std::function<void(absl::StatusOr<StoredPresence>)> done) = 0;
  // The same for up to kPresencesMax users, in one round trip; answered in their order.
  virtual void GetPresences(absl::Span<const std::string> user_ids,
                            std::function<void(absl::StatusOr<std::vector<StoredPresence>>)> done) = 0;
  // Users who are not offline, in byte order behind `after_user_id` (empty: from the start); limit 1 to 10,000.
  virtual void ListPresence(std::string_view after_user_id, uint32_t limit,
                            std::function<void(absl::StatusOr<PresencePage>)> done) = 0;
  // Who changed with a version >= since. Answered by OnChangesRead: with the whole truth or with UNAVAILABLE.
  virtual void ReadChanges(uint64_t id, uint64_t since_version) = 0;
};

}  // namespace presence::core
