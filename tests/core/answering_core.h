// The tables of one core, filled by hand, and what it answers to the queries of cluster_queries.h; answers as lines to compare.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "core/cluster_queries.h"

namespace presence::core {

inline constexpr Now kNow{SteadyTime(std::chrono::hours(1)), WallTime(std::chrono::hours(1))};

class AnsweringCore {
 public:
  explicit AnsweringCore(uint64_t incarnation) : incarnation_(incarnation) {}

  Shard& AddShard(ShardKey key, const std::string& edge, uint64_t attach = 1) {
    Shard& shard = connections_.AddShard(key);
    shard.edge = edge;
    shard.attach = attach;
    return shard;
  }
  ConnectionIndex Open(Shard& shard, uint32_t slot, const std::string& user,
                       const std::vector<std::string>& rooms = {}) {
    const uint64_t id = ConnectionId{shard.key.shard, slot, 1}.Pack();
    const ConnectionIndex index = connections_.Open(shard, id, user, "name of " + user);
    connections_[index].last_frame = kNow.steady;
    for (const std::string& room : rooms) connections_.Join(index, room);
    return index;
  }
  // On a shard of its own making, whichever.
  ConnectionIndex Open(const std::string& user, const std::vector<std::string>& rooms) {
    if (connections_.shards().empty()) AddShard({incarnation_, 0}, "edge");
    return Open(*connections_.shards().begin()->second, next_slot_++, user, rooms);
  }
  ConnectionTable& connections() { return connections_; }
  RoomTable& rooms() { return rooms_; }

  link::v1::ClusterReply Rooms(const std::string& after, uint32_t limit) const {
    link::v1::RoomsQuery query;
    query.set_after(after);
    query.set_limit(limit);
    link::v1::ClusterReply reply = Reply();
    AnswerRooms(query, rooms_, reply.mutable_rooms());
    return reply;
  }
  link::v1::ClusterReply Members(const std::string& room, const std::string& after, uint32_t limit) const {
    link::v1::MembersQuery query;
    query.set_room_id(room);
    query.set_after(after);
    query.set_limit(limit);
    link::v1::ClusterReply reply = Reply();
    AnswerMembers(query, connections_, rooms_, reply.mutable_members());
    return reply;
  }
  link::v1::ClusterReply ConnectionsOfUser(const std::string& user, uint64_t incarnation, uint64_t id,
                                           uint32_t limit) const {
    link::v1::ConnectionsQuery query;
    query.set_user_id(user);
    return Connections(query, incarnation, id, limit);
  }
  link::v1::ClusterReply ConnectionsOfEdge(const std::string& edge, uint64_t incarnation, uint64_t id,
                                           uint32_t limit) const {
    link::v1::ConnectionsQuery query;
    query.set_edge(edge);
    return Connections(query, incarnation, id, limit);
  }
  link::v1::WatchedRoomsReply Watched(const link::v1::WatchedRoomsQuery& query) const {
    link::v1::WatchedRoomsReply reply;
    AnswerWatchedRooms(query, incarnation_, connections_, rooms_, &reply);
    return reply;
  }

 private:
  link::v1::ClusterReply Reply() const {
    link::v1::ClusterReply reply;
    reply.set_core(incarnation_);
    return reply;
  }
  link::v1::ClusterReply Connections(link::v1::ConnectionsQuery& query, uint64_t incarnation, uint64_t id,
                                     uint32_t limit) const {
    query.mutable_after()->set_incarnation(incarnation);
    query.mutable_after()->set_connection(id);
    query.set_limit(limit);
    link::v1::ClusterReply reply = Reply();
    AnswerConnections(query, kNow, connections_, rooms_, "core-" + std::to_string(incarnation_),
                      reply.mutable_connections());
    return reply;
  }

  uint64_t incarnation_;
  uint32_t next_slot_ = 0;
  RoomTable rooms_;
  ConnectionTable connections_{rooms_};
};

// "id:connections" of rooms and members; "incarnation/shard.slot@core" of connections.
inline std::vector<std::string> Lines(const google::protobuf::RepeatedPtrField<link::v1::RoomCount>& rooms) {
  std::vector<std::string> lines;
  for (const auto& room : rooms) lines.push_back(room.room_id() + ":" + std::to_string(room.connections()));
  return lines;
}
inline std::vector<std::string> Lines(const google::protobuf::RepeatedPtrField<link::v1::MemberCount>& members) {
  std::vector<std::string> lines;
  for (const auto& member : members) lines.push_back(member.user_id() + ":" + std::to_string(member.connections()));
  return lines;
}
inline std::vector<std::string> Lines(
    const google::protobuf::RepeatedPtrField<link::v1::ConnectionState>& connections) {
  std::vector<std::string> lines;
  for (const auto& connection : connections) {
    const ConnectionId id = ConnectionId::Unpack(connection.name().connection());
    lines.push_back(std::to_string(connection.name().incarnation()) + "/" + std::to_string(id.shard) + "." +
                    std::to_string(id.slot) + "@" + connection.core());
  }
  return lines;
}
template <typename Entry>
std::vector<std::string> Lines(const std::vector<Entry>& page) {
  return Lines(google::protobuf::RepeatedPtrField<Entry>(page.begin(), page.end()));
}

inline std::string Padded(const std::string& id, size_t size) {
  return id + std::string(size - id.size(), 'x');
}

}  // namespace presence::core
