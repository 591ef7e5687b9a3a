// Stories of how far a shard is in the logs of its rooms: where the position comes from, what is dropped for it, what a core hears of it
// after the link was lost, and who is told that messages may be lost.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "edge/client_protocol.h"
#include "edge/forwarding_table.h"
#include "edge/shard.h"
#include "tests/fakes/shard_stage.h"

namespace presence::edge {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr char kGap[] = R"({"type":"gap","channel_id":"general","dm_id":null})";
constexpr char kDmGap[] = R"({"type":"gap","channel_id":null,"dm_id":"general"})";
// "general" and "random" have these handles; each attach may give others.
constexpr uint32_t kGeneral = 1, kRandom = 2;

struct At {
  uint64_t epoch = 0;
  uint64_t sequence = 0;
};
constexpr At kNowhere{};  // what an old core says, and one whose store is away

class ShardRoomsSeenTest : public ::testing::Test, public ShardStage {
 protected:
  ShardRoomsSeenTest() {
    Attach();
    for (uint32_t slot = 0; slot < 3; ++slot) Open(slot, "user" + std::to_string(slot));
    Forget();
  }

  void BindAt(uint32_t slot, const std::string& room, uint32_t handle, At at, uint64_t reply_to = 0) {
    link::v1::CoreCommand command;
    link::v1::Bind& bind = *command.mutable_bind();
    bind.set_connection(Id(slot));
    bind.set_room_id(room);
    bind.set_handle(handle);
    bind.set_reply_to(reply_to);
    bind.set_room_epoch(at.epoch);
    bind.set_room_sequence(at.sequence);
    shard.OnCommand(now(), command);
  }
  void DeliverAt(uint32_t handle, At at, const std::string& text, const std::vector<uint64_t>& excluded = {}) {
    link::v1::CoreCommand command;
    link::v1::Deliver& deliver = *command.mutable_deliver();
    deliver.set_handle(handle);
    deliver.set_text(text);
    deliver.set_room_epoch(at.epoch);
    deliver.set_room_sequence(at.sequence);
    deliver.mutable_excluded_connections()->Add(excluded.begin(), excluded.end());
    shard.OnCommand(now(), command);
  }
  void Moved(uint32_t handle, At at, bool lost) {
    link::v1::CoreCommand command;
    command.mutable_room_moved()->set_handle(handle);
    command.mutable_room_moved()->set_room_epoch(at.epoch);
    command.mutable_room_moved()->set_room_sequence(at.sequence);
    command.mutable_room_moved()->set_lost(lost);
    shard.OnCommand(now(), command);
  }
  // Asks for "general" in these words, and is bound.
  void JoinAs(std::string_view word, uint32_t slot, At at = kNowhere) {
    Text(slot, std::string(R"({"type":"subscribe",")").append(word).append(R"(":"general"})"));
    const uint64_t request = output.events.back().sequence();
    BindAt(slot, "general", kGeneral, at, request);
    Acknowledge(request);  // or a resync would repeat it
    Forget();
  }
  // The link is lost and found again. What the core hears before ResyncDone.
  std::vector<std::string> Resync() {
    LinkDown();
    LinkUp();
    Forget();
    Welcome();
    std::vector<std::string> heard = Events();
    EXPECT_FALSE(heard.empty());
    if (heard.empty()) return heard;
    EXPECT_EQ(heard.back(), "resync done");
    heard.pop_back();
    return heard;
  }
  // Of those, how far it is in its rooms.
  std::vector<std::string> Seen() {
    std::vector<std::string> seen;
    for (const std::string& line : Resync()) {
      if (line.starts_with("rooms seen")) seen.push_back(line);
    }
    return seen;
  }
  uint64_t Duplicates() const { return shard.counters().room_duplicates; }
};

// -------------------------------------------------------------------------------------------- where the position comes from

TEST_F(ShardRoomsSeenTest, TheFirstBindSaysWhereTheLogStands) {
  BindAt(0, "general", kGeneral, {5, 10});
  DeliverAt(kGeneral, {5, 10}, "before the join");
  EXPECT_THAT(Texts(0), IsEmpty());
  DeliverAt(kGeneral, {5, 11}, "after it");
  EXPECT_THAT(Texts(0), ElementsAre("after it"));
  EXPECT_THAT(Seen(), ElementsAre("rooms seen general@5-11"));
}

TEST_F(ShardRoomsSeenTest, ALogWithoutAMessageIsAPositionToo) {
  BindAt(0, "general", kGeneral, {5, 0});
  EXPECT_THAT(Seen(), ElementsAre("rooms seen general@5-0"));
  BindAt(0, "general", kGeneral, {5, 1});
  DeliverAt(kGeneral, {5, 1}, "the first");
  EXPECT_THAT(Texts(0), ElementsAre("the first"));
}

TEST_F(ShardRoomsSeenTest, ARoomThatIsKnownIsWhereItsMembersAre) {
  BindAt(0, "general", kGeneral, {5, 10});
  BindAt(1, "general", kGeneral, {6, 1});
  BindAt(2, "general", kGeneral, {5, 12});  // a newcomer: 11 and 12 are still on their way to the others
  DeliverAt(kGeneral, {5, 11}, "eleven");
  EXPECT_THAT(Texts(0), ElementsAre("eleven"));
  EXPECT_EQ(Duplicates(), 0u);
}

TEST_F(ShardRoomsSeenTest, AnUnknownPositionIsTakenFromWhateverSaysIt) {
  BindAt(0, "general", kGeneral, kNowhere);
  EXPECT_THAT(Seen(), IsEmpty());
  BindAt(0, "general", kGeneral, kNowhere);
  BindAt(1, "general", kGeneral, {5, 10});
  EXPECT_THAT(Seen(), ElementsAre("rooms seen general@5-10"));

  BindAt(2, "random", kRandom, kNowhere);
  DeliverAt(kRandom, {7, 3}, "hello");
  EXPECT_THAT(Texts(2), ElementsAre("hello"));
  EXPECT_THAT(Seen(), ElementsAre("rooms seen general@5-10 random@7-3"));
}

TEST_F(ShardRoomsSeenTest, EachRoomHasItsOwn) {
  BindAt(0, "general", kGeneral, {5, 10});
  BindAt(0, "random", kRandom, {5, 2});
  DeliverAt(kRandom, {5, 3}, "in the one");
  DeliverAt(kGeneral, {5, 11}, "in the other");
  EXPECT_THAT(Texts(0), ElementsAre("in the one", "in the other"));
  EXPECT_THAT(Seen(), ElementsAre("rooms seen general@5-11 random@5-3"));
}

// ------------------------------------------------------------------------------------------------------- what is dropped

TEST_F(ShardRoomsSeenTest, WhatItHadIsDroppedForAllMembersAndCountedOnce) {
  for (uint32_t slot = 0; slot < 3; ++slot) BindAt(slot, "general", kGeneral, {5, 10});
  DeliverAt(kGeneral, {5, 12}, "twelve");
  Forget();
  const uint64_t deliveries = shard.counters().deliveries;
  DeliverAt(kGeneral, {5, 12}, "twelve");
  DeliverAt(kGeneral, {5, 11}, "eleven");
  DeliverAt(kGeneral, {5, 1}, "one");
  EXPECT_EQ(output.send_calls, 0u);
  EXPECT_EQ(Duplicates(), 3u);
  EXPECT_EQ(shard.counters().deliveries, deliveries);
  EXPECT_EQ(shard.counters().late_commands, 0u);
  DeliverAt(kGeneral, {5, 13}, "thirteen");
  for (uint32_t slot = 0; slot < 3; ++slot) EXPECT_THAT(Texts(slot), ElementsAre("thirteen"));
  EXPECT_THAT(Seen(), ElementsAre("rooms seen general@5-13")) << "what was dropped has not moved it";
}

TEST_F(ShardRoomsSeenTest, WhetherSomethingIsMissingInBetweenIsForTheCoreToSay) {
  BindAt(0, "general", kGeneral, {5, 10});
  DeliverAt(kGeneral, {5, 20}, "twenty");
  EXPECT_THAT(Texts(0), ElementsAre("twenty"));
  EXPECT_EQ(shard.counters().gaps, 0u);
}

TEST_F(ShardRoomsSeenTest, ANewEpochCountsFromOneAgain) {
  BindAt(0, "general", kGeneral, {5, 10});
  DeliverAt(kGeneral, {6, 1}, "one");
  DeliverAt(kGeneral, {6, 1}, "one");
  DeliverAt(kGeneral, {6, 2}, "two");
  EXPECT_THAT(Texts(0), ElementsAre("one", "two"));
  EXPECT_EQ(Duplicates(), 1u);
  EXPECT_THAT(Seen(), ElementsAre("rooms seen general@6-2"));
}

TEST_F(ShardRoomsSeenTest, AMessageThatOnlyExcludedMembersWouldGetIsHadAllTheSame) {
  BindAt(0, "general", kGeneral, {5, 10});
  BindAt(1, "general", kGeneral, {5, 10});
  DeliverAt(kGeneral, {5, 11}, "not for user0", {Id(0)});
  EXPECT_THAT(Texts(0), IsEmpty());
  EXPECT_THAT(Texts(1), ElementsAre("not for user0"));
  DeliverAt(kGeneral, {5, 12}, "for nobody", {Id(0), Id(1)});
  DeliverAt(kGeneral, {5, 11}, "again", {Id(0)});
  DeliverAt(kGeneral, {5, 12}, "again");
  EXPECT_THAT(Texts(0), IsEmpty());
  EXPECT_THAT(Texts(1), IsEmpty());
  EXPECT_EQ(Duplicates(), 2u);
  EXPECT_THAT(Seen(), ElementsAre("rooms seen general@5-12"));
}

TEST_F(ShardRoomsSeenTest, WhatStandsInNoLogIsAlwaysHandedOnAndMovesNothing) {
  BindAt(0, "general", kGeneral, {5, 10});
  for (int time = 0; time < 2; ++time) {
    Deliver(kGeneral, "typing", /*is_volatile=*/true);
    Deliver(kGeneral, "from outside");
  }
  ASSERT_THAT(output.sent[0], SizeIs(4));
  EXPECT_EQ(output.sent[0][0].policy.send_class, SendClass::kVolatile);
  EXPECT_EQ(output.sent[0][1].policy.send_class, SendClass::kReliable);
  EXPECT_EQ(Duplicates(), 0u);
  EXPECT_THAT(Seen(), ElementsAre("rooms seen general@5-10"));
}

TEST_F(ShardRoomsSeenTest, AnOldCoreSaysNoPositionsAndHearsOfNone) {
  JoinAs("channel_id", 0);
  for (const char* text : {"one", "one", "two"}) Deliver(kGeneral, text);
  EXPECT_THAT(Texts(0), ElementsAre("one", "one", "two")) << "none of them has a number";
  EXPECT_THAT(Resync(),
              ElementsAre("declared 0:user0 online general", "declared 1:user1 online", "declared 2:user2 online"));
  Bind(0, "general", kRandom);
  Deliver(kRandom, "three");
  EXPECT_THAT(Texts(0), ElementsAre("three"));
  EXPECT_EQ(Duplicates(), 0u);
}

// -------------------------------------------------------------------------------------------------- what a core hears of it

TEST_F(ShardRoomsSeenTest, ACoreHearsItBehindTheDeclarationsAndInFrontOfWhatIsRepeated) {
  BindAt(0, "general", kGeneral, {5, 10});
  BindAt(1, "general", kGeneral, {5, 10});
  LinkDown();
  Unsubscribe(0, "general");
  Close(1);
  LinkUp();
  Forget();
  Welcome();
  EXPECT_THAT(Events(), ElementsAre("declared 0:user0 online general", "declared 2:user2 online",
                                    "rooms seen general@5-10", "left 0:general#4", "closed 1:user1#5", "resync done"));
}

TEST_F(ShardRoomsSeenTest, ACoreThatFindsItUpToDateHandsOnTheRestAndNothingTwice) {
  BindAt(0, "general", kGeneral, {5, 10});
  DeliverAt(kGeneral, {5, 11}, "eleven");
  EXPECT_THAT(Seen(), ElementsAre("rooms seen general@5-11"));
  // The next core has other handles. Where its log stands is not where this shard is.
  BindAt(0, "general", kRandom, {5, 13});
  DeliverAt(kRandom, {5, 12}, "twelve");
  DeliverAt(kRandom, {5, 13}, "thirteen");
  DeliverAt(kRandom, {5, 12}, "twelve");  // from the bus, behind the log
  EXPECT_THAT(Texts(0), ElementsAre("twelve", "thirteen"));
  EXPECT_EQ(Duplicates(), 1u);
}

TEST_F(ShardRoomsSeenTest, EachAttachSaysItAgain) {
  BindAt(0, "general", kGeneral, {5, 10});
  for (int attach = 0; attach < 3; ++attach) {
    EXPECT_THAT(Seen(), ElementsAre("rooms seen general@5-10")) << attach;
  }
  EXPECT_THAT(output.dropped, IsEmpty());
}

TEST_F(ShardRoomsSeenTest, OnlyRoomsWithMembersAndAKnownPositionAreNamed) {
  BindAt(0, "general", kGeneral, {5, 10});
  BindAt(0, "random", kRandom, kNowhere);
  BindAt(1, "left", 3, {5, 10});
  Unbind(1, "left");
  BindAt(2, "closed", 4, {5, 10});
  Close(2);
  Subscribe(1, "asked for");
  EXPECT_THAT(Seen(), ElementsAre("rooms seen general@5-10"));
}

TEST_F(ShardRoomsSeenTest, ManyRoomsAreSaidInSeveralEventsEachOnce) {
  constexpr uint32_t kRooms = 1100;
  // As long as an id may be: even so an event is no larger than a link takes.
  const auto name = [](uint32_t room) {
    std::string id = std::to_string(room) + " ";
    return id.append(kRoomIdBytesMax - id.size(), 'x');
  };
  for (uint32_t room = 1; room <= kRooms; ++room) BindAt(room % 3, name(room), room, {5, room});
  LinkDown();
  LinkUp();
  Forget();
  Welcome();

  std::map<std::string, uint64_t> seen;
  size_t events = 0, rooms = 0;
  for (const link::v1::EdgeEvent& event : output.TakeEvents()) {
    if (!event.has_rooms_seen()) continue;
    ++events;
    EXPECT_LT(event.ByteSizeLong(), size_t{2} << 20);
    EXPECT_EQ(event.sequence(), 0u) << "it is never repeated";
    for (const link::v1::RoomSeen& room : event.rooms_seen().rooms()) {
      EXPECT_EQ(room.epoch(), 5u);
      seen[room.room_id()] = room.sequence();
      ++rooms;
    }
  }
  EXPECT_EQ(events, 3u);
  EXPECT_EQ(rooms, kRooms);
  ASSERT_THAT(seen, SizeIs(kRooms));
  for (uint32_t room = 1; room <= kRooms; ++room) EXPECT_EQ(seen[name(room)], room);
}

// --------------------------------------------------------------------------------------------------- and when it is forgotten

TEST_F(ShardRoomsSeenTest, WithTheLastMemberThePositionIsForgotten) {
  BindAt(0, "general", kGeneral, {5, 10});
  BindAt(1, "general", kGeneral, {5, 10});
  Unbind(0, "general");
  EXPECT_THAT(Seen(), ElementsAre("rooms seen general@5-10")) << "one is still there";
  BindAt(1, "general", kGeneral, {5, 10});
  Close(1);
  EXPECT_THAT(Seen(), IsEmpty());
  // Whoever comes next has seen nothing: even a lower number is news.
  BindAt(2, "general", kGeneral, {5, 3});
  DeliverAt(kGeneral, {5, 4}, "four");
  EXPECT_THAT(Texts(2), ElementsAre("four"));
  EXPECT_EQ(Duplicates(), 0u);
}

TEST_F(ShardRoomsSeenTest, ARoomThatSomebodyWaitsForIsForgottenAsWell) {
  BindAt(0, "general", kGeneral, {5, 10});
  Subscribe(1, "general");
  Unbind(0, "general");
  BindAt(1, "general", kGeneral, kNowhere, /*reply_to=*/4);
  EXPECT_THAT(Seen(), IsEmpty());
  BindAt(1, "general", kGeneral, {5, 3});
  EXPECT_THAT(Seen(), ElementsAre("rooms seen general@5-3"));
}

TEST_F(ShardRoomsSeenTest, WhoLeavesAndComesBackStartsWhereTheCoreSays) {
  JoinAs("channel_id", 0, {5, 10});
  LinkDown();
  Unsubscribe(0, "general");
  Subscribe(0, "general");
  LinkUp();
  Forget();
  Welcome();
  EXPECT_THAT(Events(),
              ElementsAre("declared 0:user0 online general", "declared 1:user1 online", "declared 2:user2 online",
                          "rooms seen general@5-10", "left 0:general#5", "joined 0:general#6", "resync done"));
  BindAt(0, "general", kRandom, {5, 20});
  Unbind(0, "general", 5);
  BindAt(0, "general", kRandom, {5, 20}, 6);
  Forget();
  DeliverAt(kRandom, {5, 20}, "before");
  DeliverAt(kRandom, {5, 21}, "after");
  EXPECT_THAT(Texts(0), ElementsAre("after"));
}

TEST_F(ShardRoomsSeenTest, AMessageForARoomThatIsEmptyIsLateAndNoDuplicate) {
  BindAt(0, "general", kGeneral, {5, 10});
  Unbind(0, "general");
  DeliverAt(kGeneral, {5, 10}, "late");
  DeliverAt(77, {5, 10}, "to nobody");
  EXPECT_EQ(shard.counters().late_commands, 2u);
  EXPECT_EQ(Duplicates(), 0u);
  EXPECT_THAT(Texts(0), IsEmpty());
}

// ---------------------------------------------------------------------------------------------------------- the core moves it

TEST_F(ShardRoomsSeenTest, AQuietMoveTellsNobody) {
  JoinAs("channel_id", 0, {5, 10});
  Moved(kGeneral, {5, 15}, /*lost=*/false);
  DeliverAt(kGeneral, {5, 15}, "skipped");
  DeliverAt(kGeneral, {5, 16}, "next");
  EXPECT_THAT(Texts(0), ElementsAre("next"));
  EXPECT_EQ(shard.counters().gaps, 0u);
  EXPECT_THAT(Seen(), ElementsAre("rooms seen general@5-16"));
}

TEST_F(ShardRoomsSeenTest, AMoveGoesWhereTheCoreSaysBackAsWell) {
  BindAt(0, "general", kGeneral, {5, 10});
  Moved(kGeneral, {5, 7}, /*lost=*/false);
  DeliverAt(kGeneral, {5, 8}, "eight");
  EXPECT_THAT(Texts(0), ElementsAre("eight"));
  Moved(kGeneral, {9, 0}, /*lost=*/false);
  EXPECT_THAT(Seen(), ElementsAre("rooms seen general@9-0"));
}

TEST_F(ShardRoomsSeenTest, OfALossEachIsToldInTheWordsOfItsSubscription) {
  JoinAs("channel_id", 0, {5, 10});
  JoinAs("dm_id", 1);
  JoinAs("channel_id", 2);
  Moved(kGeneral, {6, 3}, /*lost=*/true);
  EXPECT_THAT(Texts(0), ElementsAre(kGap));
  ASSERT_THAT(output.sent[1], SizeIs(1));
  EXPECT_EQ(output.sent[1][0].policy.send_class, SendClass::kReliable);
  EXPECT_THAT(Texts(1), ElementsAre(kDmGap));
  EXPECT_THAT(Texts(2), ElementsAre(kGap));
  EXPECT_EQ(shard.counters().gaps, 3u);
  EXPECT_THAT(Seen(), ElementsAre("rooms seen general@6-3"));
}

TEST_F(ShardRoomsSeenTest, TheWordsOutliveTheLink) {
  JoinAs("dm_id", 0, {5, 10});
  Resync();
  BindAt(0, "general", kRandom, {6, 3});
  Moved(kRandom, {6, 3}, /*lost=*/true);
  EXPECT_THAT(Texts(0), ElementsAre(kDmGap));
}

TEST_F(ShardRoomsSeenTest, TheWordsAreThoseOfTheNewestSubscription) {
  JoinAs("channel_id", 0, {5, 10});
  JoinAs("dm_id", 0);
  Moved(kGeneral, {6, 3}, /*lost=*/true);
  EXPECT_THAT(Texts(0), ElementsAre(kDmGap));
  EXPECT_EQ(shard.counters().gaps, 1u);
}

TEST_F(ShardRoomsSeenTest, ALossWithoutAPositionLeavesItWhereItIs) {
  JoinAs("channel_id", 0, {5, 10});
  Moved(kGeneral, kNowhere, /*lost=*/true);
  EXPECT_THAT(Texts(0), ElementsAre(kGap));
  EXPECT_THAT(Seen(), ElementsAre("rooms seen general@5-10"));
}

TEST_F(ShardRoomsSeenTest, OnlyTheMembersOfThatRoomAreTold) {
  JoinAs("channel_id", 0);
  BindAt(1, "random", kRandom, {5, 10});
  Moved(kGeneral, {6, 3}, /*lost=*/true);
  EXPECT_THAT(Texts(0), ElementsAre(kGap));
  EXPECT_THAT(Texts(1), IsEmpty());
  EXPECT_THAT(Texts(2), IsEmpty());
  EXPECT_THAT(Seen(), ElementsAre("rooms seen general@6-3 random@5-10"));
}

TEST_F(ShardRoomsSeenTest, AMoveOfARoomThatIsNotThereIsLate) {
  BindAt(0, "general", kGeneral, {5, 10});
  Unbind(0, "general");
  Moved(kGeneral, {6, 3}, /*lost=*/true);
  Moved(0, {6, 3}, /*lost=*/true);
  Moved(ForwardingTable::kHandleMax, {6, 3}, /*lost=*/false);
  EXPECT_EQ(shard.counters().late_commands, 3u);
  EXPECT_EQ(shard.counters().commands_unknown, 0u);
  EXPECT_EQ(shard.counters().gaps, 0u);
  EXPECT_THAT(Texts(0), IsEmpty());
  EXPECT_TRUE(shard.link_live());
  EXPECT_THAT(Seen(), IsEmpty());
}

TEST_F(ShardRoomsSeenTest, HandlesOfTheLinkBeforeMeanNothing) {
  BindAt(0, "general", kGeneral, {5, 10});
  Resync();
  Moved(kGeneral, {6, 3}, /*lost=*/true);
  DeliverAt(kGeneral, {6, 4}, "of another room, as it may be");
  EXPECT_EQ(shard.counters().late_commands, 2u);
  EXPECT_THAT(Texts(0), IsEmpty());
  EXPECT_THAT(Seen(), ElementsAre("rooms seen general@5-10"));
}

TEST_F(ShardRoomsSeenTest, ABindThatBreaksTheProtocolMovesNothing) {
  BindAt(0, "general", kGeneral, {5, 10});
  BindAt(1, "random", kGeneral, {9, 9});
  EXPECT_THAT(output.dropped, SizeIs(1));
  EXPECT_THAT(Seen(), ElementsAre("rooms seen general@5-10"));
}

}  // namespace
}  // namespace presence::edge
