// The encoding of every part of a token.
#include "common/base64url.h"

#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <string_view>

namespace presence {
namespace {

TEST(Base64UrlTest, OneSpellingPerValue) {
  for (size_t size = 0; size < 70; ++size) {
    std::string bytes;
    for (size_t i = 0; i < size; ++i) bytes.push_back(static_cast<char>(i * 89 + size));
    EXPECT_EQ(Base64UrlDecode(Base64UrlEncode(bytes)), bytes);
  }
  EXPECT_EQ(Base64UrlEncode("\xfb\xff"), "-_8");
  for (const std::string_view text :
       {"A", "AAAAA", "AA=", "AA==", "AB", "AAB", "+/8", "A A", "AA\n", "AA!!", "\xc3\xa4zz"}) {
    EXPECT_EQ(Base64UrlDecode(text), std::nullopt) << text;
  }
}

}  // namespace
}  // namespace presence
