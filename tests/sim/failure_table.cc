#include "tests/sim/failure_table.h"

#include <algorithm>

#include "core/presence_text.h"
#include "tests/sim/world.h"

namespace presence::sim {

using std::chrono::milliseconds;
using std::chrono::seconds;

namespace {

constexpr milliseconds kLook{50};
// A shard that has lost its core waits so long at most before it tries the next one.
constexpr seconds kBackoffMax{1};
// Shards that have lost their core have another one, and clients are back.
constexpr seconds kRestored{15};
// Who is gone stays away for longer than each bound.
constexpr seconds kAway{40};

}  // namespace

void FailureTimes::Add(const FailureTimes& other) {
  for (size_t i = 0; i < kFailureRows; ++i) {
    Row& row = rows[i];
    row.runs += other.rows[i].runs;
    if (other.rows[i].worst < row.worst) continue;
    row.worst = other.rows[i].worst;
    row.bound = other.rows[i].bound;
  }
}

void FailureTable::Probe() {
  world_.SetQuickNetwork(true);
  world_.RunFor(seconds(1));
  std::vector<std::shared_ptr<Session>> before;
  for (const auto& client : world_.clients()) before.push_back(client->session());
  truth_before_.clear();
  for (const std::string& user : world_.users()) truth_before_[user] = world_.TruthOf(user);
  shown_offline_.clear();

  const auto row = static_cast<FailureRow>(world_.random().Below(kFailureRows));
  const char* const name = kFailureRowNames[static_cast<size_t>(row)];
  world_.Trace(std::string("failure: ") + name);
  const Failure failure = Cause(row);
  const SimTime bound = failure.bound + Slack();
  SimTime amiss = failure.since;
  std::string amiss_what;
  while (world_.now() < failure.since + bound) {
    world_.RunFor(kLook);
    std::string what = Amiss();
    if (what.empty()) continue;
    amiss = world_.now();
    amiss_what = std::move(what);
  }
  world_.Check(amiss < world_.now(), std::string("the bound of the failure of ") + name + ": " + amiss_what);
  FailureTimes::Row& times = times_.rows[static_cast<size_t>(row)];
  ++times.runs;
  if (amiss - failure.since > times.worst) {
    times.worst = amiss - failure.since;
    times.bound = bound;
  }
  for (size_t i = 0; i < before.size(); ++i) {
    const bool stayed = before[i]->client_open && !before[i]->closing;
    const std::string& user = world_.clients()[i]->user_id();
    world_.Check(!stayed || !shown_offline_.contains(user),
                 user + ", who is there, is not shown offline by the failure of " + name);
  }
  Restore();
}

FailureTable::Failure FailureTable::Cause(FailureRow row) {
  Random& random = world_.random();
  const SimTime heartbeats = 2 * SimTime(world_.shard_options().heartbeat_interval);
  const SimTime silence = world_.hub_options().link_silence_max, grace = world_.hub_options().edge_grace;
  switch (row) {
    case FailureRow::kClient: {
      Client& client = *random.PickFrom(world_.clients());
      client.StayAway(world_.now() + kAway);
      client.Vanish();
      return {heartbeats + seconds(4), world_.now()};
    }
    case FailureRow::kEdge:
      CrashEdgeFor(random.Below(world_.edges().size()), false);
      return {grace + seconds(1), world_.now()};
    case FailureRow::kEdgeHost:
      CrashEdgeFor(random.Below(world_.edges().size()), true);
      return {silence + grace + seconds(1), world_.now()};
    case FailureRow::kLink: {
      std::vector<std::shared_ptr<SimLink>> links = world_.LiveLinks();
      random.PickFrom(links)->cut = true;
      SomebodyMoves();
      return {silence + kBackoffMax, world_.now()};
    }
    case FailureRow::kCore:
      CrashCoreFor(random.Below(world_.cores().size()), random.OneIn(2));
      SomebodyMoves();
      return {silence + kBackoffMax, world_.now()};
    case FailureRow::kCoreAndEdge: {
      const size_t edge = random.Below(world_.edges().size());
      const std::shared_ptr<CoreProcess> core = world_.edges()[edge].process->shard(0).link()->core;
      for (size_t i = 0; i < world_.cores().size(); ++i) {
        if (world_.cores()[i].process == core) CrashCoreFor(i, true);
      }
      CrashEdgeFor(edge, true);
      return {heartbeats + seconds(8), world_.now()};
    }
    case FailureRow::kRedis:
      // A store that was away lowers no status while it is quiet, since it may have lost who else is there; then a sweep judges.
      return {
          StopRedis() == Move::kLowersStatus ? SimTime(world_.store_options().quiet_period) + seconds(2) : seconds(5),
          world_.now()};
  }
  return {};
}

void FailureTable::CrashEdgeFor(size_t index, bool host) {
  const std::shared_ptr<EdgeProcess> edge = world_.edges()[index].process;
  for (const auto& client : world_.clients()) {
    if (client->session()->edge == edge) client->StayAway(world_.now() + kAway);
  }
  world_.CrashEdge(index, host);
}

void FailureTable::CrashCoreFor(size_t index, bool host) {
  world_.CrashCore(index, host);
  const auto is_up = [](const auto& core) { return core.process != nullptr; };
  if (std::any_of(world_.cores().begin(), world_.cores().end(), is_up) && world_.random().OneIn(2)) return;
  world_.scheduler().After(seconds(1), [this, index] { world_.StartCore(index); });
}

// It stalls, or restarts, for a time in which somebody moves; then it is back.
FailureTable::Move FailureTable::StopRedis() {
  const bool stall = world_.random().OneIn(2);
  const bool wipe = world_.WipesRedis();
  const auto set = [&](bool there) {
    world_.redis_frozen = stall && !there;
    for (auto& core : world_.cores()) {
      stall ? core.process->store().SetFrozen(!there) : core.process->SetRedisReachable(there);
    }
  };
  set(false);
  if (!stall) wipe ? world_.database().Wipe() : world_.database().Restart();
  const Move move = SomebodyMoves();
  // Now and then for longer than entries live: 13 s.
  const bool long_away = world_.random().OneIn(3);
  world_.RunFor(long_away ? world_.random().Between(seconds(13), seconds(20))
                          : world_.random().Between(milliseconds(100), seconds(10)));
  set(true);
  return move;
}

FailureTable::Move FailureTable::SomebodyMoves() {
  const size_t dice = world_.random().Below(4);
  Client& client = *world_.random().PickFrom(world_.clients());
  // Where Redis has lost its data it may hear of the end of a connection from another core than it hears of the user's others from, and
  // first; or from one that does not know that the user was there.
  const bool may_close = !world_.WipesRedis() || world_.cores().size() == 1;
  if (dice == 0 && may_close) {
    client.StayAway(world_.now() + kAway);
    client.Close();
    return world_.TruthOf(client.user_id()) == "away" ? Move::kLowersStatus : Move::kOther;
  }
  if (dice == 3) return Move::kOther;
  const bool away = !client.away();
  client.SetAway(away);
  return away ? Move::kLowersStatus : Move::kOther;
}

SimTime FailureTable::Slack() const {
  SimTime slack = seconds(1);
  // 20 clients on one shard may hear of 5 changes in a second.
  if (world_.shard_options().presence_frames_per_second < 1'000) slack += seconds(3);
  if (world_.RedisIsSlow()) slack += seconds(2);
  return slack;
}

std::string FailureTable::Amiss() const {
  for (const std::string& user : world_.users()) {
    const std::string truth = world_.TruthOf(user);
    const std::string stored(core::StatusName(world_.database().GetPresence(user).status));
    if (stored != truth) return user + " is " + truth + ", but stored as " + stored;
    // A change that Redis has lost is known again with the next one.
    if (!world_.RedisRemembers() && truth == truth_before_.at(user)) continue;
    for (const auto& watcher : world_.watchers()) {
      if (watcher->Watches(user) && watcher->Believes(user) != truth) {
        return "a watcher was told that " + user + " is " + watcher->Believes(user) + ", but it is " + truth;
      }
    }
    if (world_.hub_options().scope != core::PresenceScope::kEveryone) continue;
    for (const auto& watcher : world_.clients()) {
      if (!watcher->online() || watcher->session()->closing) continue;
      const std::string believed = watcher->session()->Believes(user);
      if (believed != truth) {
        return watcher->session()->Name() + " believes that " + user + " is " + believed + ", but it is " + truth;
      }
    }
  }
  return "";
}

void FailureTable::Restore() {
  for (size_t i = 0; i < world_.cores().size(); ++i) {
    if (world_.cores()[i].process == nullptr) world_.StartCore(i);
  }
  for (size_t i = 0; i < world_.edges().size(); ++i) {
    if (world_.edges()[i].process == nullptr) world_.StartEdge(i);
  }
  for (const auto& client : world_.clients()) client->StayAway(world_.now());
  world_.SetQuickNetwork(false);
  world_.RunFor(kRestored);
}

}  // namespace presence::sim
