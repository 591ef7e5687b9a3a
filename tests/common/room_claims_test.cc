#include "common/room_claims.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace presence {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::IsEmpty;

const RoomClaimOptions kOptions{"rooms", "room:", {"web"}};

TEST(RoomClaims, AListGrantsWriting) {
  const RoomRights rights = ReadRoomRights(json::parse(R"({"rooms":["general","team-*"]})"), kOptions);
  EXPECT_THAT(rights.write(), ElementsAre("general", "team-*"));
  EXPECT_THAT(rights.read(), IsEmpty());
}

TEST(RoomClaims, AnObjectTellsReadingFromWriting) {
  const RoomRights rights =
      ReadRoomRights(json::parse(R"({"rooms":{"write":["general"],"read":"news-*","own":["x"]}})"), kOptions);
  EXPECT_THAT(rights.write(), ElementsAre("general"));
  EXPECT_THAT(rights.read(), ElementsAre("news-*"));
}

TEST(RoomClaims, RolesOfTheRealmAndOfNamedClientsCount) {
  const RoomRights rights = ReadRoomRights(json::parse(R"({
      "realm_access":{"roles":["room:write:team-*","admin","room:read:news","room:other:x","room:write:"]},
      "resource_access":{"web":{"roles":["room:read:web:1"]},"other":{"roles":["room:write:*"]}}})"),
                                           kOptions);
  EXPECT_THAT(rights.write(), ElementsAre("team-*"));
  EXPECT_THAT(rights.read(), ElementsAre("news", "web:1"));
}

TEST(RoomClaims, WhatIsNotAsDescribedGrantsNothing) {
  for (const char* claims :
       {R"({})", R"({"rooms":null})", R"({"rooms":7})", R"({"rooms":[7,null,["x"],{"a":"b"}]})", R"({"rooms":true})",
        R"({"rooms":{"write":{"x":1},"read":7}})", R"({"realm_access":[],"resource_access":[]})",
        R"({"realm_access":{"roles":{"a":"room:write:x"}},"resource_access":{"web":7}})",
        R"({"realm_access":{"roles":["ROOM:write:x","write:x"]}})"}) {
    EXPECT_TRUE(ReadRoomRights(json::parse(claims), kOptions).empty()) << claims;
  }
}

TEST(RoomClaims, WhatIsNotConfiguredIsNotRead) {
  const json claims = json::parse(R"({"rooms":["a"],"realm_access":{"roles":["room:write:b"]}})");
  EXPECT_TRUE(ReadRoomRights(claims, {}).empty());
  EXPECT_THAT(ReadRoomRights(claims, {"rooms", "", {}}).write(), ElementsAre("a"));
  EXPECT_THAT(ReadRoomRights(claims, {"", "room:", {}}).write(), ElementsAre("b"));
  EXPECT_THAT(ReadRoomRights(json::parse(R"({"x:y":["a"]})"), {"x:y", "", {}}).write(), ElementsAre("a"));
}

TEST(RoomClaims, MoreThanTheBoundIsCut) {
  json claims;
  for (int i = 0; i < 300; ++i) claims["rooms"].push_back("room-" + std::to_string(i));
  const RoomRights rights = ReadRoomRights(claims, kOptions);
  EXPECT_EQ(rights.write().size(), RoomRights::kPatternsMax);
  EXPECT_EQ(rights.In("room-0"), RoomRight::kWrite);
  EXPECT_EQ(rights.In("room-299"), RoomRight::kNone);
}

}  // namespace
}  // namespace presence
