// Clients that are sent to another edge: what they are told, when, and what the core is told of it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <charconv>
#include <string>
#include <vector>

#include "tests/fakes/shard_stage.h"

namespace presence::edge {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::AllOf;
using testing::Each;
using testing::ElementsAre;
using testing::EndsWith;
using testing::Ge;
using testing::IsEmpty;
using testing::Le;
using testing::SizeIs;
using Closed = RecordingShardOutput::Closed;

class ShardDrainTest : public testing::Test, protected ShardStage {
 protected:
  explicit ShardDrainTest(ShardOptions options = Options()) : ShardStage(std::move(options)) { Attach(); }

  void OpenMany(uint32_t clients) {
    for (uint32_t slot = 0; slot < clients; ++slot) Open(slot, "user" + std::to_string(slot));
    Forget();
  }
  // The times that the clients of these slots are told; -1: none, or something else was said after it.
  std::vector<int> Told(uint32_t clients) {
    std::vector<int> times;
    for (uint32_t slot = 0; slot < clients; ++slot) times.push_back(ToldTo(slot));
    return times;
  }
  int ToldTo(uint32_t slot) {
    constexpr std::string_view kHead = R"({"type":"reconnect","after_ms":)";
    const std::vector<std::string> texts = Texts(slot);
    int time = -1;
    if (texts.empty() || !texts.back().starts_with(kHead)) return time;
    const std::string_view number = std::string_view(texts.back()).substr(kHead.size());
    const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), time);
    return error == std::errc() && std::string_view(end) == "}" ? time : -1;
  }
  std::vector<uint32_t> Holds() {
    std::vector<uint32_t> holds;
    for (const link::v1::EdgeEvent& event : output.TakeEvents()) {
      if (event.has_connection_closed()) holds.push_back(event.connection_closed().hold_ms());
    }
    return holds;
  }
};

TEST_F(ShardDrainTest, EachClientIsToldToReconnectAndClosedInTheSameBreath) {
  OpenMany(2);
  shard.Drain(now(), milliseconds(0));
  EXPECT_THAT(output.TakeClosed(), ElementsAre(Closed{1, 1012, "restart"}, Closed{0, 1012, "restart"}));
  EXPECT_THAT(Told(2), Each(AllOf(Ge(200), Le(700))));
  EXPECT_EQ(shard.counters().sent_away, 2u);
}

TEST_F(ShardDrainTest, TheCoreIsAskedToHoldThePresenceUntilTheClientMayBeBack) {
  OpenMany(2);
  shard.Drain(now(), milliseconds(0));
  const std::vector<uint32_t> holds = Holds();
  const std::vector<int> told = Told(2);
  EXPECT_THAT(holds, ElementsAre(told[1] + 10'000, told[0] + 10'000));
}

TEST_F(ShardDrainTest, WhoLeavesByItselfIsNotHeldForANewPlace) {
  OpenMany(3);
  shard.Drain(now(), seconds(10));
  Close(0);
  CloseConnection(1, 4000, "kicked");
  EXPECT_THAT(Events(), ElementsAre("closed 0:user0#4", "closed 1:user1#5"));
  EXPECT_EQ(shard.counters().sent_away, 0u);
}

TEST_F(ShardDrainTest, TheTimesAreSpreadAndDifferFromClientToClient) {
  OpenMany(4'000);
  shard.Drain(now(), seconds(1));
  AdvanceWithCore(seconds(1));
  std::vector<int> told = Told(4'000);
  // 1,000 come back in a second: in 4 s, of which the window is 1 s.
  EXPECT_THAT(told, Each(AllOf(Ge(200), Le(3'200))));
  std::vector<int> per_part(6);
  for (const int time : told) ++per_part[static_cast<size_t>(std::min((time - 200) / 500, 5))];
  EXPECT_THAT(per_part, Each(AllOf(Ge(500), Le(830)))) << "evenly";
}

TEST_F(ShardDrainTest, AWindowThatIsLongEnoughNeedsNoFurtherSpread) {
  OpenMany(1'000);
  shard.Drain(now(), seconds(5));
  AdvanceWithCore(seconds(5));
  EXPECT_THAT(Told(1'000), Each(AllOf(Ge(200), Le(700))));
}

TEST_F(ShardDrainTest, NobodyWaitsForLongerThanTheBound) {
  OpenMany(15'000);
  shard.Drain(now(), milliseconds(0));
  const std::vector<int> told = Told(15'000);
  EXPECT_THAT(told, Each(AllOf(Ge(200), Le(10'200))));
  EXPECT_GT(*std::max_element(told.begin(), told.end()), 9'900);
  EXPECT_THAT(Holds(), Each(Le(20'200u)));
}

TEST_F(ShardDrainTest, TwoProcessesTellDifferentTimes) {
  OpenMany(20);
  shard.Drain(now(), milliseconds(0));
  ShardOptions options = Options();
  options.incarnation = 78;
  ShardStage other(options);
  other.Attach();
  for (uint32_t slot = 0; slot < 20; ++slot) other.Open(slot, "user");
  other.shard.Drain(other.now(), milliseconds(0));
  int same = 0;
  for (uint32_t slot = 0; slot < 20; ++slot) same += Texts(slot).back() == other.Texts(slot).back() ? 1 : 0;
  EXPECT_LT(same, 5);
}

TEST_F(ShardDrainTest, ARoomIsLeftAtOnce) {
  OpenMany(2);
  Bind(0, "general", 1);
  Bind(1, "general", 1);
  shard.Drain(now(), seconds(10));
  AdvanceWithCore(seconds(5));
  ASSERT_THAT(output.closed, SizeIs(1));
  Forget();
  Deliver(1, "{}");
  EXPECT_EQ(output.sent.size(), 1u) << "who is still here goes on until its time has come";
}

// The link is lost while closes are under way: the core hears what is left of the time, before it closes what is not declared.
TEST_F(ShardDrainTest, ACloseThatIsRepeatedSaysWhatIsLeft) {
  OpenMany(1);
  shard.Drain(now(), milliseconds(0));
  const uint32_t hold = Holds().at(0);
  LinkDown();
  Advance(seconds(4));
  LinkUp();
  Welcome();
  EXPECT_THAT(Holds(), ElementsAre(hold - 4'000));
  LinkDown();
  Advance(seconds(16));
  LinkUp();
  Welcome();
  EXPECT_THAT(Events(), ElementsAre("hello 3", "closed 0:user0#2", "resync done")) << "it is gone";
}

TEST_F(ShardDrainTest, ADrainWithoutALinkIsToldWithTheNextOne) {
  OpenMany(1);
  LinkDown();
  shard.Drain(now(), milliseconds(0));
  EXPECT_THAT(output.TakeClosed(), SizeIs(1));
  Attach();
  EXPECT_THAT(Events(), ElementsAre("hello 2", "closed 0:user0#2 held", "resync done"));
  EXPECT_FALSE(shard.ready(now()));
}

TEST_F(ShardDrainTest, ASecondDrainSetsThePaceForThoseWhoAreLeft) {
  OpenMany(4);
  shard.Drain(now(), seconds(100));
  AdvanceWithCore(seconds(50));
  EXPECT_THAT(output.closed, SizeIs(2));
  shard.Drain(now(), seconds(2));
  AdvanceWithCore(seconds(2));
  EXPECT_THAT(output.closed, SizeIs(4));
  EXPECT_EQ(shard.counters().sent_away, 4u);
}

class LonelyShardTest : public ShardDrainTest {
 protected:
  static ShardOptions Lonely() {
    ShardOptions options = Options();
    options.isolation_max = seconds(5);
    options.isolation_spread = seconds(2);
    return options;
  }
  LonelyShardTest() : ShardDrainTest(Lonely()) {}
};

TEST_F(LonelyShardTest, AnEdgeWithoutACoreSendsItsClientsAwayInTheSameWords) {
  OpenMany(4);
  LinkDown();
  Advance(seconds(8));
  EXPECT_THAT(output.TakeClosed(), AllOf(SizeIs(4), Each(testing::Field(&Closed::code, 1012))));
  EXPECT_THAT(Told(4), Each(AllOf(Ge(200), Le(700))));
  Attach();
  EXPECT_THAT(Events(), testing::Contains("closed 3:user3#5 held"));
}

}  // namespace
}  // namespace presence::edge
