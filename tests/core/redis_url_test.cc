// What REDIS_URL may say.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "core/redis_connection.h"

namespace presence::core {
namespace {

using testing::HasSubstr;
using testing::Not;

TEST(RedisUrl, SaysWhereAndHow) {
  RedisAddress address = *ParseRedisUrl("redis://:secret@redis:6379/0");
  EXPECT_EQ(address.host, "redis");
  EXPECT_EQ(address.port, 6379);
  EXPECT_EQ(address.user, "");
  EXPECT_EQ(address.password, "secret");
  EXPECT_EQ(address.database, 0u);
  EXPECT_THAT(address.ToString(), Not(HasSubstr("secret")));

  address = *ParseRedisUrl("redis://me:a%3Ab%40c@10.0.0.1/15");
  EXPECT_EQ(address.user, "me");
  EXPECT_EQ(address.password, "a:b@c");
  EXPECT_EQ(address.host, "10.0.0.1");
  EXPECT_EQ(address.port, 6379);
  EXPECT_EQ(address.database, 15u);

  EXPECT_EQ(ParseRedisUrl("redis://localhost")->host, "localhost");
  EXPECT_EQ(ParseRedisUrl("redis://localhost:7000/")->port, 7000);
  EXPECT_EQ(ParseRedisUrl("redis://[::1]:7000")->host, "::1");
  EXPECT_EQ(ParseRedisUrl("redis://[::1]:7000")->ToString(), "redis://[::1]:7000/0");
  EXPECT_EQ(ParseRedisUrl("unix:///run/redis.sock")->unix_path, "/run/redis.sock");
  EXPECT_EQ(ParseRedisUrl("unix:///run/redis.sock?db=2")->database, 2u);
}

TEST(RedisUrl, ErrorsSayWhatToWriteInstead) {
  const auto error = [](const char* url) { return std::string(ParseRedisUrl(url).status().message()); };
  EXPECT_THAT(error("rediss://redis:6379"), HasSubstr("tunnel"));
  EXPECT_THAT(error("redis:6379"), HasSubstr("write redis://"));
  EXPECT_THAT(error(""), HasSubstr("write redis://"));
  EXPECT_THAT(error("redis://"), HasSubstr("no host"));
  EXPECT_THAT(error("redis://:secret@"), HasSubstr("no host"));
  EXPECT_THAT(error("redis://host:0"), HasSubstr("port"));
  EXPECT_THAT(error("redis://host:70000"), HasSubstr("port"));
  EXPECT_THAT(error("redis://host:6379x"), HasSubstr("port"));
  EXPECT_THAT(error("redis://host:"), HasSubstr("port"));
  EXPECT_THAT(error("redis://host/one"), HasSubstr("database"));
  EXPECT_THAT(error("redis://user@host"), HasSubstr("no password"));
  EXPECT_THAT(error("redis://u:%zz@host"), HasSubstr("%25"));
  EXPECT_THAT(error("redis://[::1"), HasSubstr("]"));
  EXPECT_THAT(error("unix://relative.sock"), HasSubstr("`/`"));
  EXPECT_THAT(error("unix:///a.sock?x=1"), HasSubstr("db="));
  EXPECT_THAT(error("redis://:secret@host:x"), Not(HasSubstr("secret")));
}

}  // namespace
}  // namespace presence::core
