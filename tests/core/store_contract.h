// The fixture of the store contract: what core/store.h promises, for the memory store and for Redis alike, in several
// files of one program. Time is the test's own in both.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/connection_id.h"
#include "core/presence_text.h"
#include "tests/fakes/store_backend.h"

namespace presence::core {

using link::v1::PresenceChanged;
using link::v1::STATUS_AWAY;
using link::v1::STATUS_OFFLINE;
using link::v1::STATUS_ONLINE;
using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

inline constexpr int kReadRounds = 12;
inline constexpr uint64_t kEdge = 0xE0000000000000AAULL;
inline constexpr uint64_t kFirstCore = 0xC0DE, kSecondCore = 0xC0DF;

// For the names of instantiated tests.
inline std::string BackendName(const testing::TestParamInfo<BackendKind>& kind) {
  return kind.param == BackendKind::kMemory ? "Memory" : "Redis";
}

class StoreContract : public testing::TestWithParam<BackendKind> {
 protected:
  using Outcome = WriteResult::Outcome;
  using Kind = PresenceWrite::Kind;

  void SetUp() override {
    ASSERT_TRUE(GetParam() != BackendKind::kRedis || RedisServer::Available())
        << "redis-server is not installed: scripts/test installs it";
    backend_ = StoreBackend::Create(GetParam(), options_, /*cores=*/2);
  }

  // Lets the store leave its first quiet period.
  void BecomeLoud() { PassTime(seconds(16)); }

  // With a sweep each second, as cores do.
  void PassTime(milliseconds time) {
    for (; time > milliseconds(0); time -= seconds(1)) {
      Sweep();
      backend_->Advance(std::min<milliseconds>(time, seconds(1)));
    }
    Sweep();
  }

  void Sweep(int users_max = 100) {
    backend_->store().Sweep(users_max);
    backend_->Settle();
  }

  static PresenceWrite Device(std::string_view user, uint64_t device, Status status = STATUS_ONLINE) {
    PresenceWrite write;
    write.key = {kEdge, device};
    write.attach = 5;
    write.user_id = user;
    write.username = "Some Body";
    write.status = status;
    return write;
  }
  static PresenceWrite Gone(std::string_view user, uint64_t device) {
    PresenceWrite write = Device(user, device);
    write.kind = Kind::kRemove;
    return write;
  }
  static PresenceWrite Again(std::string_view user, uint64_t device, Status status, Status previous, uint64_t version) {
    PresenceWrite write = Device(user, device, status);
    write.kind = Kind::kReassert;
    write.previous_status = previous;
    write.previous_version = version;
    return write;
  }

  WriteResult Write(PresenceWrite write, int core = 0) {
    write.id = ++last_id_;
    backend_->store(core).Write(write);
    backend_->Settle();
    const auto answer = backend_->heard(core).written.find(last_id_);
    EXPECT_NE(answer, backend_->heard(core).written.end()) << "no answer";
    return answer == backend_->heard(core).written.end() ? WriteResult{} : answer->second;
  }

  // The positions that are missing.
  std::vector<uint32_t> Refresh(const std::vector<RefreshEntry>& entries) {
    backend_->store().Refresh(++last_id_, entries);
    backend_->Settle();
    EXPECT_EQ(backend_->heard().refreshed.count(last_id_), 1u) << "no answer";
    return backend_->heard().refreshed[last_id_];
  }
  std::vector<uint32_t> Refresh(std::string_view user, uint64_t device, bool pinged = false) {
    return Refresh({{{kEdge, device}, 5, user, pinged}});
  }

  StoredPresence Get(std::string_view user) {
    std::optional<absl::StatusOr<StoredPresence>> answer;
    backend_->store().GetPresence(user, [&](absl::StatusOr<StoredPresence> presence) { answer = presence; });
    EXPECT_FALSE(answer) << "answered from inside the call";
    backend_->Settle(kReadRounds);
    EXPECT_TRUE(answer && answer->ok());
    return answer && answer->ok() ? **answer : StoredPresence{};
  }

  std::vector<StoredPresence> GetMany(const std::vector<std::string>& users) {
    std::optional<absl::StatusOr<std::vector<StoredPresence>>> answer;
    backend_->store().GetPresences(users, [&](const auto& presences) { answer = presences; });
    EXPECT_FALSE(answer) << "answered from inside the call";
    backend_->Settle();
    EXPECT_TRUE(answer && answer->ok()) << "in one round";
    return answer && answer->ok() ? **answer : std::vector<StoredPresence>();
  }

  PresencePage List(std::string_view after, uint32_t limit) {
    std::optional<absl::StatusOr<PresencePage>> answer;
    backend_->store().ListPresence(after, limit, [&](absl::StatusOr<PresencePage> page) { answer = page; });
    backend_->Settle(kReadRounds);
    EXPECT_TRUE(answer && answer->ok());
    return answer && answer->ok() ? **answer : PresencePage{};
  }

  ChangeLog Changes(uint64_t since) {
    backend_->store().ReadChanges(++last_id_, since);
    backend_->Settle(kReadRounds);
    const auto answer = backend_->heard().changes.find(last_id_);
    EXPECT_TRUE(answer != backend_->heard().changes.end() && answer->second.ok());
    return answer == backend_->heard().changes.end() ? ChangeLog{} : *answer->second;
  }

  // What core 1, which does nothing itself, has heard since the last call: "user status [rooms]".
  std::vector<std::string> HeardChanges() {
    std::vector<std::string> lines;
    for (const link::v1::BusEnvelope& envelope : backend_->heard(1).bus) {
      EXPECT_EQ(envelope.core(), 0u);
      EXPECT_EQ(envelope.sequence(), 0u);
      const PresenceChanged& change = envelope.presence_changed();
      std::string& line = lines.emplace_back(change.user_id() + " " + std::string(StatusName(change.status())));
      for (const std::string& room : change.room_ids()) line += " " + room;
      last_heard_ = change;
    }
    backend_->heard(1).bus.clear();
    return lines;
  }

  uint64_t NowMicroseconds() const {
    return static_cast<uint64_t>(
        std::chrono::floor<std::chrono::microseconds>(backend_->now().time_since_epoch()).count());
  }

  StoreOptions options_{.core_incarnation = kFirstCore};  // a fixture may set others before SetUp
  std::unique_ptr<StoreBackend> backend_;
  uint64_t last_id_ = 0;
  PresenceChanged last_heard_;
};

}  // namespace presence::core
