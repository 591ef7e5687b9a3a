#include "tests/sim/callers.h"

#include <algorithm>
#include <cstdio>
#include <utility>

#include "common/connection_id.h"
#include "tests/sim/world.h"

namespace presence::sim {

using link::v1::ClusterReply;
using link::v1::ClusterRequest;
using std::chrono::milliseconds;
using std::chrono::seconds;

namespace {

constexpr int kRepeatsMax = 8;
// What a client did so long before an order may reach a core after it, when a link was lost in between.
constexpr seconds kLateMax{45};
// By then a new link has brought it, unless somebody was stalled: 8 s.
constexpr seconds kSettled{12};

// Whether that hub takes the connection for live, and in the room, if one is named.
bool Knows(const CoreProcess& core, const Session& session, const std::string& room) {
  const std::string dump = const_cast<CoreProcess&>(core).hub().DebugDump();
  char head[64], name[24];
  std::snprintf(head, sizeof head, "edge %016llx shard %u ",
                static_cast<unsigned long long>(session.edge->incarnation()), session.shard);
  std::snprintf(name, sizeof name, "  %016llx ",
                static_cast<unsigned long long>(ConnectionId{session.shard, session.slot, session.generation}.Pack()));
  const size_t shard = dump.find(head);
  if (shard == std::string::npos) return false;
  const size_t next_shard = dump.find("edge ", shard + 1);
  const size_t line = dump.find(name, shard);
  if (line == std::string::npos || line > next_shard) return false;
  const std::string text = dump.substr(line, dump.find('\n', line) - line) + " ";
  return text.find(" " + session.user_id + " ") != std::string::npos &&
         (room.empty() || text.find(" " + room + " ") != std::string::npos);
}

}  // namespace

void Callers::Act() {
  const std::shared_ptr<CoreProcess> core = world_.AnyCore();
  if (core == nullptr) return;
  const size_t dice = world_.random().Below(100);
  world_.scheduler().AtProcess(world_.now(), core, [this, core, dice] {
    if (dice < 70) {
      const auto sent = std::make_shared<Sent>();
      if (dice < 55) {
        sent->room = world_.AnyRoom();
        if (dice < 15) sent->excluded.push_back(world_.AnyUser());
        if (dice < 5) sent->excluded.push_back(world_.AnyUser());
      } else {
        sent->user = world_.AnyUser();
      }
      if (world_.random().OneIn(3) && world_.RedisRemembers()) return SendOnce(core, sent);
      Send(*core, sent, [](const auto&, const auto&) {});
    } else if (dice < 82) {
      GiveOrder(core);
    } else if (dice < 85) {
      LogSomebodyOut(core);
    } else {
      AskSomething(core);
    }
  });
}

// ------------------------------------------------------------------------------------------------------------ messages

uint64_t Callers::Broadcast(CoreProcess& core, const std::string& room, CoreProcess::MessageAnswered done) {
  const auto sent = std::make_shared<Sent>();
  sent->room = room;
  return Send(core, sent, std::move(done));
}

uint64_t Callers::SendToUser(CoreProcess& core, const std::string& user, CoreProcess::MessageAnswered done) {
  const auto sent = std::make_shared<Sent>();
  sent->user = user;
  return Send(core, sent, std::move(done));
}

uint64_t Callers::Send(CoreProcess& core, std::shared_ptr<Sent> sent, CoreProcess::MessageAnswered done) {
  uint64_t& number = sent->number;
  if (sent->data.empty()) {
    World::Message& message = world_.NewMessage(sent->room, &number);
    sent->data = R"({"n":)" + std::to_string(number) + R"(,"content":"h\u00e4"})";
    message.user = sent->user;
    message.excluded.insert(sent->excluded.begin(), sent->excluded.end());
    message.once = !sent->request_id.empty();
    message.frame = R"({"type":"message","data":)" + sent->data + "}";
  }
  core.Request(++last_request_,
               {.room_id = sent->room,
                .user_id = sent->user,
                .data_json = sent->data,
                .excluded_user_ids = sent->excluded,
                .request_id = sent->request_id,
                .fingerprint = sent->data},
               [this, sent, core = core.incarnation(), done = std::move(done)](const absl::Status& status,
                                                                               const core::MessageAnswer& answer) {
                 world_.Trace("message " + std::to_string(sent->number) + " to " + sent->room + sent->user +
                              (sent->request_id.empty() ? " is" : " (" + sent->request_id + ") is") + " answered " +
                              (status.ok() ? "OK" : "UNAVAILABLE"));
                 if (status.ok()) world_.Acknowledged(sent->number, core);
                 done(status, answer);
               });
  return number;
}

void Callers::SendOnce(const std::shared_ptr<CoreProcess>& core, const std::shared_ptr<Sent>& sent) {
  if (sent->request_id.empty()) sent->request_id = "request " + std::to_string(++last_request_);
  Send(*core, sent, [this, sent](const absl::Status& status, const core::MessageAnswer& answer) {
    if (status.ok() && !answer.repeated) {
      world_.Check(!std::exchange(sent->published, true), "a request_id is published once");
    }
    world_.Check(status.ok() || absl::IsUnavailable(status), "no conflict where there is none");
    if (++sent->repeats > kRepeatsMax || (status.ok() && !world_.random().OneIn(2))) return;
    const SimTime pause = world_.random().Between(milliseconds(1), seconds(3));
    world_.scheduler().After(pause, [this, sent] {
      const std::shared_ptr<CoreProcess> next = world_.AnyCore();
      if (next == nullptr || world_.calm()) return;
      world_.scheduler().AtProcess(world_.now(), next, [this, next, sent] { SendOnce(next, sent); });
    });
  });
}

// -------------------------------------------------------------------------------------------------------------- orders

void Callers::GiveOrder(const std::shared_ptr<CoreProcess>& core) {
  const std::string user = world_.AnyUser();
  ClusterRequest body;
  Order order;
  order.issued = world_.now();
  switch (world_.random().Below(4)) {
    case 0:
      body.mutable_disconnect()->set_user_id(user);
      body.mutable_disconnect()->set_code(1008);
      body.mutable_disconnect()->set_reason("ordered");
      break;
    case 1:
      order.kind = Order::Kind::kStatus;
      order.away = world_.random().OneIn(2);
      body.mutable_status()->set_user_id(user);
      body.mutable_status()->set_status(order.away ? link::v1::STATUS_AWAY : link::v1::STATUS_ONLINE);
      break;
    default:
      order.kind = Order::Kind::kLeave;
      order.room = world_.AnyRoom();
      body.mutable_unsubscribe()->set_user_id(user);
      body.mutable_unsubscribe()->set_room_id(order.room);
      break;
  }
  Ask(*core, std::move(body),
      [this, issued = world_.now(), concerned = Concerned(user, order)](const absl::Status& status, const auto&) {
        // A core that was not heard of for so long is not asked any more.
        if (!status.ok() || !world_.CoresHeard(issued)) return;
        for (const Order& each : concerned) {
          if ((!each.core->alive && !each.core->stopping()) || IsTrue(each)) continue;
          world_.Check(each.kind != Order::Kind::kClose, each.session->Name() + " was closed");
          pending_.push_back(each);
        }
      });
}

std::vector<Callers::Order> Callers::Concerned(const std::string& user, const Order& order) {
  std::vector<Order> concerned;
  if (!world_.CoresHeard(world_.now())) return concerned;
  for (const auto& node : world_.cores()) {
    if (node.process == nullptr) continue;
    for (const auto& session : world_.sessions()) {
      if (session->user_id != user || session->closing || !session->greeted) continue;
      if (!Knows(*node.process, *session, order.room)) continue;
      concerned.push_back(order);
      concerned.back().session = session;
      const ShardNode& shard = session->edge->shard(session->shard);
      // A link that has just come may not have brought all that the client had said before.
      concerned.back().attach = world_.now() - shard.attached_at() > kSettled ? shard.attach() : 0;
      concerned.back().core = node.process;
    }
  }
  return concerned;
}

bool Callers::IsTrue(const Order& order) const {
  const Session& session = *order.session;
  if (session.closing || !session.edge->alive) return true;
  if (order.kind == Order::Kind::kClose) return false;
  // The client, or another order, has asked for something else since. When the link was lost, what the client did earlier may have come to the core later.
  const bool same_link = session.edge->shard(session.shard).attach() == order.attach;
  const SimTime since = same_link ? order.issued : order.issued - kLateMax;
  if (order.kind == Order::Kind::kStatus) return session.away == order.away || session.status_at >= since;
  if (!session.wanted.contains(order.room)) return true;
  const auto joined = session.joined_at.find(order.room);
  return joined != session.joined_at.end() && joined->second >= since;
}

void Callers::CheckOrders() {
  for (const Order& order : std::exchange(pending_, {})) {
    world_.Check(IsTrue(order), "what was ordered of " + order.session->Name() +
                                    " is so: " + (order.kind == Order::Kind::kLeave ? "left " + order.room : "status"));
  }
}

// ------------------------------------------------------------------------------------------------------------- logouts

bool Callers::Covers(const KnownLogout& logout, const Session& session) {
  if (session.login.issued_at_s * 1000 > logout.at_ms) return false;
  return logout.session.empty() ? logout.user == session.user_id : logout.session == session.login.session_id;
}

void Callers::LogSomebodyOut(const std::shared_ptr<CoreProcess>& core) {
  const auto nothing = [](const absl::Status&, const auto&) {};
  if (world_.random().OneIn(3) || world_.sessions().empty()) return LogOut(*core, world_.AnyUser(), "", nothing);
  const Session& session = *world_.sessions()[world_.random().Below(world_.sessions().size())];
  LogOut(*core, world_.random().OneIn(2) ? session.user_id : "", session.login.session_id, nothing);
}

void Callers::LogOut(CoreProcess& core, const std::string& user, const std::string& session,
                     CoreProcess::ClusterAnswered done) {
  ClusterRequest body;
  const int64_t at_ms = ToUnixMillis(world_.Clocks().wall) / 1000 * 1000;  // as providers say it
  body.mutable_end_sessions()->set_user_id(user);
  body.mutable_end_sessions()->set_session_id(session);
  body.mutable_end_sessions()->set_logged_out_at_ms(at_ms);
  world_.Trace("logout of " + user + " " + session + " at " + std::to_string(at_ms / 1000));
  logouts_.push_back({session.empty() ? user : "", session, at_ms});
  KnownLogout& logout = logouts_.back();
  Ask(core, std::move(body),
      [this, &logout, done = std::move(done)](const absl::Status& status, const std::vector<ClusterReply>& replies) {
        world_.Trace("logout answered: " + status.ToString());
        logout.confirmed = status.ok();
        done(status, replies);
      });
}

void Callers::CheckLoggedOut(const Session& session) const {
  world_.Check(IsLoggedOut(session), session.Name() + " was logged out by somebody");
}

bool Callers::IsLoggedOut(const Session& session) const {
  return std::any_of(logouts_.begin(), logouts_.end(),
                     [&](const KnownLogout& logout) { return Covers(logout, session); });
}

void Callers::CheckLogouts() const {
  if (!world_.RedisRemembers()) return;
  for (const auto& session : world_.sessions()) {
    if (session->closing) continue;
    for (const KnownLogout& logout : logouts_) {
      world_.Check(!logout.confirmed || !Covers(logout, *session), session->Name() + " is logged out, and is open");
    }
  }
}

// ------------------------------------------------------------------------------------------------------------- queries

void Callers::AskSomething(const std::shared_ptr<CoreProcess>& core) {
  ClusterRequest body;
  switch (world_.random().Below(4)) {
    case 0:
      body.mutable_rooms()->set_limit(10);
      break;
    case 1:
      body.mutable_members()->set_room_id(world_.AnyRoom());
      body.mutable_members()->set_limit(10);
      break;
    case 2:
      body.mutable_connections()->set_user_id(world_.AnyUser());
      body.mutable_connections()->set_limit(10);
      break;
    default:
      body.mutable_state();
      break;
  }
  Ask(*core, std::move(body),
      [this, asked = world_.now(), core](const absl::Status& status,
                                         const std::vector<link::v1::ClusterReply>& replies) {
        world_.Check(!replies.empty() || !status.ok(), "an answer is of somebody");
        for (size_t i = 1; i < replies.size(); ++i) {
          world_.Check(replies[i - 1].core() < replies[i].core(), "answers are in order, one of each core");
        }
      });
  if (!world_.random().OneIn(10)) return;
  world_.scheduler().AtProcess(world_.now() + world_.random().Between(milliseconds(0), seconds(1)), core,
                               [core, request = last_request_] { core->Cancel(request); });
}

}  // namespace presence::sim
