#include "core/client_text.h"

#include <gtest/gtest.h>

namespace presence::core {
namespace {

TEST(ClientText, AMessageCarriesTheDataAsGiven) {
  EXPECT_EQ(MessageFrame(R"({ "content":"a\u00e9" })"), R"({"type":"message","data":{ "content":"a\u00e9" }})");
}

TEST(ClientText, TheCopyForOutsidersNamesItsOriginFirst) {
  const std::string copy = MessageCopy(0xab, "dm \"1\"", "{}");
  EXPECT_EQ(copy, R"({"origin":"presence.core/00000000000000ab","room_id":"dm \"1\"","type":"message","data":{}})");
  EXPECT_TRUE(copy.starts_with(kCopyPrefix));
}

TEST(ClientText, TypingNamesChannelOrDmAndTheOtherIsNull) {
  link::v1::RoomTyping typing;
  typing.set_room_id("dm_123");
  typing.set_user_id("u-1");
  typing.set_username("al\nice");
  typing.set_kind(link::v1::ROOM_KIND_CHANNEL);
  EXPECT_EQ(TypingFrame(typing),
            R"({"type":"typing","channel_id":"dm_123","dm_id":null,"user_id":"u-1","username":"al\nice"})")
      << "what the sender said decides, not the spelling";
  typing.set_kind(link::v1::ROOM_KIND_DM);
  EXPECT_EQ(TypingFrame(typing),
            R"({"type":"typing","channel_id":null,"dm_id":"dm_123","user_id":"u-1","username":"al\nice"})");
}

TEST(ClientText, PresenceHasExactlyTheDocumentedMembers) {
  EXPECT_EQ(
      PresenceFrame({"user-123", "alice", "online", "2025-01-14T12:00:00Z"}),
      R"({"type":"presence","user_id":"user-123","username":"alice","status":"online","timestamp":"2025-01-14T12:00:00Z"})");
}

}  // namespace
}  // namespace presence::core
