#include "core/hub.h"

#include <algorithm>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "common/check.h"
#include "core/hub_state.h"
#include "core/presence_text.h"

namespace presence::core {
namespace {

constexpr std::chrono::seconds kSweepEvery{1};
constexpr int kSweepUsersMax = 100;
// A tick that is later than this says that the core was stalled, not the links; for so long nobody is judged.
constexpr std::chrono::seconds kStall{1};
constexpr int kReportsPerSecondMax = 5;
constexpr std::chrono::seconds kPassedOnEvery{1};
// The end of a connection that another core tells the store fences what this one says of it, for the 15 s of a tombstone. With room for
// the way.
constexpr std::chrono::seconds kEndsRemembered{10};
// A store that has not answered for so long is given up for lost.
constexpr std::chrono::seconds kStoreSilenceMax{3};

// The last event before the first that awaits the store, or somebody's right to a room. Sequences may have gaps, where the shard repeated nothing since its
// declaration had said it.
uint64_t AppliedThrough(const Link& link) {
  if (link.awaiting.empty() && link.joins_waiting.empty()) return link.last_sequence;
  uint64_t awaiting = UINT64_MAX;
  if (!link.awaiting.empty()) awaiting = link.awaiting.front().sequence;
  if (!link.joins_waiting.empty()) awaiting = std::min(awaiting, *link.joins_waiting.begin());
  return awaiting == link.first_sequence ? 0 : awaiting - 1;
}

}  // namespace

Hub::State::State(HubOptions options, Store& store, HubOutput& output, RoomAuthorizer* authorizer)
    : options_(std::move(options)),
      store_(store),
      output_(output),
      links_(output, counters_),
      ledger_(options_, store, connections_, rooms_, counters_),
      fanout_(links_, connections_, rooms_, counters_),
      publications_(options_.incarnation, {options_.publications_waiting_max, options_.publication_bytes_max}),
      gathers_(options_.incarnation, options_.gathers_max),
      orders_(options_.orders_max),
      taps_(options_.incarnation, options_.core_name, options_.taps_max, options_.tap_events_per_second),
      access_(options_.room_access, authorizer, connections_, rooms_) {
  PRESENCE_CHECK(options_.room_auth != RoomAuth::kAsked || authorizer != nullptr, "there is somebody to ask");
}

void Hub::State::OnTick(Now now) {
  if (ticked_ && now.steady - last_tick_ > kStall) patient_until_ = now.steady + kStall;
  last_tick_ = now.steady;
  ticked_ = true;
  if (judging_ && now.steady >= patient_until_) {
    JudgeSilence(now);
    EndGrace(now);
    SendShardsAway(now);
  }
  while (publications_.Oldest() != nullptr && now.steady - publications_.OldestSince() > options_.loopback_max) {
    DeliverOverdue(now, publications_.Oldest()->sequence());
  }
  JudgeLate(now);
  reads_.OnTick();
  ReadRooms(now);
  ledger_.OnTick(now);
  if (ledger_.store_up()) {
    if (now.steady >= read_again_at_) ReadMissed();
    ReadLogouts(now);
    KeepLogoutsAgain(now);
    if (now.steady >= sweep_at_) {
      sweep_at_ = now.steady + kSweepEvery;
      store_.Sweep(kSweepUsersMax);
    }
    if (now.steady >= announce_at_) Announce(now);
    TellSettings(now);
    others_known_ = others_known_ || gathers_.cores().size() > 1;
    TellAttached();
  }
  ledger_.Send(now);
  access_.AskDue(now.steady);
  TellMissed(now);
  taps_.OnTick(now);
  RenewTaps(now);
  orders_.OnTick(now.steady);
  Settle(now);  // what this core could not do in time is an answer, before the others' time is over
  gathers_.OnTick(now.steady);
  Settle(now);
  SpeakToLinks(now);
}

void Hub::State::JudgeSilence(Now now) {
  std::vector<LinkId> silent;
  for (const auto& [id, link] : links_) {
    if (now.steady - link.last_event > options_.link_silence_max) silent.push_back(id);
  }
  for (const LinkId id : silent) {
    ++counters_.links_silent;
    CloseLink(now, *links_.Find(id), absl::UnavailableError("the link was silent"));
  }
}

bool Hub::State::GraceIsOver(Now now, const Shard& shard) const {
  return shard.link == nullptr && now.steady - std::max(shard.lost_at, store_up_at_) >= options_.edge_grace;
}

void Hub::State::EndGrace(Now now) {
  std::vector<Shard*> expired;
  for (const auto& [key, shard] : connections_.shards()) {
    if (GraceIsOver(now, *shard)) expired.push_back(shard.get());
  }
  if (!ledger_.store_up()) {
    // Nobody can say now that he has the shard; whoever has it would see its users called gone when the store is back.
    bool any = false;
    for (Shard* shard : expired) {
      any |= !shard->set_aside;
      SetAside(*shard);
    }
    if (any) BoundSetAside();
    return;
  }
  for (Shard* shard : expired) {
    ++counters_.edges_expired;
    if (shard->connections > 0) {  // else it has sent everybody away, and is not missed
      char text[160];
      std::snprintf(text, sizeof text, "edge %016llx shard %u has not come back: %zu connections are closed",
                    static_cast<unsigned long long>(shard->key.incarnation), shard->key.shard, shard->connections);
      Report(now, text);
    }
    for (uint32_t slot = 0; slot < shard->slots_end(); ++slot) {
      const ConnectionIndex index = shard->InSlot(slot);
      if (index != kNoConnection) CloseConnection(now, *shard, index, 0);
    }
    connections_.DropShard(*shard);
  }
}

void Hub::State::CloseLink(Now now, Link& link, const absl::Status& why) {
  output_.CloseLink(link.id, why);
  DropLink(now, link);
}

void Hub::State::OnLinkClosed(Now now, LinkId id) {
  Link* link = links_.Find(id);
  if (link != nullptr) DropLink(now, *link);
}

void Hub::State::DropLink(Now now, Link& link) {
  if (link.shard != nullptr) {
    link.shard->link = nullptr;
    link.shard->lost_at = now.steady;
  }
  ledger_.LinkGone(link.id);
  links_.Erase(link.id);
}

void Hub::State::SpeakToLinks(Now now) {
  for (auto& [id, link] : links_) {
    if (link.phase == Link::Phase::kNew) continue;
    while (!link.awaiting.empty() && ledger_.Confirmed(link.awaiting.front())) link.awaiting.pop_front();
    const uint64_t applied = AppliedThrough(link);
    const uint64_t passed_on = PassedOn(now, link);
    if (applied > link.acknowledged || passed_on != 0) {
      link.acknowledged = std::max(link.acknowledged, applied);
      link::v1::Acknowledge& acknowledge = *links_.Command(link).mutable_acknowledge();
      acknowledge.set_sequence(link.acknowledged);
      acknowledge.set_presence_watermark(passed_on);
    }
    if (!link.spoken && now.steady - link.last_command >= options_.heartbeat_interval) {
      links_.Command(link).mutable_heartbeat();
    }
    if (link.spoken) link.last_command = now.steady;
    link.spoken = false;
  }
}

uint64_t Hub::State::PassedOn(Now now, Link& link) const {
  if (link.phase != Link::Phase::kLive || now.steady - link.passed_on_at < kPassedOnEvery) return 0;
  // While something is still to be read or told, an older version may follow; the next core must not take it for known.
  if (!ledger_.store_up() || missed_.since != 0 || link.missed.since != 0) return 0;
  if (Watermark() <= link.passed_on) return 0;
  link.passed_on = Watermark();
  link.passed_on_at = now.steady;
  return link.passed_on;
}

void Hub::State::OnStoreUp(Now now, bool lost_state) {
  if (baseline_version_ == 0) {
    StartBaseline(now);
  } else if (missed_.since == 0) {
    missed_.since = Watermark();
  }
  for (const auto& [key, shard] : connections_.shards()) {
    const auto away_max = std::min<Duration>(options_.edge_grace, kEndsRemembered);
    if (shard->link == nullptr && now.steady - shard->lost_at >= away_max) SetAside(*shard);
  }
  store_up_at_ = now.steady;  // whoever has one of the lost shards is about to say so
  ledger_.OnStoreUp(now, lost_state);
  registry_read_at_ = now.steady;
  Announce(now);
  if (!withdrawn_) Greet();
  tell_settings_at_ = now.steady;
  TellAttachedAgain();
  TellAttached();
  for (auto& [tap, open] : open_taps_) open.renew_at = now.steady;
  ReadMissed();
  read_rooms_at_ = now.steady;
  ResumeAllRooms(now, lost_state);
  if (lost_state) heard_logouts_until_.reset();  // everybody is asserted again, and judged by what is left
  read_logouts_at_ = now.steady;
  ReadLogouts(now);
  TellLogoutsAgain();
  ledger_.Send(now);
}

void Hub::State::OnStoreDown(Now now) {
  registry_read_at_ = std::max(registry_read_at_, now.steady - kStoreSilenceMax);
  ledger_.OnStoreDown();
  MissLogouts(now);
  ReleaseAllJoins(now);
  // What is read but not told is older than what will be missed now: the whole is read again.
  const auto give_up = [](MissedChanges& missed) {
    missed.read = 0;
    missed.Forget();
  };
  give_up(missed_);
  for (auto& [id, link] : links_) give_up(link.missed);
  read_again_at_ = now.steady;
  while (publications_.Oldest() != nullptr) DeliverOverdue(now, publications_.Oldest()->sequence());
  LoseRooms(now);
  Settle(now);
}

void Hub::State::OnWritten(Now now, uint64_t id, const WriteResult& result) {
  const std::optional<ConnectionIndex> written = ledger_.RecordOf(id);
  if (const auto refusal = ledger_.OnWritten(now, id, result)) SendAway(now, *refusal);
  if (written) JudgeJoins(now, *written, result);
  ledger_.Send(now);
}

void Hub::State::OnRefreshed(uint64_t id, absl::Span<const uint32_t> missing) {
  const PresenceLedger::MissingEntries entries = ledger_.Refreshed(id, missing);
  Link* link = entries.connections.empty() ? nullptr : links_.Find(entries.link);
  if (link == nullptr) return;
  link->missing.insert(link->missing.end(), entries.connections.begin(), entries.connections.end());
}

void Hub::State::Report(Now now, const std::string& text) {
  if (now.steady - reports_since_ >= std::chrono::seconds(1)) {
    reports_since_ = now.steady;
    reports_ = 0;
  }
  if (++reports_ <= kReportsPerSecondMax) output_.Report(text);
}

bool Hub::State::Idle() const {
  return ledger_.in_flight() == 0 && ledger_.dirty() == 0 && publications_.unanswered() == 0;
}

HubSizes Hub::State::sizes() const {
  HubSizes sizes;
  sizes.links = links_.size();
  sizes.shards = connections_.shards().size();
  sizes.connections = connections_.live();
  sizes.users = connections_.users();
  sizes.removals = connections_.records().size() - connections_.live();
  sizes.rooms = rooms_.size();
  sizes.memberships = rooms_.memberships();
  sizes.writes_in_flight = ledger_.in_flight();
  sizes.writes_waiting = ledger_.dirty();
  sizes.publications_waiting = publications_.waiting();
  sizes.refreshes_unanswered = ledger_.refreshes_unanswered();
  sizes.cores = gathers_.cores().size();
  sizes.cores_set_otherwise = set_otherwise_.size();
  sizes.gathers = gathers_.size();
  sizes.orders = orders_.size();
  sizes.taps = taps_.size();
  sizes.room_rights = access_.rows();
  sizes.room_questions = access_.asked();
  sizes.joins_waiting = access_.joins_waiting();
  for (const auto& [room_id, floor] : floors_) sizes.joins_waiting += floor.waiting.size();
  sizes.room_reads = reads_.size();
  sizes.rooms_doubted = doubted_.size();
  for (const auto& [index, joins] : held_joins_) sizes.joins_waiting += joins.size();
  return sizes;
}

const HubCounters& Hub::State::counters() const {
  counters_.tap_events = taps_.events();
  counters_.tap_events_left_out = taps_.events_left_out();
  counters_.room_rights_asked = access_.questions();
  return counters_;
}

std::string Hub::State::DebugDump() const {
  std::string out;
  char text[128];
  for (const auto& [key, shard] : connections_.shards()) {
    std::snprintf(text, sizeof text, "edge %016llx shard %u attach %llu %s\n",
                  static_cast<unsigned long long>(key.incarnation), key.shard,
                  static_cast<unsigned long long>(shard->attach), shard->link != nullptr ? "attached" : "lost");
    out.append(text);
    for (uint32_t slot = 0; slot < shard->slots_end(); ++slot) {
      const ConnectionIndex index = shard->InSlot(slot);
      if (index == kNoConnection) continue;
      const Connection& connection = connections_[index];
      std::snprintf(text, sizeof text, "  %016llx ", static_cast<unsigned long long>(connection.id));
      out.append(text).append(connections_.user(connection).id).append(" ");
      out.append(StatusName(connection.device_status()));
      std::vector<std::string_view> rooms;
      for (const Membership& membership : connection.rooms) rooms.push_back(rooms_.id(membership.room));
      std::sort(rooms.begin(), rooms.end());
      for (const std::string_view room : rooms) out.append(" ").append(room);
      out.push_back('\n');
    }
  }
  return out;
}

Hub::Hub(HubOptions options, Store& store, HubOutput& output, RoomAuthorizer* authorizer)
    : state_(std::make_unique<State>(std::move(options), store, output, authorizer)) {}
Hub::~Hub() = default;

void Hub::OnLinkOpened(Now now, LinkId link) {
  state_->OnLinkOpened(now, link);
}
void Hub::OnLinkEvent(Now now, LinkId link, const link::v1::EdgeEvent& event) {
  state_->OnLinkEvent(now, link, event);
}
void Hub::OnLinkClosed(Now now, LinkId link) {
  state_->OnLinkClosed(now, link);
}
void Hub::OnStoreUp(Now now, bool lost_state) {
  state_->OnStoreUp(now, lost_state);
}
void Hub::OnStoreDown(Now now) {
  state_->OnStoreDown(now);
}
void Hub::OnWritten(Now now, uint64_t id, const WriteResult& result) {
  state_->OnWritten(now, id, result);
}
void Hub::OnRefreshed(Now /*now*/, uint64_t id, absl::Span<const uint32_t> missing) {
  state_->OnRefreshed(id, missing);
}
void Hub::OnPublished(Now now, uint64_t id, bool ok) {
  state_->OnPublished(now, id, ok);
}
void Hub::OnChangesRead(Now now, uint64_t id, const absl::StatusOr<ChangeLog>& log) {
  state_->OnChangesRead(now, id, log);
}
void Hub::OnPublishedOnce(Now now, uint64_t id, const OnceResult& result) {
  state_->OnPublishedOnce(now, id, result);
}
void Hub::OnAppended(Now now, uint64_t id, const AppendResult& result) {
  state_->OnAppended(now, id, result);
}
void Hub::OnRoomLogRead(Now now, uint64_t id, const absl::StatusOr<RoomLogPage>& page) {
  state_->OnRoomLogRead(now, id, page);
}
void Hub::OnLogoutKept(Now now, uint64_t id, bool ok) {
  state_->OnLogoutKept(now, id, ok);
}
void Hub::OnLogoutsRead(Now now, const absl::StatusOr<LogoutLog>& log) {
  state_->OnLogoutsRead(now, log);
}
void Hub::OnCoresRead(Now now, const absl::StatusOr<std::vector<uint64_t>>& cores) {
  state_->OnCoresRead(now, cores);
}
void Hub::OnBus(Now now, const link::v1::BusEnvelope& envelope) {
  state_->OnBus(now, envelope);
}
void Hub::OnReplies(Now now, const link::v1::ClusterReplies& replies) {
  state_->OnReplies(now, replies);
}
void Hub::OnOutsideMessage(Now now, std::string_view text) {
  state_->OnOutsideMessage(now, text);
}
void Hub::OnOutsidePresence(Now now, std::string_view text) {
  state_->OnOutsidePresence(now, text);
}
void Hub::OnRoomRight(Now now, uint64_t question, const RoomAnswer& answer) {
  state_->OnRoomRight(now, question, answer);
}
void Hub::OnMessageRequested(Now now, uint64_t request, const MessageRequest& message) {
  state_->OnMessageRequested(now, request, message);
}
absl::Status Hub::OnTypingRequested(Now now, const link::v1::RoomTyping& typing) {
  return state_->OnTypingRequested(now, typing);
}
void Hub::OnClusterRequested(Now now, uint64_t request, link::v1::ClusterRequest body) {
  state_->OnClusterRequested(now, request, std::move(body));
}
void Hub::OnClusterCancelled(Now now, uint64_t request) {
  state_->OnClusterCancelled(now, request);
}
absl::Status Hub::OnTapOpened(Now now, uint64_t tap, const link::v1::TapOrder& target) {
  return state_->OnTapOpened(now, tap, target);
}
void Hub::OnTapClosed(Now now, uint64_t tap) {
  state_->OnTapClosed(now, tap);
}
void Hub::OnHostState(const HostState& state) {
  state_->OnHostState(state);
}
void Hub::OnTurnEnd(Now now) {
  state_->OnTurnEnd(now);
}
void Hub::OnTick(Now now) {
  state_->OnTick(now);
}
void Hub::StopJudging() {
  state_->StopJudging();
}
bool Hub::Idle() const {
  return state_->Idle();
}
bool Hub::caught_up() const {
  return state_->caught_up();
}
bool Hub::store_up() const {
  return state_->store_up();
}
const HubCounters& Hub::counters() const {
  return state_->counters();
}
HubSizes Hub::sizes() const {
  return state_->sizes();
}
std::string Hub::DebugDump() const {
  return state_->DebugDump();
}

}  // namespace presence::core
