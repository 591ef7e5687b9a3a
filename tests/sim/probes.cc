// What is tried at a quiet point, when nothing fails, and must come out exactly so.
#include <algorithm>
#include <set>

#include "tests/sim/world.h"

namespace presence::sim {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr seconds kProbe{3};
// A client notices within 2 s, and may do so again: who logs in in the second of a logout has to do it once more.
constexpr seconds kRelogin{15};
// Several ways through a slow network, of up to 1 s each, are rarely longer; EDGE_GRACE is.
constexpr seconds kMove{4};
// Until nothing lingers any more: 0.5 s to come back and 10 s to be waited for, and a sweep.
constexpr seconds kDrained{15};
// A window of 3 s, what there is to do, 2 s until it is started again, and as long until shards have found a core and are told of what they missed.
constexpr seconds kStopped{12};
// ROOM_AUTH_CACHE is 10 s here; then all are asked again, few at a time.
constexpr seconds kRightsEnd{20};
// 1 s at most before a shard tries the next core, and the way.
constexpr milliseconds kElsewhere{1'500};

}  // namespace

void World::ProbeRooms() {
  std::map<std::string, uint64_t> numbers;
  std::map<std::string, bool> typed;  // "room user" → whether that user may
  for (const auto& client : clients_) client->session()->typing_frames.clear();
  for (size_t i = 0; i < rooms_; ++i) {
    const std::string room = "room" + std::to_string(i);
    const auto members = static_cast<uint32_t>(std::count_if(
        clients_.begin(), clients_.end(), [&](const auto& client) { return client->rooms().contains(room); }));
    numbers[room] = callers_.Broadcast(*AnyCore(), room,
                                       [this, members](const absl::Status& status, const core::MessageAnswer& answer) {
                                         Check(status.ok() && !answer.count_incomplete && answer.reached == members,
                                               "a message is answered with the number of those whom it reaches");
                                       });
    for (const auto& client : clients_) {
      if (!client->rooms().contains(room)) continue;
      typed[room + " " + client->user_id()] = rights_.Of(*client->session(), room) == RoomRight::kWrite;
      client->Type(room);
      break;
    }
  }
  RunFor(kProbe);
  for (const auto& client : clients_) {
    const Session& session = *client->session();
    for (const auto& [room, number] : numbers) {
      Check(session.messages.contains(number) == client->rooms().contains(room),
            "a message reaches the members of its room");
    }
    for (const auto& [who, may] : typed) {
      const bool member = client->rooms().contains(who.substr(0, who.find(' ')));
      const auto count = session.typing_frames.find(who);
      Check((count == session.typing_frames.end() ? 0 : count->second) == (member && may ? 1 : 0),
            may ? "typing reaches each member once" : "typing of who may only read reaches nobody");
    }
  }
}

void World::ProbeUsers() {
  std::map<std::string, uint64_t> numbers;
  for (size_t i = 0; i < users_; ++i) {
    const std::string user = "user" + std::to_string(i);
    const uint32_t devices = DevicesOf(user);
    numbers[user] = callers_.SendToUser(*AnyCore(), user,
                                        [this, devices](const absl::Status& status, const core::MessageAnswer& answer) {
                                          Check(status.ok() && !answer.count_incomplete && answer.reached == devices,
                                                "a message to a user is answered with the number of devices");
                                        });
  }
  RunFor(kProbe);
  for (const auto& client : clients_) {
    Check(client->session()->messages.contains(numbers[client->user_id()]),
          "a message reaches all devices of its user");
  }
}

// Each shard goes to a core, the same or another. Its former core must have forgotten it before its grace is over: CheckTables, and
// the counts of the probes that follow.
void World::ProbeMoves() {
  for (const Node<EdgeProcess>& edge : edges_) {
    for (uint32_t i = 0; i < edge.process->shards(); ++i) {
      if (random_.OneIn(2)) edge.process->shard(i).MoveTo(AnyCore());
    }
  }
  RunFor(kMove);
  CheckTables();
  CheckPresence();
}

// Somebody's right to a room is taken away, and given back: that one is out, and then in again, and nobody else is concerned.
void World::ProbeRights() {
  std::vector<Client*> members;
  for (const auto& client : clients_) {
    if (!client->rooms().empty()) members.push_back(client.get());
  }
  if (rights_.mode() == core::RoomAuth::kOpen || members.empty()) return;
  Client& client = *random_.PickFrom(members);
  const std::string user = client.user_id();
  const std::string room = *client.rooms().begin();
  const auto concerns = [&](const Client& other) {
    return rights_.asked() ? other.user_id() == user : &other == &client;
  };
  std::vector<std::set<std::string>> before;
  for (const auto& other : clients_) before.push_back(other->rooms());
  // Without a word it is noticed when the answer ends.
  const bool told = random_.OneIn(2);
  if (rights_.asked() && told) {  // a question is under way, perhaps, whose answer will not be true any more
    rights_.Forget(*AnyCore(), user, room);
    RunFor(random_.Between(SimTime(0), milliseconds(100)));
  }
  rights_.Set(user, room, RoomRight::kNone);
  if (!rights_.asked()) {
    client.Renew();
  } else if (told) {
    rights_.Forget(*AnyCore(), user, random_.OneIn(2) ? room : "");
  }
  RunFor(rights_.asked() && !told ? kRightsEnd : kMove);
  for (size_t i = 0; i < clients_.size(); ++i) {
    std::set<std::string> rooms = before[i];
    // A newer token may take away more.
    if (concerns(*clients_[i])) {
      std::erase_if(rooms, [&](const std::string& each) {
        return rights_.Of(*clients_[i]->session(), each) == RoomRight::kNone;
      });
    }
    Check(clients_[i]->rooms() == rooms, clients_[i]->session()->Name() + " is out of " + room + ", or as before");
  }
  rights_.CheckMembers();
  rights_.Set(user, room, random_.OneIn(2) ? RoomRight::kRead : RoomRight::kWrite);
  rights_.asked() ? rights_.Forget(*AnyCore(), user, room) : client.Renew();
  RunFor(kProbe);  // who asks sooner may be judged by what was
  client.Subscribe(room);
  RunFor(kMove);
  Check(client.rooms().contains(room) && client.session()->rooms.at(room).in, user + " is in " + room + " again");
  CheckTables();
}

// Shards come to a core, which loses the bus while it reads their rooms' logs. What another core is given meanwhile reaches everybody.
void World::ProbeLostBus() {
  if (cores_.size() < 2 || !rooms_have_logs()) return;
  const size_t index = random_.Below(cores_.size());
  const std::shared_ptr<CoreProcess> core = cores_[index].process;
  for (const Node<EdgeProcess>& edge : edges_) {
    for (uint32_t i = 0; i < edge.process->shards(); ++i) edge.process->shard(i).MoveTo(core);
  }
  const SimTime at_latest = now() + seconds(1);
  while (core->hub().sizes().room_reads == 0 && now() < at_latest) RunFor(SimTime(200));
  Trace("core " + std::to_string(index) + " loses its subscription");
  core->store().SetSubscribed(false);
  std::map<std::string, uint64_t> numbers;
  std::set<std::shared_ptr<Session>> there;
  for (const auto& client : clients_) there.insert(client->session());
  for (size_t i = 0; i < rooms_; ++i) {
    const std::string room = "room" + std::to_string(i);
    numbers[room] = callers_.Broadcast(*cores_[(index + 1) % cores_.size()].process, room);
  }
  RunFor(random_.Between(milliseconds(100), seconds(2)));
  core->store().SetSubscribed(true);
  RunFor(kMove);
  for (const auto& client : clients_) {
    // Whom this core is the first to hold against a logout that was answered UNAVAILABLE, and kept all the same, has come back since.
    if (!there.contains(client->session())) continue;
    for (const std::string& room : client->rooms()) {
      Check(client->session()->messages.contains(numbers[room]),
            "message " + std::to_string(numbers[room]) + " in " + room + " reaches " + client->session()->Name());
    }
  }
  CheckTables();
}

// An edge is stopped as it should be, and started again: its clients come back to another one, or to this one, and nobody is seen to go.
void World::ProbeDrain() {
  const size_t index = random_.Below(edges_.size());
  rolling_ = edges_.size() > 1;  // else there is nowhere to go until it is back, which may take too long
  RunFor(DrainEdge(index) + random_.Between(milliseconds(50), seconds(3)));
  StartEdge(index);
  RunFor(kDrained);
  rolling_ = false;
  for (const auto& client : clients_) Check(client->online(), client->user_id() + " is back");
  CheckTables();
  CheckPresence();
}

// A core is stopped as it should be, and started again: no connection closes, nobody is seen to go, and nothing is lost.
void World::ProbeCoreStop() {
  std::vector<std::shared_ptr<Session>> before;
  for (const auto& client : clients_) before.push_back(client->session());
  rolling_ = true;
  for (size_t i = random_.Below(6); i > 0; --i) {
    scheduler_.After(random_.Between(SimTime(0), seconds(4)), [this] {
      if (const std::shared_ptr<CoreProcess> core = AnyCore(); core != nullptr) callers_.Broadcast(*core, AnyRoom());
    });
  }
  scheduler_.After(random_.Between(SimTime(0), seconds(4)), [this] {
    Client& client = *random_.PickFrom(clients_);
    client.SetAway(!client.away());
  });
  SetQuickNetwork(true);
  RunFor(seconds(1));  // what was sent before may be slower
  const SimTime stopped_at = StopCore(random_.Below(cores_.size()), random_.Between(milliseconds(50), seconds(2)));
  const SimTime until = now() + kStopped;
  // Told by a word, and not by silence, a shard is soon at another core.
  RunFor(stopped_at + kElsewhere - now());
  for (const Node<EdgeProcess>& edge : edges_) {
    for (uint32_t i = 0; i < edge.process->shards() && cores_.size() > 1; ++i) {
      ShardNode& shard = edge.process->shard(i);
      Check(shard.shard().link_live() && shard.link()->core->serving(),
            "a shard whose core is stopped has another one");
    }
  }
  RunFor(until - now());
  SetQuickNetwork(false);
  rolling_ = false;
  for (const auto& session : before) Check(!session->closing, session->Name() + " stays while a core is stopped");
  for (const Node<CoreProcess>& core : cores_) {
    Check(core.process != nullptr && core.process->serving(), "a core that was stopped is back");
  }
  CheckTables();
  CheckAcknowledged();
  CheckAcknowledged();
  CheckPresence();
  CheckWatchers();
}

void World::ProbeQueries() {
  size_t answered = 0;
  link::v1::ClusterRequest rooms;
  rooms.mutable_rooms()->set_limit(100);
  callers_.Ask(*AnyCore(), rooms, [&](const absl::Status& status, const std::vector<link::v1::ClusterReply>& replies) {
    ++answered;
    Check(status.ok() && replies.size() == cores_.size(), "every core tells its rooms");
    std::map<std::string, uint32_t> told, truth;
    for (const link::v1::ClusterReply& reply : replies) {
      for (const link::v1::RoomCount& room : reply.rooms().rooms()) told[room.room_id()] += room.connections();
    }
    for (const auto& client : clients_) {
      for (const std::string& room : client->rooms()) ++truth[room];
    }
    Check(told == truth, "the cores' rooms are those of the clients");
  });
  link::v1::ClusterRequest state;
  state.mutable_state();
  callers_.Ask(*AnyCore(), state, [&](const absl::Status& status, const std::vector<link::v1::ClusterReply>& replies) {
    ++answered;
    uint64_t connections = 0;
    int shards = 0;
    for (const link::v1::ClusterReply& reply : replies) {
      connections += reply.state().connections();
      shards += reply.state().shards_size();
    }
    Check(status.ok() && connections == clients_.size(), "every client is somebody's");
    Check(shards == static_cast<int>(edges_.size() * shards_per_edge_), "every shard is somebody's");
  });
  RunFor(kProbe);
  Check(answered == 2, "queries are answered in time");
}

// Nothing fails: a session, and then a user, is out on every edge when it is answered, and nobody else is.
void World::ProbeLogouts() {
  const Client& client = *random_.PickFrom(clients_);
  const std::string session_id = client.session()->login.session_id;
  std::vector<std::shared_ptr<Session>> before;
  for (const auto& other : clients_) before.push_back(other->session());
  int answered = 0;
  const auto log_out = [&](const std::string& user, const std::string& session) {
    callers_.LogOut(*AnyCore(), user, session, [&, user](const absl::Status& status, const auto&) {
      ++answered;
      Check(status.ok(), "a logout is carried out where nothing fails: " + status.ToString());
      for (const auto& other : before) {
        const bool out = user.empty() ? other->login.session_id == session_id : other->user_id == user;
        Check(!out || other->closing, other->Name() + " is out");
      }
    });
  };
  log_out("", session_id);
  RunFor(kProbe);
  Check(answered == 1, "a logout is answered in time");
  for (const auto& other : before) {
    Check(other->closing == (other->login.session_id == session_id), "one session alone has ended");
  }
  log_out(client.user_id(), "");
  RunFor(kProbe);
  Check(answered == 2, "a logout is answered in time");
  RunFor(kRelogin);
  callers_.CheckLogouts();
  CheckPresence();
}

void World::ProbePresence() {
  std::set<std::string> changed;
  for (size_t i = 0; i < users_; ++i) {
    const std::string user = "user" + std::to_string(i);
    const std::string before = TruthOf(user);
    for (const auto& client : clients_) {
      if (client->user_id() == user) client->SetAway(before == "online");
    }
    if (TruthOf(user) != before) changed.insert(user);
  }
  RunFor(kProbe);
  CheckPresence();
  for (const auto& client : clients_) {
    for (const std::string& user : changed) {
      if (hub_options_.scope == core::PresenceScope::kRooms && !ShareARoom(*client, user)) continue;
      const auto seen = client->session()->seen.find(user);
      Check(seen != client->session()->seen.end() && seen->second == TruthOf(user),
            client->session()->Name() + " sees that " + user + " is " + TruthOf(user));
    }
  }
}

bool World::ShareARoom(const Client& client, const std::string& user_id) const {
  return std::any_of(clients_.begin(), clients_.end(), [&](const auto& other) {
    return other->user_id() == user_id &&
           std::any_of(other->rooms().begin(), other->rooms().end(),
                       [&](const std::string& room) { return client.rooms().contains(room); });
  });
}

}  // namespace presence::sim
