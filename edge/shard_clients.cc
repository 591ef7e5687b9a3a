// What clients do, and what is said to them.
#include <algorithm>
#include <utility>

#include "common/check.h"
#include "edge/shard_state.h"

namespace presence::edge {
namespace {

using link::v1::RoomKind;
using Severity = ShardOutput::Severity;

constexpr uint32_t kBadRequest = 400;
constexpr uint32_t kTooMany = 429;
constexpr uint32_t kUnavailable = 503;

}  // namespace

void Shard::State::OnConnectionOpened(Now now, uint32_t slot, uint32_t generation, std::string_view user_id,
                                      std::string_view username) {
  PRESENCE_CHECK(slot < (1u << ConnectionId::kSlotBits), "a slot fits into the connection id");
  if (slot >= connections_.size()) connections_.resize(slot + 1);
  PRESENCE_CHECK(connections_[slot].phase == Phase::kFree, "a slot is free before it is opened");

  Connection connection;
  connection.generation = generation;
  connection.user = users_.Hold(user_id, username);
  connection.stamp = stamp_;
  connection.last_ping = now.steady;
  if (closing_plan_.has_value()) {
    connection.phase = Phase::kClosing;
    connections_[slot] = connection;
    ++closing_;
    output_.Close(slot, closing_plan_->code, closing_plan_->reason);
    return;
  }
  connection.phase = Phase::kOpen;
  connection.open_position = static_cast<uint32_t>(open_slots_.size());
  open_slots_.push_back(slot);
  silence_.Add(slot, now.steady);
  // Without a link nothing is held: the declaration will say it.
  connection.told = link_ == LinkPhase::kLive;
  connections_[slot] = connection;
  if (connection.told) {
    link::v1::EdgeEvent& event = AddEvent(now);
    event.set_sequence(++sequence_);
    link::v1::ConnectionOpened& opened = *event.mutable_connection_opened();
    opened.set_connection(IdOf(slot));
    opened.mutable_user_id()->assign(user_id);
    opened.mutable_username()->assign(username);
  }
  SendPong(now, slot);
}

void Shard::State::OnClientText(Now now, uint32_t slot, std::string_view text) {
  if (connections_[slot].phase != Phase::kOpen) return;
  ++counters_.messages_received;
  const absl::StatusOr<ClientMessage> message = parser_.Parse(text);
  SignOfLife(now, slot, message.ok() && message->type == ClientMessage::Type::kPing);
  if (!message.ok()) {
    Report(Severity::kError, slot, "Connection {connection} sent an invalid message: {detail}", text);
    const absl::string_view why = message.status().message();
    SendError(slot, {why.data(), why.size()}, kBadRequest);
    return;
  }
  switch (message->type) {
    case ClientMessage::Type::kSubscribe:
    case ClientMessage::Type::kUnsubscribe:
      OnRoomMessage(now, slot, *message);
      break;
    case ClientMessage::Type::kTyping:
      OnTyping(now, slot, *message);
      break;
    case ClientMessage::Type::kStatus:
      // Told when it changes; nobody waits for an answer.
      if (connections_[slot].away != (message->status == link::v1::STATUS_AWAY)) SetStatus(now, slot, message->status);
      break;
    case ClientMessage::Type::kPing:
      SendPong(now, slot);
      Report(Severity::kInfo, slot, "Heartbeat from {connection}", "");
      break;
  }
}

void Shard::State::OnControlFrame(Now now, uint32_t slot) {
  if (connections_[slot].phase == Phase::kOpen) SignOfLife(now, slot, /*pinged=*/false);
}

void Shard::State::OnConnectionClosed(Now now, uint32_t slot) {
  Connection& connection = connections_[slot];
  PRESENCE_CHECK(connection.phase != Phase::kFree, "only what is open can close");
  if (connection.phase == Phase::kOpen) Detach(now, slot);
  if (connection.phase == Phase::kClosing) --closing_;
  users_.Release(connection.user);
  connection.phase = Phase::kFree;
}

void Shard::State::OnRoomMessage(Now now, uint32_t slot, const ClientMessage& message) {
  if (!MayRequest(slot, message)) return;
  Request(now, slot,
          {.room = table_.Hold(message.room_id),
           .kind = message.room_kind,
           .join = message.type == ClientMessage::Type::kSubscribe});
}

void Shard::State::Request(Now now, uint32_t slot, const RoomWish& wish) {
  HeldRequest request;
  request.sequence = ++sequence_;
  request.connection = IdOf(slot);
  request.room = wish.room;
  request.kind = wish.kind;
  request.join = wish.join;
  log_.Add(request);
  ++connections_[slot].unanswered;
  if (link_ == LinkPhase::kLive) AddRequest(now, request);
}

bool Shard::State::MayRequest(uint32_t slot, const ClientMessage& message) {
  const Connection& connection = connections_[slot];
  if (message.type == ClientMessage::Type::kSubscribe && !table_.Contains(slot, message.room_id) &&
      table_.RoomsOf(slot) + connection.unanswered >= options_.rooms_per_connection_max) {
    SendError(slot, "Too many rooms", kTooMany);
    return false;
  }
  // So many may wait that a client can join all its rooms and leave them again; more would fill the log at the cost of others.
  if (connection.unanswered >= 2 * options_.rooms_per_connection_max) {
    SendError(slot, "Too many requests", kTooMany);
    return false;
  }
  if (!MakeSpaceInLog()) {
    SendError(slot, "Service unavailable", kUnavailable);
    return false;
  }
  return true;
}

bool Shard::State::MakeSpaceInLog() {
  if (log_.requests() >= options_.events_held_max && dead_requests_ > options_.events_held_max / 4) {
    log_.Purge([this](const HeldRequest& request) { return !FindSlot(request.connection).has_value(); },
               [this](const HeldRequest& request) { ReleaseRequest(request); });
  }
  if (log_.requests() < options_.events_held_max) return true;
  ++counters_.events_refused;
  return false;
}

void Shard::State::OnTyping(Now now, uint32_t slot, const ClientMessage& message) {
  if (link_ != LinkPhase::kLive) {
    ++counters_.typing_dropped;
    return;
  }
  link::v1::TypingStarted& typing = *AddEvent(now).mutable_typing_started();
  typing.set_connection(IdOf(slot));
  typing.mutable_room_id()->assign(message.room_id);
  typing.set_kind(message.room_kind);
}

void Shard::State::SetStatus(Now now, uint32_t slot, link::v1::Status status) {
  connections_[slot].away = status == link::v1::STATUS_AWAY;
  // Not held for a next link: the declaration will say the newest.
  if (link_ != LinkPhase::kLive) return;
  link::v1::EdgeEvent& event = AddEvent(now);
  event.set_sequence(++sequence_);
  event.mutable_status_changed()->set_connection(IdOf(slot));
  event.mutable_status_changed()->set_status(status);
}

void Shard::State::SignOfLife(Now now, uint32_t slot, bool pinged) {
  silence_.Touch(slot, now.steady);
  Connection& connection = connections_[slot];
  if (pinged) {
    connection.pinged = true;
    connection.last_ping = now.steady;
  }
  if (!std::exchange(connection.active, true)) active_slots_.push_back(slot);
}

void Shard::State::Detach(Now now, uint32_t slot) {
  Connection& connection = connections_[slot];
  table_.RemoveSlot(slot);
  silence_.Remove(slot);
  const uint32_t last = open_slots_.back();
  open_slots_[connection.open_position] = last;
  connections_[last].open_position = connection.open_position;
  open_slots_.pop_back();
  dead_requests_ += std::exchange(connection.unanswered, 0);
  connection.active = false;
  connection.pinged = false;
  connection.phase = Phase::kClosing;
  ++closing_;
  // No core has ever heard of it: then nobody need hear that it is gone.
  if (!connection.told) return;

  const HeldClose close{++sequence_, IdOf(slot), connection.user};
  if (log_.closes() >= options_.events_held_max) {
    if (const std::optional<HeldClose> oldest = log_.DropOldestClose(); oldest.has_value()) {
      ReleaseClose(*oldest);
      ++counters_.closes_dropped;
    }
  }
  users_.HoldAgain(close.user);
  log_.Add(close);
  if (link_ == LinkPhase::kLive) AddClose(now, close);
}

void Shard::State::CloseConnection(Now now, uint32_t slot, uint16_t code, std::string_view reason) {
  Detach(now, slot);
  output_.Close(slot, code, reason);
}

void Shard::State::ReleaseRequest(const HeldRequest& request) {
  table_.Release(request.room);
  if (const std::optional<uint32_t> slot = FindSlot(request.connection); slot.has_value()) {
    --connections_[*slot].unanswered;
  } else {
    --dead_requests_;
  }
}

void Shard::State::SendTo(uint32_t slot, std::string_view text) {
  ++counters_.messages_sent;
  output_.Send({&slot, 1}, FrameRef::Text(text), {});
}

void Shard::State::SendError(uint32_t slot, std::string_view text, uint32_t code) {
  ++counters_.errors;
  scratch_.clear();
  AppendError(text, code, &scratch_);
  SendTo(slot, scratch_);
}

void Shard::State::SendPong(Now now, uint32_t slot) {
  const int64_t second = ToUnixMillis(now.wall) / 1000;
  if (!pong_ || second != pong_second_) {
    scratch_.clear();
    AppendPong(now.wall, &scratch_);
    pong_ = FrameRef::Text(scratch_);
    pong_second_ = second;
  }
  ++counters_.messages_sent;
  output_.Send({&slot, 1}, pong_, {});
}

void Shard::State::SendToAll(absl::Span<const uint32_t> slots, std::string_view text, SendPolicy policy) {
  if (slots.empty()) return;
  counters_.messages_sent += slots.size();
  counters_.deliveries += slots.size();
  output_.Send(slots, FrameRef::Text(text), policy);
}

}  // namespace presence::edge
