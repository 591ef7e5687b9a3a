// What a watcher is told first: a snapshot, or what it has missed.
#include <algorithm>
#include <tuple>
#include <utility>

#include "common/check.h"
#include "core/watches.h"

namespace presence::core {
namespace {

constexpr size_t kUsersPerRead = 500;
constexpr uint32_t kUsersPerPage = 1'000;
// A first part is read on while fewer rows wait: a slow reader holds back its own snapshot, not the store.
constexpr size_t kReadAhead = 1'000;

absl::Status SnapshotUnavailable(const absl::Status& why) {
  return absl::UnavailableError("the snapshot could not be read (" +
                                std::string(why.message().data(), why.message().size()) + "); watch again");
}

uint64_t Micros(std::chrono::microseconds duration) {
  return static_cast<uint64_t>(duration.count());
}

}  // namespace

bool Watches::CanResume(uint64_t version) const {
  if (version == 0) return false;
  if (resume_version_ == 0) return true;  // this core has just started: the store will tell
  // A version of another core is newer than this one's by the clocks' difference, at most; of another unit, by far more.
  const uint64_t newest = resume_version_ + 2 * Micros(options_.settle_after);
  return version <= newest && version + Micros(options_.resume_max) >= resume_version_;
}

void Watches::StartSnapshot(Watcher& watcher) {
  watcher.snapshot = true;
  watcher.resume_version = 0;
  switch (watcher.kind) {
    case Kind::kUsers:
      watcher.source = Source::kUsers;
      break;
    case Kind::kEveryone:
      watcher.source = Source::kPages;
      break;
    case Kind::kRoom:
      if (rooms_.Known(watcher.room_id)) {
        watcher.source = Source::kUsers;
        watcher.members = rooms_.Members(watcher.room_id);
      } else {
        watcher.source = Source::kUnknownRoom;
        rooms_added_ = true;
      }
      break;
  }
  ReadOn(watcher);
}

void Watches::ReadOn(Watcher& watcher) {
  if (watcher.reading || watcher.over_bound || watcher.queue.size() >= kReadAhead) return;
  if (watcher.source == Source::kNone || watcher.source == Source::kUnknownRoom) return;
  if (watcher.source == Source::kLog && watcher.log == nullptr) return;
  const size_t rows = RowsToRead(watcher);
  if (rows == 0) return FirstPartRead(watcher);
  watcher.reading = true;
  if (wait_for_room_.empty()) {
    if (HasRoom(rows)) return StartReading(watcher, rows);
    let_in_at_ = now_;
  }
  // Each waits once, but who has gone stays in the list until its turn.
  if (wait_for_room_.size() >= 2 * options_.watchers_max) {
    std::erase_if(wait_for_room_, [this](WatcherId id) { return Find(id) == nullptr; });
  }
  wait_for_room_.push_back(watcher.id);
}

// How many rows the next read brings, at most.
size_t Watches::RowsToRead(const Watcher& watcher) const {
  switch (watcher.source) {
    case Source::kUsers: {
      const size_t count = watcher.kind == Kind::kRoom ? watcher.members->size() : watcher.user_ids.size();
      return std::min(kUsersPerRead, count - watcher.next_to_read);
    }
    case Source::kPages:
      return kUsersPerPage;
    case Source::kLog:
      return std::min(watcher.kind == Kind::kUsers ? watcher.user_ids.size() : kReadAhead,
                      watcher.log->rows.size() - watcher.next_in_log);
    case Source::kUnknownRoom:
    case Source::kNone:
      return 0;
  }
  return 0;
}

bool Watches::HasRoom(size_t rows) const {
  return rows_waiting_ + rows_reserved_ + rows <= RowsForFirstParts();
}

void Watches::LetIn() {
  while (!wait_for_room_.empty()) {
    Watcher* const watcher = Find(wait_for_room_.front());
    const bool gone = watcher == nullptr || watcher->over_bound;
    const size_t rows = gone ? 0 : RowsToRead(*watcher);
    if (!gone && !HasRoom(rows)) return;
    wait_for_room_.pop_front();
    if (!gone) StartReading(*watcher, rows);
  }
}

// Where nobody reads, nobody could begin any more.
void Watches::JudgeRoom() {
  if (wait_for_room_.empty() || now_ - let_in_at_ < options_.room_wait_max) return;
  MakeRoom(RowsForFirstParts() - std::max<size_t>(RowsForFirstParts() / kMadeFree, kUsersPerPage));
}

void Watches::StartReading(Watcher& watcher, size_t rows) {
  let_in_at_ = now_;
  if (watcher.source == Source::kLog) {
    watcher.reading = false;
    return FeedLog(watcher);
  }
  watcher.rows_reserved = rows;
  rows_reserved_ += rows;
  if (watcher.source == Source::kUsers) return users_to_read_.push_back(watcher.id);
  std::vector<WatcherId>& readers = page_readers_[watcher.page_after];
  if (readers.empty()) pages_to_read_.push_back(watcher.page_after);
  readers.push_back(watcher.id);
}

void Watches::Unreserve(Watcher& watcher) {
  rows_reserved_ -= std::exchange(watcher.rows_reserved, 0);
}

// In turn, since none is to wait for all of another.
void Watches::StartReads() {
  while (reads_ < options_.reads_max && !(users_to_read_.empty() && pages_to_read_.empty() && joined_.empty())) {
    if (!joined_.empty()) ReadJoined();
    if (!pages_to_read_.empty()) {
      const std::string after = std::move(pages_to_read_.front());
      pages_to_read_.pop_front();
      ReadPage(after);
    }
    if (!users_to_read_.empty()) {
      Watcher* const watcher = Find(users_to_read_.front());
      users_to_read_.pop_front();
      if (watcher != nullptr) ReadUsers(*watcher);
    }
  }
}

void Watches::ReadUsers(Watcher& watcher) {
  const std::vector<std::string>& all = watcher.kind == Kind::kRoom ? *watcher.members : watcher.user_ids;
  const auto batch = absl::MakeConstSpan(all).subspan(watcher.next_to_read, kUsersPerRead);
  watcher.next_to_read += batch.size();
  ++reads_;
  store_.GetPresences(batch, [weak = std::weak_ptr(self_),
                              id = watcher.id](absl::StatusOr<std::vector<StoredPresence>> presences) {
    const auto self = weak.lock();
    if (self == nullptr) return;
    Watches& watches = **self;
    watches.ReadEnded();
    Watcher* const reader = watches.Find(id);
    if (reader == nullptr) return;
    if (!presences.ok()) return watches.End(*reader, SnapshotUnavailable(presences.status()));
    watches.Unreserve(*reader);
    for (StoredPresence& presence : *presences) {
      const PresenceRow row = watches.RowRead(std::move(presence));
      // Who has left meanwhile is told as that.
      const bool left = row && reader->kind == Kind::kRoom && !watches.rooms_.IsMember(reader->room_id, row->user_id);
      if (row && !left) watches.Enqueue(*reader, row);
    }
    reader->reading = false;
    watches.ReadOn(*reader);
  });
}

void Watches::ReadPage(const std::string& after) {
  const auto found = page_readers_.find(after);
  std::vector<WatcherId> readers = std::move(found->second);
  page_readers_.erase(found);
  std::erase_if(readers, [this](WatcherId id) { return Find(id) == nullptr; });
  if (readers.empty()) return;
  ++reads_;
  store_.ListPresence(after, kUsersPerPage,
                      [weak = std::weak_ptr(self_), readers = std::move(readers)](absl::StatusOr<PresencePage> page) {
                        const auto self = weak.lock();
                        if (self == nullptr) return;
                        (*self)->ReadEnded();
                        (*self)->OnPageRead(readers, std::move(page));
                      });
}

void Watches::OnPageRead(const std::vector<WatcherId>& readers, absl::StatusOr<PresencePage> page) {
  std::vector<PresenceRow> rows;
  std::string last;
  bool more = false;
  if (page.ok() && !page->users.empty()) {
    last = page->users.back().user_id;
    more = page->more;
    rows.reserve(page->users.size());
    for (StoredPresence& user : page->users) {
      if (PresenceRow row = RowRead(std::move(user))) rows.push_back(std::move(row));
    }
  }
  for (const WatcherId id : readers) {
    Watcher* const reader = Find(id);
    if (reader == nullptr) continue;
    if (!page.ok()) {
      End(*reader, SnapshotUnavailable(page.status()));
      continue;
    }
    Unreserve(*reader);
    for (const PresenceRow& row : rows) Enqueue(*reader, row);
    reader->reading = false;
    reader->page_after = last;
    if (more) {
      ReadOn(*reader);
    } else {
      FirstPartRead(*reader);
    }
  }
}

PresenceRow Watches::RowRead(StoredPresence&& presence) {
  const auto found = versions_.find(presence.user_id);
  // The newer one is in the queues of all who wait for this, or told.
  if (found != versions_.end() && found->second.heard > presence.version) return nullptr;
  // What is older has been heard by all.
  if (presence.version > resume_version_) NoteVersions(presence.user_id, /*heard=*/0, /*read=*/presence.version);
  return std::make_shared<const StoredPresence>(std::move(presence));
}

void Watches::FirstPartRead(Watcher& watcher) {
  watcher.source = Source::kNone;
  watcher.members.reset();
  watcher.log.reset();
  watcher.first_end = watcher.queue.end();
  Wake(watcher);
}

void Watches::ReadEnded() {
  PRESENCE_CHECK(reads_ != 0, "a read ends once");
  --reads_;
}

// ------------------------------------------------------------------------------------------------------------- resumes

void Watches::ReadLog() {
  if (log_read_ != 0 || wait_for_log_.empty()) return;
  uint64_t since = UINT64_MAX;
  for (const WatcherId id : std::exchange(wait_for_log_, {})) {
    const Watcher* watcher = Find(id);
    if (watcher == nullptr) continue;
    since = std::min(since, watcher->resume_version);
    reading_log_.push_back(id);
  }
  if (reading_log_.empty()) return;
  const uint64_t overlap = Micros(options_.resume_overlap);
  log_read_ = kReadIds | ++last_log_read_;
  ++reads_;
  store_.ReadChanges(log_read_, since > overlap ? since - overlap : 1);
}

void Watches::OnChangesRead(uint64_t id, const absl::StatusOr<ChangeLog>& log) {
  if (id != log_read_) return;
  log_read_ = 0;
  ReadEnded();
  std::vector<Watcher*> readers;
  for (const WatcherId reader : std::exchange(reading_log_, {})) {
    if (Watcher* watcher = Find(reader)) readers.push_back(watcher);
  }
  if (!log.ok()) return EndAll(std::move(readers), SnapshotUnavailable(log.status()));
  if (log->complete) return ResumeFrom(std::move(readers), *log);
  // It does not reach back to the oldest of them; to which it does is found by halves.
  std::stable_sort(readers.begin(), readers.end(),
                   [](const Watcher* a, const Watcher* b) { return a->resume_version < b->resume_version; });
  const size_t older = (readers.size() + 1) / 2;
  for (size_t i = 0; i < readers.size(); ++i) {
    if (i < older) {
      StartSnapshot(*readers[i]);
    } else {
      wait_for_log_.push_back(readers[i]->id);
    }
  }
}

void Watches::ResumeFrom(std::vector<Watcher*> readers, const ChangeLog& changes) {
  size_t held = changes.changes.size();
  for (const std::weak_ptr<Log>& weak : logs_) {
    if (const auto log = weak.lock()) held += log->rows.size();
  }
  const auto log = std::make_shared<Log>();
  log->rows.reserve(changes.changes.size());
  for (const StoredChange& change : changes.changes) {
    if (PresenceRow row = RowRead(StoredPresence(change.presence))) log->rows.push_back(std::move(row));
  }
  std::sort(log->rows.begin(), log->rows.end(), [](const PresenceRow& a, const PresenceRow& b) {
    return std::tie(a->version, a->user_id) < std::tie(b->version, b->user_id);
  });
  for (size_t i = 0; i < log->rows.size(); ++i) log->place.emplace(std::string_view(log->rows[i]->user_id), i);
  logs_.push_back(log);
  for (Watcher* watcher : readers) {
    if (watcher->kind == Kind::kEveryone && held > options_.log_rows_max) {
      StartSnapshot(*watcher);
      continue;
    }
    watcher->log = log;
    ReadOn(*watcher);
  }
}

void Watches::FeedLog(Watcher& watcher) {
  const uint64_t overlap = Micros(options_.resume_overlap);
  const uint64_t since = watcher.resume_version > overlap ? watcher.resume_version - overlap : 0;
  // Rows from before were read for a watcher that was away for longer.
  const auto feed = [&](const PresenceRow& row) {
    if (row->version >= since) Enqueue(watcher, row);
  };
  const std::vector<PresenceRow>& rows = watcher.log->rows;
  if (watcher.kind == Kind::kUsers) {
    // All at once: no more can wait than it has named. Fewer than it names may be in the log.
    for (const std::string& user_id : watcher.user_ids) {
      if (const auto at = watcher.log->place.find(user_id); at != watcher.log->place.end()) feed(rows[at->second]);
    }
    return FirstPartRead(watcher);
  }
  while (watcher.next_in_log < rows.size()) {
    if (watcher.over_bound || watcher.queue.size() >= kReadAhead) return;
    feed(rows[watcher.next_in_log++]);
  }
  FirstPartRead(watcher);
}

}  // namespace presence::core
