// What shards say on their links.
#include <algorithm>
#include <chrono>
#include <iterator>
#include <utility>

#include "common/utf8.h"
#include "core/hub_state.h"
#include "core/presence_text.h"

namespace presence::core {
namespace {

using link::v1::EdgeEvent;

constexpr uint32_t kProtocol = 1;
constexpr size_t kEdgeNameBytesMax = 255;
constexpr size_t kVersionBytesMax = 64;  // what is longer is cut: it is for people alone
// A shard without a watermark was never attached, or lost its first link at once. It closes its clients when it finds no core for
// EDGE_ISOLATION_MAX (30 s), spread over 10 s: by then they may have read statuses elsewhere. With room for a core's clock that is ahead.
constexpr std::chrono::minutes kNeverAttachedMax{1};
// Of ConnectionClosed.hold_ms: an edge asks for 20.2 s at most.
constexpr std::chrono::milliseconds kHoldMax{30'000};

absl::Status Broken(const char* what) {
  return absl::InvalidArgumentError(what);
}

// Those that the shard keeps until they are acknowledged.
bool IsSequenced(EdgeEvent::EventCase kind) {
  switch (kind) {
    case EdgeEvent::kConnectionOpened:
    case EdgeEvent::kConnectionClosed:
    case EdgeEvent::kRoomJoined:
    case EdgeEvent::kRoomLeft:
    case EdgeEvent::kStatusChanged:
    case EdgeEvent::kTokenRenewed:
      return true;
    default:
      return false;
  }
}

bool IsDeviceStatus(Status status) {
  return status == link::v1::STATUS_AWAY || status == link::v1::STATUS_ONLINE;
}

bool IsOfShard(const Link& link, uint64_t connection) {
  return ConnectionId::Unpack(connection).shard == link.shard->key.shard;
}

// Generations of a slot count up and wrap around.
bool IsNewer(uint64_t connection, uint64_t than) {
  return static_cast<int32_t>(ConnectionId::Unpack(connection).generation - ConnectionId::Unpack(than).generation) > 0;
}

}  // namespace

void Hub::State::OnLinkEvent(Now now, LinkId id, const EdgeEvent& event) {
  ++counters_.events;
  Link* link = links_.Find(id);
  if (link == nullptr) {
    ++counters_.late_events;
    return;
  }
  link->last_event = now.steady;
  // The link has proven alive after the store's answer: its connections are not remains of an edge that is gone.
  for (const ConnectionTable::Ref& missing : link->missing) ledger_.Reassert(missing);
  link->missing.clear();
  absl::Status status = OnEvent(now, *link, event);
  if (status.ok() && link->awaiting.size() > options_.awaiting_max) {
    status = absl::ResourceExhaustedError("too many events wait for the store");
  }
  if (!status.ok()) CloseLink(now, *link, status);
  ledger_.Send(now);
  if (orders_.HasFinished()) Settle(now);
}

absl::Status Hub::State::OnEvent(Now now, Link& link, const EdgeEvent& event) {
  if (event.event_case() == EdgeEvent::kHello) return OnHello(now, link, event.hello());
  if (link.phase == Link::Phase::kNew) {
    if (link.offered == nullptr) return Broken("an event before Hello");
    if (absl::Status status = TakeShard(now, link, *link.offered); !status.ok()) return status;
  }
  const uint64_t sequence = event.sequence();
  if (IsSequenced(event.event_case())) {
    if (sequence <= link.last_sequence) return Broken("sequences must count up");
    link.last_sequence = sequence;
    if (link.first_sequence == 0) link.first_sequence = sequence;
  }
  if (event.has_token_renewed()) RenewRights(now, link, event.token_renewed());
  switch (event.event_case()) {
    case EdgeEvent::kConnectionDeclared:
      return OnDeclared(now, link, event.connection_declared());
    case EdgeEvent::kRoomsSeen:
      return OnRoomsSeen(link, event.rooms_seen());
    case EdgeEvent::kResyncDone:
      return OnResyncDone(now, link);
    case EdgeEvent::kConnectionOpened:
      return OnOpened(now, link, sequence, event.connection_opened());
    case EdgeEvent::kConnectionClosed:
      return OnClosed(now, link, sequence, event.connection_closed());
    case EdgeEvent::kRoomJoined:
      return OnJoined(now, link, sequence, event.room_joined());
    case EdgeEvent::kRoomLeft:
      return OnLeft(now, link, sequence, event.room_left());
    case EdgeEvent::kStatusChanged:
      return OnStatusChanged(now, link, sequence, event.status_changed());
    case EdgeEvent::kTokenRenewed:
      return OnTokenRenewed(link, sequence, event.token_renewed());
    case EdgeEvent::kTypingStarted:
      return OnTyping(now, link, event.typing_started());
    case EdgeEvent::kActivityReported:
      return OnActivity(now, link, event.activity_reported());
    case EdgeEvent::kHeartbeat:
      return absl::OkStatus();
    default:
      // Of a later release. One that awaits its acknowledgement gets it.
      ++counters_.late_events;
      link.last_sequence = std::max(link.last_sequence, sequence);
      return absl::OkStatus();
  }
}

absl::Status Hub::State::OnHello(Now now, Link& link, const link::v1::Hello& hello) {
  if (link.phase != Link::Phase::kNew || link.offered != nullptr) return Broken("Hello twice");
  if (hello.protocol() != kProtocol) return absl::FailedPreconditionError("only protocol 1 is spoken here");
  if (hello.incarnation() == 0 || hello.attach() == 0 || hello.shard() >= (1u << ConnectionId::kShardBits) ||
      hello.edge().size() > kEdgeNameBytesMax) {
    return Broken("Hello out of bounds");
  }
  if (hello.only_with_store() && !HasStoreForOthers(now)) {
    return absl::UnavailableError("this core is without the store, or has it for a moment only");
  }
  StartBaseline(now);
  link.watermark = hello.presence_watermark();
  if (link.watermark == 0) link.watermark = std::min(Watermark(), VersionBefore(now, kNeverAttachedMax));
  // A shard that has no watermark takes this one, and must not take more than it will have been told.
  const uint64_t watermark = hello.presence_watermark() == 0 ? link.watermark : Watermark();
  if (hello.only_with_store()) {
    // It may have found another core by the time of our Welcome, and have taken up a lower attach for good: nothing is changed before it
    // goes on here.
    link.offered = std::make_unique<link::v1::Hello>(hello);
  } else if (absl::Status status = TakeShard(now, link, hello); !status.ok()) {
    return status;
  }
  link::v1::Welcome& welcome = *links_.Command(link).mutable_welcome();
  welcome.set_core(options_.core_name);
  welcome.set_incarnation(options_.incarnation);
  welcome.set_presence_watermark(watermark);
  return absl::OkStatus();
}

absl::Status Hub::State::TakeShard(Now now, Link& link, const link::v1::Hello& hello) {
  const ShardKey key{hello.incarnation(), hello.shard()};
  Shard* shard = connections_.FindShard(key);
  if (shard == nullptr) {
    shard = &connections_.AddShard(key);
  } else if (hello.attach() <= shard->attach) {
    return absl::FailedPreconditionError("a higher attach of this shard is known");
  } else if (shard->link != nullptr) {
    ++counters_.links_superseded;
    CloseLink(now, *shard->link, absl::FailedPreconditionError("superseded by a higher attach of this shard"));
  }
  shard->edge = hello.edge();
  shard->version = Utf8Prefix(hello.version(), kVersionBytesMax);
  shard->started_ms = hello.started_ms();
  shard->attach = hello.attach();
  shard->told = shard->set_aside = false;
  shard->link = &link;
  rooms_.ForgetHandles(shard->index);
  link.shard = shard;
  link.phase = Link::Phase::kResync;
  link.passed_on = link.watermark;
  link.heard_from = recent_.watermark();
  return absl::OkStatus();
}

absl::Status Hub::State::OnDeclared(Now now, Link& link, const link::v1::ConnectionDeclared& declared) {
  if (link.phase != Link::Phase::kResync) return Broken("ConnectionDeclared after ResyncDone");
  if (!IsOfShard(link, declared.connection())) return Broken("a connection of another shard");
  if (!IsValidId(declared.user_id()) || !IsValidToken(declared.token())) return Broken("an id out of bounds");
  if (!IsDeviceStatus(declared.status())) return Broken("a status that no device has");
  if (!std::all_of(declared.room_ids().begin(), declared.room_ids().end(), IsValidId)) {
    return Broken("an id out of bounds");
  }
  Shard& shard = *link.shard;
  ConnectionIndex index = shard.InSlot(ConnectionId::Unpack(declared.connection()).slot);
  if (index != kNoConnection && (connections_[index].id != declared.connection() ||
                                 connections_.user(connections_[index]).id != declared.user_id())) {
    CloseConnection(now, shard, index, 0);
    index = kNoConnection;
  }
  if (index == kNoConnection) {
    index = connections_.Open(shard, declared.connection(), declared.user_id(), declared.username());
    if (taps_.any()) SawConnection(now, link::v1::TAP_KIND_CONNECTED, connections_[index]);
  }
  Connection& connection = connections_[index];
  connections_.user(connection).username = declared.username();
  connection.attach = shard.attach;
  connection.status = static_cast<uint8_t>(declared.status());
  connection.last_frame = now.steady - std::chrono::milliseconds(declared.silent_ms());
  connections_.SetToken(index, declared.token());
  connection.unjudged = declared.has_token();
  Rebind(now, link, index, declared.room_ids());
  CheckDeclared(now, index, declared.rights());
  RepeatOrders(link, index);
  ledger_.Changed(index, 0);  // even if only the attach is new: the fence moves up
  return absl::OkStatus();
}

void Hub::State::Rebind(Now now, Link& link, ConnectionIndex index,
                        const google::protobuf::RepeatedPtrField<std::string>& room_ids) {
  if (taps_.any()) {
    const Connection& connection = connections_[index];
    for (const Membership& membership : connection.rooms) {
      const std::string& room_id = rooms_.id(membership.room);
      if (std::find(room_ids.begin(), room_ids.end(), room_id) == room_ids.end()) {
        SawConnection(now, link::v1::TAP_KIND_UNSUBSCRIBED, connection, room_id);
      }
    }
    for (const std::string& room_id : room_ids) {
      if (!connections_.InRoom(index, room_id)) {
        SawConnection(now, link::v1::TAP_KIND_SUBSCRIBED, connection, room_id);
      }
    }
  }
  connections_.SetRooms(index, room_ids);
  for (const Membership& membership : connections_[index].rooms) {
    RoomShard& entry = *rooms_.FindShard(membership.room, link.shard->index);
    // Until ResyncDone, by when the shard has said where it is. If it does not, it is where the bus is now, and its
    // members are told so.
    if (HasLogs() && entry.handle == 0) {
      entry.behind = entry.unsure = true;
      entry.position = rooms_.heard(membership.room).position;
    }
    Bind(link, index, membership.room, 0);
  }
}

absl::Status Hub::State::OnResyncDone(Now now, Link& link) {
  if (link.phase != Link::Phase::kResync) return Broken("ResyncDone twice");
  link.phase = Link::Phase::kLive;
  ++counters_.resyncs;
  Shard& shard = *link.shard;
  for (uint32_t slot = 0; slot < shard.slots_end(); ++slot) {
    const ConnectionIndex index = shard.InSlot(slot);
    if (index != kNoConnection && connections_[index].attach != shard.attach) CloseConnection(now, shard, index, 0);
  }
  // A shard without connections has nobody who could have missed anything, but for those who came since our offer.
  if (shard.connections != 0 || link.offered != nullptr) link.missed.since = link.watermark;
  if (ledger_.store_up()) ReadMissed();
  ResumeRooms(now, link);
  TellAttached();
  return absl::OkStatus();
}

absl::Status Hub::State::OnOpened(Now now, Link& link, uint64_t sequence, const link::v1::ConnectionOpened& opened) {
  if (!IsOfShard(link, opened.connection())) return Broken("a connection of another shard");
  if (!IsValidId(opened.user_id()) || !IsValidToken(opened.token())) return Broken("an id out of bounds");
  Shard& shard = *link.shard;
  const ConnectionIndex owner = shard.InSlot(ConnectionId::Unpack(opened.connection()).slot);
  if (owner != kNoConnection) {
    if (connections_[owner].id == opened.connection()) {
      ledger_.Repeated(owner, sequence);
      AwaitConfirmation(link, connections_.records().RefTo(owner), sequence);
      return absl::OkStatus();
    }
    if (!IsNewer(opened.connection(), connections_[owner].id)) {
      ++counters_.late_events;
      return absl::OkStatus();
    }
    CloseConnection(now, shard, owner, 0);  // its end was not told: the slot has a new owner
  }
  const ConnectionIndex index = connections_.Open(shard, opened.connection(), opened.user_id(), opened.username());
  connections_[index].last_frame = now.steady;
  connections_[index].newcomer = true;
  connections_[index].unjudged = opened.has_token();
  connections_.SetToken(index, opened.token());
  SetRights(index, opened.rights());
  if (taps_.any()) SawConnection(now, link::v1::TAP_KIND_CONNECTED, connections_[index]);
  ledger_.Changed(index, sequence);
  AwaitConfirmation(link, connections_.records().RefTo(index), sequence);
  return absl::OkStatus();
}

absl::Status Hub::State::OnClosed(Now now, Link& link, uint64_t sequence, const link::v1::ConnectionClosed& closed) {
  if (!IsOfShard(link, closed.connection())) return Broken("a connection of another shard");
  if (!IsValidId(closed.user_id())) return Broken("an id out of bounds");
  SteadyTime expected_until;
  if (closed.hold_ms() > 0) ++counters_.connections_sent_away;
  // One that was to be closed for good was sent away just before the edge heard of that.
  if (closed.hold_ms() > 0 && !orders_.Closes({link.shard->key.incarnation, closed.connection()})) {
    expected_until = now.steady + std::min(std::chrono::milliseconds(closed.hold_ms()), kHoldMax);
  }
  const ConnectionIndex index = link.shard->Find(closed.connection(), connections_.records());
  if (index != kNoConnection) {
    const ConnectionTable::Ref record = connections_.records().RefTo(index);
    CloseConnection(now, *link.shard, index, sequence, expected_until);
    AwaitConfirmation(link, record, sequence);
  } else {
    // Known to another core before, perhaps: whatever is in the store must go.
    const ConnectionIndex unknown =
        connections_.AddClosed(*link.shard, closed.connection(), closed.user_id(), expected_until);
    const ConnectionTable::Ref record = connections_.records().RefTo(unknown);
    ledger_.Changed(unknown, sequence);
    AwaitConfirmation(link, record, sequence);
  }
  return absl::OkStatus();
}

absl::Status Hub::State::OnLeft(Now now, Link& link, uint64_t sequence, const link::v1::RoomLeft& left) {
  if (!IsOfShard(link, left.connection())) return Broken("a connection of another shard");
  if (!IsValidId(left.room_id())) return Broken("an id out of bounds");
  const ConnectionIndex index = link.shard->Find(left.connection(), connections_.records());
  if (index == kNoConnection) {
    ++counters_.late_events;
    return absl::OkStatus();
  }
  if (!HoldLeave(link, index, left.room_id(), sequence)) Leave(now, link, index, left.room_id(), sequence);
  return absl::OkStatus();
}

void Hub::State::Leave(Now now, Link& link, ConnectionIndex index, const std::string& room_id, uint64_t sequence) {
  CancelJoins(link, index, room_id, sequence);
  if (LeaveAwaitsFloor(link, index, room_id, sequence)) return;
  const bool was_in = connections_.Leave(index, room_id);
  const uint64_t connection = connections_[index].id;
  link::v1::Unbind& unbind = *links_.Command(link).mutable_unbind();
  unbind.set_connection(connection);
  unbind.set_room_id(room_id);
  unbind.set_reply_to(sequence);
  orders_.Left({link.shard->key.incarnation, connection}, room_id);
  if (was_in) {
    if (taps_.any()) SawConnection(now, link::v1::TAP_KIND_UNSUBSCRIBED, connections_[index], room_id);
    RoomsChanged(link, index, sequence);
  } else if (options_.scope == PresenceScope::kRooms) {
    ledger_.Repeated(index, sequence);
    AwaitConfirmation(link, connections_.records().RefTo(index), sequence);
  }
}

absl::Status Hub::State::OnStatusChanged(Now now, Link& link, uint64_t sequence,
                                         const link::v1::StatusChanged& changed) {
  if (!IsOfShard(link, changed.connection())) return Broken("a connection of another shard");
  if (!IsDeviceStatus(changed.status())) return Broken("a status that no device has");
  const ConnectionIndex index = link.shard->Find(changed.connection(), connections_.records());
  if (index == kNoConnection) {
    ++counters_.late_events;
    return absl::OkStatus();
  }
  Connection& connection = connections_[index];
  if (connection.device_status() == changed.status()) {
    ledger_.Repeated(index, sequence);
  } else {
    connection.status = static_cast<uint8_t>(changed.status());
    if (taps_.any()) SawConnection(now, link::v1::TAP_KIND_STATUS, connection, {}, StatusName(changed.status()));
    ledger_.Changed(index, sequence);
  }
  orders_.HasStatus({connection.incarnation, connection.id}, changed.status());
  AwaitConfirmation(link, connections_.records().RefTo(index), sequence);
  return absl::OkStatus();
}

absl::Status Hub::State::OnActivity(Now now, Link& link, const link::v1::ActivityReported& activity) {
  const auto collect = [&](const google::protobuf::RepeatedField<uint64_t>& ids, std::vector<ConnectionIndex>& out) {
    out.clear();
    for (const uint64_t id : ids) {
      if (!IsOfShard(link, id)) return false;
      const ConnectionIndex index = link.shard->Find(id, connections_.records());
      if (index == kNoConnection) {
        ++counters_.late_events;
        continue;
      }
      connections_[index].last_frame = now.steady;
      out.push_back(index);
    }
    return true;
  };
  if (!collect(activity.alive(), alive_) || !collect(activity.pinged(), pinged_)) {
    return Broken("a connection of another shard");
  }
  ledger_.Refresh(link.id, alive_, pinged_);
  return absl::OkStatus();
}

void Hub::State::Bind(Link& link, ConnectionIndex index, RoomIndex room, uint64_t reply_to) {
  link::v1::Bind& bind = *links_.Command(link).mutable_bind();
  bind.set_connection(connections_[index].id);
  bind.set_room_id(rooms_.id(room));
  bind.set_handle(rooms_.HandleOf(room, link.shard->index));
  bind.set_reply_to(reply_to);
  if (reply_to == 0) return;  // a shard that declares a room knows itself where it is
  const RoomPosition position = rooms_.FindShard(room, link.shard->index)->position;
  bind.set_room_epoch(position.epoch);
  bind.set_room_sequence(position.sequence);
}

void Hub::State::CloseConnection(Now now, Shard& shard, ConnectionIndex index, uint64_t sequence,
                                 SteadyTime expected_until) {
  const Connection& connection = connections_[index];
  if (taps_.any()) {
    for (const Membership& membership : connection.rooms) {
      SawConnection(now, link::v1::TAP_KIND_UNSUBSCRIBED, connection, rooms_.id(membership.room));
    }
    SawConnection(now, link::v1::TAP_KIND_DISCONNECTED, connection);
  }
  // Of a shard that is only given up for lost nothing is known: it may come back, and the client with it.
  if (shard.link != nullptr) orders_.Gone({connection.incarnation, connection.id});
  connections_[index].attach = shard.attach;
  DropRights(index);
  DropJoins(index);
  connections_.Close(index, expected_until);
  ledger_.Changed(index, sequence);
}

void Hub::State::AwaitConfirmation(Link& link, ConnectionTable::Ref record, uint64_t sequence) {
  const PresenceLedger::Await await{sequence, record};
  if (ledger_.Confirmed(await)) return;
  // In order of sequence: a join that has waited for a right comes behind later ones.
  auto place = link.awaiting.end();
  while (place != link.awaiting.begin() && std::prev(place)->sequence > sequence) --place;
  link.awaiting.insert(place, await);
}

void Hub::State::RoomsChanged(Link& link, ConnectionIndex index, uint64_t sequence) {
  if (options_.scope != PresenceScope::kRooms) return;  // then entries hold no rooms
  ledger_.Changed(index, sequence);
  AwaitConfirmation(link, connections_.records().RefTo(index), sequence);
}

}  // namespace presence::core
