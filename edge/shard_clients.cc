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
constexpr uint16_t kPolicyViolation = 1008;

}  // namespace

Shard::State::Connection& Shard::State::Occupy(uint32_t slot, uint32_t generation) {
  PRESENCE_CHECK(slot < (1u << ConnectionId::kSlotBits), "a slot fits into the connection id");
  if (slot >= connections_.size()) connections_.resize(slot + 1);
  PRESENCE_CHECK(connections_[slot].phase == Phase::kFree, "a slot is free before it is opened");
  connections_[slot] = Connection();
  connections_[slot].generation = generation;
  return connections_[slot];
}

void Shard::State::OnConnectionOpened(Now now, uint32_t slot, uint32_t generation, const TokenFacts& token) {
  Occupy(slot, generation);
  Admit(now, slot, token);
}

void Shard::State::Admit(Now now, uint32_t slot, const TokenFacts& token) {
  Connection& connection = connections_[slot];
  connection.user = users_.Hold(token.user_id, token.username);
  connection.proven = true;
  connection.stamp = stamp_;
  connection.last_ping = now.steady;
  if (leaving_.has_value()) {
    connection.phase = Phase::kClosing;
    ++closing_;
    output_.Close(slot, kServiceRestart, leaving_->reason);
    return;
  }
  connection.phase = Phase::kOpen;
  connection.open_position = static_cast<uint32_t>(open_slots_.size());
  open_slots_.push_back(slot);
  silence_.Add(slot, now.steady);
  TakeToken(now, slot, token);
  // Without a link nothing is held: the declaration will say it.
  connection.told = link_ == LinkPhase::kLive;
  if (connection.told) {
    link::v1::EdgeEvent& event = AddEvent(now);
    event.set_sequence(++sequence_);
    link::v1::ConnectionOpened& opened = *event.mutable_connection_opened();
    opened.set_connection(IdOf(slot));
    opened.mutable_user_id()->assign(token.user_id);
    opened.mutable_username()->assign(token.username);
    Fill(*connection.token, opened.mutable_token());
    TellRoomRights(slot, opened);
  }
  SendPong(now, slot);
}

// Charged as read: fragments that never become a message cost as much as messages do.
void Shard::State::OnBytesReceived(Now now, uint32_t slot, size_t bytes) {
  Connection& connection = connections_[slot];
  if (connection.phase != Phase::kOpen && connection.phase != Phase::kUnproven) return;
  bytes_limit_.Charge(connection.bytes, now.steady, bytes);
  if (bytes_limit_.OwesAll(connection.bytes, now.steady)) CloseForRate(now, slot);
}

bool Shard::State::AdmitFrame(Now now, uint32_t slot) {
  Connection& connection = connections_[slot];
  const bool over_bytes = bytes_limit_.Owes(connection.bytes, now.steady);
  if (!over_bytes && frames_limit_.Take(connection.frames, now.steady)) return true;
  ++(over_bytes ? counters_.frames_over_bytes : counters_.frames_over_frames);
  // Whoever has shown no token is told nothing, and could not slow down.
  if (connection.phase == Phase::kOpen && refusals_limit_.Take(connection.refusals, now.steady)) {
    SignOfLife(now, slot, /*pinged=*/false);
  } else {
    CloseForRate(now, slot);
  }
  return false;
}

void Shard::State::CloseForRate(Now now, uint32_t slot) {
  ++counters_.rate_closes;
  if (connections_[slot].phase == Phase::kUnproven) return EndUnproven(slot, kPolicyViolation, "rate limit");
  Report(Severity::kError, slot, "Connection {connection} sends more than it may, disconnecting", "");
  CloseConnection(now, slot, kPolicyViolation, "rate limit");
}

void Shard::State::OnClientText(Now now, uint32_t slot, std::string_view text) {
  const Phase phase = connections_[slot].phase;
  if (phase != Phase::kOpen && phase != Phase::kUnproven) return;
  ++counters_.messages_received;
  if (!AdmitFrame(now, slot)) {
    if (connections_[slot].phase == Phase::kOpen) SendError(slot, "Too many messages", kTooMany);
    return;
  }
  if (phase == Phase::kUnproven) return OnFirstText(slot, text);
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
    case ClientMessage::Type::kAuth:
      OnAuth(slot, message->token);
      break;
    case ClientMessage::Type::kPing:
      SendPong(now, slot);
      Report(Severity::kInfo, slot, "Heartbeat from {connection}", "");
      break;
  }
}

void Shard::State::OnControlFrame(Now now, uint32_t slot) {
  const Phase phase = connections_[slot].phase;
  if (phase != Phase::kOpen && phase != Phase::kUnproven) return;
  // A token is waited for no longer because of pings.
  if (AdmitFrame(now, slot) && phase == Phase::kOpen) SignOfLife(now, slot, /*pinged=*/false);
}

void Shard::State::OnConnectionClosed(Now now, uint32_t slot) {
  Connection& connection = connections_[slot];
  PRESENCE_CHECK(connection.phase != Phase::kFree, "only what is open can close");
  if (connection.phase == Phase::kOpen) Detach(now, slot);
  if (connection.phase == Phase::kUnproven) ForgetUnproven(slot);
  if (connection.phase == Phase::kClosing) --closing_;
  if (std::exchange(connection.proven, false)) users_.Release(connection.user);
  room_rights_.Release(std::exchange(connection.room_rights, nullptr));
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
    ++counters_.rooms_over_limit;
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

void Shard::State::Detach(Now now, uint32_t slot, SteadyTime held_until) {
  Connection& connection = connections_[slot];
  table_.RemoveSlot(slot);
  silence_.Remove(slot);
  expiries_.Remove(slot);
  connection.token.reset();
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

  const HeldClose close{++sequence_, IdOf(slot), connection.user, held_until};
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
