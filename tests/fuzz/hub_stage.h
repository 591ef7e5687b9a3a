// A hub on a MemoryStore, with two links of edges and the API around it: the stage of the fuzzers that play stories to it.
//
// All that the hub says is held to what it promises: commands go to links that are open, every command and reply passes its own parser
// (what does not would end a link for all who are on it), each request is answered once. At the end everybody leaves, and nothing may
// be left over.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/hub.h"
#include "core/memory_store.h"
#include "presence/link/v1/link.pb.h"

namespace presence::fuzz {

class HubStage final : private core::HubOutput, private core::StoreListener {
 public:
  explicit HubStage(core::PresenceScope scope);
  ~HubStage() override;

  void SetLink(uint64_t link, bool open);
  void Say(uint64_t link, const link::v1::EdgeEvent& event);
  void Bus(const link::v1::BusEnvelope& envelope);
  void Replies(const link::v1::ClusterReplies& replies);
  void OutsideMessage(std::string_view text);
  void OutsidePresence(std::string_view text);
  void Ask(const link::v1::ClusterRequest& body);
  void Broadcast(std::string_view room_id, std::string_view data_json);
  void SetStore(bool reachable);
  // At most ten seconds, with ticks.
  void Pass(std::chrono::milliseconds time);

  // Two clients, alice and bob, on link 1, both in room "general".
  void Populate();
  // All links end and EDGE_GRACE passes: nobody and nothing may be left.
  void EndAll();

 private:
  void Settle();
  void CheckCommand();

  link::v1::CoreCommand& AddCommand(core::LinkId link) override;
  void CloseLink(core::LinkId link, const absl::Status& why) override;
  void AnswerMessage(uint64_t request, const absl::Status& status, const core::MessageAnswer& answer) override;
  void AnswerCluster(uint64_t request, const absl::Status& status,
                     std::vector<link::v1::ClusterReply> replies) override;
  void Tapped(uint64_t tap, const link::v1::TapEvents& events) override;
  void PresenceChanged(const core::PresenceChange& change) override;
  void DrainCore(std::chrono::milliseconds) override {}
  void SetLogLevel(link::v1::LogLevel) override {}
  void Report(std::string_view text) override;

  void OnStoreUp(bool lost_state) override { hub_->OnStoreUp(now_, lost_state); }
  void OnStoreDown(std::string_view) override { hub_->OnStoreDown(now_); }
  void OnWritten(uint64_t id, const core::WriteResult& result) override { hub_->OnWritten(now_, id, result); }
  void OnRefreshed(uint64_t id, absl::Span<const uint32_t> missing) override { hub_->OnRefreshed(now_, id, missing); }
  void OnPublished(uint64_t id, bool ok) override { hub_->OnPublished(now_, id, ok); }
  void OnAppended(uint64_t id, const core::AppendResult& result) override { hub_->OnAppended(now_, id, result); }
  void OnRoomLogRead(uint64_t id, const absl::StatusOr<core::RoomLogPage>& page) override {
    hub_->OnRoomLogRead(now_, id, page);
  }
  void OnPublishedOnce(uint64_t id, const core::OnceResult& result) override {
    hub_->OnPublishedOnce(now_, id, result);
  }
  void OnCoresRead(const absl::StatusOr<std::vector<uint64_t>>& cores) override { hub_->OnCoresRead(now_, cores); }
  void OnChangesRead(uint64_t id, const absl::StatusOr<core::ChangeLog>& log) override {
    hub_->OnChangesRead(now_, id, log);
  }
  void OnLogoutKept(uint64_t id, bool ok) override { hub_->OnLogoutKept(now_, id, ok); }
  void OnLogoutsRead(const absl::StatusOr<core::LogoutLog>& log) override { hub_->OnLogoutsRead(now_, log); }
  void OnBus(const link::v1::BusEnvelope& envelope) override { hub_->OnBus(now_, envelope); }
  void OnReplies(const link::v1::ClusterReplies& replies) override { hub_->OnReplies(now_, replies); }
  void OnOutsideMessage(std::string_view text) override { hub_->OnOutsideMessage(now_, text); }
  void OnOutsidePresence(std::string_view text) override { hub_->OnOutsidePresence(now_, text); }

  Now now_{SteadyTime(std::chrono::hours(5)), FromUnixMillis(1'760'000'000'000)};
  core::MemoryDatabase database_{[this] { return now_.wall; }};
  core::MemoryStore store_;
  std::unique_ptr<core::Hub> hub_;
  std::map<uint64_t, bool> links_;  // those that are open
  link::v1::CoreCommand command_;   // being filled in
  bool has_command_ = false;
  uint64_t requests_ = 0;
  std::map<uint64_t, bool> unanswered_;
};

}  // namespace presence::fuzz
