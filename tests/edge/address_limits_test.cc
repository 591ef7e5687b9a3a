#include "edge/address_limits.h"

#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <vector>

namespace presence::edge {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::seconds;
using Verdict = AddressLimits::Verdict;

PeerAddress Address(std::string_view text) {
  return PeerAddress::Parse(text).value();
}
PeerAddress Numbered(int number) {
  return Address("10." + std::to_string(number >> 16) + "." + std::to_string(number >> 8 & 255) + "." +
                 std::to_string(number & 255));
}

class AddressLimitsTest : public ::testing::Test {
 protected:
  static AddressLimitsOptions Options() {
    return {.connections_max = 3, .handshakes_per_second = 10, .handshakes_burst = 20, .addresses_max = 4};
  }
  SteadyTime now_ = SteadyTime() + hours(1);
  AddressLimits limits_{Options()};
  const PeerAddress alice_ = Address("192.0.2.1"), bob_ = Address("192.0.2.2");
};

TEST_F(AddressLimitsTest, ConnectionsAreCountedUntilReleased) {
  for (int i = 0; i < 3; ++i) EXPECT_EQ(limits_.AdmitSocket(alice_, now_), Verdict::kAdmitted);
  EXPECT_EQ(limits_.AdmitSocket(alice_, now_), Verdict::kTooManyConnections);
  EXPECT_EQ(limits_.AdmitConnection(alice_, now_), Verdict::kTooManyConnections) << "by a proxy or not";
  EXPECT_EQ(limits_.AdmitSocket(bob_, now_), Verdict::kAdmitted);
  limits_.Release(alice_, now_);
  EXPECT_EQ(limits_.AdmitConnection(alice_, now_), Verdict::kAdmitted);
  EXPECT_EQ(limits_.AdmitSocket(alice_, now_), Verdict::kTooManyConnections);
}

TEST_F(AddressLimitsTest, HandshakesHaveARateThenAnAnswerThenNone) {
  const auto knock = [this] {
    const Verdict verdict = limits_.AdmitSocket(alice_, now_);
    if (verdict == Verdict::kAdmitted || verdict == Verdict::kTooManyHandshakes) limits_.Release(alice_, now_);
    return verdict;
  };
  for (int i = 0; i < 20; ++i) EXPECT_EQ(knock(), Verdict::kAdmitted);
  for (int i = 0; i < 20; ++i) EXPECT_EQ(knock(), Verdict::kTooManyHandshakes);
  EXPECT_EQ(knock(), Verdict::kShut);
  EXPECT_EQ(limits_.AdmitRequest(alice_, now_), Verdict::kTooManyHandshakes) << "a request always gets an answer";
  EXPECT_EQ(limits_.AdmitSocket(bob_, now_), Verdict::kAdmitted);
  now_ += milliseconds(100);
  EXPECT_EQ(knock(), Verdict::kAdmitted);
  EXPECT_EQ(knock(), Verdict::kTooManyHandshakes);
  EXPECT_EQ(knock(), Verdict::kShut);
  now_ += seconds(1);
  for (int i = 0; i < 10; ++i) EXPECT_EQ(limits_.AdmitRequest(alice_, now_), Verdict::kAdmitted);
  EXPECT_EQ(limits_.AdmitRequest(alice_, now_), Verdict::kTooManyHandshakes);
}

TEST_F(AddressLimitsTest, WhatIsShutOutIsNotCounted) {
  for (int i = 0; i < 40; ++i) limits_.AdmitRequest(alice_, now_);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(limits_.AdmitSocket(alice_, now_), Verdict::kTooManyHandshakes);
  for (int i = 0; i < 3; ++i) limits_.Release(alice_, now_);
  for (int i = 0; i < 17; ++i) {
    EXPECT_EQ(limits_.AdmitSocket(alice_, now_), Verdict::kTooManyHandshakes);
    limits_.Release(alice_, now_);
  }
  for (int i = 0; i < 5; ++i) EXPECT_EQ(limits_.AdmitSocket(alice_, now_), Verdict::kShut);
  now_ += hours(1);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(limits_.AdmitSocket(alice_, now_), Verdict::kAdmitted);
}

TEST_F(AddressLimitsTest, AnIpv6NetworkOf64IsOneAddress) {
  for (const char* host : {"2001:db8:0:1::1", "2001:db8:0:1::2", "2001:db8:0:1:ffff::"}) {
    EXPECT_EQ(limits_.AdmitSocket(Address(host), now_), Verdict::kAdmitted);
  }
  EXPECT_EQ(limits_.AdmitSocket(Address("2001:db8:0:1::4"), now_), Verdict::kTooManyConnections);
  EXPECT_EQ(limits_.AdmitSocket(Address("2001:db8:0:2::4"), now_), Verdict::kAdmitted);
  limits_.Release(Address("2001:db8:0:1::2"), now_);
  EXPECT_EQ(limits_.AdmitSocket(Address("2001:db8:0:1::4"), now_), Verdict::kAdmitted);
}

TEST_F(AddressLimitsTest, TheOneThatWasIdleForLongestMakesWay) {
  EXPECT_EQ(limits_.AdmitSocket(alice_, now_), Verdict::kAdmitted);  // stays
  for (int i = 0; i < 3; ++i) limits_.AdmitRequest(Numbered(i), now_);
  EXPECT_EQ(limits_.numbers().addresses, 4u);
  // The first one comes again, so the second is the oldest.
  for (int i = 0; i < 20; ++i) limits_.AdmitRequest(Numbered(0), now_);
  for (int i = 0; i < 19; ++i) limits_.AdmitRequest(Numbered(2), now_);
  limits_.AdmitRequest(Numbered(3), now_);
  EXPECT_EQ(limits_.numbers().addresses, 4u);
  EXPECT_EQ(limits_.numbers().forgotten, 1u);
  EXPECT_EQ(limits_.AdmitRequest(Numbered(0), now_), Verdict::kTooManyHandshakes) << "is remembered";
  EXPECT_EQ(limits_.AdmitRequest(Numbered(2), now_), Verdict::kTooManyHandshakes);
  for (int i = 0; i < 2; ++i) EXPECT_EQ(limits_.AdmitSocket(alice_, now_), Verdict::kAdmitted);
  EXPECT_EQ(limits_.AdmitSocket(alice_, now_), Verdict::kTooManyConnections) << "has connections: never forgotten";
}

TEST_F(AddressLimitsTest, AFullTableAdmitsNobodyNew) {
  for (int i = 0; i < 4; ++i) EXPECT_EQ(limits_.AdmitSocket(Numbered(i), now_), Verdict::kAdmitted);
  EXPECT_EQ(limits_.AdmitSocket(alice_, now_), Verdict::kTableFull);
  EXPECT_EQ(limits_.AdmitConnection(alice_, now_), Verdict::kTableFull);
  EXPECT_EQ(limits_.AdmitRequest(alice_, now_), Verdict::kAdmitted);
  EXPECT_EQ(limits_.AdmitSocket(Numbered(0), now_), Verdict::kAdmitted);
  limits_.Release(Numbered(1), now_);
  EXPECT_EQ(limits_.AdmitSocket(alice_, now_), Verdict::kAdmitted);
}

TEST_F(AddressLimitsTest, WhoHasRestedLeavesTheTable) {
  AddressLimitsOptions options = Options();
  options.addresses_max = 100'000;
  AddressLimits limits(options);
  for (int i = 0; i < 1'000; ++i) {
    limits.AdmitSocket(Numbered(i), now_);
    limits.Release(Numbered(i), now_);
  }
  EXPECT_EQ(limits.numbers().addresses, 1'000u);
  now_ += seconds(4);
  for (int i = 0; i < 600; ++i) limits.AdmitRequest(alice_, now_ + milliseconds(200 * i));
  for (int i = 0; i < 600; ++i) limits.AdmitRequest(Numbered(100'000 + i), now_ + hours(1));
  EXPECT_LE(limits.numbers().addresses, 601u);
  EXPECT_EQ(limits.numbers().forgotten, 0u) << "of them nothing was left to know";
}

TEST_F(AddressLimitsTest, WithoutLimitsNothingIsKept) {
  AddressLimits limits(AddressLimitsOptions{});
  EXPECT_TRUE(limits.off());
  for (int i = 0; i < 1'000; ++i) EXPECT_EQ(limits.AdmitSocket(alice_, now_), Verdict::kAdmitted);
  EXPECT_EQ(limits.AdmitRequest(alice_, now_), Verdict::kAdmitted);
  EXPECT_EQ(limits.AdmitConnection(alice_, now_), Verdict::kAdmitted);
  limits.Release(alice_, now_);
  EXPECT_EQ(limits.numbers().addresses, 0u);
}

TEST_F(AddressLimitsTest, OneLimitStandsWithoutTheOther) {
  AddressLimits connections(
      {.connections_max = 2, .handshakes_per_second = 0, .handshakes_burst = 1, .addresses_max = 8});
  for (int i = 0; i < 2; ++i) EXPECT_EQ(connections.AdmitSocket(alice_, now_), Verdict::kAdmitted);
  for (int i = 0; i < 1'000; ++i) EXPECT_EQ(connections.AdmitRequest(alice_, now_), Verdict::kAdmitted);
  EXPECT_EQ(connections.AdmitSocket(alice_, now_), Verdict::kTooManyConnections);

  AddressLimits handshakes(
      {.connections_max = 0, .handshakes_per_second = 1, .handshakes_burst = 2, .addresses_max = 8});
  for (int i = 0; i < 2; ++i) EXPECT_EQ(handshakes.AdmitSocket(alice_, now_), Verdict::kAdmitted);
  EXPECT_EQ(handshakes.AdmitSocket(alice_, now_), Verdict::kTooManyHandshakes);
  for (int i = 0; i < 1'000; ++i) EXPECT_EQ(handshakes.AdmitConnection(alice_, now_), Verdict::kAdmitted);
}

TEST_F(AddressLimitsTest, ShardsShareIt) {
  AddressLimits limits(
      {.connections_max = 1'000, .handshakes_per_second = 0, .handshakes_burst = 1, .addresses_max = 64});
  std::vector<std::thread> shards;
  for (int shard = 0; shard < 4; ++shard) {
    shards.emplace_back([&limits, shard, now = now_] {
      for (int i = 0; i < 5'000; ++i) {
        const PeerAddress own = Numbered(shard), shared = Numbered(7);
        limits.AdmitSocket(own, now);
        limits.AdmitSocket(shared, now);
        limits.Release(shared, now);
        limits.Release(own, now);
      }
    });
  }
  for (std::thread& shard : shards) shard.join();
  for (int i = 0; i < 1'000; ++i) ASSERT_EQ(limits.AdmitSocket(Numbered(7), now_), Verdict::kAdmitted);
  EXPECT_EQ(limits.AdmitSocket(Numbered(7), now_), Verdict::kTooManyConnections);
}

}  // namespace
}  // namespace presence::edge
