#include "common/room_rights.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

namespace presence {
namespace {

TEST(RoomPattern, MatchesByteForByteWithStarsForAnything) {
  const struct {
    std::string_view pattern, room_id;
    bool matches;
  } kCases[] = {
      {"general", "general", true},
      {"general", "general2", false},
      {"general", "genera", false},
      {"General", "general", false},
      {"*", "general", true},
      {"*", "x", true},
      {"team-*", "team-", true},
      {"team-*", "team-7", true},
      {"team-*", "a-team-7", false},
      {"*-news", "-news", true},
      {"*-news", "x-news", true},
      {"*-news", "x-news2", false},
      {"a*b", "ab", true},
      {"a*b", "aXb", true},
      {"a*b", "a", false},
      {"a*a", "a", false},
      {"a*a", "aa", true},
      {"a*b*c", "a1b2c", true},
      {"a*b*c", "acb", false},
      {"a*b*c", "abbc", true},
      {"**", "x", true},
      {"a**c", "abc", true},
      {"*b*", "abc", true},
      {"*b*", "acd", false},
      {"*ab*ab*", "abab", true},
      {"*ab*ab*", "aba", false},
      {"?", "x", false},
      {"[a-z]", "b", false},
      {"", "x", false},
      {"a*bc*bc", "abcbc", true},
      {"a*bc*bc", "abc", false},
  };
  for (const auto& one : kCases) {
    EXPECT_EQ(MatchesRoomPattern(one.pattern, one.room_id), one.matches) << one.pattern << " " << one.room_id;
  }
}

// The definition, without regard to what it costs.
bool Slowly(std::string_view pattern, std::string_view text) {
  if (pattern.empty()) return text.empty();
  if (pattern[0] == '*') return Slowly(pattern.substr(1), text) || (!text.empty() && Slowly(pattern, text.substr(1)));
  return !text.empty() && pattern[0] == text[0] && Slowly(pattern.substr(1), text.substr(1));
}

TEST(RoomPattern, MeansWhatItsDefinitionSays) {
  std::mt19937 random(7);
  const auto text = [&](std::string_view alphabet, size_t size_max) {
    std::string out(1 + random() % size_max, ' ');
    for (char& c : out) c = alphabet[random() % alphabet.size()];
    return out;
  };
  for (int i = 0; i < 20'000; ++i) {
    const std::string pattern = text("ab*", 7), room_id = text("ab", 9);
    ASSERT_EQ(MatchesRoomPattern(pattern, room_id), Slowly(pattern, room_id)) << pattern << " " << room_id;
  }
}

// Where it were tried at each place again, this would take the test's whole time: 2^600 tries, or a billion comparisons of each pattern.
TEST(RoomPattern, StaysLinearWhateverTheClientSends) {
  std::string stars, room_id(2048, 'a');
  for (int i = 0; i < 600; ++i) stars += "*a";
  stars += "*b";
  const std::string long_middle = "*" + std::string(1023, 'a') + "b*";
  for (int i = 0; i < 2'000; ++i) {
    ASSERT_FALSE(MatchesRoomPattern(stars, room_id));
    ASSERT_FALSE(MatchesRoomPattern(long_middle, room_id));
  }
}

TEST(RoomRights, TheHighestRightCounts) {
  RoomRights rights;
  EXPECT_EQ(rights.In("general"), RoomRight::kNone);
  EXPECT_TRUE(rights.Add(RoomRight::kRead, "*"));
  EXPECT_TRUE(rights.Add(RoomRight::kWrite, "team-*"));
  EXPECT_EQ(rights.In("general"), RoomRight::kRead);
  EXPECT_EQ(rights.In("team-7"), RoomRight::kWrite);
}

TEST(RoomRights, AreBounded) {
  RoomRights many;
  for (size_t i = 0; i < RoomRights::kPatternsMax; ++i)
    ASSERT_TRUE(many.Add(RoomRight::kRead, "r" + std::to_string(i)));
  EXPECT_FALSE(many.Add(RoomRight::kWrite, "more"));
  EXPECT_EQ(many.In("more"), RoomRight::kNone);

  RoomRights large;
  for (size_t i = 0; i < RoomRights::kBytesMax / 2048; ++i) {
    ASSERT_TRUE(large.Add(RoomRight::kRead, std::string(2048, static_cast<char>('a' + i))));
  }
  EXPECT_FALSE(large.Add(RoomRight::kRead, "x"));

  RoomRights none;
  EXPECT_FALSE(none.Add(RoomRight::kRead, ""));
  EXPECT_FALSE(none.Add(RoomRight::kRead, std::string(2049, 'a')));
  EXPECT_FALSE(none.Add(RoomRight::kRead, std::string_view("a\0b", 3)));
  EXPECT_FALSE(none.Add(RoomRight::kNone, "a"));
  EXPECT_TRUE(none.empty());
}

TEST(RoomRightsTable, HoldsEqualRightsOnce) {
  RoomRights team, news;
  team.Add(RoomRight::kWrite, "team-*");
  news.Add(RoomRight::kRead, "team-*");
  RoomRightsTable table;
  EXPECT_EQ(table.Hold(RoomRights()), nullptr);
  const RoomRights* one = table.Hold(team);
  const RoomRights* other = table.Hold(news);
  EXPECT_NE(one, other);
  EXPECT_EQ(table.Hold(team), one);
  EXPECT_EQ(table.size(), 2u);
  table.Release(one);
  EXPECT_EQ(one->In("team-7"), RoomRight::kWrite);
  table.Release(one);
  table.Release(nullptr);
  EXPECT_EQ(table.size(), 1u);
  table.Release(other);
  EXPECT_EQ(table.size(), 0u);
}

}  // namespace
}  // namespace presence
