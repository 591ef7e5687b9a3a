// What Redis holds for the service, in memory: the presence of users, the change log, the sweep key, and the bus. It
// follows the same rules as the scripts in Redis, step by step; the differential test holds one against the other.
//
// One thread. Deterministic: all containers are ordered, and time comes from the clock that it is given. Several
// MemoryStores (core/memory_store.h) work on one database as several cores do on one Redis; it must outlive them.
//
// Bounded like Redis: what has a TTL is dropped when its time has passed, and the change log is trimmed by the sweep.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/time.h"
#include "core/store.h"

namespace presence::core {

enum class BusChannel : uint8_t { kBus, kMessageBroadcast, kPresenceUpdates, kReplies };

struct Publication {
  BusChannel channel = BusChannel::kBus;
  link::v1::BusEnvelope envelope{};  // kBus
  std::string text{};                // kMessageBroadcast, kPresenceUpdates
  uint64_t core = 0;                 // kReplies: whom they are for; the others hear them, too, and leave them
  link::v1::ClusterReplies replies{};
};

class BusSubscriber {
 public:
  virtual ~BusSubscriber() = default;
  // Called from inside the publishing call: only to be queued.
  virtual void OnPublication(std::shared_ptr<const Publication> publication) = 0;
};

class MemoryDatabase {
 public:
  explicit MemoryDatabase(std::function<WallTime()> clock);

  // --- what stores do; see core/store.h for the meaning.
  WriteResult Write(const StoreOptions& options, const PresenceWrite& write);
  bool Refresh(const StoreOptions& options, const RefreshEntry& entry);  // false: missing
  int Sweep(const StoreOptions& options, int users_max);                 // how many users were due
  void SetTyping(const StoreOptions& options, std::string_view room_id, std::string_view user_id,
                 std::string_view username);
  void Publish(const link::v1::BusEnvelope& envelope, std::string_view outside);
  OnceResult PublishOnce(const StoreOptions& options, std::string_view request_id, std::string_view fingerprint,
                         const link::v1::BusEnvelope& envelope, std::string_view outside);
  AppendResult Append(const StoreOptions& options, std::string_view request_id, std::string_view fingerprint,
                      link::v1::BusEnvelope envelope, std::string_view outside);
  RoomLogPage ReadRoomLog(const StoreOptions& options, const RoomLogQuery& query);
  void SaveAnswer(std::string_view request_id, std::string_view answer);
  void KeepLogout(const StoreOptions& options, const Logout& logout);
  LogoutLog ReadLogouts(const StoreOptions& options, std::chrono::milliseconds within);
  std::vector<uint64_t> AnnounceCore(const StoreOptions& options);  // who is live
  void WithdrawCore(const StoreOptions& options) { cores_.erase(options.core_incarnation); }
  void Reply(uint64_t core, const link::v1::ClusterReplies& replies);
  StoredPresence GetPresence(std::string_view user_id);
  PresencePage ListPresence(std::string_view after_user_id, uint32_t limit);
  ChangeLog ReadChanges(const StoreOptions& options, uint64_t since_version);

  // Every subscriber hears every publication, in the order in which they subscribed.
  void Subscribe(BusSubscriber* subscriber);
  void Unsubscribe(BusSubscriber* subscriber);

  bool swept() const { return sweep_.has_value(); }
  uint64_t run() const { return run_; }
  WallTime now() const { return clock_(); }

  // --- what happens to a Redis, and what other services do with it.
  void Wipe();                // restarted without its data
  void Restart() { ++run_; }  // restarted with its data
  std::unique_ptr<MemoryDatabase> Copy() const { return std::unique_ptr<MemoryDatabase>(new MemoryDatabase(*this)); }
  void RestartAs(const MemoryDatabase& copy);  // restarted with what it had when that copy of it was made
  void SetPresenceText(std::string_view user_id, std::string_view text);  // somebody's SET presence:{user_id}
  void PublishOutside(BusChannel channel, std::string_view text);

  // --- for tests. Drops what has outlived its TTL (every call above does that first) and names the keys.
  std::vector<std::string> DropLapsed();
  // Every key as Redis would hold it: its type, "mortal" with a TTL or "immortal", and a line FIELD=VALUE for each
  // field or member. Without the run in presence.sweep and
  // presence.room:{room_id}, which a Redis names in another way.
  std::map<std::string, std::string> Dump();
  // Seconds that a key still has to live; nothing when it is not there or lives for ever.
  std::optional<int64_t> Ttl(std::string_view key);

 private:
  MemoryDatabase(const MemoryDatabase&) = default;
  MemoryDatabase& operator=(const MemoryDatabase&) = default;

  // An entry, or, with the status UNSPECIFIED, the tombstone of one.
  struct Entry {
    uint64_t attach = 0;
    int64_t deadline_ms = 0;
    Status status = link::v1::STATUS_UNSPECIFIED;
    bool lingers = false;
    std::set<std::string, std::less<>> room_ids;
  };
  struct User {
    std::map<std::string, Entry, std::less<>> entries;  // by ConnectionName
    Status status = link::v1::STATUS_UNSPECIFIED;       // UNSPECIFIED: nothing known, or lost
    uint64_t version = 0;
    std::string username;
    std::string connection_name;
    int64_t last_seen_ms = 0;
    int64_t changed_ms = 0;
    Status held = link::v1::STATUS_UNSPECIFIED;
    int64_t held_until_ms = 0;
  };
  struct SweepState {
    int64_t at_ms = 0;
    uint64_t run = 0;
    int64_t quiet_until_ms = 0;
    uint64_t began_us = 0;  // since when the change log is whole
  };
  struct Time {
    uint64_t us = 0;
    int64_t ms = 0;
  };
  // presence.room:{room_id}
  struct RoomCounters {
    RoomPosition position, previous;
    uint64_t bytes = 0, gone = 0;  // that ever were in the log; of those that have left it, at least
    int64_t marked_ms = 0;
    RoomPosition mark;
    uint64_t mark_bytes = 0;  // before the mark
    uint64_t run = 0;
  };
  struct LogEntry {
    link::v1::BusEnvelope envelope;
    uint64_t bytes = 0, upto = 0;  // its own; of all that ever were in the log up to its end
  };
  using RoomSet = std::set<std::string, std::less<>>;
  using Users = std::map<std::string, User, std::less<>>;

  Time ReadClock() const;
  uint64_t DataSince(Time now);
  // What a request_id is good for: kPublished, and from now on it is used.
  OnceResult UseRequest(const StoreOptions& options, std::string_view request_id, std::string_view fingerprint);
  // The next one in the log, with what is to be said of the position before it; not yet published.
  void AddToLog(const StoreOptions& options, Time now, const std::string& room_id, RoomPosition stated,
                link::v1::BusEnvelope* envelope);
  void NoteLoss(const StoreOptions& options, Time now, const RoomLogQuery& query);
  static void TrimLog(const StoreOptions& options, RoomCounters& room, std::deque<LogEntry>& log);
  bool DropRoomKey(std::string_view key);  // false: it is another key
  // The answer to a write that changes nothing: it is fenced, or not let in. `revoked`: its token is void.
  std::optional<WriteResult> Refuse(const StoreOptions& options, Time now, const PresenceWrite& write,
                                    std::string_view name, bool revoked) const;
  bool LoggedOut(const PresenceWrite& write) const;
  static size_t LiveEntries(const User& user, Time now, bool quiet);
  // Whose place a newcomer takes; empty: nobody's.
  static std::string FirstToMakeWay(const User& user);
  bool Quiet(const StoreOptions& options, Time now) const;
  int64_t QuietUntil(const StoreOptions& options, Time now) const;
  static RoomSet RoomsOf(const User& user);
  void DropExpired(Time now, bool quiet, User* user);
  static void BoundTombstones(User* user, std::string_view added);
  WriteResult Settle(const StoreOptions& options, Time now, std::string_view user_id, User* user, Status previous,
                     const RoomSet& rooms_before);
  void StorePresenceText(const StoreOptions& options, Time now, std::string_view user_id, const User& user);
  void PublishChange(std::string_view user_id, const User& user, const RoomSet& rooms);
  void Distribute(Publication publication);
  void SetDeadline(std::string_view user_id, const User& user);
  void SetExpiry(const std::string& key, std::optional<int64_t> expires_ms);
  StoredPresence Present(std::string_view user_id, const User& user) const;

  std::function<WallTime()> clock_;
  uint64_t run_ = 1;
  Users users_;
  std::map<std::string, int64_t, std::less<>> deadlines_;
  std::set<std::pair<int64_t, std::string>> deadlines_in_order_;
  std::set<std::string, std::less<>> online_;
  std::map<std::string, uint64_t, std::less<>> changes_;
  std::set<std::pair<uint64_t, std::string>> changes_in_order_;
  std::optional<SweepState> sweep_;
  std::map<std::string, uint64_t, std::less<>> logouts_;  // by name, when they were kept (us)
  // presence:{user_id}, typing:{room_id}:{user_id}, presence.request:{id} and revoked:{name}
  std::map<std::string, std::string, std::less<>> texts_;
  std::map<std::string, int64_t, std::less<>> expiries_;  // of texts and of the hashes of gone users, by key
  std::set<std::pair<int64_t, std::string>> expiries_in_order_;
  std::map<std::string, RoomCounters, std::less<>> rooms_;
  std::map<std::string, std::deque<LogEntry>, std::less<>> logs_;
  uint64_t data_since_us_ = 0;         // presence.rooms; 0: not there
  std::map<uint64_t, int64_t> cores_;  // when each was announced last (ms)
  std::vector<BusSubscriber*> subscribers_;
};

}  // namespace presence::core
