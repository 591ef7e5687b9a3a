// One core process of the simulation: a real Hub on a real MemoryStore, fed by the scheduler.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/hub.h"
#include "core/memory_store.h"
#include "core/watches.h"
#include "tests/sim/scheduler.h"
#include "tests/sim/sim_link.h"

namespace presence::sim {

class World;

class CoreProcess final : public Process,
                          public std::enable_shared_from_this<CoreProcess>,
                          private core::HubOutput,
                          private core::StoreListener {
 public:
  CoreProcess(World& world, uint64_t incarnation, MachineClock machine_clock);
  void Start();
  // Everything that it knew is gone.
  void Crash();
  // SIGTERM: its links end with a word, what it has accepted goes to the store and is answered, and the world ends the process.
  void Stop();
  // As the real ones by their health: not to be asked any more, nor to be attached to.
  bool serving() const { return !refusing_; }
  // It was told to, whether it has ended or not.
  bool stopping() const { return stop_since_.has_value(); }
  // Calls are taken until the last moment all the same.
  bool takes_calls() const { return !drained_at_; }

  uint64_t incarnation() const { return incarnation_; }
  SimTime started_at() const { return started_at_; }
  Now Clocks() const;
  core::Hub& hub() { return *hub_; }
  core::Watches& watches() { return *watches_; }
  core::MemoryStore& store() { return *store_; }
  bool redis_reachable() const { return redis_reachable_; }
  void SetRedisReachable(bool reachable) {
    redis_reachable_ = reachable;
    store_->SetReachable(reachable);
  }
  void OnRoomRight(uint64_t question, const core::RoomAnswer& answer);
  bool HasUnanswered() const { return !unanswered_.empty() || !asked_.empty(); }

  using MessageAnswered = std::function<void(const absl::Status&, const core::MessageAnswer&)>;
  using ClusterAnswered = std::function<void(const absl::Status&, std::vector<link::v1::ClusterReply>)>;
  void Request(uint64_t request, const core::MessageRequest& message, MessageAnswered done);
  void Ask(uint64_t request, link::v1::ClusterRequest body, ClusterAnswered done);
  void Cancel(uint64_t request);

  // What comes out of a link's pipe.
  void OnLinkOpened(const std::shared_ptr<SimLink>& link);
  void OnLinkFrame(const std::shared_ptr<SimLink>& link, const std::string& bytes);
  void OnLinkEnded(const std::shared_ptr<SimLink>& link);

 private:
  struct Gathered {
    std::shared_ptr<SimLink> link;
    link::v1::CoreFrame frame;
    bool flush_planned = false;
  };

  void Tick();
  bool HasStopped();
  void EndLinks(std::chrono::milliseconds window);
  void EndLink(core::LinkId id);
  void Step();  // after each call into the hub
  void Flush(core::LinkId id);

  link::v1::CoreCommand& AddCommand(core::LinkId id) override;
  size_t BacklogBytes(core::LinkId id) const override;
  void CloseLink(core::LinkId id, const absl::Status& why) override;
  void AnswerMessage(uint64_t request, const absl::Status& status, const core::MessageAnswer& answer) override;
  void AnswerCluster(uint64_t request, const absl::Status& status,
                     std::vector<link::v1::ClusterReply> replies) override;
  void Tapped(uint64_t tap, const link::v1::TapEvents& events) override;
  void PresenceChanged(const core::PresenceChange& change) override;
  void DrainCore(std::chrono::milliseconds window) override;
  void SetLogLevel(link::v1::LogLevel level) override;
  void Report(std::string_view text) override;

  void OnStoreUp(bool lost_state) override;
  void OnStoreDown(std::string_view why) override;
  void OnWritten(uint64_t id, const core::WriteResult& result) override;
  void OnRefreshed(uint64_t id, absl::Span<const uint32_t> missing) override;
  void OnPublished(uint64_t id, bool ok) override;
  void OnChangesRead(uint64_t id, const absl::StatusOr<core::ChangeLog>& log) override;
  void OnPublishedOnce(uint64_t id, const core::OnceResult& result) override;
  void OnCoresRead(const absl::StatusOr<std::vector<uint64_t>>& cores) override;
  void OnReplies(const link::v1::ClusterReplies& replies) override;
  void OnAppended(uint64_t id, const core::AppendResult& result) override;
  void OnRoomLogRead(uint64_t id, const absl::StatusOr<core::RoomLogPage>& page) override;
  void OnLogoutKept(uint64_t id, bool ok) override;
  void OnLogoutsRead(const absl::StatusOr<core::LogoutLog>& log) override;
  void OnBus(const link::v1::BusEnvelope& envelope) override;
  void OnOutsideMessage(std::string_view text) override;
  void OnOutsidePresence(std::string_view text) override;

  World& world_;
  const uint64_t incarnation_;
  const SimTime started_at_;
  std::unique_ptr<core::MemoryStore> store_;
  std::unique_ptr<core::RoomAuthorizer> authorizer_;  // null: nobody is asked
  bool redis_reachable_ = true;
  std::unique_ptr<core::Hub> hub_;
  std::unique_ptr<core::Watches> watches_;
  uint64_t last_watch_request_ = 0;
  std::map<core::LinkId, Gathered> links_;
  std::map<uint64_t, MessageAnswered> unanswered_;
  std::map<uint64_t, ClusterAnswered> asked_;
  std::map<std::string, uint64_t> versions_;  // of the changes that the output was told, by user
  bool pump_planned_ = false;
  bool refusing_ = false;              // links
  std::optional<SimTime> stop_since_;  // SIGTERM
  std::optional<SimTime> drained_at_;  // then: nothing is left to do, or it has waited long enough
};

}  // namespace presence::sim
