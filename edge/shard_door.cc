#include "edge/shard_door.h"

#include <asio/post.hpp>
#include <chrono>
#include <utility>
#include <variant>

#include "common/check.h"
#include "common/log.h"

namespace presence::edge {
namespace {

log::LineLimit refusal_lines("refused handshakes");

TokenCheck CheckOf(const TokenVerdict& verdict) {
  if (const auto* identity = std::get_if<Identity>(&verdict)) return {TokenCheck::Outcome::kGood, FactsOf(*identity)};
  const bool expired = std::get<Rejection>(verdict).fault == TokenFault::kExpired;
  return {expired ? TokenCheck::Outcome::kExpired : TokenCheck::Outcome::kInvalid};
}

}  // namespace

TokenFacts FactsOf(const Identity& identity) {
  return {.user_id = identity.user_id,
          .username = identity.username,
          .session_id = identity.session_id,
          .issued_at_ms = identity.issued_at.has_value() ? ToUnixMillis(*identity.issued_at) : 0,
          .expires_at = identity.expires_at,
          .room_rights = &identity.room_rights};
}

void ShardDoor::DecideUpgrade(SocketLoop& sockets, SocketId socket, const HttpRequest& request,
                              bool may_wait_for_keys) {
  EdgeContext& context = sources_.context;
  ShardStats& stats = sources_.stats;
  const Now now = ReadClocks();
  if (context.draining.load(std::memory_order_relaxed) || !sources_.ready(now)) {
    stats.handshakes_not_ready.Add();
    HttpResponse response = JsonError(503, "This instance takes no connections at the moment; try another one");
    response.headers.emplace_back("Retry-After", "1");
    return sockets.Respond(socket, response);
  }
  const auto keys = context.keys.Current();
  GateDecision decision = context.gate.DecideUpgrade(request, keys.get(), now.wall);
  stats.handshake_seconds.Observe(std::chrono::steady_clock::now() - now.steady);
  if (decision.unknown_key && may_wait_for_keys) {
    // The issuer may just have a new key: one fetch for all who wait, then the answer stands.
    const RefreshAnswer answer = AfterKeyRefresh(decision.kid, [this, &sockets, socket, request] {
      DecideUpgrade(sockets, socket, request, /*may_wait_for_keys=*/false);
    });
    if (answer == RefreshAnswer::kWaiting) return;
    if (answer == RefreshAnswer::kBusy) decision = context.gate.TooManyWaitForKeys(request);
  }
  if (auto* admit = std::get_if<Admit>(&decision.outcome)) {
    stats.handshakes_admitted.Add();
    Await(socket, std::move(admit->identity));
    return sockets.Upgrade(socket, admit->subprotocol);
  }
  if (const auto* unproven = std::get_if<AdmitUnproven>(&decision.outcome)) {
    stats.handshakes_without_token.Add();
    Await(socket, std::nullopt);
    return sockets.Upgrade(socket, unproven->subprotocol);
  }
  const auto* refuse = std::get_if<Refuse>(&decision.outcome);
  CountRefusal(refuse);
  if (refusal_lines.Admit(log::Level::kError)) {
    log::Error("Handshake refused: {} ({}) from {}", decision.why, Escaped(RedactToken(request.target)),
               sources_.clients.client(socket.slot).ToString());
  }
  if (refuse != nullptr) return sockets.Respond(socket, refuse->response);
  const auto& close = std::get<AdmitAndClose>(decision.outcome);
  sockets.UpgradeAndClose(socket, close.subprotocol, close.code, close.reason);
}

void ShardDoor::Await(SocketId socket, std::optional<Identity> identity) {
  // A decision that waited for keys may be about a former owner of the slot: it must not touch the present one's. Nothing is compared
  // with an entry that is new: half of all generations look older than one that was never given out. (No test: it takes 2^31 sockets.)
  const auto [admitted, is_new] = admitted_.try_emplace(socket.slot);
  if (is_new || static_cast<int32_t>(socket.generation - admitted->second.generation) >= 0) {
    admitted->second = {socket.generation, std::move(identity)};
  }
}

std::optional<Identity> ShardDoor::TakeAdmitted(SocketId socket) {
  const auto admitted = admitted_.find(socket.slot);
  PRESENCE_CHECK(admitted != admitted_.end() && admitted->second.generation == socket.generation,
                 "what opens was admitted");
  std::optional<Identity> identity = std::move(admitted->second.identity);
  admitted_.erase(admitted);
  return identity;
}

void ShardDoor::CountRefusal(const Refuse* refuse) {
  ShardStats& stats = sources_.stats;
  if (refuse != nullptr && refuse->response.status == 403) {
    stats.handshakes_foreign_origin.Add();
  } else if (refuse != nullptr && refuse->response.status == 503) {
    stats.handshakes_not_ready.Add();
  } else {
    stats.handshakes_missing_or_bad_token.Add();
  }
}

void ShardDoor::Judge(const std::string& token, Judged judged, bool waited) {
  const Now now = ReadClocks();
  TokenCheck check{TokenCheck::Outcome::kUnavailable};
  TokenVerdict verdict;
  if (const auto keys = sources_.context.keys.Current(); keys != nullptr) {
    verdict = sources_.context.gate.Verify(token, *keys, now.wall);
    const auto* rejection = std::get_if<Rejection>(&verdict);
    const bool unknown_key = rejection != nullptr && rejection->fault == TokenFault::kUnknownKey;
    auto answer = RefreshAnswer::kPointless;
    if (unknown_key && !waited) {
      answer = AfterKeyRefresh(rejection->kid, [this, token, judged] { Judge(token, judged, /*waited=*/true); });
    }
    if (answer == RefreshAnswer::kWaiting) return;
    if (answer == RefreshAnswer::kPointless) check = CheckOf(verdict);
  }
  judged(now, check, waited);
}

RefreshAnswer ShardDoor::AfterKeyRefresh(std::string_view kid, std::function<void()> again) {
  return sources_.context.keys.RequestRefresh(
      kid, [this, again = std::move(again)]() mutable { asio::post(sources_.io, std::move(again)); });
}

}  // namespace presence::edge
