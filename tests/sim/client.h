// One device of one user: what it wishes for, and what it does about it.
#pragma once

#include <memory>
#include <set>
#include <string>

#include "tests/sim/session.h"

namespace presence::sim {

class World;

class Client {
 public:
  Client(World& world, std::string user_id) : world_(world), user_id_(std::move(user_id)) {}

  void Start() { PlanNext(); }

  const std::string& user_id() const { return user_id_; }
  // As its shard has heard last; without one, as it wishes.
  const std::set<std::string>& rooms() const { return online() ? session_->wanted : rooms_; }
  bool away() const { return online() ? session_->away : away_; }
  bool wants_online() const { return wants_online_; }
  const std::shared_ptr<Session>& session() const { return session_; }
  bool online() const { return session_ != nullptr && session_->client_open; }

  void Type(const std::string& room);
  void Subscribe(const std::string& room);
  // A newer token, of the same session. REQUIRES: online, and none is unanswered.
  void Renew();
  void SetAway(bool away);
  // When it is offline it does not come back before.
  void StayAway(SimTime until) {
    wants_online_ = false;
    offline_until_ = until;
  }
  // REQUIRES: online.
  void Close();
  void Vanish();

 private:
  void PlanNext();
  void Act();
  void ActAtRandom();
  void Connect();
  void ComeBackAfter(SimTime after);
  void LogIn();
  void Unsubscribe(const std::string& room);
  void Ping();
  void Flood();
  void Say(std::string text) { Say(Session::Said{Session::Said::Kind::kText, std::move(text)}); }
  void Say(Session::Said said);

  World& world_;
  const std::string user_id_;
  Login login_;
  std::set<std::string> rooms_;  // subscribed to again with each connection, also when an order took it out of them
  bool away_ = false;
  bool wants_online_ = true;
  SimTime offline_until_{0};
  SimTime back_at_{0};  // it was sent to another edge, which it is to try then
  SimTime said_at_{0};
  std::shared_ptr<Session> session_;
};

}  // namespace presence::sim
