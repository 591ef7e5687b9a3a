#include "tests/sim/world.h"

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <utility>

#include "common/json.h"
#include "core/client_text.h"
#include "core/presence_text.h"

namespace presence::sim {

using std::chrono::milliseconds;
using std::chrono::seconds;

namespace {

// Cores read the change log 5 s further back than they must: so far two clocks may be apart.
constexpr SimTime kClockOffMax = seconds(2);
// A bad quartz is off by 100 ppm; a virtual machine that is moved, by more for a while.
constexpr int64_t kDriftPpmMax = 10'000;

constexpr std::string_view kNumberField = R"("n":)";

void HashInto(uint64_t* hash, std::string_view text) {  // FNV-1a
  for (const char c : text) *hash = (*hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
}

}  // namespace

World::World(uint64_t seed, bool trace)
    : random_(seed), trace_(trace), database_([this] {
        return Clocks().wall + redis_clock_offset_ + std::chrono::microseconds(++database_microseconds_);
      }) {
  // Short, so that a run sees many of them; the relations are those of the real service.
  shard_options_.heartbeat_interval = seconds(5);
  store_options_.entry_lifetime = 2 * seconds(5) + seconds(3);
  if (random_.OneIn(2)) {  // so that what is to lapse does so within a run
    store_options_.presence_ttl = seconds(60);
    store_options_.change_log_lifetime = std::chrono::minutes(1);
    store_options_.request_lifetime = std::chrono::minutes(1);
  }
  constexpr milliseconds kIsolations[] = {milliseconds(0), seconds(10), seconds(30)};
  shard_options_.isolation_max = kIsolations[random_.Below(3)];
  // Enough for few clients; in some runs little enough to make presence wait.
  shard_options_.presence_frames_per_second = random_.OneIn(3) ? 100 : 200'000;
  // In some runs clients flood, and meet one limit or the other; who does not is never refused.
  floods_ = random_.OneIn(3);
  const bool by_bytes = random_.OneIn(2);
  shard_options_.frames_per_second = floods_ && !by_bytes ? 20 : 50;
  shard_options_.frames_burst = floods_ && !by_bytes ? 60 : 2'000;
  shard_options_.bytes_per_second = floods_ && by_bytes ? 1'000 : 64 * 1024;
  shard_options_.bytes_burst = floods_ && by_bytes ? 3'000 : 1024 * 1024;
  hub_options_.scope = random_.OneIn(3) ? core::PresenceScope::kRooms : core::PresenceScope::kEveryone;
  hub_options_.writes_in_flight_max = random_.OneIn(3) ? 2 : 512;
  redis_delay_max_ = random_.OneIn(3) ? SimTime(milliseconds(100)) : SimTime(milliseconds(3));
  network_delay_max_ = random_.OneIn(3) ? SimTime(milliseconds(300)) : SimTime(milliseconds(3));
  // As many as there may be clients: refused are those who come back while what is left of them still counts.
  store_options_.connections_per_user_max = random_.OneIn(3) ? 20 : 0;
  store_options_.room_log_age =
      seconds(70);  // longer than anybody is behind; and after twice that Redis is empty at the end
  if (!random_.OneIn(4)) hub_options_.room_log_age = store_options_.room_log_age;
  if (random_.OneIn(3)) store_options_.room_log_length = 40;  // more than a fault of this length misses
  users_ = 1 + random_.Below(8);
  rooms_ = 1 + random_.Below(6);
  shards_per_edge_ = 1 + static_cast<uint32_t>(random_.Below(2));

  rights_.Choose(&hub_options_);
  database_.Subscribe(this);
  cores_.resize(1 + random_.Below(3));
  edges_.resize(1 + random_.Below(3));
  late_reads_ = random_.OneIn(2);
  if (random_.OneIn(2)) {
    for (auto& core : cores_) core.clock = AnyClock();
    for (auto& edge : edges_) edge.clock = AnyClock();
  }
  for (size_t i = 0; i < cores_.size(); ++i) StartCore(i);
  for (size_t i = 0; i < edges_.size(); ++i) StartEdge(i);
  const size_t clients = 1 + random_.Below(20);
  for (size_t i = 0; i < clients; ++i) {
    clients_.push_back(std::make_unique<Client>(*this, "user" + std::to_string(random_.Below(users_))));
    clients_.back()->Start();
  }
  for (size_t watchers = random_.Below(3); watchers > 0; --watchers) {
    std::set<std::string> users;
    for (size_t i = random_.Below(4); i > 0; --i) users.insert(AnyUser());
    watchers_.push_back(std::make_unique<Watcher>(*this, std::vector<std::string>(users.begin(), users.end())));
    watchers_.back()->Start();
  }
  faults_ = std::make_unique<Faults>(*this);
}

MachineClock World::AnyClock() {
  MachineClock clock;
  clock.drift_ppm = static_cast<int64_t>(random_.Below(2 * kDriftPpmMax + 1)) - kDriftPpmMax;
  clock.wall_offset = random_.Between(-kClockOffMax, kClockOffMax);
  return clock;
}

void World::SetAClock() {
  const SimTime offset = random_.Between(-kClockOffMax, kClockOffMax);
  const size_t machine = random_.Below(cores_.size() + edges_.size() + 1);
  Trace("a clock is set");
  if (machine == cores_.size() + edges_.size()) {
    redis_clock_offset_ = offset;
  } else if (machine < cores_.size()) {
    cores_[machine].clock.wall_offset = offset;
    if (cores_[machine].process != nullptr) cores_[machine].process->clock.wall_offset = offset;
  } else {
    Node<EdgeProcess>& edge = edges_[machine - cores_.size()];
    edge.clock.wall_offset = offset;
    if (edge.process != nullptr) edge.process->clock.wall_offset = offset;
  }
}

World::~World() {
  for (Node<CoreProcess>& core : cores_) {
    if (core.process != nullptr) core.process->Crash();
  }
  for (Node<EdgeProcess>& edge : edges_) {
    if (edge.process != nullptr) edge.process->Crash();
  }
  database_.Unsubscribe(this);
}

void World::Trace(std::string_view text) {
  HashInto(&trace_hash_, text);
  if (!trace_) return;
  std::printf("%10.4f  %.*s\n", static_cast<double>(now().count()) / 1e6, static_cast<int>(text.size()), text.data());
}

void World::TraceFrame(const Session& session, std::string_view text) {
  if (!trace_) return HashInto(&trace_hash_, text);
  Trace("   " + session.Name() + " " + std::string(text));
}

void World::TickLater(std::shared_ptr<Process> process, std::function<void()> tick) {
  const SimTime due = now() + milliseconds(100);
  scheduler_.AtProcess(due, process, [this, due, process, tick = std::move(tick)] {
    if (now() == due) return tick();
    // Behind whatever a stall has kept waiting: ticks come after everything that has arrived.
    scheduler_.AtProcess(now() + milliseconds(1), process, tick);
  });
}

// ------------------------------------------------------------------------------------------------------------ network

SimTime World::NetworkDelay() {
  if (quick_network_) return random_.Between(SimTime(50), milliseconds(3));
  return random_.OneIn(50) ? random_.Between(milliseconds(10), seconds(1))
                           : random_.Between(SimTime(50), network_delay_max_);
}

std::shared_ptr<SimLink> World::Connect(const std::shared_ptr<EdgeProcess>& edge, uint32_t shard,
                                        const std::shared_ptr<CoreProcess>& core) {
  std::erase_if(links_, [](const auto& link) { return !link->edge_open && !link->core_open; });
  const auto link = std::make_shared<SimLink>();
  link->id = core::LinkId(next_link_++);
  link->edge = edge;
  link->shard = shard;
  link->core = core;
  links_.push_back(link);
  SendUp(link, {SimLink::Item::Kind::kOpen, ""});
  return link;
}

void World::SendUp(const std::shared_ptr<SimLink>& link, SimLink::Item item) {
  Pass(link, true, std::move(item));
}
void World::SendDown(const std::shared_ptr<SimLink>& link, SimLink::Item item) {
  Pass(link, false, std::move(item));
}

void World::Pass(const std::shared_ptr<SimLink>& link, bool up, SimLink::Item item) {
  if (link->cut) return;
  SimLink::Pipe& pipe = up ? link->to_core : link->to_edge;
  pipe.items.push_back(std::move(item));
  pipe.last_arrival = std::max(pipe.last_arrival, now() + NetworkDelay());
  const std::shared_ptr<Process> receiver = up ? std::shared_ptr<Process>(link->core) : link->edge;
  scheduler_.AtProcess(pipe.last_arrival, receiver, [link, up] {
    if (link->cut) return;
    SimLink::Pipe& arrived = up ? link->to_core : link->to_edge;
    const SimLink::Item next = std::move(arrived.items.front());
    arrived.items.pop_front();
    if (up) {
      if (next.kind == SimLink::Item::Kind::kOpen) return link->core->OnLinkOpened(link);
      if (!link->core_open) return;
      if (next.kind == SimLink::Item::Kind::kEnd) return link->core->OnLinkEnded(link);
      return link->core->OnLinkFrame(link, next.bytes);
    }
    if (!link->edge_open) return;
    ShardNode& shard = link->edge->shard(link->shard);
    if (next.kind == SimLink::Item::Kind::kEnd) return shard.OnLinkEnded(link);
    shard.OnLinkFrame(link, next.bytes);
  });
}

std::shared_ptr<CoreProcess> World::AnyCore() {
  const std::shared_ptr<CoreProcess> core = random_.PickFrom(cores_).process;
  if (!calm_) return core != nullptr && core->takes_calls() ? core : nullptr;
  // Whoever stops cores one after the other has clients that ask for their health.
  if (core != nullptr && core->serving()) return core;
  for (const Node<CoreProcess>& other : cores_) {
    if (other.process != nullptr && other.process->serving()) return other.process;
  }
  return nullptr;
}
std::shared_ptr<EdgeProcess> World::AnyEdge() {
  if (!rolling_) return random_.PickFrom(edges_).process;
  // Whoever restarts edges one after the other has a balancer that asks for their health.
  std::vector<std::shared_ptr<EdgeProcess>> ready;
  for (const Node<EdgeProcess>& edge : edges_) {
    if (edge.process != nullptr && edge.process->ready()) ready.push_back(edge.process);
  }
  return ready.empty() ? nullptr : random_.PickFrom(ready);
}

std::vector<std::string> World::users() const {
  std::vector<std::string> users;
  for (size_t i = 0; i < users_; ++i) users.push_back("user" + std::to_string(i));
  return users;
}

std::vector<std::string> World::rooms() const {
  std::vector<std::string> rooms;
  for (size_t i = 0; i < rooms_; ++i) rooms.push_back("room" + std::to_string(i));
  return rooms;
}

std::vector<std::shared_ptr<SimLink>> World::LiveLinks() {
  std::vector<std::shared_ptr<SimLink>> live;
  for (const auto& link : links_) {
    if (link->edge_open && link->core_open && !link->cut) live.push_back(link);
  }
  return live;
}

// ----------------------------------------------------------------------------------------------------------- machines

void World::StartCore(size_t index) {
  cores_[index].process = std::make_shared<CoreProcess>(*this, random_.Next() | 1, cores_[index].clock);
  cores_[index].process->Start();
  core_started_at_ = now();
}

void World::StartEdge(size_t index) {
  edges_[index].process = std::make_shared<EdgeProcess>(*this, random_.Next() | 1, edges_[index].clock);
  edges_[index].process->Start(shards_per_edge_);
}

void World::CrashCore(size_t index, bool host) {
  const std::shared_ptr<CoreProcess> process = std::exchange(cores_[index].process, nullptr);
  process->Crash();
  faults_->OnCoreEnded(index);
  for (const auto& link : links_) {
    if (link->core != process || !std::exchange(link->core_open, false)) continue;
    // A process that dies is told by its host, behind what is on its way; a host that dies says nothing.
    SendDown(link, {SimLink::Item::Kind::kEnd, ""});
    if (host) link->cut = true;
  }
}

SimTime World::StopCore(size_t index, SimTime pause) {
  const std::shared_ptr<CoreProcess> process = cores_[index].process;
  stopped_cores_[process->incarnation()] = pause;
  SimTime window{0};
  if (random_.OneIn(2)) {  // by less than EDGE_GRACE: there may be no other core
    window = random_.Between(SimTime(0), seconds(3));
    link::v1::ClusterRequest body;
    body.mutable_drain()->set_core(process->incarnation());
    body.mutable_drain()->set_window_ms(static_cast<uint32_t>(window / milliseconds(1)));
    Trace("drain of core " + std::to_string(index));
    callers_.Ask(*process, std::move(body), [](const auto&, const auto&) {});
  }
  scheduler_.AtProcess(now() + window, process, [this, index, process] {
    Trace("stop of core " + std::to_string(index));
    process->Stop();
  });
  return now() + window;
}

void World::EndCore(const CoreProcess& core) {
  const auto node =
      std::find_if(cores_.begin(), cores_.end(), [&](const auto& each) { return each.process.get() == &core; });
  const auto index = static_cast<size_t>(node - cores_.begin());
  Trace("end of core " + std::to_string(index));
  scheduler_.After(stopped_cores_.at(core.incarnation()), [this, index] {
    if (cores_[index].process == nullptr) StartCore(index);
  });
  CrashCore(index, /*host=*/false);
}

void World::CrashEdge(size_t index, bool host) {
  const std::shared_ptr<EdgeProcess> process = std::exchange(edges_[index].process, nullptr);
  process->Crash();
  for (const auto& link : links_) {
    if (link->edge != process || !std::exchange(link->edge_open, false)) continue;
    SendUp(link, {SimLink::Item::Kind::kEnd, ""});
    if (host) link->cut = true;
  }
  for (const auto& session : sessions_) {
    if (session->edge != process) continue;
    session->freed = session->closing = true;
    scheduler_.After(random_.Between(milliseconds(1), seconds(3)), [session] { session->client_open = false; });
  }
  std::erase_if(sessions_, [](const auto& session) { return session->freed; });
}

SimTime World::DrainEdge(size_t index) {
  const std::shared_ptr<EdgeProcess> process = edges_[index].process;
  const milliseconds window(random_.Below(5'000));
  Trace("drain of edge " + std::to_string(index));
  process->Drain(window);
  const SimTime down = window + milliseconds(1500);
  scheduler_.After(down, [this, index, process] {
    if (edges_[index].process == process) CrashEdge(index, random_.OneIn(2));
  });
  return down;
}

// ----------------------------------------------------------------------------------------------------------- messages

World::Message& World::NewMessage(const std::string& room, uint64_t* number) {
  *number = ++last_message_;
  Message& message = messages_[*number];
  message.room = room;
  message.requested_at = now();
  return message;
}

void World::PublishFromOutside(const std::string& room) {
  uint64_t number = 0;
  Message& message = NewMessage(room, &number);
  message.frame = R"({"type": "message",  "n":)" + std::to_string(number) + R"(, "room_id": ")" + room + "\"}";
  database_.PublishOutside(core::BusChannel::kMessageBroadcast, message.frame);
}

void World::PublishNonsense() {
  constexpr const char* kTexts[] = {"", "{", "[]", "\xff\xfe", R"({"room_id":7})", R"({"type":"presence"})", "null"};
  const bool messages = random_.OneIn(2);
  database_.PublishOutside(messages ? core::BusChannel::kMessageBroadcast : core::BusChannel::kPresenceUpdates,
                           kTexts[random_.Below(std::size(kTexts))]);
}

std::optional<uint64_t> World::NumberIn(std::string_view text) {
  const size_t at = text.find(kNumberField);
  if (at == std::string_view::npos) return std::nullopt;
  uint64_t number = 0;
  std::from_chars(text.data() + at + kNumberField.size(), text.data() + text.size(), number);
  return number;
}

const World::Message& World::message(uint64_t number) {
  const auto found = messages_.find(number);
  Check(found != messages_.end(), "a message that somebody has sent");
  return found->second;
}

// Sees everything first and loses nothing.
void World::OnPublication(std::shared_ptr<const core::Publication> publication) {
  const bool on_bus = publication->channel == core::BusChannel::kBus;
  if (on_bus && publication->envelope.has_presence_changed()) {
    const link::v1::PresenceChanged& changed = publication->envelope.presence_changed();
    Trace("published: " + changed.user_id() + " " + std::string(core::StatusName(changed.status())));
    published_[changed.user_id()] = std::string(core::StatusName(changed.status()));
    Check(!rolling_ || changed.status() != link::v1::STATUS_OFFLINE,
          changed.user_id() + " is not seen offline while a process is stopped as it should be");
    return;
  }
  std::string_view text;
  if (on_bus && publication->envelope.has_message()) {
    text = publication->envelope.message().text();
  } else if (on_bus && publication->envelope.has_user_message()) {
    text = publication->envelope.user_message().text();
  } else if (publication->channel == core::BusChannel::kMessageBroadcast &&
             !publication->text.starts_with(core::kCopyPrefix)) {
    text = publication->text;
  }
  if (const std::optional<uint64_t> number = NumberIn(text); number.has_value()) {
    Message& message = messages_.at(*number);
    Check(!message.once || message.order == 0, "a message with a request_id is published once");
    message.order = ++last_order_;
    if (trace_ && on_bus) {
      Trace("published: message " + std::to_string(*number) + " as " +
            std::to_string(publication->envelope.room_epoch()) + "-" +
            std::to_string(publication->envelope.room_sequence()));
    }
  }
}

}  // namespace presence::sim
