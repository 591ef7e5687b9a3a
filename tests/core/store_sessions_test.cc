// The store contract: logouts and the tokens that they void, and how many connections a user may have.
#include "core/logout_name.h"
#include "tests/core/store_contract.h"

namespace presence::core {
namespace {

constexpr int64_t kLoginMs = 1'736'856'000'000;  // when the test's clock starts

class StoreSessions : public StoreContract {
 protected:
  void SetUp() override {
    StoreContract::SetUp();
    if (HasFatalFailure()) return;
    StoreOptions options;
    options.core_incarnation = kFirstCore;
    options.connections_per_user_max = 2;
    options.logout_lifetime = seconds(1000);
    backend_ = StoreBackend::Create(GetParam(), options, /*cores=*/2);
  }

  bool LogOut(std::string_view user, std::string_view session, int64_t at_ms, int core = 0) {
    backend_->store(core).KeepLogout(++last_id_, {user, session, at_ms});
    backend_->Settle();
    return backend_->heard(core).logouts_kept.at(last_id_);
  }
  // "user:alice" and so on, and "not all" in front when that is so.
  std::vector<std::string> LogoutsWithin(milliseconds time) {
    backend_->store().ReadLogouts(time);
    backend_->Settle();
    std::vector<std::string> names;
    const absl::StatusOr<LogoutLog> log = backend_->heard().logouts.back();
    if (!log->complete) names.emplace_back("not all");
    for (const StoredLogout& logout : log->logouts) names.push_back(LogoutName({logout.user_id, logout.session_id}));
    return names;
  }

  static PresenceWrite With(PresenceWrite write, std::string_view session, int64_t issued_at_ms) {
    write.session_id = session;
    write.issued_at_ms = issued_at_ms;
    return write;
  }
  static PresenceWrite Newcomer(std::string_view user, uint64_t device) {
    PresenceWrite write = Device(user, device);
    write.newcomer = true;
    return write;
  }
};

INSTANTIATE_TEST_SUITE_P(Stores, StoreSessions, testing::Values(BackendKind::kMemory, BackendKind::kRedis),
                         BackendName);

// ------------------------------------------------------------------------------------------------------------ logouts

TEST_P(StoreSessions, ATokenOfBeforeALogoutIsVoidAndALaterOneIsNot) {
  ASSERT_TRUE(LogOut("u1", "", kLoginMs + 5'000));
  for (const int64_t issued : {int64_t{0}, kLoginMs, kLoginMs + 5'000}) {
    EXPECT_EQ(Write(With(Device("u1", 1), "s1", issued), /*core=*/1).outcome, Outcome::kRevoked) << issued;
  }
  EXPECT_EQ(Write(With(Device("u1", 1), "s1", kLoginMs + 6'000)).outcome, Outcome::kApplied);
  EXPECT_EQ(Write(With(Device("u2", 1), "s1", kLoginMs)).outcome, Outcome::kApplied) << "somebody else";
}

TEST_P(StoreSessions, AnIssueTimeInWholeSecondsIsNotLaterThanALogoutWithinThatSecond) {
  ASSERT_TRUE(LogOut("u1", "", kLoginMs + 700));
  EXPECT_EQ(Write(With(Device("u1", 1), "s1", kLoginMs)).outcome, Outcome::kRevoked);
  EXPECT_EQ(Write(With(Device("u1", 1), "s1", kLoginMs + 1'000)).outcome, Outcome::kApplied);
}

TEST_P(StoreSessions, ALogoutOfASessionLeavesTheOthers) {
  ASSERT_TRUE(LogOut("u1", "s1", kLoginMs));
  EXPECT_EQ(Write(With(Device("u1", 1), "s1", kLoginMs)).outcome, Outcome::kRevoked);
  EXPECT_EQ(Write(With(Device("u1", 2), "s2", kLoginMs)).outcome, Outcome::kApplied);
  EXPECT_EQ(Write(With(Device("u1", 3), "", kLoginMs)).outcome, Outcome::kApplied);
  EXPECT_EQ(Write(With(Device("s1", 3), "", kLoginMs)).outcome, Outcome::kApplied) << "a user of that name";
}

TEST_P(StoreSessions, WhoIsRefusedWasNeverThere) {
  ASSERT_TRUE(LogOut("u1", "", kLoginMs));
  const auto before = backend_->Dump();
  const WriteResult result = Write(With(Device("u1", 1), "s1", kLoginMs));
  EXPECT_EQ(result.outcome, Outcome::kRevoked);
  EXPECT_EQ(result.user_status, STATUS_OFFLINE);
  EXPECT_EQ(backend_->Dump(), before);
  EXPECT_THAT(HeardChanges(), IsEmpty());
}

TEST_P(StoreSessions, WhoWasThereIsTakenOut) {
  for (const Kind kind : {Kind::kAssert, Kind::kReassert}) {
    const std::string user = kind == Kind::kAssert ? "u1" : "u2", session = "of " + user;
    Write(With(Device(user, 1), session, kLoginMs));
    Write(With(Device(user, 2, STATUS_AWAY), "s2", kLoginMs));
    ASSERT_TRUE(LogOut("", session, kLoginMs));
    HeardChanges();
    PresenceWrite again = With(Device(user, 1), session, kLoginMs);
    again.kind = kind;
    const WriteResult result = Write(again);
    EXPECT_EQ(result.outcome, Outcome::kRevoked);
    EXPECT_EQ(result.user_status, STATUS_AWAY) << "as after a removal";
    EXPECT_THAT(HeardChanges(), ElementsAre(user + " away"));
    EXPECT_THAT(Refresh(user, 1), ElementsAre(0));
    EXPECT_EQ(Write(With(Device(user, 1), "s3", kLoginMs)).outcome, Outcome::kApplied) << "of a newer token";
  }
}

TEST_P(StoreSessions, AReassertOfWhatTheStoreHasLostIsToldAsAnEnd) {
  ASSERT_TRUE(LogOut("u1", "", kLoginMs));
  const uint64_t version = NowMicroseconds();
  const WriteResult result = Write(
      With(Again("u1", 1, STATUS_ONLINE, STATUS_ONLINE, version), "s1", kLoginMs - 1'000));  // in the quiet period
  EXPECT_EQ(result.outcome, Outcome::kRevoked);
  EXPECT_EQ(result.user_status, STATUS_OFFLINE) << "not held";
  EXPECT_THAT(HeardChanges(), ElementsAre("u1 offline"));
}

TEST_P(StoreSessions, ALowerAttachIsFencedNotRefused) {
  Write(With(Device("u1", 1), "s1", kLoginMs));
  ASSERT_TRUE(LogOut("u1", "", kLoginMs));
  PresenceWrite late = With(Device("u1", 1), "s1", kLoginMs);
  late.attach = 4;
  EXPECT_EQ(Write(late).outcome, Outcome::kFenced);
  EXPECT_EQ(Write(Gone("u1", 1)).outcome, Outcome::kApplied) << "a removal is never refused";
}

TEST_P(StoreSessions, TheLatestLogoutCounts) {
  ASSERT_TRUE(LogOut("u1", "", kLoginMs + 9'000));
  ASSERT_TRUE(LogOut("u1", "", kLoginMs + 1'000, /*core=*/1));
  EXPECT_EQ(Write(With(Device("u1", 1), "s1", kLoginMs + 9'000)).outcome, Outcome::kRevoked);
  ASSERT_TRUE(LogOut("u1", "", kLoginMs + 12'000));
  EXPECT_EQ(Write(With(Device("u1", 1), "s1", kLoginMs + 12'000)).outcome, Outcome::kRevoked);
}

TEST_P(StoreSessions, ALogoutIsKeptForItsLifetime) {
  ASSERT_TRUE(LogOut("u1", "", kLoginMs));
  ASSERT_TRUE(LogOut("u1", "s\"1 :", kLoginMs));
  EXPECT_EQ(backend_->Ttl("revoked:user:u1"), 1000);
  EXPECT_EQ(backend_->Ttl("revoked:session:s\"1 :"), 1000);
  EXPECT_EQ(backend_->Dump()["revoked:user:u1"], "string mortal\n=1736856000000");
}

TEST_P(StoreSessions, WhatWasKeptLatelyCanBeRead) {
  ASSERT_TRUE(LogOut("u1", "", kLoginMs));
  backend_->Advance(seconds(30));
  ASSERT_TRUE(LogOut("u1", "s1", kLoginMs, /*core=*/1));
  backend_->Advance(seconds(10));
  EXPECT_THAT(LogoutsWithin(seconds(9)), IsEmpty());
  EXPECT_THAT(LogoutsWithin(seconds(10)), ElementsAre("session:s1"));
  EXPECT_THAT(LogoutsWithin(seconds(60)), ElementsAre("user:u1", "session:s1"));
  EXPECT_THAT(LogoutsWithin(seconds(601)), ElementsAre("not all", "user:u1", "session:s1")) << "the log is 10 min long";
  ASSERT_TRUE(LogOut("u1", "", kLoginMs));  // repeated: it may be the order that was not heard
  EXPECT_THAT(LogoutsWithin(seconds(1)), ElementsAre("user:u1"));
  backend_->Advance(minutes(10));
  ASSERT_TRUE(LogOut("u2", "", kLoginMs));
  EXPECT_THAT(backend_->Dump()["presence.logouts"], testing::Not(HasSubstr("s1"))) << "it does not grow for ever";
}

// ---------------------------------------------------------------------------------------------------------- the limit

TEST_P(StoreSessions, OverTheLimitANewcomerIsRefusedAndNothingIsWritten) {
  Write(Newcomer("u1", 1));
  EXPECT_EQ(Write(Newcomer("u1", 2), /*core=*/1).outcome, Outcome::kApplied);
  const auto before = backend_->Dump();
  backend_->Advance(seconds(1));
  const WriteResult result = Write(Newcomer("u1", 3));
  EXPECT_EQ(result.outcome, Outcome::kTooMany);
  EXPECT_EQ(result.user_status, STATUS_ONLINE);
  EXPECT_EQ(backend_->Dump(), before);
  EXPECT_EQ(Write(Newcomer("u2", 1)).outcome, Outcome::kApplied) << "somebody else";
}

TEST_P(StoreSessions, NobodyWhoIsInIsThrownOut) {
  for (const uint64_t device : {1, 2, 3}) {
    EXPECT_EQ(Write(Device("u1", device)).outcome, Outcome::kApplied) << "was let in before";
  }
  EXPECT_EQ(Write(Newcomer("u1", 3)).outcome, Outcome::kApplied) << "repeated, since its answer was lost";
  EXPECT_EQ(Write(Again("u1", 4, STATUS_ONLINE, STATUS_ONLINE, 0)).outcome, Outcome::kApplied);
}

TEST_P(StoreSessions, TombstonesAndWhatHasExpiredDoNotCount) {
  BecomeLoud();
  PresenceWrite silent = Newcomer("u1", 1);
  silent.silent_for = seconds(62);  // of 63
  Write(silent);
  Write(Newcomer("u1", 2));
  Write(Gone("u1", 2));
  EXPECT_EQ(Write(Newcomer("u1", 3)).outcome, Outcome::kApplied);
  EXPECT_EQ(Write(Newcomer("u1", 4)).outcome, Outcome::kTooMany);
  backend_->Advance(seconds(2));  // nobody has swept yet
  EXPECT_EQ(Write(Newcomer("u1", 4)).outcome, Outcome::kApplied);
}

TEST_P(StoreSessions, WhileTheStoreIsQuietWhatIsSilentStillCounts) {
  Write(Newcomer("u1", 1));
  Write(Newcomer("u1", 2));
  backend_->Advance(seconds(64));
  EXPECT_EQ(Write(Newcomer("u1", 3)).outcome, Outcome::kTooMany);
}

}  // namespace
}  // namespace presence::core
