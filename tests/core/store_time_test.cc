// The store contract: what time does, and what keeps it from doing it: refreshes, sweeps, quiet.
#include "tests/core/store_contract.h"

namespace presence::core {
namespace {

// -------------------------------------------------------------------------------------- refreshes and sweeps

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
  EXPECT_EQ(backend_->Ttl("presence:u1"), 300);
  backend_->SetPresenceText("u1", "{}");  // takes the TTL away
  EXPECT_EQ(backend_->Ttl("presence:u1"), std::nullopt);
  Refresh("u1", 1);
  EXPECT_EQ(backend_->Ttl("presence:u1"), 300);
  Refresh("u1", 1, /*pinged=*/true);
  EXPECT_EQ(Get("u1").status, STATUS_ONLINE);
}

// ----------------------------------------------------------------------------------------------------- quiet

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

}  // namespace
}  // namespace presence::core
