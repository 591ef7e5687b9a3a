// Tokens that clients show over an open socket, and the end of those that they have.
#include <utility>

#include "edge/shard_state.h"

namespace presence::edge {
namespace {

using Outcome = TokenCheck::Outcome;
using Severity = ShardOutput::Severity;

constexpr uint16_t kPolicyViolation = 1008;
constexpr uint16_t kTryAgainLater = 1013;
constexpr uint16_t kUnauthorizedClose = 4401;
constexpr uint32_t kUnauthorized = 401;
constexpr uint32_t kTooMany = 429;
constexpr uint32_t kUnavailable = 503;

// A clock that is set forward may end very many tokens at once: 10,000 closes per second leave time for those who stay.
constexpr size_t kExpiriesPerTickMax = 1'000;

int64_t SecondOf(WallTime time) {
  return std::chrono::floor<std::chrono::seconds>(time.time_since_epoch()).count();
}

// The words of the handshake's refusals.
std::string_view TextOf(Outcome outcome) {
  return outcome == Outcome::kExpired ? "token expired" : "token invalid";
}

}  // namespace

void Shard::State::OnUnprovenOpened(Now now, uint32_t slot, uint32_t generation) {
  Connection& connection = Occupy(slot, generation);
  connection.phase = Phase::kUnproven;
  ++unproven_;
  first_frames_.Add(slot, now.steady);
  if (leaving_.has_value()) return EndUnproven(slot, kServiceRestart, leaving_->reason);
  if (unproven_ <= options_.unproven_max) return;
  ++counters_.unproven_refused;
  // Whoever has said nothing for longest, else silent ones would keep out all who have something to say. That is the newcomer when the
  // tokens of all others are being checked.
  EndUnproven(first_frames_.front(), kTryAgainLater, "try again later");
}

void Shard::State::OnFirstText(uint32_t slot, std::string_view text) {
  Connection& connection = connections_[slot];
  if (connection.checking) {
    ++counters_.unproven_closes;
    return EndUnproven(slot, kPolicyViolation, "wait for the pong");
  }
  const absl::StatusOr<ClientMessage> message = parser_.Parse(text);
  if (!message.ok() || message->type != ClientMessage::Type::kAuth) {
    ++counters_.unproven_closes;
    return EndUnproven(slot, kPolicyViolation, "token missing");
  }
  // It has come in time; how long its check takes is not the client's fault.
  first_frames_.Remove(slot);
  connection.checking = true;
  output_.CheckToken(slot, message->token);
}

void Shard::State::OnAuth(uint32_t slot, std::string_view token) {
  // Each may wait for keys, holding its token: one at a time.
  if (std::exchange(connections_[slot].checking, true)) {
    return SendError(slot, "A token is being checked already", kTooMany);
  }
  output_.CheckToken(slot, token);
}

void Shard::State::OnTokenChecked(Now now, uint32_t slot, uint32_t generation, const TokenCheck& check) {
  if (slot >= connections_.size()) return;
  Connection& connection = connections_[slot];
  if (connection.generation != generation || !connection.checking) return;
  if (connection.phase == Phase::kUnproven) return Prove(now, slot, check);
  if (connection.phase != Phase::kOpen) return;
  connection.checking = false;
  if (check.outcome == Outcome::kUnavailable) return RefuseToken(now, slot, "Service unavailable", kUnavailable);
  if (check.outcome != Outcome::kGood) return RefuseToken(now, slot, TextOf(check.outcome), kUnauthorized);
  // A socket has one owner for life: rooms, presence and what was said under that name stay with it.
  if (check.facts.user_id != user_id(slot)) return RefuseToken(now, slot, "token of another user", kUnauthorized);
  Renew(now, slot, check.facts);
}

void Shard::State::Prove(Now now, uint32_t slot, const TokenCheck& check) {
  if (check.outcome == Outcome::kUnavailable) return EndUnproven(slot, kTryAgainLater, "try again later");
  if (check.outcome != Outcome::kGood) {
    ++counters_.tokens_refused;
    ++counters_.unproven_closes;
    return EndUnproven(slot, kPolicyViolation, TextOf(check.outcome));
  }
  ForgetUnproven(slot);
  connections_[slot].checking = false;
  Admit(now, slot, check.facts);
}

void Shard::State::Renew(Now now, uint32_t slot, const TokenFacts& token) {
  ++counters_.tokens_renewed;
  TakeToken(now, slot, token);
  Report(Severity::kInfo, slot, "Connection {connection} has a new token", "");
  // Not held for a next link: the declaration will say the newest.
  if (link_ == LinkPhase::kLive) {
    link::v1::EdgeEvent& event = AddEvent(now);
    event.set_sequence(++sequence_);
    event.mutable_token_renewed()->set_connection(IdOf(slot));
    Fill(*connections_[slot].token, event.mutable_token_renewed()->mutable_token());
    TellRoomRights(slot, *event.mutable_token_renewed());
  }
  scratch_.clear();
  AppendAuthenticated(token.expires_at, &scratch_);
  SendTo(slot, scratch_);
}

// The socket keeps the token that it has, for as long as that is good.
void Shard::State::RefuseToken(Now now, uint32_t slot, std::string_view why, uint32_t code) {
  if (code == kUnauthorized) ++counters_.tokens_refused;
  SendError(slot, why, code);
  if (options_.close_expired && now.wall >= ClosesAt(connections_[slot])) CloseExpired(now, slot);
}

void Shard::State::TakeToken(Now now, uint32_t slot, const TokenFacts& token) {
  Connection& connection = connections_[slot];
  connection.token =
      std::make_unique<HeldToken>(HeldToken{std::string(token.session_id), token.issued_at_ms, token.expires_at});
  const RoomRights* rights = token.room_rights == nullptr ? nullptr : room_rights_.Hold(*token.room_rights);
  room_rights_.Release(std::exchange(connection.room_rights, rights));
  if (!options_.close_expired) return;
  connection.warned = options_.expiry_warning == std::chrono::milliseconds::zero();
  const WallTime due = connection.warned ? ClosesAt(connection) : token.expires_at - options_.expiry_warning;
  expiries_.Add(slot, SecondOf(std::max(due, now.wall)));
}

void Shard::State::Fill(const HeldToken& token, link::v1::TokenOrigin* origin) {
  origin->mutable_session_id()->assign(token.session_id);
  origin->set_issued_at_ms(token.issued_at_ms);
}

void Shard::State::ForgetUnproven(uint32_t slot) {
  if (!connections_[slot].checking) first_frames_.Remove(slot);
  --unproven_;
}

void Shard::State::EndUnproven(uint32_t slot, uint16_t code, std::string_view reason) {
  ForgetUnproven(slot);
  connections_[slot].phase = Phase::kClosing;
  ++closing_;
  Report(Severity::kWarning, slot, "Connection {connection} is closed without a token: {detail}", reason);
  output_.Close(slot, code, reason);
}

// Those whose token is being checked are closed when that is done.
void Shard::State::EndAllUnproven(uint16_t code, std::string_view reason) {
  while (first_frames_.front() != SilenceList::kNone) EndUnproven(first_frames_.front(), code, reason);
}

void Shard::State::JudgeUnproven(Now now) {
  while (first_frames_.front() != SilenceList::kNone) {
    const uint32_t slot = first_frames_.front();
    if (now.steady - first_frames_.LastFrame(slot) <= options_.auth_timeout) break;
    ++counters_.unproven_closes;
    EndUnproven(slot, kPolicyViolation, "token missing");
  }
}

void Shard::State::JudgeExpiry(Now now) {
  if (!options_.close_expired) return;
  expired_.clear();
  expiries_.TakeDue(SecondOf(now.wall), kExpiriesPerTickMax, &expired_);
  for (const uint32_t slot : expired_) {
    Connection& connection = connections_[slot];
    if (!connection.warned && now.wall < ClosesAt(connection)) {
      connection.warned = true;
      scratch_.clear();
      AppendTokenExpiring(connection.token->expires_at, &scratch_);
      SendTo(slot, scratch_);
      expiries_.Add(slot, SecondOf(ClosesAt(connection)));
    } else if (now.wall < ClosesAt(connection)) {
      expiries_.Add(slot, SecondOf(ClosesAt(connection)));  // within its last second
    } else if (!connection.checking) {                      // else the verdict decides
      CloseExpired(now, slot);
    }
  }
}

void Shard::State::CloseExpired(Now now, uint32_t slot) {
  ++counters_.expired_closes;
  CloseConnection(now, slot, kUnauthorizedClose, "token expired");
}

}  // namespace presence::edge
