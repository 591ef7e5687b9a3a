#include "core/api_pages.h"

#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "core/api_text.h"

namespace presence::core {
namespace {

constexpr PageScope kPresence{PageKind::kPresence};

TEST(PageSize, HasADefaultAndBounds) {
  EXPECT_EQ(*ReadPageSize(kPresencePages, 0), 1000u);
  EXPECT_EQ(*ReadPageSize(kPresencePages, 1), 1u);
  EXPECT_EQ(*ReadPageSize(kPresencePages, 10'000), 10'000u);
  EXPECT_EQ(*ReadPageSize(kClusterPages, 0), 100u);
  for (const int32_t size : {-1, 10'001, std::numeric_limits<int32_t>::min(), std::numeric_limits<int32_t>::max()}) {
    EXPECT_TRUE(absl::IsInvalidArgument(ReadPageSize(kPresencePages, size).status())) << size;
  }
  EXPECT_TRUE(absl::IsInvalidArgument(ReadPageSize(kClusterPages, 1'001).status()));
}

TEST(PageToken, BringsTheCursorBack) {
  EXPECT_EQ(*ReadPageToken(kPresence, ""), "");
  for (const std::string& id : {std::string("a"), std::string("ünïcødé"), std::string(kIdBytesMax, 'z')}) {
    const std::string token = MakePageToken(kPresence, id);
    EXPECT_EQ(token.find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"),
              std::string::npos)
        << token;
    EXPECT_EQ(*ReadPageToken(kPresence, token), id);
  }
}

TEST(PageToken, OfAnotherMakingIsRefused) {
  const std::string token = MakePageToken(kPresence, "user-123");
  std::string flipped = token;
  flipped[10] = flipped[10] == 'A' ? 'B' : 'A';
  for (const std::string& bad :
       {std::string("x"), std::string("user-123"), token.substr(0, token.size() - 1), token + "A", token + "=",
        " " + token, flipped, std::string("AQ"), std::string(100'000, 'A'), std::string("\xff\xfe")}) {
    EXPECT_TRUE(absl::IsInvalidArgument(ReadPageToken(kPresence, bad).status())) << bad.substr(0, 50);
  }
}

TEST(PageToken, IsGoodForItsOwnListAlone) {
  const std::vector<PageScope> scopes = {kPresence,
                                         {PageKind::kPresence, "away"},
                                         {PageKind::kRooms},
                                         {PageKind::kMembers, "room"},
                                         {PageKind::kMembers, "rooma"},
                                         {PageKind::kConnections, "user:a"},
                                         {PageKind::kConnections, "edge:a"}};
  for (size_t made = 0; made < scopes.size(); ++made) {
    const std::string token = MakePageToken(scopes[made], "a");
    for (size_t read = 0; read < scopes.size(); ++read) {
      EXPECT_EQ(ReadPageToken(scopes[read], token).ok(), made == read) << made << " as " << read;
    }
  }
}

TEST(ConnectionCursor, KeepsBothNumbers) {
  link::v1::ConnectionName name;
  name.set_incarnation(0x8000000000000001u);
  name.set_connection(0xff);
  const absl::StatusOr<link::v1::ConnectionName> read = ReadConnectionCursor(ConnectionCursor(name));
  ASSERT_TRUE(read.ok());
  EXPECT_EQ(read->incarnation(), name.incarnation());
  EXPECT_EQ(read->connection(), name.connection());
  EXPECT_FALSE(ReadConnectionCursor("").ok());
  EXPECT_FALSE(ReadConnectionCursor(std::string(17, 'x')).ok());
}

TEST(CutPage, EndsEarlyWhereTheAnswerWouldBeTooLarge) {
  PresencePage page;
  for (int i = 0; i < 10; ++i) {
    page.users.push_back({std::string(1000, 'u'), std::string(1000, 'n'), link::v1::STATUS_ONLINE, 0, 0});
  }
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
