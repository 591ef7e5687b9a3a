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
  const std::set<std::string>& rooms() const { return rooms_; }
  bool away() const { return away_; }
  bool wants_online() const { return wants_online_; }
  const std::shared_ptr<Session>& session() const { return session_; }
  bool online() const { return session_ != nullptr && session_->client_open; }

  void Type(const std::string& room);
  void SetAway(bool away);

 private:
  void PlanNext();
  void Act();
  void ActAtRandom();
  void Connect();
  void Subscribe(const std::string& room);
  void Unsubscribe(const std::string& room);
  void Ping();
  void Close();
  void Vanish();
  void Say(std::string text) { Say(Session::Said::Kind::kText, std::move(text)); }
  void Say(Session::Said::Kind kind, std::string text);

  World& world_;
  const std::string user_id_;
  std::set<std::string> rooms_;
  bool away_ = false;
  bool wants_online_ = true;
  SimTime offline_until_{0};
  SimTime said_at_{0};
  std::shared_ptr<Session> session_;
};

}  // namespace presence::sim
