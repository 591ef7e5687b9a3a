// What goes up and comes down the link.
#include <algorithm>
#include <limits>
#include <utility>

#include "edge/shard_state.h"

namespace presence::edge {
namespace {

using link::v1::CoreCommand;
using Severity = ShardOutput::Severity;

constexpr uint32_t kProtocol = 1;
constexpr uint16_t kPolicyViolation = 1008;
constexpr int kRoomsSeenAtOnce = 512;  // with the longest ids 1 MiB, as a rule 20 KiB

uint32_t MillisBetween(SteadyTime from, SteadyTime to) {
  const auto millis = std::chrono::duration_cast<std::chrono::milliseconds>(to - from).count();
  return static_cast<uint32_t>(std::clamp<int64_t>(millis, 0, std::numeric_limits<uint32_t>::max()));
}

// RFC 6455, section 7.4: 1004 to 1006 and 1015 never stand in a close frame.
uint16_t SendableCloseCode(uint32_t code) {
  const bool registered = code >= 1000 && code <= 1014 && (code < 1004 || code > 1006);
  return registered || (code >= 3000 && code <= 4999) ? static_cast<uint16_t>(code) : kPolicyViolation;
}

}  // namespace

void Shard::State::OnLinkUp(Now now) {
  if (link_ == LinkPhase::kLive) LoseLink(now);
  link_ = LinkPhase::kGreeting;
  heard_at_ = now.steady;
  SayHello(AddEvent(now).mutable_hello());
}

void Shard::State::AskForStore(link::v1::Hello* hello) {
  SayHello(hello);
  hello->set_only_with_store(true);
}

void Shard::State::OnLinkMoved(Now now) {
  if (link_ == LinkPhase::kLive) LoseLink(now);
  link_ = LinkPhase::kGreeting;
  heard_at_ = now.steady;
}

void Shard::State::SayHello(link::v1::Hello* hello) {
  hello->set_protocol(kProtocol);
  hello->set_edge(options_.edge_name);
  hello->set_incarnation(options_.incarnation);
  hello->set_shard(options_.shard);
  hello->set_attach(++attach_);
  hello->set_presence_watermark(presence_watermark_);
  hello->set_version(options_.version);
  hello->set_started_ms(options_.started_ms);
}

void Shard::State::OnLinkDown(Now now) {
  if (link_ == LinkPhase::kLive) LoseLink(now);
  link_ = LinkPhase::kDown;
}

void Shard::State::DropLink(Now now, std::string_view why) {
  if (link_ == LinkPhase::kLive) LoseLink(now);
  link_ = LinkPhase::kDropping;
  output_.DropLink(why);
}

void Shard::State::LoseLink(Now now) {
  ++counters_.link_losses;
  without_link_since_ = now.steady;
  table_.ForgetHandles();
}

void Shard::State::OnCommand(Now now, const CoreCommand& command) {
  if (link_ == LinkPhase::kDown || link_ == LinkPhase::kDropping) {
    ++counters_.late_commands;
    return;
  }
  heard_at_ = now.steady;
  if ((link_ == LinkPhase::kGreeting) != command.has_welcome()) {
    DropLink(now, "Welcome is not the first command, or not the only one");
    return;
  }
  switch (command.command_case()) {
    case CoreCommand::kWelcome:
      OnWelcome(now, command.welcome());
      break;
    case CoreCommand::kAcknowledge:
      OnAcknowledge(command.acknowledge());
      break;
    case CoreCommand::kBind:
      OnBind(now, command.bind());
      break;
    case CoreCommand::kUnbind:
      OnUnbind(command.unbind());
      break;
    case CoreCommand::kRefuse:
      OnRefuse(command.refuse());
      break;
    case CoreCommand::kDeliver:
      OnDeliver(command.deliver());
      break;
    case CoreCommand::kDeliverTo:
      OnDeliverTo(command.deliver_to());
      break;
    case CoreCommand::kDeliverPresence:
      OnDeliverPresence(now, command.deliver_presence());
      break;
    case CoreCommand::kCloseConnection:
      OnCloseConnection(now, command.close_connection());
      break;
    case CoreCommand::kLeaveRoom:
      OnLeaveRoom(now, command.leave_room());
      break;
    case CoreCommand::kChangeStatus:
      OnChangeStatus(now, command.change_status());
      break;
    case CoreCommand::kBeginDrain:
      output_.DrainEdge(std::chrono::milliseconds(command.begin_drain().window_ms()));
      break;
    case CoreCommand::kSetLogLevel:
      OnSetLogLevel(command.set_log_level());
      break;
    case CoreCommand::kRoomMoved:
      OnRoomMoved(command.room_moved());
      break;
    case CoreCommand::kSeekCore:
      output_.SeekCore();
      break;
    case CoreCommand::kHeartbeat:
      break;
    case CoreCommand::COMMAND_NOT_SET:
      ++counters_.commands_unknown;
      break;
  }
}

void Shard::State::OnWelcome(Now now, const link::v1::Welcome& welcome) {
  link_ = LinkPhase::kLive;
  if (std::exchange(ever_live_, true)) ++counters_.resyncs;
  if (presence_watermark_ == 0) presence_watermark_ = welcome.presence_watermark();
  if (std::exchange(isolated_, false) && !draining_) leaving_.reset();
  for (const uint32_t slot : open_slots_) Declare(now, slot);
  TellRoomsSeen(now);
  // Before the end of the declaration, at which the core closes what was not declared: a close that it has not heard may say more.
  Repeat(now);
  AddEvent(now).mutable_resync_done();
}

void Shard::State::Declare(Now now, uint32_t slot) {
  Connection& connection = connections_[slot];
  connection.told = true;
  link::v1::ConnectionDeclared& declared = *AddEvent(now).mutable_connection_declared();
  declared.set_connection(IdOf(slot));
  declared.mutable_user_id()->assign(users_.UserId(connection.user));
  declared.mutable_username()->assign(users_.Username(connection.user));
  declared.set_status(connection.away ? link::v1::STATUS_AWAY : link::v1::STATUS_ONLINE);
  table_.VisitRoomsOf(slot, [&declared](std::string_view room_id) { declared.add_room_ids()->assign(room_id); });
  declared.set_silent_ms(MillisBetween(silence_.LastFrame(slot), now.steady));
  declared.set_since_ping_ms(MillisBetween(connection.last_ping, now.steady));
  Fill(*connection.token, declared.mutable_token());
  TellRoomRights(slot, declared);
}

void Shard::State::TellRoomsSeen(Now now) {
  link::v1::RoomsSeen* seen = nullptr;
  table_.VisitPositions([&](std::string_view room_id, ForwardingTable::Position position) {
    if (seen == nullptr || seen->rooms_size() == kRoomsSeenAtOnce) seen = AddEvent(now).mutable_rooms_seen();
    link::v1::RoomSeen& room = *seen->add_rooms();
    room.mutable_room_id()->assign(room_id);
    room.set_epoch(position.epoch);
    room.set_sequence(position.sequence);
  });
}

void Shard::State::Repeat(Now now) {
  const auto is_dead = [this](const HeldRequest& request) { return !FindSlot(request.connection).has_value(); };
  log_.Purge(is_dead, [this](const HeldRequest& request) { ReleaseRequest(request); });
  log_.VisitInOrder([this, now](const HeldRequest& request) { AddRequest(now, request); },
                    [this, now](const HeldClose& close) { AddClose(now, close); });
}

void Shard::State::AddRequest(Now now, const HeldRequest& request) {
  link::v1::EdgeEvent& event = AddEvent(now);
  event.set_sequence(request.sequence);
  if (request.join) {
    event.mutable_room_joined()->set_connection(request.connection);
    event.mutable_room_joined()->mutable_room_id()->assign(table_.IdOf(request.room));
  } else {
    event.mutable_room_left()->set_connection(request.connection);
    event.mutable_room_left()->mutable_room_id()->assign(table_.IdOf(request.room));
  }
}

void Shard::State::AddClose(Now now, const HeldClose& close) {
  link::v1::EdgeEvent& event = AddEvent(now);
  event.set_sequence(close.sequence);
  event.mutable_connection_closed()->set_connection(close.connection);
  event.mutable_connection_closed()->mutable_user_id()->assign(users_.UserId(close.user));
  event.mutable_connection_closed()->set_hold_ms(MillisBetween(now.steady, close.held_until));
}

link::v1::EdgeEvent& Shard::State::AddEvent(Now now) {
  said_at_ = now.steady;
  return output_.AddEvent();
}

void Shard::State::OnAcknowledge(const link::v1::Acknowledge& acknowledge) {
  presence_watermark_ = std::max(presence_watermark_, acknowledge.presence_watermark());
  log_.Acknowledge(
      acknowledge.sequence(), [this](const HeldRequest& request) { ReleaseRequest(request); },
      [this](const HeldClose& close) { ReleaseClose(close); });
}

void Shard::State::OnBind(Now now, const link::v1::Bind& bind) {
  const std::optional<uint32_t> slot = FindSlot(bind.connection());
  if (!slot.has_value()) {
    ++counters_.late_commands;
    return;
  }
  if (!table_.Bind(*slot, bind.room_id(), bind.handle())) {
    DropLink(now, "Bind with a handle that is out of range or means another room");
    return;
  }
  // A room that is known is where its members are.
  ForwardingTable::Position& position = table_.PositionOf(bind.handle());
  if (position.epoch == 0) position = {bind.room_epoch(), bind.room_sequence()};
  const std::optional<HeldRequest> request = Answer(bind.reply_to(), /*join=*/true, bind.connection());
  if (!request.has_value()) return;
  table_.Name(*slot, request->room, request->kind);
  Report(Severity::kInfo, *slot, "Connection {connection} subscribed to room {detail}", bind.room_id());
  scratch_.clear();
  AppendSubscribed(request->kind, bind.room_id(), &scratch_);
  SendTo(*slot, scratch_);
}

void Shard::State::OnUnbind(const link::v1::Unbind& unbind) {
  const std::optional<uint32_t> slot = FindSlot(unbind.connection());
  if (!slot.has_value()) {
    ++counters_.late_commands;
    return;
  }
  table_.Unbind(*slot, unbind.room_id());
  const std::optional<HeldRequest> request = Answer(unbind.reply_to(), /*join=*/false, unbind.connection());
  if (!request.has_value() || request->kind == link::v1::ROOM_KIND_UNSPECIFIED) return;
  Report(Severity::kInfo, *slot, "Connection {connection} unsubscribed from room {detail}", unbind.room_id());
  scratch_.clear();
  AppendUnsubscribed(request->kind, unbind.room_id(), &scratch_);
  SendTo(*slot, scratch_);
}

void Shard::State::OnRefuse(const link::v1::Refuse& refuse) {
  const std::optional<HeldRequest> request = log_.Answer(refuse.reply_to(), /*join=*/true);
  if (!request.has_value()) {
    ++counters_.late_commands;
    return;
  }
  const std::optional<uint32_t> slot = FindSlot(request->connection);
  ReleaseRequest(*request);
  if (slot.has_value() && refuse.code() != 0) SendError(*slot, refuse.error(), refuse.code());
}

std::optional<HeldRequest> Shard::State::Answer(uint64_t reply_to, bool join, uint64_t connection) {
  if (reply_to == 0) return std::nullopt;
  const std::optional<HeldRequest> request = log_.Answer(reply_to, join);
  if (!request.has_value()) return std::nullopt;
  ReleaseRequest(*request);
  // Never the case with a core that keeps the protocol; then better no confirmation than one for somebody else.
  if (request->connection != connection) return std::nullopt;
  return request;
}

void Shard::State::OnDeliver(const link::v1::Deliver& deliver) {
  const absl::Span<const uint32_t> members = table_.MembersOf(deliver.handle());
  if (members.empty()) {
    ++counters_.late_commands;
    return;
  }
  if (deliver.room_sequence() != 0) {
    ForwardingTable::Position& position = table_.PositionOf(deliver.handle());
    if (position.epoch == deliver.room_epoch() && deliver.room_sequence() <= position.sequence) {
      ++counters_.room_duplicates;
      return;
    }
    position = {deliver.room_epoch(), deliver.room_sequence()};
  }
  const SendPolicy policy{deliver.volatile_() ? SendClass::kVolatile : SendClass::kReliable, 0};
  if (deliver.excluded_connections().empty()) return SendToAll(members, deliver.text(), policy);
  const uint32_t stamp = NextStamp();
  for (const uint64_t connection : deliver.excluded_connections()) {
    // One that is gone is a member of nothing.
    if (const std::optional<uint32_t> slot = FindSlot(connection)) connections_[*slot].stamp = stamp;
  }
  chosen_.clear();
  for (const uint32_t slot : members) {
    if (connections_[slot].stamp != stamp) chosen_.push_back(slot);
  }
  SendToAll(chosen_, deliver.text(), policy);
}

void Shard::State::OnRoomMoved(const link::v1::RoomMoved& moved) {
  const absl::Span<const uint32_t> members = table_.MembersOf(moved.handle());
  if (members.empty()) {
    ++counters_.late_commands;
    return;
  }
  if (moved.room_epoch() != 0) table_.PositionOf(moved.handle()) = {moved.room_epoch(), moved.room_sequence()};
  if (!moved.lost()) return;
  // Each in the words in which it has subscribed.
  const RoomIndex room = table_.RoomOf(moved.handle());
  for (const link::v1::RoomKind kind : {link::v1::ROOM_KIND_CHANNEL, link::v1::ROOM_KIND_DM}) {
    chosen_.clear();
    for (const uint32_t slot : members) {
      if (table_.KindOf(slot, room) == kind) chosen_.push_back(slot);
    }
    if (chosen_.empty()) continue;
    scratch_.clear();
    AppendGap(kind, table_.IdOf(room), &scratch_);
    counters_.gaps += chosen_.size();
    SendToAll(chosen_, scratch_, {SendClass::kReliable, 0});
  }
}

void Shard::State::OnDeliverTo(const link::v1::DeliverTo& deliver) {
  const uint32_t stamp = NextStamp();
  chosen_.clear();
  for (const uint64_t connection : deliver.connections()) {
    const std::optional<uint32_t> slot = FindSlot(connection);
    if (!slot.has_value()) {
      ++counters_.late_commands;
    } else if (std::exchange(connections_[*slot].stamp, stamp) != stamp) {
      chosen_.push_back(*slot);
    }
  }
  SendToAll(chosen_, deliver.text(), {SendClass::kReliable, 0});
}

uint32_t Shard::State::NextStamp() {
  if (++stamp_ == 0) {  // wrapped: old stamps could look new
    for (Connection& connection : connections_) connection.stamp = 0;
    stamp_ = 1;
  }
  return stamp_;
}

void Shard::State::OnDeliverPresence(Now now, const link::v1::DeliverPresence& deliver) {
  const PresencePacer::Offered offered =
      pacer_.Offer(now.steady, deliver.user_id(), deliver.version(), deliver.text(), deliver.everyone());
  if (offered.verdict == PresencePacer::Verdict::kCoalesced) ++counters_.presence_coalesced;
  if (offered.verdict != PresencePacer::Verdict::kSendNow) return;
  const SendPolicy policy{SendClass::kLatest, offered.key};
  if (deliver.everyone()) {
    pacer_.Spend(open_slots_.size());
    SendToAll(open_slots_, deliver.text(), policy);
    return;
  }
  if (deliver.handles_size() == 1) {
    SendToAll(table_.MembersOf(deliver.handles(0)), deliver.text(), policy);
    return;
  }
  const uint32_t stamp = NextStamp();
  chosen_.clear();
  for (const uint32_t handle : deliver.handles()) {
    for (const uint32_t slot : table_.MembersOf(handle)) {
      if (std::exchange(connections_[slot].stamp, stamp) != stamp) chosen_.push_back(slot);
    }
  }
  SendToAll(chosen_, deliver.text(), policy);
}

void Shard::State::OnCloseConnection(Now now, const link::v1::CloseConnection& close) {
  const std::optional<uint32_t> slot = FindSlot(close.connection());
  if (!slot.has_value()) {
    ++counters_.late_commands;
    return;
  }
  CloseConnection(now, *slot, SendableCloseCode(close.code()), close.reason());
}

void Shard::State::OnLeaveRoom(Now now, const link::v1::LeaveRoom& leave) {
  const std::optional<uint32_t> slot = FindSlot(leave.connection());
  if (!slot.has_value()) {
    ++counters_.late_commands;
    return;
  }
  if (!MakeSpaceInLog()) return;
  const RoomIndex room = table_.Hold(leave.room_id());
  // The client is told once of each end of a subscription, in the words in which it asked for it: that of a join that is still
  // unanswered, or else of the membership. When a leave is under way already, its own answer will say it.
  link::v1::RoomKind kind = table_.KindOf(*slot, room);
  if (const auto newest = log_.Newest(leave.connection(), room, connections_[*slot].unanswered)) {
    kind = newest->join ? newest->kind : link::v1::ROOM_KIND_UNSPECIFIED;
  }
  // Not of a room that the client is not in, or is leaving already: there is nothing to be told.
  if (leave.code() != 0 && kind != link::v1::ROOM_KIND_UNSPECIFIED) SendError(*slot, leave.error(), leave.code());
  Request(now, *slot, {.room = room, .kind = kind, .join = false});
}

void Shard::State::OnChangeStatus(Now now, const link::v1::ChangeStatus& change) {
  if (change.status() != link::v1::STATUS_AWAY && change.status() != link::v1::STATUS_ONLINE) {
    ++counters_.commands_unknown;
    return;
  }
  const std::optional<uint32_t> slot = FindSlot(change.connection());
  if (!slot.has_value()) {
    ++counters_.late_commands;
    return;
  }
  // Told even if it changes nothing: the core waits to hear it.
  SetStatus(now, *slot, change.status());
}

void Shard::State::OnSetLogLevel(const link::v1::SetLogLevel& set) {
  if (set.level() < link::v1::LOG_LEVEL_DEBUG || set.level() > link::v1::LOG_LEVEL_ERROR) {
    ++counters_.commands_unknown;
    return;
  }
  output_.SetLogLevel(set.level());
}

std::optional<uint32_t> Shard::State::FindSlot(uint64_t connection) const {
  const ConnectionId id = ConnectionId::Unpack(connection);
  if (id.shard != options_.shard || id.slot >= connections_.size()) return std::nullopt;
  const Connection& record = connections_[id.slot];
  if (record.phase != Phase::kOpen || record.generation != id.generation) return std::nullopt;
  return id.slot;
}

}  // namespace presence::edge
