// Stories of clients that send more than they may.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "edge/shard.h"
#include "tests/fakes/shard_stage.h"

namespace presence::edge {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using Closed = RecordingShardOutput::Closed;

constexpr char kTooMany[] = R"({"type":"error","error":"Too many messages","code":429})";
constexpr char kPing[] = R"({"type":"ping"})";
constexpr char kTyping[] = R"({"type":"typing","channel_id":"general"})";

class ShardLimitsTest : public ::testing::Test, public ShardStage {
 protected:
  ShardLimitsTest() : ShardStage(Limited()) {
    Attach();
    Open(0, "alice");
    Open(1, "bob");
    Forget();
  }
  static ShardOptions Limited() {
    ShardOptions options = Options();
    options.frames_per_second = 10;
    options.frames_burst = 50;
    options.bytes_per_second = 1'000;
    options.bytes_burst = 10'000;
    return options;
  }
  void Send(uint32_t slot, std::string_view text, int times) {
    for (int i = 0; i < times; ++i) Text(slot, text);
  }
  // As the sockets do: what was read, then what it contains.
  void SendBytes(uint32_t slot, size_t bytes) {
    shard.OnBytesReceived(now(), slot, bytes);
    Text(slot, kTyping);
  }
};

TEST_F(ShardLimitsTest, ABurstPassesAndThenTheRate) {
  Send(0, kTyping, 50);
  EXPECT_THAT(Texts(0), IsEmpty());
  EXPECT_THAT(Events(), SizeIs(50));
  Send(0, kTyping, 3);
  EXPECT_THAT(Texts(0), ElementsAre(kTooMany, kTooMany, kTooMany));
  EXPECT_THAT(Events(), IsEmpty()) << "what is refused is not acted upon";
  elapsed += seconds(1);
  Send(0, kTyping, 11);
  EXPECT_THAT(Texts(0), ElementsAre(kTooMany));
  EXPECT_THAT(Events(), SizeIs(10));
  EXPECT_EQ(shard.counters().frames_over_frames, 4u);
  EXPECT_EQ(shard.counters().frames_over_bytes, 0u);
  EXPECT_THAT(output.TakeClosed(), IsEmpty());
}

TEST_F(ShardLimitsTest, OneConnectionsLimitIsNotAnothers) {
  Send(0, kTyping, 60);
  Forget();
  Send(1, kTyping, 50);
  EXPECT_THAT(Texts(1), IsEmpty());
  EXPECT_THAT(Events(), SizeIs(50));
}

TEST_F(ShardLimitsTest, ASlotThatIsUsedAgainStartsAnew) {
  Send(0, kTyping, 60);
  Close(0);
  Open(0, "carol", 2);
  Forget();
  Send(0, kTyping, 50);
  EXPECT_THAT(Texts(0), IsEmpty());
}

TEST_F(ShardLimitsTest, WhoGoesOnIsClosedOnce) {
  Send(0, kTyping, 50 + 100);
  EXPECT_THAT(output.TakeClosed(), IsEmpty());
  EXPECT_THAT(Texts(0), SizeIs(100));
  Send(0, kTyping, 1000);
  EXPECT_THAT(output.TakeClosed(), ElementsAre(Closed{0, 1008, "rate limit"}));
  EXPECT_THAT(Texts(0), IsEmpty()) << "after the close nothing is said";
  EXPECT_EQ(shard.counters().rate_closes, 1u);
  EXPECT_EQ(shard.counters().frames_over_frames, 101u);
  EXPECT_EQ(shard.connections(), 2u);
  Close(0);
  EXPECT_EQ(shard.connections(), 1u);
}

TEST_F(ShardLimitsTest, ALittleTooMuchForLongIsRefusedAndNotClosed) {
  // 15 a second where 10 are allowed: 5 refusals a second, of 10 that may be.
  for (int i = 0; i < 60; ++i) {
    Send(0, kTyping, 15);
    AdvanceWithCore(seconds(1));
  }
  EXPECT_THAT(output.TakeClosed(), IsEmpty());
  EXPECT_EQ(shard.counters().frames_over_frames, 60u * 5u - (50u - 10u)) << "less what the burst let pass";
}

TEST_F(ShardLimitsTest, WhatIsRefusedIsASignOfLifeAndNoPing) {
  shard.OnBytesReceived(now(), 0, 15'000);
  // Two heartbeat intervals of nothing but refusals.
  for (int i = 0; i < 61; ++i) {
    AdvanceWithCore(seconds(1));
    Forget();
    SendBytes(0, 1'000);
    EXPECT_THAT(Texts(0), ElementsAre(kTooMany));
    Text(0, kPing);
    EXPECT_THAT(Texts(0), ElementsAre(kTooMany));
  }
  Forget();
  AdvanceWithCore(seconds(1));
  EXPECT_THAT(Events(), ::testing::Contains("activity 0")) << "alive, and not pinged";
  EXPECT_EQ(shard.counters().heartbeat_timeouts, 1u) << "bob's";
  EXPECT_EQ(shard.connections(), 2u);
  Text(0, kPing);
  EXPECT_THAT(Texts(0), SizeIs(1)) << "is not closed";
}

TEST_F(ShardLimitsTest, ControlFramesCountAndNobodyIsToldOfOneTooMany) {
  for (int i = 0; i < 150; ++i) shard.OnControlFrame(now(), 0);
  EXPECT_EQ(shard.counters().frames_over_frames, 100u);
  EXPECT_THAT(Texts(0), IsEmpty());
  EXPECT_THAT(output.TakeClosed(), IsEmpty());
  shard.OnControlFrame(now(), 0);
  EXPECT_THAT(output.TakeClosed(), ElementsAre(Closed{0, 1008, "rate limit"}));
}

TEST_F(ShardLimitsTest, BytesHaveALimitOfTheirOwn) {
  SendBytes(0, 10'000);
  EXPECT_THAT(Texts(0), IsEmpty());
  SendBytes(0, 500);
  EXPECT_THAT(Texts(0), ElementsAre(kTooMany));
  EXPECT_THAT(Events(), SizeIs(1));
  EXPECT_EQ(shard.counters().frames_over_bytes, 1u);
  EXPECT_EQ(shard.counters().frames_over_frames, 0u);
  elapsed += seconds(1);
  SendBytes(0, 400);
  EXPECT_THAT(Texts(0), IsEmpty());
}

TEST_F(ShardLimitsTest, BytesThatNeverBecomeAMessageCloseToo) {
  // Empty fragments, say: 20 more seconds' worth than there may be.
  shard.OnBytesReceived(now(), 0, 10'000);
  shard.OnBytesReceived(now(), 0, 9'999);
  EXPECT_THAT(output.TakeClosed(), IsEmpty());
  shard.OnBytesReceived(now(), 0, 1);
  EXPECT_THAT(output.TakeClosed(), ElementsAre(Closed{0, 1008, "rate limit"}));
  shard.OnBytesReceived(now(), 0, 1'000'000);
  EXPECT_THAT(output.TakeClosed(), IsEmpty());
  EXPECT_EQ(shard.counters().rate_closes, 1u);
}

// Whoever has shown no token is not asked to slow down.
TEST_F(ShardLimitsTest, WithoutATokenTheFirstFrameTooManyCloses) {
  OpenUnproven(2);
  for (int i = 0; i < 50; ++i) shard.OnControlFrame(now(), 2);
  EXPECT_THAT(output.TakeClosed(), IsEmpty());
  for (int i = 0; i < 10; ++i) shard.OnControlFrame(now(), 2);
  EXPECT_THAT(output.TakeClosed(), ElementsAre(Closed{2, 1008, "rate limit"}));
  EXPECT_EQ(shard.counters().rate_closes, 1u);
  EXPECT_EQ(shard.counters().unproven_closes, 0u) << "it is counted once";
  Text(2, R"({"type":"auth","token":"a.b.c"})");
  EXPECT_THAT(output.checks, IsEmpty());

  // A token is a frame, too.
  OpenUnproven(3);
  for (int i = 0; i < 50; ++i) shard.OnControlFrame(now(), 3);
  Text(3, R"({"type":"auth","token":"a.b.c"})");
  EXPECT_THAT(output.TakeClosed(), ElementsAre(Closed{3, 1008, "rate limit"}));
  EXPECT_THAT(output.checks, IsEmpty());
  EXPECT_TRUE(output.sent.empty());
}

TEST_F(ShardLimitsTest, WithoutATokenBytesAreLimitedAllTheSame) {
  OpenUnproven(2);
  shard.OnBytesReceived(now(), 2, 10'000);
  shard.OnBytesReceived(now(), 2, 9'999);
  EXPECT_THAT(output.TakeClosed(), IsEmpty());
  shard.OnBytesReceived(now(), 2, 1);
  EXPECT_THAT(output.TakeClosed(), ElementsAre(Closed{2, 1008, "rate limit"}));
  shard.OnBytesReceived(now(), 2, 1'000'000);
  EXPECT_THAT(output.TakeClosed(), IsEmpty());
  EXPECT_EQ(shard.counters().rate_closes, 1u);
  Close(2);
  EXPECT_EQ(shard.connections(), 2u);
}

TEST_F(ShardLimitsTest, TheLogHearsOfTheCloseAlone) {
  Send(0, kTyping, 1000);
  ASSERT_THAT(output.reports, SizeIs(1));
  EXPECT_EQ(output.reports[0].what, "Connection {connection} sends more than it may, disconnecting");
}

TEST_F(ShardLimitsTest, ARoomTooManyIsCounted) {
  ShardOptions options = Options();
  options.rooms_per_connection_max = 2;
  ShardStage stage(options);
  stage.Attach();
  stage.Open(0, "alice");
  stage.Forget();
  for (const char* room : {"a", "b", "c"}) stage.Subscribe(0, room);
  EXPECT_THAT(stage.Texts(0), ElementsAre(R"({"type":"error","error":"Too many rooms","code":429})"));
  EXPECT_EQ(stage.shard.counters().rooms_over_limit, 1u);
}

// The default of an edge must let a client back in with all its rooms (ROOMS_PER_CONNECTION), typing and pings beside them.
TEST(ShardLimitsDefaultTest, WithoutSettingsNothingIsLimited) {
  ShardStage stage;
  stage.Attach();
  stage.Open(0, "alice");
  stage.Forget();
  for (int i = 0; i < 10'000; ++i) stage.Text(0, kTyping);
  stage.shard.OnBytesReceived(stage.now(), 0, size_t{1} << 40);
  EXPECT_THAT(stage.Texts(0), IsEmpty());
  EXPECT_THAT(stage.output.TakeClosed(), IsEmpty());
}

}  // namespace
}  // namespace presence::edge
