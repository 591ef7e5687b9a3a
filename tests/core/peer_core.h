// Another core on the bus of a TestCore, as far as that one can tell: it is live, and answers what a test says.
//
// Lives on the core's loop thread, where `answer` is called. To be destroyed before the core.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <utility>

#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "core/memory_store.h"
#include "tests/core/test_core.h"

namespace presence::core {

class PeerCore final : private StoreListener {
 public:
  static constexpr uint64_t kIncarnation = 100;
  // The reply to a question or to the count of a message, whose envelope this is. Nothing: it stays silent.
  using Answer = std::function<std::optional<link::v1::ClusterReply>(const link::v1::BusEnvelope&)>;

  PeerCore(TestCore& core, Answer answer) : core_(core), answer_(std::move(answer)) {
    core_.OnLoop([this] {
      StoreOptions options;
      options.core_incarnation = kIncarnation;
      options.core_lifetime = std::chrono::hours(1);
      StoreListener& listener = *this;
      store_ = std::make_unique<MemoryStore>(options, core_.database, listener);
      store_->Announce();
      core_.run_peer = [this] { return store_->RunPending(); };
      // Who says something is live: nobody waits for the next look into the registry.
      link::v1::BusEnvelope greeting;
      greeting.set_core(kIncarnation);
      store_->Publish(1, greeting, {});
    });
    // Calls that begin from here on find a core that has heard it: both stores answer in one turn of the loop.
    EXPECT_TRUE(greeted_.WaitForNotificationWithTimeout(absl::FromChrono(kPatience)));
  }
  ~PeerCore() override {
    core_.OnLoop([this] {
      store_->Withdraw();
      core_.run_peer = nullptr;
      store_.reset();
    });
  }

 private:
  void OnBus(const link::v1::BusEnvelope& envelope) override {
    if (envelope.core() == kIncarnation) return;
    uint64_t id = envelope.request().id();
    if (envelope.has_message()) id = envelope.message().count_id();
    if (envelope.has_user_message()) id = envelope.user_message().count_id();
    if (id == 0) return;
    std::optional<link::v1::ClusterReply> reply = answer_(envelope);
    if (!reply) return;
    reply->set_core(kIncarnation);
    reply->set_id(id);
    link::v1::ClusterReplies replies;
    *replies.add_replies() = *std::move(reply);
    store_->Reply(TestCore::kIncarnation, replies);
  }
  void OnStoreUp(bool) override {}
  void OnStoreDown(std::string_view) override {}
  void OnWritten(uint64_t, const WriteResult&) override {}
  void OnRefreshed(uint64_t, absl::Span<const uint32_t>) override {}
  void OnPublished(uint64_t, bool) override {
    if (!greeted_.HasBeenNotified()) greeted_.Notify();
  }
  void OnPublishedOnce(uint64_t, const OnceResult&) override {}
  void OnAppended(uint64_t, const AppendResult&) override {}
  void OnRoomLogRead(uint64_t, const absl::StatusOr<RoomLogPage>&) override {}
  void OnLogoutKept(uint64_t, bool) override {}
  void OnLogoutsRead(const absl::StatusOr<LogoutLog>&) override {}
  void OnCoresRead(const absl::StatusOr<std::vector<uint64_t>>&) override {}
  void OnChangesRead(uint64_t, const absl::StatusOr<ChangeLog>&) override {}
  void OnReplies(const link::v1::ClusterReplies&) override {}
  void OnOutsideMessage(std::string_view) override {}
  void OnOutsidePresence(std::string_view) override {}

  TestCore& core_;
  const Answer answer_;
  absl::Notification greeted_;
  std::unique_ptr<MemoryStore> store_;
};

// Counts of orders and messages, whatever they are.
inline PeerCore::Answer Counting(uint32_t count) {
  return [count](const link::v1::BusEnvelope&) {
    link::v1::ClusterReply reply;
    reply.mutable_count()->set_count(count);
    return std::optional(reply);
  };
}

inline PeerCore::Answer Silent() {
  return [](const link::v1::BusEnvelope&) { return std::nullopt; };
}

}  // namespace presence::core
