#include "tests/sim/core_node.h"

#include <utility>

#include "tests/sim/world.h"

namespace presence::sim {

using std::chrono::milliseconds;

namespace {

constexpr uint64_t kWatchRequests = uint64_t{1} << 62;  // the callers' are below
// As core/main.cc: for what was accepted; then for calls under way.
constexpr std::chrono::seconds kDrainMax{4}, kCallsMax{2};

}  // namespace

CoreProcess::CoreProcess(World& world, uint64_t incarnation, MachineClock machine_clock)
    : world_(world), incarnation_(incarnation), started_at_(world.now()) {
  clock = machine_clock;
  core::StoreOptions store_options = world.store_options();
  store_options.core_incarnation = incarnation;
  store_ =
      std::make_unique<core::MemoryStore>(store_options, world.database(), static_cast<core::StoreListener&>(*this));
  store_->SetFrozen(world.redis_frozen);
  store_->SetReadDelay([&world] { return world.ReadDelay(); });
  core::HubOptions hub_options = world.hub_options();
  hub_options.incarnation = incarnation;
  hub_options.core_name = "core";
  authorizer_ = world.rights().NewAuthorizer(*this);
  hub_ = std::make_unique<core::Hub>(hub_options, *store_, static_cast<core::HubOutput&>(*this), authorizer_.get());
  core::WatchOptions watch_options;
  watch_options.resume_max = store_options.change_log_lifetime;
  watches_ = std::make_unique<core::Watches>(watch_options, *store_, [this](link::v1::ClusterRequest body, auto done) {
    const uint64_t request = kWatchRequests + ++last_watch_request_;
    asked_.emplace(request, std::move(done));
    hub_->OnClusterRequested(Clocks(), request, std::move(body));
  });
}

Now CoreProcess::Clocks() const {
  return clock.Read(world_.now());
}

void CoreProcess::Start() {
  Tick();
}

void CoreProcess::Crash() {
  alive = false;
  links_.clear();
  unanswered_.clear();  // which hold on to this core
  asked_.clear();
  watches_.reset();
  hub_.reset();
  store_.reset();
}

void CoreProcess::Stop() {
  hub_->StopJudging();
  watches_->Shutdown(absl::UnavailableError("core is stopping"));
  stop_since_ = world_.now();
  EndLinks(milliseconds(0));
  Step();
}

void CoreProcess::DrainCore(milliseconds window) {
  // Not from inside the hub.
  world_.scheduler().AtProcess(world_.now(), shared_from_this(), [this, window] {
    if (!refusing_) EndLinks(window);
  });
}

// Of n links the i-th, from 0, ends after i/n of the window.
void CoreProcess::EndLinks(milliseconds window) {
  refusing_ = true;
  size_t ended = 0;
  const std::map<core::LinkId, Gathered> links = links_;
  for (const auto& [id, gathered] : links) {
    const SimTime wait = SimTime(window) * static_cast<int64_t>(ended++) / static_cast<int64_t>(links.size());
    if (wait.count() == 0) {
      EndLink(id);
    } else {
      world_.scheduler().AtProcess(world_.now() + wait, shared_from_this(), [this, id = id] { EndLink(id); });
    }
  }
}

void CoreProcess::EndLink(core::LinkId id) {
  const auto found = links_.find(id);
  if (found == links_.end()) return;
  hub_->OnLinkClosed(Clocks(), id);
  Flush(id);
  const std::shared_ptr<SimLink> link = found->second.link;
  link->core_open = false;
  links_.erase(found);
  world_.SendDown(link, {SimLink::Item::Kind::kEnd, ""});
  Step();
}

bool CoreProcess::HasStopped() {
  if (!stop_since_) return false;
  const bool idle = hub_->Idle() && unanswered_.empty() && links_.empty();
  if (!drained_at_ && (idle || world_.now() - *stop_since_ >= kDrainMax)) drained_at_ = world_.now();
  return drained_at_ && ((unanswered_.empty() && asked_.empty()) || world_.now() - *drained_at_ >= kCallsMax);
}

void CoreProcess::Request(uint64_t request, const core::MessageRequest& message, MessageAnswered done) {
  unanswered_.emplace(request, std::move(done));
  hub_->OnMessageRequested(Clocks(), request, message);
  Step();
}

void CoreProcess::Ask(uint64_t request, link::v1::ClusterRequest body, ClusterAnswered done) {
  asked_.emplace(request, std::move(done));
  hub_->OnClusterRequested(Clocks(), request, std::move(body));
  Step();
}

void CoreProcess::Cancel(uint64_t request) {
  hub_->OnClusterCancelled(Clocks(), request);
  Step();
}

void CoreProcess::OnRoomRight(uint64_t question, const core::RoomAnswer& answer) {
  hub_->OnRoomRight(Clocks(), question, answer);
  Step();
}

void CoreProcess::OnLinkOpened(const std::shared_ptr<SimLink>& link) {
  if (refusing_) {
    link->core_open = false;
    return world_.SendDown(link, {SimLink::Item::Kind::kEnd, ""});
  }
  links_[link->id].link = link;
  hub_->OnLinkOpened(Clocks(), link->id);
  Step();
}

void CoreProcess::OnLinkFrame(const std::shared_ptr<SimLink>& link, const std::string& bytes) {
  link::v1::EdgeFrame frame;
  world_.Check(frame.ParseFromString(bytes), "an EdgeFrame parses");
  for (const link::v1::EdgeEvent& event : frame.events()) {
    if (!link->core_open) break;  // the hub has ended it meanwhile
    hub_->OnLinkEvent(Clocks(), link->id, event);
  }
  Step();
}

void CoreProcess::OnLinkEnded(const std::shared_ptr<SimLink>& link) {
  if (!std::exchange(link->core_open, false)) return;
  links_.erase(link->id);
  hub_->OnLinkClosed(Clocks(), link->id);
  Step();
}

void CoreProcess::Tick() {
  store_->RunPending();  // also notices that a store has stalled
  hub_->OnTick(Clocks());
  watches_->OnTick(Clocks(), hub_->caught_up());
  Step();
  if (HasStopped()) return world_.EndCore(*this);
  world_.TickLater(shared_from_this(), [this] { Tick(); });
}

void CoreProcess::Step() {
  watches_->OnTurnEnd(Clocks());
  hub_->OnTurnEnd(Clocks());
  if (!store_->HasPending() || std::exchange(pump_planned_, true)) return;
  world_.scheduler().AtProcess(world_.now() + world_.RedisDelay(), shared_from_this(), [this] {
    pump_planned_ = false;
    store_->RunPending();
    Step();
  });
}

link::v1::CoreCommand& CoreProcess::AddCommand(core::LinkId id) {
  Gathered& gathered = links_.at(id);
  if (!std::exchange(gathered.flush_planned, true)) {
    world_.scheduler().AtProcess(world_.now() + world_.GatherDelay(), shared_from_this(), [this, id] { Flush(id); });
  }
  return *gathered.frame.add_commands();
}

// Little is said here: what is three frames behind counts as full.
size_t CoreProcess::BacklogBytes(core::LinkId id) const {
  return links_.at(id).link->to_edge.items.size() < 3 ? 0 : core::HubOptions().replay_backlog_max + 1;
}

void CoreProcess::Flush(core::LinkId id) {
  const auto found = links_.find(id);
  if (found == links_.end()) return;
  found->second.flush_planned = false;
  if (found->second.frame.commands_size() == 0) return;
  world_.SendDown(found->second.link, {SimLink::Item::Kind::kFrame, found->second.frame.SerializeAsString()});
  found->second.frame.Clear();
}

void CoreProcess::CloseLink(core::LinkId id, const absl::Status& why) {
  // The simulated edges keep the protocol: only these are right.
  world_.Check(absl::IsUnavailable(why) || absl::IsFailedPrecondition(why),
               "the core finds no fault: " + why.ToString());
  Flush(id);
  const std::shared_ptr<SimLink> link = links_.at(id).link;
  link->core_open = false;
  links_.erase(id);
  world_.SendDown(link, {SimLink::Item::Kind::kEnd, ""});
}

void CoreProcess::AnswerMessage(uint64_t request, const absl::Status& status, const core::MessageAnswer& answer) {
  const auto found = unanswered_.find(request);
  world_.Check(found != unanswered_.end(), "a message is answered once");
  world_.Check(!absl::IsResourceExhausted(status), "the load of the simulation is bearable");
  const MessageAnswered done = std::move(found->second);
  unanswered_.erase(found);
  done(status, answer);
}

void CoreProcess::AnswerCluster(uint64_t request, const absl::Status& status,
                                std::vector<link::v1::ClusterReply> replies) {
  const auto found = asked_.find(request);
  world_.Check(found != asked_.end(), "a request is answered once");
  world_.Check(!absl::IsResourceExhausted(status), "the load of the simulation is bearable");
  const ClusterAnswered done = std::move(found->second);
  asked_.erase(found);
  done(status, std::move(replies));
}

void CoreProcess::Tapped(uint64_t /*tap*/, const link::v1::TapEvents& /*events*/) {}

void CoreProcess::PresenceChanged(const core::PresenceChange& change) {
  // Of a change of more than 15 s ago the hub may have forgotten that it told it, and tell it again. A Redis that has lost its data
  // gets them back from cores of which some may have missed the last ones.
  uint64_t& version = versions_[std::string(change.user_id)];
  world_.Check(change.version >= version || !world_.RedisRemembers(), "versions of a user only grow");
  version = change.version;
  watches_->OnPresenceChanged(Clocks(), change);
}

void CoreProcess::SetLogLevel(link::v1::LogLevel /*level*/) {}

void CoreProcess::Report(std::string_view text) {
  world_.Trace(text);
}

void CoreProcess::OnStoreUp(bool lost_state) {
  hub_->OnStoreUp(Clocks(), lost_state);
}
void CoreProcess::OnStoreDown(std::string_view /*why*/) {
  hub_->OnStoreDown(Clocks());
}
void CoreProcess::OnWritten(uint64_t id, const core::WriteResult& result) {
  hub_->OnWritten(Clocks(), id, result);
}
void CoreProcess::OnRefreshed(uint64_t id, absl::Span<const uint32_t> missing) {
  hub_->OnRefreshed(Clocks(), id, missing);
}
void CoreProcess::OnPublished(uint64_t id, bool ok) {
  hub_->OnPublished(Clocks(), id, ok);
}
void CoreProcess::OnChangesRead(uint64_t id, const absl::StatusOr<core::ChangeLog>& log) {
  if ((id & core::Watches::kReadIds) != 0) return watches_->OnChangesRead(id, log);
  hub_->OnChangesRead(Clocks(), id, log);
}
void CoreProcess::OnPublishedOnce(uint64_t id, const core::OnceResult& result) {
  hub_->OnPublishedOnce(Clocks(), id, result);
}
void CoreProcess::OnAppended(uint64_t id, const core::AppendResult& result) {
  hub_->OnAppended(Clocks(), id, result);
}
void CoreProcess::OnRoomLogRead(uint64_t id, const absl::StatusOr<core::RoomLogPage>& page) {
  hub_->OnRoomLogRead(Clocks(), id, page);
}
void CoreProcess::OnCoresRead(const absl::StatusOr<std::vector<uint64_t>>& cores) {
  hub_->OnCoresRead(Clocks(), cores);
}
void CoreProcess::OnLogoutKept(uint64_t id, bool ok) {
  hub_->OnLogoutKept(Clocks(), id, ok);
}
void CoreProcess::OnLogoutsRead(const absl::StatusOr<core::LogoutLog>& log) {
  hub_->OnLogoutsRead(Clocks(), log);
}
void CoreProcess::OnReplies(const link::v1::ClusterReplies& replies) {
  link::v1::ClusterReplies arrived;
  world_.Check(arrived.ParseFromString(replies.SerializeAsString()), "ClusterReplies parse");
  hub_->OnReplies(Clocks(), arrived);
}
void CoreProcess::OnBus(const link::v1::BusEnvelope& envelope) {
  // As it crosses the network: what is not in the bytes does not arrive.
  link::v1::BusEnvelope arrived;
  world_.Check(arrived.ParseFromString(envelope.SerializeAsString()), "a BusEnvelope parses");
  hub_->OnBus(Clocks(), arrived);
}
void CoreProcess::OnOutsideMessage(std::string_view text) {
  hub_->OnOutsideMessage(Clocks(), text);
}
void CoreProcess::OnOutsidePresence(std::string_view text) {
  hub_->OnOutsidePresence(Clocks(), text);
}

}  // namespace presence::sim
