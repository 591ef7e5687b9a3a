#include "edge/trusted_proxies.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <string>
#include <vector>

namespace presence::edge {
namespace {

PeerAddress Address(std::string_view text) {
  const auto address = PeerAddress::Parse(text);
  EXPECT_TRUE(address.has_value()) << text;
  return address.value_or(PeerAddress());
}

TEST(PeerAddressTest, OneHostHasOneAddressInBothFamilies) {
  sockaddr_in v4{};
  v4.sin_family = AF_INET;
  v4.sin_addr.s_addr = htonl(0xc0000201);
  sockaddr_in6 mapped{};
  mapped.sin6_family = AF_INET6;
  ASSERT_EQ(inet_pton(AF_INET6, "::ffff:192.0.2.1", &mapped.sin6_addr), 1);
  const PeerAddress a = PeerAddress::Of(reinterpret_cast<const sockaddr&>(v4));
  const PeerAddress b = PeerAddress::Of(reinterpret_cast<const sockaddr&>(mapped));
  EXPECT_EQ(a, b);
  EXPECT_EQ(a, Address("192.0.2.1"));
  EXPECT_EQ(a, Address("::ffff:192.0.2.1"));
  EXPECT_TRUE(a.is_v4());
  EXPECT_EQ(a.ToString(), "192.0.2.1");

  sockaddr_in6 v6{};
  v6.sin6_family = AF_INET6;
  ASSERT_EQ(inet_pton(AF_INET6, "2001:db8::1", &v6.sin6_addr), 1);
  const PeerAddress c = PeerAddress::Of(reinterpret_cast<const sockaddr&>(v6));
  EXPECT_EQ(c.ToString(), "2001:db8::1");
  EXPECT_FALSE(c.is_v4());
}

TEST(PeerAddressTest, WhatIsNoAddressIsNone) {
  for (const std::string& text :
       {std::string(), std::string("unknown"), std::string("_hidden"), std::string("1.2.3"), std::string("1.2.3.4.5"),
        std::string("256.1.1.1"), std::string("01.2.3.4 "), std::string("[::1]"), std::string("1.2.3.4:80"),
        std::string("fe80::1%eth0"), std::string("1.2.3.4\0", 8), std::string(5000, '1')}) {
    EXPECT_EQ(PeerAddress::Parse(text), std::nullopt) << text;
  }
}

TEST(PeerAddressTest, ProxiesWriteSeveralForms) {
  for (const char* text : {"192.0.2.1", "192.0.2.1:4711", "::ffff:192.0.2.1", "[::ffff:192.0.2.1]:4711"}) {
    EXPECT_EQ(PeerAddress::ParseForwarded(text), Address("192.0.2.1")) << text;
  }
  for (const char* text : {"2001:db8::1", "[2001:db8::1]", "[2001:db8::1]:443"}) {
    EXPECT_EQ(PeerAddress::ParseForwarded(text), Address("2001:db8::1")) << text;
  }
  for (const char* text :
       {"", "unknown", "192.0.2.1:", "192.0.2.1:port", "192.0.2.1:123456", "[2001:db8::1", "[2001:db8::1]443",
        "[2001:db8::1]:", "[192.0.2.1]", "[]", "[", "\"192.0.2.1\"", ":80", "for=192.0.2.1"}) {
    EXPECT_EQ(PeerAddress::ParseForwarded(text), std::nullopt) << text;
  }
}

TEST(PeerAddressTest, ASubscriberIsAnAddressOrA64) {
  EXPECT_EQ(Address("2001:db8:1:2:3:4:5:6").Subscriber(), Address("2001:db8:1:2::"));
  EXPECT_NE(Address("2001:db8:1:2::1").Subscriber(), Address("2001:db8:1:3::1").Subscriber());
  EXPECT_NE(Address("192.0.2.1").Subscriber(), Address("192.0.2.2").Subscriber());
  EXPECT_EQ(Address("192.0.2.1").Subscriber(), Address("192.0.2.1"));
  EXPECT_EQ(Address("ff01:ffff::").Masked(9), Address("ff00::"));
  EXPECT_EQ(Address("ffff::").Masked(0), PeerAddress());
}

class TrustedProxiesTest : public ::testing::Test {
 protected:
  static TrustedProxies Of(const std::vector<std::string>& items) {
    auto proxies = TrustedProxies::Parse(items);
    EXPECT_TRUE(proxies.ok()) << proxies.status();
    return proxies.ok() ? *std::move(proxies) : TrustedProxies();
  }
  static TrustedProxies::Client Client(std::string_view peer, const std::vector<std::string_view>& forwarded_for) {
    static const TrustedProxies proxies = Of({"10.0.0.0/8", "2001:db8:ffff::/48", "198.51.100.7"});
    return proxies.ClientOf(Address(peer), forwarded_for);
  }
};

TEST_F(TrustedProxiesTest, NetworksAndAddresses) {
  const TrustedProxies proxies = Of({"10.0.0.0/9", "192.0.2.7", "2001:db8::/33", "::1"});
  for (const char* text : {"10.0.0.1", "10.127.255.255", "192.0.2.7", "2001:db8:7fff::1", "::1", "::ffff:10.1.2.3"}) {
    EXPECT_TRUE(proxies.Contains(Address(text))) << text;
  }
  for (const char* text : {"10.128.0.1", "11.0.0.0", "192.0.2.8", "2001:db8:8000::1", "::2", "::", "127.0.0.1"}) {
    EXPECT_FALSE(proxies.Contains(Address(text))) << text;
  }
  EXPECT_TRUE(Of({"0.0.0.0/0"}).Contains(Address("203.0.113.1")));
  EXPECT_FALSE(Of({"0.0.0.0/0"}).Contains(Address("2001:db8::1"))) << "all of IPv4";
  EXPECT_FALSE(TrustedProxies().Contains(Address("127.0.0.1")));
}

TEST_F(TrustedProxiesTest, MistakesAreNamed) {
  for (const char* text :
       {"proxy", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/", "10.0.0.0/8x", "10.0.0.1/8", "::/129", "/8", "10.0.0"}) {
    const std::vector<std::string> items = {"127.0.0.1", text};
    const auto proxies = TrustedProxies::Parse(items);
    ASSERT_FALSE(proxies.ok()) << text;
    EXPECT_NE(proxies.status().message().find(text), std::string::npos);
  }
}

TEST_F(TrustedProxiesTest, AnybodyElsesWordIsNotTaken) {
  const auto client = Client("203.0.113.9", {"192.0.2.1"});
  EXPECT_EQ(client.address, Address("203.0.113.9"));
  EXPECT_FALSE(client.exempt);
  EXPECT_FALSE(client.malformed) << "not even looked at";
  EXPECT_FALSE(Client("203.0.113.9", {"nonsense"}).malformed);
}

TEST_F(TrustedProxiesTest, TheFirstFromTheRightThatIsNotTrustedIsTheClient) {
  for (const std::vector<std::string_view>& forwarded :
       {std::vector<std::string_view>{"192.0.2.1"},
        {"192.0.2.1", "10.9.9.9"},
        {"192.0.2.1", "198.51.100.7", "10.0.0.2"},
        {"10.0.0.77", "192.0.2.1", "10.0.0.2"},  // what the client has put in front
        {"127.0.0.1", "203.0.113.1", "192.0.2.1:1234"},
        {"<script>", "", "192.0.2.1", "10.0.0.2"}}) {
    const auto client = Client("10.0.0.1", forwarded);
    EXPECT_EQ(client.address, Address("192.0.2.1"));
    EXPECT_FALSE(client.exempt);
    EXPECT_FALSE(client.malformed);
  }
}

TEST_F(TrustedProxiesTest, AProxyThatSpeaksForNobodyIsExempt) {
  const auto own = Client("10.0.0.1", {});
  EXPECT_EQ(own.address, Address("10.0.0.1"));
  EXPECT_TRUE(own.exempt);
  const auto inner = Client("10.0.0.1", {"10.0.0.3", "10.0.0.2"});
  EXPECT_EQ(inner.address, Address("10.0.0.3"));
  EXPECT_TRUE(inner.exempt);
}

TEST_F(TrustedProxiesTest, WhatCannotBeReadIsThePeersOwnAndNotExempt) {
  for (const std::vector<std::string_view>& forwarded :
       {std::vector<std::string_view>{"nonsense"}, {"192.0.2.1", "unknown"}, {"192.0.2.1", "oh", "10.0.0.2"}}) {
    const auto client = Client("10.0.0.1", forwarded);
    EXPECT_EQ(client.address, Address("10.0.0.1"));
    EXPECT_TRUE(client.malformed);
    EXPECT_FALSE(client.exempt);
  }
}

}  // namespace
}  // namespace presence::edge
