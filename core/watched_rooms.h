// Which rooms somebody on this core watches, and who is in them, on all cores.
//
// Loop thread. Asked for once a second, in queries that name what each core has said last: an answer holds only what has changed, and
// may end early (link.proto, WatchedRoomsReply). Invariants:
//   * a user is a member of a watched room exactly while one core, as last heard, names it;
//   * a core that is missing in a complete answer is gone; one that is missing in incomplete ones for core_keep is taken for gone;
//   * an answer to a query from before a room was added says nothing about it: it may leave out what another watcher knew.
// Does not send and does not know watchers' queues.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/types/span.h"
#include "common/time.h"
#include "core/id_map.h"
#include "presence/link/v1/link.pb.h"

namespace presence::core {

class WatchedRooms {
 public:
  struct Limits {
    size_t rooms_max = 10'000;
    size_t members_max = 100'000;  // of one room; a core names some 27,000 at most
    std::chrono::milliseconds core_keep{10'000};
  };
  static constexpr size_t kRoomsPerQuery = 1'000;  // link.proto

  explicit WatchedRooms(Limits limits) : limits_(limits) {}

  // One more watcher of the room. False: too many rooms.
  bool Add(std::string_view room_id);
  void Remove(std::string_view room_id);

  // All cores have said who is in it, at least once.
  bool Known(std::string_view room_id) const;
  // In byte order; one list for all who ask before it changes. REQUIRES: added.
  std::shared_ptr<const std::vector<std::string>> Members(std::string_view room_id) const;
  bool IsMember(std::string_view room_id, std::string_view user_id) const;

  struct Query {
    uint64_t number = 0;
    link::v1::WatchedRoomsQuery body;
  };
  // For all rooms, or only for those that are not asked for yet, or were not answered about for want of space.
  std::vector<Query> Queries(bool only_new);

  struct Change {
    std::string room_id;
    bool first = false;                     // known from now on: its members are those of Members
    std::vector<std::string> joined, left;  // in byte order; empty with `first`
    bool too_large = false;
  };
  struct Answered {
    std::vector<Change> changes;
    bool ask_again = false;  // an answer has ended early: Queries(only_new) has the rest
  };
  // `complete`: all live cores have answered; who is missing is gone.
  Answered OnAnswers(SteadyTime now, const Query& query, bool complete,
                     absl::Span<const link::v1::ClusterReply> replies);

  size_t size() const { return rooms_.size(); }

 private:
  struct CoreMembers {
    uint64_t state = 0;
    uint64_t answered = 0;  // number of the last query
    std::optional<SteadyTime> missing_since;
    bool cut = false;  // it has more than it can say
    std::vector<std::string> user_ids;
  };
  struct Room {
    uint64_t added_after = 0;  // number of the last query before
    size_t watchers = 0;
    bool asked = false, known = false;
    std::map<uint64_t, CoreMembers> cores;
    IdMap<uint32_t> members;                                         // user -> how many cores name it
    mutable std::shared_ptr<const std::vector<std::string>> sorted;  // those, while nobody has come or gone since
  };

  static void Replace(Room& room, CoreMembers& core, std::vector<std::string> user_ids, Change& change);
  // Forgets the cores that the answer says are gone.
  void DropCores(SteadyTime now, uint64_t query, bool whole, Room& room, Change& change);
  static void Settle(Change& change);

  const Limits limits_;
  uint64_t last_query_ = 0;
  std::map<std::string, Room, std::less<>> rooms_;
};

}  // namespace presence::core
