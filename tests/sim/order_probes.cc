// Orders that are given at a quiet point, while nothing fails, or while links alone do.
#include <algorithm>

#include "tests/sim/world.h"

namespace presence::sim {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr seconds kProbe{3};
// Whoever was closed looks at it within 2 s, and subscribes again.
constexpr seconds kBack{6};

}  // namespace

void World::Order(link::v1::ClusterRequest body, uint32_t concerned, std::shared_ptr<int> unanswered) {
  ++*unanswered;
  // Who was closed may be back before the last core has the order: closed again.
  const bool may_be_more = body.has_disconnect();
  callers_.Ask(*AnyCore(), std::move(body), [=, this](const absl::Status& status, const auto& replies) {
    --*unanswered;
    uint32_t count = 0;
    for (const link::v1::ClusterReply& reply : replies) count += reply.count().count();
    Check(status.ok() && (count == concerned || (may_be_more && count > concerned)),
          "an order is answered with the number of those who carried it out, " + std::to_string(concerned) +
              ", but with " + std::to_string(count) + " " + status.ToString());
  });
}

void World::ProbeOrders() {
  const auto unanswered = std::make_shared<int>(0);
  const std::map<std::string, bool> away = OrderStatuses(unanswered);
  const std::map<std::string, std::string> out = OrderOutOfRooms(unanswered);
  RunFor(kProbe);
  Check(*unanswered == 0, "orders are answered in time");
  CheckOrdered(away, out);
}

// While links are lost. Each shard comes back to its core within the time that an order has: what it did not hear it is told again.
void World::ProbePendingOrders() {
  SetQuickNetwork(true);
  RunFor(seconds(1));  // what was sent before may be slower
  const auto unanswered = std::make_shared<int>(0);
  std::map<std::string, bool> away;
  std::map<std::string, std::string> out;
  std::string closed;
  std::vector<std::shared_ptr<Session>> before;
  for (const auto& client : clients_) before.push_back(client->session());
  switch (random_.Below(3)) {
    case 0:
      away = OrderStatuses(unanswered);
      break;
    case 1:
      out = OrderOutOfRooms(unanswered);
      break;
    default: {
      closed = AnyUser();
      link::v1::ClusterRequest body;
      body.mutable_disconnect()->set_user_id(closed);
      body.mutable_disconnect()->set_code(1008);
      body.mutable_disconnect()->set_reason("ordered");
      Order(body, DevicesOf(closed), unanswered);
      break;
    }
  }
  for (const Node<EdgeProcess>& edge : edges_) {
    for (uint32_t i = 0; i < edge.process->shards(); ++i) {
      if (random_.OneIn(4)) continue;
      ShardNode& shard = edge.process->shard(i);
      const SimTime pause = random_.Between(milliseconds(1), seconds(1));
      scheduler_.AtProcess(now() + random_.Between(SimTime(0), milliseconds(300)), edge.process,
                           [&shard, pause] { shard.MoveTo(shard.link()->core, pause); });
    }
  }
  RunFor(kProbe);
  Check(*unanswered == 0, "orders are answered in time");
  for (const auto& session : before) {
    Check(session->closing == (session->user_id == closed), session->Name() + " is closed as ordered, or else stays");
  }
  if (!closed.empty()) RunFor(kBack);
  CheckOrdered(away, out);
  CheckTables();
  SetQuickNetwork(false);
}

uint32_t World::DevicesOf(const std::string& user) const {
  return static_cast<uint32_t>(
      std::count_if(clients_.begin(), clients_.end(), [&](const auto& client) { return client->user_id() == user; }));
}

// Everybody's.
std::map<std::string, bool> World::OrderStatuses(const std::shared_ptr<int>& unanswered) {
  std::map<std::string, bool> away;
  for (const std::string& user : users()) {
    away[user] = random_.OneIn(2);
    link::v1::ClusterRequest body;
    body.mutable_status()->set_user_id(user);
    body.mutable_status()->set_status(away[user] ? link::v1::STATUS_AWAY : link::v1::STATUS_ONLINE);
    Order(body, DevicesOf(user), unanswered);
  }
  return away;
}

// One user of each room.
std::map<std::string, std::string> World::OrderOutOfRooms(const std::shared_ptr<int>& unanswered) {
  std::map<std::string, std::string> out;
  for (size_t i = 0; i < rooms_; ++i) {
    const std::string room = "room" + std::to_string(i);
    const std::string user = out[room] = AnyUser();
    link::v1::ClusterRequest body;
    body.mutable_unsubscribe()->set_user_id(user);
    body.mutable_unsubscribe()->set_room_id(room);
    const auto concerned = std::count_if(clients_.begin(), clients_.end(), [&](const auto& client) {
      return client->user_id() == user && client->rooms().contains(room);
    });
    Order(body, static_cast<uint32_t>(concerned), unanswered);
  }
  return out;
}

void World::CheckOrdered(const std::map<std::string, bool>& away, const std::map<std::string, std::string>& out) {
  for (const auto& client : clients_) {
    const auto status = away.find(client->user_id());
    Check(status == away.end() || client->away() == status->second, "a status that was ordered is so");
    Check(client->online() && !client->session()->HasUnanswered(), "nothing is unanswered after an order");
    for (const auto& [room, user] : out) {
      Check(client->user_id() != user || !client->rooms().contains(room), "who was taken out of a room is not in it");
    }
  }
  CheckPresence();
}

}  // namespace presence::sim
