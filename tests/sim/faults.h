// What goes wrong during chaos. Each seed has its own choice of faults and its own pace, so that some runs show one fault alone and
// others all of them at once.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "tests/sim/random.h"
#include "tests/sim/scheduler.h"

namespace presence::sim {

class World;

class Faults {
 public:
  explicit Faults(World& world);

  // In this run Redis may lose its data, the change log among them.
  bool wipes_redis() const { return Includes(Kind::kWipeRedis); }
  // Or the last of it.
  bool rolls_back_redis() const { return Includes(Kind::kRollBackRedis); }

  void Begin();  // until End
  // Repairs everything.
  void End();
  // The next process of that core finds Redis.
  void OnCoreEnded(size_t core);

 private:
  enum class Kind : uint8_t {
    kCutLink,
    kEndLink,
    kCrashEdge,
    kDrainEdge,  // stopped as it should be
    kCrashCore,
    kStopCore,  // as it should be
    kStallEdge,
    kStallCore,
    kLoseRedis,  // one core does
    kFreezeRedis,
    kRestartRedis,   // with its data
    kRollBackRedis,  // restarted without the last of them: a replica that lags, a disk that does
    kWipeRedis,      // restarted without any
    kSetClock,
    kLoseRights,  // the backend that is asked about rooms
    kLoseBus,     // one core's subscription, alone
  };

  bool Includes(Kind kind) const { return std::find(kinds_.begin(), kinds_.end(), kind) != kinds_.end(); }
  void PlanNext();
  void Strike(Kind kind);
  void CutLink();
  void EndLink();
  void DrainEdge(size_t edge);
  void StallEdge();
  void StallCore();
  void LoseRedis(size_t core);
  void LoseBusSoon(size_t core, SimTime at_latest);  // while it waits for answers, if it does until then
  void LoseBus(size_t core);
  void FreezeRedis();
  void RollBackRedis();
  // `restart`: of the database.
  void RestartRedis(const std::string& how, const std::function<void()>& restart);

  World& world_;
  std::vector<Kind> kinds_;
  SimTime pause_max_{0};
  bool on_ = false;
  uint64_t period_ = 0;               // of chaos: repairs planned in an earlier one are void
  std::vector<uint64_t> redis_lost_;  // by core: which loss; 0: it has Redis
  uint64_t last_loss_ = 0;
};

}  // namespace presence::sim
