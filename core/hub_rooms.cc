// Who may be in which room: joins, what a right that is gone means, and typing.
//
//   kOpen     everybody, as specified
//   kClaims   whom the connection's newest token lets in: decided at once, judged again with each token
//   kAsked    whom the RoomAuthorizer lets in. A join waits for the answer and is not acknowledged before, so that the shard repeats it after
//             a lost link; whoever is declared in a room was let in by some core, stays, and is asked about in the background
#include <algorithm>
#include <utility>

#include "core/client_text.h"
#include "core/hub_state.h"

namespace presence::core {
namespace {

constexpr uint32_t kForbidden = 403, kTooManyRequests = 429, kUnavailable = 503;
constexpr std::string_view kNotAllowed = "Not allowed in this room";
constexpr std::string_view kMayOnlyRead = "Not allowed to write in this room";
constexpr std::string_view kNotKnown = "Nobody can say at the moment who may be in this room";

// What does not fit is left out: rights only grant.
RoomRights ReadRights(const link::v1::RoomRights& from) {
  RoomRights rights;
  for (const std::string& pattern : from.write()) rights.Add(RoomRight::kWrite, pattern);
  for (const std::string& pattern : from.read()) rights.Add(RoomRight::kRead, pattern);
  return rights;
}

}  // namespace

// --------------------------------------------------------------------------------------------------------------- joins

absl::Status Hub::State::OnJoined(Now now, Link& link, uint64_t sequence, const link::v1::RoomJoined& joined) {
  if (ConnectionId::Unpack(joined.connection()).shard != link.shard->key.shard) {
    return absl::InvalidArgumentError("a connection of another shard");
  }
  if (!IsValidId(joined.room_id())) return absl::InvalidArgumentError("an id out of bounds");
  const ConnectionIndex index = link.shard->Find(joined.connection(), connections_.records());
  if (index == kNoConnection) {
    ++counters_.late_events;
    return absl::OkStatus();
  }
  if (IsHeld(index)) {
    HoldJoin(link, index, joined.room_id(), sequence);
  } else {
    Join(now, link, index, joined.room_id(), sequence);
  }
  return absl::OkStatus();
}

void Hub::State::Join(Now now, Link& link, ConnectionIndex index, std::string_view room_id, uint64_t sequence) {
  if (connections_.InRoom(index, room_id)) return Enter(now, link, index, room_id, sequence);
  const RoomAccess::Pair pair{connections_.user(connections_[index]).id, room_id};
  if (const std::optional<RoomRight> right = RightOf(now, index, pair)) {
    return AnswerJoin(now, link, index, pair.room_id, sequence, *right);
  }
  const WaitingJoin join{link.id, connections_.records().RefTo(index), sequence};
  if (link.joins_waiting.size() >= options_.room_access.joins_per_link_max || !access_.Wait(now.steady, pair, join)) {
    ++counters_.joins_unchecked;
    Refuse(link, sequence, kUnavailable, kNotKnown);
  } else {
    link.joins_waiting.insert(sequence);
  }
}

std::optional<RoomRight> Hub::State::RightOf(Now now, ConnectionIndex index, RoomAccess::Pair pair) const {
  switch (options_.room_auth) {
    case RoomAuth::kOpen:
      return RoomRight::kWrite;
    case RoomAuth::kClaims: {
      const auto found = rights_of_.find(index);
      return found == rights_of_.end() ? RoomRight::kNone : found->second->In(pair.room_id);
    }
    case RoomAuth::kAsked:
      return access_.Fresh(now.steady, pair);
  }
  return RoomRight::kNone;
}

void Hub::State::AnswerJoin(Now now, Link& link, ConnectionIndex index, std::string_view room_id, uint64_t sequence,
                            RoomRight right) {
  if (right == RoomRight::kNone) {
    ++counters_.joins_forbidden;
    Refuse(link, sequence, kForbidden, kNotAllowed);
  } else {
    Enter(now, link, index, room_id, sequence);
  }
}

void Hub::State::Enter(Now now, Link& link, ConnectionIndex index, std::string_view room_id, uint64_t sequence,
                       std::optional<RoomPosition> floor) {
  if (!floor && AwaitsFloor(link, index, room_id)) return AwaitFloor(link, index, room_id, sequence);  // in order
  if (connections_.InRoom(index, room_id)) {
    Bind(link, index, *rooms_.Find(room_id), sequence);
    if (options_.scope == PresenceScope::kRooms) {
      ledger_.Repeated(index, sequence);
      AwaitConfirmation(link, connections_.records().RefTo(index), sequence);
    }
    return;
  }
  if (connections_[index].rooms.size() >= options_.rooms_per_connection_max) {
    ++counters_.joins_refused;
    return Refuse(link, sequence, kTooManyRequests, "Too many subscriptions");
  }
  if (options_.room_subscribers_max != 0) {
    const auto room = rooms_.Find(room_id);
    if (room && rooms_.members(*room).size() >= options_.room_subscribers_max) {
      ++counters_.joins_room_full;
      return Refuse(link, sequence, kTooManyRequests, "This room is full");
    }
  }
  if (!floor && NeedsFloor(room_id, *link.shard)) return AwaitFloor(link, index, room_id, sequence);
  const RoomIndex room = connections_.Join(index, room_id);
  RoomShard& entry = *rooms_.FindShard(room, link.shard->index);
  if (floor && !entry.position.known()) {
    entry.position = *floor;
    if (!rooms_.heard(room).position.known()) rooms_.heard(room).position = *floor;
  } else if (entry.IsUnbound()) {
    entry.position = rooms_.heard(room).position;  // as of one that is new: what is sent from now on comes by the bus
  }
  // While it waited for the log its answer may have ended, and was forgotten, since nobody was in the room: it is to be asked for again.
  if (options_.room_auth == RoomAuth::kAsked) {
    access_.Check(now.steady, {connections_.user(connections_[index]).id, rooms_.id(room)});
  }
  Bind(link, index, room, sequence);
  if (taps_.any()) SawConnection(now, link::v1::TAP_KIND_SUBSCRIBED, connections_[index], room_id);
  RoomsChanged(link, index, sequence);
}

void Hub::State::Refuse(Link& link, uint64_t sequence, uint32_t code, std::string_view error) {
  link::v1::Refuse& refuse = *links_.Command(link).mutable_refuse();
  refuse.set_reply_to(sequence);
  refuse.set_code(code);
  refuse.mutable_error()->assign(error);
}

void Hub::State::CancelJoins(Link& link, ConnectionIndex index, std::string_view room_id, uint64_t sequence) {
  const RoomAccess::Pair pair{connections_.user(connections_[index]).id, room_id};
  for (const WaitingJoin& join : access_.Cancel(pair, {link.id, connections_.records().RefTo(index), sequence})) {
    if (join.link != link.id) continue;
    link.joins_waiting.erase(join.sequence);
    Refuse(link, join.sequence, 0, {});  // or the shard would repeat it after a lost link
  }
}

// -------------------------------------------------------------------------------------------------------------- rights

void Hub::State::OnRoomRight(Now now, uint64_t question, const RoomAnswer& answer) {
  std::optional<RoomAccess::Verdict> verdict = access_.OnAnswer(now.steady, question, answer);
  if (!verdict) return;
  const bool answered = answer.outcome == RoomAnswer::Outcome::kAnswered;
  counters_.room_rights_unanswered += answered ? 0 : 1;
  if (verdict->lost) {
    Expel(verdict->user_id, verdict->room_id, answered ? kForbidden : kUnavailable, answered ? kNotAllowed : kNotKnown);
  }
  for (const WaitingJoin& join : verdict->joins) {
    Link* link = links_.Find(join.link);
    if (link == nullptr) continue;  // repeated by the shard, wherever it is now
    link->joins_waiting.erase(join.sequence);
    const ConnectionIndex index = join.connection.index;
    if (!connections_.records().Holds(join.connection) || !connections_[index].live) continue;
    if (answered) {
      AnswerJoin(now, *link, index, verdict->room_id, join.sequence, answer.right);
    } else {
      ++counters_.joins_unchecked;
      Refuse(*link, join.sequence, kUnavailable, kNotKnown);
    }
  }
  access_.AskDue(now.steady);
  ledger_.Send(now);
}

void Hub::State::Expel(std::string_view user_id, std::string_view room_id, uint32_t code, std::string_view error) {
  const User* user = connections_.FindUser(user_id);
  if (user == nullptr) return;
  for (ConnectionIndex device = user->first_live; device != kNoConnection; device = connections_[device].next_of_user) {
    if (connections_.InRoom(device, room_id)) ExpelOne(device, room_id, code, error);
  }
}

void Hub::State::ExpelOne(ConnectionIndex index, std::string_view room_id, uint32_t code, std::string_view error) {
  const Connection& connection = connections_[index];
  const Shard& shard = connections_.shard(connection.shard);
  // One that its shard has not named in this attach is judged when it does: CheckDeclared.
  if (shard.link == nullptr || connection.attach != shard.attach) return;
  ++counters_.subscriptions_revoked;
  link::v1::LeaveRoom& leave = *links_.Command(*shard.link).mutable_leave_room();
  leave.set_connection(connection.id);
  leave.mutable_room_id()->assign(room_id);
  leave.set_code(code);
  leave.mutable_error()->assign(error);
}

void Hub::State::SetRights(ConnectionIndex index, const link::v1::RoomRights& rights) {
  if (options_.room_auth != RoomAuth::kClaims) return;
  const RoomRights* held = rights_.Hold(ReadRights(rights));
  DropRights(index);
  if (held != nullptr) rights_of_[index] = held;
}

void Hub::State::DropRights(ConnectionIndex index) {
  const auto found = rights_of_.find(index);
  if (found == rights_of_.end()) return;
  rights_.Release(found->second);
  rights_of_.erase(found);
}

void Hub::State::CheckDeclared(Now now, ConnectionIndex index, const link::v1::RoomRights& rights) {
  if (options_.room_auth == RoomAuth::kOpen) return;
  SetRights(index, rights);
  const std::string& user_id = connections_.user(connections_[index]).id;
  for (const Membership& membership : connections_[index].rooms) {
    const std::string& room_id = rooms_.id(membership.room);
    const std::optional<RoomRight> right = RightOf(now, index, {user_id, room_id});
    if (right == RoomRight::kNone) {
      ExpelOne(index, room_id, kForbidden, kNotAllowed);
    } else if (!right) {
      access_.Check(now.steady, {user_id, room_id});
    }
  }
}

void Hub::State::RenewRights(Now now, Link& link, const link::v1::TokenRenewed& renewed) {
  if (options_.room_auth != RoomAuth::kClaims) return;  // who is asked about a user is not asked about a token
  const ConnectionIndex index = link.shard->Find(renewed.connection(), connections_.records());
  if (index != kNoConnection) CheckDeclared(now, index, renewed.rights());
}

uint32_t Hub::State::ForgetRights(Now now, const link::v1::ForgetRoomRightsOrder& order) {
  if (options_.room_auth != RoomAuth::kAsked) return 0;
  const size_t forgotten = access_.Forget(now.steady, {order.user_id(), order.room_id()});
  counters_.room_rights_forgotten += forgotten;
  access_.AskDue(now.steady);
  return static_cast<uint32_t>(forgotten);
}

// -------------------------------------------------------------------------------------------------------------- typing

bool Hub::State::MayType(Now now, Link& link, ConnectionIndex index, std::string_view room_id) {
  if (options_.room_auth == RoomAuth::kOpen) return true;
  const RoomAccess::Pair pair{connections_.user(connections_[index]).id, room_id};
  // Volatile, so it never waits: who is in the room types by the last answer, and of anybody else the first sign is dropped while the
  // question is under way.
  const std::optional<RoomRight> right =
      options_.room_auth == RoomAuth::kAsked ? access_.LastKnown(pair) : RightOf(now, index, pair);
  if (!right) {
    ++counters_.typing_unchecked;
    access_.AskNow(now.steady, pair);
    return false;
  }
  if (*right == RoomRight::kWrite) return true;
  ++counters_.typing_forbidden;
  link::v1::DeliverTo& deliver = *links_.Command(link).mutable_deliver_to();
  deliver.add_connections(connections_[index].id);
  *deliver.mutable_text() = ErrorFrame(*right == RoomRight::kRead ? kMayOnlyRead : kNotAllowed, kForbidden);
  return false;
}

}  // namespace presence::core
