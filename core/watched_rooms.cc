#include "core/watched_rooms.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "common/check.h"

namespace presence::core {

bool WatchedRooms::Add(std::string_view room_id) {
  auto found = rooms_.find(room_id);
  if (found == rooms_.end()) {
    if (rooms_.size() >= limits_.rooms_max) return false;
    found = rooms_.emplace(room_id, Room()).first;
    found->second.added_after = last_query_;
  }
  ++found->second.watchers;
  return true;
}

void WatchedRooms::Remove(std::string_view room_id) {
  const auto found = rooms_.find(room_id);
  PRESENCE_CHECK(found != rooms_.end(), "a watched room is there");
  if (--found->second.watchers == 0) rooms_.erase(found);
}

bool WatchedRooms::Known(std::string_view room_id) const {
  const auto found = rooms_.find(room_id);
  return found != rooms_.end() && found->second.known;
}

std::shared_ptr<const std::vector<std::string>> WatchedRooms::Members(std::string_view room_id) const {
  const auto found = rooms_.find(room_id);
  PRESENCE_CHECK(found != rooms_.end(), "a watched room is there");
  const Room& room = found->second;
  if (room.sorted == nullptr) {
    auto members = std::make_shared<std::vector<std::string>>();
    members->reserve(room.members.size());
    for (const auto& [user_id, cores] : room.members) members->push_back(user_id);
    std::sort(members->begin(), members->end());
    room.sorted = std::move(members);
  }
  return room.sorted;
}

bool WatchedRooms::IsMember(std::string_view room_id, std::string_view user_id) const {
  const auto found = rooms_.find(room_id);
  return found != rooms_.end() && found->second.members.contains(user_id);
}

std::vector<WatchedRooms::Query> WatchedRooms::Queries(bool only_new) {
  std::vector<Query> queries;
  for (auto& [room_id, room] : rooms_) {
    if (only_new && room.asked) continue;
    room.asked = true;
    if (queries.empty() || queries.back().body.rooms_size() == static_cast<int>(kRoomsPerQuery)) {
      queries.emplace_back().number = ++last_query_;
    }
    link::v1::WatchedRoom& asked = *queries.back().body.add_rooms();
    asked.set_room_id(room_id);
    for (const auto& [core, members] : room.cores) {
      link::v1::CoreRoomState& known = *asked.add_known();
      known.set_core(core);
      known.set_state(members.state);
    }
  }
  return queries;
}

WatchedRooms::Answered WatchedRooms::OnAnswers(SteadyTime now, const Query& query, bool complete,
                                               absl::Span<const link::v1::ClusterReply> replies) {
  Answered answered;
  std::vector<IdMap<const link::v1::WatchedRoomUsers*, std::string_view>> answers(replies.size());
  for (size_t i = 0; i < replies.size(); ++i) {
    for (const auto& users : replies[i].watched_rooms().rooms()) answers[i].emplace(users.room_id(), &users);
  }
  for (int at = 0; at < query.body.rooms_size(); ++at) {
    const auto found = rooms_.find(query.body.rooms(at).room_id());
    // Nobody watches it any more, or somebody else does.
    if (found == rooms_.end() || found->second.added_after >= query.number) continue;
    Room& room = found->second;
    Change change;
    change.room_id = found->first;
    bool whole = complete;
    for (size_t i = 0; i < replies.size(); ++i) {
      if (!replies[i].has_watched_rooms()) continue;
      CoreMembers& core = room.cores[replies[i].core()];  // a new one: nobody, and state 0 says just that
      core.answered = query.number;
      core.missing_since.reset();
      if (static_cast<uint32_t>(at) >= replies[i].watched_rooms().looked_at()) {
        whole = room.asked = false;
        answered.ask_again = true;
        continue;
      }
      const auto users = answers[i].find(found->first);
      if (users == answers[i].end()) continue;  // as it was
      core.state = users->second->state();
      core.cut = users->second->cut();
      Replace(room, core, {users->second->user_ids().begin(), users->second->user_ids().end()}, change);
    }
    DropCores(now, query.number, whole, room, change);
    if (whole && !room.known) {
      room.known = change.first = true;
    } else if (!room.known) {
      continue;  // those who are heard of now are told with the first complete answer
    }
    Settle(change);
    change.too_large = room.members.size() > limits_.members_max;
    for (const auto& [id, core] : room.cores) change.too_large = change.too_large || core.cut;
    if (change.first || change.too_large || !change.joined.empty() || !change.left.empty()) {
      answered.changes.push_back(std::move(change));
    }
  }
  return answered;
}

void WatchedRooms::DropCores(SteadyTime now, uint64_t query, bool whole, Room& room, Change& change) {
  for (auto it = room.cores.begin(); it != room.cores.end();) {
    CoreMembers& core = it->second;
    if (core.answered != query && !whole && !core.missing_since) core.missing_since = now;
    if (core.answered == query || (!whole && now - *core.missing_since < limits_.core_keep)) {
      ++it;
      continue;
    }
    Replace(room, core, {}, change);
    it = room.cores.erase(it);
  }
}

void WatchedRooms::Replace(Room& room, CoreMembers& core, std::vector<std::string> user_ids, Change& change) {
  room.sorted.reset();
  for (const std::string& user_id : user_ids) {
    if (++room.members[user_id] == 1) change.joined.push_back(user_id);
  }
  for (const std::string& user_id : core.user_ids) {
    const auto found = room.members.find(user_id);
    if (--found->second != 0) continue;
    room.members.erase(found);
    change.left.push_back(user_id);
  }
  core.user_ids = std::move(user_ids);
}

void WatchedRooms::Settle(Change& change) {
  if (change.first) {
    change.joined.clear();
    change.left.clear();
  }
  const auto sort = [](std::vector<std::string>& ids) {
    std::sort(ids.begin(), ids.end());
    ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  };
  sort(change.joined);
  sort(change.left);
  // Who went to another core is in both lists, and is still or no longer there.
  std::vector<std::string> moved;
  std::set_intersection(change.joined.begin(), change.joined.end(), change.left.begin(), change.left.end(),
                        std::back_inserter(moved));
  for (std::vector<std::string>* ids : {&change.joined, &change.left}) {
    std::erase_if(*ids, [&](const std::string& id) { return std::binary_search(moved.begin(), moved.end(), id); });
  }
}

}  // namespace presence::core
