#include "common/json.h"

#include <gtest/gtest.h>
#include <simdjson.h>

#include "common/utf8.h"

namespace presence {
namespace {

// What a parser reads back from what was written.
std::string ReadBack(std::string_view text) {
  simdjson::dom::parser parser;
  const std::string document = "[" + JsonString(text) + "]";
  simdjson::dom::element root;
  if (parser.parse(document).get(root) != simdjson::SUCCESS) return "<does not parse>";
  std::string_view value;
  if (root.at(0).get(value) != simdjson::SUCCESS) return "<not a string>";
  return std::string(value);
}

TEST(JsonStringTest, OrdinaryTextStandsInQuotes) {
  EXPECT_EQ(JsonString("channel_general"), "\"channel_general\"");
  EXPECT_EQ(JsonString("Zoë 李 🙂"), "\"Zoë 李 🙂\"");
  EXPECT_EQ(JsonString(""), "\"\"");
}

TEST(JsonStringTest, WhatJsonReservesIsEscaped) {
  EXPECT_EQ(JsonString("a\"b\\c"), R"("a\"b\\c")");
  EXPECT_EQ(JsonString("\n\r\t"), R"("\n\r\t")");
  EXPECT_EQ(JsonString(std::string_view("\0\x1f", 2)), R"("\u0000\u001f")");
  EXPECT_EQ(JsonString("/\x7f"), "\"/\x7f\"");
}

TEST(JsonStringTest, EveryByteThatIsNotUtf8BecomesTheReplacementCharacter) {
  EXPECT_EQ(JsonString("a\xFF"
                       "b"),
            "\"a\xEF\xBF\xBD"
            "b\"");
  EXPECT_EQ(JsonString("\xE2\x82"), "\"\xEF\xBF\xBD\xEF\xBF\xBD\"");
}

TEST(JsonStringTest, AppendsToWhatIsThere) {
  std::string out = "{\"type\":";
  AppendJsonString("pong", &out);
  EXPECT_EQ(out, "{\"type\":\"pong\"");
}

TEST(JsonStringTest, WhateverTwoBytesComeTheResultParses) {
  for (int first = 0; first < 256; ++first) {
    for (int second = 0; second < 256; ++second) {
      const char bytes[2] = {static_cast<char>(first), static_cast<char>(second)};
      const std::string_view text(bytes, 2);
      const std::string back = ReadBack(text);
      if (simdjson::validate_utf8(text.data(), text.size())) {
        ASSERT_EQ(back, text) << first << " " << second;
      } else {
        ASSERT_NE(back.find("\xEF\xBF\xBD"), std::string::npos) << first << " " << second;
      }
    }
  }
}

TEST(Utf8SequenceLengthTest, AgreesWithTheRfcAtEachEdge) {
  EXPECT_EQ(Utf8SequenceLength("a"), 1u);
  EXPECT_EQ(Utf8SequenceLength("\xC2\x80"), 2u);
  EXPECT_EQ(Utf8SequenceLength("\xC1\xBF"), 0u);  // overlong
  EXPECT_EQ(Utf8SequenceLength("\xE0\xA0\x80"), 3u);
  EXPECT_EQ(Utf8SequenceLength("\xE0\x9F\xBF"), 0u);  // overlong
  EXPECT_EQ(Utf8SequenceLength("\xED\x9F\xBF"), 3u);
  EXPECT_EQ(Utf8SequenceLength("\xED\xA0\x80"), 0u);  // a surrogate
  EXPECT_EQ(Utf8SequenceLength("\xF0\x90\x80\x80"), 4u);
  EXPECT_EQ(Utf8SequenceLength("\xF0\x8F\xBF\xBF"), 0u);  // overlong
  EXPECT_EQ(Utf8SequenceLength("\xF4\x8F\xBF\xBF"), 4u);
  EXPECT_EQ(Utf8SequenceLength("\xF4\x90\x80\x80"), 0u);  // above U+10FFFF
  EXPECT_EQ(Utf8SequenceLength("\xF0\x9F\x99"), 0u);      // cut short
}

}  // namespace
}  // namespace presence
