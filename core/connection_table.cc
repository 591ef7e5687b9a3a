#include "core/connection_table.h"

#include <algorithm>
#include <string>

#include "common/check.h"

namespace presence::core {
namespace {

// A connection is in few rooms, at most rooms_per_connection_max (1,000 are 8 KB in a row); looked for when somebody joins or leaves.
template <typename SomeConnection>
auto FindMembership(SomeConnection& connection, RoomIndex room) -> decltype(connection.rooms.data()) {
  for (auto& membership : connection.rooms) {
    if (membership.room == room) return &membership;
  }
  return nullptr;
}

// Each connection stands in a list of its user and in one of its session.
using LinkOf = ConnectionIndex Connection::*;

template <typename Row>
ConnectionIndex& FirstOf(Row& row, const Connection& connection) {
  return connection.live ? row.first_live : row.first_expected;
}

void PushFront(ConnectionTable::Slab& rows, ConnectionIndex& first, ConnectionIndex index, LinkOf next,
               LinkOf previous) {
  rows[index].*next = first;
  if (first != kNoConnection) rows[first].*previous = index;
  first = index;
}

void Remove(ConnectionTable::Slab& rows, ConnectionIndex& first, ConnectionIndex index, LinkOf next, LinkOf previous) {
  const ConnectionIndex before = rows[index].*previous, behind = rows[index].*next;
  if (before != kNoConnection) {
    rows[before].*next = behind;
  } else {
    first = behind;
  }
  if (behind != kNoConnection) rows[behind].*previous = before;
  rows[index].*next = rows[index].*previous = kNoConnection;
}

}  // namespace

ConnectionIndex Shard::InSlot(uint32_t slot) const {
  const uint32_t page = slot / kPage;
  if (page >= pages_.size() || pages_[page] == nullptr) return kNoConnection;
  return (*pages_[page])[slot % kPage];
}

ConnectionIndex Shard::Find(uint64_t id, const Slab<Connection, ConnectionIndexTag>& records) const {
  const ConnectionIndex found = InSlot(ConnectionId::Unpack(id).slot);
  return found != kNoConnection && records[found].id == id ? found : kNoConnection;
}

void Shard::SetSlot(uint32_t slot, ConnectionIndex connection) {
  const uint32_t page = slot / kPage;
  if (page >= pages_.size()) pages_.resize(page + 1);
  if (pages_[page] == nullptr) {
    pages_[page] = std::make_unique<std::array<ConnectionIndex, kPage>>();
    pages_[page]->fill(kNoConnection);
  }
  (*pages_[page])[slot % kPage] = connection;
}

Shard* ConnectionTable::FindShard(ShardKey key) {
  const auto found = by_key_.find(key);
  return found == by_key_.end() ? nullptr : found->second.get();
}

Shard& ConnectionTable::AddShard(ShardKey key) {
  auto added = std::make_unique<Shard>();
  added->key = key;
  if (free_shards_.empty()) {
    added->index = ShardIndex(static_cast<uint32_t>(shards_.size()));
    shards_.push_back(added.get());
  } else {
    added->index = free_shards_.back();
    free_shards_.pop_back();
    shards_[added->index.value()] = added.get();
  }
  Shard& shard = *added;
  const bool is_new = by_key_.emplace(key, std::move(added)).second;
  PRESENCE_CHECK(is_new, "a shard is added once");
  return shard;
}

void ConnectionTable::DropShard(Shard& shard) {
  PRESENCE_CHECK(shard.connections == 0 && shard.link == nullptr, "a shard is dropped when it is empty");
  rooms_.ForgetHandles(shard.index);
  shards_[shard.index.value()] = nullptr;
  free_shards_.push_back(shard.index);
  const ShardKey key = shard.key;
  by_key_.erase(key);
}

ConnectionIndex ConnectionTable::AddRecord(const Shard& shard, uint64_t id, std::string_view user_id) {
  const ConnectionIndex index = connections_.Add();
  Connection& connection = connections_[index];
  connection.incarnation = shard.key.incarnation;
  connection.id = id;
  connection.attach = shard.attach;
  connection.shard = shard.index;
  connection.user = users_.Intern(user_id);
  ++users_[connection.user].records;
  return index;
}

ConnectionIndex ConnectionTable::Open(Shard& shard, uint64_t id, std::string_view user_id, std::string_view username) {
  const uint32_t slot = ConnectionId::Unpack(id).slot;
  PRESENCE_CHECK(shard.InSlot(slot) == kNoConnection, "a slot has one owner");
  const ConnectionIndex index = AddRecord(shard, id, user_id);
  Connection& connection = connections_[index];
  User& owner = users_[connection.user];
  if (owner.username != username) owner.username = username;
  if (owner.first_live == kNoConnection) ++live_users_;
  EnterUser(index);
  shard.SetSlot(slot, index);
  ++shard.connections;
  ++live_;
  return index;
}

ConnectionIndex ConnectionTable::AddClosed(const Shard& shard, uint64_t id, std::string_view user_id,
                                           SteadyTime expected_until) {
  const ConnectionIndex index = AddRecord(shard, id, user_id);
  connections_[index].live = false;
  connections_[index].last_frame = expected_until;
  if (connections_[index].expected()) EnterUser(index);
  return index;
}

ConnectionIndex ConnectionTable::AddAgain(ConnectionIndex closed) {
  const Connection& old = connections_[closed];
  PRESENCE_CHECK(!old.live, "an end is said again");
  const ConnectionIndex index = connections_.Add();
  Connection& connection = connections_[index];
  connection.incarnation = old.incarnation;
  connection.id = old.id;
  connection.attach = old.attach;
  connection.shard = old.shard;
  connection.user = old.user;
  connection.live = false;
  connection.last_frame = SteadyTime();
  ++users_[connection.user].records;
  return index;
}

void ConnectionTable::Close(ConnectionIndex index, SteadyTime expected_until) {
  Connection& connection = connections_[index];
  PRESENCE_CHECK(connection.live, "a connection is closed once");
  Shard& owner = shard(connection.shard);
  for (const Membership& membership : connection.rooms) RemoveMember(membership, owner.index);
  connection.rooms.clear();
  connection.rooms.shrink_to_fit();
  owner.SetSlot(ConnectionId::Unpack(connection.id).slot, kNoConnection);
  --owner.connections;
  --live_;
  const std::string session(session_id(connection));
  LeaveSession(index);
  LeaveUser(index);
  if (users_[connection.user].first_live == kNoConnection) --live_users_;
  connection.live = false;
  connection.last_frame = expected_until;
  if (!connection.expected()) return;
  EnterUser(index);
  if (!session.empty()) EnterSession(index, sessions_.Intern(session));
}

void ConnectionTable::EndExpected(ConnectionIndex index) {
  PRESENCE_CHECK(connections_[index].expected(), "only who is expected can be given up");
  LeaveSession(index);
  LeaveUser(index);
  connections_[index].last_frame = SteadyTime();
}

void ConnectionTable::Forget(ConnectionIndex index) {
  const Connection& connection = connections_[index];
  PRESENCE_CHECK(!connection.live, "a live connection is not forgotten");
  if (connection.expected()) EndExpected(index);
  if (--users_[connection.user].records == 0) users_.Free(connection.user);
  connections_.Free(index);
}

void ConnectionTable::SetToken(ConnectionIndex index, const link::v1::TokenOrigin& token) {
  Connection& connection = connections_[index];
  PRESENCE_CHECK(connection.live, "a closed connection shows no token");
  connection.issued_at_s = static_cast<uint32_t>(std::clamp<int64_t>(token.issued_at_ms() / 1000, 0, UINT32_MAX));
  if (session_id(connection) == token.session_id()) return;
  LeaveSession(index);
  if (token.session_id().empty()) return;
  EnterSession(index, sessions_.Intern(token.session_id()));
}

void ConnectionTable::EnterUser(ConnectionIndex index) {
  const Connection& connection = connections_[index];
  PushFront(connections_, FirstOf(users_[connection.user], connection), index, &Connection::next_of_user,
            &Connection::previous_of_user);
}

void ConnectionTable::LeaveUser(ConnectionIndex index) {
  const Connection& connection = connections_[index];
  Remove(connections_, FirstOf(users_[connection.user], connection), index, &Connection::next_of_user,
         &Connection::previous_of_user);
}

void ConnectionTable::EnterSession(ConnectionIndex index, SessionIndex session) {
  Connection& connection = connections_[index];
  connection.session = session;
  PushFront(connections_, FirstOf(sessions_[session], connection), index, &Connection::next_of_session,
            &Connection::previous_of_session);
}

void ConnectionTable::LeaveSession(ConnectionIndex index) {
  Connection& connection = connections_[index];
  if (connection.session == kNoSession) return;
  Session& session = sessions_[connection.session];
  Remove(connections_, FirstOf(session, connection), index, &Connection::next_of_session,
         &Connection::previous_of_session);
  if (session.first_live == kNoConnection && session.first_expected == kNoConnection)
    sessions_.Free(connection.session);
  connection.session = kNoSession;
}

const Session* ConnectionTable::FindSession(std::string_view session_id) const {
  const auto found = sessions_.Find(session_id);
  return found ? &sessions_[*found] : nullptr;
}

bool ConnectionTable::InRoom(ConnectionIndex index, std::string_view room_id) const {
  const auto room = rooms_.Find(room_id);
  return room && FindMembership(connections_[index], *room) != nullptr;
}

RoomIndex ConnectionTable::Join(ConnectionIndex index, std::string_view room_id) {
  Connection& connection = connections_[index];
  return connection.rooms.emplace_back(rooms_.AddMember(room_id, connection.shard, index)).room;
}

bool ConnectionTable::Leave(ConnectionIndex index, std::string_view room_id) {
  const auto room = rooms_.Find(room_id);
  if (!room) return false;
  Connection& connection = connections_[index];
  const Membership* found = FindMembership(connection, *room);
  if (found == nullptr) return false;
  const Membership left = *found;
  connection.rooms.erase(found);
  RemoveMember(left, connection.shard);
  return true;
}

void ConnectionTable::SetRooms(ConnectionIndex index, const google::protobuf::RepeatedPtrField<std::string>& room_ids) {
  Connection& connection = connections_[index];
  size_t wanted = 0;  // so many at the front of `rooms` are as they shall be
  for (const std::string& room_id : room_ids) {
    const auto room = rooms_.Find(room_id);
    const Membership* found = room ? FindMembership(connection, *room) : nullptr;
    size_t at = connection.rooms.size();
    if (found != nullptr) {
      at = static_cast<size_t>(found - connection.rooms.data());
    } else {
      Join(index, room_id);
    }
    if (at < wanted) continue;  // named twice
    std::swap(connection.rooms[at], connection.rooms[wanted++]);
  }
  while (connection.rooms.size() > wanted) {
    const Membership left = connection.rooms.back();
    connection.rooms.pop_back();
    RemoveMember(left, connection.shard);
  }
}

void ConnectionTable::RemoveMember(Membership membership, ShardIndex shard) {
  const ConnectionIndex moved = rooms_.RemoveMember(membership, shard);
  if (moved == kNoConnection) return;
  Membership* theirs = FindMembership(connections_[moved], membership.room);
  PRESENCE_CHECK(theirs != nullptr, "a member of a room knows that it is one");
  theirs->position = membership.position;
}

User* ConnectionTable::FindUser(std::string_view user_id) {
  const auto found = users_.Find(user_id);
  return found ? &users_[*found] : nullptr;
}

const User* ConnectionTable::FindUser(std::string_view user_id) const {
  const auto found = users_.Find(user_id);
  return found ? &users_[*found] : nullptr;
}

}  // namespace presence::core
