#include "core/presence_ledger.h"

#include <algorithm>
#include <utility>

#include "common/check.h"

namespace presence::core {
namespace {

// How long a confirmed removal is repeated to a store that has been away: what Redis loses in a crash or a failover is seconds.
constexpr std::chrono::seconds kRemovalKept{30};
// A store that is up and refuses a write (read-only, out of memory) is not asked again before.
constexpr std::chrono::seconds kRetryAfter{1};
// A store that hears of a hold only when it is over, since it was away, holds on for so long: by then every core has told it who is here.
constexpr std::chrono::seconds kHoldUnheard{5};
// A shard reports once a second and the store answers within 2 s; more than that for one link means that it stalls, and entries
// live for a minute without a refresh.
constexpr std::ptrdiff_t kRefreshesMax = 4;

// Where both queues wait, every so many writes one is of the second: clients who open and close faster than the store writes must not
// keep the re-asserts of the others out for good.
constexpr uint32_t kOneBehindIn = 8;

// A shard awaits the confirmation of what the record stands for.
bool Awaited(const Connection& connection) {
  return connection.wanted_sequence > connection.confirmed_sequence;
}

// For how long the user is to be shown as before; in the past, or never: not any more.
Duration HoldLeft(Now now, const Connection& closed) {
  const Duration left = closed.expected_until() - now.steady;
  const bool unheard = closed.reassert && !closed.gone && closed.expected_until() != SteadyTime();
  return unheard ? std::max<Duration>(left, kHoldUnheard) : left;
}

// The id of a write names the record and the write, so that an answer finds one and recognises the other.
constexpr uint64_t WriteId(ConnectionIndex index, uint32_t write) {
  return (uint64_t{write} << 32) | index.value();
}

void Learn(User& user, const WriteResult& result) {
  if (result.user_version < user.known_version || result.user_status == link::v1::STATUS_UNSPECIFIED) return;
  user.known_version = result.user_version;
  user.known_status = static_cast<uint8_t>(result.user_status);
}

}  // namespace

PresenceLedger::PresenceLedger(const HubOptions& options, Store& store, ConnectionTable& connections,
                               const RoomTable& rooms, HubCounters& counters)
    : options_(options), store_(store), connections_(connections), rooms_(rooms), counters_(counters) {}

void PresenceLedger::Changed(ConnectionIndex index, uint64_t sequence) {
  Connection& connection = connections_[index];
  Want(index, sequence);
  connection.fenced = false;
  connection.gone = false;
  MarkDirty(index);
  if (!connection.live) BoundRemovals(index);
}

void PresenceLedger::Repeated(ConnectionIndex index, uint64_t sequence) {
  Connection& connection = connections_[index];
  Want(index, sequence);
  if (connection.dirty) return;
  // What is in flight, or already confirmed, is all of it.
  connection.sent_sequence = connection.wanted_sequence;
  if (connection.write_in_flight == 0) connection.confirmed_sequence = connection.wanted_sequence;
}

void PresenceLedger::TakenOver(ConnectionIndex index) {
  Connection& connection = connections_[index];
  PRESENCE_CHECK(!connection.live, "a live connection is this core's");
  if (connection.dirty) --dirty_;
  connection.dirty = false;  // its place in a queue is void
  connection.fenced = true;
  if (connection.write_in_flight == 0) connections_.Forget(index);
}

void PresenceLedger::Withhold(ConnectionIndex index) {
  Connection& connection = connections_[index];
  PRESENCE_CHECK(connection.live, "an end is told, whoever has the shard");
  if (connection.dirty) --dirty_;
  connection.dirty = connection.reassert = false;  // its place in a queue is void
  connection.fenced = true;
}

void PresenceLedger::EndExpected(ConnectionIndex index) {
  connections_.EndExpected(index);
  // Of one whose end is confirmed, and kept for a while, another record tells the new one.
  Changed(connections_[index].gone ? connections_.AddAgain(index) : index, 0);
}

void PresenceLedger::Reassert(ConnectionTable::Ref ref) {
  if (!connections_.records().Holds(ref)) return;
  Connection& connection = connections_[ref.index];
  if (!connection.live || connection.dirty || connection.fenced || connection.write_in_flight != 0) return;
  connection.reassert = true;
  MarkDirty(ref.index);
}

void PresenceLedger::ReassertAll() {
  const ConnectionTable::Slab& records = connections_.records();
  for (uint32_t i = 0; i < records.end(); ++i) {
    const ConnectionIndex index(i);
    if (records.used(index)) Reassert(records.RefTo(index));
  }
}

void PresenceLedger::MarkDirty(ConnectionIndex index) {
  Connection& connection = connections_[index];
  if (connection.dirty) return;
  connection.dirty = true;
  ++dirty_;
  if (connection.write_in_flight == 0) Queue(index);
}

void PresenceLedger::Want(ConnectionIndex index, uint64_t sequence) {
  Connection& connection = connections_[index];
  const bool was_awaited = Awaited(connection);
  connection.wanted_sequence = std::max(connection.wanted_sequence, sequence);
  const bool queued = sending_ && connection.dirty && connection.write_in_flight == 0;
  if (queued && !was_awaited && Awaited(connection)) awaited_.push_back(index);
}

void PresenceLedger::Queue(ConnectionIndex index) {
  if (!sending_) return;
  Connection& connection = connections_[index];
  if (Awaited(connection)) {
    awaited_.push_back(index);
  } else if (!connection.behind) {  // else it has passed itself, and its old place serves
    connection.behind = true;
    behind_.push_back(index);
  }
}

ConnectionIndex PresenceLedger::TakeNext() {
  const bool from_behind = awaited_.empty() || (!behind_.empty() && ++turns_ % kOneBehindIn == 0);
  std::deque<ConnectionIndex>& queue = from_behind ? behind_ : awaited_;
  const ConnectionIndex index = queue.front();
  queue.pop_front();
  Connection& connection = connections_[index];
  // One that was taken over has left its place behind; its row may even be another's by now.
  bool stands = connection.dirty && connection.write_in_flight == 0;
  if (from_behind) {
    connection.behind = false;
    // One that is awaited meanwhile has a place in the other queue, or has gone from there.
    stands = stands && !Awaited(connection);
  }
  return stands ? index : kNoConnection;
}

void PresenceLedger::BoundRemovals(ConnectionIndex added) {
  if (connections_.records().size() - connections_.live() <= options_.removals_max) return;
  if (!kept_.empty()) return ForgetOldestKept();
  // What is queued will be written soon, what is in flight will be answered.
  if (sending_ || connections_[added].write_in_flight != 0) return;
  ++counters_.removals_forgotten;
  --dirty_;
  connections_[added].dirty = false;
  connections_.Forget(added);
}

void PresenceLedger::StopSending() {
  sending_ = false;
  awaited_.clear();
  for (const ConnectionIndex index : behind_) connections_[index].behind = false;
  behind_.clear();
}

void PresenceLedger::StartSending() {
  StopSending();
  sending_ = true;
  const ConnectionTable::Slab& records = connections_.records();
  for (uint32_t i = 0; i < records.end(); ++i) {
    const ConnectionIndex index(i);
    if (records.used(index) && connections_[index].dirty && connections_[index].write_in_flight == 0) Queue(index);
  }
}

bool PresenceLedger::Confirmed(const Await& await) const {
  return !connections_.records().Holds(await.record) ||
         connections_[await.record.index].confirmed_sequence >= await.sequence;
}

void PresenceLedger::Send(Now now) {
  if (!sending_) {
    if (!store_up_ || now.steady < paused_until_) return;
    StartSending();
  }
  while ((!awaited_.empty() || !behind_.empty()) && in_flight_ < options_.writes_in_flight_max) {
    const ConnectionIndex index = TakeNext();
    if (index == kNoConnection) continue;
    if (!connections_[index].live) ReassertFirst(now, connections_.user(connections_[index]));
    Write(now, index);
  }
}

// A store that has lost its data would take a user for gone whose one device it hears of as gone before it hears of the others again.
// Those may exceed writes_in_flight_max, by the devices of one user.
void PresenceLedger::ReassertFirst(Now now, const User& user) {
  for (ConnectionIndex device = user.first_live; device != kNoConnection; device = connections_[device].next_of_user) {
    const Connection& connection = connections_[device];
    if (connection.dirty && connection.reassert && connection.write_in_flight == 0) Write(now, device);
  }
}

void PresenceLedger::Write(Now now, ConnectionIndex index) {
  Connection& connection = connections_[index];
  const User& user = connections_.user(connection);
  if (++last_write_ == 0) ++last_write_;
  connection.write_in_flight = last_write_;
  connection.dirty = false;
  --dirty_;
  connection.sent_sequence = connection.wanted_sequence;
  ++in_flight_;

  PresenceWrite write;
  write.id = WriteId(index, last_write_);
  write.key = {connection.incarnation, connection.id};
  write.attach = connection.attach;
  write.user_id = user.id;
  write.username = user.username;
  if (connection.live) {
    write.kind = connection.reassert ? PresenceWrite::Kind::kReassert : PresenceWrite::Kind::kAssert;
    write.status = connection.device_status();
    write.silent_for =
        std::max(std::chrono::milliseconds(0),
                 std::chrono::duration_cast<std::chrono::milliseconds>(now.steady - connection.last_frame));
    room_ids_.clear();
    if (options_.scope == PresenceScope::kRooms) {
      for (const Membership& membership : connection.rooms) room_ids_.push_back(rooms_.id(membership.room));
    }
    write.room_ids = room_ids_;
    write.session_id = connections_.session_id(connection);
    write.issued_at_ms = int64_t{connection.issued_at_s} * 1000;
    write.newcomer = connection.newcomer;
    if (connection.reassert) ++counters_.reasserted;
  } else if (const Duration left = HoldLeft(now, connection); left > Duration::zero()) {
    write.kind = PresenceWrite::Kind::kLinger;
    write.linger_for = std::chrono::ceil<std::chrono::milliseconds>(left);
  } else {
    write.kind = PresenceWrite::Kind::kRemove;
  }
  if (write.kind != PresenceWrite::Kind::kAssert) {
    // Who was still there when this end was confirmed is so by others, of whom their core tells: a store that has lost its data must not
    // take the user for gone meanwhile.
    // One that lingers was itself what made the user present.
    const bool removal = write.kind == PresenceWrite::Kind::kRemove;
    const bool others = removal && connection.gone && user.known_status > link::v1::STATUS_OFFLINE;
    if (!others) write.previous_status = static_cast<Status>(user.known_status);
    write.previous_version = user.known_version;
  }
  connection.reassert = false;
  store_.Write(write);
}

std::optional<ConnectionIndex> PresenceLedger::RecordOf(uint64_t id) const {
  const ConnectionIndex index(static_cast<uint32_t>(id));
  const auto write = static_cast<uint32_t>(id >> 32);
  if (index.value() >= connections_.records().end() || write == 0) return std::nullopt;
  return connections_[index].write_in_flight == write ? std::optional(index) : std::nullopt;
}

std::optional<PresenceLedger::Refusal> PresenceLedger::OnWritten(Now now, uint64_t id, const WriteResult& result) {
  const std::optional<ConnectionIndex> awaited = RecordOf(id);
  if (!awaited) return std::nullopt;
  const ConnectionIndex index = *awaited;
  Connection& connection = connections_[index];
  connection.write_in_flight = 0;
  --in_flight_;
  const bool let_be = connection.fenced;  // taken over or withheld, since this was sent
  const bool taken_over = !connection.live && let_be;
  if (result.outcome == WriteResult::Outcome::kUnavailable) {
    // Whether it was applied is not known; the events that it stood for wait on, with the next write.
    if (taken_over) {
      connections_.Forget(index);
    } else if (!let_be) {
      MarkDirty(index);
      connection.reassert = true;
    }
    paused_until_ = now.steady + kRetryAfter;
    StopSending();
    return std::nullopt;
  }
  connection.confirmed_sequence = connection.sent_sequence;
  Learn(connections_.user(connection), result);
  const bool fenced = result.outcome == WriteResult::Outcome::kFenced;
  if (fenced) ++counters_.fenced;
  const bool refused =
      result.outcome == WriteResult::Outcome::kRevoked || result.outcome == WriteResult::Outcome::kTooMany;
  if (!refused) connection.newcomer = false;
  // What it stood for is done with. It remains as it is until its shard has closed it, and is refused again when it is declared again.
  const std::optional<Refusal> refusal =
      refused && connection.live ? std::optional(Refusal{index, result.outcome}) : std::nullopt;
  if (connection.dirty) {
    Queue(index);
    return refusal;
  }
  if (connection.live) {
    connection.written = !fenced && !refused;
    connection.fenced = fenced || let_be;
  } else if (fenced || taken_over) {
    connections_.Forget(index);  // a higher attach has the entry: a repetition would be refused again
  } else {
    connection.gone = true;
    kept_.push_back({index, now.steady + kRemovalKept});
  }
  return refusal;
}

void PresenceLedger::LinkGone(LinkId link) {
  std::erase_if(refreshes_, [link](const RefreshBatch& batch) { return batch.link == link; });
}

void PresenceLedger::OnStoreUp(Now now, bool lost_state) {
  store_up_ = true;
  paused_until_ = now.steady;
  if (lost_state) kept_.clear();  // they are written anew below, and kept from then on: that may be lost, too
  const ConnectionTable::Slab& records = connections_.records();
  for (uint32_t i = 0; i < records.end(); ++i) {
    const ConnectionIndex index(i);
    if (!records.used(index)) continue;
    Connection& connection = connections_[index];
    if (!connection.dirty && (!lost_state || connection.fenced)) continue;
    connection.reassert = true;
    MarkDirty(index);
  }
  StartSending();
}

void PresenceLedger::OnStoreDown() {
  store_up_ = false;
  StopSending();
  refreshes_.clear();  // an answer that still comes is ignored
}

void PresenceLedger::OnTick(Now now) {
  // While the store is away nothing is forgotten: what it will have lost lies before its end.
  while (store_up_ && !kept_.empty() && now.steady >= kept_.front().until) ForgetOldestKept();
}

void PresenceLedger::ForgetOldestKept() {
  connections_.Forget(kept_.front().connection);
  kept_.pop_front();
}

void PresenceLedger::Refresh(LinkId link, absl::Span<const ConnectionIndex> alive,
                             absl::Span<const ConnectionIndex> pinged) {
  if (!store_up_) return;
  const auto of_link = std::count_if(refreshes_.begin(), refreshes_.end(),
                                     [link](const RefreshBatch& batch) { return batch.link == link; });
  if (of_link >= kRefreshesMax) return;
  RefreshBatch batch{last_refresh_ + 1, link, {}};
  refresh_entries_.clear();
  const auto add = [&](ConnectionIndex index, bool has_pinged) {
    const Connection& connection = connections_[index];
    if (!connection.written || connection.dirty || connection.write_in_flight != 0) return;
    refresh_entries_.push_back(
        {{connection.incarnation, connection.id}, connection.attach, connections_.user(connection).id, has_pinged});
    batch.connections.push_back(connections_.records().RefTo(index));
  };
  for (const ConnectionIndex index : alive) add(index, false);
  for (const ConnectionIndex index : pinged) add(index, true);
  if (refresh_entries_.empty()) return;
  ++last_refresh_;
  refreshes_.push_back(std::move(batch));
  store_.Refresh(last_refresh_, refresh_entries_);
}

PresenceLedger::MissingEntries PresenceLedger::Refreshed(uint64_t id, absl::Span<const uint32_t> missing) {
  MissingEntries result;
  const auto batch = std::find_if(refreshes_.begin(), refreshes_.end(),
                                  [id](const RefreshBatch& candidate) { return candidate.id == id; });
  if (batch == refreshes_.end()) return result;
  result.link = batch->link;
  for (const uint32_t position : missing) {
    if (position < batch->connections.size()) result.connections.push_back(batch->connections[position]);
  }
  refreshes_.erase(batch);
  return result;
}

}  // namespace presence::core
