#include "core/api_text.h"

#include <google/protobuf/util/json_util.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>

#include "common/connection_id.h"

namespace presence::core {
namespace {

using google::protobuf::Struct;

std::string Text(const absl::Status& status) {
  return std::string(status.message().data(), status.message().size());
}

TEST(CheckId, AcceptsAnyUtf8WithinItsLength) {
  for (const std::string& id :
       {std::string("a"), std::string("user:1 * [x]"), std::string("ünïcødé 😀"), std::string(kIdBytesMax, 'x')}) {
    EXPECT_TRUE(CheckId(id).ok()) << id;
  }
}

TEST(CheckId, RefusesTheRestAndSaysWhy) {
  for (const std::string& id : {std::string(), std::string(kIdBytesMax + 1, 'x'), std::string("a\0b", 3),
                                std::string("\xff"), std::string("\xed\xa0\x80")}) {
    EXPECT_TRUE(absl::IsInvalidArgument(CheckId(id))) << id;
    EXPECT_EQ(Text(CheckId(id)).rfind("must ", 0), 0u) << CheckId(id);
    EXPECT_EQ(Text(CheckId("room_id", id)), "room_id: " + Text(CheckId(id)));
  }
}

TEST(JsonObject, AcceptsObjects) {
  for (const char* text : {"{}", " {\"a\":1}\n", R"({"a":{"b":[1,2,null,true,"\u00e9"]}})"}) {
    EXPECT_TRUE(CheckJsonObject(text).ok()) << text;
  }
}

TEST(JsonObject, MayHoldWhatPassesOnThoughNoParserKeepsIt) {
  for (const char* text : {R"({"a":12345678901234567890123})", R"({"a":-9223372036854775809})", R"({"a":1e400})",
                           R"({"a":"\ud83d"})", R"({"a":1,"a":2})"}) {
    EXPECT_TRUE(CheckJsonObject(text).ok()) << text;
  }
}

TEST(JsonObject, RefusesEverythingElse) {
  for (const std::string& text :
       {std::string(), std::string("null"), std::string("[]"), std::string("\"x\""), std::string("1"), std::string("{"),
        std::string("{} {}"), std::string("{'a':1}"), std::string("{\"a\":1,}"), std::string("{\"a\":NaN}"),
        std::string("{\"a\":\"\xff\"}"), std::string("{\"a\":\"\n\"}"), std::string("\0{}", 3),
        std::string("\xef\xbb\xbf{"),
        // Nested deeper than any parser will follow.
        "{\"a\":" + std::string(100'000, '[') + std::string(100'000, ']') + "}"}) {
    const absl::Status status = CheckJsonObject(text);
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << text.substr(0, 50);
    EXPECT_EQ(Text(status).rfind("must be ", 0), 0u) << status;
  }
}

TEST(JsonObject, MayBeOneMebibyteAndNoMore) {
  const auto object_of = [](size_t bytes) { return "{\"a\":\"" + std::string(bytes - 8, 'x') + "\"}"; };
  EXPECT_TRUE(CheckJsonObject(object_of(kPayloadBytesMax)).ok());
  EXPECT_TRUE(absl::IsResourceExhausted(CheckJsonObject(object_of(kPayloadBytesMax + 1))));
}

TEST(StructToJson, WritesWhatTheStructSays) {
  Struct data;
  ASSERT_TRUE(google::protobuf::util::JsonStringToMessage(
                  R"({"content":"héllo \"you\"","n":3,"half":0.5,"list":[1,null,{}],"yes":true})", &data)
                  .ok());
  const absl::StatusOr<std::string> text = StructToJson(data);
  ASSERT_TRUE(text.ok()) << text.status();
  Struct back;
  ASSERT_TRUE(google::protobuf::util::JsonStringToMessage(*text, &back).ok()) << *text;
  EXPECT_EQ(back.SerializeAsString().size(), data.SerializeAsString().size());
  EXPECT_NE(text->find("\"n\":3"), std::string::npos) << *text;
  EXPECT_EQ(*StructToJson(Struct()), "{}");
}

TEST(StructToJson, RefusesWhatJsonCannotSay) {
  for (const double number : {std::nan(""), HUGE_VAL, -HUGE_VAL}) {
    Struct data;
    (*data.mutable_fields())["n"].set_number_value(number);
    EXPECT_TRUE(absl::IsInvalidArgument(StructToJson(data).status())) << number;
  }
  Struct no_kind;
  (*no_kind.mutable_fields())["nothing"];
  const auto text = StructToJson(no_kind);
  EXPECT_TRUE(absl::IsInvalidArgument(text.status())) << text.value_or("");
}

TEST(StructToJson, RefusesMoreThanOneMebibyte) {
  Struct data;
  (*data.mutable_fields())["a"].set_string_value(std::string(kPayloadBytesMax, 'x'));
  EXPECT_TRUE(absl::IsResourceExhausted(StructToJson(data).status()));
}

TEST(CloseCode, IsOneThatAnApplicationMaySend) {
  EXPECT_EQ(*ReadCloseCode(0), 1008u);
  for (const int32_t code : {1000, 1001, 1008, 1011, 1012, 1013, 3000, 4999}) EXPECT_EQ(*ReadCloseCode(code), code);
  for (const int32_t code : {-1, 1, 999, 1002, 1005, 1006, 1007, 1010, 1014, 1015, 2999, 5000, 70'000}) {
    EXPECT_TRUE(absl::IsInvalidArgument(ReadCloseCode(code).status())) << code;
  }
}

TEST(ConnectionName, ComesBackAsItWasWritten) {
  const std::string text = presence::ConnectionName(0xfedcba9876543210u, 42);
  const absl::StatusOr<link::v1::ConnectionName> name = ReadConnectionName(text);
  ASSERT_TRUE(name.ok()) << name.status();
  EXPECT_EQ(name->incarnation(), 0xfedcba9876543210u);
  EXPECT_EQ(name->connection(), 42u);
  EXPECT_EQ(ConnectionText(*name), text);
}

TEST(ConnectionName, IsSpelledInOneWay) {
  const std::string good = presence::ConnectionName(0xab, 0xcd);
  std::string upper = good, separator = good, sign = good;
  upper[upper.size() - 1] = 'D';
  separator[21] = '_';
  sign[5] = '+';
  for (const std::string& bad : {std::string(), std::string("conn-"), std::string("conn-ab-cd"), upper, separator, sign,
                                 good + "0", " " + good, good.substr(1), std::string(38, '0')}) {
    EXPECT_TRUE(absl::IsInvalidArgument(ReadConnectionName(bad).status())) << bad;
  }
}

}  // namespace
}  // namespace presence::core
