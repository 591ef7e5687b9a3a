// The store contract: what a transition does to the status of a user, and which ones are fenced.
#include "tests/core/store_contract.h"

namespace presence::core {
namespace {

INSTANTIATE_TEST_SUITE_P(Stores, StoreContract, testing::Values(BackendKind::kMemory, BackendKind::kRedis),
                         BackendName);

// ------------------------------------------------------------------------------------------ status of a user

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

// ------------------------------------------------------------------------------------------------- the fence

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

// A failover to a replica that lags has lost the user's last change, which was published.
TEST_P(StoreContract, WhatACallerKnowsOfALaterVersionGoesBeforeWhatTheStoreHas) {
  const uint64_t stored = Write(Device("u1", 1)).user_version;
  HeardChanges();
  PresenceWrite other = Device("u1", 2);
  other.kind = PresenceWrite::Kind::kReassert;
  other.previous_status = STATUS_OFFLINE;
  other.previous_version = stored + 1'000'000;
  EXPECT_EQ(Write(other).user_status, STATUS_ONLINE);
  EXPECT_THAT(HeardChanges(), ElementsAre("u1 online")) << "watchers were told offline";

  PresenceWrite gone = Gone("u1", 1);
  Write(gone);
  HeardChanges();
  gone = Gone("u1", 2);
  gone.previous_status = STATUS_OFFLINE;
  gone.previous_version = stored + 9'000'000;
  EXPECT_EQ(Write(gone).user_version, gone.previous_version);
  EXPECT_THAT(HeardChanges(), IsEmpty()) << "they were told that, too";
  EXPECT_THAT(backend_->Dump()["presence:u1"], HasSubstr("offline"));
}

// -------------------------------------------------------------------------------------------------- versions

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

// ----------------------------------------------------------------------------------------------------- rooms

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

}  // namespace
}  // namespace presence::core
