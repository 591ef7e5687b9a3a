// Time and connection ids: the two small things that everybody writes down.
#include "common/time.h"

#include <gtest/gtest.h>

#include <limits>

#include "common/connection_id.h"
#include "common/ids.h"

namespace presence {
namespace {

using namespace std::chrono_literals;

TEST(FormatTimestampTest, IsUtcInWholeSecondsWithATrailingZ) {
  EXPECT_EQ(FormatTimestamp(FromUnixMillis(1736856000000)), "2025-01-14T12:00:00Z");
  EXPECT_EQ(FormatTimestamp(FromUnixMillis(1736856000999)), "2025-01-14T12:00:00Z");
  EXPECT_EQ(FormatTimestamp(FromUnixMillis(0)), "1970-01-01T00:00:00Z");
  EXPECT_EQ(FormatTimestamp(FromUnixMillis(1709164800000)), "2024-02-29T00:00:00Z");
}

TEST(FormatTimestampTest, BeforeTheEpochItRoundsDownToo) {
  EXPECT_EQ(FormatTimestamp(FromUnixMillis(-1)), "1969-12-31T23:59:59Z");
}

TEST(UnixMillisTest, GoThereAndBack) {
  EXPECT_EQ(ToUnixMillis(FromUnixMillis(1736856000123)), 1736856000123);
  EXPECT_EQ(ToUnixMillis(FromUnixMillis(0) + 1999us), 1);
}

TEST(UnixMillisTest, WhatNoClockCanSayIsTheEndOfTheClock) {
  constexpr int64_t kLast = std::numeric_limits<int64_t>::max(), kFirst = std::numeric_limits<int64_t>::min();
  EXPECT_EQ(FormatTimestamp(FromUnixMillis(kLast)), "2262-04-11T23:47:16Z");
  EXPECT_EQ(FormatTimestamp(FromUnixMillis(kFirst)), "1677-09-21T00:12:43Z");
  EXPECT_EQ(ToUnixMillis(FromUnixMillis(1'760'000'000'000'001)), ToUnixMillis(FromUnixMillis(kLast)));
}

TEST(ConnectionIdTest, PacksShardSlotAndGenerationWithoutLoss) {
  const ConnectionId largest{(1u << ConnectionId::kShardBits) - 1, (1u << ConnectionId::kSlotBits) - 1, 0xFFFFFFFFu};
  EXPECT_EQ(largest.Pack(), ~uint64_t{0});
  for (const ConnectionId id : {ConnectionId{}, ConnectionId{1, 2, 3}, largest, ConnectionId{0, 0, 0x80000000u}}) {
    EXPECT_EQ(ConnectionId::Unpack(id.Pack()), id);
  }
}

TEST(ConnectionIdTest, TheNextOwnerOfASlotIsAnotherConnection) {
  EXPECT_NE((ConnectionId{1, 2, 3}).Pack(), (ConnectionId{1, 2, 4}).Pack());
}

TEST(ConnectionNameTest, ShowsBothNumbersAtFullWidth) {
  EXPECT_EQ(ConnectionName(0xABC, 1), "conn-0000000000000abc-0000000000000001");
  EXPECT_EQ(ConnectionName(~uint64_t{0}, ~uint64_t{0}), "conn-ffffffffffffffff-ffffffffffffffff");
}

TEST(StrongIdTest, WrapsANumberAndComparesByIt) {
  using RoomHandle = StrongId<struct RoomTag, uint32_t>;
  EXPECT_EQ(RoomHandle(7).value(), 7u);
  EXPECT_LT(RoomHandle(6), RoomHandle(7));
  EXPECT_EQ(std::hash<RoomHandle>()(RoomHandle(7)), std::hash<RoomHandle>()(RoomHandle(7)));
}

}  // namespace
}  // namespace presence
