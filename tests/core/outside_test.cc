#include "core/outside.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace presence::core {
namespace {

TEST(OutsideMessage, NeedsAStringRoomId) {
  OutsideReader reader;
  EXPECT_EQ(reader.ReadRoomId(R"({"room_id":"general","x":{"room_id":"inner"}})").value(), "general");
  EXPECT_EQ(reader.ReadRoomId("\n {\"a\":[1,2.5e3,null,true],\"room_id\":\"\\u0067\"} ").value(), "g");
  EXPECT_EQ(reader.ReadRoomId(R"({"room_id":"first","room_id":"last"})").value(), "last");
  const std::string longest(2048, 'r');
  EXPECT_EQ(reader.ReadRoomId("{\"room_id\":\"" + longest + "\"}").value(), longest);
}

// A browser reads all of these.
TEST(OutsideMessage, MayHoldWhatParsersOfValuesRefuse) {
  OutsideReader reader;
  for (const std::string value :
       {"123456789012345678901234567890", "1e999", "-0", "-1.5E+3", "\"\\ud83d\"", "\"\\udc00 \\/\\b\\f\\t\"",
        "[{},[],{\"a\":{\"b\":[null,false]}}]", "\"\xF0\x9F\x98\x80\""}) {
    EXPECT_EQ(reader.ReadRoomId("{\"x\":" + value + ",\"room_id\":\"a\"}").value_or("refused"), "a") << value;
  }
  EXPECT_EQ(reader.ReadRoomId("{\"\\u0072oom_id\":\"a\"}").value_or("refused"), "a");
  const std::string deep = std::string(500, '[') + std::string(500, ']');
  EXPECT_TRUE(reader.ReadRoomId("{\"room_id\":\"a\",\"x\":" + deep + "}").ok());
}

TEST(OutsideMessage, MayNotBreakTheGrammar) {
  OutsideReader reader;
  for (const std::string value : {"01",    "-",     "1.",      ".5",        "1e",    "+1",         "0x1", "NaN",
                                  "nul",   "truee", "\"\\x\"", "\"\\u12\"", "\"\\",  "\"a\nb\"",   "\"",  "[1,]",
                                  "[1 2]", "[",     "{\"a\"}", "{\"a\":}",  "{a:1}", "{\"a\":1,}", "",    "'a'"}) {
    EXPECT_FALSE(reader.ReadRoomId("{\"room_id\":\"a\",\"x\":" + value + "}").ok()) << value;
  }
  EXPECT_FALSE(reader.ReadRoomId("{\"room_id\":\"\\ud83d\"}").ok()) << "a room of no UTF-8";
  EXPECT_FALSE(reader.ReadRoomId(std::string("{\"room_id\":\"a\"}\0", 16)).ok());
}

TEST(OutsideMessage, AnythingElseIsRefused) {
  OutsideReader reader;
  const std::string nested = "{\"room_id\":\"a\",\"x\":" + std::string(5000, '[') + std::string(5000, ']') + "}";
  for (const std::string& text : {std::string(),
                                  std::string("null"),
                                  std::string("[]"),
                                  std::string("\"room_id\""),
                                  std::string("{}"),
                                  std::string("{\"room_id\":7}"),
                                  std::string("{\"room_id\":null}"),
                                  std::string("{\"room_id\":\"\"}"),
                                  std::string("{\"room_id\":\"a\\u0000b\"}"),
                                  std::string("{\"room_id\":\"a\"} {}"),
                                  std::string("{\"room_id\":\"a\""),
                                  std::string("{\"room_id\":\"a\",}"),
                                  std::string("{\"room_id\":\"a\",\"x\":tru}"),
                                  std::string("{\"room_id\":\"a\",\"x\":\"\xff\"}"),
                                  std::string("{'room_id':'a'}"),
                                  std::string("\xff\xfe"),
                                  std::string("{\"room_id\":\"a\",\"room_id\":7}"),
                                  "{\"room_id\":\"" + std::string(2049, 'r') + "\"}",
                                  "{\"room_id\":\"a\",\"x\":\"" + std::string(1 << 20, 'x') + "\"}",
                                  nested}) {
    EXPECT_EQ(reader.ReadRoomId(text).status().code(), absl::StatusCode::kInvalidArgument) << text.substr(0, 60);
  }
  EXPECT_TRUE(reader.ReadRoomId(R"({"room_id":"a"})").ok()) << "and the reader lives on";
}

TEST(OutsidePresence, HasTheSpecifiedShape) {
  OutsideReader reader;
  const auto presence = reader.ReadPresence(
      R"({"timestamp":"2025-01-14T12:00:00Z","type":"presence","status":"offline","user_id":"u","username":"al","more":[]})");
  ASSERT_TRUE(presence.ok());
  EXPECT_EQ(presence->user_id, "u");
  EXPECT_EQ(presence->username, "al");
  EXPECT_EQ(presence->status, "offline");
  EXPECT_EQ(presence->timestamp, "2025-01-14T12:00:00Z");
}

TEST(OutsidePresence, ANameMayBeUnknown) {
  OutsideReader reader;
  for (const auto* text : {R"({"type":"presence","user_id":"u","status":"away","timestamp":"t"})",
                           R"({"type":"presence","user_id":"u","username":null,"status":"away","timestamp":"t"})"}) {
    const auto presence = reader.ReadPresence(text);
    ASSERT_TRUE(presence.ok());
    EXPECT_EQ(presence->username, "");
  }
}

TEST(OutsidePresence, AnythingElseIsRefused) {
  OutsideReader reader;
  for (const std::string& text :
       {std::string("[]"), std::string(R"({"type":"message","user_id":"u","status":"away","timestamp":"t"})"),
        std::string(R"({"user_id":"u","status":"away","timestamp":"t"})"),
        std::string(R"({"type":"presence","status":"away","timestamp":"t"})"),
        std::string(R"({"type":"presence","user_id":"","status":"away","timestamp":"t"})"),
        std::string(R"({"type":"presence","user_id":7,"status":"away","timestamp":"t"})"),
        std::string(R"({"type":"presence","user_id":"u","username":7,"status":"away","timestamp":"t"})"),
        std::string(R"({"type":"presence","user_id":"u","status":"busy","timestamp":"t"})"),
        std::string(R"({"type":"presence","user_id":"u","timestamp":"t"})"),
        std::string(R"({"type":"presence","user_id":"u","status":"away"})"),
        std::string(R"({"type":"presence","user_id":"u","status":"away","timestamp":1700000000})"),
        R"({"type":"presence","user_id":"u","status":"away","timestamp":")" + std::string(65, '0') + "\"}",
        R"({"type":"presence","user_id":"u","status":"away","timestamp":"t","x":")" + std::string(70'000, 'x') +
            "\"}"}) {
    EXPECT_EQ(reader.ReadPresence(text).status().code(), absl::StatusCode::kInvalidArgument) << text.substr(0, 80);
  }
}

TEST(OutsideReasons, NeverRepeatTheInput) {
  OutsideReader reader;
  EXPECT_THAT(std::string(reader.ReadRoomId("{\"room_id\":[\"secret\"]}").status().message()),
              testing::Not(testing::HasSubstr("secret")));
}

}  // namespace
}  // namespace presence::core
