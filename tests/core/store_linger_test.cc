// The store contract: entries that linger, since their clients are on the way to another edge.
#include "tests/core/store_contract.h"

namespace presence::core {
namespace {

constexpr uint64_t kOtherEdge = 0xE0000000000000BBULL;

class StoreLinger : public StoreContract {
 protected:
  void SetUp() override {
    StoreContract::SetUp();
    if (HasFatalFailure()) return;
    StoreOptions options;
    options.core_incarnation = kFirstCore;
    options.connections_per_user_max = 2;
    backend_ = StoreBackend::Create(GetParam(), options, /*cores=*/2);
    BecomeLoud();
  }

  static PresenceWrite SentAway(std::string_view user, uint64_t device, milliseconds linger_for) {
    PresenceWrite write = Device(user, device);
    write.kind = Kind::kLinger;
    write.linger_for = linger_for;
    return write;
  }
  static PresenceWrite Newcomer(std::string_view user, uint64_t device, Status status = STATUS_ONLINE) {
    PresenceWrite write = Device(user, device, status);
    write.key.incarnation = kOtherEdge;
    write.newcomer = true;
    return write;
  }
  static PresenceWrite GoneAgain(std::string_view user, uint64_t device) {
    PresenceWrite write = Newcomer(user, device);
    write.kind = Kind::kRemove;
    write.newcomer = false;
    return write;
  }
};

INSTANTIATE_TEST_SUITE_P(Stores, StoreLinger, testing::Values(BackendKind::kMemory, BackendKind::kRedis), BackendName);

TEST_P(StoreLinger, NobodySeesTheUserLeaveUntilTheTimeIsOver) {
  Write(Device("u1", 1, STATUS_AWAY));
  HeardChanges();
  const WriteResult result = Write(SentAway("u1", 1, seconds(10)));
  EXPECT_EQ(result.outcome, Outcome::kApplied);
  EXPECT_EQ(result.user_status, STATUS_AWAY) << "as it was";
  PassTime(seconds(9));
  EXPECT_THAT(HeardChanges(), IsEmpty());
  EXPECT_EQ(Get("u1").status, STATUS_AWAY);
  PassTime(seconds(2));
  EXPECT_THAT(HeardChanges(), ElementsAre("u1 offline"));
  EXPECT_EQ(Get("u1").status, STATUS_OFFLINE);
}

TEST_P(StoreLinger, WhoIsBackIsNeverSeenToLeave) {
  Write(Device("u1", 1));
  HeardChanges();
  Write(SentAway("u1", 1, seconds(10)));
  backend_->Advance(milliseconds(500));
  EXPECT_EQ(Write(Newcomer("u1", 1), /*core=*/1).outcome, Outcome::kApplied);
  backend_->Advance(seconds(12));
  EXPECT_TRUE(Refresh({{{kOtherEdge, 1}, 5, "u1", false}}).empty());
  PassTime(seconds(40));
  EXPECT_THAT(HeardChanges(), IsEmpty());
}

// Else everybody who is back for a moment would be present until the time is over.
TEST_P(StoreLinger, TheTimeEndsWhenTheUserIsBack) {
  Write(Device("u1", 1));
  Write(SentAway("u1", 1, seconds(30)));
  Write(Newcomer("u1", 1));
  HeardChanges();
  EXPECT_EQ(Write(GoneAgain("u1", 1)).user_status, STATUS_OFFLINE);
  EXPECT_THAT(HeardChanges(), ElementsAre("u1 offline"));
}

TEST_P(StoreLinger, EachDeviceThatIsBackTakesOnePlaceTheLeastPresentFirst) {
  Write(Device("u1", 1, STATUS_ONLINE));
  Write(Device("u1", 2, STATUS_AWAY));
  for (const uint64_t device : {1, 2}) Write(SentAway("u1", device, seconds(30)));
  HeardChanges();
  Write(Newcomer("u1", 7));
  PresenceWrite away = Newcomer("u1", 7, STATUS_AWAY);
  away.newcomer = false;
  EXPECT_EQ(Write(away).user_status, STATUS_ONLINE) << "the other one is still on the way";
  EXPECT_EQ(Write(Newcomer("u1", 8)).user_status, STATUS_ONLINE);
  EXPECT_THAT(HeardChanges(), IsEmpty());
  EXPECT_EQ(Write(GoneAgain("u1", 8)).user_status, STATUS_AWAY) << "nobody is on the way any more";
}

TEST_P(StoreLinger, ARepeatedNewcomerTakesNoSecondPlace) {
  for (const uint64_t device : {1, 2}) Write(Device("u1", device));
  for (const uint64_t device : {1, 2}) Write(SentAway("u1", device, seconds(30)));
  Write(Newcomer("u1", 7));
  Write(Newcomer("u1", 7));  // its answer was lost
  EXPECT_EQ(Write(GoneAgain("u1", 7)).user_status, STATUS_ONLINE);
}

TEST_P(StoreLinger, TheLimitDoesNotCountWhoIsOnTheWay) {
  for (const uint64_t device : {1, 2}) Write(Device("u1", device));
  for (const uint64_t device : {1, 2}) Write(SentAway("u1", device, seconds(30)));
  EXPECT_EQ(Write(Newcomer("u1", 7)).outcome, Outcome::kApplied);
  EXPECT_EQ(Write(Newcomer("u1", 8)).outcome, Outcome::kApplied);
  EXPECT_EQ(Write(Newcomer("u1", 9)).outcome, Outcome::kTooMany);
}

TEST_P(StoreLinger, ItIsClosedForItsOwnAttachAndForRefreshes) {
  Write(Device("u1", 1));
  Write(SentAway("u1", 1, seconds(10)));
  EXPECT_EQ(Write(Device("u1", 1)).outcome, Outcome::kFenced) << "late";
  EXPECT_EQ(Write(Again("u1", 1, STATUS_ONLINE, STATUS_ONLINE, 1)).outcome, Outcome::kFenced);
  EXPECT_THAT(Refresh("u1", 1), ElementsAre(0));
  PresenceWrite lower = SentAway("u1", 1, seconds(30));
  lower.attach = 4;
  EXPECT_EQ(Write(lower).outcome, Outcome::kFenced);
  PassTime(seconds(11));
  EXPECT_EQ(Get("u1").status, STATUS_OFFLINE);
}

TEST_P(StoreLinger, ARemovalEndsItAndIsNotUndoneByARepetition) {
  Write(Device("u1", 1));
  Write(SentAway("u1", 1, seconds(10)));
  EXPECT_EQ(Write(Gone("u1", 1)).user_status, STATUS_OFFLINE);
  EXPECT_EQ(Write(SentAway("u1", 1, seconds(10))).user_status, STATUS_OFFLINE);
  EXPECT_EQ(Write(Device("u1", 1)).outcome, Outcome::kFenced) << "there is a tombstone";
}

TEST_P(StoreLinger, NothingLingersThatIsNotThere) {
  EXPECT_EQ(Write(SentAway("u1", 1, seconds(10))).user_status, STATUS_OFFLINE);
  EXPECT_EQ(Write(Device("u1", 1)).outcome, Outcome::kFenced) << "there is a tombstone";
  PresenceWrite silent = Device("u2", 1);
  silent.silent_for = seconds(62);  // of 63
  Write(silent);
  backend_->Advance(seconds(2));
  EXPECT_EQ(Write(SentAway("u2", 1, seconds(10))).user_status, STATUS_OFFLINE) << "it has expired";
}

TEST_P(StoreLinger, TheRoomsHearOfTheEnd) {
  const std::string_view rooms[] = {"a", "b"};
  PresenceWrite write = Device("u1", 1);
  write.room_ids = rooms;
  Write(write);
  HeardChanges();
  Write(SentAway("u1", 1, seconds(10)));
  Write(SentAway("u1", 1, seconds(5)));  // repeated
  EXPECT_THAT(HeardChanges(), IsEmpty());
  PassTime(seconds(6));
  EXPECT_THAT(HeardChanges(), ElementsAre("u1 offline a b"));
}

TEST_P(StoreLinger, AStoreThatHasLostEverythingCallsNobodyOfflineMeanwhile) {
  backend_->Wipe();
  PresenceWrite repeated = SentAway("u1", 1, seconds(10));
  repeated.previous_status = STATUS_ONLINE;
  repeated.previous_version = NowMicroseconds();
  EXPECT_EQ(Write(repeated).user_status, STATUS_ONLINE);
  EXPECT_THAT(HeardChanges(), IsEmpty());
  PassTime(seconds(17));
  EXPECT_THAT(HeardChanges(), ElementsAre("u1 offline"));
}

}  // namespace
}  // namespace presence::core
