#include "core/watches.h"

#include <algorithm>
#include <utility>

#include "common/check.h"

namespace presence::core {
namespace {

constexpr std::chrono::seconds kJudgeSilenceEvery{1};

// The lists are in order of opening.
template <typename Watcher>
void Erase(std::vector<Watcher*>& from, const Watcher& watcher) {
  const auto found = std::lower_bound(from.begin(), from.end(), watcher.id,
                                      [](const Watcher* other, auto id) { return other->id < id; });
  PRESENCE_CHECK(found != from.end() && *found == &watcher, "a watcher is in its lists");
  from.erase(found);
}

template <typename Watcher>
void Erase(IdMap<std::vector<Watcher*>>& from, const std::string& key, const Watcher& watcher) {
  const auto found = from.find(key);
  if (found == from.end()) return;
  Erase(found->second, watcher);
  if (found->second.empty()) from.erase(found);
}

}  // namespace

Watches::Watches(WatchOptions options, Store& store, Ask ask)
    : options_(options),
      store_(store),
      ask_(std::move(ask)),
      self_(std::make_shared<Watches*>(this)),
      rooms_(options.rooms) {
  PRESENCE_CHECK(options_.rows_waiting_max >= 4'000, "a page of a snapshot fits into its part of the queues");
}

Watches::~Watches() = default;

Watches::Watcher* Watches::Find(WatcherId id) {
  const auto found = watchers_.find(id);
  return found == watchers_.end() ? nullptr : found->second.get();
}

absl::StatusOr<WatcherId> Watches::Open(WatchTarget target, WatchReader& reader) {
  if (!shut_down_.ok()) return shut_down_;
  if (watchers_.size() >= options_.watchers_max) {
    return absl::ResourceExhaustedError("too many watchers on this core; try another core, or later");
  }
  auto added = std::make_unique<Watcher>();
  Watcher& watcher = *added;
  watcher.reader = &reader;
  watcher.told_at = now_;
  if (!target.room_id.empty()) {
    if (!rooms_.Add(target.room_id)) return absl::ResourceExhaustedError("too many rooms are watched on this core");
    watcher.kind = Kind::kRoom;
    watcher.room_id = std::move(target.room_id);
  } else if (!target.user_ids.empty()) {
    watcher.kind = Kind::kUsers;
    std::sort(target.user_ids.begin(), target.user_ids.end());
    target.user_ids.erase(std::unique(target.user_ids.begin(), target.user_ids.end()), target.user_ids.end());
    if (users_watched_ + target.user_ids.size() > options_.users_watched_max) {
      return absl::ResourceExhaustedError("too many users are watched on this core");
    }
    watcher.user_ids = std::move(target.user_ids);
  }
  watcher.id = WatcherId(++last_id_);
  watchers_.emplace(watcher.id, std::move(added));
  Register(watcher);
  if (watcher.kind != Kind::kRoom && CanResume(target.resume_version)) {
    watcher.source = Source::kLog;
    watcher.resume_version = target.resume_version;
    wait_for_log_.push_back(watcher.id);
  } else {
    StartSnapshot(watcher);
  }
  return watcher.id;
}

void Watches::Register(Watcher& watcher) {
  switch (watcher.kind) {
    case Kind::kUsers:
      for (const std::string& user_id : watcher.user_ids) by_user_[user_id].push_back(&watcher);
      users_watched_ += watcher.user_ids.size();
      break;
    case Kind::kRoom:
      by_room_[watcher.room_id].push_back(&watcher);
      break;
    case Kind::kEveryone:
      everyone_.push_back(&watcher);
      break;
  }
}

void Watches::Unregister(Watcher& watcher) {
  switch (watcher.kind) {
    case Kind::kUsers:
      for (const std::string& user_id : watcher.user_ids) Erase(by_user_, user_id, watcher);
      users_watched_ -= watcher.user_ids.size();
      break;
    case Kind::kRoom:
      Erase(by_room_, watcher.room_id, watcher);
      if (!by_room_.contains(watcher.room_id)) {
        const auto members = rooms_.Members(watcher.room_id);
        for (const std::string& user_id : *members) ForgetMember(watcher.room_id, user_id);
      }
      rooms_.Remove(watcher.room_id);
      break;
    case Kind::kEveryone:
      Erase(everyone_, watcher);
      break;
  }
}

void Watches::Close(WatcherId id) {
  Watcher* watcher = Find(id);
  if (watcher == nullptr) {
    ended_.erase(id);
    return;
  }
  Unregister(*watcher);
  Unreserve(*watcher);
  rows_waiting_ -= watcher->queue.size();
  watchers_.erase(id);
}

void Watches::End(Watcher& watcher, const absl::Status& why, bool slow) {
  const WatcherId id = watcher.id;
  const Ended ended{watcher.reader, why, slow};
  Close(id);
  ended_.emplace(id, ended);
}

void Watches::EndAll(std::vector<Watcher*> watchers, const absl::Status& why) {
  for (Watcher* watcher : watchers) End(*watcher, why);
}

void Watches::Shutdown(const absl::Status& why) {
  shut_down_ = why;
  while (!watchers_.empty()) End(*watchers_.begin()->second, why);
}

// -------------------------------------------------------------------------------------------------------- changes

void Watches::OnPresenceChanged(Now now, const PresenceChange& change) {
  if (watchers_.empty()) return;
  now_ = now.steady;
  if (const auto found = versions_.find(change.user_id); found != versions_.end()) {
    if (change.version < found->second.read) return;
  }
  if (reads_ != 0) NoteVersions(change.user_id, /*heard=*/change.version, /*read=*/0);
  PresenceRow row;  // made for the first who needs it
  const auto made = [&]() -> const PresenceRow& {
    if (!row) {
      row = std::make_shared<const StoredPresence>(StoredPresence{
          std::string(change.user_id), std::string(change.username), change.status, change.changed_ms, change.version});
    }
    return row;
  };
  const auto tell = [&](const std::vector<Watcher*>& watchers) {
    for (Watcher* watcher : watchers) Enqueue(*watcher, made());
  };
  for (const std::weak_ptr<Log>& weak : logs_) {
    const std::shared_ptr<Log> log = weak.lock();
    if (log == nullptr) continue;
    const auto place = log->place.find(change.user_id);
    if (place == log->place.end()) continue;
    // Or a slow reader would be told the older one behind this.
    const size_t at = place->second;
    log->place.erase(place);
    log->rows[at] = made();
    log->place.emplace(std::string_view(log->rows[at]->user_id), at);
  }
  tell(everyone_);
  if (const auto found = by_user_.find(change.user_id); found != by_user_.end()) tell(found->second);
  if (const auto found = rooms_of_user_.find(change.user_id); found != rooms_of_user_.end()) {
    for (const std::string& room_id : found->second) {
      if (const auto watchers = by_room_.find(room_id); watchers != by_room_.end()) tell(watchers->second);
    }
  }
}

void Watches::NoteVersions(std::string_view user_id, uint64_t heard, uint64_t read) {
  Versions& versions = versions_[user_id];
  versions.heard = std::max(versions.heard, heard);
  versions.read = std::max(versions.read, read);
  if (std::exchange(versions.at, now_) != now_) versions_in_order_.push_back({now_, std::string(user_id)});
}

void Watches::ForgetOldVersions() {
  while (!versions_in_order_.empty() && now_ - versions_in_order_.front().at > kVersionsKept) {
    const VersionNoted& oldest = versions_in_order_.front();
    const auto found = versions_.find(oldest.user_id);
    if (found != versions_.end() && found->second.at == oldest.at) versions_.erase(found);
    versions_in_order_.pop_front();
  }
}

void Watches::Enqueue(Watcher& watcher, const PresenceRow& row, bool left) {
  if (watcher.over_bound) return;
  const size_t before = watcher.queue.size();
  if (left) {
    watcher.queue.AddLeft(row);
  } else {
    watcher.queue.Add(row);
  }
  rows_waiting_ += watcher.queue.size() - before;
  if (watcher.queue.size() > options_.users_waiting_max) return SendAway(watcher);
  if (rows_waiting_ > options_.rows_waiting_max) {
    MakeRoom(options_.rows_waiting_max - options_.rows_waiting_max / kMadeFree);
  }
  if (!watcher.over_bound) Wake(watcher);
}

// It is ended at the turn's end: the caller may be going through a list in which it is. What it holds goes at once.
void Watches::SendAway(Watcher& watcher) {
  watcher.over_bound = true;
  over_bound_.push_back(watcher.id);
  rows_waiting_ -= watcher.queue.size();
  watcher.queue = {};
  Unreserve(watcher);
}

// Sends away those furthest behind; of those equally far, who came first.
void Watches::MakeRoom(size_t rows_left) {
  std::vector<Watcher*> behind;
  for (const auto& [id, watcher] : watchers_) {
    if (!watcher->queue.empty()) behind.push_back(watcher.get());
  }
  const auto less = [](const Watcher* a, const Watcher* b) {
    return a->queue.size() != b->queue.size() ? a->queue.size() < b->queue.size() : a->id > b->id;
  };
  std::make_heap(behind.begin(), behind.end(), less);
  while (rows_waiting_ > rows_left && !behind.empty()) {
    std::pop_heap(behind.begin(), behind.end(), less);
    SendAway(*behind.back());
    behind.pop_back();
  }
}

void Watches::Wake(Watcher& watcher) {
  if (std::exchange(watcher.ready, true)) return;
  if (!std::exchange(watcher.waking, true)) to_wake_.push_back(watcher.id);
}

WatchUpdate* Watches::Take(WatcherId id, size_t rows_max, size_t bytes_max) {
  update_.presences.clear();
  update_.left_user_ids.clear();
  Watcher* const watcher = Find(id);
  // What it should have been told is missing: nothing is true any more.
  if (watcher == nullptr || watcher->over_bound) return nullptr;
  WatchQueue& queue = watcher->queue;
  rows_waiting_ -= queue.size();
  size_t bytes = 0;
  for (size_t rows = 0; !queue.empty() && rows < rows_max && bytes < bytes_max; ++rows) {
    WatchQueue::Item item = queue.Pop();
    bytes += item.row->user_id.size() + item.row->username.size() + sizeof(StoredPresence);
    if (item.left) {
      update_.left_user_ids.push_back(item.row->user_id);
    } else {
      update_.presences.push_back(std::move(item.row));
    }
  }
  rows_waiting_ += queue.size();
  update_.snapshot = watcher->snapshot && !watcher->first_told;
  update_.snapshot_done =
      !watcher->first_told && watcher->source == Source::kNone && queue.popped() >= watcher->first_end;
  watcher->first_told = watcher->first_told || update_.snapshot_done;
  // What has been heard is told when nothing waits.
  if (watcher->first_told && queue.empty()) {
    watcher->resume_version = std::max(watcher->resume_version, resume_version_);
  }
  update_.resume_version = watcher->resume_version;
  const bool heartbeat = std::exchange(watcher->heartbeat_due, false);
  const bool nothing = bytes == 0 && !update_.snapshot_done && !heartbeat;
  if (nothing) watcher->ready = false;  // before reading on, which may wake it again
  ReadOn(*watcher);
  if (nothing) return nullptr;
  watcher->told_at = now_;
  return &update_;
}

// ----------------------------------------------------------------------------------------------------------- time

void Watches::OnTick(Now now, bool caught_up) {
  now_ = now.steady;
  if (caught_up) {
    const int64_t settled_ms = ToUnixMillis(now.wall) - options_.settle_after.count();
    resume_version_ = std::max(resume_version_, static_cast<uint64_t>(std::max<int64_t>(settled_ms, 0)) * 1000);
  }
  ForgetOldVersions();
  std::erase_if(logs_, [](const std::weak_ptr<Log>& log) { return log.expired(); });
  // While the bus is away nobody but this core would answer, and the others' members would be taken for gone.
  const bool rooms_due = all_rooms_unanswered_ == 0 && now.steady - rooms_asked_at_ >= options_.rooms_every;
  if (caught_up && rooms_due && rooms_.size() != 0) {
    rooms_asked_at_ = now.steady;
    joined_.merge(joined_unread_);
    AskRooms(/*only_new=*/false);
  }
  JudgeRoom();
  if (now.steady - silence_judged_at_ >= kJudgeSilenceEvery) JudgeSilence();
}

void Watches::JudgeSilence() {
  silence_judged_at_ = now_;
  for (auto& [id, watcher] : watchers_) {
    if (!watcher->first_told || watcher->ready || resume_version_ <= watcher->resume_version) continue;
    if (now_ - watcher->told_at < options_.silence_max) continue;
    watcher->heartbeat_due = true;
    Wake(*watcher);
  }
}

void Watches::OnTurnEnd(Now now) {
  now_ = now.steady;
  for (const WatcherId id : std::exchange(over_bound_, {})) {
    Watcher* watcher = Find(id);
    if (watcher == nullptr) continue;
    ++ended_slow_;
    End(*watcher, absl::ResourceExhaustedError("the watcher reads too slowly; watch again, with resume_version"),
        /*slow=*/true);
  }
  if (rooms_added_ && new_rooms_unanswered_ == 0) {
    rooms_added_ = false;
    AskRooms(/*only_new=*/true);
  }
  // A reader that takes all there is may want more at once, and makes room for others.
  do {
    for (const WatcherId id : std::exchange(to_wake_, {})) {
      Watcher* const watcher = Find(id);
      if (watcher == nullptr) continue;
      watcher->waking = false;
      if (watcher->ready) watcher->reader->OnReady();
    }
    LetIn();
  } while (!to_wake_.empty());
  while (!ended_.empty()) {
    const auto ended = ended_.extract(ended_.begin());
    ended.mapped().reader->OnEnded(ended.mapped().why, ended.mapped().slow);
  }
  ReadLog();
  StartReads();
}

}  // namespace presence::core
