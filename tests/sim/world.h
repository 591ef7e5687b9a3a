// The whole service in one thread and in virtual time: cores, edges, one Redis, the network between them, and clients. All that is
// random comes from one seed; a run is repeated exactly by it.
//
// A run is made of rounds: a time of chaos, in which clients act and things fail, then a quiet time that is longer than every bound
// of the design, then the invariants. In the end everybody leaves, and everything must be as empty as before.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "core/memory_database.h"
#include "tests/sim/callers.h"
#include "tests/sim/client.h"
#include "tests/sim/core_node.h"
#include "tests/sim/edge_node.h"
#include "tests/sim/failure_table.h"
#include "tests/sim/faults.h"
#include "tests/sim/random.h"
#include "tests/sim/rights.h"
#include "tests/sim/scheduler.h"
#include "tests/sim/watcher.h"

namespace presence::sim {

// An invariant does not hold.
class Violation : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

class World final : private core::BusSubscriber {
 public:
  struct Message {
    std::string room, user;  // to one of them
    std::set<std::string> excluded{};
    bool once = false;  // with a request_id
    std::string frame;  // what clients get
    SimTime requested_at{0};
    uint64_t order = 0;         // on the bus; 0: it was not published (yet)
    bool acknowledged = false;  // the caller was told that it is sent
    uint64_t by_core = 0;       // incarnation of the first core that said so
  };
  template <typename P>
  struct Node {
    std::shared_ptr<P> process;  // null: it is down
    MachineClock clock;
  };

  World(uint64_t seed, bool trace);
  ~World() override;

  // Throws Violation.
  void Run();

  // --- for everybody in the simulation
  void Check(bool holds, const std::string& what) {
    if (!holds) throw Violation(what);
  }
  void Trace(std::string_view text);
  void TraceFrame(const Session& session, std::string_view text);
  uint64_t trace_hash() const { return trace_hash_; }
  Scheduler& scheduler() { return scheduler_; }
  SimTime now() const { return scheduler_.now(); }
  Now Clocks() const { return scheduler_.Clocks(); }
  Random& random() { return random_; }
  bool RedisIsSlow() const { return redis_delay_max_ > std::chrono::milliseconds(10); }
  // In some runs reads are answered behind what was asked after them.
  unsigned ReadDelay() { return late_reads_ ? static_cast<unsigned>(random_.Below(4)) : 0; }
  SimTime RedisDelay() { return random_.Between(SimTime(100), redis_delay_max_); }
  SimTime GatherDelay() { return random_.Between(SimTime(0), std::chrono::milliseconds(2)); }
  SimTime ClientDelay() { return random_.Between(SimTime(100), std::chrono::milliseconds(50)); }
  // Calls that after a tick of the process' clock.
  void TickLater(std::shared_ptr<Process> process, std::function<void()> tick);
  core::MemoryDatabase& database() { return database_; }
  Callers& callers() { return callers_; }
  Rights& rights() { return rights_; }
  const core::StoreOptions& store_options() const { return store_options_; }
  const core::HubOptions& hub_options() const { return hub_options_; }
  const edge::ShardOptions& shard_options() const { return shard_options_; }
  bool floods() const { return floods_; }  // clients send more than they may

  // --- the network
  std::shared_ptr<SimLink> Connect(const std::shared_ptr<EdgeProcess>& edge, uint32_t shard,
                                   const std::shared_ptr<CoreProcess>& core);
  void SendUp(const std::shared_ptr<SimLink>& link, SimLink::Item item);
  void SendDown(const std::shared_ptr<SimLink>& link, SimLink::Item item);
  void SetQuickNetwork(bool quick) { quick_network_ = quick; }
  // For a call, or a link. Null: the one that was tried is down, or, in calm times, all are.
  std::shared_ptr<CoreProcess> AnyCore();
  std::shared_ptr<EdgeProcess> AnyEdge();
  std::vector<std::shared_ptr<SimLink>> LiveLinks();

  // --- machines
  std::vector<Node<CoreProcess>>& cores() { return cores_; }
  std::vector<Node<EdgeProcess>>& edges() { return edges_; }
  void StartCore(size_t index);
  void StartEdge(size_t index);
  // With its host nobody is told.
  void CrashCore(size_t index, bool host);
  void CrashEdge(size_t index, bool host);
  // As SIGTERM does it; the process ends after the time that is returned, if nothing ends it before.
  SimTime DrainEdge(size_t index);
  // SIGTERM to a core, perhaps after an operator's drain; it is started again some time after it has ended. When it gets the signal.
  SimTime StopCore(size_t index, SimTime pause);
  void EndCore(const CoreProcess& core);
  // The clock of a machine, or of Redis', is set.
  void SetAClock();
  bool redis_frozen = false;

  // --- clients and rooms
  bool calm() const { return calm_; }  // clients are there and do nothing new
  bool leaving() const { return leaving_; }
  std::vector<std::unique_ptr<Client>>& clients() { return clients_; }
  const std::vector<std::unique_ptr<Watcher>>& watchers() const { return watchers_; }
  std::vector<std::string> users() const;
  std::vector<std::string> rooms() const;
  std::string TruthOf(const std::string& user_id) const;  // from the live devices
  FailureTable& failures() { return failures_; }
  // Lets the time pass.
  void RunFor(SimTime duration) { scheduler_.RunUntil(now() + duration); }
  void AddSession(std::shared_ptr<Session> session) { sessions_.push_back(std::move(session)); }
  const std::vector<std::shared_ptr<Session>>& sessions() const { return sessions_; }
  std::string AnyUser() { return "user" + std::to_string(random_.Below(users_)); }
  std::string AnyRoom() { return "room" + std::to_string(random_.Below(rooms_)); }
  static bool IsDm(std::string_view room) { return (room.back() - '0') % 2 == 1; }

  const std::map<std::string, std::string>& published() const { return published_; }

  // --- messages. Each has a number, which stands in its text.
  Message& NewMessage(const std::string& room, uint64_t* number);
  // In this run Redis never loses what it has, all or the last of it.
  bool RedisRemembers() const { return !faults_->wipes_redis() && !faults_->rolls_back_redis(); }
  bool WipesRedis() const { return faults_->wipes_redis(); }
  // Rooms have logs: what is acknowledged is neither lost nor doubled.
  bool rooms_have_logs() const { return hub_options_.room_log_age.count() > 0; }
  void Acknowledged(uint64_t number, uint64_t core) {
    if (!std::exchange(messages_.at(number).acknowledged, true)) messages_.at(number).by_core = core;
  }
  void PublishFromOutside(const std::string& room);
  void PublishNonsense();
  static std::optional<uint64_t> NumberIn(std::string_view text);
  const Message& message(uint64_t number);
  // Between two faults that may change the order of messages: a store that is away, a core that is stalled.
  void OrderFaultBegins() { ++order_faults_; }
  void OrderFaultEnds() {
    --order_faults_;
    order_fault_ended_ = now();
  }
  // All cores that are up have heard all since a moment before.
  bool CoresHeard(SimTime moment, SimTime before = std::chrono::seconds(8)) const {
    return order_faults_ == 0 && moment > order_fault_ended_ + before && moment > core_started_at_ + before;
  }
  bool OrderHolds(const Message& message) const {
    return order_faults_ == 0 && message.requested_at > order_fault_ended_ + std::chrono::seconds(2);
  }

 private:
  void OnPublication(std::shared_ptr<const core::Publication> publication) override;
  void Pass(const std::shared_ptr<SimLink>& link, bool up, SimLink::Item item);
  SimTime NetworkDelay();
  MachineClock AnyClock();

  // invariants.cc
  void CheckQuiet();
  void CheckTables();
  void CheckAcknowledged();
  void CheckPresence();
  void CheckWatchers();
  void CheckEmpty();
  void CheckDatabaseEmpty();

  // probes.cc
  void ProbeRooms();
  void ProbeUsers();
  void ProbeOrders();
  void ProbePendingOrders();
  void Order(link::v1::ClusterRequest body, uint32_t concerned, std::shared_ptr<int> unanswered);
  // What was ordered, by user, and by room.
  std::map<std::string, bool> OrderStatuses(const std::shared_ptr<int>& unanswered);
  std::map<std::string, std::string> OrderOutOfRooms(const std::shared_ptr<int>& unanswered);
  void CheckOrdered(const std::map<std::string, bool>& away, const std::map<std::string, std::string>& out);
  uint32_t DevicesOf(const std::string& user) const;
  void ProbeLogouts();
  void ProbeMoves();
  void ProbeLostBus();
  void ProbeDrain();
  void ProbeCoreStop();
  void ProbeQueries();
  void ProbePresence();
  void ProbeRights();
  bool ShareARoom(const Client& client, const std::string& user_id) const;

  Scheduler scheduler_;
  Random random_;
  const bool trace_;
  uint64_t trace_hash_ = 0xcbf29ce484222325;
  int64_t database_microseconds_ = 0;  // added to its clock: no two of its calls happen at the same one

  SimTime redis_delay_max_{0}, network_delay_max_{0};
  core::StoreOptions store_options_;
  core::HubOptions hub_options_;
  edge::ShardOptions shard_options_;
  bool floods_ = false, quick_network_ = false, late_reads_ = false;
  SimTime redis_clock_offset_{0};
  size_t users_ = 0, rooms_ = 0;
  uint32_t shards_per_edge_ = 0;

  core::MemoryDatabase database_;
  std::vector<Node<CoreProcess>> cores_;
  std::vector<Node<EdgeProcess>> edges_;
  std::vector<std::shared_ptr<SimLink>> links_;
  std::vector<std::shared_ptr<Session>> sessions_;
  std::vector<std::unique_ptr<Client>> clients_;
  std::vector<std::unique_ptr<Watcher>> watchers_;
  std::unique_ptr<Faults> faults_;
  Callers callers_{*this};
  Rights rights_{*this};
  FailureTable failures_{*this};
  std::map<uint64_t, SimTime> stopped_cores_;  // by incarnation: after what pause they are started again
  uint64_t next_link_ = 1;
  bool calm_ = false, leaving_ = false;
  bool rolling_ = false;  // a process is stopped as it should be, and nothing else fails: nobody is seen offline

  std::map<uint64_t, Message> messages_;
  uint64_t last_message_ = 0, last_order_ = 0;
  int order_faults_ = 0;
  SimTime order_fault_ended_{-10'000'000}, core_started_at_{-10'000'000};
  std::map<std::string, std::string> published_;  // user → status, as the bus said last
};

}  // namespace presence::sim
