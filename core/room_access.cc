#include "core/room_access.h"

#include <algorithm>

#include "common/check.h"

namespace presence::core {
namespace {

// Looks at so many rows that end soonest for one that serves nobody. Refusals live shortest, so they are among the first.
constexpr int kSpaceLooksMax = 64;
// Of one call: some milliseconds.
constexpr int kDueLooksMax = 5'000;
// What a backend may say of the lifetime of its answer: neither a question per frame nor one that is never asked again.
constexpr std::chrono::milliseconds kCacheForMin{1'000}, kCacheForMax{3'600'000};

}  // namespace

RoomAccess::Pair RoomAccess::PairOf(const std::string& key) {
  const size_t nul = key.find('\0');
  return {std::string_view(key).substr(0, nul), std::string_view(key).substr(nul + 1)};
}

std::optional<RoomRight> RoomAccess::Fresh(SteadyTime now, Pair pair) const {
  const auto row = rows_.find(KeyOf(pair));
  if (row == rows_.end() || !row->second.known || now >= row->second.fresh_until) return std::nullopt;
  return row->second.right;
}

std::optional<RoomRight> RoomAccess::LastKnown(Pair pair) const {
  const auto row = rows_.find(KeyOf(pair));
  if (row == rows_.end() || !row->second.known) return std::nullopt;
  return row->second.right;
}

bool RoomAccess::Wait(SteadyTime now, Pair pair, const WaitingJoin& join) {
  if (joins_ >= options_.joins_max) return false;
  const auto row = FindOrAdd(now, pair, /*in_use=*/false);
  if (row == rows_.end()) return false;
  row->second.joins.push_back(join);
  ++joins_;
  if (row->second.question == 0) Ask(row, /*check=*/false);
  return true;
}

bool RoomAccess::AskNow(SteadyTime now, Pair pair) {
  const auto row = FindOrAdd(now, pair, /*in_use=*/false);
  if (row == rows_.end()) return false;
  if (row->second.question == 0) Ask(row, /*check=*/false);
  return true;
}

void RoomAccess::Check(SteadyTime now, Pair pair) {
  const auto row = FindOrAdd(now, pair, /*in_use=*/true);
  // One that is known is due when it ends, and one that is asked has its answer coming.
  if (row->second.question == 0 && !row->second.known) SetDue(row, now);
}

std::vector<WaitingJoin> RoomAccess::Cancel(Pair pair, const WaitingJoin& leave) {
  std::vector<WaitingJoin> cancelled;
  if (joins_ == 0) return cancelled;
  const auto row = rows_.find(KeyOf(pair));
  if (row == rows_.end()) return cancelled;
  std::erase_if(row->second.joins, [&](const WaitingJoin& join) {
    if (join.connection.index != leave.connection.index) return false;
    if (join.link == leave.link && join.sequence > leave.sequence) return false;
    cancelled.push_back(join);
    return true;
  });
  joins_ -= cancelled.size();
  return cancelled;
}

std::optional<RoomAccess::Verdict> RoomAccess::OnAnswer(SteadyTime now, uint64_t question, const RoomAnswer& answer) {
  const auto found = questions_.find(question);
  if (found == questions_.end()) return std::nullopt;
  const auto at = found->second;
  Row& row = at->second;
  EndQuestion(row);
  const Pair pair = PairOf(at->first);
  Verdict verdict{std::string(pair.user_id), std::string(pair.room_id), answer, false, std::move(row.joins)};
  row.joins.clear();
  joins_ -= verdict.joins.size();
  if (answer.outcome == RoomAnswer::Outcome::kAnswered) {
    const bool denied = answer.right == RoomRight::kNone;
    const auto lifetime = answer.cache_for.count() != 0 ? std::clamp(answer.cache_for, kCacheForMin, kCacheForMax)
                          : denied                      ? std::min(options_.denied, options_.cache)
                                                        : options_.cache;
    row.known = true;
    row.right = answer.right;
    row.fresh_until = now + lifetime;
    verdict.lost = denied;
    SetDue(at, row.fresh_until);
  } else {
    if (now >= row.fresh_until + options_.grace) {
      verdict.lost = true;
      row.known = false;
    }
    SetDue(at, now + options_.retry);
  }
  return verdict;
}

void RoomAccess::AskDue(SteadyTime now) {
  for (int looks = 0; looks < kDueLooksMax && checks_ < options_.checks_max; ++looks) {
    if (due_.empty() || due_.begin()->first.first > now) return;
    const auto row = due_.begin()->second;
    if (IsInRoom(PairOf(row->first))) {
      Ask(row, /*check=*/true);
    } else {
      Erase(row);
    }
  }
}

size_t RoomAccess::Forget(SteadyTime now, Pair pair) {
  size_t forgotten = 0;
  auto at = pair.user_id.empty() ? rows_.begin() : rows_.lower_bound(KeyOf({pair.user_id, {}}));
  for (; at != rows_.end(); ++at) {
    const Pair of = PairOf(at->first);
    if (!pair.user_id.empty() && of.user_id != pair.user_id) break;
    if (!pair.room_id.empty() && of.room_id != pair.room_id) continue;
    Row& row = at->second;
    forgotten += row.known ? 1 : 0;
    row.known = false;
    row.fresh_until = now;
    // What is under way may have been looked up before what has changed: its answer does not count. Whoever waits for it waits on.
    const bool asked = row.question != 0;
    if (asked) EndQuestion(row);
    if (asked && !row.joins.empty()) {
      Ask(at, /*check=*/false);
    } else {
      SetDue(at, now);
    }
  }
  return forgotten;
}

RoomAccess::Rows::iterator RoomAccess::FindOrAdd(SteadyTime now, Pair pair, bool in_use) {
  std::string key = KeyOf(pair);
  if (const auto found = rows_.find(key); found != rows_.end()) return found;
  if (!in_use && !MakeSpace()) return rows_.end();
  const auto row = rows_.try_emplace(std::move(key)).first;
  row->second.number = ++last_row_;
  row->second.fresh_until = now;
  return row;
}

bool RoomAccess::MakeSpace() {
  if (rows_.size() < options_.rows_max + rooms_.memberships()) return true;
  auto at = due_.begin();
  for (int looks = 0; looks < kSpaceLooksMax && at != due_.end(); ++looks, ++at) {
    if (IsInRoom(PairOf(at->second->first))) continue;
    Erase(at->second);
    return true;
  }
  return false;
}

bool RoomAccess::IsInRoom(Pair pair) const {
  const User* user = connections_.FindUser(pair.user_id);
  if (user == nullptr) return false;
  ConnectionIndex device = user->first_live;
  while (device != kNoConnection && !connections_.InRoom(device, pair.room_id)) {
    device = connections_[device].next_of_user;
  }
  return device != kNoConnection;
}

void RoomAccess::Erase(Rows::iterator row) {
  due_.erase({row->second.due, row->second.number});
  rows_.erase(row);
}

void RoomAccess::SetDue(Rows::iterator row, SteadyTime at) {
  due_.erase({row->second.due, row->second.number});
  row->second.due = at;
  due_.emplace(std::pair(at, row->second.number), row);
}

void RoomAccess::Ask(Rows::iterator at, bool check) {
  Row& row = at->second;
  PRESENCE_CHECK(row.question == 0, "a pair is asked about once at a time");
  due_.erase({row.due, row.number});
  row.question = ++last_question_;
  row.check = check;
  checks_ += check ? 1 : 0;
  questions_.emplace(row.question, at);
  const Pair pair = PairOf(at->first);
  const User* user = connections_.FindUser(pair.user_id);
  const std::string_view username = user == nullptr ? std::string_view() : std::string_view(user->username);
  authorizer_->Ask({row.question, pair.user_id, username, pair.room_id});
}

void RoomAccess::EndQuestion(Row& row) {
  questions_.erase(row.question);
  checks_ -= row.check ? 1 : 0;
  row.question = 0;
  row.check = false;
}

}  // namespace presence::core
