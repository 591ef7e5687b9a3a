#include "edge/frame.h"

#include <gtest/gtest.h>

#include <string>

namespace presence::edge {
namespace {

using namespace std::string_literals;

TEST(FrameTest, ShortTextHasItsLengthInTheSecondByte) {
  EXPECT_EQ(FrameRef::Text("hi").bytes(), "\x81\x02hi");
  EXPECT_EQ(FrameRef::Text("").bytes(), "\x81\x00"s);
  const std::string longest(125, 'x');
  EXPECT_EQ(FrameRef::Text(longest).bytes(), "\x81\x7d" + longest);
}

TEST(FrameTest, LongerTextsHaveSixteenAndSixtyFourBitLengths) {
  const std::string shortest16(126, 'x'), longest16(65535, 'y'), shortest64(65536, 'z');
  EXPECT_EQ(FrameRef::Text(shortest16).bytes(), "\x81\x7e\x00\x7e"s + shortest16);
  EXPECT_EQ(FrameRef::Text(longest16).bytes(), "\x81\x7e\xff\xff"s + longest16);
  EXPECT_EQ(FrameRef::Text(shortest64).bytes(), "\x81\x7f\x00\x00\x00\x00\x00\x01\x00\x00"s + shortest64);
}

TEST(FrameTest, RawBytesStayAsTheyAre) {
  EXPECT_EQ(FrameRef::Raw("\x8a\x00"s).bytes(), "\x8a\x00"s);
  EXPECT_EQ(FrameRef::Raw("").bytes(), "");
}

TEST(FrameTest, CopiesShareTheBytesAndTheLastOneFreesThem) {
  FrameRef copy;
  EXPECT_FALSE(copy);
  const char* bytes = nullptr;
  {
    FrameRef original = FrameRef::Text("shared");
    bytes = original.bytes().data();
    copy = original;
    FrameRef moved = std::move(original);
    EXPECT_FALSE(original);  // NOLINT(bugprone-use-after-move): that it is empty is the point
    EXPECT_EQ(moved.bytes().data(), bytes);
  }
  EXPECT_EQ(copy.bytes().data(), bytes);
  EXPECT_EQ(copy.bytes(), "\x81\x06shared");
}

}  // namespace
}  // namespace presence::edge
