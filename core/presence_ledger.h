// What the store must still be told about connections, and what it has confirmed.
//
// Lives on the hub's thread. Each record of ConnectionTable is a desired state; it is *dirty* while the store is not known to
// agree. Dirty records wait in two queues, each first come, first served: those for which a shard awaits an acknowledgement go in front
// of those that merely repeat what was said. At most writes_in_flight_max writes are in flight, at most one for
// each record. Changes meanwhile coalesce into the next write: no queue holds a record twice, so they are bounded by
// the records. Live ones are bounded by the connections; those of closed ones by removals_max: past it, while the store is away,
// an end is forgotten and left to the sweep.
//
// The queues exist while the ledger *sends*: when the store is up and does not refuse. Otherwise dirty records are only marked, and
// found again by walking over all of them.
//
// A closed connection whose client is expected elsewhere is written as one that lingers, for what is left of that time. The store ends it;
// nothing here waits for that, so a core may die meanwhile. When the store was away until that time was nearly over, it lingers a little
// all the same: the client may be back at another core, which is about to say so.
//
// A record whose write failed stays dirty, and is written as a re-assert: with the user's last known status and version. When the
// store is back without its state, all live connections are re-asserted that way, and all removals of the last 30 s are repeated.
// When it was only away, what it holds still stands; an entry that has expired is found by a Refresh.
//
// Does not decide who is connected.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <string_view>
#include <vector>

#include "absl/types/span.h"
#include "common/time.h"
#include "core/connection_table.h"
#include "core/hub.h"
#include "core/room_table.h"
#include "core/store.h"

namespace presence::core {

class PresenceLedger {
 public:
  // An event of a shard, and the record that stands for it.
  struct Await {
    uint64_t sequence = 0;
    ConnectionTable::Ref record;
  };
  struct MissingEntries {
    LinkId link;
    std::vector<ConnectionTable::Ref> connections;
  };

  // A live connection that the store does not let in: kRevoked or kTooMany. It is to be sent away.
  struct Refusal {
    ConnectionIndex connection;
    WriteResult::Outcome why = WriteResult::Outcome::kRevoked;
  };

  // All must outlive the ledger.
  PresenceLedger(const HubOptions& options, Store& store, ConnectionTable& connections, const RoomTable& rooms,
                 HubCounters& counters);

  // The record has changed, by the shard's event of that number (0: by no event). That of a closed connection may be gone then.
  void Changed(ConnectionIndex connection, uint64_t sequence);
  // The record is as it was, but an event says it again: await the confirmation that may still be under way.
  void Repeated(ConnectionIndex connection, uint64_t sequence);
  // A higher attach, at another core, has taken over the entry: nothing is written of it any more, a removal least of all, since that
  // might come before the other core's assert. Forgets the record, at once or when what is in flight is answered.
  // REQUIRES: just closed, and not Changed since.
  void TakenOver(ConnectionIndex connection);
  // Its shard is away for so long that another core may have told the store of its end, and the store have forgotten that: nothing is
  // written of it, come what may, before it has Changed. REQUIRES: live.
  void Withhold(ConnectionIndex connection);
  // The client is not expected any more: the entry of this closed connection lingers no longer. REQUIRES: expected.
  void EndExpected(ConnectionIndex connection);
  // The store may have lost the entry. Nothing for one that is closed, dirty, withheld, or taken over by a higher attach.
  void Reassert(ConnectionTable::Ref connection);
  // The same for every live connection.
  void ReassertAll();

  // What stands for this event is confirmed by the store. A record that is gone is.
  bool Confirmed(const Await& await) const;

  // The client of each connection has sent something. One Refresh for those whose entry is in the store, as it should be.
  void Refresh(LinkId link, absl::Span<const ConnectionIndex> alive, absl::Span<const ConnectionIndex> pinged);
  // Those of the Refresh that the store does not have. Empty for an answer that is not awaited any more.
  MissingEntries Refreshed(uint64_t id, absl::Span<const uint32_t> missing);

  // The link is closed: what it still awaits is void.
  void LinkGone(LinkId link);

  void OnStoreUp(Now now, bool lost_state);
  void OnStoreDown();
  std::optional<Refusal> OnWritten(Now now, uint64_t id, const WriteResult& result);
  // The record whose write OnWritten would answer by this id; nothing: none awaits it.
  std::optional<ConnectionIndex> RecordOf(uint64_t id) const;
  // Ends the memory of old removals.
  void OnTick(Now now);
  // Sends what is dirty, as far as the window allows.
  void Send(Now now);

  bool store_up() const { return store_up_; }
  // Up, and it has not refused a write within the last second.
  bool sending() const { return sending_; }
  size_t in_flight() const { return in_flight_; }
  size_t dirty() const { return dirty_; }
  size_t refreshes_unanswered() const { return refreshes_.size(); }

 private:
  // A Refresh that is not answered.
  struct RefreshBatch {
    uint64_t id = 0;
    LinkId link;
    std::vector<ConnectionTable::Ref> connections;
  };
  struct KeptRemoval {
    ConnectionIndex connection;
    SteadyTime until;
  };

  void MarkDirty(ConnectionIndex index);
  // The shard awaits the record from this event on: not behind others any more.
  void Want(ConnectionIndex index, uint64_t sequence);
  // REQUIRES: dirty, not in flight, in no queue.
  void Queue(ConnectionIndex index);
  // The next record to be written; or none, if its place was void. REQUIRES: a queue is not empty.
  ConnectionIndex TakeNext();
  void StopSending();
  void StartSending();
  void BoundRemovals(ConnectionIndex added);
  void ForgetOldestKept();
  void ReassertFirst(Now now, const User& user);
  void Write(Now now, ConnectionIndex index);

  const HubOptions& options_;
  Store& store_;
  ConnectionTable& connections_;
  const RoomTable& rooms_;
  HubCounters& counters_;

  bool store_up_ = false;
  bool sending_ = false;
  SteadyTime paused_until_;  // after a write that failed although the store is up
  // While sending: what is dirty and not in flight. One that is awaited after all stands in both, and is passed over in the second.
  std::deque<ConnectionIndex> awaited_, behind_;
  uint32_t turns_ = 0;
  size_t dirty_ = 0;
  size_t in_flight_ = 0;
  uint32_t last_write_ = 0;
  std::deque<KeptRemoval> kept_;  // confirmed removals, oldest first; none of them dirty or in flight
  std::deque<RefreshBatch> refreshes_;
  uint64_t last_refresh_ = 0;
  std::vector<RefreshEntry> refresh_entries_;  // of one call; kept for its capacity
  std::vector<std::string_view> room_ids_;     // of one write
};

}  // namespace presence::core
