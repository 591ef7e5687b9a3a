// What a core answers when another one asks who is where (link.proto, "a core asks all cores"), and how the answers of several cores
// become one page.
//
// Pure functions: the answers on the hub's thread, over its tables; the merges anywhere, over messages. Rules of all of them:
//   * Only live connections count. Those of a shard whose link is lost are live until EDGE_GRACE ends; if it is attached to another
//     core by then, both count them until that end, 5 s by default. ConnectionsPage alone can tell, see MergeConnections.
//   * Keys are in byte order, or connections in the order of (incarnation, packed id). `after` is a key that need not exist any more.
//   * An answer ends at its limit or at 1 MiB, but holds at least one entry when there is one. `more` says that it was cut.
//   * A limit of 0 counts as 1, one above kQueryLimitMax as that.
// Does not check who asks, nor ids: a room or user that does not exist here is an empty answer, not an error.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/types/span.h"
#include "common/time.h"
#include "core/connection_table.h"
#include "core/room_table.h"
#include "presence/link/v1/link.pb.h"

namespace presence::core {

inline constexpr uint32_t kQueryLimitMax = 10'000;
inline constexpr size_t kAnswerBytesMax = 1 << 20;
inline constexpr size_t kRoomIdsBytesMax = 8 << 10;  // of one ConnectionState
inline constexpr int kWatchedRoomsMax = 1'000;       // of one query

// --- This core's part. `reply` is empty before.

void AnswerRooms(const link::v1::RoomsQuery& query, const RoomTable& rooms, link::v1::RoomsReply* reply);

// One pass over the room's connections, keeping one page: 1.5 ms for a page of 1,000 out of 15,000, 30 ms out of a million.
void AnswerMembers(const link::v1::MembersQuery& query, const ConnectionTable& connections, const RoomTable& rooms,
                   link::v1::MembersReply* reply);

// Of a user, or of all edges of that name: an edge that was started again is another incarnation of the same name.
void AnswerConnections(const link::v1::ConnectionsQuery& query, Now now, const ConnectionTable& connections,
                       const RoomTable& rooms, std::string_view core_name, link::v1::ConnectionsReply* reply);

// `core`: the incarnation of this one, by which the query says what is known of it. Rooms are looked at in the order of the query;
// one whose users do not fit any more ends the answer before it, or is cut when it would be the first. 3 ms for a room of 15,000, 50 ms
// for one of a million, of which it names 27,000.
void AnswerWatchedRooms(const link::v1::WatchedRoomsQuery& query, uint64_t core, const ConnectionTable& connections,
                        const RoomTable& rooms, link::v1::WatchedRoomsReply* reply);

// --- All cores' parts together. `replies`: at most one of each core, in any order that is the same each time. One with a code or with
// another body counts as an empty, complete answer: whoever needs all cores looks at the codes first. A page ends at `limit`, and where
// the first of the cut answers ends: behind that a core may have something that it has not told. `more`: something follows, or may.

struct RoomsPage {
  std::vector<link::v1::RoomCount> rooms;  // connections added up
  bool more = false;
};
RoomsPage MergeRooms(absl::Span<const link::v1::ClusterReply> replies, uint32_t limit);

struct MembersPage {
  uint64_t connections = 0;                    // in the whole room; 0: it does not exist
  std::vector<link::v1::MemberCount> members;  // connections added up; username: the first that is not empty
  bool more = false;
};
MembersPage MergeMembers(absl::Span<const link::v1::ClusterReply> replies, uint32_t limit);

struct ConnectionsPage {
  std::vector<link::v1::ConnectionState> connections;
  bool more = false;
};
// A connection that two cores name, since its shard has moved and one has not given it up yet, is there once: as the core with the
// higher attach tells it. (Its silence would not do: the former core hears of the last frames up to a second late, and so believes them to
// be younger.) The same attach cannot be on two cores; the earlier answer would win.
ConnectionsPage MergeConnections(absl::Span<const link::v1::ClusterReply> replies, uint32_t limit);

}  // namespace presence::core
