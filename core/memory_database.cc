#include "core/memory_database.h"

#include <algorithm>
#include <utility>

#include "common/connection_id.h"
#include "core/presence_text.h"

namespace presence::core {
namespace {

using link::v1::STATUS_OFFLINE;
using link::v1::STATUS_UNSPECIFIED;

// See presence_transition.lua.
constexpr size_t kTombstonesMax = 64;

std::string PresenceKey(std::string_view user_id) {
  return std::string("presence:").append(user_id);
}
std::string UserKey(std::string_view user_id) {
  return std::string("presence.user:").append(user_id);
}

uint64_t ToMicroseconds(std::chrono::milliseconds duration) {
  return static_cast<uint64_t>(std::chrono::microseconds(duration).count());
}

}  // namespace

MemoryDatabase::MemoryDatabase(std::function<WallTime()> clock) : clock_(std::move(clock)) {}

MemoryDatabase::Time MemoryDatabase::ReadClock() const {
  const auto us = std::chrono::floor<std::chrono::microseconds>(clock_().time_since_epoch()).count();
  return Time{static_cast<uint64_t>(us), us / 1000};
}

bool MemoryDatabase::Quiet(const StoreOptions& options, Time now) const {
  return !sweep_ || sweep_->run != run_ || now.ms - sweep_->at_ms > options.sweep_gap_max.count() ||
         now.ms < sweep_->quiet_until_ms;
}

// Where no sweep has noticed yet that the store must be quiet, the next one will.
int64_t MemoryDatabase::QuietUntil(const StoreOptions& options, Time now) const {
  if (sweep_ && now.ms < sweep_->quiet_until_ms) return sweep_->quiet_until_ms;
  return now.ms + options.quiet_period.count();
}

MemoryDatabase::RoomSet MemoryDatabase::RoomsOf(const User& user) {
  RoomSet rooms;
  for (const auto& [name, entry] : user.entries) rooms.insert(entry.room_ids.begin(), entry.room_ids.end());
  return rooms;
}

void MemoryDatabase::DropExpired(Time now, bool quiet, User* user) {
  std::erase_if(user->entries, [&](const auto& item) {
    const bool tombstone = item.second.status == STATUS_UNSPECIFIED;
    return item.second.deadline_ms <= now.ms && (tombstone || !quiet);
  });
  if (!quiet && user->held_until_ms <= now.ms) {
    user->held = STATUS_UNSPECIFIED;
    user->held_until_ms = 0;
  }
}

// Makes room for the tombstone of connection `added`, or, when that is empty, for none: the earliest to end go.
void MemoryDatabase::BoundTombstones(User* user, std::string_view added) {
  std::vector<std::pair<int64_t, std::string>> tombstones;
  for (const auto& [name, entry] : user->entries) {
    if (entry.status == STATUS_UNSPECIFIED && name != added) tombstones.emplace_back(entry.deadline_ms, name);
  }
  const size_t kept = kTombstonesMax - (added.empty() ? 0 : 1);
  if (tombstones.size() <= kept) return;
  std::sort(tombstones.begin(), tombstones.end());
  tombstones.resize(tombstones.size() - kept);
  for (const auto& [deadline_ms, name] : tombstones) user->entries.erase(name);
}

WriteResult MemoryDatabase::Write(const StoreOptions& options, const PresenceWrite& write) {
  DropLapsed();
  const Time now = ReadClock();
  const std::string name = ConnectionName(write.key.incarnation, write.key.connection);
  const bool quiet = Quiet(options, now);
  const bool told = write.kind != PresenceWrite::Kind::kAssert;
  const bool ends = IsEnd(write.kind);
  const bool revoked = !ends && LoggedOut(write);
  if (const std::optional<WriteResult> refused = Refuse(options, now, write, name, revoked)) return *refused;

  User& user = users_[std::string(write.user_id)];
  const auto old = user.entries.find(name);
  const bool known = old != user.entries.end() && old->second.status != STATUS_UNSPECIFIED;
  const bool lingers =
      write.kind == PresenceWrite::Kind::kLinger && known && (quiet || old->second.deadline_ms > now.ms);
  const bool removal = revoked || (ends && !lingers);
  const RoomSet rooms_before = RoomsOf(user);
  Status previous = user.status;
  // The caller knows of a later change than the store does: that one was published, and is lost here.
  const bool lost = write.previous_status != STATUS_UNSPECIFIED && write.previous_version > user.version;
  if (told && (previous == STATUS_UNSPECIFIED || lost)) previous = write.previous_status;
  if (told) user.version = std::max(user.version, write.previous_version);

  DropExpired(now, quiet, &user);
  const bool makes_way = write.newcomer && !ends && !known && !revoked;
  const std::string replaced = makes_way ? FirstToMakeWay(user) : std::string();
  BoundTombstones(&user, removal && !revoked ? std::string_view(name) : std::string_view(replaced));
  if (!replaced.empty()) {
    Entry& entry = user.entries[replaced];
    entry = Entry{entry.attach, now.ms + options.tombstone_lifetime.count(), STATUS_UNSPECIFIED, false, {}};
  }
  if (revoked) {  // without a tombstone, see presence_transition.lua
    user.entries.erase(name);
  } else {
    Entry& entry = user.entries[name];
    entry.attach = write.attach;
    entry.lingers = lingers;
    const std::chrono::milliseconds lifetime = removal   ? options.tombstone_lifetime
                                               : lingers ? write.linger_for
                                                         : options.entry_lifetime - write.silent_for;
    entry.deadline_ms = now.ms + lifetime.count();
    if (!lingers) {
      entry.status = removal ? STATUS_UNSPECIFIED : write.status;
      entry.room_ids.clear();
      if (!removal) entry.room_ids.insert(write.room_ids.begin(), write.room_ids.end());
    }
  }
  if (!write.username.empty()) user.username = write.username;
  if (user.connection_name.empty()) user.connection_name = name;
  user.last_seen_ms = std::max(user.last_seen_ms, now.ms - write.silent_for.count());

  const bool expected = write.kind == PresenceWrite::Kind::kLinger;
  if (((write.kind == PresenceWrite::Kind::kReassert && !removal) || expected) && quiet) {
    Status derived = std::max(user.held, STATUS_OFFLINE);
    for (const auto& [other, live] : user.entries) derived = std::max(derived, live.status);
    if (derived < previous) {
      user.held = previous;
      user.held_until_ms = QuietUntil(options, now);
    }
  }
  WriteResult result = Settle(options, now, write.user_id, &user, previous, rooms_before);
  if (revoked) result.outcome = WriteResult::Outcome::kRevoked;
  return result;
}

// Derives the user's status from the entries, writes down what follows from it, and publishes.
WriteResult MemoryDatabase::Settle(const StoreOptions& options, Time now, std::string_view user_id, User* user,
                                   Status previous, const RoomSet& rooms_before) {
  Status derived = STATUS_OFFLINE;
  for (const auto& [name, entry] : user->entries) {
    if (entry.status > derived) {
      derived = entry.status;
      user->connection_name = name;
    }
  }
  if (derived >= user->held) {
    user->held = STATUS_UNSPECIFIED;
    user->held_until_ms = 0;
  }
  const Status status = std::max(derived, user->held);
  const bool changed = status != std::max(previous, STATUS_OFFLINE);
  const bool restored = !changed && previous != STATUS_UNSPECIFIED && user->status != status;
  if (changed) {
    user->version = std::max(user->version + 1, now.us);
    user->changed_ms = now.ms;
  } else if (restored) {
    user->changed_ms = static_cast<int64_t>(user->version / 1000);
  }
  if (changed || restored) {
    user->status = status;
    if (status == STATUS_OFFLINE) {
      online_.erase(std::string(user_id));
    } else {
      online_.emplace(user_id);
    }
    uint64_t& logged = changes_[std::string(user_id)];
    changes_in_order_.erase({logged, std::string(user_id)});
    logged = user->version;
    changes_in_order_.emplace(logged, user_id);
  }
  if (user->status != STATUS_UNSPECIFIED) StorePresenceText(options, now, user_id, *user);
  SetDeadline(user_id, *user);
  std::optional<int64_t> expires_ms;  // a user with nothing that can end is gone; the version is kept for a while
  if (!deadlines_.contains(user_id)) {
    expires_ms = now.ms + std::chrono::milliseconds(options.change_log_lifetime).count();
  }
  SetExpiry(UserKey(user_id), expires_ms);

  RoomSet rooms = RoomsOf(*user);
  if (changed) {
    rooms.insert(rooms_before.begin(), rooms_before.end());
    PublishChange(user_id, *user, rooms);
    Distribute({BusChannel::kPresenceUpdates,
                {},
                FormatPresenceUpdate(options.core_incarnation, Present(user_id, *user), user->changed_ms)});
  } else {
    std::erase_if(rooms, [&](const std::string& room) { return rooms_before.contains(room); });
    if (!rooms.empty()) PublishChange(user_id, *user, rooms);
  }
  return WriteResult{WriteResult::Outcome::kApplied, status, user->version};
}

bool MemoryDatabase::Refresh(const StoreOptions& options, const RefreshEntry& refresh) {
  DropLapsed();
  const Time now = ReadClock();
  const auto found = users_.find(refresh.user_id);
  if (found == users_.end()) return false;
  User& user = found->second;
  const auto item = user.entries.find(ConnectionName(refresh.key.incarnation, refresh.key.connection));
  if (item == user.entries.end()) return false;
  Entry& entry = item->second;
  if (entry.status == STATUS_UNSPECIFIED || entry.lingers || entry.attach > refresh.attach) return false;
  if (entry.deadline_ms <= now.ms && !Quiet(options, now)) return false;
  entry.attach = refresh.attach;
  entry.deadline_ms = now.ms + options.entry_lifetime.count();
  if (refresh.pinged) user.last_seen_ms = std::max(user.last_seen_ms, now.ms);
  SetDeadline(refresh.user_id, user);
  if (refresh.pinged || !texts_.contains(PresenceKey(refresh.user_id))) {
    StorePresenceText(options, now, refresh.user_id, user);
  } else {
    SetExpiry(PresenceKey(refresh.user_id), now.ms + std::chrono::milliseconds(options.presence_ttl).count());
  }
  return true;
}

int MemoryDatabase::Sweep(const StoreOptions& options, int users_max) {
  DropLapsed();
  const Time now = ReadClock();
  SweepState next = sweep_.value_or(SweepState{});
  if (!sweep_ || sweep_->run != run_) {
    next.began_us = now.us;
    next.quiet_until_ms = now.ms + options.quiet_period.count();
  } else if (now.ms - sweep_->at_ms > options.sweep_gap_max.count()) {
    next.quiet_until_ms = now.ms + options.quiet_period.count();
  }
  next.at_ms = now.ms;
  next.run = run_;
  sweep_ = next;

  const uint64_t horizon = now.us - ToMicroseconds(options.change_log_lifetime);
  while (!changes_in_order_.empty() && changes_in_order_.begin()->first < horizon) {
    changes_.erase(changes_in_order_.begin()->second);
    changes_in_order_.erase(changes_in_order_.begin());
  }
  if (now.ms < next.quiet_until_ms) return 0;

  for (int i = 0; i < users_max; ++i) {
    if (deadlines_in_order_.empty() || deadlines_in_order_.begin()->first > now.ms) return i;
    const std::string user_id = deadlines_in_order_.begin()->second;
    User& user = users_.at(user_id);
    const RoomSet rooms_before = RoomsOf(user);
    DropExpired(now, /*quiet=*/false, &user);
    Settle(options, now, user_id, &user, user.status, rooms_before);
  }
  return users_max;
}

void MemoryDatabase::SetTyping(const StoreOptions& options, std::string_view room_id, std::string_view user_id,
                               std::string_view username) {
  DropLapsed();
  const std::string key = std::string("typing:").append(room_id).append(":").append(user_id);
  texts_[key] = username;
  SetExpiry(key, ReadClock().ms + std::chrono::milliseconds(options.typing_ttl).count());
}

StoredPresence MemoryDatabase::GetPresence(std::string_view user_id) {
  DropLapsed();
  const auto text = texts_.find(PresenceKey(user_id));
  return ParsePresenceEntry(user_id, text == texts_.end() ? std::string_view() : text->second);
}

PresencePage MemoryDatabase::ListPresence(std::string_view after_user_id, uint32_t limit) {
  PresencePage page;
  for (auto user = online_.upper_bound(after_user_id); user != online_.end(); ++user) {
    if (page.users.size() == limit) {
      page.more = true;
      break;
    }
    StoredPresence presence = GetPresence(*user);  // without a readable text: offline
    if (presence.status != STATUS_OFFLINE) page.users.push_back(std::move(presence));
  }
  return page;
}

ChangeLog MemoryDatabase::ReadChanges(const StoreOptions& options, uint64_t since_version) {
  DropLapsed();
  const uint64_t horizon = ReadClock().us - ToMicroseconds(options.change_log_lifetime);
  ChangeLog log;
  log.complete = sweep_ && since_version >= std::max(horizon, sweep_->began_us);
  const auto add = [&](std::string_view user_id) {
    StoredChange& change = log.changes.emplace_back();
    const auto found = users_.find(user_id);
    if (found == users_.end()) {
      change.presence.user_id = user_id;
      change.presence.version = changes_.find(user_id)->second;
      change.changed_ms = static_cast<int64_t>(change.presence.version / 1000);
      return;
    }
    change.presence = Present(user_id, found->second);
    change.changed_ms = found->second.changed_ms;
    const RoomSet rooms = RoomsOf(found->second);
    change.room_ids.assign(rooms.begin(), rooms.end());
  };
  std::set<std::string_view> logged;
  for (auto it = changes_in_order_.lower_bound({since_version, ""}); it != changes_in_order_.end(); ++it) {
    add(it->second);
    logged.insert(it->second);
  }
  if (log.complete) return log;
  for (const std::string& user_id : online_) {
    if (!logged.contains(user_id)) add(user_id);
  }
  return log;
}

void MemoryDatabase::RestartAs(const MemoryDatabase& copy) {
  const uint64_t run = run_ + 1;
  std::vector<BusSubscriber*> subscribers = std::move(subscribers_);
  *this = copy;
  run_ = run;
  subscribers_ = std::move(subscribers);
}

void MemoryDatabase::Wipe() {
  ++run_;
  users_.clear();
  deadlines_.clear();
  deadlines_in_order_.clear();
  online_.clear();
  changes_.clear();
  changes_in_order_.clear();
  sweep_.reset();
  texts_.clear();
  rooms_.clear();
  logs_.clear();
  data_since_us_ = 0;
  cores_.clear();
  logouts_.clear();
  expiries_.clear();
  expiries_in_order_.clear();
}

void MemoryDatabase::SetPresenceText(std::string_view user_id, std::string_view text) {
  texts_[PresenceKey(user_id)] = text;
  SetExpiry(PresenceKey(user_id), std::nullopt);
}

std::vector<std::string> MemoryDatabase::DropLapsed() {
  std::vector<std::string> lapsed;
  const int64_t now_ms = ReadClock().ms;
  while (!expiries_in_order_.empty() && expiries_in_order_.begin()->first <= now_ms) {
    std::string key = expiries_in_order_.begin()->second;
    expiries_in_order_.erase(expiries_in_order_.begin());
    expiries_.erase(key);
    if (texts_.erase(key) == 0 && !DropRoomKey(key)) users_.erase(key.substr(UserKey({}).size()));
    lapsed.push_back(std::move(key));
  }
  return lapsed;
}

std::optional<int64_t> MemoryDatabase::Ttl(std::string_view key) {
  DropLapsed();
  const auto expiry = expiries_.find(key);
  if (expiry == expiries_.end()) return std::nullopt;
  return (expiry->second - ReadClock().ms) / 1000;
}

void MemoryDatabase::StorePresenceText(const StoreOptions& options, Time now, std::string_view user_id,
                                       const User& user) {
  const std::string key = PresenceKey(user_id);
  texts_[key] = FormatPresenceEntry(Present(user_id, user), user.connection_name);
  SetExpiry(key, now.ms + std::chrono::milliseconds(options.presence_ttl).count());
}

void MemoryDatabase::PublishChange(std::string_view user_id, const User& user, const RoomSet& rooms) {
  Publication publication;
  link::v1::PresenceChanged& change = *publication.envelope.mutable_presence_changed();
  change.set_user_id(user_id.data(), user_id.size());
  change.set_username(user.username);
  change.set_status(user.status);
  change.set_version(user.version);
  change.set_changed_ms(user.changed_ms);
  for (const std::string& room : rooms) change.add_room_ids(room);
  Distribute(std::move(publication));
}

void MemoryDatabase::SetDeadline(std::string_view user_id, const User& user) {
  std::optional<int64_t> earliest;
  const auto consider = [&](int64_t deadline_ms) { earliest = std::min(earliest.value_or(deadline_ms), deadline_ms); };
  for (const auto& [name, entry] : user.entries) {
    if (entry.status != STATUS_UNSPECIFIED) consider(entry.deadline_ms);
  }
  if (user.held != STATUS_UNSPECIFIED) consider(user.held_until_ms);

  const auto old = deadlines_.find(user_id);
  if (old != deadlines_.end()) {
    deadlines_in_order_.erase({old->second, old->first});
    deadlines_.erase(old);
  }
  if (earliest) {
    deadlines_.emplace(user_id, *earliest);
    deadlines_in_order_.emplace(*earliest, user_id);
  }
}

void MemoryDatabase::SetExpiry(const std::string& key, std::optional<int64_t> expires_ms) {
  if (const auto old = expiries_.find(key); old != expiries_.end()) {
    expiries_in_order_.erase({old->second, key});
    expiries_.erase(old);
  }
  if (!expires_ms) return;
  expiries_.emplace(key, *expires_ms);
  expiries_in_order_.emplace(*expires_ms, key);
}

StoredPresence MemoryDatabase::Present(std::string_view user_id, const User& user) const {
  return StoredPresence{std::string(user_id), user.username, std::max(user.status, STATUS_OFFLINE), user.last_seen_ms,
                        user.version};
}

}  // namespace presence::core
