// Joins, and typing, of a connection whose token the store has not yet held against the logouts that it keeps. They wait for that one answer, a round trip to
// Redis in the life of a connection: else whoever has a token that was logged out could come again and again, and read for some
// milliseconds each time. A leave behind a join waits with it: both are answered in order. What waits is not acknowledged, so that the shard repeats it after a lost link. While the store is away, or
// refuses, nobody can say, and nobody waits. A shard that does not say where its tokens come from is not held up: its tokens
// cannot be judged by session.
#include <algorithm>
#include <utility>

#include "core/hub_state.h"

namespace presence::core {
namespace {

constexpr uint32_t kUnavailable = 503;
// Of one connection; it is volatile, and the wait is short.
constexpr int kTypingHeldMax = 4;

}  // namespace

void Hub::State::HoldJoin(Link& link, ConnectionIndex index, std::string_view room_id, uint64_t sequence) {
  if (link.joins_waiting.size() >= options_.room_access.joins_per_link_max) {
    ++counters_.joins_unchecked;
    return Refuse(link, sequence, kUnavailable, "Too many subscriptions at once");
  }
  link.joins_waiting.insert(sequence);
  held_joins_[index].push_back({link.id, sequence, std::string(room_id)});
  ledger_.Repeated(index, sequence);  // after a resync it would stand behind all that are merely asserted again
}

void Hub::State::JudgeJoins(Now now, ConnectionIndex index, const WriteResult& result) {
  if (!connections_.records().used(index)) return;
  Connection& connection = connections_[index];
  if (!connection.live || !connection.unjudged) return;
  switch (result.outcome) {
    case WriteResult::Outcome::kRevoked:
    case WriteResult::Outcome::kTooMany:
      return DropJoins(index);  // it is being sent away
    case WriteResult::Outcome::kUnavailable:
      return ReleaseAllJoins(now);  // nobody else's token is judged either, for a second at least
    case WriteResult::Outcome::kApplied:
    case WriteResult::Outcome::kFenced:
      if (connection.dirty) return;  // what was written may be of an older token
      connection.unjudged = false;
      return ReleaseJoins(now, index);
  }
}

void Hub::State::ReleaseAllJoins(Now now) {
  while (!held_joins_.empty()) ReleaseJoins(now, held_joins_.begin()->first);
}

void Hub::State::ReleaseJoins(Now now, ConnectionIndex index) {
  const auto found = held_joins_.find(index);
  if (found == held_joins_.end()) return;
  const std::vector<HeldJoin> joins = std::move(found->second);
  held_joins_.erase(found);
  for (const HeldJoin& join : joins) {
    Link* link = links_.Find(join.link);
    if (link == nullptr) continue;  // repeated by the shard, wherever it is now
    link->joins_waiting.erase(join.sequence);
    switch (join.what) {
      case HeldJoin::What::kJoin:
        Join(now, *link, index, join.room_id, join.sequence);
        break;
      case HeldJoin::What::kLeave:
        Leave(now, *link, index, join.room_id, join.sequence);
        break;
      case HeldJoin::What::kTyping:
        Type(now, *link, index, join.room_id, join.kind);
        break;
    }
  }
}

void Hub::State::DropJoins(ConnectionIndex index) {
  const auto found = held_joins_.find(index);
  if (found == held_joins_.end()) return;
  for (const HeldJoin& join : found->second) {
    if (Link* link = links_.Find(join.link)) link->joins_waiting.erase(join.sequence);
  }
  held_joins_.erase(found);
}

void Hub::State::HoldTyping(Link& link, ConnectionIndex index, const link::v1::TypingStarted& typing) {
  std::vector<HeldJoin>& held = held_joins_[index];
  const auto is_typing = [](const HeldJoin& one) { return one.what == HeldJoin::What::kTyping; };
  if (std::count_if(held.begin(), held.end(), is_typing) >= kTypingHeldMax) {
    ++counters_.typing_unchecked;
    return;
  }
  held.push_back({link.id, 0, typing.room_id(), HeldJoin::What::kTyping, typing.kind()});
}

bool Hub::State::HoldLeave(Link& link, ConnectionIndex index, std::string_view room_id, uint64_t sequence) {
  const auto found = held_joins_.find(index);
  if (found == held_joins_.end()) return false;
  const bool behind_join = std::any_of(found->second.begin(), found->second.end(), [&](const HeldJoin& held) {
    return held.link == link.id && held.room_id == room_id;
  });
  if (!behind_join) return false;
  if (link.joins_waiting.size() >=
      2 * options_.room_access.joins_per_link_max) {  // a client that goes in and out without end
    std::erase_if(found->second, [&](const HeldJoin& held) {
      if (held.link != link.id || held.room_id != room_id) return false;
      link.joins_waiting.erase(held.sequence);
      if (held.what == HeldJoin::What::kJoin) Refuse(link, held.sequence, 0, {});
      return true;
    });
    return false;
  }
  link.joins_waiting.insert(sequence);
  found->second.push_back({link.id, sequence, std::string(room_id), HeldJoin::What::kLeave});
  return true;
}

}  // namespace presence::core
