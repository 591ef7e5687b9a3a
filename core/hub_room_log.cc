// Rooms with logs: what was acknowledged reaches each member once, in order, whatever links and the bus went through meanwhile.
//
// Of each room each shard has a position (RoomShard). What the bus brings goes to those shards that are just in front of it. A shard that
// is not - its link was lost, or this core did not hear the bus - is *behind*: it gets everything from the log, page by page, until it
// has caught up with what the bus has brought meanwhile. Positions are the shard's own word after a resync. Where the log does not go back
// far enough, or Redis has lost a part of it, the members are told that there may be a gap; so are those who came while the store was away,
// as soon as there is a position for them.
//
// What Redis has lost, whoever reads finds out: each read names as far as this core has seen the room, by the bus, by a shard's word, or by
// the store's own answer to an append. A store that comes up as another run is read for every room with members here, and for those that this
// core has lately had a message acknowledged for.
#include <algorithm>
#include <utility>

#include "core/hub_state.h"

namespace presence::core {
namespace {

constexpr std::chrono::seconds kReadAgainAfter{1};
constexpr uint32_t kUnavailable = 503, kForbidden = 403;

// Whether what is at `position` needs nothing of what was heard.
bool IsUpTo(RoomPosition position, RoomPosition heard) {
  return !heard.known() || !IsBefore(position, heard);
}

// Of what stands in a log.
const std::string& RoomIdOf(const link::v1::BusEnvelope& envelope) {
  return envelope.has_room_lost() ? envelope.room_lost().room_id() : envelope.message().room_id();
}

}  // namespace

// ------------------------------------------------------------------------------------------------------------- appending

void Hub::State::Append(const MessageRequest& message, uint64_t gather, link::v1::BusEnvelope envelope,
                        std::string_view copy) {
  using Logged = Publications::Logged;
  envelope.set_core(options_.incarnation);
  const Logged how = message.request_id.empty() ? Logged::kAnyNumber : Logged::kOnce;
  const link::v1::BusEnvelope& added = publications_.AddLogged(gather, std::move(envelope), how);
  store_.Append(gather, message.request_id, message.fingerprint, added, copy);
}

void Hub::State::OnAppended(Now now, uint64_t id, const AppendResult& result) {
  using Outcome = OnceResult::Outcome;
  const std::optional<Publications::LoggedMessage> logged = publications_.LoggedAnswered(id);
  if (result.outcome == Outcome::kPublished) {
    ++counters_.room_log_appended;
    if (logged) Acknowledged(now, logged->message.message().room_id(), result.position, logged->back);
    gathers_.Published(id);
    return Settle(now);
  }
  if (logged && logged->IsToBeDelivered()) DeliverUnconfirmed(now, logged->message);
  AnswerUnpublished(now, id, {result.outcome, result.answer});
}

void Hub::State::Acknowledged(Now now, const std::string& room_id, RoomPosition position, bool back) {
  if (Doubt(room_id, acknowledged_.Add(room_id, position))) reads_.Want(room_id);
  const auto room = rooms_.Find(room_id);
  if (!room) return;
  if (NoteSeen(*room, position)) reads_.Want(room_id);
  if (!back) expected_.push_back({now.steady, *room, rooms_.born(*room), position});
}

void Hub::State::DeliverUnconfirmed(Now now, const link::v1::BusEnvelope& message) {
  ++counters_.delivered_locally;
  publications_.DeliveredHere(now.steady, message.message().count_id(), 5 * options_.room_log_age);
  DeliverMessage(now, message);
}

// ----------------------------------------------------------------------------------------------------------- from the bus

void Hub::State::OnLogged(Now now, const link::v1::BusEnvelope& envelope) {
  const link::v1::RoomMessage& message = envelope.message();
  const std::string& room_id = RoomIdOf(envelope);
  const RoomPosition position = PositionOf(envelope);
  const bool mine = envelope.core() == options_.incarnation;
  if (mine) publications_.LoggedCameBack(message.count_id());
  const bool delivered = mine && publications_.WasDeliveredHere(message.count_id());
  if (delivered) ++counters_.loopback_duplicates;
  const bool quietly = delivered || envelope.has_room_lost();
  uint32_t reached = 0;
  if (const auto floor = floors_.find(room_id); floor != floors_.end()) floor->second.heard = position;
  if (const auto room = rooms_.Find(room_id)) {
    reached = fanout_.ToRoom(*room, envelope, [&](RoomShard& entry) { return TakeLive(entry, envelope, quietly); });
    RoomHeard& heard = rooms_.heard(*room);
    if (position.epoch != heard.position.epoch || position.sequence > heard.position.sequence)
      heard.position = position;
    // Of the first of an epoch it is known what was in front of it.
    if (position.sequence == 1 && heard.furthest.epoch < position.epoch &&
        !IsLost(heard.furthest, {position, PreviousOf(envelope)}, position.epoch)) {
      heard.furthest = position;
    }
    const bool doubts = NoteSeen(*room, position);
    const auto shards = rooms_.shards(*room);
    if (doubts || std::any_of(shards.begin(), shards.end(), [](const RoomShard& entry) { return entry.behind; })) {
      reads_.Want(room_id);
      ReadRooms(now);
    }
  }
  if (quietly) return;
  if (taps_.any()) Saw(now, link::v1::TAP_KIND_MESSAGE, {}, room_id, message.text());
  if (message.count_id() != 0 && envelope.core() != 0) ReplyCount(envelope.core(), message.count_id(), reached);
}

bool Hub::State::TakeLive(RoomShard& entry, const link::v1::BusEnvelope& envelope, bool quietly) {
  const RoomPosition position = PositionOf(envelope);
  if (entry.behind) {
    // A shard that is just being declared, in a room that is new here: it has promised nobody anything older.
    if (!entry.position.known()) entry.position = PreviousOf(envelope);
    return false;
  }
  if (!entry.position.known()) {
    TellGap(entry, {});  // it was bound while the store was away
  } else {
    if (position.epoch == entry.position.epoch && position.sequence <= entry.position.sequence) {
      ++counters_.room_log_duplicates;
      return false;
    }
    if (!Follows(entry.position, envelope)) {
      entry.behind = true;
      return false;
    }
  }
  entry.position = position;
  if (quietly) fanout_.Move(entry, entry.position, Fanout::Moved::kQuietly);
  return !quietly;
}

// ---------------------------------------------------------------------------------------------------------------- floors

bool Hub::State::NeedsFloor(std::string_view room_id, const Shard& shard) {
  if (!HasLogs() || !ledger_.store_up()) return false;
  const auto room = rooms_.Find(room_id);
  if (!room) return true;
  const RoomShard* entry = rooms_.FindShard(*room, shard.index);
  return !rooms_.heard(*room).position.known() && (entry == nullptr || entry->IsUnbound());
}

bool Hub::State::AwaitsFloor(const Link& link, ConnectionIndex index, std::string_view room_id) const {
  const auto found = floors_.find(room_id);
  if (found == floors_.end()) return false;
  return std::any_of(found->second.waiting.begin(), found->second.waiting.end(),
                     [&](const FloorWait& wait) { return wait.link == link.id && wait.connection.index == index; });
}

void Hub::State::AwaitFloor(Link& link, ConnectionIndex index, std::string_view room_id, uint64_t sequence) {
  if (link.joins_waiting.size() >= options_.room_access.joins_per_link_max) {
    ++counters_.joins_unchecked;
    return Refuse(link, sequence, kUnavailable, "Too many subscriptions at once");
  }
  link.joins_waiting.insert(sequence);
  const auto [floor, fresh] = floors_.try_emplace(std::string(room_id));
  floor->second.waiting.push_back({link.id, connections_.records().RefTo(index), sequence, /*join=*/true});
  if (!fresh) return;  // it is being read
  ++counters_.room_log_reads;
  const RoomPosition seen = FurthestSeen(room_id, rooms_.Find(room_id));
  const uint64_t id = reads_.Begin({.room_id = std::string(room_id), .seen = seen, .floor = true});
  store_.ReadRoomLog(id, {.room_id = room_id, .seen = seen});
}

bool Hub::State::LeaveAwaitsFloor(Link& link, ConnectionIndex index, std::string_view room_id, uint64_t sequence) {
  if (!AwaitsFloor(link, index, room_id)) return false;
  if (link.joins_waiting.size() >= 2 * options_.room_access.joins_per_link_max) {
    CancelFloors(link, index, room_id);
    return false;
  }
  link.joins_waiting.insert(sequence);
  floors_.find(room_id)->second.waiting.push_back(
      {link.id, connections_.records().RefTo(index), sequence, /*join=*/false});
  return true;
}

void Hub::State::OnFloor(Now now, const std::string& room_id, std::optional<RoomPosition> position) {
  const auto found = floors_.find(room_id);
  if (found == floors_.end()) return;
  const Floor floor = std::move(found->second);
  floors_.erase(found);
  // The bus may have been faster: that is not to be waited for any more.
  if (position && floor.heard.known()) position = floor.heard;
  for (const FloorWait& wait : floor.waiting) {
    Link* link = links_.Find(wait.link);
    if (link == nullptr) continue;  // repeated by the shard, wherever it is now
    link->joins_waiting.erase(wait.sequence);
    const ConnectionIndex index = wait.connection.index;
    if (!connections_.records().Holds(wait.connection) || !connections_[index].live) continue;
    if (!wait.join) {
      Leave(now, *link, index, room_id, wait.sequence);
    } else if (RightOf(now, index, {connections_.user(connections_[index]).id, room_id}) == RoomRight::kNone) {
      ++counters_.joins_forbidden;
      Refuse(*link, wait.sequence, kForbidden, "Not allowed in this room");
    } else {
      Enter(now, *link, index, room_id, wait.sequence, position.value_or(RoomPosition{}));
    }
  }
  ledger_.Send(now);
}

void Hub::State::CancelFloors(Link& link, ConnectionIndex index, std::string_view room_id) {
  const auto found = floors_.find(room_id);
  if (found == floors_.end()) return;
  std::erase_if(found->second.waiting, [&](const FloorWait& wait) {
    if (wait.link != link.id || wait.connection.index != index) return false;
    link.joins_waiting.erase(wait.sequence);
    if (wait.join) Refuse(link, wait.sequence, 0, {});
    return true;
  });
}

// --------------------------------------------------------------------------------------------------------------- resuming

absl::Status Hub::State::OnRoomsSeen(Link& link, const link::v1::RoomsSeen& seen) {
  if (link.phase != Link::Phase::kResync) return absl::InvalidArgumentError("RoomsSeen after ResyncDone");
  for (const link::v1::RoomSeen& each : seen.rooms()) {
    const auto room = rooms_.Find(each.room_id());
    RoomShard* entry = room ? rooms_.FindShard(*room, link.shard->index) : nullptr;
    if (entry == nullptr || entry->handle == 0) continue;
    entry->position = {each.epoch(), each.sequence()};
    entry->unsure = false;
  }
  return absl::OkStatus();
}

void Hub::State::ResumeRooms(Now now, Link& link) {
  if (!HasLogs()) return;
  rooms_.VisitBound(link.shard->index, [&](RoomIndex room, RoomShard& entry) {
    if (!entry.behind && entry.position.known()) return;
    if (std::exchange(entry.unsure, false) && entry.position.known()) TellGap(entry, entry.position);
    // One that is further than the bus has been heard here is read for: perhaps Redis is not there any more.
    if (!entry.position.known() || (ledger_.store_up() && entry.position == rooms_.heard(room).position)) {
      entry.behind = false;
    }
    if (entry.behind || !entry.position.known()) reads_.Want(rooms_.id(room));
  });
  ReadRooms(now);
}

void Hub::State::LoseRooms(Now now) {
  if (!HasLogs()) return;
  // Where the bus alone was lost, reads are still answered, even after it stands again: with a state from before, behind which something may
  // have been published that nobody here has heard.
  reads_.Forget();
  expected_.clear();
  // Who comes now has no position: this one grows old.
  rooms_.VisitBehind({}, [&](RoomIndex room) {
    rooms_.heard(room).position = {};
    return true;
  });
  while (!floors_.empty()) OnFloor(now, std::string(floors_.begin()->first), std::nullopt);
}

void Hub::State::ResumeAllRooms(Now now, bool lost_state) {
  if (!HasLogs()) return;
  rooms_.VisitBehind({}, [&](RoomIndex room) {
    rooms_.heard(room).position = {};  // of a bus that stood without the rest
    for (RoomShard& entry : rooms_.shards(room)) {
      if (entry.handle != 0 && entry.position.known()) entry.behind = true;
    }
    reads_.Want(rooms_.id(room));
    return true;
  });
  if (lost_state) {
    for (const std::string& room_id : acknowledged_.Ids()) reads_.Want(room_id);
  }
  for (const auto& [room_id, seen] : doubted_) reads_.Want(room_id);
  ReadRooms(now);
}

// ---------------------------------------------------------------------------------------------------------------- reading

void Hub::State::ReadRooms(Now now) {
  while (ledger_.store_up() && now.steady >= read_rooms_at_) {
    const std::optional<std::string> room_id = reads_.Next();
    if (!room_id) return;
    const auto room = rooms_.Find(*room_id);
    std::optional<RoomPosition> from;
    bool wanted = false, later = false;
    for (const RoomShard& entry : room ? rooms_.shards(*room) : absl::Span<RoomShard>()) {
      const Link* link = fanout_.LinkOf(entry);
      if (link == nullptr || link->phase != Link::Phase::kLive) continue;
      wanted = wanted || !entry.position.known();
      if (!entry.behind) continue;
      if (!HasRoomForReplay(*link)) {
        later = true;
        continue;
      }
      NoteSeen(*room, entry.position);
      if (!from || IsBefore(entry.position, *from)) from = entry.position;
    }
    if (later) reads_.Later(*room_id);
    const auto doubted = doubted_.find(*room_id);
    const bool asks = doubted != doubted_.end() || (!later && acknowledged_.Find(*room_id).known());
    if (!wanted && !from && !asks) continue;
    ++counters_.room_log_reads;
    RoomReads::Read read{.room_id = *room_id, .from = from.value_or(RoomPosition{})};
    read.brings = from.has_value();
    read.seen = FurthestSeen(*room_id, room);
    if (doubted != doubted_.end()) read.doubted = doubted->second;
    if (room) read.heard = rooms_.heard(*room).position;
    if (room) read.born = rooms_.born(*room);
    const RoomLogQuery query{*room_id, read.from, read.brings ? RoomReads::kEntries : 0, read.seen, read.doubted};
    store_.ReadRoomLog(reads_.Begin(std::move(read)), query);
  }
}

void Hub::State::OnRoomLogRead(Now now, uint64_t id, const absl::StatusOr<RoomLogPage>& page) {
  const std::optional<RoomReads::Read> read = reads_.End(id);
  if (!read) return;
  if (read->floor) {
    OnFloor(now, read->room_id, page.ok() ? std::optional(page->current) : std::nullopt);
    return ReadRooms(now);
  }
  const auto room = rooms_.Find(read->room_id);
  if (!page.ok()) {
    read_rooms_at_ = now.steady + kReadAgainAfter;
    reads_.Want(read->room_id);
    return;
  }
  if (const auto doubted = doubted_.find(read->room_id);
      doubted != doubted_.end() && doubted->second == read->doubted) {
    doubted_.erase(doubted);
  }
  if (!room) return ReadRooms(now);
  if (rooms_.born(*room) != read->born) {
    // Nobody here has noted what the bus brought while the room was not here: the page may be older than that.
    reads_.Want(read->room_id);
    return ReadRooms(now);
  }
  RoomHeard& heard = rooms_.heard(*room);
  bool again = false;
  if (IsBefore(read->seen, heard.furthest)) {
    again = NoteSeen(*room, page->current);
  } else {  // Redis has been told of all that was seen before
    heard.furthest = page->current.sequence == 0 ? RoomPosition() : page->current;
  }
  for (RoomShard& entry : rooms_.shards(*room)) {
    const Link* link = fanout_.LinkOf(entry);
    if (link == nullptr || link->phase != Link::Phase::kLive) continue;
    if (!entry.position.known()) {  // from now on
      entry.position = page->current;
      TellGap(entry, entry.position);
    }
    if (!entry.behind) continue;
    // It came while this was read, and is in front of the page, or perhaps behind it; or its link has filled.
    if (!read->brings || IsBefore(entry.position, read->from) || IsBefore(read->seen, entry.position) ||
        !HasRoomForReplay(*link)) {
      again = true;
      continue;
    }
    CatchUp(*room, entry, *page);
    // What was heard before the read began and is not there does not exist any more.
    if (!page->more && (IsUpTo(entry.position, heard.position) || heard.position == read->heard)) {
      entry.behind = false;
    } else {
      again = true;
    }
  }
  if (!page->more && (!heard.position.known() || heard.position == read->heard)) heard.position = page->current;
  if (again) reads_.Want(read->room_id);
  ReadRooms(now);
}

void Hub::State::CatchUp(RoomIndex room, RoomShard& entry, const RoomLogPage& page) {
  for (const link::v1::BusEnvelope& message : page.entries) {
    const RoomPosition position = PositionOf(message);
    if (!IsBefore(entry.position, position)) continue;
    const RoomPosition before = entry.position;
    entry.position = position;
    if (!Follows(before, message)) TellGap(entry, {});
    const uint64_t count_id = message.message().count_id();
    const bool mine = message.core() == options_.incarnation;
    if (mine) publications_.LoggedCameBack(count_id);
    if (message.has_room_lost() || (mine && publications_.WasDeliveredHere(count_id))) {
      fanout_.Move(entry, entry.position, Fanout::Moved::kQuietly);
      continue;
    }
    fanout_.ToShard(room, entry, message);
    ++counters_.room_log_replayed;
    reads_.Spent(message.message().text().size());
  }
  if (page.more || entry.position == page.current) return;
  const RoomPosition before = std::exchange(entry.position, page.current);
  if (page.current.sequence == 0 && Follows(before, page.current.epoch, {page.data_since, 0})) {
    return fanout_.Move(entry, entry.position, Fanout::Moved::kQuietly);
  }
  TellGap(entry, entry.position);
}

// ------------------------------------------------------------------------------------------------------------------- gaps

void Hub::State::TellGap(const RoomShard& entry, RoomPosition position) {
  ++counters_.room_gaps;
  fanout_.Move(entry, position, Fanout::Moved::kLost);
}

bool Hub::State::NoteSeen(RoomIndex room, RoomPosition seen) {
  RoomPosition& furthest = rooms_.heard(room).furthest;
  if (seen.sequence == 0) return false;
  if (seen.epoch == furthest.epoch) {
    furthest.sequence = std::max(furthest.sequence, seen.sequence);
    return false;
  }
  if (furthest.epoch < seen.epoch) std::swap(furthest, seen);
  return Doubt(rooms_.id(room), seen);
}

bool Hub::State::Doubt(std::string_view room_id, RoomPosition seen) {
  if (seen.sequence == 0) return false;
  if (doubted_.size() >= options_.rooms_doubted_max && !doubted_.contains(room_id)) {
    ++counters_.room_doubts_dropped;
    return false;
  }
  const auto [doubted, fresh] = doubted_.try_emplace(std::string(room_id), seen);
  // Of two epochs one is enough: the note of either loss is told to all.
  if (!fresh && doubted->second.epoch == seen.epoch) {
    doubted->second.sequence = std::max(doubted->second.sequence, seen.sequence);
  }
  return true;
}

RoomPosition Hub::State::FurthestSeen(std::string_view room_id, std::optional<RoomIndex> room) {
  const RoomPosition acknowledged = acknowledged_.Find(room_id);
  const RoomPosition here = room ? rooms_.heard(*room).furthest : RoomPosition();
  return IsBefore(here, acknowledged) ? acknowledged : here;
}

void Hub::State::JudgeLate(Now now) {
  for (; !expected_.empty() && now.steady - expected_.front().since > options_.loopback_max; expected_.pop_front()) {
    const Expected& expected = expected_.front();
    if (!rooms_.Holds(expected.room, expected.born)) continue;
    for (RoomShard& entry : rooms_.shards(expected.room)) {
      if (fanout_.LinkOf(entry) == nullptr || !entry.position.known()) continue;
      if (IsBefore(entry.position, expected.position)) entry.behind = true;
      if (entry.behind) reads_.Want(rooms_.id(expected.room));
    }
  }
  acknowledged_.OnTick(now.steady);
}

}  // namespace presence::core
