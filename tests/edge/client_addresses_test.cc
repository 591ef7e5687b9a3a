#include "edge/client_addresses.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace presence::edge {
namespace {

using std::chrono::hours;
using std::chrono::seconds;
using ::testing::Contains;
using ::testing::Pair;

PeerAddress Address(std::string_view text) {
  return PeerAddress::Parse(text).value();
}

class ClientAddressesTest : public ::testing::Test {
 protected:
  static TrustedProxies Proxies() {
    const std::vector<std::string> items = {"10.0.0.0/8"};
    return TrustedProxies::Parse(items).value();
  }
  bool Accept(uint32_t slot, std::string_view peer) { return clients_.OnAccepted(slot, Address(peer), now_); }
  static HttpRequest Request(bool upgrade, const std::vector<std::string>& forwarded = {}) {
    HttpRequest request;
    request.upgrade = upgrade;
    for (const std::string& line : forwarded) request.headers.emplace_back("x-forwarded-for", line);
    return request;
  }
  // 0: nobody refuses it.
  int Ask(uint32_t slot, bool upgrade, const std::vector<std::string>& forwarded = {}) {
    answer_ = clients_.Refuse(slot, Request(upgrade, forwarded), now_);
    return answer_.has_value() ? answer_->status : 0;
  }
  void Release(uint32_t slot) { clients_.OnReleased(slot, now_); }

  SteadyTime now_ = SteadyTime() + hours(1);
  const TrustedProxies proxies_ = Proxies();
  AddressLimits limits_{
      {.connections_max = 3, .handshakes_per_second = 5, .handshakes_burst = 10, .addresses_max = 64}};
  ShardStats stats_;
  ClientAddresses clients_{proxies_, limits_, stats_};
  std::optional<HttpResponse> answer_;
};

TEST_F(ClientAddressesTest, ADirectPeersSocketsAreCountedFromAcceptOn) {
  for (uint32_t slot = 0; slot < 3; ++slot) EXPECT_TRUE(Accept(slot, "192.0.2.1"));
  EXPECT_FALSE(Accept(3, "192.0.2.1"));
  EXPECT_EQ(stats_.connections_over_address.Value(), 1u);
  EXPECT_TRUE(Accept(3, "192.0.2.2"));
  Release(1);
  EXPECT_TRUE(Accept(1, "192.0.2.1"));
  EXPECT_EQ(clients_.client(1), Address("192.0.2.1"));
}

TEST_F(ClientAddressesTest, ASocketHasPaidForItsFirstRequest) {
  for (int i = 0; i < 10; ++i) {
    ASSERT_TRUE(Accept(0, "192.0.2.1"));
    EXPECT_EQ(Ask(0, true), 0);
    Release(0);
  }
  ASSERT_TRUE(Accept(0, "192.0.2.1")) << "to be told";
  EXPECT_EQ(Ask(0, true), 429);
  EXPECT_THAT(answer_->headers, Contains(Pair("Retry-After", "1")));
  EXPECT_EQ(stats_.handshakes_over_address.Value(), 1u);
  now_ += seconds(1);
  for (int i = 0; i < 5; ++i) EXPECT_EQ(Ask(0, false), 0) << "what has come back, for REST calls on the same socket";
  EXPECT_EQ(Ask(0, false), 429);
}

TEST_F(ClientAddressesTest, ARefusedPeersSocketEndsAProxysIsNotItsClients) {
  ASSERT_TRUE(Accept(0, "192.0.2.1"));
  for (int i = 0; i < 10; ++i) EXPECT_EQ(Ask(0, false), 0);
  EXPECT_EQ(Ask(0, false), 429);
  EXPECT_TRUE(answer_->close);
  ASSERT_TRUE(Accept(1, "10.0.0.1"));
  for (int i = 0; i < 10; ++i) EXPECT_EQ(Ask(1, false, {"192.0.2.2"}), 0);
  EXPECT_EQ(Ask(1, false, {"192.0.2.2"}), 429);
  EXPECT_FALSE(answer_->close);
}

TEST_F(ClientAddressesTest, WhoKeepsKnockingIsShutOutWithoutAnAnswer) {
  for (int i = 0; i < 20; ++i) {
    ASSERT_TRUE(Accept(0, "192.0.2.1"));
    Release(0);
  }
  for (int i = 0; i < 5; ++i) EXPECT_FALSE(Accept(0, "192.0.2.1"));
  EXPECT_EQ(stats_.sockets_over_address.Value(), 5u);
  EXPECT_TRUE(Accept(0, "192.0.2.2"));
}

TEST_F(ClientAddressesTest, AProxysSocketsAreNotCountedItsClientsAre) {
  for (uint32_t slot = 0; slot < 50; ++slot) EXPECT_TRUE(Accept(slot, "10.0.0.1"));
  for (uint32_t slot = 0; slot < 3; ++slot) EXPECT_EQ(Ask(slot, true, {"192.0.2.1"}), 0);
  EXPECT_EQ(clients_.client(0), Address("192.0.2.1"));
  EXPECT_EQ(Ask(3, true, {"192.0.2.1"}), 429);
  EXPECT_THAT(answer_->headers, Contains(Pair("Retry-After", "30")));
  EXPECT_EQ(stats_.connections_over_address.Value(), 1u);
  EXPECT_EQ(Ask(4, true, {"192.0.2.2"}), 0);
  EXPECT_EQ(Ask(5, false, {"192.0.2.1"}), 0) << "a REST call is no connection";
  Release(0);
  EXPECT_EQ(Ask(6, true, {"192.0.2.1"}), 0);
}

TEST_F(ClientAddressesTest, TheClientOfAProxyAndTheSameOneDirectAreOne) {
  ASSERT_TRUE(Accept(0, "10.0.0.1"));
  EXPECT_EQ(Ask(0, true, {"192.0.2.1"}), 0);
  EXPECT_TRUE(Accept(1, "192.0.2.1"));
  EXPECT_TRUE(Accept(2, "192.0.2.1"));
  EXPECT_FALSE(Accept(3, "192.0.2.1"));
}

TEST_F(ClientAddressesTest, HandshakesByWayOfAProxyHaveTheRateOfTheirAddress) {
  ASSERT_TRUE(Accept(0, "10.0.0.1"));
  for (int i = 0; i < 10; ++i) EXPECT_EQ(Ask(0, false, {"192.0.2.1"}), 0);
  EXPECT_EQ(Ask(0, false, {"192.0.2.1"}), 429);
  EXPECT_THAT(answer_->headers, Contains(Pair("Retry-After", "1")));
  EXPECT_EQ(Ask(0, false, {"192.0.2.2"}), 0);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(Ask(0, false), 0) << "the proxy's own health checks";
}

TEST_F(ClientAddressesTest, AConnectionThatTheProxyUsesAgainBelongsToTheNextClient) {
  ASSERT_TRUE(Accept(0, "10.0.0.1"));
  EXPECT_EQ(Ask(0, true, {"192.0.2.1"}), 0);
  EXPECT_EQ(Ask(0, true, {"192.0.2.2"}), 0);
  for (uint32_t slot = 1; slot <= 3; ++slot) EXPECT_TRUE(Accept(slot, "192.0.2.1"));
  Release(0);
  for (uint32_t slot = 4; slot <= 6; ++slot) EXPECT_TRUE(Accept(slot, "192.0.2.2"));
}

TEST_F(ClientAddressesTest, SeveralLinesAreOneList) {
  ASSERT_TRUE(Accept(0, "10.0.0.1"));
  EXPECT_EQ(Ask(0, false, {"198.51.100.1, 192.0.2.1", "10.0.0.7"}), 0);
  EXPECT_EQ(clients_.client(0), Address("192.0.2.1"));
}

TEST_F(ClientAddressesTest, WhatAProxyGarblesIsItsOwn) {
  ASSERT_TRUE(Accept(0, "10.0.0.1"));
  for (int i = 0; i < 10; ++i) EXPECT_EQ(Ask(0, false, {"192.0.2.1, unknown"}), 0);
  EXPECT_EQ(Ask(0, false, {"192.0.2.1, unknown"}), 429);
  EXPECT_EQ(stats_.forwarded_malformed.Value(), 11u);
  EXPECT_EQ(clients_.client(0), Address("10.0.0.1"));
}

TEST_F(ClientAddressesTest, AWebSocketOfNobodyIsTheProxysOwn) {
  for (uint32_t slot = 0; slot < 4; ++slot) ASSERT_TRUE(Accept(slot, "10.0.0.1"));
  for (uint32_t slot = 0; slot < 3; ++slot) EXPECT_EQ(Ask(slot, true), 0);
  ASSERT_EQ(Ask(3, true), 429);
  EXPECT_THAT(answer_->headers, Contains(Pair("Retry-After", "30")));
  EXPECT_EQ(stats_.forwarded_malformed.Value(), 4u);
  EXPECT_EQ(Ask(3, true, {"10.0.0.9"}), 0) << "a proxy's again, but another's";
  EXPECT_EQ(stats_.forwarded_malformed.Value(), 4u) << "it says whose";
  Release(0);
  ASSERT_TRUE(Accept(0, "10.0.0.1"));
  EXPECT_EQ(Ask(0, true), 0) << "a place is free again";
}

TEST_F(ClientAddressesTest, NobodyElseMaySayWhoItIs) {
  ASSERT_TRUE(Accept(0, "192.0.2.1"));
  EXPECT_EQ(Ask(0, true, {"198.51.100.1"}), 0);
  EXPECT_EQ(clients_.client(0), Address("192.0.2.1"));
  EXPECT_EQ(stats_.forwarded_malformed.Value(), 0u);
}

}  // namespace
}  // namespace presence::edge
