// The two stores behind one face, for tests that must hold for both: several cores on one database, time that the
// test moves, and what can happen to a Redis from outside.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/time.h"
#include "core/store.h"
#include "tests/fakes/redis_server.h"

namespace presence::core {

enum class BackendKind { kMemory, kRedis };

// Keeps what a store said, apart from the marks of StoreBackend::Settle.
class RecordingListener : public StoreListener {
 public:
  void OnStoreUp(bool lost) override {
    ++ups;
    lost_state = lost;
  }
  void OnStoreDown(std::string_view reason) override {
    ++downs;
    why = reason;
  }
  void OnWritten(uint64_t id, const WriteResult& result) override {
    written[id] = result;
    answers.push_back(id);
  }
  void OnRefreshed(uint64_t id, absl::Span<const uint32_t> positions) override {
    refreshed[id].assign(positions.begin(), positions.end());
    answers.push_back(id);
  }
  void OnPublished(uint64_t id, bool ok) override {
    if (id == kMarkId) {
      ++marks_answered;
      return;
    }
    published[id] = ok;
    answers.push_back(id);
  }
  void OnPublishedOnce(uint64_t id, const OnceResult& result) override {
    once[id] = result;
    answers.push_back(id);
  }
  void OnAppended(uint64_t id, const AppendResult& result) override {
    appended[id] = result;
    answers.push_back(id);
  }
  void OnRoomLogRead(uint64_t id, const absl::StatusOr<RoomLogPage>& page) override { pages.emplace(id, page); }
  void OnLogoutKept(uint64_t id, bool ok) override {
    logouts_kept[id] = ok;
    answers.push_back(id);
  }
  void OnLogoutsRead(const absl::StatusOr<LogoutLog>& log) override { logouts.push_back(log); }
  void OnCoresRead(const absl::StatusOr<std::vector<uint64_t>>& live) override { cores.push_back(live); }
  void OnChangesRead(uint64_t id, const absl::StatusOr<ChangeLog>& log) override { changes.emplace(id, log); }
  void OnBus(const link::v1::BusEnvelope& envelope) override {
    if (envelope.message().room_id() == kMark) {
      ++marks;
    } else {
      bus.push_back(envelope);
      arrivals.push_back("bus " + std::to_string(envelope.sequence()));
    }
  }
  void OnReplies(const link::v1::ClusterReplies& replies) override {
    for (const link::v1::ClusterReply& reply : replies.replies()) {
      arrivals.push_back("reply " + std::to_string(reply.id()));
    }
  }
  void OnOutsideMessage(std::string_view text) override { messages.emplace_back(text); }
  void OnOutsidePresence(std::string_view text) override { updates.emplace_back(text); }

  static constexpr char kMark[] = "a mark of the test";
  static constexpr uint64_t kMarkId = ~uint64_t{0};

  int ups = 0, downs = 0;
  bool lost_state = false;
  std::string why;
  std::map<uint64_t, WriteResult> written;
  std::map<uint64_t, std::vector<uint32_t>> refreshed;
  std::map<uint64_t, bool> published;
  std::map<uint64_t, absl::StatusOr<ChangeLog>> changes;
  std::map<uint64_t, OnceResult> once;
  std::map<uint64_t, AppendResult> appended;
  std::map<uint64_t, absl::StatusOr<RoomLogPage>> pages;
  std::map<uint64_t, bool> logouts_kept;
  std::vector<absl::StatusOr<LogoutLog>> logouts;
  std::vector<absl::StatusOr<std::vector<uint64_t>>> cores;
  std::vector<uint64_t> answers;  // to writes, refreshes, publications, in the order in which they came
  std::vector<link::v1::BusEnvelope> bus;
  std::vector<std::string> arrivals;  // from the bus and as replies, in one order: "bus <sequence>", "reply <id>"
  std::vector<std::string> messages, updates;
  uint64_t marks = 0, marks_answered = 0;
};

class StoreBackend {
 public:
  static std::unique_ptr<StoreBackend> Create(BackendKind kind, const StoreOptions& options, int cores);
  virtual ~StoreBackend() = default;

  Store& store(int core = 0) { return *stores_.at(static_cast<size_t>(core)); }
  RecordingListener& heard(int core = 0) { return *listeners_.at(static_cast<size_t>(core)); }

  WallTime now() const { return *now_; }
  void Advance(std::chrono::microseconds by) { *now_ += by; }

  // Runs until everything called for is answered and everything published is heard, by every core. A read may need as
  // many `rounds` as it sends commands one after the other.
  virtual void Settle(int rounds = 1) = 0;

  virtual void Wipe() = 0;     // the data is gone; the connections stand
  virtual void Restart() = 0;  // for the script: another run of Redis with the same data
  virtual void SetPresenceText(const std::string& user_id, const std::string& text) = 0;
  virtual void PublishOutside(const std::string& channel, const std::string& text) = 0;
  // In seconds; nothing when the key is not there or lives for ever.
  virtual std::optional<int64_t> Ttl(const std::string& key) = 0;
  virtual std::map<std::string, std::string> Dump() = 0;  // see MemoryDatabase::Dump
  // Keys whose time has passed on the test's clock: memory drops and names them, Redis is told to drop them.
  virtual std::vector<std::string> DropLapsed() = 0;
  virtual void Drop(const std::vector<std::string>& keys) = 0;

 protected:
  std::shared_ptr<WallTime> now_ = std::make_shared<WallTime>(FromUnixMillis(1'736'856'000'000));
  std::vector<std::unique_ptr<RecordingListener>> listeners_;  // outlive the stores
  std::vector<std::unique_ptr<Store>> stores_;
};

// The server that all Redis backends of this test program share; started with the first.
RedisServer& SharedRedis();

}  // namespace presence::core
