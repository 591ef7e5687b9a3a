#include "core/cluster_queries.h"

#include <algorithm>
#include <chrono>
#include <limits>
#include <optional>
#include <string>
#include <utility>

#include "absl/container/btree_map.h"
#include "common/connection_id.h"

namespace presence::core {
namespace {

using google::protobuf::RepeatedPtrField;
using link::v1::ClusterReply;
using link::v1::ConnectionState;

// Where a connection stands in the order of connections.
struct Place {
  uint64_t incarnation = 0, id = 0;
  friend auto operator<=>(const Place&, const Place&) = default;
};

Place PlaceOf(const link::v1::ConnectionName& name) {
  return {name.incarnation(), name.connection()};
}

// Fills the entries of one answer, up to its bounds.
template <typename Entry>
class Answer {
 public:
  Answer(uint32_t limit, RepeatedPtrField<Entry>* entries)
      : left_(std::clamp<uint32_t>(limit, 1, kQueryLimitMax)), entries_(*entries) {}

  // Then a further entry cuts it.
  bool full() const { return left_ == 0; }
  Entry* Add() { return entries_.Add(); }
  // Keeps what was added last. False: it does not fit, and the answer ends before it.
  bool Keep() {
    bytes_ += entries_[entries_.size() - 1].ByteSizeLong() + kFramingBytes;
    if (bytes_ > kAnswerBytesMax && entries_.size() > 1) {
      entries_.RemoveLast();
      return false;
    }
    --left_;
    return true;
  }

 private:
  static constexpr size_t kFramingBytes = 4;  // a tag and a length below 2 MiB

  uint32_t left_;
  size_t bytes_ = 0;
  RepeatedPtrField<Entry>& entries_;
};

void SetText(std::string* field, std::string_view text) {
  field->assign(text.data(), text.size());
}

void Describe(Now now, const Connection& connection, const ConnectionTable& connections, const RoomTable& rooms,
              std::string_view core_name, ConnectionState* out) {
  const User& user = connections.user(connection);
  const Shard& shard = connections.shard(connection.shard);
  out->mutable_name()->set_incarnation(connection.incarnation);
  out->mutable_name()->set_connection(connection.id);
  out->set_user_id(user.id);
  out->set_username(user.username);
  out->set_status(connection.device_status());
  out->set_edge(shard.edge);
  out->set_shard(shard.key.shard);
  SetText(out->mutable_core(), core_name);
  out->set_room_count(static_cast<uint32_t>(connection.rooms.size()));
  size_t bytes = 0;
  for (const Membership& membership : connection.rooms) {
    const std::string& id = rooms.id(membership.room);
    bytes += id.size();
    if (bytes > kRoomIdsBytesMax) break;
    out->add_room_ids(id);
  }
  const auto silent = std::chrono::duration_cast<std::chrono::milliseconds>(now.steady - connection.last_frame);
  out->set_silent_ms(std::max<int64_t>(silent.count(), 0));
  out->set_attach(connection.attach);
}

// The user's live connections behind `after`, as many of the first as a page can need and one more, in order.
std::vector<ConnectionIndex> DevicesBehind(const std::string& user_id, Place after, size_t limit,
                                           const ConnectionTable& connections) {
  std::vector<ConnectionIndex> devices;
  const auto place = [&connections](ConnectionIndex index) {
    return Place{connections[index].incarnation, connections[index].id};
  };
  const User* user = connections.FindUser(user_id);
  for (ConnectionIndex device = user == nullptr ? kNoConnection : user->first_live; device != kNoConnection;
       device = connections[device].next_of_user) {
    if (place(device) > after) devices.push_back(device);
  }
  const size_t wanted = std::min(devices.size(), limit + 1);
  std::partial_sort(devices.begin(), devices.begin() + static_cast<ptrdiff_t>(wanted), devices.end(),
                    [&place](ConnectionIndex a, ConnectionIndex b) { return place(a) < place(b); });
  devices.resize(wanted);
  return devices;
}

// The same of all edges of that name. Shards are in order of incarnation and shard, and a shard's slots in that of their ids.
std::vector<ConnectionIndex> SocketsBehind(const std::string& edge, Place after, size_t limit,
                                           const ConnectionTable& connections) {
  std::vector<ConnectionIndex> sockets;
  const ConnectionId first = ConnectionId::Unpack(after.id);
  const ShardKey first_key{after.incarnation, first.shard};
  for (auto it = connections.shards().lower_bound(first_key); it != connections.shards().end(); ++it) {
    const Shard& shard = *it->second;
    if (shard.edge != edge) continue;
    for (uint32_t slot = it->first == first_key ? first.slot : 0; slot < shard.slots_end(); ++slot) {
      const ConnectionIndex index = shard.InSlot(slot);
      if (index == kNoConnection || Place{shard.key.incarnation, connections[index].id} <= after) continue;
      sockets.push_back(index);
      if (sockets.size() > limit) return sockets;
    }
  }
  return sockets;
}

// State of this core's last answer about the room, as the asking core remembers it.
std::optional<uint64_t> KnownState(const link::v1::WatchedRoom& watched, uint64_t core) {
  for (const link::v1::CoreRoomState& known : watched.known()) {
    if (known.core() == core) return known.state();
  }
  return std::nullopt;
}

constexpr size_t kTextFraming = 3;  // of one id in an answer: a tag and a length below 16 KiB

// The users of a room, each once, in byte order, as many as an answer can hold. A room of a million is never sorted as a whole: what
// lies behind an answer's worth is let go as it comes.
class UsersInOrder {
 public:
  void Add(std::string_view id) {
    if (end_ && id >= *end_) {
      more_ = more_ || id > *end_;
      return;
    }
    users_.push_back({Prefix(id), id});
    bytes_ += id.size() + kTextFraming;
    if (bytes_ > 2 * kAnswerBytesMax) Settle();
  }
  void Settle() {
    std::sort(users_.begin(), users_.end());
    users_.erase(std::unique(users_.begin(), users_.end()), users_.end());
    bytes_ = 0;
    for (size_t i = 0; i < users_.size(); ++i) {
      bytes_ += users_[i].id.size() + kTextFraming;
      if (bytes_ <= kAnswerBytesMax) continue;
      bytes_ -= users_[i].id.size() + kTextFraming;
      users_.resize(i);
      end_ = users_.back().id;
      more_ = true;
    }
  }
  // REQUIRES of the rest: Settle was the last call.
  size_t size() const { return users_.size(); }
  std::string_view operator[](size_t i) const { return users_[i].id; }
  bool more() const { return more_; }  // some were let go

 private:
  // Most comparisons end at the first eight bytes, which are at hand; the text is somewhere in memory. (Ids hold no NUL.)
  struct User {
    uint64_t prefix = 0;
    std::string_view id;
    friend auto operator<=>(const User&, const User&) = default;
  };
  static uint64_t Prefix(std::string_view id) {
    uint64_t prefix = 0;
    for (size_t i = 0; i < 8; ++i) prefix = prefix << 8 | (i < id.size() ? static_cast<uint8_t>(id[i]) : 0u);
    return prefix;
  }

  std::vector<User> users_;
  size_t bytes_ = 0;
  std::optional<std::string_view> end_;  // of those that are let go, none is before this one
  bool more_ = false;
};

UsersInOrder UsersOf(RoomIndex room, const ConnectionTable& connections, const RoomTable& rooms) {
  UsersInOrder users;
  for (const ConnectionIndex member : rooms.members(room)) users.Add(connections.user(connections[member]).id);
  users.Settle();
  return users;
}

// --- merging

std::string_view KeyOf(const link::v1::RoomCount& room) {
  return room.room_id();
}
std::string_view KeyOf(const link::v1::MemberCount& member) {
  return member.user_id();
}
Place KeyOf(const ConnectionState& connection) {
  return PlaceOf(connection.name());
}

template <typename Count>
void AddCount(const Count& from, Count* to) {
  const uint64_t sum = uint64_t{to->connections()} + from.connections();
  to->set_connections(static_cast<uint32_t>(std::min<uint64_t>(sum, std::numeric_limits<uint32_t>::max())));
}

void Combine(const link::v1::RoomCount& from, link::v1::RoomCount* to) {
  AddCount(from, to);
}

void Combine(const link::v1::MemberCount& from, link::v1::MemberCount* to) {
  AddCount(from, to);
  if (to->username().empty()) to->set_username(from.username());
}

void Combine(const ConnectionState& from, ConnectionState* to) {
  if (from.attach() > to->attach()) *to = from;
}

// Answers of one kind, one after the other.
template <typename Entry>
class Merge {
 public:
  using Key = decltype(KeyOf(std::declval<const Entry&>()));

  // An answer that is cut holds at least one entry.
  void Add(const RepeatedPtrField<Entry>& answer, bool cut) {
    for (const Entry& entry : answer) entries_.push_back(&entry);
    if (!cut || answer.empty()) return;
    const Key last = KeyOf(answer[answer.size() - 1]);
    if (!end_ || last < *end_) end_ = last;
  }

  // One entry for each key, the same keys combined. True: more follows.
  bool Into(uint32_t limit, std::vector<Entry>* page) {
    limit = std::max<uint32_t>(limit, 1);
    std::stable_sort(entries_.begin(), entries_.end(),
                     [](const Entry* a, const Entry* b) { return KeyOf(*a) < KeyOf(*b); });
    for (const Entry* entry : entries_) {
      if (!page->empty() && KeyOf(page->back()) == KeyOf(*entry)) {
        Combine(*entry, &page->back());
      } else if (page->size() == limit || (end_ && KeyOf(*entry) > *end_)) {
        return true;
      } else {
        page->push_back(*entry);
      }
    }
    return end_.has_value();
  }

 private:
  std::vector<const Entry*> entries_;
  std::optional<Key> end_;  // the lowest of the cut answers' last keys
};

}  // namespace

void AnswerRooms(const link::v1::RoomsQuery& query, const RoomTable& rooms, link::v1::RoomsReply* reply) {
  Answer answer(query.limit(), reply->mutable_rooms());
  rooms.VisitBehind(query.after(), [&](RoomIndex room) {
    if (!answer.full()) {
      link::v1::RoomCount* entry = answer.Add();
      entry->set_room_id(rooms.id(room));
      entry->set_connections(static_cast<uint32_t>(rooms.members(room).size()));
      if (answer.Keep()) return true;
    }
    reply->set_more(true);
    return false;
  });
}

void AnswerMembers(const link::v1::MembersQuery& query, const ConnectionTable& connections, const RoomTable& rooms,
                   link::v1::MembersReply* reply) {
  const auto room = rooms.Find(query.room_id());
  if (!room) return;
  reply->set_connections(static_cast<uint32_t>(rooms.members(*room).size()));

  // The lowest ids so far, one more than the page can hold. Who is pushed out by lower ones cannot come back, so every count is whole.
  struct Tally {
    const User* user = nullptr;
    uint32_t connections = 0;
  };
  const size_t tallies_max = size_t{std::clamp<uint32_t>(query.limit(), 1, kQueryLimitMax)} + 1;
  absl::btree_map<std::string_view, Tally> tallies;
  for (const ConnectionIndex member : rooms.members(*room)) {
    const User& user = connections.user(connections[member]);
    if (user.id <= query.after()) continue;
    if (tallies.size() == tallies_max && user.id > tallies.rbegin()->first) continue;
    Tally& tally = tallies[user.id];
    tally.user = &user;
    ++tally.connections;
    if (tallies.size() > tallies_max) tallies.erase(std::prev(tallies.end()));
  }

  Answer answer(query.limit(), reply->mutable_members());
  for (const auto& [id, tally] : tallies) {
    if (!answer.full()) {
      link::v1::MemberCount* entry = answer.Add();
      entry->set_user_id(tally.user->id);
      entry->set_username(tally.user->username);
      entry->set_connections(tally.connections);
      if (answer.Keep()) continue;
    }
    reply->set_more(true);
    return;
  }
}

void AnswerConnections(const link::v1::ConnectionsQuery& query, Now now, const ConnectionTable& connections,
                       const RoomTable& rooms, std::string_view core_name, link::v1::ConnectionsReply* reply) {
  const size_t limit = std::clamp<uint32_t>(query.limit(), 1, kQueryLimitMax);
  const Place after = PlaceOf(query.after());
  const std::vector<ConnectionIndex> found = query.owner_case() == link::v1::ConnectionsQuery::kEdge
                                                 ? SocketsBehind(query.edge(), after, limit, connections)
                                                 : DevicesBehind(query.user_id(), after, limit, connections);
  Answer answer(query.limit(), reply->mutable_connections());
  for (const ConnectionIndex index : found) {
    if (!answer.full()) {
      Describe(now, connections[index], connections, rooms, core_name, answer.Add());
      if (answer.Keep()) continue;
    }
    reply->set_more(true);
    return;
  }
}

void AnswerWatchedRooms(const link::v1::WatchedRoomsQuery& query, uint64_t core, const ConnectionTable& connections,
                        const RoomTable& rooms, link::v1::WatchedRoomsReply* reply) {
  constexpr size_t kRoomFraming = 24;  // of the entry, its state and `cut`
  size_t bytes = 0;
  for (const link::v1::WatchedRoom& watched : query.rooms()) {
    if (reply->looked_at() == kWatchedRoomsMax) return;
    const auto room = rooms.Find(watched.room_id());
    const uint64_t state = room ? rooms.state(*room) : 0;
    if (KnownState(watched, core) != state) {
      const UsersInOrder users = room ? UsersOf(*room, connections, rooms) : UsersInOrder();
      size_t fitting = 0;
      size_t bytes_with = bytes + watched.room_id().size() + kTextFraming + kRoomFraming;
      while (fitting < users.size() && bytes_with + users[fitting].size() + kTextFraming <= kAnswerBytesMax) {
        bytes_with += users[fitting++].size() + kTextFraming;
      }
      const bool cut = users.more() || fitting < users.size();
      if (!reply->rooms().empty() && (cut || bytes_with > kAnswerBytesMax)) return;
      bytes = bytes_with;
      link::v1::WatchedRoomUsers& entry = *reply->add_rooms();
      entry.set_room_id(watched.room_id());
      entry.set_state(state);
      for (size_t i = 0; i < fitting; ++i) SetText(entry.add_user_ids(), users[i]);
      entry.set_cut(cut);
    }
    reply->set_looked_at(reply->looked_at() + 1);
  }
}

RoomsPage MergeRooms(absl::Span<const ClusterReply> replies, uint32_t limit) {
  Merge<link::v1::RoomCount> merge;
  for (const ClusterReply& reply : replies) {
    if (reply.code() == 0) merge.Add(reply.rooms().rooms(), reply.rooms().more());
  }
  RoomsPage page;
  page.more = merge.Into(limit, &page.rooms);
  return page;
}

MembersPage MergeMembers(absl::Span<const ClusterReply> replies, uint32_t limit) {
  MembersPage page;
  Merge<link::v1::MemberCount> merge;
  for (const ClusterReply& reply : replies) {
    if (reply.code() != 0) continue;
    page.connections += reply.members().connections();
    merge.Add(reply.members().members(), reply.members().more());
  }
  page.more = merge.Into(limit, &page.members);
  return page;
}

ConnectionsPage MergeConnections(absl::Span<const ClusterReply> replies, uint32_t limit) {
  Merge<ConnectionState> merge;
  for (const ClusterReply& reply : replies) {
    if (reply.code() == 0) merge.Add(reply.connections().connections(), reply.connections().more());
  }
  ConnectionsPage page;
  page.more = merge.Into(limit, &page.connections);
  return page;
}

}  // namespace presence::core
