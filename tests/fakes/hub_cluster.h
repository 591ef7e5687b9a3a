// Several hubs on one Redis that is played by the real MemoryStore and its database: what they publish, they all hear, in one order.
// Shards say what the test lets them say; what a hub does is recorded in the lines of hub_world.h. Time moves by hand.
//
// Core 0 has the incarnation c0, core 1 c1, and so on. Links are numbered by the test, over all cores.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/hub.h"
#include "core/memory_store.h"
#include "tests/fakes/hub_world.h"

namespace presence::core {

class HubCluster {
 public:
  using Lines = std::vector<std::string>;

  class Node final : private HubOutput, private StoreListener {
   public:
    Node(HubCluster& cluster, HubOptions options);

    Hub& hub() { return *hub_; }
    // A core that is stopped hears nothing and does nothing.
    void Stop() { running_ = false; }
    void Go() { running_ = true; }
    void SetReachable(bool reachable) { store_.SetReachable(reachable); }
    // Gone: its store is closed, and nobody withdraws it.
    void Crash();

    void OpenLink(uint64_t link);
    void Say(uint64_t link, const link::v1::EdgeEvent& event);
    void LoseLink(uint64_t link);
    // Opens a link, declares these connections, and forgets what that caused.
    void Attach(uint64_t link, uint64_t attach, const std::vector<link::v1::EdgeEvent>& declared,
                uint64_t edge = kEdge);

    void Request(uint64_t request, const MessageRequest& message);
    void Ask(uint64_t request, link::v1::ClusterRequest body);

    // Since the last call; of links without what has to do with presence and acknowledgements.
    Lines Sent(uint64_t link) { return std::exchange(sent_[link], {}); }
    Lines Answers() { return std::exchange(answers_, {}); }
    Lines Reports() { return std::exchange(reports_, {}); }
    Lines Ordered() { return std::exchange(ordered_, {}); }
    // "alice offline"
    Lines Changes() { return std::exchange(changes_, {}); }
    // Of taps: "1 c1 SUBSCRIBED alice general"
    Lines Tapped() { return std::exchange(tapped_, {}); }
    const std::vector<link::v1::ClusterReply>& last_replies() const { return last_replies_; }

   private:
    friend class HubCluster;
    bool RunPending();
    void TurnEnd();
    void FlushCommand();

    link::v1::CoreCommand& AddCommand(LinkId link) override;
    void CloseLink(LinkId link, const absl::Status&) override { links_.erase(link.value()); }
    void AnswerMessage(uint64_t request, const absl::Status& status, const MessageAnswer& answer) override {
      answers_.push_back(Describe(request, status, answer));
    }
    void AnswerCluster(uint64_t request, const absl::Status& status,
                       std::vector<link::v1::ClusterReply> replies) override {
      answers_.push_back(Describe(request, status, replies));
      last_replies_ = std::move(replies);
    }
    void Tapped(uint64_t tap, const link::v1::TapEvents& events) override;
    void PresenceChanged(const PresenceChange& change) override;
    void DrainCore(std::chrono::milliseconds window) override {
      ordered_.push_back("drain " + std::to_string(window.count()) + "ms");
    }
    void SetLogLevel(link::v1::LogLevel level) override { ordered_.push_back("log level " + std::to_string(level)); }
    void Report(std::string_view text) override { reports_.emplace_back(text); }

    void OnStoreUp(bool lost_state) override { hub_->OnStoreUp(cluster_.now_, lost_state); }
    void OnStoreDown(std::string_view) override { hub_->OnStoreDown(cluster_.now_); }
    void OnWritten(uint64_t id, const WriteResult& result) override { hub_->OnWritten(cluster_.now_, id, result); }
    void OnRefreshed(uint64_t id, absl::Span<const uint32_t> missing) override {
      hub_->OnRefreshed(cluster_.now_, id, missing);
    }
    void OnPublished(uint64_t id, bool ok) override { hub_->OnPublished(cluster_.now_, id, ok); }
    void OnPublishedOnce(uint64_t id, const OnceResult& result) override {
      hub_->OnPublishedOnce(cluster_.now_, id, result);
    }
    void OnAppended(uint64_t id, const AppendResult& result) override { hub_->OnAppended(cluster_.now_, id, result); }
    void OnRoomLogRead(uint64_t id, const absl::StatusOr<RoomLogPage>& page) override {
      hub_->OnRoomLogRead(cluster_.now_, id, page);
    }
    void OnLogoutKept(uint64_t id, bool ok) override { hub_->OnLogoutKept(cluster_.now_, id, ok); }
    void OnLogoutsRead(const absl::StatusOr<LogoutLog>& log) override { hub_->OnLogoutsRead(cluster_.now_, log); }
    void OnCoresRead(const absl::StatusOr<std::vector<uint64_t>>& cores) override {
      hub_->OnCoresRead(cluster_.now_, cores);
    }
    void OnChangesRead(uint64_t id, const absl::StatusOr<ChangeLog>& log) override {
      hub_->OnChangesRead(cluster_.now_, id, log);
    }
    void OnBus(const link::v1::BusEnvelope& envelope) override { hub_->OnBus(cluster_.now_, envelope); }
    void OnReplies(const link::v1::ClusterReplies& replies) override { hub_->OnReplies(cluster_.now_, replies); }
    void OnOutsideMessage(std::string_view text) override { hub_->OnOutsideMessage(cluster_.now_, text); }
    void OnOutsidePresence(std::string_view text) override { hub_->OnOutsidePresence(cluster_.now_, text); }

    HubCluster& cluster_;
    bool running_ = true;
    std::set<uint64_t> links_;  // after Hello
    std::map<uint64_t, Lines> sent_;
    link::v1::CoreCommand command_;
    uint64_t command_link_ = 0;
    Lines answers_, ordered_, changes_, tapped_, reports_;
    std::vector<link::v1::ClusterReply> last_replies_;
    MemoryStore store_;
    std::unique_ptr<Hub> hub_;
  };

  // All know each other when it begins.
  explicit HubCluster(size_t cores, HubOptions options = HubWorld::DefaultOptions());

  // Another core; the others hear of it with Settle.
  Node& Add(HubOptions options);

  Node& operator[](size_t core) { return *nodes_[core]; }
  // Hands out everything that is under way, until nothing is.
  void Settle();
  // Moves the clock in steps of 100 ms, with a sign of life of each link and a tick of each running core after each.
  void Pass(std::chrono::milliseconds time);
  Now now() const { return now_; }
  // Forgets what links and callers were told.
  void Forget();

 private:
  StoreOptions StoreOptionsOf(uint64_t incarnation) const;

  Now now_{SteadyTime(std::chrono::hours(5)), WallTime(std::chrono::seconds(1'000))};
  MemoryDatabase database_{[this] { return now_.wall; }};
  std::vector<std::unique_ptr<Node>> nodes_;
};

}  // namespace presence::core
