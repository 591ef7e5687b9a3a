// Who is connected: shards, their connections by slot, and the users behind them.
//
// Lives on the hub's thread. A connection is *live* from its declaration or opening until it is closed; its record stays until the
// store has confirmed that its entry is gone, and a little longer (see PresenceLedger). Invariants:
//   * a slot of a shard holds at most one live connection;
//   * a live connection is a member in RoomTable exactly of what is in its `rooms`, at the position that is said there;
//   * a closed connection whose client is expected elsewhere is found by its user and session, until it is forgotten or expected no more;
//   * a user is here exactly while a record refers to it, a session exactly while a live or expected connection has a token of it.
// Does not write to the store and sends no command.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "common/connection_id.h"
#include "common/time.h"
#include "core/interned.h"
#include "core/room_table.h"
#include "core/slab.h"
#include "presence/link/v1/link.pb.h"

namespace presence::core {

using UserIndex = StrongId<struct UserIndexTag, uint32_t>;
using SessionIndex = StrongId<struct SessionIndexTag, uint32_t>;
inline constexpr SessionIndex kNoSession{UINT32_MAX};

struct User {
  std::string id;
  std::string username;  // as the newest connection said; may be empty for a user of whom only an end was heard
  // What the store last said of the user, or the bus. UNSPECIFIED and 0: nothing yet.
  uint64_t known_version = 0;
  uint8_t known_status = link::v1::STATUS_UNSPECIFIED;
  uint32_t records = 0;  // connections that refer to it, live or not
  ConnectionIndex first_live = kNoConnection, first_expected = kNoConnection;
};

// A session at the identity provider (`sid`). Some 109 B with a UUID for an id: 44 of the row, 48 of the text, 8 of the slab, 9 in the
// hash set; and 16 B in each connection, so some 120 B for a connection that shares its session with no other.
struct Session {
  std::string id;
  ConnectionIndex first_live = kNoConnection, first_expected = kNoConnection;
};

// One connection: what the core knows (first part, kept by ConnectionTable) and how far the store knows it (second part,
// written by PresenceLedger alone). 120 bytes, since there may be a million.
struct Connection {
  uint64_t incarnation = 0;  // of its edge
  uint64_t id = 0;           // ConnectionId, packed
  uint64_t attach = 0;       // of its shard, when it was last declared, opened or closed: the fence
  // Of the client. Once that is gone: until when it is expected elsewhere, and its entry lingers; in the past: it is not.
  SteadyTime last_frame;
  absl::InlinedVector<Membership, 2> rooms;  // in the order of joining
  UserIndex user;
  ShardIndex shard;
  ConnectionIndex next_of_user = kNoConnection, previous_of_user = kNoConnection;
  // Of the newest token; while live or expected. Whole seconds, rounded down: a token is rather taken for older than for younger.
  SessionIndex session = kNoSession;
  ConnectionIndex next_of_session = kNoConnection, previous_of_session = kNoConnection;
  uint32_t issued_at_s = 0;
  uint8_t status = link::v1::STATUS_ONLINE;  // of this device
  bool live : 1 = true;

  bool dirty : 1 = false;     // the store does not know it as it is
  bool reassert : 1 = false;  // the next write repeats what the store may have lost
  bool written : 1 = false;   // the store has confirmed it at least once in this attach
  bool fenced : 1 = false;    // a higher attach has taken it over: let be
  bool behind : 1 = false;    // is in the ledger's second queue
  bool newcomer : 1 = false;  // has come to this core, and the store has not let it in yet
  // Its token has not been held against the logouts that the store keeps. Kept by the hub: such a one enters no further room meanwhile.
  bool unjudged : 1 = false;
  bool gone : 1 = false;         // the store has confirmed its end, which is kept for a while
  uint32_t write_in_flight = 0;  // number of the write that is not answered; 0: none
  // Sequences of the shard's events that this record stands for: in it, in the write in flight, confirmed by the store.
  uint64_t wanted_sequence = 0, sent_sequence = 0, confirmed_sequence = 0;

  link::v1::Status device_status() const { return static_cast<link::v1::Status>(status); }
  // REQUIRES: not live.
  SteadyTime expected_until() const { return last_frame; }
  bool expected() const { return !live && last_frame != SteadyTime(); }
};

static_assert(sizeof(Connection) <= 120);

struct ShardKey {
  uint64_t incarnation = 0;
  uint32_t shard = 0;
  friend auto operator<=>(const ShardKey&, const ShardKey&) = default;
};

struct Link;

struct Shard {
  ShardKey key;
  ShardIndex index;
  std::string edge;     // a name for operators, as the next two of the newest Hello
  std::string version;  // of its program
  int64_t started_ms = 0;
  uint64_t attach = 0;  // the highest known
  bool told = false;    // the other cores know that it is here with this attach
  // Nothing is written of its connections, and they are in no room, until it has declared them again.
  bool set_aside = false;
  Link* link = nullptr;
  SteadyTime lost_at;  // while there is no link
  size_t connections = 0;

  // The live connection in this slot.
  ConnectionIndex InSlot(uint32_t slot) const;
  // The same, of that generation.
  ConnectionIndex Find(uint64_t id, const Slab<Connection, ConnectionIndexTag>& connections) const;
  void SetSlot(uint32_t slot, ConnectionIndex connection);
  uint32_t slots_end() const { return static_cast<uint32_t>(pages_.size() * kPage); }

 private:
  // Slots are dense, but a million of them is possible: 4 KB at a time.
  static constexpr uint32_t kPage = 1024;
  std::vector<std::unique_ptr<std::array<ConnectionIndex, kPage>>> pages_;
};

class ConnectionTable {
 public:
  using Slab = core::Slab<Connection, ConnectionIndexTag>;
  using Ref = Slab::Ref;

  explicit ConnectionTable(RoomTable& rooms) : rooms_(rooms) {}

  Shard* FindShard(ShardKey key);
  Shard& AddShard(ShardKey key);
  // REQUIRES: no live connection, no link.
  void DropShard(Shard& shard);
  Shard& shard(ShardIndex index) { return *shards_[index.value()]; }
  const Shard& shard(ShardIndex index) const { return *shards_[index.value()]; }
  // In the order of their keys.
  const std::map<ShardKey, std::unique_ptr<Shard>>& shards() const { return by_key_; }

  // REQUIRES: the slot holds no live connection.
  ConnectionIndex Open(Shard& shard, uint64_t id, std::string_view user_id, std::string_view username);
  // A record of a connection that is closed already and was never known here.
  ConnectionIndex AddClosed(const Shard& shard, uint64_t id, std::string_view user_id, SteadyTime expected_until);
  // No longer live: leaves its rooms, its slot and its user's devices. `expected_until`: see Connection.
  void Close(ConnectionIndex connection, SteadyTime expected_until = SteadyTime());
  // Nobody waits for its client any more. REQUIRES: expected.
  void EndExpected(ConnectionIndex connection);
  // Another record of the same end. REQUIRES: not live.
  ConnectionIndex AddAgain(ConnectionIndex closed);
  // REQUIRES: not live.
  void Forget(ConnectionIndex connection);

  bool InRoom(ConnectionIndex connection, std::string_view room_id) const;
  // REQUIRES: live, and not in the room.
  RoomIndex Join(ConnectionIndex connection, std::string_view room_id);
  // False when it was not in it.
  bool Leave(ConnectionIndex connection, std::string_view room_id);
  // The connection has shown this token. REQUIRES: live.
  void SetToken(ConnectionIndex connection, const link::v1::TokenOrigin& token);
  // Of its newest token; empty: none.
  std::string_view session_id(const Connection& connection) const {
    return connection.session == kNoSession ? std::string_view() : sessions_[connection.session].id;
  }
  const Session* FindSession(std::string_view session_id) const;

  // From now on in these rooms and in no others, in this order; one that is named twice counts once. A room in which it stays does not
  // change. REQUIRES: live.
  void SetRooms(ConnectionIndex connection, const google::protobuf::RepeatedPtrField<std::string>& room_ids);

  Connection& operator[](ConnectionIndex connection) { return connections_[connection]; }
  const Connection& operator[](ConnectionIndex connection) const { return connections_[connection]; }
  User& user(const Connection& connection) { return users_[connection.user]; }
  const User& user(const Connection& connection) const { return users_[connection.user]; }
  User* FindUser(std::string_view user_id);
  const User* FindUser(std::string_view user_id) const;
  Slab& records() { return connections_; }
  const Slab& records() const { return connections_; }
  // With a live connection.
  size_t users() const { return live_users_; }
  size_t live() const { return live_; }

 private:
  ConnectionIndex AddRecord(const Shard& shard, uint64_t id, std::string_view user_id);
  // Out of the room's list; `membership` is or was in the connection's own.
  void RemoveMember(Membership membership, ShardIndex shard);
  // Into the list of its user, of those that are live or those that are expected, and out of it; then the same of a session.
  void EnterUser(ConnectionIndex connection);
  void LeaveUser(ConnectionIndex connection);
  void EnterSession(ConnectionIndex connection, SessionIndex session);
  void LeaveSession(ConnectionIndex connection);

  RoomTable& rooms_;
  Slab connections_;
  Interned<User, UserIndexTag> users_;
  Interned<Session, SessionIndexTag> sessions_;
  std::map<ShardKey, std::unique_ptr<Shard>> by_key_;
  std::vector<Shard*> shards_;  // by index; null: free
  std::vector<ShardIndex> free_shards_;
  size_t live_ = 0;
  size_t live_users_ = 0;
};

}  // namespace presence::core
