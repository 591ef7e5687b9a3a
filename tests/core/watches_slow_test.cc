// WatchPresence, without gRPC: slow readers, one by one and all together.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <vector>

#include "core/watches.h"
#include "tests/fakes/watch_stage.h"

namespace presence::core {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::SizeIs;

std::string Numbered(int i) {
  return "u" + std::to_string(10'000 + i);
}

TEST(Watches, ASlowReaderIsToldTheNewestInTheOrderInWhichTheyCame) {
  WatchStage stage;
  StagedReader& reader = stage.WatchEveryone();
  stage.Settle();
  reader.Read();
  stage.Change("a", kOnline, 1);
  stage.Change("b", kOnline, 2);
  stage.Change("c", kOnline, 3);
  stage.Change("a", kAway, 4);
  stage.Change("b", kOffline, 5);
  stage.Settle();
  ASSERT_TRUE(reader.Take(2));
  EXPECT_EQ(reader.told, "a=AWAY@4 b=OFFLINE@5");
  stage.Change("a", kOnline, 6);
  EXPECT_EQ(reader.Read(), "a=AWAY@4 b=OFFLINE@5 | c=ONLINE@3 a=ONLINE@6");
}

TEST(Watches, TakesEndAtTheirBytes) {
  WatchStage stage;
  StagedReader& reader = stage.WatchEveryone();
  stage.Settle();
  reader.Read();
  const std::string long_id(1'000, 'x');
  for (int i = 0; i < 10; ++i) stage.Change(long_id + std::to_string(i), kOnline, 1);
  ASSERT_TRUE(reader.Take(100, 5'000));
  EXPECT_THAT(reader.belief, SizeIs(3)) << "each is a thousand bytes of id and as many of name";
}

TEST(Watches, WhoLetsTooManyWaitIsEndedAndNobodyElse) {
  WatchStage stage({.users_waiting_max = 100});
  StagedReader& stuck = stage.WatchEveryone();
  StagedReader& reading = stage.WatchEveryone();
  StagedReader& some = stage.WatchUsers({Numbered(0), Numbered(1)});
  stage.Settle();
  for (int i = 0; i < 100; ++i) stage.Change(Numbered(i), kOnline, 1);
  for (int i = 0; i < 100; ++i) stage.Change(Numbered(i), kAway, 2);
  reading.Read();
  stage.EndTurn();
  EXPECT_FALSE(stuck.ended);
  stage.Change(Numbered(100), kOnline, 3);
  EXPECT_FALSE(stuck.Take(1'000)) << "what came behind the bound is lost, and nothing may hide that";
  stage.EndTurn();
  ASSERT_TRUE(stuck.ended);
  EXPECT_TRUE(absl::IsResourceExhausted(*stuck.ended));
  EXPECT_TRUE(stuck.ended_slow);
  EXPECT_EQ(stage.watches.ended_slow(), 1u);
  EXPECT_EQ(reading.Read(), Numbered(100) + "=ONLINE@3");
  EXPECT_THAT(some.Read(), testing::HasSubstr(Numbered(0) + "=AWAY@2"));
  EXPECT_FALSE(some.ended);
}

// ------------------------------------------------------------------------------------------------------- all together

TEST(WatchesTogether, WhoIsFurthestBehindIsEndedWhenAllQueuesAreFull) {
  WatchStage stage({.rows_waiting_max = 6'400});
  StagedReader& stuck = stage.WatchEveryone();
  StagedReader& slower = stage.WatchEveryone();
  StagedReader& slow = stage.WatchEveryone();
  StagedReader& reading = stage.WatchEveryone();
  reading.greedy = true;
  stage.Settle();
  for (StagedReader* reader : {&stuck, &slower, &slow}) reader->Read();
  for (int i = 0; i < 2'200; ++i) {
    stage.Change(Numbered(i), kOnline, 1);
    if (i == 600) slow.Read();
    if (i == 300) slower.Read();
    stage.EndTurn();
  }
  EXPECT_EQ(stage.watches.rows_waiting(), 2'200u + 1'899u + 1'599u);
  for (int i = 2'200; !stuck.ended; ++i) {
    stage.Change(Numbered(i), kOnline, 1);
    EXPECT_LE(stage.watches.rows_waiting(), 6'400u);
    stage.EndTurn();
  }
  EXPECT_TRUE(absl::IsResourceExhausted(*stuck.ended));
  EXPECT_TRUE(stuck.ended_slow);
  EXPECT_EQ(stage.watches.ended_slow(), 1u) << "that was enough";
  for (StagedReader* reader : {&slower, &slow, &reading}) EXPECT_FALSE(reader->ended);
  for (int i = 5'000; !slower.ended; ++i) {
    stage.Change(Numbered(i), kOnline, 1);
    stage.EndTurn();
  }
  EXPECT_FALSE(slow.ended);
  reading.TakeAll();
  slow.TakeAll();
  EXPECT_EQ(slow.belief.size(), reading.belief.size()) << "and has lost nothing";
  EXPECT_EQ(stage.watches.rows_waiting(), 0u);
}

TEST(WatchesTogether, OneChangeForManyIsBoundedToo) {
  WatchStage stage({.rows_waiting_max = 6'400});
  std::vector<StagedReader*> all;
  for (int i = 0; i < 1'000; ++i) all.push_back(&stage.WatchEveryone());
  stage.Settle();
  for (StagedReader* reader : all) reader->Read();
  // In one turn: nobody could have read.
  for (int i = 0; i < 20; ++i) {
    stage.Change(Numbered(i), kOnline, 1);
    EXPECT_LE(stage.watches.rows_waiting(), 6'400u);
  }
  stage.EndTurn();
  size_t told = 0;
  for (StagedReader* reader : all) {
    if (reader->ended) continue;
    reader->TakeAll();
    EXPECT_THAT(reader->belief, SizeIs(20)) << "all, or the end";
    ++told;
  }
  EXPECT_GT(told, 300u);
  EXPECT_EQ(told + stage.watches.ended_slow(), 1'000u);
}

// After a restart of the core all its watchers come back at once: that alone ends none of them.
TEST(WatchesTogether, SnapshotsWaitForRoom) {
  WatchStage stage({.rows_waiting_max = 8'000});
  for (int i = 0; i < 2'500; ++i) stage.Write(Numbered(i), kOnline, stage.Micros());
  std::vector<StagedReader*> all;
  for (int i = 0; i < 30; ++i) all.push_back(&stage.WatchEveryone());
  std::vector<std::string> named;
  for (int i = 0; i < 1'000; ++i) named.push_back(Numbered(i));
  for (int i = 0; i < 30; ++i) all.push_back(&stage.WatchUsers(named));
  for (int i = 0; i < 30; ++i) all.push_back(&stage.WatchEveryone(stage.Micros()));
  for (int i = 0; i < 30; ++i) all.push_back(&stage.WatchUsers(named, stage.Micros()));
  size_t unread = all.size();
  for (int turn = 0; turn < 1'000 && unread != 0; ++turn) {
    stage.EndTurn();
    stage.store.Answer();
    EXPECT_LE(stage.watches.rows_waiting(), 6'000u) << "the rest is for changes";
    unread = 0;
    for (StagedReader* reader : all) {
      if (reader->ready) reader->Take(500);
      unread += reader->done ? 0 : 1;
    }
  }
  EXPECT_EQ(unread, 0u);
  for (size_t i = 0; i < all.size(); ++i) {
    EXPECT_FALSE(all[i]->ended);
    EXPECT_THAT(all[i]->belief, SizeIs(i / 30 % 2 == 0 ? 2'500 : 1'000));
  }
  EXPECT_EQ(stage.watches.ended_slow(), 0u);
  EXPECT_EQ(stage.watches.rows_waiting(), 0u);
}

TEST(WatchesTogether, WhereNobodyReadsRoomIsMadeAfterAWhile) {
  WatchStage stage({.rows_waiting_max = 8'000});
  for (int i = 0; i < 1'000; ++i) stage.Write(Numbered(i), kOnline, 1);
  std::vector<StagedReader*> stuck;
  for (int i = 0; i < 6; ++i) stuck.push_back(&stage.WatchEveryone());
  stage.Settle();
  StagedReader& gone = stage.WatchEveryone();
  StagedReader& late = stage.WatchEveryone();
  late.greedy = true;
  stage.watches.Close(gone.id);
  stage.Settle();
  stage.Wait(milliseconds(1'900));
  stage.Settle();
  EXPECT_FALSE(late.done);
  EXPECT_EQ(stage.watches.ended_slow(), 0u);
  stage.Wait(milliseconds(200));
  stage.Settle();
  EXPECT_TRUE(late.done);
  EXPECT_EQ(stage.watches.ended_slow(), 1u);
  EXPECT_TRUE(stuck[0]->ended) << "of those equally far behind, who came first";
  // One who leaves makes room, too, and what was reserved for who leaves is free again.
  StagedReader& reserved = stage.WatchEveryone();
  stage.EndTurn();
  StagedReader& next = stage.WatchEveryone();
  next.greedy = true;
  stage.EndTurn();
  stage.watches.Close(reserved.id);
  stage.Settle();
  EXPECT_TRUE(next.done);
  EXPECT_EQ(stage.watches.ended_slow(), 1u);
}

}  // namespace
}  // namespace presence::core
