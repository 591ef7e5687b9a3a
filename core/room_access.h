// What is known of the rights of users to rooms, where somebody else has to be asked: answers with their lifetimes, questions under way,
// and the joins that wait for them. A pure machine; a part of the hub.
//
// Lives on the hub's thread. One row for each pair of user and room. A row is *fresh* for the lifetime of its answer: a join needs a fresh
// one. When that ends and the user is still in the room, it is asked again, at most checks_max of such questions at a time; else the row is
// forgotten. While nobody answers, who is in a room stays in it until `grace` after the end of the last answer. Invariants:
//   * a row has at most one question under way, and is in the queue of what is due exactly while it has none;
//   * rows are at most rows_max more than there are memberships of connections in rooms: over it one that serves nobody makes place;
//   * at most joins_max joins wait.
// A row is some 250 B: 200,000 of them are 50 MB. Does not know links and sends nothing to them: what an answer means is the hub's.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/btree_map.h"
#include "common/room_rights.h"
#include "common/time.h"
#include "core/connection_table.h"
#include "core/hub.h"
#include "core/room_authorizer.h"
#include "core/room_table.h"

namespace presence::core {

// A join that is not answered.
struct WaitingJoin {
  LinkId link;
  ConnectionTable::Ref connection;
  uint64_t sequence = 0;
};

class RoomAccess {
 public:
  struct Pair {
    std::string_view user_id, room_id;
  };

  // Null: nobody is to be asked, and nothing of this is called.
  RoomAccess(const RoomAccessOptions& options, RoomAuthorizer* authorizer, const ConnectionTable& connections,
             const RoomTable& rooms)
      : options_(options), authorizer_(authorizer), connections_(connections), rooms_(rooms) {}

  // What a fresh row says.
  std::optional<RoomRight> Fresh(SteadyTime now, Pair pair) const;
  // What was last answered, unless it is to be forgotten.
  std::optional<RoomRight> LastKnown(Pair pair) const;

  // The join is among those of the next answer about this pair. False: too many wait.
  bool Wait(SteadyTime now, Pair pair, const WaitingJoin& join);
  // Asks, unless that is under way. False: too many rows.
  bool AskNow(SteadyTime now, Pair pair);
  // The user is in the room, and whether that is right is to be asked when its turn comes.
  void Check(SteadyTime now, Pair pair);
  // The connection leaves the room: its joins do not wait any more, but for those that its link has brought behind that.
  std::vector<WaitingJoin> Cancel(Pair pair, const WaitingJoin& leave);

  struct Verdict {
    std::string user_id, room_id;
    RoomAnswer answer;
    bool lost = false;  // who is in the room must leave it
    std::vector<WaitingJoin> joins;
  };
  // Nothing: that question does not count any more.
  std::optional<Verdict> OnAnswer(SteadyTime now, uint64_t question, const RoomAnswer& answer);

  // Asks again what is due, and forgets what serves nobody. At ticks, and after answers.
  void AskDue(SteadyTime now);

  // What is known of these is not known any more, and due; empty: of every user, to every room. How many there were.
  size_t Forget(SteadyTime now, Pair pair);

  size_t rows() const { return rows_.size(); }
  size_t asked() const { return questions_.size(); }
  size_t joins_waiting() const { return joins_; }
  uint64_t questions() const { return last_question_; }

 private:
  struct Row {
    uint64_t number = 0;  // of its kind: orders what is due at the same time
    RoomRight right = RoomRight::kNone;
    bool known = false;
    bool check = false;      // the question under way is one of AskDue
    uint64_t question = 0;   // under way; 0: none
    SteadyTime fresh_until;  // the end of the last answer, or when the row came into being
    SteadyTime due;          // without a question
    std::vector<WaitingJoin> joins;
  };
  // By user, NUL, room: ids hold no NUL, and the rows of a user are neighbours.
  using Rows = std::map<std::string, Row, std::less<>>;

  static std::string KeyOf(Pair pair) { return std::string(pair.user_id).append(1, '\0').append(pair.room_id); }
  static Pair PairOf(const std::string& key);
  // A new row, which has no question and is not due yet: the caller sees to one of both. End: there is no space.
  Rows::iterator FindOrAdd(SteadyTime now, Pair pair, bool in_use);
  bool MakeSpace();
  // With any connection of this core.
  bool IsInRoom(Pair pair) const;
  void Erase(Rows::iterator row);
  void SetDue(Rows::iterator row, SteadyTime at);
  void Ask(Rows::iterator row, bool check);
  void EndQuestion(Row& row);

  const RoomAccessOptions options_;
  RoomAuthorizer* const authorizer_;
  const ConnectionTable& connections_;
  const RoomTable& rooms_;
  Rows rows_;
  absl::btree_map<std::pair<SteadyTime, uint64_t>, Rows::iterator> due_;
  absl::btree_map<uint64_t, Rows::iterator> questions_;
  size_t joins_ = 0;
  size_t checks_ = 0;  // questions of AskDue under way
  uint64_t last_row_ = 0, last_question_ = 0;
};

}  // namespace presence::core
