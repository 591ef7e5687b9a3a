// What core/store.h promises, for the memory store and for Redis alike. Time is the test's own in both.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/connection_id.h"
#include "core/presence_text.h"
#include "tests/fakes/store_backend.h"

namespace presence::core {
namespace {

using link::v1::PresenceChanged;
using link::v1::STATUS_AWAY;
using link::v1::STATUS_OFFLINE;
using link::v1::STATUS_ONLINE;
using link::v1::STATUS_UNSPECIFIED;
using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;
using Outcome = WriteResult::Outcome;
using Kind = PresenceWrite::Kind;

constexpr int kReadRounds = 12;
constexpr uint64_t kEdge = 0xE0000000000000AAULL;

class StoreContract : public testing::TestWithParam<BackendKind> {
 protected:
  void SetUp() override {
    ASSERT_TRUE(GetParam() != BackendKind::kRedis || RedisServer::Available())
        << "redis-server is not installed: scripts/test installs it";
    StoreOptions options;
    options.core_incarnation = 0xC0DE;
    backend_ = StoreBackend::Create(GetParam(), options, /*cores=*/2);
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

  std::unique_ptr<StoreBackend> backend_;
  uint64_t last_id_ = 0;
  PresenceChanged last_heard_;
};

INSTANTIATE_TEST_SUITE_P(Stores, StoreContract, testing::Values(BackendKind::kMemory, BackendKind::kRedis),
                         [](const auto& kind) { return kind.param == BackendKind::kMemory ? "Memory" : "Redis"; });

// --------------------------------------------------------------------------------------------------- status of a
// user

TEST_P(StoreContract, AFirstDeviceMakesOnlineAndSaysSoOnce) {
  const WriteResult result = Write(Device("u1", 1));
  EXPECT_EQ(result.outcome, Outcome::kApplied);
  EXPECT_EQ(result.user_status, STATUS_ONLINE);
  EXPECT_EQ(result.user_version, NowMicroseconds());

  EXPECT_THAT(HeardChanges(), ElementsAre("u1 online"));
  EXPECT_EQ(last_heard_.username(), "Some Body");
  EXPECT_EQ(last_heard_.version(), result.user_version);
  EXPECT_EQ(last_heard_.changed_ms(), ToUnixMillis(backend_->now()));
  EXPECT_THAT(backend_->heard(1).updates,
              ElementsAre("{\"origin\":\"presence.core/000000000000c0de\",\"type\":\"presence\",\"user_id\":\"u1\","
                          "\"username\":\"Some Body\",\"status\":\"online\",\"timestamp\":\"2025-01-14T12:00:00Z\","
                          "\"version\":1736856000000000}"));
  EXPECT_EQ(
      backend_->Dump()["presence:u1"],
      "string mortal\n={\"user_id\":\"u1\",\"username\":\"Some Body\",\"status\":\"online\",\"connection_id\":\"" +
          ConnectionName(kEdge, 1) + "\",\"last_seen\":\"2025-01-14T12:00:00Z\",\"version\":1736856000000000}");
}

TEST_P(StoreContract, AUserIsAsPresentAsTheMostPresentDevice) {
  EXPECT_EQ(Write(Device("u1", 1, STATUS_AWAY)).user_status, STATUS_AWAY);
  EXPECT_EQ(Write(Device("u1", 2, STATUS_ONLINE)).user_status, STATUS_ONLINE);
  EXPECT_EQ(Write(Device("u1", 3, STATUS_AWAY)).user_status, STATUS_ONLINE);
  EXPECT_EQ(Write(Gone("u1", 2)).user_status, STATUS_AWAY);
  EXPECT_EQ(Write(Gone("u1", 1)).user_status, STATUS_AWAY);
  EXPECT_EQ(Write(Gone("u1", 3)).user_status, STATUS_OFFLINE);
  EXPECT_THAT(HeardChanges(), ElementsAre("u1 away", "u1 online", "u1 away", "u1 offline"));
}

TEST_P(StoreContract, ASecondTabThatClosesLeavesTheFirstOnline) {
  Write(Device("u1", 1));
  Write(Device("u1", 2), /*core=*/1);
  const WriteResult closed = Write(Gone("u1", 2), /*core=*/1);
  EXPECT_EQ(closed.user_status, STATUS_ONLINE);
  EXPECT_EQ(Get("u1").status, STATUS_ONLINE);
  EXPECT_THAT(HeardChanges(), ElementsAre("u1 online"));
}

TEST_P(StoreContract, TheEntryNamesAConnectionThatIsThere) {
  Write(Device("u1", 2));
  Write(Device("u1", 1));
  Write(Gone("u1", 1));
  EXPECT_THAT(backend_->Dump()["presence:u1"], HasSubstr(ConnectionName(kEdge, 2)));
}

TEST_P(StoreContract, TheLastDisconnectionIsStoredAsOfflineWithLastSeen) {
  Write(Device("u1", 1));
  backend_->Advance(seconds(30));
  Write(Gone("u1", 1));
  const StoredPresence presence = Get("u1");
  EXPECT_EQ(presence.status, STATUS_OFFLINE);
  EXPECT_EQ(presence.username, "Some Body");
  EXPECT_EQ(presence.last_seen_ms, ToUnixMillis(backend_->now()));
  EXPECT_THAT(List("", 10).users, IsEmpty());
}

TEST_P(StoreContract, ARepeatedWriteChangesNothing) {
  const WriteResult first = Write(Device("u1", 1));
  backend_->Advance(seconds(1));
  const WriteResult second = Write(Device("u1", 1));
  EXPECT_EQ(second.user_version, first.user_version);
  EXPECT_THAT(HeardChanges(), SizeIs(1));
  EXPECT_THAT(backend_->heard(1).updates, SizeIs(1));
}

// ---------------------------------------------------------------------------------------------------------- the
// fence

TEST_P(StoreContract, AnOlderAttachIsFenced) {
  Write(Device("u1", 1));  // attach 5
  PresenceWrite late = Gone("u1", 1);
  late.attach = 4;
  const WriteResult result = Write(late, /*core=*/1);
  EXPECT_EQ(result.outcome, Outcome::kFenced);
  EXPECT_EQ(result.user_status, STATUS_ONLINE);
  late = Device("u1", 1, STATUS_AWAY);
  late.attach = 4;
  EXPECT_EQ(Write(late).outcome, Outcome::kFenced);
  EXPECT_EQ(Get("u1").status, STATUS_ONLINE);

  PresenceWrite newer = Device("u1", 1, STATUS_AWAY);
  newer.attach = 6;
  EXPECT_EQ(Write(newer, /*core=*/1).user_status, STATUS_AWAY);
  EXPECT_EQ(Write(Gone("u1", 1)).outcome, Outcome::kFenced);
}

TEST_P(StoreContract, ARemovalLeavesATombstoneForFifteenSeconds) {
  Write(Device("u1", 1));
  Write(Gone("u1", 1));
  PresenceWrite late = Device("u1", 1);
  late.attach = 4;
  backend_->Advance(milliseconds(14'999));
  EXPECT_EQ(Write(late).outcome, Outcome::kFenced);
  EXPECT_THAT(Refresh("u1", 1), ElementsAre(0));
  EXPECT_EQ(Get("u1").status, STATUS_OFFLINE);
  backend_->Advance(milliseconds(1));
  EXPECT_EQ(Write(late).user_status, STATUS_ONLINE);
}

// A shard never opens a closed connection again. But a core that has lost a link removes connections that live on, and
// their shard declares them with its next attach.
TEST_P(StoreContract, OnlyAHigherAttachComesBackThroughATombstone) {
  const WriteResult online = Write(Device("u1", 1));
  const WriteResult gone = Write(Gone("u1", 1));
  HeardChanges();
  for (const PresenceWrite& late :
       {Device("u1", 1), Again("u1", 1, STATUS_ONLINE, STATUS_ONLINE, online.user_version)}) {
    const WriteResult result = Write(late);  // has timed out, say, and Redis got it behind the removal
    EXPECT_EQ(result.outcome, Outcome::kFenced);
    EXPECT_EQ(result.user_status, STATUS_OFFLINE);
    EXPECT_EQ(result.user_version, gone.user_version);
  }
  EXPECT_EQ(Write(Gone("u1", 1)).outcome, Outcome::kApplied) << "a repeated removal";
  EXPECT_THAT(HeardChanges(), IsEmpty());
  PresenceWrite declared = Device("u1", 1);
  declared.attach = 6;
  EXPECT_EQ(Write(declared, /*core=*/1).user_status, STATUS_ONLINE);
  EXPECT_EQ(Write(Gone("u1", 1)).outcome, Outcome::kFenced) << "of the core that has lost the link";
}

TEST_P(StoreContract, OfOneUserThe64TombstonesThatEndLastAreKept) {
  for (uint64_t device = 100; device > 0; --device) {
    Write(Device("u1", device));
    Write(Gone("u1", device));
    backend_->Advance(milliseconds(1));
  }
  const std::string hash = backend_->Dump()["presence.user:u1"];
  for (uint64_t device = 1; device <= 100; ++device) {
    const bool kept = hash.find(ConnectionName(kEdge, device)) != std::string::npos;
    EXPECT_EQ(kept, device <= 64) << device;
  }
  EXPECT_EQ(Write(Device("u1", 64)).outcome, Outcome::kFenced);
  EXPECT_EQ(Write(Device("u1", 101)).user_status, STATUS_ONLINE);
}

TEST_P(StoreContract, RemovingWhatIsUnknownLeavesATombstoneToo) {
  EXPECT_EQ(Write(Gone("u1", 1)).outcome, Outcome::kApplied);
  PresenceWrite late = Device("u1", 1);
  late.attach = 4;
  EXPECT_EQ(Write(late).outcome, Outcome::kFenced);
  EXPECT_THAT(HeardChanges(), IsEmpty());
  EXPECT_FALSE(backend_->Dump().contains("presence:u1"));
}

TEST_P(StoreContract, ARemovalOfWhatTheStoreHasLostIsAnnounced) {
  PresenceWrite gone = Gone("u1", 1);
  gone.previous_status = STATUS_ONLINE;
  gone.previous_version = NowMicroseconds() + 1'000'000;  // of a clock ahead of this one
  const WriteResult result = Write(gone);
  EXPECT_EQ(result.user_status, STATUS_OFFLINE);
  EXPECT_EQ(result.user_version, gone.previous_version + 1);
  EXPECT_THAT(HeardChanges(), ElementsAre("u1 offline"));
}

// ------------------------------------------------------------------------------------------------ refreshes and
// sweeps

TEST_P(StoreContract, ARefreshNamesWhatIsMissing) {
  Write(Device("u1", 1));
  Write(Device("u2", 2));
  EXPECT_THAT(Refresh({{{kEdge, 1}, 5, "u1", false},
                       {{kEdge, 9}, 5, "u1", false},  // never there
                       {{kEdge, 2}, 4, "u2", false},  // fenced
                       {{kEdge, 2}, 5, "u2", true},
                       {{kEdge, 2}, 5, "u3", false}}),  // another's
              ElementsAre(1, 2, 4));
  EXPECT_THAT(Refresh(std::vector<RefreshEntry>{}), IsEmpty());
}

TEST_P(StoreContract, SeveralEntriesOfOneUserAreRefreshedInOrder) {
  BecomeLoud();
  Write(Device("u1", 1));
  Write(Device("u1", 2));
  const int64_t start_ms = ToUnixMillis(backend_->now());
  PassTime(seconds(10));
  EXPECT_THAT(Refresh({{{kEdge, 1}, 5, "u1", true},
                       {{kEdge, 2}, 5, "u1", false},
                       {{kEdge, 1}, 4, "u1", false},  // fenced
                       {{kEdge, 1}, 6, "u1", false},
                       {{kEdge, 1}, 5, "u1", false}}),  // fenced by the one before it
              ElementsAre(2, 4));
  EXPECT_EQ(Get("u1").last_seen_ms, start_ms + 10'000);
  EXPECT_THAT(backend_->Dump()["presence.deadlines"], HasSubstr(std::to_string(start_ms + 73'000)));
  PassTime(seconds(62));
  EXPECT_EQ(Get("u1").status, STATUS_ONLINE);
  PassTime(seconds(1));
  EXPECT_EQ(Get("u1").status, STATUS_OFFLINE);
}

TEST_P(StoreContract, ManyEntriesAreRefreshedInOneCall) {
  Write(Device("u1", 1));
  std::vector<RefreshEntry> entries(1500, RefreshEntry{{kEdge, 1}, 5, "u1", false});
  entries[0].user_id = entries[700].user_id = entries[1499].user_id = "nobody";
  EXPECT_THAT(Refresh(entries), ElementsAre(0, 700, 1499));
}

TEST_P(StoreContract, TheSweepEndsWhatHasNotBeenRefreshed) {
  BecomeLoud();
  const uint64_t online = Write(Device("u1", 1)).user_version;
  PassTime(milliseconds(62'900));
  EXPECT_EQ(Get("u1").status, STATUS_ONLINE);
  PassTime(milliseconds(100));
  EXPECT_EQ(Get("u1").status, STATUS_OFFLINE);
  EXPECT_THAT(HeardChanges(), ElementsAre("u1 online", "u1 offline"));
  EXPECT_GT(last_heard_.version(), online);
  EXPECT_THAT(Refresh("u1", 1), ElementsAre(0));
}

TEST_P(StoreContract, ARefreshMovesTheDeadline) {
  BecomeLoud();
  Write(Device("u1", 1));
  PassTime(seconds(60));
  EXPECT_THAT(Refresh("u1", 1), IsEmpty());
  PassTime(seconds(60));
  EXPECT_EQ(Get("u1").status, STATUS_ONLINE);
  PassTime(seconds(4));
  EXPECT_EQ(Get("u1").status, STATUS_OFFLINE);
}

TEST_P(StoreContract, SilenceBeforeTheWriteCounts) {
  BecomeLoud();
  PresenceWrite write = Device("u1", 1);
  write.silent_for = seconds(60);
  Write(write);
  PassTime(seconds(3));
  EXPECT_EQ(Get("u1").status, STATUS_OFFLINE);
}

TEST_P(StoreContract, OneDeviceExpiresAndTheOtherDecides) {
  BecomeLoud();
  Write(Device("u1", 1, STATUS_ONLINE));
  PassTime(seconds(30));
  Write(Device("u1", 2, STATUS_AWAY));
  PassTime(seconds(34));
  EXPECT_EQ(Get("u1").status, STATUS_AWAY);
  EXPECT_THAT(HeardChanges(), ElementsAre("u1 online", "u1 away"));
}

TEST_P(StoreContract, AWriteDropsWhatHasExpired) {
  BecomeLoud();
  Write(Device("u1", 1));
  PassTime(seconds(61));
  backend_->Advance(seconds(2));
  EXPECT_EQ(Write(Device("u1", 2, STATUS_AWAY)).user_status, STATUS_AWAY);
}

// A host with thousands of clients dies.
TEST_P(StoreContract, ASweepGoesOnUntilEverybodyIsOfflineAndLetsOthersIn) {
  BecomeLoud();
  for (uint64_t i = 0; i < 1000; ++i) backend_->store().Write(Device("u" + std::to_string(i), i));
  backend_->Settle();
  HeardChanges();
  PassTime(seconds(62));
  backend_->Advance(seconds(1));
  backend_->store().Sweep(100);
  link::v1::BusEnvelope other;
  other.mutable_presence_changed()->set_user_id("of another call");
  backend_->store().Publish(++last_id_, other, {});
  backend_->Settle(/*rounds=*/12);
  const std::vector<std::string> heard = HeardChanges();
  EXPECT_THAT(heard, SizeIs(1001));
  EXPECT_THAT(heard[100], testing::StartsWith("of another call"));
  EXPECT_THAT(List("", 10).users, IsEmpty());
  EXPECT_FALSE(backend_->Dump().contains("presence.deadlines"));
}

TEST_P(StoreContract, ASweepOfNobodyEndsNobody) {
  BecomeLoud();
  Write(Device("u1", 1));
  PassTime(seconds(62));
  backend_->Advance(seconds(1));
  Sweep(/*users_max=*/0);
  EXPECT_EQ(Get("u1").status, STATUS_ONLINE);
}

TEST_P(StoreContract, APingMovesLastSeenAndOtherFramesDoNot) {
  Write(Device("u1", 1));
  const int64_t start_ms = ToUnixMillis(backend_->now());
  backend_->Advance(seconds(10));
  Refresh("u1", 1);
  EXPECT_EQ(Get("u1").last_seen_ms, start_ms);
  Refresh("u1", 1, /*pinged=*/true);
  EXPECT_EQ(Get("u1").last_seen_ms, start_ms + 10'000);
}

TEST_P(StoreContract, ARefreshRestoresTheTtlAndALostEntry) {
  Write(Device("u1", 1));
  EXPECT_EQ(backend_->PresenceTtl("u1"), 300);
  backend_->SetPresenceText("u1", "{}");  // takes the TTL away
  EXPECT_EQ(backend_->PresenceTtl("u1"), std::nullopt);
  Refresh("u1", 1);
  EXPECT_EQ(backend_->PresenceTtl("u1"), 300);
  Refresh("u1", 1, /*pinged=*/true);
  EXPECT_EQ(Get("u1").status, STATUS_ONLINE);
}

// ---------------------------------------------------------------------------------------------------------- versions

TEST_P(StoreContract, VersionsOnlyGrowWhateverTheClockDoes) {
  const uint64_t online = Write(Device("u1", 1)).user_version;
  backend_->Advance(seconds(-100));
  const uint64_t away = Write(Device("u1", 1, STATUS_AWAY)).user_version;
  EXPECT_EQ(away, online + 1);
  backend_->Advance(seconds(200));
  EXPECT_EQ(Write(Device("u1", 1)).user_version, NowMicroseconds());
}

TEST_P(StoreContract, TheHashOfAGoneUserEndsAndVersionsStillGrow) {
  Write(Device("u1", 1));
  EXPECT_THAT(backend_->Dump()["presence.user:u1"], testing::StartsWith("hash immortal"));
  const uint64_t offline = Write(Gone("u1", 1)).user_version;
  EXPECT_THAT(backend_->Dump()["presence.user:u1"], testing::StartsWith("hash mortal"));
  Write(Device("u1", 2));
  EXPECT_THAT(backend_->Dump()["presence.user:u1"], testing::StartsWith("hash immortal"));
  Write(Gone("u1", 2));
  backend_->Advance(minutes(11));
  backend_->Drop({"presence.user:u1", "presence:u1"});  // what Redis' own clock would do
  EXPECT_GT(Write(Device("u1", 1)).user_version, offline);
  EXPECT_THAT(backend_->Dump()["presence.user:u1"], testing::StartsWith("hash immortal"));
}

// ------------------------------------------------------------------------------------------------------------- rooms

TEST_P(StoreContract, AChangeCarriesTheRoomsBeforeAndAfter) {
  const std::vector<std::string_view> a{"a", "c"}, b{"c", "b"};
  PresenceWrite write = Device("u1", 1);
  write.room_ids = a;
  Write(write);
  write = Device("u1", 1, STATUS_AWAY);
  write.room_ids = b;
  Write(write);
  Write(Gone("u1", 1));
  EXPECT_THAT(HeardChanges(), ElementsAre("u1 online a c", "u1 away a b c", "u1 offline b c"));
}

TEST_P(StoreContract, AJoinIsToldToTheJoinedRoomsAlone) {
  const std::vector<std::string_view> before{"a"}, after{"a", "b", "c"};
  PresenceWrite write = Device("u1", 1);
  write.room_ids = before;
  const uint64_t version = Write(write).user_version;
  backend_->Advance(seconds(1));
  write.room_ids = after;
  EXPECT_EQ(Write(write).user_version, version);
  EXPECT_THAT(HeardChanges(), ElementsAre("u1 online a", "u1 online b c"));
  EXPECT_EQ(last_heard_.version(), version);
  EXPECT_THAT(backend_->heard(1).updates, SizeIs(1)) << "a join is no change for outsiders";
  write.room_ids = before;  // leaving is nobody's news
  Write(write);
  EXPECT_THAT(HeardChanges(), IsEmpty());
}

// ------------------------------------------------------------------------------------------------------------- quiet

TEST_P(StoreContract, AfterAGapNobodyExpiresForFifteenSeconds) {
  BecomeLoud();
  Write(Device("u1", 1));
  backend_->Advance(seconds(100));  // every core, or Redis, was away
  PassTime(milliseconds(14'900));
  EXPECT_EQ(Get("u1").status, STATUS_ONLINE);
  PassTime(milliseconds(100));
  EXPECT_EQ(Get("u1").status, STATUS_OFFLINE);
}

TEST_P(StoreContract, AfterAGapNoWriteExpiresOtherDevicesEvenBeforeTheFirstSweep) {
  BecomeLoud();
  Write(Device("u1", 1));
  backend_->Advance(seconds(100));
  EXPECT_EQ(Write(Device("u1", 2, STATUS_AWAY)).user_status, STATUS_ONLINE);
  EXPECT_THAT(Refresh("u1", 1), IsEmpty());
}

TEST_P(StoreContract, AnotherRunOfRedisIsQuietToo) {
  BecomeLoud();
  Write(Device("u1", 1));
  PassTime(seconds(62));
  backend_->Restart();
  PassTime(seconds(14));
  EXPECT_EQ(Get("u1").status, STATUS_ONLINE);
  PassTime(seconds(1));
  EXPECT_EQ(Get("u1").status, STATUS_OFFLINE);
}

TEST_P(StoreContract, AReassertRestoresWhatWasLostWithoutNews) {
  BecomeLoud();
  const uint64_t version = Write(Device("u1", 1)).user_version;
  HeardChanges();
  backend_->Wipe();
  backend_->Advance(seconds(1));
  const WriteResult result = Write(Again("u1", 1, STATUS_ONLINE, STATUS_ONLINE, version));
  EXPECT_EQ(result.user_status, STATUS_ONLINE);
  EXPECT_EQ(result.user_version, version);
  EXPECT_THAT(HeardChanges(), IsEmpty());
  EXPECT_EQ(Get("u1").version, version);
  EXPECT_THAT(List("", 10).users, SizeIs(1));
}

TEST_P(StoreContract, WhileQuietAReassertHoldsTheStatusAndTheFirstSweepAfterwardsJudgesAgain) {
  BecomeLoud();
  Write(Device("u1", 1));
  const uint64_t version = Write(Device("u1", 2, STATUS_AWAY)).user_version;
  HeardChanges();
  backend_->Wipe();
  PassTime(seconds(1));
  // Device 1 is at another core, which has not come back yet.
  WriteResult result = Write(Again("u1", 2, STATUS_AWAY, STATUS_ONLINE, version));
  EXPECT_EQ(result.user_status, STATUS_ONLINE);
  EXPECT_EQ(result.user_version, version);
  EXPECT_EQ(Get("u1").status, STATUS_ONLINE);
  EXPECT_EQ(Write(Device("u1", 2, STATUS_AWAY)).user_status, STATUS_ONLINE) << "the hold is not the writer's alone";
  PassTime(seconds(13));
  EXPECT_THAT(HeardChanges(), IsEmpty());
  PassTime(seconds(1));
  EXPECT_THAT(HeardChanges(), ElementsAre("u1 away"));
  EXPECT_EQ(Get("u1").status, STATUS_AWAY);
  EXPECT_GT(last_heard_.version(), version);
}

TEST_P(StoreContract, AHeldStatusThatIsReachedIsHeldNoLonger) {
  const uint64_t version = NowMicroseconds();
  Write(Again("u1", 2, STATUS_AWAY, STATUS_ONLINE, version));
  Write(Again("u1", 1, STATUS_ONLINE, STATUS_ONLINE, version));
  EXPECT_THAT(HeardChanges(), IsEmpty());
  EXPECT_EQ(Write(Device("u1", 1, STATUS_AWAY)).user_status, STATUS_AWAY);
}

TEST_P(StoreContract, WhenNotQuietAReassertIsBelieved) {
  BecomeLoud();
  const WriteResult result = Write(Again("u1", 1, STATUS_AWAY, STATUS_ONLINE, 1'000));
  EXPECT_EQ(result.user_status, STATUS_AWAY);
  EXPECT_THAT(HeardChanges(), ElementsAre("u1 away"));
}

// ------------------------------------------------------------------------------------------------------- change log

TEST_P(StoreContract, TheChangeLogNamesEachUsersLastChange) {
  BecomeLoud();
  backend_->Advance(seconds(1));
  const std::vector<std::string_view> rooms{"r2", "r1"};
  Write(Device("early", 1));
  backend_->Advance(seconds(1));
  const uint64_t since = NowMicroseconds();
  PresenceWrite write = Device("u1", 2);
  write.room_ids = rooms;
  Write(write);
  Write(Device("u2", 3));
  backend_->Advance(seconds(1));
  const WriteResult offline = Write(Gone("u2", 3));

  const ChangeLog log = Changes(since);
  EXPECT_TRUE(log.complete);
  ASSERT_THAT(log.changes, SizeIs(2));
  EXPECT_EQ(log.changes[0].presence.user_id, "u1");
  EXPECT_EQ(log.changes[0].presence.status, STATUS_ONLINE);
  EXPECT_EQ(log.changes[0].presence.username, "Some Body");
  EXPECT_EQ(log.changes[0].presence.version, since);
  EXPECT_THAT(log.changes[0].room_ids, ElementsAre("r1", "r2"));
  EXPECT_EQ(log.changes[1].presence.user_id, "u2");
  EXPECT_EQ(log.changes[1].presence.status, STATUS_OFFLINE);
  EXPECT_EQ(log.changes[1].presence.version, offline.user_version);
  EXPECT_EQ(log.changes[1].changed_ms, ToUnixMillis(backend_->now()));
}

TEST_P(StoreContract, ALogThatIsTooYoungOrTooShortGivesWhomItNamesAndEverybodyElse) {
  Write(Device("early", 3));
  Write(Gone("early", 3));
  Write(Device("u1", 1));
  backend_->Advance(seconds(1));
  // Nobody has swept yet: what the log held before is unknown.
  const auto users = [&](const ChangeLog& log) {
    EXPECT_FALSE(log.complete);
    std::vector<std::string> lines;
    for (const StoredChange& change : log.changes) {
      lines.push_back(change.presence.user_id + " " + std::string(StatusName(change.presence.status)));
    }
    return lines;
  };
  EXPECT_THAT(users(Changes(NowMicroseconds())), ElementsAre("u1 online"));
  const uint64_t since_u2 = NowMicroseconds();
  Write(Device("u2", 2));
  const uint64_t version = Write(Gone("u2", 2)).user_version;
  EXPECT_THAT(users(Changes(since_u2)), ElementsAre("u2 offline", "u1 online"));
  EXPECT_EQ(Changes(since_u2).changes[0].presence.version, version);
  EXPECT_THAT(users(Changes(0)), ElementsAre("u1 online", "early offline", "u2 offline")) << "each user once";
  PassTime(seconds(30));
  const uint64_t since = NowMicroseconds();
  EXPECT_TRUE(Changes(since).complete);
  EXPECT_FALSE(Changes(since - 31'000'000).complete) << "from before the first sweep";
  backend_->Advance(minutes(10));
  EXPECT_TRUE(Changes(since).complete);
  backend_->Advance(milliseconds(1));
  EXPECT_FALSE(Changes(since).complete);
}

TEST_P(StoreContract, TheSweepTrimsTheLog) {
  Sweep();
  Write(Device("u1", 1));
  backend_->Advance(minutes(10));
  Sweep();
  EXPECT_TRUE(backend_->Dump().contains("presence.changes"));
  backend_->Advance(milliseconds(1));
  Sweep();
  EXPECT_FALSE(backend_->Dump().contains("presence.changes"));
}

// ------------------------------------------------------------------------------------------------- reads and odd ids

TEST_P(StoreContract, PagesCoverEverybodyOnceInByteOrder) {
  std::vector<std::string> expected;
  for (uint64_t i = 0; i < 150; ++i) {
    const std::string user = (i % 3 == 0 ? "Z" : "a") + std::to_string(i * 7919 % 1000);
    expected.push_back(user);
    PresenceWrite write = Device(user, i, i % 2 == 0 ? STATUS_ONLINE : STATUS_AWAY);
    write.id = i;
    backend_->store().Write(write);
  }
  Write(Device("gone", 900));
  Write(Gone("gone", 900));
  std::sort(expected.begin(), expected.end());
  for (const uint32_t limit : {1u, 7u, 75u, 149u, 150u, 10'000u}) {
    std::vector<std::string> seen;
    for (bool more = true; more;) {
      const PresencePage page = List(seen.empty() ? "" : seen.back(), limit);
      ASSERT_LE(page.users.size(), limit);
      ASSERT_FALSE(page.users.empty());
      for (const StoredPresence& user : page.users) seen.push_back(user.user_id);
      more = page.more;
    }
    EXPECT_EQ(seen, expected) << "limit " << limit;
  }
}

TEST_P(StoreContract, ACorruptEntryReadsAsOffline) {
  for (uint64_t i = 0; i < 9; ++i) Write(Device("u" + std::to_string(i), i));
  backend_->SetPresenceText("u1", "not JSON");
  backend_->SetPresenceText("u2", "[1,2");
  backend_->SetPresenceText("u3", "{\"status\":17}");
  backend_->SetPresenceText("u4", "{\"status\":\"dancing\"}");
  backend_->SetPresenceText("u5", "\xff\xfe{\"status\":\"online\"}");
  backend_->SetPresenceText("u6", "");
  for (const char* user : {"u1", "u2", "u3", "u4", "u5", "u6", "nobody"}) {
    EXPECT_EQ(Get(user).status, STATUS_OFFLINE) << user;
    EXPECT_EQ(Get(user).user_id, user);
  }
  const PresencePage page = List("", 2);
  ASSERT_THAT(page.users, SizeIs(2));
  EXPECT_EQ(page.users[0].user_id, "u0");
  EXPECT_EQ(page.users[1].user_id, "u7");
  EXPECT_TRUE(page.more);
}

TEST_P(StoreContract, AnotherServicesEntryIsRead) {
  backend_->SetPresenceText(
      "u1", R"({"extra":[1],"status":"away","username":"Bob","last_seen":"2025-01-14T12:00:00.250000"})");
  const StoredPresence presence = Get("u1");
  EXPECT_EQ(presence.status, STATUS_AWAY);
  EXPECT_EQ(presence.username, "Bob");
  EXPECT_EQ(presence.last_seen_ms, 1'736'856'000'250);
  EXPECT_EQ(presence.version, 0u);
}

TEST_P(StoreContract, IdsAreBytes) {
  BecomeLoud();
  const std::vector<std::string> ids{"with space",           "a:b:c",    "*",    "[a-z]?", "line\nbreak",
                                     "quote\"back\\slash",   "\x01\x1f", "%s%d", "ünï",    "{}",
                                     std::string(2048, 'x'), "-",        "(",    "+",      "conn-1"};
  for (size_t i = 0; i < ids.size(); ++i) {
    PresenceWrite write = Device(ids[i], i);
    write.username = ids[i];
    const std::vector<std::string_view> rooms{ids[i]};
    write.room_ids = rooms;
    EXPECT_EQ(Write(write).user_status, STATUS_ONLINE);
    HeardChanges();
    EXPECT_EQ(last_heard_.user_id(), ids[i]);
    EXPECT_EQ(last_heard_.username(), ids[i]);
    EXPECT_THAT(last_heard_.room_ids(), ElementsAre(ids[i]));
    EXPECT_EQ(Get(ids[i]).status, STATUS_ONLINE);
    EXPECT_EQ(Get(ids[i]).username, ids[i]);
  }
  EXPECT_THAT(List("", 100).users, SizeIs(ids.size()));
  PassTime(seconds(63));
  for (const std::string& id : ids) EXPECT_EQ(Get(id).status, STATUS_OFFLINE) << id;
  EXPECT_EQ(backend_->heard(1).updates.size(), 2 * ids.size());
}

TEST_P(StoreContract, NoCompanionKeyLooksLikeAPresenceEntry) {
  Write(Device("u1", 1));
  Sweep();
  std::vector<std::string> keys;
  for (const auto& [key, value] : backend_->Dump()) {
    if (key.starts_with("presence:")) keys.push_back(key);
  }
  EXPECT_THAT(keys, ElementsAre("presence:u1"));
}

// ------------------------------------------------------------------------------------------------------- bus and
// rest

TEST_P(StoreContract, EveryCoreHearsTheBusInOneOrder) {
  link::v1::BusEnvelope envelope;
  for (uint64_t i = 1; i <= 20; ++i) {
    envelope.set_core(i % 2);
    envelope.set_sequence(i);
    envelope.mutable_message()->set_room_id("r");
    backend_->store(static_cast<int>(i % 2)).Publish(i, envelope, i == 4 ? "{\"room_id\":\"r\"}" : "");
  }
  backend_->Settle();
  ASSERT_THAT(backend_->heard(0).bus, SizeIs(20));
  for (size_t i = 0; i < 20; ++i) {
    EXPECT_EQ(backend_->heard(0).bus[i].SerializeAsString(), backend_->heard(1).bus[i].SerializeAsString());
  }
  EXPECT_TRUE(backend_->heard(0).published.at(2));
  EXPECT_THAT(backend_->heard(1).messages, ElementsAre("{\"room_id\":\"r\"}"));
}

TEST_P(StoreContract, OutsidersAreHeardByteForByte) {
  backend_->PublishOutside("message:broadcast", "not even JSON \xff");
  backend_->PublishOutside("presence:updates", "{\"type\" : \"presence\"}");
  backend_->Settle();
  EXPECT_THAT(backend_->heard(1).messages, ElementsAre("not even JSON \xff"));
  EXPECT_THAT(backend_->heard(1).updates, ElementsAre("{\"type\" : \"presence\"}"));
}

TEST_P(StoreContract, AnswersComeInTheOrderOfTheCalls) {
  PresenceWrite write = Device("u1", 1);
  const std::vector<RefreshEntry> entries(600, RefreshEntry{{kEdge, 1}, 5, "u1", false});
  for (uint64_t id = 0; id < 30; id += 3) {
    write.id = id;
    backend_->store().Write(write);
    backend_->store().Refresh(id + 1, entries);
    backend_->store().Publish(id + 2, {}, "");
  }
  EXPECT_THAT(backend_->heard().answers, IsEmpty()) << "answered from inside the call";
  backend_->Settle();
  ASSERT_THAT(backend_->heard().answers, SizeIs(30));
  EXPECT_TRUE(std::is_sorted(backend_->heard().answers.begin(), backend_->heard().answers.end()));
}

TEST_P(StoreContract, TypingIsThePlainUsername) {
  backend_->store().SetTyping("channel_general", "u:1", "Some \"Body\"");
  backend_->Settle();
  EXPECT_EQ(backend_->Dump()["typing:channel_general:u:1"], "string mortal\n=Some \"Body\"");
}

TEST_P(StoreContract, AStoreComesUpOnce) {
  EXPECT_EQ(backend_->heard().ups, 1);
  EXPECT_TRUE(backend_->heard().lost_state) << "there was no sweep key";
  EXPECT_EQ(backend_->heard().downs, 0);
}

}  // namespace
}  // namespace presence::core
