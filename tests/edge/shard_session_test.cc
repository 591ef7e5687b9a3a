// Stories about tokens: renewed over an open socket, ended by the clock, or shown by the first message only.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "edge/shard.h"
#include "tests/fakes/shard_stage.h"

namespace presence::edge {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Pair;
using ::testing::SizeIs;
using Outcome = TokenCheck::Outcome;
using Closed = RecordingShardOutput::Closed;

constexpr char kAuth[] = R"({"type":"auth","token":"a.b.c"})";
constexpr char kPong[] = R"({"type":"pong","timestamp":"2025-01-14T12:00:00Z"})";
constexpr char kSubscribe[] = R"({"type":"subscribe","channel_id":"general"})";

std::string ErrorFrame(const std::string& text, int code) {
  return R"({"type":"error","error":")" + text + R"(","code":)" + std::to_string(code) + "}";
}

class ShardSessionTest : public ::testing::Test, public ShardStage {
 protected:
  ShardSessionTest() : ShardSessionTest(Options()) {}
  explicit ShardSessionTest(ShardOptions options) : ShardStage(std::move(options)) {
    Attach();
    Forget();
  }
  // The last event with an origin, as "session@issued".
  static std::string Origin(const link::v1::TokenOrigin& token) {
    return token.session_id() + "@" + std::to_string(token.issued_at_ms());
  }
  void OpenWithSession(uint32_t slot, std::string_view user, std::string_view session, int64_t issued_at_ms) {
    generations.resize(slot + 1, 1);
    shard.OnConnectionOpened(now(), slot, 1, {user, "name", session, issued_at_ms, now().wall + token_life});
  }
};

// --- renewed

TEST_F(ShardSessionTest, TheCoreHearsWhereATokenComesFrom) {
  OpenWithSession(0, "alice", "session-1", 5000);
  ASSERT_THAT(output.events, SizeIs(1));
  EXPECT_EQ(Origin(output.events[0].connection_opened().token()), "session-1@5000");
}

TEST_F(ShardSessionTest, AGoodTokenOfTheSameUserReplacesTheOldOne) {
  OpenWithSession(0, "alice", "session-1", 5000);
  Forget();
  Text(0, kAuth);
  EXPECT_THAT(output.checks, ElementsAre(Pair(0u, "a.b.c")));
  EXPECT_THAT(Texts(0), IsEmpty()) << "nothing is said before the verdict";
  Checked(0, Outcome::kGood, "alice", "session-2", 6000);
  EXPECT_THAT(Texts(0), ElementsAre(R"({"type":"auth","status":"ok","expires_at":"2025-01-14T12:10:00Z"})"));
  ASSERT_THAT(output.events, SizeIs(1));
  EXPECT_EQ(Origin(output.events[0].token_renewed().token()), "session-2@6000");
  EXPECT_THAT(Events(), ElementsAre("renewed 0:session-2#2"));
  EXPECT_EQ(shard.counters().tokens_renewed, 1u);

  // The next core hears of the newest only.
  LinkDown();
  Attach();
  ASSERT_THAT(output.events, SizeIs(3));
  EXPECT_EQ(Origin(output.events[1].connection_declared().token()), "session-2@6000");
  EXPECT_THAT(Events(), ElementsAre("hello 2", "declared 0:alice online", "resync done"));
}

TEST_F(ShardSessionTest, WithoutALinkTheDeclarationSaysIt) {
  OpenWithSession(0, "alice", "session-1", 5000);
  LinkDown();
  Forget();
  Text(0, kAuth);
  Checked(0, Outcome::kGood, "alice", "session-2", 6000);
  EXPECT_THAT(Events(), IsEmpty());
  EXPECT_THAT(Texts(0), SizeIs(1));
  Attach();
  EXPECT_EQ(Origin(output.events[1].connection_declared().token()), "session-2@6000");
}

TEST_F(ShardSessionTest, ARefusedTokenChangesNothing) {
  OpenWithSession(0, "alice", "session-1", 5000);
  Forget();
  const std::vector<std::pair<Outcome, std::string>> refusals = {
      {Outcome::kExpired, ErrorFrame("token expired", 401)},
      {Outcome::kInvalid, ErrorFrame("token invalid", 401)},
      {Outcome::kUnavailable, ErrorFrame("Service unavailable", 503)}};
  for (const auto& [outcome, answer] : refusals) {
    Text(0, kAuth);
    Checked(0, outcome);
    EXPECT_THAT(Texts(0), ElementsAre(answer));
  }
  Text(0, kAuth);
  Checked(0, Outcome::kGood, "bob", "session-2", 6000);
  EXPECT_THAT(Texts(0), ElementsAre(ErrorFrame("token of another user", 401)));
  EXPECT_THAT(Events(), IsEmpty());
  EXPECT_THAT(output.closed, IsEmpty());
  EXPECT_EQ(shard.user_id(0), "alice");
  EXPECT_EQ(shard.counters().tokens_refused, 3u);
  LinkDown();
  Attach();
  EXPECT_EQ(Origin(output.events[1].connection_declared().token()), "session-1@5000");
}

TEST_F(ShardSessionTest, OneTokenIsCheckedAtATime) {
  Open(0, "alice");
  Forget();
  Text(0, kAuth);
  Text(0, kAuth);
  EXPECT_THAT(output.checks, SizeIs(1));
  EXPECT_THAT(Texts(0), ElementsAre(ErrorFrame("A token is being checked already", 429)));
  Checked(0, Outcome::kInvalid);
  Forget();
  Text(0, kAuth);
  EXPECT_THAT(output.checks, SizeIs(1));
  // Nobody asked for a second verdict.
  Checked(0, Outcome::kGood, "alice");
  Forget();
  Checked(0, Outcome::kGood, "alice");
  EXPECT_THAT(Texts(0), IsEmpty());
}

TEST_F(ShardSessionTest, AVerdictThatComesTooLateMeetsNobody) {
  Open(0, "alice");
  Text(0, kAuth);
  CloseConnection(0, 4401, "logged out");
  Forget();
  Checked(0, Outcome::kGood, "alice");
  Close(0);
  Checked(0, Outcome::kGood, "alice");
  const uint32_t old = 1;
  Open(0, "bob", 2);
  Text(0, kAuth);
  Forget();
  shard.OnTokenChecked(now(), 0, old, {Outcome::kGood, {"bob", "b", "", 0, now().wall}});
  shard.OnTokenChecked(now(), 77, old, {Outcome::kGood, {"bob", "b", "", 0, now().wall}});
  EXPECT_TRUE(output.sent.empty());
  EXPECT_THAT(Events(), IsEmpty());
}

TEST_F(ShardSessionTest, AnAuthWithoutATokenIsABadRequest) {
  Open(0, "alice");
  Forget();
  Text(0, R"({"type":"auth"})");
  Text(0, R"({"type":"auth","token":7})");
  EXPECT_THAT(Texts(0), ElementsAre(ErrorFrame("A token is required", 400), ErrorFrame("A token is required", 400)));
  EXPECT_THAT(output.checks, IsEmpty());
}

TEST_F(ShardSessionTest, NobodyIsClosedForATokenThatEndsUnlessAsked) {
  Open(0, "alice");
  for (int i = 0; i < 40; ++i) {
    AdvanceWithCore(seconds(30));
    Text(0, R"({"type":"ping"})");
  }
  EXPECT_THAT(output.closed, IsEmpty());
}

// --- ended

class ShardExpiryTest : public ShardSessionTest {
 protected:
  ShardExpiryTest() : ShardSessionTest(Closing()) {}
  static ShardOptions Closing() {
    ShardOptions options = Options();
    options.close_expired = true;
    options.heartbeat_interval = std::chrono::hours(10);
    return options;
  }
  static constexpr char kWarning[] = R"({"type":"token_expiring","expires_at":"2025-01-14T12:10:00Z"})";
};

TEST_F(ShardExpiryTest, AClientIsWarnedOnceAndThenClosed) {
  Open(0, "alice");
  Forget();
  AdvanceWithCore(seconds(539) + milliseconds(900));
  EXPECT_THAT(Texts(0), IsEmpty());
  AdvanceWithCore(milliseconds(100));
  EXPECT_THAT(Texts(0), ElementsAre(kWarning));
  Forget();
  AdvanceWithCore(seconds(89) + milliseconds(900));
  EXPECT_THAT(output.closed, IsEmpty()) << "for as long as the token would still open a connection";
  EXPECT_THAT(Texts(0), IsEmpty());
  AdvanceWithCore(milliseconds(100));
  EXPECT_THAT(output.TakeClosed(), ElementsAre(Closed{0, 4401, "token expired"}));
  EXPECT_EQ(shard.counters().expired_closes, 1u);
  AdvanceWithCore(seconds(5));
  EXPECT_THAT(output.closed, IsEmpty());
}

TEST_F(ShardExpiryTest, ARenewedTokenHasAnEndAndAWarningOfItsOwn) {
  Open(0, "alice");
  AdvanceWithCore(seconds(550));
  Text(0, kAuth);
  Checked(0, Outcome::kGood, "alice");
  Forget();
  AdvanceWithCore(seconds(100));
  EXPECT_THAT(output.closed, IsEmpty());
  EXPECT_THAT(Texts(0), IsEmpty());
  AdvanceWithCore(seconds(440));
  EXPECT_THAT(Texts(0), ElementsAre(R"({"type":"token_expiring","expires_at":"2025-01-14T12:19:10Z"})"));
  AdvanceWithCore(seconds(90));
  EXPECT_THAT(output.TakeClosed(), ElementsAre(Closed{0, 4401, "token expired"}));
}

TEST_F(ShardExpiryTest, ACheckUnderWayAtTheEndDecides) {
  Open(0, "alice");
  Open(1, "bob");
  AdvanceWithCore(seconds(629));
  Text(0, kAuth);
  Text(1, kAuth);
  AdvanceWithCore(seconds(5));
  EXPECT_THAT(output.closed, IsEmpty());
  Checked(0, Outcome::kGood, "alice");
  Checked(1, Outcome::kInvalid);
  EXPECT_THAT(output.TakeClosed(), ElementsAre(Closed{1, 4401, "token expired"}));
  AdvanceWithCore(seconds(5));
  EXPECT_THAT(output.closed, IsEmpty());
}

TEST_F(ShardExpiryTest, WhoeverIsGoneIsNotClosed) {
  Open(0, "alice");
  Close(0);
  Open(1, "bob");
  CloseConnection(1, 1008, "kicked");
  Close(1);
  token_life = std::chrono::hours(3);
  Open(1, "carol", 2);
  Forget();
  AdvanceWithCore(seconds(700));
  EXPECT_THAT(output.closed, IsEmpty());
  EXPECT_TRUE(output.sent.empty());
}

TEST_F(ShardExpiryTest, TheWallClockDecidesHoweverItIsSet) {
  Open(0, "alice");
  Forget();
  AdvanceWithCore(seconds(300));
  wall_offset = -std::chrono::hours(2);
  AdvanceWithCore(seconds(600));
  EXPECT_THAT(output.closed, IsEmpty());
  EXPECT_THAT(Texts(0), IsEmpty());
  wall_offset = seconds(-350);  // 550 s after the opening
  AdvanceWithCore(seconds(1));
  EXPECT_THAT(Texts(0), ElementsAre(kWarning));
  wall_offset = std::chrono::hours(5);
  Advance(milliseconds(100));
  EXPECT_THAT(output.TakeClosed(), ElementsAre(Closed{0, 4401, "token expired"}));
}

TEST_F(ShardExpiryTest, ManyEndsAreSpreadOverTicks) {
  for (uint32_t slot = 0; slot < 1500; ++slot) Open(slot, "alice");
  wall_offset = std::chrono::hours(5);
  Tick();
  Advance(milliseconds(100));
  EXPECT_THAT(output.TakeClosed(), SizeIs(1000));
  Advance(milliseconds(100));
  EXPECT_THAT(output.TakeClosed(), SizeIs(500));
}

TEST_F(ShardExpiryTest, ALateTickJudgesNobody) {
  Open(0, "alice");
  AdvanceWithCore(seconds(629));
  Forget();
  elapsed += seconds(3);
  Tick();
  EXPECT_THAT(output.closed, IsEmpty()) << "a newer token may wait to be read";
  Advance(milliseconds(100));
  EXPECT_THAT(output.closed, SizeIs(1));
}

class ShardExpiryWithoutWarningTest : public ShardSessionTest {
 protected:
  ShardExpiryWithoutWarningTest() : ShardSessionTest(Closing()) {}
  static ShardOptions Closing() {
    ShardOptions options = ShardExpiryOptions();
    options.expiry_warning = milliseconds(0);
    options.expiry_leeway = milliseconds(0);
    return options;
  }
  static ShardOptions ShardExpiryOptions() {
    ShardOptions options = Options();
    options.close_expired = true;
    options.heartbeat_interval = std::chrono::hours(10);
    return options;
  }
};

TEST_F(ShardExpiryWithoutWarningTest, TheEndComesUnannounced) {
  Open(0, "alice");
  Forget();
  AdvanceWithCore(seconds(599));
  EXPECT_THAT(output.closed, IsEmpty());
  AdvanceWithCore(seconds(1));
  EXPECT_THAT(Texts(0), IsEmpty());
  EXPECT_THAT(output.closed, SizeIs(1));
}

// --- shown by the first message

class ShardFirstMessageTest : public ShardSessionTest {
 protected:
  ShardFirstMessageTest() : ShardSessionTest(Few()) {}
  static ShardOptions Few() {
    ShardOptions options = Options();
    options.unproven_max = 2;
    options.auth_timeout = milliseconds(5000);
    return options;
  }
};

TEST_F(ShardFirstMessageTest, AGoodTokenOpensTheConnection) {
  OpenUnproven(0);
  EXPECT_TRUE(output.sent.empty());
  EXPECT_THAT(Events(), IsEmpty());
  EXPECT_EQ(shard.user_id(0), "");
  EXPECT_EQ(shard.connections(), 1u);
  Text(0, kAuth);
  EXPECT_THAT(output.checks, ElementsAre(Pair(0u, "a.b.c")));
  EXPECT_TRUE(output.sent.empty());
  Checked(0, Outcome::kGood, "alice", "session-1", 5000);
  EXPECT_THAT(Texts(0), ElementsAre(kPong)) << "as if it had been opened with it";
  EXPECT_EQ(Origin(output.events[0].connection_opened().token()), "session-1@5000");
  EXPECT_THAT(Events(), ElementsAre("opened 0:alice#1"));
  EXPECT_EQ(shard.user_id(0), "alice");
  Text(0, kSubscribe);
  EXPECT_THAT(Events(), ElementsAre("joined 0:general#2"));
  AdvanceWithCore(seconds(6));
  EXPECT_THAT(output.closed, IsEmpty());
  Close(0);
  EXPECT_EQ(shard.connections(), 0u);
}

TEST_F(ShardFirstMessageTest, AnythingElseClosesIt) {
  const std::vector<std::string> texts = {kSubscribe, R"({"type":"ping"})", "{", R"({"type":"auth"})"};
  for (const std::string& text : texts) {
    OpenUnproven(0);
    Text(0, text);
    EXPECT_THAT(output.TakeClosed(), ElementsAre(Closed{0, 1008, "token missing"})) << text;
    Text(0, kAuth);
    Close(0);
  }
  EXPECT_THAT(output.checks, IsEmpty());
  EXPECT_TRUE(output.sent.empty());
  EXPECT_THAT(Events(), IsEmpty()) << "the core never hears of it";
  EXPECT_EQ(shard.connections(), 0u);
}

TEST_F(ShardFirstMessageTest, ABadTokenClosesItWithTheHandshakesWords) {
  const std::vector<std::pair<Outcome, Closed>> ends = {{Outcome::kExpired, {0, 1008, "token expired"}},
                                                        {Outcome::kInvalid, {0, 1008, "token invalid"}},
                                                        {Outcome::kUnavailable, {0, 1013, "try again later"}}};
  for (const auto& [outcome, end] : ends) {
    OpenUnproven(0);
    Text(0, kAuth);
    Checked(0, outcome);
    EXPECT_THAT(output.TakeClosed(), ElementsAre(end));
    Close(0);
  }
  EXPECT_TRUE(output.sent.empty());
  EXPECT_EQ(shard.counters().unproven_closes, 2u);
}

TEST_F(ShardFirstMessageTest, WhatComesBeforeTheVerdictClosesIt) {
  OpenUnproven(0);
  Text(0, kAuth);
  Text(0, kSubscribe);
  EXPECT_THAT(output.TakeClosed(), ElementsAre(Closed{0, 1008, "wait for the pong"}));
  Checked(0, Outcome::kGood, "alice");
  EXPECT_TRUE(output.sent.empty());
  EXPECT_THAT(Events(), IsEmpty());
}

TEST_F(ShardFirstMessageTest, ItMustComeInTime) {
  OpenUnproven(0);
  AdvanceWithCore(seconds(1));
  OpenUnproven(1);
  shard.OnControlFrame(now(), 0);
  AdvanceWithCore(seconds(4));
  EXPECT_THAT(output.closed, IsEmpty());
  Text(1, kAuth);  // its check may take longer
  AdvanceWithCore(milliseconds(100));
  EXPECT_THAT(output.TakeClosed(), ElementsAre(Closed{0, 1008, "token missing"}));
  AdvanceWithCore(seconds(10));
  EXPECT_THAT(output.closed, IsEmpty());
  Checked(1, Outcome::kGood, "bob");
  EXPECT_THAT(Texts(1), SizeIs(1));
}

TEST_F(ShardFirstMessageTest, OnlySoManyMayWait) {
  OpenUnproven(0);
  OpenUnproven(1);
  OpenUnproven(2);
  EXPECT_THAT(output.TakeClosed(), ElementsAre(Closed{0, 1013, "try again later"}))
      << "who has been silent for longest";
  EXPECT_EQ(shard.counters().unproven_refused, 1u);
  Close(0);
  // Whoever goes, or shows a token, makes way for another.
  Close(1);
  Text(2, kAuth);
  Checked(2, Outcome::kGood, "bob");
  OpenUnproven(0, 2);
  OpenUnproven(1, 2);
  EXPECT_THAT(output.closed, IsEmpty());
  OpenUnproven(3);
  EXPECT_THAT(output.closed, SizeIs(1));
}

TEST_F(ShardFirstMessageTest, WhoeverIsBeingCheckedMakesNoWay) {
  OpenUnproven(0);
  OpenUnproven(1);
  Text(0, kAuth);
  OpenUnproven(2);
  EXPECT_THAT(output.TakeClosed(), ElementsAre(Closed{1, 1013, "try again later"}));
  Text(2, kAuth);
  OpenUnproven(3);
  EXPECT_THAT(output.TakeClosed(), ElementsAre(Closed{3, 1013, "try again later"})) << "nobody else is silent";
  EXPECT_EQ(shard.counters().unproven_refused, 2u);
  Checked(0, Outcome::kGood, "alice");
  Checked(2, Outcome::kGood, "bob");
  EXPECT_THAT(output.closed, IsEmpty());
  for (uint32_t slot = 0; slot < 4; ++slot) Close(slot);
  EXPECT_EQ(shard.connections(), 0u);
}

TEST_F(ShardFirstMessageTest, ADrainEndsThemAtOnce) {
  OpenUnproven(0);
  OpenUnproven(1);
  Text(1, kAuth);
  shard.Drain(now(), seconds(3));
  EXPECT_THAT(output.TakeClosed(), ElementsAre(Closed{0, 1012, "restart"}));
  Checked(1, Outcome::kGood, "alice");
  EXPECT_THAT(output.TakeClosed(), ElementsAre(Closed{1, 1012, "restart"}));
  OpenUnproven(2);
  EXPECT_THAT(output.TakeClosed(), ElementsAre(Closed{2, 1012, "restart"}));
  for (uint32_t slot = 0; slot < 3; ++slot) Close(slot);
  EXPECT_EQ(shard.connections(), 0u);
  EXPECT_TRUE(output.sent.empty());
  EXPECT_THAT(Events(), IsEmpty());
}

}  // namespace
}  // namespace presence::edge
