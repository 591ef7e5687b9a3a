// Backend services and operators: they send messages, order, ask, and hold the answers against what the world shows.
//
// An order that was answered OK must be so: at once for whoever was then connected, or at the quiet point after it. A message with a
// request_id is repeated, on any core, whenever its fate is not known, and now and then when it is.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "core/hub.h"
#include "tests/sim/core_node.h"
#include "tests/sim/scheduler.h"
#include "tests/sim/session.h"

namespace presence::sim {

class World;

class Callers {
 public:
  explicit Callers(World& world) : world_(world) {}

  // One random call to a random core, during chaos.
  void Act();
  // A message to a room. `done` gets how many it reached.
  uint64_t Broadcast(
      CoreProcess& core, const std::string& room, CoreProcess::MessageAnswered done = [](const auto&, const auto&) {});
  uint64_t SendToUser(CoreProcess& core, const std::string& user, CoreProcess::MessageAnswered done);
  void Ask(CoreProcess& core, link::v1::ClusterRequest body, CoreProcess::ClusterAnswered done) {
    core.Ask(++last_request_, std::move(body), std::move(done));
  }

  // What was ordered and was not yet true when it was answered.
  void CheckOrders();

  // A logout of a user, or of one session. `done` gets what it was answered.
  void LogOut(CoreProcess& core, const std::string& user, const std::string& session,
              CoreProcess::ClusterAnswered done);
  // Of a connection that is closed as logged out: somebody has logged it out.
  void CheckLoggedOut(const Session& session) const;
  // Somebody has, or has tried to.
  bool IsLoggedOut(const Session& session) const;
  // At a quiet point: no connection is open whose token was voided by a logout that was answered with OK.
  void CheckLogouts() const;

 private:
  struct Sent {
    uint64_t number = 0;
    std::string room, user, data, request_id;
    std::vector<std::string> excluded;
    bool published = false;  // somebody was told so
    int repeats = 0;
  };
  // An order, and one connection that it concerned.
  struct Order {
    enum class Kind : uint8_t { kClose, kLeave, kStatus };
    Kind kind = Kind::kClose;
    std::string room;
    bool away = false;
    SimTime issued{0};
    std::shared_ptr<Session> session;
    uint64_t attach = 0;                // of its shard, then; 0: it was new
    std::shared_ptr<CoreProcess> core;  // that knew it
  };

  struct KnownLogout {
    std::string user, session;  // one of them is empty
    int64_t at_ms = 0;
    bool confirmed = false;
  };

  static bool Covers(const KnownLogout& logout, const Session& session);
  void LogSomebodyOut(const std::shared_ptr<CoreProcess>& core);
  uint64_t Send(CoreProcess& core, std::shared_ptr<Sent> sent, CoreProcess::MessageAnswered done);
  void SendOnce(const std::shared_ptr<CoreProcess>& core, const std::shared_ptr<Sent>& sent);
  void GiveOrder(const std::shared_ptr<CoreProcess>& core);
  void AskSomething(const std::shared_ptr<CoreProcess>& core);
  // Those who are concerned, as far as the cores know that can hear it.
  std::vector<Order> Concerned(const std::string& user, const Order& order);
  bool IsTrue(const Order& order) const;

  World& world_;
  uint64_t last_request_ = 0;
  std::vector<Order> pending_;
  std::deque<KnownLogout> logouts_;  // rows keep their place
};

}  // namespace presence::sim
