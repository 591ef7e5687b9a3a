// Sessions that end: a logout is kept in the store, then every core closes what it concerns. The store refuses every later write by a
// token that it voids, so what an order misses (a connection that is just opened, or whose shard is between two cores) is
// refused when it is written. Only a core that did not hear the bus must look what was kept meanwhile.
#include <algorithm>
#include <utility>

#include "core/hub_state.h"
#include "core/presence_text.h"

namespace presence::core {
namespace {

using link::v1::ClusterRequest;

constexpr std::chrono::seconds kReadAgainAfter{1};
// Identity providers do not repeat a logout: what the store has not confirmed is tried again here.
constexpr std::chrono::seconds kKeepAgainAfter{1}, kKeepAgainMax{60};
// A store that has lost what was published last is found to be away within 3 s: whatever was told in the last 15 s is told again.
constexpr std::chrono::seconds kTellAgainWithin{15};
constexpr size_t kToldMax = 10'000;
// From the last order that was surely heard to the moment at which the store was found to be away: it may have answered nothing for 2 s,
// or no echo have come for 3 s, and the order comes behind the logout. With room for a clock that is set back by a failover.
constexpr std::chrono::seconds kUnheard{10};

// See store.h; the script does the same.
bool IsVoid(const Connection& connection, int64_t logged_out_at_ms) {
  return int64_t{connection.issued_at_s} * 1000 <= logged_out_at_ms;
}

Logout LogoutOf(const ClusterRequest& request) {
  const link::v1::EndSessionsOrder& order = request.end_sessions();
  return {order.user_id(), order.session_id(), order.logged_out_at_ms()};
}

}  // namespace

// ------------------------------------------------------------------------------------------------------------- tokens

absl::Status Hub::State::OnTokenRenewed(Link& link, uint64_t sequence, const link::v1::TokenRenewed& renewed) {
  if (ConnectionId::Unpack(renewed.connection()).shard != link.shard->key.shard) {
    return absl::InvalidArgumentError("a connection of another shard");
  }
  if (!IsValidToken(renewed.token())) return absl::InvalidArgumentError("an id out of bounds");
  const ConnectionIndex index = link.shard->Find(renewed.connection(), connections_.records());
  if (index == kNoConnection) {
    ++counters_.late_events;
    return absl::OkStatus();
  }
  connections_.SetToken(index, renewed.token());
  ++counters_.tokens_renewed;
  ledger_.Changed(index, sequence);
  AwaitConfirmation(link, connections_.records().RefTo(index), sequence);
  return absl::OkStatus();
}

bool Hub::State::IsValidToken(const link::v1::TokenOrigin& token) {
  return token.session_id().empty() || IsValidId(token.session_id());
}

void Hub::State::SendAway(Now now, const PresenceLedger::Refusal& refusal) {
  const Connection& connection = connections_[refusal.connection];
  OrderCommand close;
  if (refusal.why == WriteResult::Outcome::kTooMany) {
    ++counters_.connections_too_many;
    close.code = kPolicyViolation;
    close.text = kTooManyConnections;
  } else {
    ++counters_.connections_logged_out;
    close.code = kUnauthorized;
    close.text = kLoggedOut;
  }
  if (taps_.any()) SawConnection(now, link::v1::TAP_KIND_ORDER, connection, {}, close.text);
  // Nobody waits for it, so no order is kept: a shard that does not hear it will declare the connection, which is refused again.
  const Shard& shard = connections_.shard(connection.shard);
  if (shard.link != nullptr && connection.attach == shard.attach) Tell(*shard.link, connection.id, close);
}

// ------------------------------------------------------------------------------------------------------------ logouts

void Hub::State::KeepLogout(Now now, uint64_t request, ClusterRequest body) {
  store_.KeepLogout(++last_logout_, LogoutOf(body));
  logouts_.emplace(last_logout_, KeptLogout{request, std::move(body), now.steady + kKeepAgainMax, std::nullopt});
}

void Hub::State::KeepLogoutsAgain(Now now) {
  for (auto& [id, logout] : logouts_) {
    if (!logout.again_at || now.steady < *logout.again_at) continue;
    logout.again_at.reset();
    store_.KeepLogout(id, LogoutOf(logout.body));
  }
  while (!told_logouts_.empty() && now.steady - told_logouts_.front().at > kTellAgainWithin) told_logouts_.pop_front();
}

void Hub::State::TellLogoutsAgain() {
  for (const ToldLogout& told : told_logouts_) {
    ClusterRequest body = told.body;
    body.set_id(gathers_.NextId());
    PublishRequest(std::move(body), 0);
  }
}

void Hub::State::OnLogoutKept(Now now, uint64_t id, bool ok) {
  const auto found = logouts_.find(id);
  if (found == logouts_.end()) return;
  KeptLogout& logout = found->second;
  if (ok) {
    KeptLogout kept = std::move(logout);
    logouts_.erase(found);
    ++counters_.logouts_kept;
    if (told_logouts_.size() == kToldMax) told_logouts_.pop_front();
    told_logouts_.push_back({now.steady, kept.body});
    AskAllCores(now, kept.request, std::move(kept.body));
  } else {
    // Whether it is kept is not known: if it is, nobody but this core would tell the others.
    const uint64_t request = std::exchange(logout.request, 0);
    if (now.steady < logout.until) {
      logout.again_at = now.steady + kKeepAgainAfter;
    } else {
      logouts_.erase(found);
    }
    if (request != 0) {
      output_.AnswerCluster(request, absl::UnavailableError("the logout could not be kept: the store is away"), {});
    }
  }
  Settle(now);
}

void Hub::State::CancelLogout(uint64_t request) {
  const auto found = std::find_if(logouts_.begin(), logouts_.end(),
                                  [request](const auto& logout) { return logout.second.request == request; });
  if (found == logouts_.end()) return;
  found->second.request = 0;  // it goes on all the same
  output_.AnswerCluster(request, absl::CancelledError("nobody waits for it"), {});
}

void Hub::State::FindLoggedOut(const link::v1::EndSessionsOrder& order, std::vector<ConnectionIndex>* found) const {
  const auto add = [&](ConnectionIndex index) {
    if (IsVoid(connections_[index], order.logged_out_at_ms())) found->push_back(index);
  };
  ForEachLoggedOut(order.user_id(), order.session_id(), add);
}

void Hub::State::EndExpected(const ClusterRequest& order) {
  std::vector<ConnectionTable::Ref> ended;
  const auto expected = [&](ConnectionIndex first, ConnectionIndex Connection::*next) {
    for (; first != kNoConnection; first = connections_[first].*next) {
      if (order.has_disconnect() || IsVoid(connections_[first], order.end_sessions().logged_out_at_ms())) {
        ended.push_back(connections_.records().RefTo(first));
      }
    }
  };
  if (!order.end_sessions().session_id().empty()) {
    const Session* session = connections_.FindSession(order.end_sessions().session_id());
    if (session != nullptr) expected(session->first_expected, &Connection::next_of_session);
  } else {
    const User* user =
        connections_.FindUser(order.has_disconnect() ? order.disconnect().user_id() : order.end_sessions().user_id());
    if (user != nullptr) expected(user->first_expected, &Connection::next_of_user);
  }
  // To note the end of one may cost the oldest of what is remembered, perhaps the next of these.
  for (const ConnectionTable::Ref ref : ended) {
    if (connections_.records().Holds(ref) && connections_[ref.index].expected()) ledger_.EndExpected(ref.index);
  }
}

void Hub::State::ForEachLoggedOut(std::string_view user_id, std::string_view session_id,
                                  absl::FunctionRef<void(ConnectionIndex)> use) const {
  if (!session_id.empty()) {
    const Session* session = connections_.FindSession(session_id);
    ConnectionIndex index = session == nullptr ? kNoConnection : session->first_live;
    for (; index != kNoConnection; index = connections_[index].next_of_session) use(index);
    return;
  }
  const User* user = connections_.FindUser(user_id);
  ConnectionIndex index = user == nullptr ? kNoConnection : user->first_live;
  for (; index != kNoConnection; index = connections_[index].next_of_user) use(index);
}

// ------------------------------------------------------------------------------------------- logouts that were not heard

void Hub::State::MissLogouts(Now now) {
  // Before the first time nobody could have been logged out here.
  if (!heard_logouts_until_) heard_logouts_until_ = now.steady;
  stale_logout_reads_ += std::exchange(reading_logouts_, false) ? 1 : 0;
}

void Hub::State::ReadLogouts(Now now) {
  if (!heard_logouts_until_ || reading_logouts_ || now.steady < read_logouts_at_) return;
  reading_logouts_ = true;
  const auto away = std::chrono::ceil<std::chrono::milliseconds>(now.steady - *heard_logouts_until_);
  store_.ReadLogouts(away + kUnheard);
}

void Hub::State::OnLogoutsRead(Now now, const absl::StatusOr<LogoutLog>& log) {
  if (stale_logout_reads_ > 0) {  // of a time before the store went away again
    --stale_logout_reads_;
    return;
  }
  reading_logouts_ = false;
  if (!log.ok()) {
    read_logouts_at_ = now.steady + kReadAgainAfter;
    return;
  }
  heard_logouts_until_.reset();
  // The store judges them: those whose token is newer, or who were logged out before the core knew them, go on as they were.
  if (log->complete) {
    for (const StoredLogout& logout : log->logouts) {
      ForEachLoggedOut(logout.user_id, logout.session_id,
                       [this](ConnectionIndex index) { ledger_.Reassert(connections_.records().RefTo(index)); });
    }
  } else {
    ledger_.ReassertAll();
  }
  ledger_.Send(now);
}

}  // namespace presence::core
