// WatchPresence, without gRPC: snapshots and changes, and the end.
#include "core/watches.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <vector>

#include "tests/fakes/watch_stage.h"

namespace presence::core {
namespace {

using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

std::string Numbered(int i) {
  return "u" + std::to_string(10'000 + i);
}

// ----------------------------------------------------------------------------------------------------------- snapshots

TEST(Watches, UsersAreToldWhetherOnlineOrNot) {
  WatchStage stage;
  stage.Write("alice", kOnline, 5);
  stage.Write("bob", kOffline, 6);
  StagedReader& reader = stage.WatchUsers({"nobody", "bob", "alice", "bob"});
  EXPECT_FALSE(reader.ready);
  stage.Settle();
  EXPECT_TRUE(reader.ready);
  EXPECT_EQ(reader.Read(), "snapshot alice=ONLINE@5 bob=OFFLINE@6 nobody=OFFLINE@0 done");
  stage.Change("alice", kAway, 7);
  stage.Change("carol", kOnline, 8);
  stage.Settle();
  EXPECT_EQ(reader.Read(), "alice=AWAY@7");
}

TEST(Watches, EveryoneIsReadNoFasterThanTheReaderTakes) {
  WatchStage stage;
  for (int i = 0; i < 4'500; ++i) stage.Write(Numbered(i), kOnline, 1);
  StagedReader& reader = stage.WatchEveryone();
  stage.Settle();
  EXPECT_THAT(stage.store.reads, ElementsAre("page ")) << "a thousand users wait, and nobody has taken one";
  for (int i = 0; i < 500; ++i) stage.Settle();
  EXPECT_THAT(stage.store.reads, SizeIs(1));
  ASSERT_TRUE(reader.Take(1));
  stage.Settle();
  EXPECT_THAT(stage.store.reads, ElementsAre("page ", "page " + Numbered(999)));
  EXPECT_FALSE(reader.done);
  size_t takes = 0;
  do {
    while (reader.Take(500)) ++takes;
    stage.Settle();
  } while (reader.ready);
  EXPECT_TRUE(reader.done);
  EXPECT_THAT(stage.store.reads, SizeIs(5));
  EXPECT_THAT(reader.belief, SizeIs(4'500));
  EXPECT_GE(takes, 9u);
}

TEST(Watches, NobodyIsOnlineIsASnapshotToo) {
  WatchStage stage;
  StagedReader& reader = stage.WatchEveryone();
  stage.Settle();
  EXPECT_EQ(reader.Read(), "snapshot done");
}

TEST(Watches, AnOlderRowIsDroppedAndANewerOneKept) {
  WatchStage stage;
  stage.Write("alice", kOnline, 5);
  stage.Write("bob", kOnline, 5);
  StagedReader& reader = stage.WatchUsers({"alice", "bob"});
  stage.EndTurn();                  // the rows are read now
  stage.Change("alice", kAway, 6);  // later than its row
  stage.Hear("bob", kOffline, 4);   // on its way since before
  stage.Settle();
  EXPECT_EQ(reader.Read(), "snapshot alice=AWAY@6 bob=ONLINE@5 done");
}

TEST(Watches, AnOlderRowIsDroppedThoughTheChangeIsToldAlready) {
  WatchStage stage;
  stage.Write("alice", kOnline, 5);
  StagedReader& reader = stage.WatchUsers({"alice"});
  stage.EndTurn();
  stage.Change("alice", kAway, 6);
  stage.EndTurn();
  EXPECT_EQ(reader.Read(), "snapshot alice=AWAY@6");
  stage.Settle();
  EXPECT_EQ(reader.Read(), "snapshot done");
}

TEST(Watches, AChangeThatIsBehindWhatWasReadIsNotTold) {
  WatchStage stage;
  const uint64_t version = stage.Micros();
  stage.Write("alice", kAway, version);
  StagedReader& reader = stage.WatchUsers({"alice"});
  stage.Settle();
  EXPECT_EQ(reader.Read(), "snapshot alice=AWAY@" + std::to_string(version) + " done");
  stage.Hear("alice", kOnline, version - 1);  // the bus is a little behind the store
  stage.EndTurn();
  EXPECT_EQ(reader.Read(), "");
  stage.Hear("alice", kAway, version);
  stage.Hear("alice", kOnline, version + 1);
  stage.EndTurn();
  EXPECT_EQ(reader.Read(), "alice=ONLINE@" + std::to_string(version + 1));
}

TEST(Watches, WhatIsTakenBeforeItsTurnDoesNotWakeAgain) {
  WatchStage stage;
  StagedReader& reader = stage.WatchEveryone();
  stage.Settle();
  reader.Read();
  stage.Change("alice", kOnline, 1);
  EXPECT_EQ(reader.Read(), "alice=ONLINE@1");
  stage.EndTurn();
  EXPECT_FALSE(reader.ready);
  stage.Change("alice", kAway, 2);
  EXPECT_EQ(reader.Read(), "alice=AWAY@2");
  stage.Change("alice", kOnline, 3);
  stage.EndTurn();
  EXPECT_TRUE(reader.ready) << "once";
}

// A row that somebody else has read newer is told all the same: the bus has not brought the newer one yet, and a snapshot is whole.
TEST(Watches, ARowThatOthersHaveReadNewerIsStillPartOfTheSnapshot) {
  WatchStage stage;
  stage.Write("alice", kOnline, 5);
  StagedReader& slow = stage.WatchUsers({"alice"});
  stage.EndTurn();
  stage.Write("alice", kAway, 6);
  stage.WatchUsers({"alice"});
  stage.EndTurn();
  stage.Settle();
  EXPECT_EQ(slow.Read(), "snapshot alice=ONLINE@5 done");
  stage.Hear("alice", kAway, 6);
  stage.EndTurn();
  EXPECT_EQ(slow.Read(), "alice=AWAY@6");
}

TEST(Watches, ManyWhoComeAtOnceReadTogether) {
  WatchStage stage({.reads_max = 2});
  for (int i = 0; i < 2'500; ++i) stage.Write(Numbered(i), kOnline, 1);
  std::vector<StagedReader*> all;
  for (int i = 0; i < 100; ++i) all.push_back(&stage.WatchEveryone());
  for (StagedReader* reader : all) reader->greedy = true;
  stage.Settle();
  EXPECT_THAT(stage.store.reads, SizeIs(3)) << "three pages, whoever wants them";
  for (StagedReader* reader : all) EXPECT_THAT(reader->belief, SizeIs(2'500));
}

TEST(Watches, ReadsUnderWayAreBounded) {
  WatchStage stage({.reads_max = 2});
  std::vector<StagedReader*> all;
  for (int i = 0; i < 10; ++i) all.push_back(&stage.WatchUsers({"user " + std::to_string(i)}));
  stage.EndTurn();
  EXPECT_EQ(stage.store.asked(), 2u);
  stage.store.Answer();
  stage.EndTurn();
  EXPECT_EQ(stage.store.asked(), 2u);
  stage.Settle();
  for (StagedReader* reader : all) {
    reader->TakeAll();
    EXPECT_TRUE(reader->done);
  }
}

TEST(Watches, ASnapshotThatCannotBeReadEndsItsWatcherAlone) {
  WatchStage stage;
  StagedReader& before = stage.WatchUsers({"alice"});
  stage.Settle();
  before.Read();
  stage.store.away = true;
  StagedReader& everyone = stage.WatchEveryone();
  StagedReader& users = stage.WatchUsers({"alice"});
  StagedReader& resumed = stage.WatchEveryone(stage.Micros());
  stage.Settle();
  for (const StagedReader* reader : {&everyone, &users, &resumed}) {
    ASSERT_TRUE(reader->ended);
    EXPECT_TRUE(absl::IsUnavailable(*reader->ended)) << *reader->ended;
  }
  EXPECT_FALSE(before.ended);
  stage.store.away = false;
  stage.Change("alice", kOnline, 5);
  stage.Settle();
  EXPECT_EQ(before.Read(), "alice=ONLINE@5");
  EXPECT_EQ(stage.watches.watchers(), 1u);
}

// ---------------------------------------------------------------------------------------------------- bounds, the end

TEST(Watches, WatchersAndNamedUsersAreBounded) {
  WatchStage stage({.watchers_max = 3, .users_watched_max = 5});
  stage.WatchUsers({"a", "b", "c"});
  EXPECT_TRUE(absl::IsResourceExhausted(*stage.WatchUsers({"d", "e", "f"}).ended));
  StagedReader& two = stage.WatchUsers({"d", "e"});
  EXPECT_TRUE(absl::IsResourceExhausted(*stage.WatchUsers({"g"}).ended));
  EXPECT_FALSE(stage.WatchEveryone().ended);
  EXPECT_TRUE(absl::IsResourceExhausted(*stage.WatchEveryone().ended));
  stage.watches.Close(two.id);
  EXPECT_FALSE(stage.WatchUsers({"g", "h"}).ended);
  EXPECT_EQ(stage.watches.watchers(), 3u);
}

TEST(Watches, WhoHasClosedHearsNothingMore) {
  WatchStage stage({.users_waiting_max = 1});
  StagedReader& closed = stage.WatchUsers({"alice"});
  StagedReader& slow = stage.WatchEveryone();
  StagedReader& unread = stage.WatchEveryone();
  stage.Settle();
  stage.watches.Close(closed.id);
  stage.Change("alice", kOnline, 1);
  stage.Change("bob", kOnline, 1);
  stage.watches.Close(slow.id);  // over its bound, and not told yet
  stage.watches.Shutdown(absl::UnavailableError("core is stopping"));
  stage.watches.Close(unread.id);  // ended, and not told yet: its stream may be gone by the turn's end
  closed.ready = slow.ready = unread.ready = false;
  stage.EndTurn();
  for (const StagedReader* reader : {&closed, &slow, &unread}) {
    EXPECT_FALSE(reader->ready);
    EXPECT_FALSE(reader->ended);
  }
}

TEST(Watches, AnAnswerForWhoHasClosedIsDropped) {
  WatchStage stage;
  StagedReader& users = stage.WatchUsers({"alice"});
  StagedReader& everyone = stage.WatchEveryone();
  StagedReader& resumed = stage.WatchEveryone(stage.Micros());
  stage.EndTurn();
  EXPECT_EQ(stage.store.asked(), 3u);
  for (const StagedReader* reader : {&users, &everyone, &resumed}) stage.watches.Close(reader->id);
  stage.Settle();
  EXPECT_EQ(stage.watches.watchers(), 0u);
  for (const StagedReader* reader : {&users, &everyone, &resumed}) EXPECT_FALSE(reader->ready);
}

TEST(Watches, ShutdownEndsAllAndRefusesMore) {
  WatchStage stage;
  stage.WatchUsers({"alice"});
  stage.WatchEveryone();
  stage.WatchRoom("room");
  stage.WatchEveryone(stage.Micros());
  stage.EndTurn();
  stage.watches.Shutdown(absl::UnavailableError("core is stopping"));
  stage.Settle();
  stage.AnswerCores();
  stage.Settle();
  for (const auto& reader : stage.readers) {
    ASSERT_TRUE(reader->ended);
    EXPECT_EQ(reader->ended->message(), "core is stopping");
  }
  EXPECT_EQ(*stage.WatchEveryone().ended, absl::UnavailableError("core is stopping"));
  EXPECT_EQ(stage.watches.watchers(), 0u);
}

TEST(Watches, AnswersMayComeAfterItsEnd) {
  StagedStore store;
  store.on_changes_read = [](uint64_t, const absl::StatusOr<ChangeLog>&) {};
  std::vector<Watches::AskDone> asked;
  {
    Watches watches({}, store,
                    [&](link::v1::ClusterRequest, Watches::AskDone done) { asked.push_back(std::move(done)); });
    StagedReader reader(watches);
    ASSERT_TRUE(watches.Open({{"alice"}, {}, 0}, reader).ok());
    ASSERT_TRUE(watches.Open({{}, {}, 0}, reader).ok());
    ASSERT_TRUE(watches.Open({{}, "room", 0}, reader).ok());
    watches.OnTurnEnd({});
  }
  EXPECT_TRUE(store.Answer());
  ASSERT_THAT(asked, SizeIs(1));
  asked[0](absl::OkStatus(), {});
}

}  // namespace
}  // namespace presence::core
