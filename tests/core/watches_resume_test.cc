// WatchPresence, without gRPC: who comes back, and from where.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <string>

#include "core/watches.h"
#include "tests/fakes/watch_stage.h"

namespace presence::core {
namespace {

using std::chrono::minutes;
using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::SizeIs;

std::string Numbered(int i) {
  return "u" + std::to_string(10'000 + i);
}

// ------------------------------------------------------------------------------------------------------------- resumes

TEST(Watches, AResumeIsToldWhatWasMissed) {
  WatchStage stage;
  const uint64_t then = stage.Micros();
  stage.Write("early", kOnline, then - 6'000'000);
  stage.Write("overlap", kOnline, then - 4'000'000);
  stage.Write("late", kOffline, then + 1);
  StagedReader& everyone = stage.WatchEveryone(then);
  StagedReader& users = stage.WatchUsers({"early", "late", "nobody"}, then);
  stage.Settle();
  EXPECT_THAT(stage.store.reads, ElementsAre("log"));
  EXPECT_EQ(everyone.Read(), "overlap=ONLINE@" + std::to_string(then - 4'000'000) + " late=OFFLINE@" +
                                 std::to_string(then + 1) + " done");
  EXPECT_EQ(users.Read(), "late=OFFLINE@" + std::to_string(then + 1) + " done");
  EXPECT_GE(everyone.resume_version, then);
}

TEST(Watches, AResumeWithoutChangesIsDoneAtOnce) {
  WatchStage stage;
  StagedReader& reader = stage.WatchEveryone(stage.Micros());
  stage.Settle();
  EXPECT_EQ(reader.Read(), "done");
}

TEST(Watches, AResumeThatTheLogDoesNotReachIsASnapshot) {
  WatchStage stage;
  stage.store.log_since = stage.Micros() - 20'000'000;
  stage.Write("alice", kOnline, stage.Micros() - 100'000'000);
  StagedReader& old = stage.WatchEveryone(stage.Micros() - 60'000'000);
  StagedReader& young = stage.WatchEveryone(stage.Micros() - 10'000'000);
  stage.Settle();
  EXPECT_EQ(old.Read(), "snapshot alice=ONLINE@" + std::to_string(stage.Micros() - 100'000'000) + " done");
  EXPECT_EQ(young.Read(), "done") << "one that is too old spoils the resume of nobody else";
  EXPECT_THAT(stage.store.reads, ElementsAre("log", "log", "page "));
}

TEST(Watches, AResumeThatNoLogCanReachIsNotLookedUp) {
  WatchStage stage;
  StagedReader& ancient = stage.WatchEveryone(1);
  StagedReader& future = stage.WatchEveryone(stage.Micros() * 1'000);  // nanoseconds, by mistake
  stage.Settle();
  EXPECT_THAT(stage.store.reads, ElementsAre("page "));
  EXPECT_EQ(ancient.Read(), "snapshot done");
  EXPECT_EQ(future.Read(), "snapshot done");
  EXPECT_LT(future.resume_version, stage.Micros());
}

TEST(Watches, ResumesShareOneReadOfTheLog) {
  WatchStage stage;
  for (int i = 0; i < 20; ++i) stage.WatchEveryone(stage.Micros() - static_cast<uint64_t>(i));
  stage.Settle();
  EXPECT_THAT(stage.store.reads, ElementsAre("log"));
}

TEST(Watches, ALongLogIsToldAsFastAsItIsTakenAndNeverBehindAChange) {
  WatchStage stage;
  const uint64_t then = stage.Micros();
  for (int i = 0; i < 3'000; ++i) stage.Write(Numbered(i), kOnline, then + static_cast<uint64_t>(i));
  StagedReader& reader = stage.WatchEveryone(then);
  reader.never_falls = true;
  stage.Settle();
  ASSERT_TRUE(reader.Take(10));
  stage.Change(Numbered(2'999), kAway, then + 5'000);  // its row in the log has not been fed yet
  while (reader.Take(10) && reader.belief[Numbered(2'999)].version == 0) {
  }
  EXPECT_EQ(reader.belief[Numbered(2'999)].status, kAway);
  stage.Wait(minutes(1));
  stage.Settle();
  reader.TakeAll();
  EXPECT_TRUE(reader.done);
  EXPECT_THAT(reader.belief, SizeIs(3'000));
  EXPECT_THAT(stage.store.reads, ElementsAre("log"));
}

TEST(Watches, MoreOfTheLogThanMayBeHeldIsASnapshot) {
  WatchStage stage({.log_rows_max = 2'500});
  const uint64_t then = stage.Micros();
  for (int i = 0; i < 2'000; ++i) stage.Write(Numbered(i), kOnline, then);
  StagedReader& first = stage.WatchEveryone(then);
  stage.Settle();
  StagedReader& second = stage.WatchEveryone(then);
  StagedReader& some = stage.WatchUsers({Numbered(7)}, then);
  stage.Settle();
  EXPECT_THAT(stage.store.reads, ElementsAre("log", "log", "page "));
  ASSERT_TRUE(second.Take(1));
  EXPECT_THAT(second.told, testing::StartsWith("snapshot"));
  EXPECT_EQ(some.Read(), Numbered(7) + "=ONLINE@" + std::to_string(then) + " done");
  first.TakeAll();
  EXPECT_TRUE(first.done);
  StagedReader& third = stage.WatchEveryone(then);
  stage.Settle();
  ASSERT_TRUE(third.Take(1));
  EXPECT_THAT(third.told, testing::Not(testing::StartsWith("snapshot"))) << "the first log is held no longer";
}

// ------------------------------------------------------------------------------------------------------ resume_version

TEST(Watches, ResumeVersionStandsStillWhileChangesMayBeMissing) {
  WatchStage stage;
  StagedReader& reader = stage.WatchEveryone();
  stage.Settle();
  reader.Read();
  const uint64_t before = reader.resume_version;
  EXPECT_EQ(before, stage.Micros() - 10'000'000) << "what is ten seconds old has been heard";
  stage.Wait(seconds(60), /*caught_up=*/false);
  stage.Change("alice", kOnline, stage.Micros());
  stage.Settle();
  reader.Read();
  EXPECT_EQ(reader.resume_version, before);
  stage.Wait(seconds(1));
  stage.Change("alice", kAway, stage.Micros());
  stage.Settle();
  reader.Read();
  EXPECT_EQ(reader.resume_version, stage.Micros() - 10'000'000);
}

TEST(Watches, ResumeVersionWaitsForWhatIsNotTold) {
  WatchStage stage;
  StagedReader& reader = stage.WatchEveryone();
  stage.Settle();
  reader.Read();
  const uint64_t before = reader.resume_version;
  stage.Change("a", kOnline, 1);
  stage.Change("b", kOnline, 2);
  stage.Wait(seconds(30));
  stage.Settle();
  ASSERT_TRUE(reader.Take(1));
  EXPECT_EQ(reader.resume_version, before) << "b waits";
  ASSERT_TRUE(reader.Take(1));
  EXPECT_EQ(reader.resume_version, before + 30'000'000);
}

TEST(Watches, ASnapshotHasNoResumeVersionBeforeItIsWhole) {
  WatchStage stage;
  for (int i = 0; i < 10; ++i) stage.Write(Numbered(i), kOnline, 1);
  StagedReader& reader = stage.WatchEveryone();
  stage.Settle();
  ASSERT_TRUE(reader.Take(9));
  EXPECT_EQ(reader.resume_version, 0u);
  ASSERT_TRUE(reader.Take(1));
  EXPECT_TRUE(reader.done);
  EXPECT_NE(reader.resume_version, 0u);
}

TEST(Watches, ALongSilenceIsBrokenByResumeVersionAlone) {
  WatchStage stage;
  StagedReader& reader = stage.WatchUsers({"alice"});
  stage.Settle();
  reader.Read();
  const uint64_t before = reader.resume_version;
  stage.Wait(seconds(9));
  stage.EndTurn();
  EXPECT_FALSE(reader.ready);
  stage.Wait(seconds(2));
  stage.EndTurn();
  ASSERT_TRUE(reader.ready);
  EXPECT_EQ(reader.Read(), "");
  EXPECT_EQ(reader.resume_version, before + 11'000'000);
  stage.Wait(seconds(20), /*caught_up=*/false);
  stage.EndTurn();
  EXPECT_FALSE(reader.ready) << "there is nothing to say";
}

}  // namespace
}  // namespace presence::core
