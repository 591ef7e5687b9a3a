// WatchPresence: who watches whom on this core, and what each of them has not been told yet.
//
//   hub: every change ──▶ index by user, list of everyone's watchers ──▶ one queue for each watcher ──▶ Take
//   store: snapshots, change log ─┘                     all cores: members of watched rooms ─┘
//
// Loop thread. A watcher is registered first, and its snapshot is read then: so it misses nothing, and hears some of it twice. A row
// that is older than a change heard while it was read is dropped; so is a change that is heard when a newer one has been read: the bus
// brings that, too. Invariants:
//   * of one user, the versions that a watcher is told never fall (but for the first part of a resume, which repeats);
//   * what is heard is in the queue of every watcher whom it concerns before resume_version moves past it;
//   * a watcher that is behind costs its queue, users_waiting_max rows at most, and then ends; snapshots wait for its reading;
//   * all queues together hold rows_waiting_max rows at most. What changes is put in all the same, and whoever is furthest behind ends;
//     first parts wait until there is room, which they leave a quarter of to the changes;
//   * at most reads_max reads for snapshots are under way. Whoever waits for the same page, or the change log, shares the read and
//     its rows: thousands of watchers that come back at once read together.
//
// resume_version: versions are microseconds of Redis' clock at the change, and arrive nearly in order. What is older than
// settle_after, by this core's clock, has been heard, unless the bus was away: then resume_version stands still until the hub has caught
// up. A resume reads the change log from resume_overlap before it: the two allow this core's clock to be off by their sum. What is
// older than resume_max, or newer than any core can have told, is not looked up: a snapshot follows.
//
//   watches.cc        who watches, and changes on their way to them
//   watches_reads.cc  snapshots and resumes
//   watches_rooms.cc  members of watched rooms
//
// Does not do: gRPC (watch_stream.h), validation (there), membership (all cores are asked; watched_rooms.h).
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/ids.h"
#include "common/time.h"
#include "core/hub.h"
#include "core/id_map.h"
#include "core/store.h"
#include "core/watch_queue.h"
#include "core/watched_rooms.h"
#include "presence/link/v1/link.pb.h"

namespace presence::core {

struct WatchOptions {
  size_t watchers_max = 10'000;
  size_t users_watched_max = 1'000'000;    // named by all watchers together
  size_t members_watched_max = 1'000'000;  // of all watched rooms together
  size_t users_waiting_max = 10'000;       // of one watcher
  // Of all watchers together: rows in their queues. One costs its item (24 B) and its place in the index (25 B), both in tables that
  // are up to twice as long as what they hold: 50 to 100 B; 64 to 91 as measured. The row itself, some 190 B with a UUID and a name, is
  // shared by all who were told of the change, or read with the same read: 100 MB, and 190 MB more if each had read alone. At least
  // 4,000, or a page of a snapshot would not fit.
  size_t rows_waiting_max = 1'000'000;
  std::chrono::milliseconds room_wait_max{2'000};  // for room, by first parts; then whoever is furthest behind ends
  size_t reads_max = 8;                            // of the store, for snapshots: up to 1,000 users each
  size_t log_rows_max = 200'000;                   // of the change log, some 250 B each, held for all who resume
  WatchedRooms::Limits rooms{};
  std::chrono::milliseconds rooms_every{1000};
  std::chrono::milliseconds silence_max{10'000};  // then a watcher is told resume_version alone
  std::chrono::milliseconds settle_after{10'000};
  std::chrono::milliseconds resume_overlap{5'000};
  std::chrono::minutes resume_max{10};  // the change log's
};

using WatcherId = StrongId<struct WatcherIdTag, uint64_t>;

struct WatchTarget {
  // One of the three: users (each once), a room, or neither: everyone.
  std::vector<std::string> user_ids;
  std::string room_id;
  uint64_t resume_version = 0;  // not with a room
};

// Some of what waits for a watcher. At most one row for each user.
struct WatchUpdate {
  std::vector<PresenceRow> presences;
  std::vector<std::string> left_user_ids;
  bool snapshot = false, snapshot_done = false;
  uint64_t resume_version = 0;
};

// Whoever reads for a watcher. Called on the loop thread, at the turn's end; may call Take and Close, of itself, from inside.
class WatchReader {
 public:
  virtual ~WatchReader() = default;
  // There is something to Take. Not again before a Take has returned false.
  virtual void OnReady() = 0;
  // The watcher is gone, by itself; `slow`: since too much waited for it. The last call.
  virtual void OnEnded(const absl::Status& why, bool slow) = 0;
};

class Watches {
 public:
  // Ids of its ReadChanges have this bit; the hub's have not.
  static constexpr uint64_t kReadIds = uint64_t{1} << 63;
  using AskDone = std::function<void(const absl::Status&, std::vector<link::v1::ClusterReply>)>;
  // Asks all cores. Answered once, perhaps from inside; or never any more, when there is nobody who waits.
  using Ask = std::function<void(link::v1::ClusterRequest body, AskDone done)>;

  // The store must outlive it; its answers and those of `ask` may come later than its end.
  Watches(WatchOptions options, Store& store, Ask ask);
  ~Watches();
  Watches(const Watches&) = delete;
  Watches& operator=(const Watches&) = delete;

  // The reader must live until Close, or its OnEnded. RESOURCE_EXHAUSTED over the bounds; Shutdown's status after that.
  absl::StatusOr<WatcherId> Open(WatchTarget target, WatchReader& reader);
  // Any time; the reader hears nothing any more. Of an unknown watcher nothing.
  void Close(WatcherId watcher);
  // At most `rows_max` rows and about `bytes_max`; the caller's until the next Take of any watcher. Null: nothing waits; OnReady will
  // come.
  WatchUpdate* Take(WatcherId watcher, size_t rows_max, size_t bytes_max);

  // From inside the hub: only notes.
  void OnPresenceChanged(Now now, const PresenceChange& change);
  void OnChangesRead(uint64_t id, const absl::StatusOr<ChangeLog>& log);
  // `caught_up`: the bus stands, and the hub has told all that was missed while it did not.
  void OnTick(Now now, bool caught_up);
  // At the end of the loop's turn: starts reads and wakes readers.
  void OnTurnEnd(Now now);
  // Ends all watchers at the turn's end; there will be no more.
  void Shutdown(const absl::Status& why);

  size_t watchers() const { return watchers_.size(); }
  size_t rows_waiting() const { return rows_waiting_; }
  uint64_t ended_slow() const { return ended_slow_; }

 private:
  enum class Kind : uint8_t { kUsers, kRoom, kEveryone };
  // Where what a new watcher must be told first comes from.
  enum class Source : uint8_t { kUsers, kPages, kUnknownRoom, kLog, kNone };

  // Read once, for all who waited for it.
  struct Log {
    std::vector<PresenceRow> rows;          // ascending versions, but for those that were heard since: they are newer
    IdMap<size_t, std::string_view> place;  // by user; views into the rows
  };

  struct Watcher {
    WatcherId id;
    Kind kind = Kind::kEveryone;
    WatchReader* reader = nullptr;
    std::vector<std::string> user_ids;  // kUsers, ascending
    std::string room_id;                // kRoom
    WatchQueue queue;

    Source source = Source::kNone;
    bool reading = false;      // a read is under way, or waits for its turn or for room
    size_t rows_reserved = 0;  // for that read
    // kRoom with Source::kUsers: of whom the snapshot consists.
    std::shared_ptr<const std::vector<std::string>> members;
    size_t next_to_read = 0;         // of them, or of user_ids
    std::string page_after;          // kPages
    std::shared_ptr<const Log> log;  // kLog, once it is read
    size_t next_in_log = 0;
    bool snapshot = false;    // the first part is one
    bool first_told = false;  // and has been told whole
    uint64_t first_end = 0;   // its last row's place in the queue, once source is kNone

    uint64_t resume_version = 0;  // as last told
    SteadyTime told_at;
    bool ready = false;       // OnReady was called or will be, and Take has not returned null since
    bool waking = false;      // is in to_wake_; perhaps not ready any more, when it was taken from meanwhile
    bool over_bound = false;  // is about to be ended
    bool heartbeat_due = false;
  };

  // --- watches.cc
  Watcher* Find(WatcherId id);
  void Register(Watcher& watcher);
  void Unregister(Watcher& watcher);
  void End(Watcher& watcher, const absl::Status& why, bool slow = false);
  void EndAll(std::vector<Watcher*> watchers, const absl::Status& why);
  void SendAway(Watcher& watcher);
  void MakeRoom(size_t rows_left);
  void Enqueue(Watcher& watcher, const PresenceRow& row, bool left = false);
  void Wake(Watcher& watcher);
  void JudgeSilence();
  void NoteVersions(std::string_view user_id, uint64_t heard, uint64_t read);
  void ForgetOldVersions();

  // --- watches_reads.cc
  bool CanResume(uint64_t version) const;
  // The part that is made free at once where all is full. To find who is furthest behind takes a look at every watcher, 10,000 at most:
  // so it is shared by some 15,000 rows.
  static constexpr size_t kMadeFree = 64;
  size_t RowsForFirstParts() const { return options_.rows_waiting_max / 4 * 3; }
  void StartSnapshot(Watcher& watcher);
  // Notes what the watcher needs next, unless it has enough to tell. May end its first part.
  void ReadOn(Watcher& watcher);
  size_t RowsToRead(const Watcher& watcher) const;
  bool HasRoom(size_t rows) const;
  void LetIn();
  void JudgeRoom();
  void StartReading(Watcher& watcher, size_t rows);
  void Unreserve(Watcher& watcher);
  void StartReads();
  void ReadUsers(Watcher& watcher);
  void ReadPage(const std::string& after);
  void OnPageRead(const std::vector<WatcherId>& readers, absl::StatusOr<PresencePage> page);
  PresenceRow RowRead(StoredPresence&& presence);
  void FirstPartRead(Watcher& watcher);
  void ReadLog();
  void ResumeFrom(std::vector<Watcher*> readers, const ChangeLog& log);
  void FeedLog(Watcher& watcher);
  void ReadEnded();

  // --- watches_rooms.cc
  void AskRooms(bool only_new);
  void OnRoomsAnswered(const WatchedRooms::Query& query, const absl::Status& status,
                       absl::Span<const link::v1::ClusterReply> replies);
  void OnRoomChanged(const WatchedRooms::Change& change);
  void ReadJoined();
  void TellJoined(const std::string& room_id, std::vector<StoredPresence> presences);
  void NoteMember(const std::string& room_id, const std::string& user_id);
  void ForgetMember(const std::string& room_id, const std::string& user_id);

  const WatchOptions options_;
  Store& store_;
  const Ask ask_;
  // For answers that may come after this object: they hold it weakly.
  const std::shared_ptr<Watches*> self_;

  absl::btree_map<WatcherId, std::unique_ptr<Watcher>> watchers_;  // in order of their opening
  uint64_t last_id_ = 0;
  WatchUpdate update_;  // the last Take's
  // Whom a change concerns; in order of their opening.
  std::vector<Watcher*> everyone_;
  IdMap<std::vector<Watcher*>> by_user_;  // kUsers
  IdMap<std::vector<Watcher*>> by_room_;
  IdMap<std::vector<std::string>> rooms_of_user_;  // watched rooms by member
  size_t users_watched_ = 0, members_watched_ = 0;
  size_t rows_waiting_ = 0, rows_reserved_ = 0;  // in all queues; for reads

  WatchedRooms rooms_;
  SteadyTime rooms_asked_at_;
  bool rooms_added_ = false;
  size_t all_rooms_unanswered_ = 0, new_rooms_unanswered_ = 0;  // queries
  // Room and member whose presence the room's watchers are still to be told. Members of watched rooms only: bounded by those.
  using Joined = std::set<std::pair<std::string, std::string>>;
  Joined joined_;         // to be read
  Joined joined_unread_;  // whose read has failed: again with the next look

  // Who waits for room, in turn, and when somebody was last let in, or began to wait alone.
  std::deque<WatcherId> wait_for_room_;
  SteadyTime let_in_at_;
  // Reads that wait for their turn, and those under way, of any kind.
  std::deque<WatcherId> users_to_read_;
  std::deque<std::string> pages_to_read_;       // behind these users
  IdMap<std::vector<WatcherId>> page_readers_;  // never iterated over
  size_t reads_ = 0;
  // Who wants what of the change log: one read for all.
  std::vector<WatcherId> wait_for_log_, reading_log_;
  uint64_t log_read_ = 0, last_log_read_ = 0;
  std::vector<std::weak_ptr<Log>> logs_;  // from which somebody is told

  // Versions heard while reads were under way, and those read that the bus may not have brought yet, of the last seconds: a store
  // answers within 2 s, and the bus is at most a moment behind its reads, or the hub reads what it has missed.
  static constexpr std::chrono::seconds kVersionsKept{5};
  struct Versions {
    uint64_t heard = 0, read = 0;
    SteadyTime at;
  };
  struct VersionNoted {
    SteadyTime at;
    std::string user_id;
  };
  std::deque<VersionNoted> versions_in_order_;
  IdMap<Versions> versions_;  // never iterated over

  SteadyTime now_;               // of the last call that named it
  uint64_t resume_version_ = 0;  // of a watcher for whom nothing waits; 0: none yet
  SteadyTime silence_judged_at_;
  absl::Status shut_down_;

  std::vector<WatcherId> to_wake_, over_bound_;
  struct Ended {
    WatchReader* reader;
    absl::Status why;
    bool slow;
  };
  std::map<WatcherId, Ended> ended_;  // who has not heard of it
  uint64_t ended_slow_ = 0;
};

}  // namespace presence::core
