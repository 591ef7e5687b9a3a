// MemoryDatabase: who is not let in, and logouts. The steps of keep_logout.lua, and of the part of presence_transition.lua that judges.
#include <algorithm>
#include <set>
#include <string>
#include <utility>

#include "core/logout_name.h"
#include "core/memory_database.h"

namespace presence::core {

using link::v1::STATUS_OFFLINE;
using link::v1::STATUS_UNSPECIFIED;

std::optional<WriteResult> MemoryDatabase::Refuse(const StoreOptions& options, Time now, const PresenceWrite& write,
                                                  std::string_view name, bool revoked) const {
  using Kind = PresenceWrite::Kind;
  static const User kNobody;
  const auto found = users_.find(write.user_id);
  const User& user = found == users_.end() ? kNobody : found->second;
  const auto because = [&user](WriteResult::Outcome why) {
    return WriteResult{why, std::max(user.status, STATUS_OFFLINE), user.version};
  };

  const auto entry = user.entries.find(name);
  const bool tombstone = entry != user.entries.end() && entry->second.status == STATUS_UNSPECIFIED;
  const bool known = entry != user.entries.end() && !tombstone;
  if (known || (tombstone && entry->second.deadline_ms > now.ms)) {
    // A shard never opens a closed connection again: what is of the attach that has closed it is late.
    const bool closed = tombstone || entry->second.lingers;
    const bool late = closed && !IsEnd(write.kind) && entry->second.attach == write.attach;
    if (entry->second.attach > write.attach || late) return because(WriteResult::Outcome::kFenced);
  }
  // What is there ends, and so does what a reassert says to have been there; of anything else there is nothing to end.
  if (revoked && write.kind == Kind::kAssert && !known) return because(WriteResult::Outcome::kRevoked);
  const bool limited = options.connections_per_user_max > 0 && write.newcomer && !IsEnd(write.kind);
  if (limited && !revoked && !known &&
      LiveEntries(user, now, Quiet(options, now)) >= options.connections_per_user_max) {
    return because(WriteResult::Outcome::kTooMany);
  }
  return std::nullopt;
}

bool MemoryDatabase::LoggedOut(const PresenceWrite& write) const {
  const auto covers = [&](const Logout& logout) {
    const auto kept = texts_.find("revoked:" + LogoutName(logout));
    return kept != texts_.end() && write.issued_at_ms <= std::stoll(kept->second);
  };
  return covers({write.user_id, {}}) || (!write.session_id.empty() && covers({{}, write.session_id}));
}

size_t MemoryDatabase::LiveEntries(const User& user, Time now, bool quiet) {
  return static_cast<size_t>(std::count_if(user.entries.begin(), user.entries.end(), [&](const auto& item) {
    return item.second.status != STATUS_UNSPECIFIED && !item.second.lingers &&
           (quiet || item.second.deadline_ms > now.ms);
  }));
}

std::string MemoryDatabase::FirstToMakeWay(const User& user) {
  const std::pair<const std::string, Entry>* found = nullptr;
  for (const auto& item : user.entries) {  // by name
    if (item.second.lingers && (found == nullptr || item.second.status < found->second.status)) found = &item;
  }
  return found == nullptr ? std::string() : found->first;
}

void MemoryDatabase::KeepLogout(const StoreOptions& options, const Logout& logout) {
  DropLapsed();
  const Time now = ReadClock();
  const std::string name = LogoutName(logout), key = "revoked:" + name;
  const auto kept = texts_.find(key);
  if (kept == texts_.end() || std::stoll(kept->second) < logout.logged_out_at_ms) {
    texts_[key] = std::to_string(logout.logged_out_at_ms);
    SetExpiry(key, now.ms + std::chrono::milliseconds(options.logout_lifetime).count());
  }
  logouts_[name] = now.us;
  const auto log_lifetime = std::chrono::microseconds(options.change_log_lifetime).count();
  std::erase_if(logouts_, [horizon = now.us - static_cast<uint64_t>(log_lifetime)](const auto& item) {
    return item.second < horizon;
  });
}

LogoutLog MemoryDatabase::ReadLogouts(const StoreOptions& options, std::chrono::milliseconds within) {
  const uint64_t since = ReadClock().us - static_cast<uint64_t>(std::chrono::microseconds(within).count());
  std::set<std::pair<uint64_t, std::string>> in_order;
  for (const auto& [name, kept_us] : logouts_) {
    if (kept_us >= since) in_order.emplace(kept_us, name);
  }
  LogoutLog log;
  log.complete = within <= options.change_log_lifetime && in_order.size() <= Store::kLogoutsMax;
  if (in_order.size() > Store::kLogoutsMax) return log;
  for (const auto& [kept_us, name] : in_order) {
    if (auto logout = ParseLogoutName(name); logout) log.logouts.push_back(*std::move(logout));
  }
  return log;
}

}  // namespace presence::core
