#include "core/api_text.h"

#include <google/protobuf/util/json_util.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>

namespace presence::core {
namespace {

using google::protobuf::Struct;

std::string Text(const absl::Status& status) {
  return std::string(status.message().data(), status.message().size());
}

TEST(CheckId, AcceptsAnyUtf8WithinItsLength) {
  for (const std::string& id :
       {std::string("a"), std::string("user:1 * [x]"), std::string("ünïcødé 😀"), std::string(kIdBytesMax, 'x')}) {
    EXPECT_TRUE(CheckId("user_id", id).ok()) << id;
  }
}

TEST(CheckId, RefusesTheRestAndNamesTheField) {
  for (const std::string& id : {std::string(), std::string(kIdBytesMax + 1, 'x'), std::string("a\0b", 3),
                                std::string("\xff"), std::string("\xed\xa0\x80")}) {
    const absl::Status status = CheckId("room_id", id);
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << id;
    EXPECT_EQ(Text(status).rfind("room_id: must ", 0), 0u) << status;
  }
}

TEST(PageSize, HasADefaultAndBounds) {
  EXPECT_EQ(*ReadPageSize(0), 1000u);
  EXPECT_EQ(*ReadPageSize(1), 1u);
  EXPECT_EQ(*ReadPageSize(10'000), 10'000u);
  for (const int32_t size : {-1, 10'001, std::numeric_limits<int32_t>::min(), std::numeric_limits<int32_t>::max()}) {
    EXPECT_TRUE(absl::IsInvalidArgument(ReadPageSize(size).status())) << size;
  }
}

TEST(PageToken, BringsTheUserIdBack) {
  EXPECT_EQ(*ReadPageToken(""), "");
  for (const std::string& id : {std::string("a"), std::string("ünïcødé"), std::string(kIdBytesMax, 'z')}) {
    const std::string token = MakePageToken(id);
    EXPECT_EQ(token.find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"),
              std::string::npos)
        << token;
    EXPECT_EQ(*ReadPageToken(token), id);
  }
}

TEST(PageToken, OfAnotherMakingIsRefused) {
  const std::string token = MakePageToken("user-123");
  std::string flipped = token;
  flipped[8] = flipped[8] == 'A' ? 'B' : 'A';
  for (const std::string& bad :
       {std::string("x"), std::string("user-123"), token.substr(0, token.size() - 1), token + "A", token + "=",
        " " + token, flipped, std::string("AQ"), std::string(100'000, 'A'), std::string("\xff\xfe")}) {
    EXPECT_TRUE(absl::IsInvalidArgument(ReadPageToken(bad).status())) << bad.substr(0, 50);
  }
}

TEST(JsonObject, AcceptsObjects) {
  for (const char* text : {"{}", " {\"a\":1}\n", R"({"a":{"b":[1,2,null,true,"\u00e9"]}})"}) {
    EXPECT_TRUE(CheckJsonObject("data_json", text).ok()) << text;
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
    const absl::Status status = CheckJsonObject("data_json", text);
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << text.substr(0, 50);
    EXPECT_EQ(Text(status).rfind("data_json: ", 0), 0u) << status;
  }
}

TEST(JsonObject, MayBeOneMebibyteAndNoMore) {
  const auto object_of = [](size_t bytes) { return "{\"a\":\"" + std::string(bytes - 8, 'x') + "\"}"; };
  EXPECT_TRUE(CheckJsonObject("data_json", object_of(kPayloadBytesMax)).ok());
  EXPECT_TRUE(absl::IsResourceExhausted(CheckJsonObject("data_json", object_of(kPayloadBytesMax + 1))));
}

TEST(StructToJson, WritesWhatTheStructSays) {
  Struct data;
  ASSERT_TRUE(google::protobuf::util::JsonStringToMessage(
                  R"({"content":"héllo \"you\"","n":3,"half":0.5,"list":[1,null,{}],"yes":true})", &data)
                  .ok());
  const absl::StatusOr<std::string> text = StructToJson("data", data);
  ASSERT_TRUE(text.ok()) << text.status();
  Struct back;
  ASSERT_TRUE(google::protobuf::util::JsonStringToMessage(*text, &back).ok()) << *text;
  EXPECT_EQ(back.SerializeAsString().size(), data.SerializeAsString().size());
  EXPECT_NE(text->find("\"n\":3"), std::string::npos) << *text;
  EXPECT_EQ(*StructToJson("data", Struct()), "{}");
}

TEST(StructToJson, RefusesWhatJsonCannotSay) {
  for (const double number : {std::nan(""), HUGE_VAL, -HUGE_VAL}) {
    Struct data;
    (*data.mutable_fields())["n"].set_number_value(number);
    EXPECT_TRUE(absl::IsInvalidArgument(StructToJson("data", data).status())) << number;
  }
  Struct no_kind;
  (*no_kind.mutable_fields())["nothing"];
  const auto text = StructToJson("data", no_kind);
  EXPECT_TRUE(absl::IsInvalidArgument(text.status())) << text.value_or("");
}

TEST(StructToJson, RefusesMoreThanOneMebibyte) {
  Struct data;
  (*data.mutable_fields())["a"].set_string_value(std::string(kPayloadBytesMax, 'x'));
  EXPECT_TRUE(absl::IsResourceExhausted(StructToJson("data", data).status()));
}

TEST(CutPage, EndsEarlyWhereTheAnswerWouldBeTooLarge) {
  PresencePage page;
  for (int i = 0; i < 10; ++i)
    page.users.push_back({std::string(1000, 'u'), std::string(1000, 'n'), link::v1::STATUS_ONLINE, 0, 0});
  CutPage(page, 10 * 2048);
  EXPECT_EQ(page.users.size(), 10u);
  EXPECT_FALSE(page.more);
  CutPage(page, 5 * 2048);
  EXPECT_EQ(page.users.size(), 5u);
  EXPECT_TRUE(page.more);
  CutPage(page, 1);
  EXPECT_EQ(page.users.size(), 1u) << "a page that has users never comes out empty";
}

}  // namespace
}  // namespace presence::core
