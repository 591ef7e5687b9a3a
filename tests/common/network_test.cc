#include "common/network.h"

#include <gtest/gtest.h>

namespace presence {
namespace {

TEST(Loopback, IsWhatNoOtherHostReaches) {
  for (const char* host : {"127.0.0.1", "127.1.2.3", "::1", "[::1]", "localhost", "LocalHost", "unix:/run/core.sock",
                           "::ffff:127.0.0.1"}) {
    EXPECT_TRUE(IsLoopback(host)) << host;
  }
}

TEST(Loopback, NothingElseIs) {
  for (const char* host : {"", "0.0.0.0", "::", "[::]", "10.0.0.1", "128.0.0.1", "127.example.org",
                           "localhost.example.org", "127.1", "::ffff:10.0.0.1", "core", "fe80::1", "0127.0.0.1"}) {
    EXPECT_FALSE(IsLoopback(host)) << host;
  }
}

TEST(Loopback, ANameWithNulIsNobody) {
  using namespace std::string_view_literals;
  EXPECT_FALSE(IsLoopback("127.0.0.1\0.example.org"sv));
  EXPECT_FALSE(IsLoopback("::1\0"sv));
}

TEST(HostOfTarget, IsWhatGrpcWillDial) {
  EXPECT_EQ(HostOfTarget("127.0.0.1:50052"), "127.0.0.1");
  EXPECT_EQ(HostOfTarget("core:50052"), "core");
  EXPECT_EQ(HostOfTarget("core"), "core");
  EXPECT_EQ(HostOfTarget("[::1]:50052"), "::1");
  EXPECT_EQ(HostOfTarget("::1"), "::1");
  EXPECT_EQ(HostOfTarget("dns:core:50052"), "core");
  EXPECT_EQ(HostOfTarget("dns:///core:50052"), "core");
  EXPECT_EQ(HostOfTarget("dns://8.8.8.8/core:50052"), "core");
  EXPECT_EQ(HostOfTarget("ipv4:10.0.0.1:50052"), "10.0.0.1");
  EXPECT_EQ(HostOfTarget("ipv6:[::1]:50052"), "::1");
  EXPECT_EQ(HostOfTarget("unix:/run/core.sock"), "unix:/run/core.sock");
}

}  // namespace
}  // namespace presence
