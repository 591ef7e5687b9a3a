// JSON whose meaning two readers could disagree about is refused.
#include "common/strict_json.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace presence {
namespace {

TEST(StrictJsonTest, OneObjectWithOneMeaning) {
  EXPECT_TRUE(CheckJsonObject(R"( {"a":[1,{"a":"ä"}],"b":{"a":null}} )", 3).ok());
  for (const std::string_view text :
       {"", "1", "\"a\"", "[]", "[{}]", "{} {}", "{\"a\":1,}", "{'a':1}", "{\"a\":1}//", "{\"a\":NaN}", "{\"a\":1e999}",
        "{\"a\":\"\xff\"}", "{\"a\":\"\\ud800\"}", "\xEF\xBB\xBF{}", "{\"a\":1,\"a\":1}",
        "{\"b\":[{\"a\":1,\"\\u0061\":2}]}", "{\"a\":[[[]]]}"}) {
    EXPECT_EQ(CheckJsonObject(text, 3).code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_FALSE(ParseJsonObject(text, 3).ok()) << text;
  }
  EXPECT_FALSE(CheckJsonObject(std::string_view("{}\0", 3), 3).ok());
  EXPECT_FALSE(CheckJsonObject(std::string(1'000'000, '['), 3).ok());
  std::string deep = "{\"a\":";
  for (int i = 0; i < 100'000; ++i) deep += "{\"a\":";
  EXPECT_FALSE(CheckJsonObject(deep, 16).ok());
}

}  // namespace
}  // namespace presence
