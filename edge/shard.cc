#include "edge/shard.h"

#include <algorithm>
#include <cstdio>
#include <utility>

#include "edge/shard_state.h"

namespace presence::edge {
namespace {

using std::chrono::milliseconds;

// Ticks come every 100 ms; one that comes over 1 s late has left unread what would prove others alive.
constexpr milliseconds kTickGapMax{1100};
constexpr milliseconds kReportInterval{1000};
// 16,384 ids are 128 KiB: an event that fits into one frame of the link.
constexpr int kIdsPerReportMax = 16'384;

constexpr uint16_t kPolicyViolation = 1008;
// No client is told to be back sooner: its place, of CONNECTIONS_PER_USER, is free when the store has heard of its close, by way of the
// core, and it may be back at another core.
constexpr milliseconds kReconnectMin{200};

// SplitMix64's last step: spreads numbers that count up over the whole range.
uint64_t Mix(uint64_t value) {
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9;
  value = (value ^ (value >> 27)) * 0x94d049bb133111eb;
  return value ^ (value >> 31);
}

}  // namespace

Shard::Shard(ShardOptions options, ShardOutput& output) : state_(std::make_unique<State>(std::move(options), output)) {}
Shard::~Shard() = default;

void Shard::OnConnectionOpened(Now now, uint32_t slot, uint32_t generation, const TokenFacts& token) {
  state_->OnConnectionOpened(now, slot, generation, token);
}
void Shard::OnUnprovenOpened(Now now, uint32_t slot, uint32_t generation) {
  state_->OnUnprovenOpened(now, slot, generation);
}
void Shard::OnTokenChecked(Now now, uint32_t slot, uint32_t generation, const TokenCheck& check) {
  state_->OnTokenChecked(now, slot, generation, check);
}
void Shard::OnBytesReceived(Now now, uint32_t slot, size_t bytes) {
  state_->OnBytesReceived(now, slot, bytes);
}
void Shard::OnClientText(Now now, uint32_t slot, std::string_view text) {
  state_->OnClientText(now, slot, text);
}
void Shard::OnControlFrame(Now now, uint32_t slot) {
  state_->OnControlFrame(now, slot);
}
void Shard::OnConnectionClosed(Now now, uint32_t slot) {
  state_->OnConnectionClosed(now, slot);
}
void Shard::OnLinkUp(Now now) {
  state_->OnLinkUp(now);
}
void Shard::OnCommand(Now now, const link::v1::CoreCommand& command) {
  state_->OnCommand(now, command);
}
void Shard::OnLinkDown(Now now) {
  state_->OnLinkDown(now);
}
void Shard::AskForStore(link::v1::Hello* hello) {
  state_->AskForStore(hello);
}
void Shard::OnLinkMoved(Now now) {
  state_->OnLinkMoved(now);
}
void Shard::OnTick(Now now) {
  state_->OnTick(now);
}
void Shard::Drain(Now now, milliseconds spread) {
  state_->Drain(now, spread);
}
bool Shard::ready(Now now) const {
  return state_->ready(now);
}
bool Shard::link_live() const {
  return state_->link_live();
}
size_t Shard::connections() const {
  return state_->connections();
}
size_t Shard::rooms() const {
  return state_->rooms();
}
size_t Shard::events_held() const {
  return state_->events_held();
}
const ShardCounters& Shard::counters() const {
  return state_->counters();
}
std::string_view Shard::username(uint32_t slot) const {
  return state_->username(slot);
}
std::string_view Shard::user_id(uint32_t slot) const {
  return state_->user_id(slot);
}
std::string Shard::DebugDump() const {
  return state_->DebugDump();
}

void Shard::State::OnTick(Now now) {
  const bool late = !ticked_at_.has_value() || now.steady - *ticked_at_ > kTickGapMax;
  ticked_at_ = now.steady;
  if (link_ != LinkPhase::kLive && !without_link_since_.has_value()) without_link_since_ = now.steady;
  if (!late) {
    JudgeSilence(now);
    JudgeUnproven(now);
    JudgeExpiry(now);
    JudgeIsolation(now);
  }
  ReportActivity(now);
  SendWaitingPresence(now);
  ContinueLeaving(now);
  if (link_ == LinkPhase::kLive && now.steady - said_at_ >= options_.link_heartbeat) {
    AddEvent(now).mutable_heartbeat();
  }
}

void Shard::State::JudgeSilence(Now now) {
  if ((link_ == LinkPhase::kGreeting || link_ == LinkPhase::kLive) &&
      now.steady - heard_at_ > options_.link_silence_max) {
    DropLink(now, "the core is silent");
  }
  while (silence_.front() != SilenceList::kNone) {
    const uint32_t slot = silence_.front();
    if (now.steady - silence_.LastFrame(slot) <= 2 * options_.heartbeat_interval) break;
    ++counters_.heartbeat_timeouts;
    Report(ShardOutput::Severity::kWarning, slot, "No heartbeat from {connection}, disconnecting", "");
    CloseConnection(now, slot, kPolicyViolation, "Heartbeat timeout");
  }
}

void Shard::State::ReportActivity(Now now) {
  if (now.steady - reported_at_ < kReportInterval) return;
  reported_at_ = now.steady;
  link::v1::ActivityReported* report = nullptr;
  for (const uint32_t slot : active_slots_) {
    Connection& connection = connections_[slot];
    if (!connection.active) continue;  // gone, or named twice
    const bool pinged = std::exchange(connection.pinged, false);
    connection.active = false;
    // Without a link nobody is told: the next declaration says how long each one has been silent.
    if (link_ != LinkPhase::kLive) continue;
    if (report == nullptr || report->alive_size() + report->pinged_size() == kIdsPerReportMax) {
      report = AddEvent(now).mutable_activity_reported();
    }
    if (pinged) {
      report->add_pinged(IdOf(slot));
    } else {
      report->add_alive(IdOf(slot));
    }
  }
  active_slots_.clear();
}

void Shard::State::SendWaitingPresence(Now now) {
  PresencePacer::Waiting next;
  while (pacer_.TakeNext(now.steady, &next)) {
    pacer_.Spend(open_slots_.size());
    SendToAll(open_slots_, next.text, {SendClass::kLatest, next.key});
  }
}

void Shard::State::JudgeIsolation(Now now) {
  if (link_ == LinkPhase::kLive || draining_ || isolated_ || options_.isolation_max == milliseconds::zero()) return;
  if (now.steady - *without_link_since_ < options_.isolation_max) return;
  isolated_ = true;
  StartLeaving(now, "No core", options_.isolation_spread);
}

void Shard::State::Drain(Now now, milliseconds spread) {
  draining_ = true;
  StartLeaving(now, "restart", spread);
}

void Shard::State::StartLeaving(Now now, std::string_view reason, milliseconds spread) {
  const uint64_t total = open_slots_.size();
  // The goodbyes are spread already. What that leaves above the bound, if all came back at once, the times that they are told take off.
  const milliseconds wanted(1000 * total / options_.reconnects_per_second);
  const milliseconds reconnect_spread =
      std::clamp<milliseconds>(wanted > spread ? wanted - spread : milliseconds(0), options_.reconnect_spread_min,
                               options_.reconnect_spread_max);
  leaving_ = Leaving{reason, now.steady, spread, reconnect_spread, total, 0};
  EndAllUnproven(kServiceRestart, reason);
  ContinueLeaving(now);
}

void Shard::State::ContinueLeaving(Now now) {
  if (!leaving_.has_value()) return;
  Leaving& plan = *leaving_;
  const auto elapsed = std::chrono::duration_cast<milliseconds>(now.steady - plan.since);
  // Those who left by themselves meanwhile bring the end nearer.
  const size_t due = elapsed >= plan.spread
                         ? plan.closed + open_slots_.size()
                         : plan.total * static_cast<size_t>(elapsed.count()) / static_cast<size_t>(plan.spread.count());
  for (; plan.closed < due && !open_slots_.empty(); ++plan.closed) {
    SendAway(now, open_slots_.back());
  }
}

void Shard::State::SendAway(Now now, uint32_t slot) {
  ++counters_.sent_away;
  const milliseconds after = ReconnectAfter(slot);
  scratch_.clear();
  AppendReconnect(after, &scratch_);
  SendTo(slot, scratch_);
  Detach(now, slot, now.steady + after + options_.return_time);
  output_.Close(slot, kServiceRestart, leaving_->reason);
}

milliseconds Shard::State::ReconnectAfter(uint32_t slot) const {
  const auto spread = static_cast<uint64_t>(leaving_->reconnect_spread.count());
  return kReconnectMin + milliseconds(Mix(options_.incarnation + Mix(IdOf(slot))) % (spread + 1));
}

bool Shard::State::ready(Now now) const {
  if (draining_) return false;
  if (link_ == LinkPhase::kLive) return true;
  return ever_live_ && !isolated_ && now.steady - *without_link_since_ <= options_.ready_grace;
}

std::string Shard::State::DebugDump() const {
  std::string out;
  for (uint32_t slot = 0; slot < connections_.size(); ++slot) {
    if (connections_[slot].phase != Phase::kOpen) continue;
    char id[17];
    std::snprintf(id, sizeof id, "%016llx", static_cast<unsigned long long>(IdOf(slot)));
    out.append(id).append(" ").append(user_id(slot)).append(connections_[slot].away ? " away" : " online");
    std::vector<std::string_view> rooms;
    table_.VisitRoomsOf(slot, [&rooms](std::string_view room_id) { rooms.push_back(room_id); });
    std::sort(rooms.begin(), rooms.end());
    for (const std::string_view room : rooms) out.append(" ").append(room);
    out.push_back('\n');
  }
  return out;
}

}  // namespace presence::edge
