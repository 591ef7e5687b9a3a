// The logs of rooms in a Redis that is not well, or in which others have written.
#include "tests/core/redis_failure.h"

namespace presence::core {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;
using Appended = OnceResult::Outcome;

class RedisRooms : public RedisFailure {
 protected:
  AppendResult Say(std::string_view text, std::string_view request_id = "") {
    link::v1::BusEnvelope envelope;
    envelope.mutable_message()->set_room_id("r");
    envelope.mutable_message()->set_text(std::string(text));
    const uint64_t id = ++last_id_;
    store_->Append(id, request_id, "print", envelope, "");
    EXPECT_TRUE(RunUntil([&] { return heard_.appended.contains(id); })) << "no answer";
    return heard_.appended[id];
  }
  absl::StatusOr<RoomLogPage> Read(RoomPosition after = {}) {
    const uint64_t id = ++last_id_;
    store_->ReadRoomLog(id, {.room_id = "r", .after = after, .entries_max = 100});
    EXPECT_TRUE(RunUntil([&] { return heard_.pages.contains(id); })) << "no answer";
    const auto page = heard_.pages.find(id);
    if (page == heard_.pages.end()) return absl::UnknownError("no answer");
    return page->second;
  }
  // What the log holds.
  std::vector<std::string> Texts() {
    const absl::StatusOr<RoomLogPage> page = Read();
    EXPECT_TRUE(page.ok());
    std::vector<std::string> texts;
    if (!page.ok()) return texts;
    for (const link::v1::BusEnvelope& entry : page->entries) texts.push_back(entry.message().text());
    return texts;
  }
};

TEST_F(RedisRooms, WithoutRedisEverythingIsAnsweredUnavailable) {
  AttachAndComeUp();
  server_->Kill();
  ASSERT_TRUE(RunUntil([&] { return store_->counters().connections_lost.Value() >= 2; }));  // both
  EXPECT_EQ(Say("one").outcome, Appended::kUnavailable);
  EXPECT_EQ(Say("one", "q1").outcome, Appended::kUnavailable);
  EXPECT_EQ(Read().status().code(), absl::StatusCode::kUnavailable);
  server_->Start();
  ASSERT_TRUE(RunUntil([&] { return heard_.ups == 2; }));
  EXPECT_EQ(Say("one", "q1").outcome, Appended::kPublished);
}

TEST_F(RedisRooms, WhatAStalledRedisDidIsNotKnownAndRepeatingItWithAnIdIsSafe) {
  AttachAndComeUp();
  server_->Stall();
  EXPECT_EQ(Say("one", "q1").outcome, Appended::kUnavailable);
  EXPECT_EQ(Read().status().code(), absl::StatusCode::kUnavailable);
  server_->Resume();
  ASSERT_TRUE(RunUntil([&] { return heard_.ups == 2; }));
  Say("one", "q1");
  EXPECT_EQ(Say("one", "q1").outcome, Appended::kRepeated);
  EXPECT_THAT(Texts(), ElementsAre("one"));
}

TEST_F(RedisRooms, WhatRedisRefusesLeavesNoTrace) {
  AttachAndComeUp();
  const RoomPosition first = Say("one").position;
  server_->Command({"ACL", "SETUSER", "default", "-xadd"});
  EXPECT_EQ(Say("two", "q1").outcome, Appended::kUnavailable);
  EXPECT_EQ(heard_.downs, 0);
  server_->Command({"ACL", "SETUSER", "default", "+@all"});
  const AppendResult second = Say("two", "q1");
  EXPECT_EQ(second.outcome, Appended::kPublished) << "the id is not used";
  EXPECT_EQ(second.position, (RoomPosition{first.epoch, 2})) << "nor the number";
  EXPECT_THAT(Texts(), ElementsAre("one", "two"));
}

TEST_F(RedisRooms, WhatAnotherRunOfRedisHasWrittenEndsItsEpoch) {
  AttachAndComeUp();
  const RoomPosition before = Say("one").position;
  const std::string room = server_->Command({"GET", "presence.room:r"}).text;
  ASSERT_GT(room.size(), 80u) << "ten numbers, and the run";
  server_->Command({"SET", "presence.room:r", room.substr(0, 80) + "another"});
  const RoomPosition after = Say("two").position;
  EXPECT_GT(after.epoch, before.epoch);
  EXPECT_EQ(after.sequence, 1u);
  EXPECT_EQ(Say("three").position, (RoomPosition{after.epoch, 2}));
  const auto page = Read(before);
  ASSERT_TRUE(page.ok());
  ASSERT_THAT(page->entries, SizeIs(2));
  EXPECT_EQ(PreviousOf(page->entries[0]), before);
}

TEST_F(RedisRooms, WithoutATestClockAnEpochIsOfRedisOwnTime) {
  AttachAndComeUp();
  const auto now_us = [&] {
    const auto time = server_->Command({"TIME"}).list;
    return std::stoull(time[0].text) * 1'000'000 + std::stoull(time[1].text);
  };
  const uint64_t before = now_us();
  const auto unknown = Read();
  const uint64_t epoch = Say("one").position.epoch;
  const uint64_t after = now_us();
  ASSERT_TRUE(unknown.ok());
  EXPECT_GE(unknown->current.epoch, before);
  EXPECT_GE(epoch, unknown->current.epoch);
  EXPECT_LE(epoch, after);
}

// ------------------------------------------------------------------------------- others have written to our keys

TEST_F(RedisRooms, ForeignThingsWhereTheRoomIsKnownAreNothing) {
  AttachAndComeUp();
  const std::vector<std::vector<std::string>> foreign{{"SET", "presence.room:r", ""},
                                                      {"SET", "presence.room:r", "7 7"},
                                                      {"SET", "presence.room:r", "-7 7 7 7 run"},
                                                      {"SET", "presence.room:r", "a b c d e"},
                                                      {"LPUSH", "presence.room:r", "a list"},
                                                      {"HSET", "presence.room:r", "epoch", "7"}};
  RoomPosition before = Say("one").position;
  for (const auto& command : foreign) {
    server_->Command({"DEL", "presence.room:r"});
    server_->Command(command);
    const auto read = Read(before);
    ASSERT_TRUE(read.ok()) << command[2];
    EXPECT_EQ(read->current.sequence, 0u);
    const AppendResult result = Say("two");
    EXPECT_EQ(result.outcome, Appended::kPublished) << command[2];
    EXPECT_EQ(result.position.sequence, 1u);
    EXPECT_GT(result.position.epoch, before.epoch);
    EXPECT_THAT(Texts(), ElementsAre("two")) << "of what nobody has numbered nothing is left";
    EXPECT_EQ(Say("three").position, (RoomPosition{result.position.epoch, 2})) << command[2];
    EXPECT_GT(server_->Command({"PTTL", "presence.room:r"}).number, 3'500'000);
    before = result.position;
  }
  EXPECT_EQ(store_->counters().errors.Value(), 0u);
}

TEST_F(RedisRooms, ForeignThingsInPlaceOfALogAreReplacedByIt) {
  AttachAndComeUp();
  const RoomPosition first = Say("one").position;
  const std::vector<std::vector<std::string>> foreign{
      {"SET", "presence.log:r", "a string"},
      {"LPUSH", "presence.log:r", "a list"},
      {"XADD", "presence.log:r", "99999999999999999-1", "e", "of the future"},
      {"XADD", "presence.log:r", std::to_string(first.epoch) + "-1000", "e", "further"}};
  uint64_t sequence = 1;
  for (const auto& command : foreign) {
    server_->Command({"DEL", "presence.log:r"});
    server_->Command(command);
    EXPECT_THAT(Texts(), IsEmpty());
    EXPECT_EQ(Say("next").position, (RoomPosition{first.epoch, ++sequence})) << "the room is where it was";
    EXPECT_THAT(Texts(), ElementsAre("next"));
    EXPECT_GT(server_->Command({"PTTL", "presence.log:r"}).number, 100'000);
  }
  EXPECT_EQ(store_->counters().errors.Value(), 0u);
}

TEST_F(RedisRooms, AForeignEntryInALogIsSkippedCountedAndInTheEndDropped) {
  store_options_.room_log_length = 8;
  AttachAndComeUp();
  Say("one");
  server_->Command({"DEL", "presence.log:r"});
  server_->Command({"XADD", "presence.log:r", "1-1", "e", "\xff\xff not protobuf"});
  server_->Command({"XADD", "presence.log:r", "1-2", "another", "field", "and", "more"});
  server_->Command({"XADD", "presence.log:r", "1-3", "empty", ""});
  EXPECT_EQ(Say("two").position.sequence, 2u);
  EXPECT_THAT(Texts(), ElementsAre("two"));
  EXPECT_EQ(store_->counters().bus_invalid.Value(), 3u);
  for (int i = 0; i < 8; ++i) EXPECT_EQ(Say("more").outcome, Appended::kPublished);
  EXPECT_THAT(Texts(), testing::Each("more"));
  EXPECT_EQ(store_->counters().bus_invalid.Value(), 3u) << "they are gone";
  EXPECT_EQ(store_->counters().errors.Value(), 0u);
}

TEST_F(RedisRooms, ForeignThingsWhereItSaysSinceWhenAreReplaced) {
  AttachAndComeUp();
  const std::vector<std::vector<std::string>> foreign{{"SET", "presence.rooms", "yesterday"},
                                                      {"SET", "presence.rooms", ""},
                                                      {"SET", "presence.rooms", "99999999999999999999"},
                                                      {"LPUSH", "presence.rooms", "a list"}};
  for (const auto& command : foreign) {
    server_->Command({"DEL", "presence.rooms"});
    server_->Command(command);
    const auto page = Read();
    ASSERT_TRUE(page.ok()) << command[2];
    EXPECT_EQ(page->data_since, page->current.epoch) << "since this moment, as far as anybody knows";
    const auto again = Read();
    ASSERT_TRUE(again.ok());
    EXPECT_EQ(again->data_since, page->data_since);
  }
  EXPECT_EQ(store_->counters().errors.Value(), 0u);
}

TEST_F(RedisRooms, ForeignThingsUnderARequestAreNothing) {
  AttachAndComeUp();
  uint64_t sequence = 0;
  for (const auto& command : std::vector<std::vector<std::string>>{{"SET", "presence.request:q1", "a string"},
                                                                   {"LPUSH", "presence.request:q1", "a list"}}) {
    server_->Command({"DEL", "presence.request:q1"});
    server_->Command(command);
    const AppendResult result = Say("one", "q1");
    EXPECT_EQ(result.outcome, Appended::kPublished) << command[2];
    EXPECT_EQ(result.position.sequence, ++sequence);
    EXPECT_EQ(Say("one", "q1").outcome, Appended::kRepeated);
    EXPECT_GT(server_->Command({"PTTL", "presence.request:q1"}).number, 290'000);
  }
}

}  // namespace
}  // namespace presence::core
