// Who is in the watched rooms: asked of all cores, and told to their watchers.
#include <algorithm>
#include <utility>

#include "core/watches.h"

namespace presence::core {
namespace {

constexpr size_t kUsersPerRead = 500;

absl::Status MembersUnavailable(const absl::Status& why) {
  return absl::UnavailableError("the room's members could not be read (" +
                                std::string(why.message().data(), why.message().size()) + "); watch again");
}

}  // namespace

void Watches::AskRooms(bool only_new) {
  for (WatchedRooms::Query& query : rooms_.Queries(only_new)) {
    ++(only_new ? new_rooms_unanswered_ : all_rooms_unanswered_);
    link::v1::ClusterRequest body;
    *body.mutable_watched_rooms() = query.body;
    ask_(std::move(body), [weak = std::weak_ptr(self_), only_new, query = std::move(query)](
                              const absl::Status& status, const std::vector<link::v1::ClusterReply>& replies) {
      const auto self = weak.lock();
      if (self == nullptr) return;
      Watches& watches = **self;
      --(only_new ? watches.new_rooms_unanswered_ : watches.all_rooms_unanswered_);
      watches.OnRoomsAnswered(query, status, replies);
    });
  }
}

void Watches::OnRoomsAnswered(const WatchedRooms::Query& query, const absl::Status& status,
                              absl::Span<const link::v1::ClusterReply> replies) {
  // Without any answer nobody was asked, this core neither: that says nothing of the others.
  if (status.ok() || !replies.empty()) {
    const WatchedRooms::Answered answered = rooms_.OnAnswers(now_, query, status.ok(), replies);
    rooms_added_ = rooms_added_ || answered.ask_again;
    for (const WatchedRooms::Change& change : answered.changes) OnRoomChanged(change);
  }
  if (status.ok()) return;
  for (const link::v1::WatchedRoom& room : query.body.rooms()) {
    if (rooms_.Known(room.room_id())) continue;
    if (const auto found = by_room_.find(room.room_id()); found != by_room_.end()) {
      EndAll(found->second, MembersUnavailable(status));
    }
  }
}

void Watches::OnRoomChanged(const WatchedRooms::Change& change) {
  const auto watchers = by_room_.find(change.room_id);
  if (watchers == by_room_.end()) return;
  const auto first = change.first ? rooms_.Members(change.room_id) : nullptr;
  const std::vector<std::string>& joined = change.first ? *first : change.joined;
  for (const std::string& user_id : joined) NoteMember(change.room_id, user_id);
  for (const std::string& user_id : change.left) ForgetMember(change.room_id, user_id);
  if (change.too_large || members_watched_ > options_.members_watched_max) {
    return EndAll(watchers->second, absl::ResourceExhaustedError("the room has too many members to be watched"));
  }
  for (const std::string& user_id : change.left) {
    const auto row = std::make_shared<const StoredPresence>(StoredPresence{.user_id = user_id, .username = {}});
    for (Watcher* watcher : watchers->second) Enqueue(*watcher, row, /*left=*/true);
  }
  if (!change.first) {
    for (const std::string& user_id : joined) joined_.emplace(change.room_id, user_id);
    return;
  }
  for (Watcher* watcher : watchers->second) {
    if (watcher->source == Source::kUnknownRoom) StartSnapshot(*watcher);
  }
}

// Of one room, so many as fit into a read.
void Watches::ReadJoined() {
  const std::string room_id = joined_.begin()->first;
  std::vector<std::string> user_ids;
  while (!joined_.empty() && joined_.begin()->first == room_id && user_ids.size() < kUsersPerRead) {
    user_ids.push_back(std::move(joined_.extract(joined_.begin()).value().second));
  }
  ++reads_;
  store_.GetPresences(user_ids, [weak = std::weak_ptr(self_), room_id,
                                 user_ids](absl::StatusOr<std::vector<StoredPresence>> presences) {
    const auto self = weak.lock();
    if (self == nullptr) return;
    Watches& watches = **self;
    watches.ReadEnded();
    if (presences.ok()) return watches.TellJoined(room_id, *std::move(presences));
    for (const std::string& user_id : user_ids) {
      if (watches.rooms_.IsMember(room_id, user_id)) watches.joined_unread_.emplace(room_id, user_id);
    }
  });
}

void Watches::TellJoined(const std::string& room_id, std::vector<StoredPresence> presences) {
  const auto watchers = by_room_.find(room_id);
  if (watchers == by_room_.end()) return;
  for (StoredPresence& presence : presences) {
    const PresenceRow row = RowRead(std::move(presence));
    if (row == nullptr || !rooms_.IsMember(room_id, row->user_id)) continue;
    for (Watcher* watcher : watchers->second) Enqueue(*watcher, row);
  }
}

void Watches::NoteMember(const std::string& room_id, const std::string& user_id) {
  std::vector<std::string>& rooms = rooms_of_user_[user_id];
  if (std::find(rooms.begin(), rooms.end(), room_id) != rooms.end()) return;
  rooms.push_back(room_id);
  ++members_watched_;
}

void Watches::ForgetMember(const std::string& room_id, const std::string& user_id) {
  const auto found = rooms_of_user_.find(user_id);
  if (found == rooms_of_user_.end()) return;
  members_watched_ -= std::erase(found->second, room_id);
  joined_.erase({room_id, user_id});
  joined_unread_.erase({room_id, user_id});
  if (found->second.empty()) rooms_of_user_.erase(found);
}

}  // namespace presence::core
