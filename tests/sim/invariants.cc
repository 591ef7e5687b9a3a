// The rounds of a run, and what must hold after each.
#include <algorithm>
#include <functional>
#include <set>
#include <sstream>

#include "common/connection_id.h"
#include "core/presence_text.h"
#include "tests/sim/world.h"

namespace presence::sim {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr int kRounds = 3;

// Longer than each chain of bounds: a stall (8 s), then a silent client (2 H + 3 s = 13 s for its entry, 3 s for its socket), or
// the quiet period of a Redis that was away (15 s) and then entries that nobody refreshes (13 s, and a sweep).
constexpr seconds kQuiet{50};
// Removals are repeated for 30 s, links of an edge are awaited for 5 s.
constexpr seconds kEmpty{100};

// The lines of Hub::DebugDump that are about one shard, without the blanks in front.
std::string LinesOfShard(const std::string& dump, const std::string& head) {
  std::istringstream in(dump);
  std::string out, line;
  bool inside = false;
  while (std::getline(in, line)) {
    if (!line.starts_with("  ")) {
      inside = line.starts_with(head);
    } else if (inside) {
      out.append(line.substr(2)).push_back('\n');
    }
  }
  return out;
}

}  // namespace

void World::Run() {
  for (int round = 0; round < kRounds; ++round) {
    calm_ = false;
    Trace("chaos");
    faults_->Begin();
    const SimTime end = now() + random_.Between(seconds(5), seconds(40));
    // Messages from the API, from other services, and from those who do not know the format.
    std::function<void()> talk = [this, end, &talk] {
      if (now() >= end) return;
      callers_.Act();
      if (random_.OneIn(3)) PublishFromOutside(AnyRoom());
      if (random_.OneIn(10)) PublishNonsense();
      if (random_.OneIn(6)) rights_.ChangeOne();
      scheduler_.After(random_.Between(milliseconds(5), milliseconds(400)), talk);
    };
    talk();
    scheduler_.RunUntil(end);

    faults_->End();
    calm_ = true;
    Trace("quiet");
    RunFor(kQuiet);
    CheckQuiet();
  }
  leaving_ = true;
  RunFor(kEmpty);
  CheckEmpty();
}

void World::CheckQuiet() {
  for (const auto& client : clients_) {
    Check(client->online() && !client->session()->closing, client->user_id() + " is connected");
    Check(!client->session()->HasUnanswered(), "all requests of " + client->user_id() + " are answered");
  }
  for (const Node<CoreProcess>& core : cores_) {
    Check(core.process->hub().Idle(), "a hub has nothing left to do");
    Check(!core.process->HasUnanswered(), "all messages and requests are answered");
    const core::HubSizes sizes = core.process->hub().sizes();
    Check(sizes.gathers == 0 && sizes.orders == 0, "no gather and no order is left");
    Check(sizes.room_reads == 0 && sizes.rooms_doubted == 0, "everything in the logs is read");
    Check(sizes.cores == cores_.size(), "all cores know each other");
  }
  callers_.CheckOrders();
  callers_.CheckLogouts();
  CheckTables();
  rights_.CheckMembers();
  CheckAcknowledged();
  CheckPresence();
  CheckWatchers();
  ProbeRooms();
  ProbeUsers();
  ProbePresence();
  ProbeRights();
  ProbeMoves();
  ProbeLostBus();
  ProbeDrain();
  ProbeCoreStop();
  ProbeOrders();
  ProbePendingOrders();
  ProbeLogouts();
  ProbeQueries();
  CheckTables();
  failures_.Probe();
  CheckTables();
  CheckPresence();
  CheckWatchers();
}

// Who was subscribed when somebody sent a message, and stayed, has it once, whatever happened, or has been told of a gap. Where Redis loses
// data, what only a core that is gone, too, has known is exempt, and it may come twice.
void World::CheckAcknowledged() {
  if (!rooms_have_logs()) return;
  std::set<uint64_t> cores_alive;
  for (const auto& core : cores_) cores_alive.insert(core.process->incarnation());
  for (const auto& session : sessions_) {
    if (session->closing || session->freed) continue;
    for (const auto& [number, message] : messages_) {
      if (!message.acknowledged || message.room.empty() || message.excluded.contains(session->user_id)) continue;
      const std::string what =
          "message " + std::to_string(number) + " in " + message.room + ", which was acknowledged, is ";
      Check(!RedisRemembers() || !session->doubled.contains(number), what + "doubled for " + session->Name());
      if (!RedisRemembers() && !cores_alive.contains(message.by_core)) continue;
      const auto room = session->rooms.find(message.room);
      if (room == session->rooms.end() || !room->second.in || room->second.in_since >= message.requested_at) continue;
      if (room->second.gap_at >= message.requested_at) continue;  // it was told
      Check(session->messages.contains(number), what + "lost to " + session->Name());
    }
  }
}

// What clients wish for, what the shard has, what its core has.
void World::CheckTables() {
  std::map<std::pair<EdgeProcess*, uint32_t>, std::map<uint32_t, std::string>> wished;
  for (const auto& client : clients_) {
    if (!client->online()) continue;
    const Session& session = *client->session();
    const uint64_t id = ConnectionId{session.shard, session.slot, session.generation}.Pack();
    char name[24];
    std::snprintf(name, sizeof name, "%016llx ", static_cast<unsigned long long>(id));
    std::string line = name + client->user_id() + (client->away() ? " away" : " online");
    for (const std::string& room : client->rooms()) line.append(" ").append(room);
    wished[{session.edge.get(), session.shard}][session.slot] = line + "\n";
  }
  size_t shards_in_cores = 0, shards = 0;
  for (const Node<CoreProcess>& core : cores_) shards_in_cores += core.process->hub().sizes().shards;
  for (const Node<EdgeProcess>& edge : edges_) {
    for (uint32_t i = 0; i < edge.process->shards(); ++i) {
      ++shards;
      ShardNode& shard = edge.process->shard(i);
      Check(shard.shard().link_live() && shard.shard().ready(edge.process->Clocks()), "a shard has a core");
      Check(shard.shard().events_held() == 0, "everything is acknowledged");
      std::string lines;
      for (const auto& [slot, line] : wished[{edge.process.get(), i}]) lines += line;
      const std::string table = shard.shard().DebugDump();
      Check(table == lines, "the forwarding table is what clients wish for:\n" + lines + "but is\n" + table);
      char head[64];
      std::snprintf(head, sizeof head, "edge %016llx shard %u ",
                    static_cast<unsigned long long>(edge.process->incarnation()), i);
      const std::string hub = LinesOfShard(shard.link()->core->hub().DebugDump(), head);
      Check(table == hub, "the forwarding table is what the hub has:\n" + hub + "but is\n" + table);
    }
  }
  Check(shards_in_cores == shards, "each shard is known to one core");
}

std::string World::TruthOf(const std::string& user_id) const {
  std::string truth = "offline";
  for (const auto& client : clients_) {
    if (client->user_id() != user_id || !client->online()) continue;
    if (!client->away()) return "online";
    truth = "away";
  }
  return truth;
}

void World::CheckPresence() {
  for (size_t i = 0; i < users_; ++i) {
    const std::string user = "user" + std::to_string(i);
    const std::string stored(core::StatusName(database_.GetPresence(user).status));
    Check(stored == TruthOf(user), user + " is " + TruthOf(user) + ", but stored as " + stored);
  }
}

// What a client was told last, or could read when it connected, is true. Not when Redis has lost its data: changes that only some cores
// had heard of are then not in the log any more, and are not told again (presence itself is right: CheckPresence).
void World::CheckWatchers() {
  if (!RedisRemembers()) return;
  for (const auto& watcher : watchers_) {
    for (const std::string& user : users()) {
      if (!watcher->Watches(user)) continue;
      const std::string believed = watcher->Believes(user);
      Check(believed == TruthOf(user),
            "a watcher was told that " + user + " is " + believed + ", but it is " + TruthOf(user));
    }
  }
  if (hub_options_.scope != core::PresenceScope::kEveryone) return;
  for (const auto& client : clients_) {
    for (size_t i = 0; i < users_; ++i) {
      const std::string user = "user" + std::to_string(i);
      const std::string believed = client->session()->Believes(user);
      Check(believed == TruthOf(user),
            client->session()->Name() + " believes that " + user + " is " + believed + ", but it is " + TruthOf(user));
    }
  }
}

void World::CheckEmpty() {
  for (const Node<EdgeProcess>& edge : edges_) {
    for (uint32_t i = 0; i < edge.process->shards(); ++i) {
      const edge::Shard& shard = edge.process->shard(i).shard();
      Check(shard.connections() == 0 && shard.rooms() == 0 && shard.events_held() == 0, "a shard is empty again");
    }
  }
  for (const Node<CoreProcess>& core : cores_) {
    const core::HubSizes sizes = core.process->hub().sizes();
    const std::pair<const char*, size_t> counts[] = {{"connections", sizes.connections},
                                                     {"users", sizes.users},
                                                     {"rooms", sizes.rooms},
                                                     {"memberships", sizes.memberships},
                                                     {"removals", sizes.removals},
                                                     {"writes in flight", sizes.writes_in_flight},
                                                     {"writes that wait", sizes.writes_waiting},
                                                     {"publications that wait", sizes.publications_waiting},
                                                     {"refreshes", sizes.refreshes_unanswered},
                                                     {"gathers", sizes.gathers},
                                                     {"orders", sizes.orders},
                                                     {"taps", sizes.taps},
                                                     {"questions", sizes.room_questions},
                                                     {"rights", sizes.room_rights},
                                                     {"reads of logs", sizes.room_reads},
                                                     {"rooms with doubts", sizes.rooms_doubted},
                                                     {"joins that wait", sizes.joins_waiting}};
    for (const auto& [what, count] : counts) {
      Check(count == 0, std::string("a hub is empty again, but has ") + std::to_string(count) + " " + what);
    }
  }
  CheckPresence();
  CheckDatabaseEmpty();
}

// What has a lifetime has lapsed, but for the logouts, which live as long as tokens, and for where the rooms' logs were, which is known for an
// hour.
void World::CheckDatabaseEmpty() {
  if (store_options_.change_log_lifetime > kEmpty) return;
  for (const auto& [key, value] : database_.Dump()) {
    const bool stays = key == "presence.sweep" || key == "presence.cores" || key == "presence.logouts" ||
                       key.starts_with("revoked:") || key == "presence.rooms" || key.starts_with("presence.room:");
    Check(stays, "Redis is empty again, but has " + key + ": " + value);
  }
}

}  // namespace presence::sim
