// What a shard must repeat to the next core when it loses its link: joins and leaves that nobody has answered, and closes that
// nobody has acknowledged. Opens and statuses are not in here: the declaration after each Welcome says them anew.
//
// Lives on the shard's thread. Sequences are appended in ascending order, with gaps. Does not own what it refers to (rooms of the
// ForwardingTable, users of the UserTable): whoever takes an entry out releases those.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>

#include "common/time.h"
#include "edge/forwarding_table.h"
#include "edge/user_table.h"
#include "presence/link/v1/link.pb.h"

namespace presence::edge {

struct HeldRequest {
  uint64_t sequence = 0;
  uint64_t connection = 0;  // ConnectionId, packed
  RoomIndex room;
  // For the confirmation. UNSPECIFIED: the client is told nothing, since it has not asked and is not in the room.
  link::v1::RoomKind kind = link::v1::ROOM_KIND_UNSPECIFIED;
  bool join = false;  // or a leave
  bool answered = false;
};

struct HeldClose {
  uint64_t sequence = 0;
  uint64_t connection = 0;
  UserIndex user;
  SteadyTime held_until;  // the client was sent to another edge; in the past: it is gone
};

class EventLog {
 public:
  void Add(const HeldRequest& request) { requests_.push_back(request); }
  void Add(const HeldClose& close) { closes_.push_back(close); }

  // The unanswered request with this sequence, which is answered by that. None: there is no such request (any more).
  std::optional<HeldRequest> Answer(uint64_t sequence, bool join);

  // The latest unanswered request of this connection about this room. `unanswered` is how many the connection has in here: 0 makes
  // it free, others cost a look at each request from the newest on until all of them were seen.
  std::optional<HeldRequest> Newest(uint64_t connection, RoomIndex room, uint32_t unanswered) const;

  // Takes out everything up to this sequence; visits what was unanswered.
  template <typename RequestVisitor, typename CloseVisitor>
  void Acknowledge(uint64_t sequence, RequestVisitor&& on_request, CloseVisitor&& on_close) {
    while (!requests_.empty() && requests_.front().sequence <= sequence) {
      if (!requests_.front().answered) on_request(requests_.front());
      requests_.pop_front();
    }
    while (!closes_.empty() && closes_.front().sequence <= sequence) {
      on_close(closes_.front());
      closes_.pop_front();
    }
  }

  // Takes out every unanswered request for which `dead` holds, and forgets the answered ones; visits what it takes out.
  template <typename Predicate, typename RequestVisitor>
  void Purge(Predicate&& dead, RequestVisitor&& on_request) {
    std::deque<HeldRequest> kept;
    for (const HeldRequest& request : requests_) {
      if (request.answered) continue;
      if (dead(request)) {
        on_request(request);
      } else {
        kept.push_back(request);
      }
    }
    requests_.swap(kept);
  }

  // Everything that is unanswered and unacknowledged, in order of sequence.
  template <typename RequestVisitor, typename CloseVisitor>
  void VisitInOrder(RequestVisitor&& on_request, CloseVisitor&& on_close) const {
    auto close = closes_.begin();
    for (const HeldRequest& request : requests_) {
      if (request.answered) continue;
      for (; close != closes_.end() && close->sequence < request.sequence; ++close) on_close(*close);
      on_request(request);
    }
    for (; close != closes_.end(); ++close) on_close(*close);
  }

  std::optional<HeldClose> DropOldestClose();

  // Answered ones that are not acknowledged yet included: they take memory, too.
  size_t requests() const { return requests_.size(); }
  size_t closes() const { return closes_.size(); }

 private:
  std::deque<HeldRequest> requests_;
  std::deque<HeldClose> closes_;
};

}  // namespace presence::edge
