// What cores ask each other: the registry of live cores, requests and their answers, taps.
#include <algorithm>
#include <cstdio>
#include <utility>

#include "core/cluster_queries.h"
#include "core/hub_state.h"

namespace presence::core {
namespace {

using link::v1::ClusterReply;
using link::v1::ClusterRequest;

constexpr std::chrono::seconds kAnnounceEvery{1};
constexpr std::chrono::seconds kTellSettingsEvery{10};
constexpr std::chrono::seconds kReportSettingsEvery{60};
constexpr std::chrono::seconds kRenewTapsEvery{2};  // of a lease of 5 s
// Of one ClusterReplies; one larger answer goes alone.
constexpr size_t kReplyBytesMax = size_t{1} << 20;
constexpr size_t kKeptBytesMax = size_t{64} << 10;
constexpr size_t kCountBytes = 32;  // of a ClusterReply with a count, at most

// The numbers of google.rpc.Code are absl's.
constexpr uint32_t Code(absl::StatusCode code) {
  return static_cast<uint32_t>(code);
}

// Orders wait for shards, whose link may have to come back.
bool IsForConnections(const ClusterRequest& request) {
  return request.has_disconnect() || request.has_unsubscribe() || request.has_status() || request.has_end_sessions();
}

// Operators need those most when something is away.
bool IsForProcesses(const ClusterRequest& request) {
  return request.has_drain() || request.has_log_level();
}

// What a core can say without the others. An order is carried out by all cores or reported as not done.
bool IsQuery(const ClusterRequest& request) {
  switch (request.body_case()) {
    case ClusterRequest::kRooms:
    case ClusterRequest::kMembers:
    case ClusterRequest::kConnections:
    case ClusterRequest::kState:
    case ClusterRequest::kWatchedRooms:
      return true;
    default:
      return false;
  }
}

}  // namespace

// ------------------------------------------------------------------------------------------------------------ registry

void Hub::State::Announce(Now now) {
  if (withdrawn_) return;
  announce_at_ = now.steady + kAnnounceEvery;
  store_.Announce();
}

void Hub::State::Greet() {
  // Nothing but who it is from: the others need not wait for their next look into the registry to count this core in. Without a
  // sequence, since nobody waits for it.
  link::v1::BusEnvelope envelope;
  envelope.set_core(options_.incarnation);
  store_.Publish(0, envelope, {});
}

void Hub::State::TellSettings(Now now) {
  if (withdrawn_ || now.steady < tell_settings_at_) return;
  tell_settings_at_ = now.steady + kTellSettingsEvery;
  link::v1::BusEnvelope envelope;
  envelope.set_core(options_.incarnation);
  envelope.mutable_core_settings()->set_room_auth(options_.room_auth_name);
  store_.Publish(0, envelope, {});
}

void Hub::State::OnSettings(Now now, uint64_t core, const link::v1::CoreSettings& settings) {
  if (core == options_.incarnation) return;
  if (settings.room_auth() == options_.room_auth_name) {
    set_otherwise_.erase(core);
    return;
  }
  set_otherwise_.insert(core);
  if (now.steady < report_settings_at_) return;
  report_settings_at_ = now.steady + kReportSettingsEvery;
  char text[320];
  std::snprintf(text, sizeof text,
                "ROOM_AUTH is %s here and another value at core %016llx: who may be in a room depends on the core that "
                "is asked. Set it to the same value on all cores, and restart those that differ",
                options_.room_auth_name.c_str(), static_cast<unsigned long long>(core));
  Report(now, text);
}

void Hub::State::OnCoresRead(Now now, const absl::StatusOr<std::vector<uint64_t>>& cores) {
  // While it is up, an error is an answer as well: it takes no writes, but is there. What it did not answer is said when it is down.
  if (cores.ok() || ledger_.store_up()) registry_read_at_ = now.steady;
  if (!cores.ok()) return;  // the last list stands
  gathers_.SetCores(*cores);
  const absl::Span<const uint64_t> live = gathers_.cores();
  std::erase_if(set_otherwise_, [live](uint64_t core) { return !std::binary_search(live.begin(), live.end(), core); });
  for (auto it = outbox_.begin(); it != outbox_.end();) {
    const bool is_live = std::binary_search(live.begin(), live.end(), it->first);
    it = is_live || it->second.bytes != 0 ? std::next(it) : outbox_.erase(it);
  }
  Settle(now);
}

void Hub::State::StopJudging() {
  judging_ = false;
  if (!std::exchange(withdrawn_, true) && ledger_.store_up()) store_.Withdraw();
}

// ------------------------------------------------------------------------------------------------------------ requests

void Hub::State::OnClusterRequested(Now now, uint64_t request, ClusterRequest body) {
  ++counters_.cluster_requests;
  if (!ledger_.store_up()) {
    std::vector<ClusterReply> replies;
    if (IsQuery(body)) AnswerQuery(now, body, &replies.emplace_back());
    if (IsForProcesses(body) && !body.drain().has_core()) BeginOperation(body, &replies.emplace_back());
    output_.AnswerCluster(request, absl::UnavailableError("the store is away"), std::move(replies));
    return;
  }
  if (body.has_end_sessions() && logouts_.size() < options_.gathers_max)
    return KeepLogout(now, request, std::move(body));
  AskAllCores(now, request, std::move(body));
}

void Hub::State::AskAllCores(Now now, uint64_t request, ClusterRequest body) {
  if (publications_.Full() || gathers_.Full() || (body.has_end_sessions() && logouts_.size() >= options_.gathers_max)) {
    ++counters_.cluster_requests_refused;
    if (body.has_end_sessions() && logouts_.size() < options_.gathers_max) {  // it is kept: nobody would tell it later
      body.set_id(gathers_.NextId());
      PublishRequest(std::move(body), 0);
    }
    if (request == 0) return;
    output_.AnswerCluster(request, absl::ResourceExhaustedError("too many requests wait for other cores"), {});
    return;
  }
  if (request == 0) {
    body.set_id(gathers_.NextId());
    return PublishRequest(std::move(body), 0);
  }
  Gather gather;
  gather.kind = Gather::Kind::kRequest;
  gather.id = gathers_.NextId();
  gather.request = request;
  gather.needs_all = IsForConnections(body);
  gather.deadline = now.steady + (gather.needs_all ? options_.order_max : options_.gather_max);
  if (IsQuery(body)) gather.query = std::make_unique<ClusterRequest>(body);
  const uint64_t id = gather.id;
  gathers_.Begin(std::move(gather));
  body.set_id(id);
  PublishRequest(std::move(body), id);
}

void Hub::State::PublishRequest(ClusterRequest request, uint64_t gather) {
  request.set_origin(options_.incarnation);
  link::v1::BusEnvelope envelope = publications_.NewEnvelope(gather);
  *envelope.mutable_request() = std::move(request);
  store_.Publish(envelope.sequence(), envelope, {});
}

void Hub::State::OnClusterCancelled(Now now, uint64_t request) {
  gathers_.Cancel(request);
  CancelLogout(request);
  Settle(now);
}

void Hub::State::OnRequest(Now now, const ClusterRequest& request) {
  if (request.has_tap()) {
    // One's own was carried out at once.
    if (request.origin() != options_.incarnation) taps_.OnOrder(now, request.origin(), request.tap());
    return;
  }
  if (IsForConnections(request)) return OnOrder(now, request);
  ClusterReply reply;
  if (IsQuery(request)) {
    AnswerQuery(now, request, &reply);
  } else if (IsForProcesses(request)) {
    BeginOperation(request, &reply);
  } else if (request.has_forget_room_rights()) {
    reply.mutable_count()->set_count(ForgetRights(now, request.forget_room_rights()));
  } else {
    reply.set_code(Code(absl::StatusCode::kUnimplemented));
    reply.set_error("a core of an older release does not know this request");
  }
  reply.set_id(request.id());
  Reply(request.origin(), std::move(reply));
}

void Hub::State::AnswerQuery(Now now, const ClusterRequest& request, ClusterReply* reply) const {
  reply->set_core(options_.incarnation);
  reply->set_id(request.id());
  switch (request.body_case()) {
    case ClusterRequest::kRooms:
      return AnswerRooms(request.rooms(), rooms_, reply->mutable_rooms());
    case ClusterRequest::kMembers:
      return AnswerMembers(request.members(), connections_, rooms_, reply->mutable_members());
    case ClusterRequest::kConnections:
      return AnswerConnections(request.connections(), now, connections_, rooms_, options_.core_name,
                               reply->mutable_connections());
    case ClusterRequest::kWatchedRooms:
      return AnswerWatchedRooms(request.watched_rooms(), options_.incarnation, connections_, rooms_,
                                reply->mutable_watched_rooms());
    case ClusterRequest::kState:
      return AnswerState(reply->mutable_state());
    default:
      return;
  }
}

void Hub::State::BeginOperation(const ClusterRequest& request, ClusterReply* reply) {
  reply->set_core(options_.incarnation);
  reply->set_id(request.id());
  reply->mutable_count()->set_count(request.has_drain() ? BeginDrain(request.drain())
                                                        : SetLogLevel(request.log_level()));
}

void Hub::State::AnswerState(link::v1::StateReply* state) const {
  state->set_name(options_.core_name);
  state->set_version(options_.version);
  state->set_started_ms(options_.started_ms);
  state->set_draining(host_.draining);
  state->set_store_up(ledger_.store_up());
  state->set_connections(connections_.live());
  state->set_users(connections_.users());
  state->set_rooms(rooms_.size());
  state->set_memberships(rooms_.memberships());
  state->set_writes_waiting(ledger_.dirty());
  state->set_publications_waiting(publications_.waiting());
  state->set_watchers(host_.watchers);
  state->set_link_backlog_bytes(host_.link_backlog_bytes);
  for (const auto& [key, shard] : connections_.shards()) {
    link::v1::ShardSeen& seen = *state->add_shards();
    seen.set_edge(shard->edge);
    seen.set_incarnation(key.incarnation);
    seen.set_shard(key.shard);
    seen.set_attach(shard->attach);
    seen.set_attached(shard->link != nullptr);
    seen.set_connections(shard->connections);
    seen.set_events_waiting(shard->link == nullptr ? 0 : shard->link->awaiting.size());
    seen.set_version(shard->version);
    seen.set_started_ms(shard->started_ms);
  }
}

// ------------------------------------------------------------------------------------------------------------- answers

void Hub::State::Reply(uint64_t origin, ClusterReply reply) {
  reply.set_core(options_.incarnation);
  if (origin == options_.incarnation) {
    if (!gathers_.Answer(std::move(reply))) ++counters_.cluster_replies_late;
    return;
  }
  const size_t bytes = reply.ByteSizeLong();
  *OutgoingTo(origin, bytes).add_replies() = std::move(reply);
}

void Hub::State::ReplyCount(uint64_t origin, uint64_t id, uint32_t count) {
  if (origin == options_.incarnation) {
    if (!gathers_.Count(id, options_.incarnation, count)) ++counters_.cluster_replies_late;
    return;
  }
  ClusterReply& reply = *OutgoingTo(origin, kCountBytes).add_replies();
  reply.set_core(options_.incarnation);
  reply.set_id(id);
  reply.mutable_count()->set_count(count);
}

link::v1::ClusterReplies& Hub::State::OutgoingTo(uint64_t origin, size_t bytes) {
  Outgoing& outgoing = outbox_[origin];
  if (outgoing.bytes != 0 && outgoing.bytes + bytes > kReplyBytesMax) SendReplies(origin, outgoing);
  outgoing.bytes += bytes;
  return outgoing.replies;
}

void Hub::State::SendReplies(uint64_t origin, Outgoing& outgoing) {
  if (ledger_.store_up()) store_.Reply(origin, outgoing.replies);
  // Counts come all the time and go into the same memory; a page is rare and large.
  if (outgoing.bytes <= kKeptBytesMax) {
    outgoing.replies.Clear();
  } else {
    outgoing.replies = link::v1::ClusterReplies();
  }
  outgoing.bytes = 0;
}

void Hub::State::OnReplies(Now now, const link::v1::ClusterReplies& replies) {
  for (const ClusterReply& reply : replies.replies()) {
    gathers_.Heard(reply.core());
    if (reply.has_tap_events()) {
      Tapped(reply.id(), reply.tap_events());
    } else if (!gathers_.Answer(reply)) {
      ++counters_.cluster_replies_late;
    }
  }
  Settle(now);
}

void Hub::State::Settle(Now now) {
  // Orders first: their ends may be answers to gathers of this core.
  while (const std::optional<OrderResult> result = orders_.TakeFinished()) {
    ClusterReply reply;
    reply.set_id(result->origin.id);
    reply.mutable_count()->set_count(result->count);
    if (!result->complete) {
      ++counters_.orders_expired;
      reply.set_code(Code(absl::StatusCode::kUnavailable));
      reply.set_error("a shard has not carried it out in time, or has gone to another core");
    }
    Reply(result->origin.core, std::move(reply));
  }
  while (std::optional<Gather> gather = gathers_.TakeFinished()) {
    if (gather->kind == Gather::Kind::kMessage) {
      AnswerMessage(*gather);
    } else {
      AnswerCluster(now, *gather);
    }
  }
}

void Hub::State::AnswerCluster(Now now, Gather& gather) {
  const auto ours = [this](const ClusterReply& reply) { return reply.core() == options_.incarnation; };
  if (gather.end != Gather::End::kComplete && gather.end != Gather::End::kCancelled && gather.query != nullptr &&
      std::none_of(gather.replies.begin(), gather.replies.end(), ours)) {
    // The request has not come back; what this core knows it can say all the same.
    ClusterReply reply;
    AnswerQuery(now, *gather.query, &reply);
    const auto behind = std::find_if(gather.replies.begin(), gather.replies.end(),
                                     [this](const ClusterReply& other) { return other.core() > options_.incarnation; });
    gather.replies.insert(behind, std::move(reply));
  }
  const auto failed = std::find_if(gather.replies.begin(), gather.replies.end(),
                                   [](const ClusterReply& reply) { return reply.code() != 0; });
  absl::Status status;
  if (gather.end == Gather::End::kCancelled) {
    status = absl::CancelledError("nobody waits for it");
  } else if (failed != gather.replies.end()) {
    status = absl::Status(static_cast<absl::StatusCode>(failed->code()), failed->error());
  } else if (gather.end == Gather::End::kUnpublished) {
    status = absl::UnavailableError("the store is away");
  } else if (gather.end == Gather::End::kTimedOut) {
    status = absl::UnavailableError("a core did not answer in time");
  }
  if (gather.end == Gather::End::kTimedOut) ++counters_.gathers_incomplete;
  output_.AnswerCluster(gather.request, status, std::move(gather.replies));
}

void Hub::State::OnTurnEnd(Now /*now*/) {
  taps_.Take([this](uint64_t origin, uint64_t tap, const link::v1::TapEvents& events) {
    if (origin == options_.incarnation) return Tapped(tap, events);
    ClusterReply reply;
    reply.set_id(tap);
    *reply.mutable_tap_events() = events;
    Reply(origin, std::move(reply));
  });
  for (auto& [origin, outgoing] : outbox_) {
    if (outgoing.bytes != 0) SendReplies(origin, outgoing);
  }
}

// ---------------------------------------------------------------------------------------------------------------- taps

absl::Status Hub::State::OnTapOpened(Now now, uint64_t tap, const link::v1::TapOrder& target) {
  if (open_taps_.size() >= options_.taps_max) return absl::ResourceExhaustedError("too many taps");
  OpenTap& opened = open_taps_[tap];
  opened.order = target;
  opened.order.set_tap(gathers_.NextId());
  opened.order.set_ended(false);
  SendTapOrder(now, opened);
  return absl::OkStatus();
}

void Hub::State::OnTapClosed(Now now, uint64_t tap) {
  const auto found = open_taps_.find(tap);
  if (found == open_taps_.end()) return;
  found->second.order.set_ended(true);
  SendTapOrder(now, found->second);
  open_taps_.erase(found);
}

void Hub::State::RenewTaps(Now now) {
  for (auto& [tap, open] : open_taps_) {
    if (now.steady >= open.renew_at) SendTapOrder(now, open);
  }
}

void Hub::State::SendTapOrder(Now now, OpenTap& tap) {
  // This core's own events need no bus; those of the others end without it, and come again with the next order.
  taps_.OnOrder(now, options_.incarnation, tap.order);
  tap.renew_at = now.steady + kRenewTapsEvery;
  if (!ledger_.store_up()) return;
  if (publications_.FullForVolatile()) {
    tap.renew_at = now.steady;
    return;
  }
  ClusterRequest request;
  request.set_id(tap.sent ? gathers_.NextId() : tap.order.tap());
  *request.mutable_tap() = tap.order;
  tap.sent = true;
  PublishRequest(std::move(request), 0);
}

void Hub::State::Tapped(uint64_t id, const link::v1::TapEvents& events) {
  for (const auto& [tap, open] : open_taps_) {
    if (open.order.tap() == id) return output_.Tapped(tap, events);
  }
}

void Hub::State::SawConnection(Now now, link::v1::TapKind kind, const Connection& connection, std::string_view room_id,
                               std::string_view detail) {
  Taps::Subject subject;
  subject.user_id = connections_.user(connection).id;
  subject.room_id = room_id;
  subject.incarnation = connection.incarnation;
  subject.connection = connection.id;
  subject.detail = detail;
  taps_.Saw(now, kind, subject, Taps::Heard::kHere);
}

}  // namespace presence::core
