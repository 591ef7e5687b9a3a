// The store contract: the logs of rooms. What is numbered how, what happens once for a request_id, what a reader gets, what remains. How the
// bounds are kept is in store_room_log_test.cc.
#include "tests/core/store_contract.h"

namespace presence::core {
namespace {

using Append = OnceResult::Outcome;

constexpr size_t kLength = 32;
constexpr size_t kBytes = 400'000;
constexpr RoomPosition kUnknown{};

std::string Text(RoomPosition position) {
  return std::to_string(position.epoch) + "-" + std::to_string(position.sequence);
}

class StoreRooms : public StoreContract {
 protected:
  StoreRooms() {
    options_.room_log_length = kLength;
    options_.room_log_bytes = kBytes;
  }

  AppendResult Say(std::string_view room, std::string_view text, std::string_view request_id = "",
                   std::string_view fingerprint = "", int core = 0) {
    link::v1::BusEnvelope envelope;
    envelope.set_core(kFirstCore);
    envelope.mutable_message()->set_room_id(std::string(room));
    envelope.mutable_message()->set_text(std::string(text));
    backend_->store(core).Append(++last_id_, request_id, fingerprint, envelope, "outside");
    EXPECT_FALSE(backend_->heard(core).appended.contains(last_id_)) << "answered from inside the call";
    backend_->Settle();
    EXPECT_TRUE(backend_->heard(core).appended.contains(last_id_)) << "no answer";
    return backend_->heard(core).appended[last_id_];
  }
  RoomLogPage Read(std::string_view room, RoomPosition after = kUnknown, size_t entries_max = 1'000, int core = 0) {
    backend_->store(core).ReadRoomLog(++last_id_, {room, after, entries_max, seen_});
    EXPECT_FALSE(backend_->heard(core).pages.contains(last_id_)) << "answered from inside the call";
    backend_->Settle();
    const auto answer = backend_->heard(core).pages.find(last_id_);
    EXPECT_TRUE(answer != backend_->heard(core).pages.end() && answer->second.ok());
    return answer == backend_->heard(core).pages.end() || !answer->second.ok() ? RoomLogPage{} : *answer->second;
  }
  static std::vector<std::string> TextsOf(const RoomLogPage& page) {
    std::vector<std::string> texts;
    for (const link::v1::BusEnvelope& entry : page.entries) texts.push_back(entry.message().text());
    return texts;
  }
  // The same, by a core that has seen the room so far.
  RoomLogPage ReadAfterSeeing(RoomPosition seen, RoomPosition after = kUnknown, int core = 0) {
    seen_ = seen;
    RoomLogPage page = Read("r", after, 1'000, core);
    seen_ = {};
    return page;
  }
  // How many entries the log has. Without a hole, and the newest among them.
  uint64_t Left(std::string_view room, RoomPosition newest) {
    uint64_t left = 0;
    RoomPosition at;
    for (bool more = true; more;) {
      const RoomLogPage page = Read(room, at);
      EXPECT_EQ(page.current, newest);
      for (const link::v1::BusEnvelope& entry : page.entries) {
        if (left > 0) {
          EXPECT_EQ(Text(PreviousOf(entry)), Text(at));
        }
        ++left;
        at = PositionOf(entry);
      }
      more = page.more && !page.entries.empty();
    }
    EXPECT_EQ(Text(at), Text(newest)) << "the newest is always there";
    return left;
  }

  RoomPosition seen_;  // what Read says
};
INSTANTIATE_TEST_SUITE_P(Stores, StoreRooms, testing::Values(BackendKind::kMemory, BackendKind::kRedis), BackendName);

// -------------------------------------------------------------------------------------------------------------- numbers

TEST_P(StoreRooms, MessagesOfARoomAreNumberedFromOneWhicheverCoreTakesThem) {
  const uint64_t epoch = NowMicroseconds();
  for (uint64_t sequence = 1; sequence <= 4; ++sequence) {
    const AppendResult result = Say("r", std::to_string(sequence), "", "", static_cast<int>(sequence % 2));
    EXPECT_EQ(result.outcome, Append::kPublished);
    EXPECT_EQ(Text(result.position), Text({epoch, sequence}));
    backend_->Advance(seconds(1));
  }
  EXPECT_EQ(Text(Say("another", "one").position), Text({NowMicroseconds(), 1}));
}

TEST_P(StoreRooms, TheBusTheLogAndTheAnswerSayTheSamePosition) {
  const RoomPosition first = Say("r", "one").position, second = Say("r", "two").position;
  for (int core : {0, 1}) {
    const auto& bus = backend_->heard(core).bus;
    ASSERT_THAT(bus, SizeIs(2));
    EXPECT_EQ(PositionOf(bus[0]), first);
    EXPECT_EQ(PositionOf(bus[1]), second);
    EXPECT_EQ(bus[1].core(), kFirstCore);
    EXPECT_EQ(bus[1].message().text(), "two");
    const RoomLogPage page = Read("r", kUnknown, 10, core);
    ASSERT_THAT(page.entries, SizeIs(2));
    for (size_t i = 0; i < 2; ++i) EXPECT_EQ(page.entries[i].SerializeAsString(), bus[i].SerializeAsString());
  }
  EXPECT_THAT(backend_->heard(1).messages, ElementsAre("outside", "outside"));
}

TEST_P(StoreRooms, TheFirstOfARoomSaysSinceWhenNothingCanHaveBeenLost) {
  const uint64_t since = Read("some room").data_since;
  EXPECT_EQ(since, NowMicroseconds()) << "nothing was known before";
  backend_->Advance(seconds(5));
  Say("r", "one");
  Say("r", "two");
  const RoomLogPage page = Read("r");
  EXPECT_EQ(page.data_since, since);
  ASSERT_THAT(page.entries, SizeIs(2));
  EXPECT_EQ(page.entries[0].room_previous_epoch(), since);
  EXPECT_EQ(page.entries[0].room_previous_sequence(), 0u);
  EXPECT_EQ(page.entries[1].room_previous_epoch(), 0u) << "what is before it goes without saying";
  EXPECT_EQ(page.entries[1].room_previous_sequence(), 0u);
}

TEST_P(StoreRooms, AnotherRunOfRedisBeginsAnEpochThatSaysWhatWasBefore) {
  Say("r", "one");
  const RoomPosition before = Say("r", "two").position;
  backend_->Restart();
  backend_->Advance(-minutes(1));  // the clock of the new one is behind
  if (GetParam() == BackendKind::kRedis) {
    // The stores know the run that they are connected to; to the room it is another one now.
    EXPECT_EQ(Read("r").current, before) << "reading begins nothing";
  }
  const RoomPosition after = Say("r", "three").position;
  EXPECT_GT(after.epoch, before.epoch);
  EXPECT_EQ(after.sequence, 1u);
  const RoomLogPage rest = Read("r", {before.epoch, 1});
  EXPECT_THAT(TextsOf(rest), ElementsAre("two", "three")) << "the log reaches over the two";
  ASSERT_THAT(rest.entries, SizeIs(2));
  EXPECT_EQ(PreviousOf(rest.entries[1]), before);
  EXPECT_EQ(Text(Say("r", "four").position), Text({after.epoch, 2}));
}

TEST_P(StoreRooms, AnEmptiedStoreBeginsAnew) {
  const RoomPosition before = Say("r", "one").position;
  backend_->Advance(seconds(1));
  backend_->Wipe();
  const RoomPosition after = Say("r", "two").position;
  EXPECT_EQ(Text(after), Text({NowMicroseconds(), 1}));
  const RoomLogPage page = Read("r", before);
  EXPECT_THAT(TextsOf(page), ElementsAre("two"));
  EXPECT_EQ(page.data_since, NowMicroseconds());
  ASSERT_THAT(page.entries, SizeIs(1));
  EXPECT_FALSE(Follows(before, page.entries[0])) << "whoever was there sees that something may be lost";
}

TEST_P(StoreRooms, TheKeysEndWithTheirTime) {
  const RoomPosition first = Say("r", "one").position;
  EXPECT_EQ(backend_->Ttl("presence.log:r"), 240);
  EXPECT_EQ(backend_->Ttl("presence.room:r"), 3'600);
  EXPECT_EQ(backend_->Ttl("presence.rooms"), std::nullopt);
  EXPECT_TRUE(backend_->Dump().contains("presence.rooms")) << "for ever";

  // The log ends; where the room was is still known.
  backend_->Advance(seconds(240));
  backend_->Drop({"presence.log:r"});
  const RoomLogPage page = Read("r");
  EXPECT_THAT(page.entries, IsEmpty());
  EXPECT_EQ(page.current, first);
  EXPECT_FALSE(page.more);
  EXPECT_EQ(Text(Say("r", "two").position), Text({first.epoch, 2}));

  backend_->Advance(kRoomMemory);
  backend_->Drop({"presence.log:r", "presence.room:r"});
  EXPECT_EQ(Text(Read("r").current), Text({NowMicroseconds(), 0}));
  EXPECT_EQ(Text(Say("r", "three").position), Text({NowMicroseconds(), 1}));
  EXPECT_THAT(TextsOf(Read("r")), ElementsAre("three"));
}

// ---------------------------------------------------------------------------------------------------------- what Redis has lost

TEST_P(StoreRooms, WhatSomebodyHasSeenAndIsNotThereIsPutDownForAll) {
  Say("r", "one");
  const RoomPosition kept = Say("r", "two").position;
  for (int core : {0, 1}) backend_->heard(core).bus.clear();
  backend_->Advance(seconds(1));
  const RoomPosition noted{NowMicroseconds(), 1};
  const RoomLogPage page = ReadAfterSeeing({kept.epoch, 4}, {kept.epoch, 1});
  EXPECT_EQ(Text(page.current), Text(noted));
  EXPECT_FALSE(page.more);
  ASSERT_THAT(page.entries, SizeIs(2));
  EXPECT_EQ(page.entries[0].message().text(), "two") << "what is kept is kept";
  const link::v1::BusEnvelope& note = page.entries[1];
  EXPECT_EQ(note.room_lost().room_id(), "r");
  EXPECT_EQ(Text(PositionOf(note)), Text(noted));
  for (const RoomPosition reader : {RoomPosition{kept.epoch, 1}, kept, RoomPosition{kept.epoch, 4},
                                    RoomPosition{noted.epoch - 1, 0}, RoomPosition{1, 7}}) {
    EXPECT_FALSE(Follows(reader, note)) << "nobody goes on as if nothing had happened: " << Text(reader);
  }
  for (int core : {0, 1}) {
    ASSERT_THAT(backend_->heard(core).bus, SizeIs(1)) << "the others need not read to know";
    EXPECT_EQ(backend_->heard(core).bus[0].SerializeAsString(), note.SerializeAsString());
  }
  EXPECT_THAT(backend_->heard(1).messages, SizeIs(2)) << "it is nothing for outsiders";
  // Whoever else has seen it proves nothing new.
  for (const uint64_t sequence : {3, 4, 5}) {
    EXPECT_EQ(Text(ReadAfterSeeing({kept.epoch, sequence}, kUnknown, 1).current), Text(noted));
  }
  EXPECT_EQ(Text(Say("r", "three").position), Text({noted.epoch, 2})) << "and the room goes on behind it";
  EXPECT_EQ(backend_->Ttl("presence.room:r"), 3'600);
}

TEST_P(StoreRooms, WhatIsThereProvesNothing) {
  Say("r", "one");
  const RoomPosition newest = Say("r", "two").position;
  for (const RoomPosition seen : {kUnknown, newest, RoomPosition{newest.epoch, 1}, RoomPosition{newest.epoch, 0},
                                  RoomPosition{newest.epoch + 1'000'000, 0}, RoomPosition{newest.epoch - 1, 9}}) {
    EXPECT_EQ(Text(ReadAfterSeeing(seen).current), Text(newest)) << Text(seen);
  }
}

TEST_P(StoreRooms, WhatIsLostIsFoundOutBehindMessagesOfALaterRunToo) {
  Say("r", "one");
  const RoomPosition kept = Say("r", "two").position;
  backend_->Restart();
  backend_->Advance(seconds(1));
  const RoomPosition next = Say("r", "three").position;
  EXPECT_EQ(Text(ReadAfterSeeing(kept).current), Text(next)) << "that follows";
  backend_->Advance(seconds(1));
  EXPECT_EQ(Text(ReadAfterSeeing({kept.epoch, 3}).current), Text({NowMicroseconds(), 1}));
}

TEST_P(StoreRooms, AnEpochThatIsNotThereIsLost) {
  Say("r", "one");
  const RoomPosition kept = Say("r", "two").position;
  backend_->Restart();
  const RoomPosition lost{kept.epoch + 5'000'000, 1};
  backend_->Advance(seconds(1));  // the clock of the new one is behind
  const RoomPosition noted = ReadAfterSeeing(lost).current;
  EXPECT_EQ(Text(noted), Text({lost.epoch + 1, 1})) << "behind everything that anybody has seen";
  backend_->Restart();
  const RoomPosition next = Say("r", "three").position;
  EXPECT_GT(next.epoch, noted.epoch);
  EXPECT_EQ(Text(ReadAfterSeeing({noted.epoch, 1}).current), Text(next)) << "the note itself is followed";
}

TEST_P(StoreRooms, ARoomWhoseFirstMessagesAreLostIsOneThatHasLostSomething) {
  Read("another");  // Redis has its data since now
  backend_->Advance(seconds(5));
  const RoomPosition lost{NowMicroseconds(), 3};
  const uint64_t since = lost.epoch - 2'000'000;
  backend_->Advance(seconds(1));
  const RoomLogPage page = ReadAfterSeeing(lost);
  EXPECT_EQ(Text(page.current), Text({NowMicroseconds(), 1}));
  ASSERT_THAT(page.entries, SizeIs(1));
  EXPECT_FALSE(Follows({since, 0}, page.entries[0])) << "who had subscribed before, and had nothing";
}

TEST_P(StoreRooms, FirstMessagesThatAreLostAreFoundOutBehindLaterOnesToo) {
  Read("another");
  backend_->Advance(seconds(5));
  const RoomPosition lost{NowMicroseconds(), 3};
  backend_->Advance(seconds(1));
  const RoomPosition first = Say("r", "one").position;
  backend_->Advance(seconds(1));
  EXPECT_GT(ReadAfterSeeing(lost).current.epoch, first.epoch);
}

TEST_P(StoreRooms, AnEmptiedStoreSaysByItselfThatEverythingIsLost) {
  const RoomPosition before = Say("r", "one").position;
  backend_->Advance(seconds(1));
  backend_->Wipe();
  const RoomLogPage page = ReadAfterSeeing(before);
  EXPECT_EQ(Text(page.current), Text({NowMicroseconds(), 0}));
  EXPECT_GT(page.data_since, before.epoch);
  EXPECT_FALSE(backend_->Dump().contains("presence.room:r"))
      << "nothing is written for each of a hundred thousand rooms";
  const RoomPosition first = Say("r", "two").position;
  EXPECT_EQ(Text(ReadAfterSeeing(before).current), Text(first));
}

TEST_P(StoreRooms, WhatIsForgottenAfterItsTimeIsNotLost) {
  const RoomPosition before = Say("r", "one").position;
  backend_->Advance(kRoomMemory);
  backend_->Drop({"presence.log:r", "presence.room:r"});
  EXPECT_EQ(ReadAfterSeeing(before).current.sequence, 0u);
  const RoomPosition first = Say("r", "two").position;
  EXPECT_EQ(Text(ReadAfterSeeing(before).current), Text(first));
}

TEST_P(StoreRooms, WhatNobodyCanHaveSeenProvesNothing) {
  const RoomPosition newest = Say("r", "one").position;
  for (const uint64_t ahead : {uint64_t{3'600'000'001}, uint64_t{1} << 53, uint64_t{1} << 63}) {
    EXPECT_EQ(Text(ReadAfterSeeing({newest.epoch + ahead, 1}).current), Text(newest));
  }
}

// ------------------------------------------------------------------------------------------------------------- once for an id

TEST_P(StoreRooms, ARepeatIsNeitherNumberedNorPublished) {
  const RoomPosition first = Say("r", "one", "q1", "print").position;
  backend_->store().SaveAnswer("q1", "42");
  for (int core : {0, 1}) {
    const AppendResult again = Say("r", "one", "q1", "print", core);
    EXPECT_EQ(again.outcome, Append::kRepeated);
    EXPECT_EQ(again.answer, "42");
    const AppendResult other = Say("r", "one", "q1", "other print", core);
    EXPECT_EQ(other.outcome, Append::kConflict);
    EXPECT_EQ(other.answer, "") << "that of somebody else";
  }
  EXPECT_THAT(backend_->heard(1).bus, SizeIs(1));
  EXPECT_THAT(backend_->heard(1).messages, SizeIs(1));
  EXPECT_THAT(TextsOf(Read("r")), ElementsAre("one"));
  EXPECT_EQ(Text(Say("r", "two", "q2", "print").position), Text({first.epoch, 2}));
}

TEST_P(StoreRooms, AnIdIsOneForAllRoomsAndForWhatStandsInNoLog) {
  Say("r", "one", "q1", "print");
  EXPECT_EQ(Say("another", "one", "q1", "other print").outcome, Append::kConflict);
  EXPECT_EQ(Text(Read("another").current), Text({NowMicroseconds(), 0})) << "it has left no trace";
  EXPECT_FALSE(backend_->Dump().contains("presence.room:another"));

  backend_->store().PublishOnce(++last_id_, "q1", "print", {}, "");
  backend_->store().PublishOnce(++last_id_, "q2", "print", {}, "");
  backend_->Settle();
  EXPECT_EQ(backend_->heard().once[last_id_ - 1].outcome, Append::kRepeated);
  EXPECT_EQ(Say("r", "two", "q2", "print").outcome, Append::kRepeated);
}

TEST_P(StoreRooms, WithoutAnIdTheSameIsSaidTwice) {
  for (uint64_t sequence : {1, 2}) {
    const AppendResult result = Say("r", "one", "", "print");
    EXPECT_EQ(result.outcome, Append::kPublished);
    EXPECT_EQ(result.position.sequence, sequence);
  }
}

TEST_P(StoreRooms, AfterFiveMinutesTheIdIsFree) {
  Say("r", "one", "q1", "print");
  EXPECT_EQ(backend_->Ttl("presence.request:q1"), 300);
  backend_->Advance(minutes(5) - milliseconds(1));
  EXPECT_EQ(Say("r", "one", "q1", "print").outcome, Append::kRepeated);
  backend_->Advance(milliseconds(1));
  backend_->Drop({"presence.request:q1"});
  EXPECT_EQ(Say("r", "two", "q1", "other print").outcome, Append::kPublished);
}

TEST_P(StoreRooms, AppendsAreAnsweredInTheOrderOfTheCalls) {
  link::v1::BusEnvelope envelope;
  for (uint64_t id = 1; id <= 30; id += 3) {
    envelope.mutable_message()->set_room_id(id % 2 == 0 ? "r" : "another");
    backend_->store().Append(id, "", "", envelope, "");
    backend_->store().Publish(id + 1, envelope, "");
    backend_->store().Append(id + 2, "q" + std::to_string(id / 6), "", envelope, "");
  }
  backend_->Settle();
  ASSERT_THAT(backend_->heard().answers, SizeIs(30));
  EXPECT_TRUE(std::is_sorted(backend_->heard().answers.begin(), backend_->heard().answers.end()));
  EXPECT_THAT(backend_->heard(1).messages, IsEmpty()) << "no text for outsiders";
}

// ------------------------------------------------------------------------------------------------------------------ pages

TEST_P(StoreRooms, OfARoomOfWhichNothingIsKnownThePositionIsTheMoment) {
  for (size_t entries_max : {0, 10}) {
    const RoomLogPage page = Read("r", {1, 7}, entries_max);
    EXPECT_EQ(Text(page.current), Text({NowMicroseconds(), 0}));
    EXPECT_THAT(page.entries, IsEmpty());
    EXPECT_FALSE(page.more);
    backend_->Advance(seconds(1));
  }
  EXPECT_FALSE(backend_->Dump().contains("presence.room:r")) << "reading leaves nothing";
}

TEST_P(StoreRooms, AReaderGetsWhatIsBehindItsPosition) {
  RoomPosition at;
  for (const char* text : {"1", "2", "3", "4"}) at = Say("r", text).position;
  const uint64_t epoch = at.epoch;
  EXPECT_THAT(TextsOf(Read("r")), ElementsAre("1", "2", "3", "4"));
  EXPECT_THAT(TextsOf(Read("r", {epoch, 0})), ElementsAre("1", "2", "3", "4"));
  EXPECT_THAT(TextsOf(Read("r", {epoch, 2})), ElementsAre("3", "4"));
  EXPECT_THAT(TextsOf(Read("r", at)), IsEmpty());
  EXPECT_THAT(TextsOf(Read("r", {epoch, 9})), IsEmpty()) << "further than Redis is: that it says, by its position";
  EXPECT_THAT(TextsOf(Read("r", {epoch - 1, 9})), ElementsAre("1", "2", "3", "4"));
  EXPECT_THAT(TextsOf(Read("r", {epoch + 1, 1})), IsEmpty());
  for (const RoomPosition after : {RoomPosition{epoch, 2}, RoomPosition{epoch, 9}}) {
    const RoomLogPage page = Read("r", after);
    EXPECT_EQ(page.current, at);
    EXPECT_FALSE(page.more);
  }
}

TEST_P(StoreRooms, APageHoldsAsManyEntriesAsAskedFor) {
  RoomPosition newest;
  for (int i = 1; i <= 20; ++i) newest = Say("r", std::to_string(i)).position;
  const RoomLogPage none = Read("r", kUnknown, 0);
  EXPECT_THAT(none.entries, IsEmpty());
  EXPECT_EQ(none.current, newest);
  // Any number of them, page by page, is the whole log.
  for (const size_t entries_max : {1, 7, 8, 9, 19, 20, 21}) {
    RoomPosition at;
    size_t total = 0;
    for (bool more = true; more;) {
      const RoomLogPage page = Read("r", at, entries_max);
      EXPECT_EQ(page.entries.size(), std::min(entries_max, 20 - total));
      EXPECT_EQ(page.current, newest);
      ASSERT_FALSE(page.entries.empty()) << entries_max;
      for (const link::v1::BusEnvelope& entry : page.entries) EXPECT_EQ(entry.room_sequence(), ++total);
      at = PositionOf(page.entries.back());
      more = page.more;
      EXPECT_EQ(more, total < 20) << entries_max;
    }
    EXPECT_EQ(total, 20u) << entries_max;
  }
}

TEST_P(StoreRooms, RoomsAndTextsAreBytesToTheStore) {
  std::string all;
  for (int byte = 0; byte < 128; ++byte) all += static_cast<char>(byte);
  for (const std::string& room : {std::string("*"), std::string("r 1-1 2 3"), std::string("r\r\n"), all}) {
    EXPECT_EQ(Say(room, all + room).position.sequence, 1u);
    EXPECT_EQ(Say(room, "two").position.sequence, 2u);
    EXPECT_THAT(TextsOf(Read(room)), ElementsAre(all + room, "two"));
  }
}

// ----------------------------------------------------------------------------------------------------------------- bounds

TEST_P(StoreRooms, ALogIsNoLongerThanItMayBe) {
  for (uint64_t i = 1; i <= 3 * kLength; ++i) {
    const RoomPosition newest = Say("r", std::to_string(i)).position;
    EXPECT_EQ(newest.sequence, i) << "numbers do not know of it";
    const uint64_t left = Left("r", newest);
    EXPECT_LE(left, kLength);
    EXPECT_GE(left, std::min<uint64_t>(i, kLength - kLength / 16)) << "no more goes than that";
  }
}

TEST_P(StoreRooms, AnEntryThatIsLargerThanTheLogIsThereUntilTheNext) {
  Say("r", "small");
  const std::string text(kBytes + 1, 'x');
  Say("r", text);
  EXPECT_THAT(TextsOf(Read("r")), ElementsAre(text));
  Say("r", "next");
  EXPECT_THAT(TextsOf(Read("r")), ElementsAre("next"));
}

TEST_P(StoreRooms, WhatIsTooOldGoesWithTheNextMessage) {
  for (int i = 1; i <= 10; ++i) Say("r", "old");
  backend_->Advance(seconds(121));
  for (int i = 1; i <= 10; ++i) Say("r", "newer");
  EXPECT_THAT(Read("r").entries, SizeIs(20));
  backend_->Advance(seconds(121));
  EXPECT_THAT(Read("r").entries, SizeIs(20)) << "a reader drops nothing";
  const RoomPosition newest = Say("r", "newest").position;
  EXPECT_EQ(newest.sequence, 21u);
  EXPECT_EQ(Left("r", newest), 11u) << "ten newer ones, and this";
  EXPECT_EQ(backend_->Ttl("presence.log:r"), 240);
}

TEST_P(StoreRooms, RoomsHaveBoundsOfTheirOwn) {
  Say("r", "one");
  for (size_t i = 0; i < 2 * kLength; ++i) Say("another", "x");
  EXPECT_THAT(TextsOf(Read("r")), ElementsAre("one"));
}

}  // namespace
}  // namespace presence::core
