// A hub among shards and a store that misbehave at random: links are lost, events repeated, writes fail, and the store forgets.
// Whenever all has come to rest, the shards' forwarding tables are what the hub believes, and the store holds exactly those who are
// connected. A failure names its seed.
#include <gtest/gtest.h>

#include <cstdio>
#include <map>
#include <random>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "common/connection_id.h"
#include "core/hub.h"
#include "tests/fakes/hub_world.h"

namespace presence::core {
namespace {

using link::v1::STATUS_AWAY;
using link::v1::STATUS_ONLINE;
using std::chrono::milliseconds;
using std::chrono::seconds;

using Outcome = HubWorld::Outcome;

// The store: entries with the fence of store.h, fed with the lines that HubWorld records.
class Entries {
 public:
  void Ask(const std::string& line) { asked_.push_back(line); }

  // The oldest write takes effect; whether it is fenced.
  bool Apply() {
    std::istringstream words(Pop());
    std::string verb, key, attach_word, user, status;
    words >> verb >> key >> attach_word >> user;
    if (verb != "remove") words >> status;
    const uint64_t attach = std::stoull(attach_word.substr(attach_word.find('=') + 1));
    Entry& entry = entries_[key];
    if (attach < entry.attach) return true;
    entry = {attach, verb == "remove" ? "" : user + " " + status};
    return false;
  }
  void Lose() { Pop(); }
  // A failover to a replica that lags: what was written since `then` is lost, removals too.
  void GoBackTo(const Entries& then) { entries_ = then.entries_; }

  // "e1/0/7.1 alice online" for each entry.
  std::set<std::string> Live() const {
    std::set<std::string> live;
    for (const auto& [key, entry] : entries_) {
      if (!entry.text.empty()) live.insert(key + " " + entry.text);
    }
    return live;
  }

 private:
  struct Entry {
    uint64_t attach = 0;
    std::string text;  // empty: a tombstone
  };
  std::string Pop() {
    const std::string line = asked_.front();
    asked_.pop_front();
    return line;
  }
  std::deque<std::string> asked_;
  std::map<std::string, Entry> entries_;
};

// A shard as the protocol describes it.
class ModelShard {
 public:
  struct Client {
    uint32_t generation = 0;
    std::string user;
    Status status = STATUS_ONLINE;
    std::set<std::string> bound;  // its rooms in the forwarding table
  };

  ModelShard(HubWorld& world, uint32_t number) : world_(world), number_(number) {}

  void Connect(uint64_t link) {
    link_ = link;
    world_.OpenLink(link);
    world_.Say(link, Hello(++attach_, 0, kEdge, number_));
    for (const auto& [slot, client] : clients_) {
      world_.Say(link, Declared(Id(slot), client.user, {client.bound.begin(), client.bound.end()}, client.status));
    }
    world_.Say(link, ResyncDone());
    std::erase_if(held_, [](const auto& event) { return event.has_connection_opened() || event.has_status_changed(); });
    for (const auto& event : held_) world_.Say(link, event);
  }
  void Lose() {
    if (link_ != 0) world_.LoseLink(link_);
    Vanish();
  }
  // The shard is gone from this link, and the core does not know.
  void Vanish() { link_ = 0; }
  bool connected() const { return link_ != 0; }

  void Act(std::mt19937_64& random) {
    const auto slot = static_cast<uint32_t>(random() % 6);
    const std::string room = "room" + std::to_string(random() % 4);
    const auto found = clients_.find(slot);
    if (found == clients_.end()) {
      Client& client = clients_[slot];
      client.generation = ++generations_[slot];
      client.user = "user" + std::to_string(random() % 5);
      return Hold(Opened(++sequence_, Id(slot), client.user));
    }
    switch (random() % 5) {
      case 0: {
        const uint64_t id = Id(slot);
        const std::string user = found->second.user;
        clients_.erase(found);
        return Hold(Closed(++sequence_, id, user));
      }
      case 1:
        found->second.status = random() % 2 == 0 ? STATUS_AWAY : STATUS_ONLINE;
        return Hold(StatusSet(++sequence_, Id(slot), found->second.status));
      case 2:
        return Hold(Left(++sequence_, Id(slot), room));
      default:
        return Hold(Joined(++sequence_, Id(slot), room));
    }
  }
  void Say(const link::v1::EdgeEvent& event) {
    if (link_ != 0) world_.Say(link_, event);
  }

  // Carries out what the core has ordered. False when it ended the link.
  void Obey(uint64_t link) {
    for (const std::string& line : world_.Sent(link)) {
      std::istringstream words(line);
      std::string verb, connection, room;
      words >> verb;
      if (verb == "closed" && link == link_) link_ = 0;
      if (verb == "ack") {
        uint64_t through = 0;
        words >> through;
        std::erase_if(held_, [through](const auto& event) { return event.sequence() <= through; });
      }
      if (verb != "bind" && verb != "unbind") continue;
      words >> connection >> room;
      uint32_t slot = 0, generation = 0;
      std::sscanf(connection.c_str(), "%u.%u", &slot, &generation);
      const auto found = clients_.find(slot);
      if (found == clients_.end() || found->second.generation != generation) continue;
      if (verb == "bind") found->second.bound.insert(room);
      if (verb == "unbind") found->second.bound.erase(room);
    }
  }

  size_t held() const { return held_.size(); }
  uint64_t link() const { return link_; }

  // As Hub::DebugDump writes it.
  std::string Dump() const {
    char text[128];
    std::snprintf(text, sizeof text, "edge %016llx shard %u attach %llu attached\n",
                  static_cast<unsigned long long>(kEdge), number_, static_cast<unsigned long long>(attach_));
    std::string out = text;
    for (const auto& [slot, client] : clients_) {
      std::snprintf(text, sizeof text, "  %016llx ", static_cast<unsigned long long>(Id(slot)));
      out += text + client.user + (client.status == STATUS_AWAY ? " away" : " online");
      for (const std::string& room : client.bound) out += " " + room;
      out += "\n";
    }
    return out;
  }
  void AddLive(std::set<std::string>& live) const {
    for (const auto& [slot, client] : clients_) {
      live.insert("e1/" + std::to_string(number_) + "/" + std::to_string(slot) + "." +
                  std::to_string(client.generation) + " " + client.user +
                  (client.status == STATUS_AWAY ? " away" : " online"));
    }
  }

 private:
  uint64_t Id(uint32_t slot) const { return ConnectionOf(slot, clients_.at(slot).generation, number_); }
  void Hold(link::v1::EdgeEvent event) {
    held_.push_back(event);
    Say(event);
  }

  HubWorld& world_;
  const uint32_t number_;
  uint64_t attach_ = 0, sequence_ = 0, link_ = 0;
  std::map<uint32_t, Client> clients_;
  std::map<uint32_t, uint32_t> generations_;
  std::vector<link::v1::EdgeEvent> held_;
};

class Story {
 public:
  explicit Story(uint64_t seed) : random_(seed), world_(Options(seed)) {
    for (uint32_t number = 0; number < 3; ++number) shards_.emplace_back(world_, number);
  }

  void Run() {
    for (int round = 0; round < 8 && !testing::Test::HasFailure(); ++round) {
      for (int step = 0; step < 150; ++step) Step();
      Rest();
      Check();
    }
  }

 private:
  static HubOptions Options(uint64_t seed) {
    HubOptions options = HubWorld::DefaultOptions();
    options.writes_in_flight_max = 1 + seed % 5;
    return options;
  }

  void Step() {
    ModelShard& shard = shards_[random_() % shards_.size()];
    switch (random_() % 24) {
      case 0:
        shard.Lose();
        break;
      case 1:
        shard.Vanish();
        break;
      case 2:
      case 3:
        Connect(shard);
        break;
      case 4:
        world_.Pass(milliseconds(random_() % 2500));
        break;
      case 5:
        if (up_) GoDown();
        break;
      case 6:
      case 7:
        if (!up_) GoUp();
        break;
      case 8:
        shard.Say(Heartbeat());
        if (up_ && random_() % 4 == 0) Replicate();
        break;
      case 9:
      case 10:
      case 11:
      case 12:
      case 13:
        AnswerOne();
        break;
      default:
        shard.Act(random_);
        break;
    }
    Settle();
  }

  void Connect(ModelShard& shard) {
    if (shard.connected()) return;
    shard.Connect(++last_link_);
  }
  void GoDown() {
    up_ = false;
    world_.StoreDown();
    Settle();
    while (world_.writes_open() > 0) Fail();
    // A failover: what was written in the last seconds is gone.
    lost_state_ = random_() % 3 == 0 && world_.now().steady - replica_since_ < seconds(25);
    if (lost_state_) entries_.GoBackTo(replica_);
  }
  void GoUp() {
    up_ = true;
    if (lost_state_) return world_.StoreUpWithoutItsState();
    world_.StoreUp();
  }
  void Replicate() {
    replica_ = entries_;
    replica_since_ = world_.now().steady;
  }
  void AnswerOne() {
    if (world_.writes_open() == 0) return;
    if (random_() % 8 == 0) return Fail();
    world_.Answer(entries_.Apply() ? Outcome::kFenced : Outcome::kApplied, STATUS_ONLINE, ++version_);
    Settle();
  }
  // An answer that does not come: the write may have been applied.
  void Fail() {
    if (random_() % 2 == 0) {
      entries_.Apply();
    } else {
      entries_.Lose();
    }
    world_.Answer(Outcome::kUnavailable);
    Settle();
  }
  // Hands over what was said and asked.
  void Settle() {
    for (const std::string& line : world_.Asked()) {
      if (line.starts_with("assert") || line.starts_with("reassert") || line.starts_with("remove")) entries_.Ask(line);
    }
    for (ModelShard& shard : shards_) {
      if (shard.link() != 0) shard.Obey(shard.link());
    }
  }

  // Faults end, everybody is connected, and the store answers.
  void Rest() {
    if (!up_) GoUp();
    for (int i = 0; i < 100; ++i) {
      for (ModelShard& shard : shards_) {
        Connect(shard);
        shard.Say(Heartbeat());
      }
      Settle();
      while (world_.writes_open() > 0) {
        world_.Answer(entries_.Apply() ? Outcome::kFenced : Outcome::kApplied, STATUS_ONLINE, ++version_);
        Settle();
      }
      world_.Pass(milliseconds(200));
      Settle();
    }
  }

  void Check() {
    std::string tables;
    std::set<std::string> live;
    for (const ModelShard& shard : shards_) {
      tables += shard.Dump();
      shard.AddLive(live);
      EXPECT_EQ(shard.held(), 0u) << "everything is acknowledged";
    }
    EXPECT_EQ(world_.hub().DebugDump(), tables);
    EXPECT_EQ(entries_.Live(), live);
    EXPECT_TRUE(world_.hub().Idle());
  }

  std::mt19937_64 random_;
  HubWorld world_;
  Entries entries_;
  Entries replica_;
  SteadyTime replica_since_;
  std::vector<ModelShard> shards_;
  uint64_t last_link_ = 0, version_ = 0;
  bool up_ = true, lost_state_ = false;
};

TEST(HubRandom, ShardsHubAndStoreAgreeWheneverTheyComeToRest) {
  for (uint64_t seed = 1; seed <= 60 && !HasFailure(); ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Story(seed).Run();
  }
}

}  // namespace
}  // namespace presence::core
