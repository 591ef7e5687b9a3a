// Who may be in which room, in runs with ROOM_AUTH: what backends keep, or what tokens say; how cores ask for it; and what a client may be
// told of it, judged by what was right at the time.
//
// A right that stands is never refused; one that is gone, or was never there, lets nobody in. Both within the times for which answers are
// remembered, and those that stalls and links add.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/room_rights.h"
#include "core/hub.h"
#include "core/room_authorizer.h"
#include "tests/sim/scheduler.h"
#include "tests/sim/session.h"

namespace presence::sim {

class CoreProcess;
class World;

class Rights {
 public:
  explicit Rights(World& world) : world_(world) {}
  // By the seed: whether rooms have rights, who says so, and who has which.
  void Choose(core::HubOptions* hub);

  core::RoomAuth mode() const { return mode_; }
  bool asked() const { return mode_ == core::RoomAuth::kAsked; }
  // Questions go to a backend, which fails for itself; else to Redis.
  bool backend() const { return backend_; }
  bool away = false;  // the backend is

  RoomRight Of(const std::string& user, const std::string& room) const;
  // Of one who is connected, now: what its token says, or what would be answered.
  RoomRight Of(const Session& session, const std::string& room) const;
  // What a token of the user says that is given out now. Null: nothing.
  std::shared_ptr<const RoomRights> Claims(const std::string& user) const;
  void Set(const std::string& user, const std::string& room, RoomRight right);
  // Somebody's right to some room is another one; cores are told, or not.
  void ChangeOne();
  void Forget(CoreProcess& core, const std::string& user, const std::string& room) const;

  // --- frames that came, or are about to. Throw Violation.
  void CheckLetIn(const Session& session, const std::string& room, SimTime asked_at) const;
  void CheckTypingSeen(const std::string& user, const std::string& room) const;
  void CheckDenied(const Session& session, const Session::Denial& denial) const;
  // At a quiet point.
  void CheckMembers() const;

  // Of the core, for its hub.
  std::unique_ptr<core::RoomAuthorizer> NewAuthorizer(CoreProcess& core);

 private:
  class Asked;
  using Pair = std::pair<std::string, std::string>;
  struct Since {
    SimTime at;
    RoomRight right;
  };

  template <typename Use>
  void ForEachSince(const Session& session, const std::string& room, SimTime since, Use use) const;
  RoomRight Lowest(const Session& session, const std::string& room, SimTime since) const;
  RoomRight Highest(const Session& session, const std::string& room, SimTime since) const;

  World& world_;
  core::RoomAuth mode_ = core::RoomAuth::kOpen;
  bool backend_ = false;
  SimTime grace_{0};
  std::map<Pair, std::vector<Since>> history_;
  std::map<Pair, SimTime> unavailable_at_;  // last, to any core
  // What a core was told of a pair.
  struct Word {
    // The last question that was answered, though its answer may have come when it did not count any more. None was: what is declared
    // is believed from then on, but not before the core was there.
    SimTime asked_at;
    SimTime given_up_at{-1'000'000'000};  // last: nobody could say, and it was grace_ ago
  };
  // A question of a core was answered; or nobody could say.
  void Heard(const CoreProcess& core, const Pair& pair, SimTime asked_at, bool unavailable);

  std::map<std::pair<uint64_t, Pair>, Word> words_;  // by core
};

}  // namespace presence::sim
