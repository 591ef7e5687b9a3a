// What a token says of rooms on its way to the core, and what the core's word about rights looks like to a client.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "edge/shard.h"
#include "tests/fakes/shard_stage.h"

namespace presence::edge {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr char kForbidden[] = R"({"type":"error","error":"Not allowed in this room","code":403})";
constexpr char kUnsubscribed[] = R"({"type":"unsubscribed","channel_id":"general","dm_id":null})";

RoomRights Rights(std::vector<std::string> write, std::vector<std::string> read = {}) {
  RoomRights rights;
  for (const std::string& pattern : write) rights.Add(RoomRight::kWrite, pattern);
  for (const std::string& pattern : read) rights.Add(RoomRight::kRead, pattern);
  return rights;
}

class ShardRoomsTest : public ::testing::Test, public ShardStage {
 protected:
  ShardRoomsTest() : ShardStage(Options()) {}
  TokenFacts Facts(const RoomRights& rights) const {
    return {.user_id = "alice", .username = "Alice", .expires_at = now().wall + token_life, .room_rights = &rights};
  }
  void OpenWith(uint32_t slot, const RoomRights& rights, uint32_t generation = 1) {
    if (generations.size() <= slot) generations.resize(slot + 1);
    generations[slot] = generation;
    shard.OnConnectionOpened(now(), slot, generation, Facts(rights));
  }
  void LeaveRoom(uint32_t slot, uint32_t code, const std::string& error) {
    link::v1::CoreCommand command;
    command.mutable_leave_room()->set_connection(Id(slot));
    command.mutable_leave_room()->set_room_id("general");
    command.mutable_leave_room()->set_code(code);
    command.mutable_leave_room()->set_error(error);
    shard.OnCommand(now(), command);
  }
};

TEST_F(ShardRoomsTest, TheCoreHearsOfRightsWithTheConnection) {
  Attach();
  Forget();
  OpenWith(1, Rights({"team-*"}, {"news"}));
  OpenWith(2, {});
  const auto events = output.TakeEvents();
  ASSERT_THAT(events, SizeIs(2));
  EXPECT_THAT(events[0].connection_opened().rights().write(), ElementsAre("team-*"));
  EXPECT_THAT(events[0].connection_opened().rights().read(), ElementsAre("news"));
  EXPECT_FALSE(events[1].connection_opened().has_rights());
}

TEST_F(ShardRoomsTest, EveryNewCoreHearsThemAgain) {
  Attach();
  OpenWith(1, Rights({"team-*"}));
  OpenWith(2, {});
  LinkDown();
  Forget();
  Attach();
  const auto events = output.TakeEvents();  // Hello, two declarations, the end of them
  ASSERT_THAT(events, SizeIs(4));
  EXPECT_THAT(events[1].connection_declared().rights().write(), ElementsAre("team-*"));
  EXPECT_FALSE(events[2].connection_declared().has_rights());
}

TEST_F(ShardRoomsTest, ANewTokenTakesThePlaceOfTheOldOne) {
  Attach();
  OpenWith(1, Rights({"*"}));
  Forget();
  const RoomRights rights = Rights({"team-*"});
  Text(1, R"({"type":"auth","token":"newer"})");
  shard.OnTokenChecked(now(), 1, 1, {TokenCheck::Outcome::kGood, Facts(rights)});
  const auto events = output.TakeEvents();
  ASSERT_THAT(events, SizeIs(1));
  EXPECT_THAT(events[0].token_renewed().rights().write(), ElementsAre("team-*"));
  LinkDown();
  Forget();
  Attach();
  EXPECT_THAT(output.TakeEvents().at(1).connection_declared().rights().write(), ElementsAre("team-*"));
}

TEST_F(ShardRoomsTest, ASlotsNextOwnerDoesNotInherit) {
  Attach();
  OpenWith(1, Rights({"*"}));
  Close(1);
  Forget();
  OpenWith(1, {}, 2);
  EXPECT_FALSE(output.TakeEvents().at(0).connection_opened().has_rights());
}

TEST_F(ShardRoomsTest, ARightThatIsGoneIsAnErrorAndThenTheEndOfTheSubscription) {
  Attach();
  Open(1, "alice");
  Subscribe(1, "general");
  Bind(1, "general", 1, 2);
  Forget();
  LeaveRoom(1, 403, "Not allowed in this room");
  EXPECT_THAT(Events(), ElementsAre("left 1:general#3"));
  EXPECT_THAT(Texts(1), ElementsAre(kForbidden));
  LeaveRoom(1, 403, "Not allowed in this room");
  EXPECT_THAT(Texts(1), IsEmpty()) << "it is told once, and leaves already";
  Unbind(1, "general", 3);
  EXPECT_THAT(Texts(1), ElementsAre(kUnsubscribed));
  LeaveRoom(1, 403, "Not allowed in this room");
  EXPECT_THAT(Texts(1), IsEmpty()) << "it is not in the room";
}

TEST_F(ShardRoomsTest, AJoinThatWasTakenBackIsNotAnswered) {
  Attach();
  Open(1, "alice");
  Subscribe(1, "general");
  Unsubscribe(1, "general");
  Forget();
  Refuse(2, 0, "");
  Unbind(1, "general", 3);
  EXPECT_THAT(Texts(1), ElementsAre(kUnsubscribed));
  LinkDown();
  Forget();
  Attach();
  EXPECT_THAT(Events(), ElementsAre("hello 2", "declared 1:alice online", "resync done")) << "nothing is repeated";
}

}  // namespace
}  // namespace presence::edge
