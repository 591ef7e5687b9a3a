#include "tests/sim/faults.h"

#include <algorithm>
#include <utility>

#include "tests/sim/world.h"

namespace presence::sim {

using std::chrono::milliseconds;
using std::chrono::seconds;

Faults::Faults(World& world) : world_(world), redis_lost_(world.cores().size(), 0) {
  Random& random = world.random();
  for (int i = 0; i <= static_cast<int>(Kind::kLoseBus); ++i) {
    // Where Redis loses data less can be asked of the rest: in fewer runs.
    const bool loses_data = static_cast<Kind>(i) == Kind::kRollBackRedis || static_cast<Kind>(i) == Kind::kWipeRedis;
    if (random.OneIn(3) == loses_data) kinds_.push_back(static_cast<Kind>(i));
  }
  pause_max_ = random.Between(milliseconds(300), seconds(8));
}

void Faults::Begin() {
  on_ = true;
  ++period_;
  if (!kinds_.empty()) PlanNext();
}

void Faults::End() {
  on_ = false;
  ++period_;
  world_.rights().away = false;
  if (world_.redis_frozen) {
    world_.redis_frozen = false;
    for (auto& core : world_.cores()) {
      if (core.process != nullptr) core.process->store().SetFrozen(false);
    }
    world_.OrderFaultEnds();
  }
  for (size_t i = 0; i < world_.cores().size(); ++i) {
    if (world_.cores()[i].process == nullptr) {
      world_.StartCore(i);
    } else if (redis_lost_[i] != 0) {
      world_.cores()[i].process->SetRedisReachable(true);
      world_.cores()[i].process->store().SetSubscribed(true);
    }
    if (redis_lost_[i] != 0) world_.OrderFaultEnds();
    redis_lost_[i] = 0;
  }
  for (size_t i = 0; i < world_.edges().size(); ++i) {
    if (world_.edges()[i].process == nullptr) world_.StartEdge(i);
  }
}

void Faults::OnCoreEnded(size_t core) {
  if (redis_lost_[core] != 0) world_.OrderFaultEnds();
  redis_lost_[core] = 0;
}

void Faults::PlanNext() {
  world_.scheduler().After(world_.random().Between(milliseconds(10), pause_max_), [this, period = period_] {
    if (!on_ || period != period_) return;
    Strike(world_.random().PickFrom(kinds_));
    PlanNext();
  });
}

void Faults::Strike(Kind kind) {
  Random& random = world_.random();
  const auto repair = [this](SimTime delay, std::function<void()> run) {
    world_.scheduler().After(delay, [this, period = period_, run = std::move(run)] {
      if (period == period_) run();
    });
  };
  switch (kind) {
    case Kind::kCutLink:
      return CutLink();
    case Kind::kEndLink:
      return EndLink();
    case Kind::kStallEdge:
      return StallEdge();
    case Kind::kStallCore:
      return StallCore();
    case Kind::kLoseRedis: {
      const size_t index = random.Below(world_.cores().size());
      if (redis_lost_[index] != 0) return;
      return LoseRedis(index);
    }
    case Kind::kLoseBus:
      // A shard that attaches has its rooms' logs read.
      EndLink();
      return LoseBusSoon(random.Below(world_.cores().size()), world_.now() + seconds(1));
    case Kind::kFreezeRedis:
      return FreezeRedis();
    case Kind::kLoseRights:
      if (!world_.rights().backend() || std::exchange(world_.rights().away, true)) return;
      world_.Trace("the backend of rights is away");
      return repair(random.Between(milliseconds(50), seconds(25)), [this] { world_.rights().away = false; });
    case Kind::kRestartRedis:
      return RestartRedis("Redis restarts", [this] { world_.database().Restart(); });
    case Kind::kRollBackRedis:
      return RollBackRedis();
    case Kind::kWipeRedis:
      return RestartRedis("Redis restarts without its data", [this] { world_.database().Wipe(); });
    case Kind::kSetClock:
      return world_.SetAClock();
    case Kind::kCrashEdge: {
      const size_t index = random.Below(world_.edges().size());
      if (world_.edges()[index].process == nullptr) return;
      world_.Trace("crash of edge " + std::to_string(index));
      world_.CrashEdge(index, random.OneIn(2));
      return repair(random.Between(milliseconds(50), seconds(8)), [this, index] {
        if (world_.edges()[index].process == nullptr) world_.StartEdge(index);
      });
    }
    case Kind::kDrainEdge:
      return DrainEdge(random.Below(world_.edges().size()));
    case Kind::kCrashCore: {
      const size_t index = random.Below(world_.cores().size());
      if (world_.cores()[index].process == nullptr || redis_lost_[index] != 0) return;
      world_.Trace("crash of core " + std::to_string(index));
      world_.CrashCore(index, random.OneIn(2));
      return repair(random.Between(milliseconds(50), seconds(12)), [this, index] {
        if (world_.cores()[index].process == nullptr) world_.StartCore(index);
      });
    }
    case Kind::kStopCore: {
      // Also when the chaos has ended meanwhile: what is stopped ends, and starts again.
      const size_t index = random.Below(world_.cores().size());
      const auto& process = world_.cores()[index].process;
      if (process == nullptr || !process->serving() || redis_lost_[index] != 0) return;
      world_.StopCore(index, random.Between(milliseconds(50), seconds(8)));
      return;
    }
  }
}

void Faults::DrainEdge(size_t edge) {
  const std::shared_ptr<EdgeProcess> process = world_.edges()[edge].process;
  if (process == nullptr) return;
  const SimTime down = world_.DrainEdge(edge);
  // Also when the chaos has ended meanwhile: what is drained ends.
  world_.scheduler().After(down + world_.random().Between(milliseconds(50), seconds(8)), [this, edge] {
    if (world_.edges()[edge].process == nullptr) world_.StartEdge(edge);
  });
}

void Faults::CutLink() {
  std::vector<std::shared_ptr<SimLink>> links = world_.LiveLinks();
  if (links.empty()) return;
  const std::shared_ptr<SimLink> link = world_.random().PickFrom(links);
  world_.Trace("cut of a link");
  link->cut = true;
  // The network tells each end late, or never: then it is the silence that tells.
  if (world_.random().OneIn(2)) {
    world_.scheduler().AtProcess(world_.now() + world_.random().Between(SimTime(0), seconds(5)), link->edge,
                                 [link] { link->edge->shard(link->shard).OnLinkEnded(link); });
  }
  if (world_.random().OneIn(2)) {
    world_.scheduler().AtProcess(world_.now() + world_.random().Between(SimTime(0), seconds(5)), link->core,
                                 [link] { link->core->OnLinkEnded(link); });
  }
}

void Faults::EndLink() {
  std::vector<std::shared_ptr<SimLink>> links = world_.LiveLinks();
  if (links.empty()) return;
  const std::shared_ptr<SimLink> link = world_.random().PickFrom(links);
  world_.Trace("end of a link");
  // What is on its way still arrives.
  world_.SendUp(link, {SimLink::Item::Kind::kEnd, ""});
  world_.SendDown(link, {SimLink::Item::Kind::kEnd, ""});
}

void Faults::StallEdge() {
  const auto& process = world_.random().PickFrom(world_.edges()).process;
  if (process == nullptr || process->stalled_until > world_.now()) return;
  process->stalled_until = world_.now() + world_.random().Between(milliseconds(100), seconds(8));
  world_.Trace("stall of an edge");
}

void Faults::StallCore() {
  const auto& process = world_.random().PickFrom(world_.cores()).process;
  if (process == nullptr || process->stalled_until > world_.now()) return;
  process->stalled_until = world_.now() + world_.random().Between(milliseconds(100), seconds(8));
  world_.Trace("stall of a core");
  world_.OrderFaultBegins();
  world_.scheduler().At(process->stalled_until, [this] { world_.OrderFaultEnds(); });
}

void Faults::LoseRedis(size_t core) {
  if (world_.cores()[core].process == nullptr) return;
  world_.Trace("core " + std::to_string(core) + " loses Redis");
  redis_lost_[core] = ++last_loss_;
  world_.OrderFaultBegins();
  world_.cores()[core].process->SetRedisReachable(false);
  world_.scheduler().After(world_.random().Between(milliseconds(50), seconds(25)), [this, core, loss = last_loss_] {
    if (redis_lost_[core] != loss) return;
    world_.Trace("core " + std::to_string(core) + " finds Redis");
    redis_lost_[core] = 0;
    world_.OrderFaultEnds();
    world_.cores()[core].process->SetRedisReachable(true);
  });
}

void Faults::LoseBusSoon(size_t core, SimTime at_latest) {
  const std::shared_ptr<CoreProcess> process = world_.cores()[core].process;
  if (process == nullptr || redis_lost_[core] != 0) return;
  // What is on its way is what matters: it is answered when the subscription stands again.
  if (process->hub().sizes().room_reads > 0 || world_.now() >= at_latest) return LoseBus(core);
  world_.scheduler().After(milliseconds(1), [this, core, at_latest, period = period_] {
    if (on_ && period == period_) LoseBusSoon(core, at_latest);
  });
}

void Faults::LoseBus(size_t core) {
  world_.Trace("core " + std::to_string(core) + " loses its subscription");
  redis_lost_[core] = ++last_loss_;
  world_.OrderFaultBegins();
  world_.cores()[core].process->store().SetSubscribed(false);
  world_.scheduler().After(world_.random().Between(milliseconds(50), seconds(2)), [this, core, loss = last_loss_] {
    if (redis_lost_[core] != loss) return;
    world_.Trace("core " + std::to_string(core) + " has its subscription again");
    redis_lost_[core] = 0;
    world_.OrderFaultEnds();
    world_.cores()[core].process->store().SetSubscribed(true);
  });
}

void Faults::FreezeRedis() {
  if (world_.redis_frozen) return;
  world_.Trace("Redis stalls");
  world_.redis_frozen = true;
  world_.OrderFaultBegins();
  const auto set = [this](bool frozen) {
    for (auto& core : world_.cores()) {
      if (core.process != nullptr) core.process->store().SetFrozen(frozen);
    }
  };
  set(true);
  world_.scheduler().After(world_.random().Between(milliseconds(50), seconds(8)), [this, set, period = period_] {
    if (period != period_) return;
    world_.Trace("Redis goes on");
    world_.redis_frozen = false;
    world_.OrderFaultEnds();
    set(false);
  });
}

void Faults::RollBackRedis() {
  // From now on nothing is kept.
  world_.scheduler().After(world_.random().Between(milliseconds(1), seconds(2)),
                           [this, period = period_, kept = std::shared_ptr(world_.database().Copy())] {
                             if (period != period_) return;
                             RestartRedis("Redis restarts without the last of its data",
                                          [this, &kept] { world_.database().RestartAs(*kept); });
                           });
}

void Faults::RestartRedis(const std::string& how, const std::function<void()>& restart) {
  if (world_.redis_frozen) return;
  for (size_t i = 0; i < world_.cores().size(); ++i) {
    if (world_.cores()[i].process != nullptr && redis_lost_[i] == 0) LoseRedis(i);
  }
  world_.Trace(how);
  restart();
}

}  // namespace presence::sim
