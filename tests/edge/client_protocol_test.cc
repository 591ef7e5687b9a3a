#include "edge/client_protocol.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace presence::edge {
namespace {

using link::v1::RoomKind;
using ::testing::HasSubstr;
using ::testing::Not;
using Type = ClientMessage::Type;

class ClientProtocolTest : public ::testing::Test {
 protected:
  ClientMessage Accept(std::string_view text) {
    const absl::StatusOr<ClientMessage> message = parser_.Parse(text);
    EXPECT_TRUE(message.ok()) << text << ": " << message.status();
    return message.value_or(ClientMessage());
  }
  // The text for the client.
  std::string Refuse(std::string_view text) {
    const absl::StatusOr<ClientMessage> message = parser_.Parse(text);
    EXPECT_EQ(message.status().code(), absl::StatusCode::kInvalidArgument) << text;
    return std::string(message.status().message());
  }

  ClientMessageParser parser_;
};

TEST_F(ClientProtocolTest, ReadsTheMessagesOfTheSpecification) {
  ClientMessage message = Accept(R"({"type": "subscribe", "channel_id": "channel_general"})");
  EXPECT_EQ(message.type, Type::kSubscribe);
  EXPECT_EQ(message.room_kind, RoomKind::ROOM_KIND_CHANNEL);
  EXPECT_EQ(message.room_id, "channel_general");

  message = Accept(R"({"type": "subscribe", "dm_id": "dm_123"})");
  EXPECT_EQ(message.type, Type::kSubscribe);
  EXPECT_EQ(message.room_kind, RoomKind::ROOM_KIND_DM);
  EXPECT_EQ(message.room_id, "dm_123");

  EXPECT_EQ(Accept(R"({"type": "unsubscribe", "channel_id": "channel_general"})").type, Type::kUnsubscribe);
  EXPECT_EQ(Accept(R"({"type": "typing", "channel_id": "channel_general"})").type, Type::kTyping);
  EXPECT_EQ(Accept(R"({"type": "ping"})").type, Type::kPing);
}

TEST_F(ClientProtocolTest, ReadsTheStatusOfADevice) {
  EXPECT_EQ(Accept(R"({"type":"status","status":"away"})").status, link::v1::STATUS_AWAY);
  EXPECT_EQ(Accept(R"({"type":"status","status":"online"})").status, link::v1::STATUS_ONLINE);
  for (const char* bad : {R"({"type":"status"})", R"({"type":"status","status":"offline"})",
                          R"({"type":"status","status":null})", R"({"type":"status","status":["online"]})"}) {
    EXPECT_EQ(Refuse(bad), "Invalid status");
  }
}

TEST_F(ClientProtocolTest, ReadsATokenAsItIs) {
  EXPECT_EQ(Accept(R"({"type":"auth","token":"a.b.c"})").token, "a.b.c");
  EXPECT_EQ(Accept(R"({"type":"auth","token":")" + std::string(8192, 'x') + "\"}").token.size(), 8192u);
  EXPECT_THAT(Refuse(R"({"type":"auth","token":")" + std::string(8193, 'x') + "\"}"), HasSubstr("8192"));
  for (const char* bad : {R"({"type":"auth"})", R"({"type":"auth","token":""})", R"({"type":"auth","token":["a"]})"}) {
    EXPECT_EQ(Refuse(bad), "A token is required");
  }
  EXPECT_EQ(Refuse(R"({"type":"auth","token":"a.b.c","token":"a.b.d"})"), "Duplicate member");
}

TEST_F(ClientProtocolTest, SaysUntilWhenATokenIsGood) {
  std::string out;
  AppendAuthenticated(FromUnixMillis(1736856000999), &out);
  EXPECT_EQ(out, R"({"type":"auth","status":"ok","expires_at":"2025-01-14T12:00:00Z"})");
  out.clear();
  AppendTokenExpiring(FromUnixMillis(1736856000000), &out);
  EXPECT_EQ(out, R"({"type":"token_expiring","expires_at":"2025-01-14T12:00:00Z"})");
  out.clear();
  AppendReconnect(std::chrono::milliseconds(420), &out);
  EXPECT_EQ(out, R"({"type":"reconnect","after_ms":420})");
}

TEST_F(ClientProtocolTest, TheFieldDecidesTheKindOfRoomNotTheSpelling) {
  EXPECT_EQ(Accept(R"({"type":"typing","dm_id":"channel_general"})").room_kind, RoomKind::ROOM_KIND_DM);
}

TEST_F(ClientProtocolTest, OneOfTheTwoRoomFieldsMayBeNull) {
  EXPECT_EQ(Accept(R"({"type":"subscribe","channel_id":"a","dm_id":null})").room_id, "a");
  EXPECT_EQ(Accept(R"({"dm_id":"b","channel_id":null,"type":"subscribe"})").room_id, "b");
}

TEST_F(ClientProtocolTest, NeedsExactlyOneRoom) {
  for (const char* type : {"subscribe", "unsubscribe", "typing"}) {
    const std::string head = std::string(R"({"type":")") + type + '"';
    for (const char* rest : {"}", R"(,"channel_id":null})", R"(,"channel_id":null,"dm_id":null})",
                             R"(,"channel_id":"a","dm_id":"b"})", R"(,"channel_id":"","dm_id":"b"})"}) {
      EXPECT_EQ(Refuse(head + rest), "Exactly one of channel_id and dm_id is required");
    }
    for (const char* rest : {R"(,"channel_id":7})", R"(,"dm_id":{"a":"b"}})", R"(,"dm_id":false})"}) {
      EXPECT_EQ(Refuse(head + rest), "A room id must be a string");
    }
  }
}

TEST_F(ClientProtocolTest, RoomIdsHaveBounds) {
  const auto subscribe = [](const std::string& id) { return R"({"type":"subscribe","channel_id":")" + id + "\"}"; };
  EXPECT_EQ(Accept(subscribe(std::string(2048, 'x'))).room_id.size(), 2048u);
  EXPECT_THAT(Refuse(subscribe(std::string(2049, 'x'))), HasSubstr("1 to 2048 bytes"));
  EXPECT_THAT(Refuse(subscribe("")), HasSubstr("1 to 2048 bytes"));
  // Bytes count, not characters.
  std::string umlauts;
  for (int i = 0; i < 1025; ++i) umlauts += "\u00e4";
  EXPECT_THAT(Refuse(subscribe(umlauts)), HasSubstr("1 to 2048 bytes"));
}

TEST_F(ClientProtocolTest, RoomIdsAreUnicodeWithoutNul) {
  EXPECT_EQ(Accept(R"({"type":"subscribe","channel_id":"\ud83d\ude00 \"x\""})").room_id, "\U0001F600 \"x\"");
  EXPECT_EQ(Refuse(R"({"type":"subscribe","channel_id":"a\u0000b"})"), "A room id must be valid Unicode without NUL");
  Refuse(R"({"type":"subscribe","channel_id":"\udc00"})");
  Refuse(R"({"type":"subscribe","channel_id":"\ud83d\u0041"})");
  Refuse(R"({"type":"subscribe","channel_id":"\ud800"})");
  Refuse("{\"type\":\"subscribe\",\"channel_id\":\"\xff\xfe\"}");
  Refuse("{\"type\":\"subscribe\",\"channel_id\":\"\xed\xa0\x80\"}");
}

TEST_F(ClientProtocolTest, AnUnknownTypeIsRefusedInTheWordsOfTheSpecification) {
  for (const char* bad :
       {R"({"type":"foo"})", R"({"type":"Ping"})", R"({"type":"ping "})", R"({"type":"ping\u0000"})", R"({})",
        R"({"type":null})", R"({"type":3})", R"({"channel_id":"a"})", R"({"type":["ping"]})"}) {
    EXPECT_EQ(Refuse(bad), "Invalid message type");
  }
}

TEST_F(ClientProtocolTest, NothingOfTheInputIsEchoed) {
  EXPECT_THAT(Refuse(R"({"type":"evil<script>"})"), Not(HasSubstr("evil")));
  EXPECT_THAT(Refuse("evil<script>"), Not(HasSubstr("evil")));
}

TEST_F(ClientProtocolTest, OnlyOneObjectIsAMessage) {
  for (const char* bad : {"", " ", "{", "}", "ping", "nul", R"({"type":"ping"}x)", R"({"type":"ping"}{"type":"ping"})",
                          R"({"type":"ping"},)", R"({'type':'ping'})", R"({"type":"ping",})",
                          "\xef\xbb\xbf{\"type\":\"ping\"}", "{\"type\":\"pi\nng\"}", R"({"type":"ping","n":01})"}) {
    EXPECT_EQ(Refuse(bad), "Invalid JSON") << bad;
  }
  EXPECT_EQ(Refuse(std::string_view("{\"type\":\"ping\"}\0", 16)), "Invalid JSON");
  for (const char* bad : {"[]", R"(["ping"])", R"("ping")", "1", "null", "true"}) {
    EXPECT_EQ(Refuse(bad), "A message must be a JSON object") << bad;
  }
}

TEST_F(ClientProtocolTest, FurtherMembersAreSkipped) {
  EXPECT_EQ(Accept(R"( { "id" : 7, "type" : "ping", "more" : {"a":[1,2,{"type":"x"}]}, "status":"?" } )").type,
            Type::kPing);
}

TEST_F(ClientProtocolTest, AMemberThatCountsStandsOnce) {
  for (const char* bad :
       {R"({"type":"ping","type":"ping"})", R"({"type":"subscribe","channel_id":"a","channel_id":"b"})",
        R"({"type":"subscribe","channel_id":"a","dm_id":null,"dm_id":null})",
        R"({"type":"status","status":"away","status":"online"})", R"({"type":"ping","t\u0079pe":"ping"})"}) {
    EXPECT_EQ(Refuse(bad), "Duplicate member") << bad;
  }
  EXPECT_EQ(Accept(R"({"x":1,"x":2,"type":"ping"})").type, Type::kPing);
}

TEST_F(ClientProtocolTest, NestingIsBounded) {
  const auto nested = [](size_t depth) {
    return R"({"type":"ping","x":)" + std::string(depth, '[') + std::string(depth, ']') + "}";
  };
  EXPECT_EQ(Accept(nested(8)).type, Type::kPing);
  EXPECT_EQ(Refuse(nested(16)), "Invalid JSON");
  EXPECT_EQ(Refuse(nested(30'000)), "Invalid JSON");
  EXPECT_EQ(Refuse(std::string(60'000, '[')), "Invalid JSON");
}

TEST_F(ClientProtocolTest, AMessageLeavesNothingBehindForTheNextOne) {
  Accept(R"({"type":"subscribe","channel_id":"a"})");
  Accept(R"({"type":"ping","x":")" + std::string(60'000, 'x') + "\"}");
  Refuse(R"({"type":"subscribe"})");
  EXPECT_EQ(Accept(R"({"type":"unsubscribe","dm_id":"d"})").room_id, "d");
}

TEST(ClientFramesTest, HaveExactlyTheDocumentedMembers) {
  const auto written = [](auto append, auto... arguments) {
    std::string out;
    append(arguments..., &out);
    return out;
  };
  EXPECT_EQ(written(AppendPong, FromUnixMillis(1736856000999)),
            R"({"type":"pong","timestamp":"2025-01-14T12:00:00Z"})");
  EXPECT_EQ(written(AppendSubscribed, RoomKind::ROOM_KIND_CHANNEL, "channel_general"),
            R"({"type":"subscribed","channel_id":"channel_general","dm_id":null})");
  EXPECT_EQ(written(AppendSubscribed, RoomKind::ROOM_KIND_DM, "a\"b"),
            R"({"type":"subscribed","channel_id":null,"dm_id":"a\"b"})");
  EXPECT_EQ(written(AppendUnsubscribed, RoomKind::ROOM_KIND_CHANNEL, "x"),
            R"({"type":"unsubscribed","channel_id":"x","dm_id":null})");
  EXPECT_EQ(written(AppendUnsubscribed, RoomKind::ROOM_KIND_DM, "dm_123"),
            R"({"type":"unsubscribed","channel_id":null,"dm_id":"dm_123"})");
  EXPECT_EQ(written(AppendGap, RoomKind::ROOM_KIND_CHANNEL, "x"), R"({"type":"gap","channel_id":"x","dm_id":null})");
  EXPECT_EQ(written(AppendGap, RoomKind::ROOM_KIND_DM, "dm_123"),
            R"({"type":"gap","channel_id":null,"dm_id":"dm_123"})");
  EXPECT_EQ(written(AppendError, "Invalid message type", 400u),
            R"({"type":"error","error":"Invalid message type","code":400})");
}

}  // namespace
}  // namespace presence::edge
