// The store contract: the logs of rooms. Where a page ends, what is dropped and how often, and counters that nobody here has written.
#include "tests/core/store_contract.h"

namespace presence::core {
namespace {

class StoreRoomLog : public StoreContract {
 protected:
  AppendResult Append(size_t bytes = 1) {
    link::v1::BusEnvelope envelope;
    envelope.set_core(kFirstCore);
    envelope.mutable_message()->set_room_id("r");
    envelope.mutable_message()->set_text(std::string(bytes, 'x'));
    backend_->store().Append(++last_id_, "", "", envelope, "");
    backend_->Settle();
    for (int core = 0; core < 2; ++core) backend_->heard(core).bus.clear();  // some are large
    return backend_->heard().appended[last_id_];
  }
  RoomLogPage Read(RoomPosition after, size_t entries_max = 256) {
    backend_->store().ReadRoomLog(++last_id_, {.room_id = "r", .after = after, .entries_max = entries_max});
    backend_->Settle();
    const auto page = backend_->heard().pages.extract(last_id_);
    EXPECT_TRUE(!page.empty() && page.mapped().ok());
    return page.empty() ? RoomLogPage() : *page.mapped();
  }
  RoomPosition Oldest() {
    const RoomLogPage page = Read({}, 1);
    return page.entries.empty() ? RoomPosition() : PositionOf(page.entries[0]);
  }

  static constexpr size_t kBytesMax = size_t{4} << 20;  // of StoreOptions
};

TEST_P(StoreRoomLog, APageEndsWithTheMessageThatReachesItsBytes) {
  RoomPosition last;
  for (int i = 0; i < 5; ++i) last = Append(200'000).position;
  RoomLogPage page = Read({});
  EXPECT_THAT(page.entries, SizeIs(2));
  EXPECT_TRUE(page.more);
  page = Read(PositionOf(page.entries.back()));
  EXPECT_THAT(page.entries, SizeIs(2));
  page = Read(PositionOf(page.entries.back()));
  EXPECT_THAT(page.entries, SizeIs(1));
  EXPECT_FALSE(page.more);
  EXPECT_EQ(page.current, last);
}

TEST_P(StoreRoomLog, APageOfManySmallMessagesEndsAtTheLargeOneToo) {
  for (int i = 0; i < 8; ++i) Append(10'000);
  for (int i = 0; i < 5; ++i) Append(100'000);
  const RoomLogPage page = Read({});
  EXPECT_THAT(page.entries, SizeIs(10)) << "also where several were fetched at once";
  EXPECT_TRUE(page.more);
  EXPECT_THAT(Read(PositionOf(page.entries.back())).entries, SizeIs(3));
}

TEST_P(StoreRoomLog, ALogOverItsBytesMakesRoomForSeveral) {
  constexpr size_t kBytes = 50'000, kFull = kBytesMax / kBytes;
  for (size_t i = 0; i < kFull; ++i) Append(kBytes);
  EXPECT_EQ(Oldest().sequence, 1u);
  uint64_t oldest = 1;
  int cuts = 0;
  for (size_t i = 0; i < 20; ++i) {
    const uint64_t newest = Append(kBytes).position.sequence, before = std::exchange(oldest, Oldest().sequence);
    cuts += oldest != before ? 1 : 0;
    EXPECT_LE(newest - oldest + 1, kFull);
    EXPECT_GE(newest - oldest + 1, kFull - kFull / 16 - 1);
  }
  EXPECT_GE(cuts, 3);
  EXPECT_LE(cuts, 5) << "each makes room for five";
}

TEST_P(StoreRoomLog, ARoomThatIsNeverSilentIsNotCutAtEachMessage) {
  int cuts = 0;
  uint64_t oldest = 1;
  for (int i = 0; i < 600; ++i) {
    Append();
    const uint64_t before = std::exchange(oldest, Oldest().sequence);
    cuts += oldest != before ? 1 : 0;
    EXPECT_LE(i + 1 - static_cast<int>(oldest), 242) << "seconds; twice its age at most";
    EXPECT_GE(i + 1 - static_cast<int>(oldest), i < 120 ? 0 : 120);
    backend_->Advance(seconds(1));
  }
  EXPECT_EQ(cuts, 3) << "one for each time that something can have grown too old";
}

TEST_P(StoreRoomLog, WhatIsTooOldGoesAtOnce) {
  for (int i = 0; i < 50; ++i) Append();
  backend_->Advance(seconds(121));
  Append();
  EXPECT_EQ(Oldest().sequence, 1u) << "nobody knows yet what is older than what";
  backend_->Advance(seconds(121));
  Append();
  EXPECT_EQ(Oldest().sequence, 51u);
}

TEST_P(StoreRoomLog, ALogThatWasSilentForItsTimeIsGone) {
  Append();
  backend_->Advance(seconds(119));
  Append();
  EXPECT_EQ(backend_->Ttl("presence.log:r"), GetParam() == BackendKind::kMemory ? 121 : 240)
      << "its time was set with the first; of the real Redis no time has passed";
  backend_->Advance(seconds(121));
  backend_->Drop(backend_->DropLapsed());
  backend_->Drop({"presence.log:r"});
  const RoomPosition next = Append().position;
  EXPECT_EQ(next.sequence, 3u);
  EXPECT_EQ(Oldest(), next);
  EXPECT_EQ(backend_->Ttl("presence.log:r"), 240);
}

TEST_P(StoreRoomLog, ALogIsCutSixteenAtATime) {
  uint64_t oldest = 1;
  int cuts = 0;
  for (uint64_t i = 1; i <= 1'100; ++i) {
    const uint64_t newest = Append().position.sequence;
    if (i < 950) continue;
    const uint64_t before = std::exchange(oldest, Oldest().sequence);
    cuts += oldest != before ? 1 : 0;
    EXPECT_LE(newest - oldest + 1, 1'000u);
    EXPECT_GE(newest - oldest + 1, std::min<uint64_t>(i, 985));
  }
  EXPECT_EQ(cuts, 7);
}

INSTANTIATE_TEST_SUITE_P(Stores, StoreRoomLog, testing::Values(BackendKind::kMemory, BackendKind::kRedis), BackendName);

// In memory these are no text.
class StoreRoomLogInRedis : public StoreRoomLog {};

TEST_P(StoreRoomLogInRedis, CountersThatNobodyHereHasWrittenAreNothing) {
  const auto numbers = [](std::vector<uint64_t> some) {
    std::string bytes;
    some.resize(10, 1);
    for (const uint64_t number : some) {
      for (int i = 0; i < 8; ++i) bytes.push_back(static_cast<char>(number >> 8 * i));
    }
    return bytes + "x";
  };
  constexpr uint64_t kTooLarge = uint64_t{1} << 53;
  for (const std::string& counters :
       {numbers({kTooLarge}), numbers({~uint64_t{0}}), numbers({1, kTooLarge + 1}), numbers({1, 1, kTooLarge}),
        numbers({1, 1, 1, kTooLarge}), numbers({1, 1, 1, 1, 1, kTooLarge}), numbers({0, 1}), numbers({1, 0}),
        numbers({1, 1}).substr(0, 79), std::string("1 1 1 1 x"), std::string("nonsense")}) {
    SCOPED_TRACE(counters);
    SharedRedis().Command({"SET", "presence.room:r", counters});
    backend_->Advance(seconds(1));
    EXPECT_EQ(Read({}).current, (RoomPosition{NowMicroseconds(), 0}));
    const AppendResult first = Append();
    EXPECT_EQ(first.outcome, OnceResult::Outcome::kPublished);
    EXPECT_EQ(first.position, (RoomPosition{NowMicroseconds(), 1}));
    EXPECT_EQ(Append().position, (RoomPosition{NowMicroseconds(), 2}));
    EXPECT_THAT(Read({}).entries, SizeIs(2));
  }
}

TEST_P(StoreRoomLogInRedis, WithoutTheRightToKeepItNothingIsSent) {
  SharedRedis().Command({"ACL", "SETUSER", "default", "-xadd"});
  EXPECT_EQ(Append().outcome, OnceResult::Outcome::kUnavailable);
  SharedRedis().Command({"ACL", "SETUSER", "default", "+xadd"});
  EXPECT_EQ(Read({}).current.sequence, 0u);
  EXPECT_EQ(Append().position.sequence, 1u);
}

INSTANTIATE_TEST_SUITE_P(Stores, StoreRoomLogInRedis, testing::Values(BackendKind::kRedis), BackendName);

}  // namespace
}  // namespace presence::core
