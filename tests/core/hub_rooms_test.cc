// Who may be in which room: claims, answers of an authorizer, and what happens when a right is gone.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/hub.h"
#include "tests/fakes/hub_world.h"

namespace presence::core {
namespace {

using link::v1::EdgeEvent;
using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::StartsWith;
using testing::UnorderedElementsAre;

const uint64_t kPhone = ConnectionOf(7), kLaptop = ConnectionOf(8);

HubOptions With(RoomAuth auth) {
  HubOptions options = HubWorld::DefaultOptions();
  options.room_auth = auth;
  return options;
}

HubWorld::Lines Only(std::string_view what, HubWorld::Lines lines) {
  std::erase_if(lines, [&](const std::string& line) { return !line.starts_with(what); });
  return lines;
}
HubWorld::Lines WithoutAcks(HubWorld::Lines lines) {
  std::erase_if(lines, [](const std::string& line) { return line.starts_with("ack") || line == "heartbeat"; });
  return lines;
}

// --------------------------------------------------------------------------------------------------------------- open

TEST(HubRoomsOpen, NobodyIsAsked) {
  HubWorld world(With(RoomAuth::kOpen));
  world.AttachConfirmed(1, 1, {Declared(kPhone, "alice")});
  world.Say(1, Joined(1, kPhone, "general"));
  EXPECT_THAT(world.Sent(1), ElementsAre("bind 7.1 general handle=1 reply=1"));
  EXPECT_THAT(Only("may", world.Asked()), IsEmpty());
}

TEST(HubRoomsOpen, ARoomIsFull) {
  HubOptions options = With(RoomAuth::kOpen);
  options.room_subscribers_max = 1;
  HubWorld world(options);
  world.AttachConfirmed(1, 1, {Declared(kPhone, "alice"), Declared(kLaptop, "bob")});
  world.Say(1, {Joined(1, kPhone, "general"), Joined(2, kLaptop, "general"), Joined(3, kPhone, "general"),
                Joined(4, kLaptop, "random")});
  EXPECT_THAT(world.Sent(1), ElementsAre("bind 7.1 general handle=1 reply=1", "refuse reply=2 429",
                                         "bind 7.1 general handle=1 reply=3", "bind 8.1 random handle=2 reply=4"));
  EXPECT_EQ(world.hub().counters().joins_room_full, 1u);
  world.Say(1, {Left(5, kPhone, "general"), Joined(6, kLaptop, "general")});
  EXPECT_THAT(Only("bind", world.Sent(1)), ElementsAre(HasSubstr("8.1 general"))) << "somebody has made room";
}

// ------------------------------------------------------------------------------------------------------------- claims

void Grant(link::v1::RoomRights* rights, std::vector<std::string> write, std::vector<std::string> read) {
  rights->mutable_write()->Add(write.begin(), write.end());
  rights->mutable_read()->Add(read.begin(), read.end());
}
EdgeEvent OpenedWith(uint64_t sequence, uint64_t connection, std::string_view user, std::vector<std::string> write,
                     std::vector<std::string> read = {}) {
  EdgeEvent event = Opened(sequence, connection, user);
  Grant(event.mutable_connection_opened()->mutable_rights(), std::move(write), std::move(read));
  return event;
}
EdgeEvent DeclaredWith(uint64_t connection, std::string_view user, std::vector<std::string> rooms,
                       std::vector<std::string> write) {
  EdgeEvent event = Declared(connection, user, std::move(rooms));
  Grant(event.mutable_connection_declared()->mutable_rights(), std::move(write), {});
  return event;
}
EdgeEvent Renewed(uint64_t sequence, uint64_t connection, std::vector<std::string> write) {
  EdgeEvent event;
  event.set_sequence(sequence);
  event.mutable_token_renewed()->set_connection(connection);
  Grant(event.mutable_token_renewed()->mutable_rights(), std::move(write), {});
  return event;
}

TEST(HubRoomsClaims, TheTokenDecides) {
  HubWorld world(With(RoomAuth::kClaims));
  world.AttachConfirmed(1, 1);
  world.Say(
      1, {OpenedWith(1, kPhone, "alice", {"team-*"}, {"news"}), Opened(2, kLaptop, "bob"), Joined(3, kPhone, "team-7"),
          Joined(4, kPhone, "news"), Joined(5, kPhone, "other"), Joined(6, kLaptop, "team-7")});
  EXPECT_THAT(world.Sent(1), ElementsAre("bind 7.1 team-7 handle=1 reply=3", "bind 7.1 news handle=2 reply=4",
                                         "refuse reply=5 403", "refuse reply=6 403"));
  EXPECT_EQ(world.hub().counters().joins_forbidden, 2u);
  EXPECT_THAT(Only("may", world.Asked()), IsEmpty());
}

TEST(HubRoomsClaims, TypingNeedsTheRightToWrite) {
  HubWorld world(With(RoomAuth::kClaims));
  world.AttachConfirmed(1, 1);
  world.Say(1, OpenedWith(1, kPhone, "alice", {"team-*"}, {"news"}));
  world.Forget();
  world.Say(1, {Typing(kPhone, "team-7"), Typing(kPhone, "news"), Typing(kPhone, "other")});
  EXPECT_THAT(Only("publish", world.Asked()), ElementsAre(HasSubstr("typing team-7 alice")));
  EXPECT_THAT(
      world.Sent(1),
      ElementsAre("deliver to 7.1 {\"type\":\"error\",\"error\":\"Not allowed to write in this room\",\"code\":403}",
                  "deliver to 7.1 {\"type\":\"error\",\"error\":\"Not allowed in this room\",\"code\":403}"));
  EXPECT_EQ(world.hub().counters().typing_forbidden, 2u);
}

TEST(HubRoomsClaims, ANewTokenTakesSubscriptionsAway) {
  HubWorld world(With(RoomAuth::kClaims));
  world.AttachConfirmed(1, 1);
  world.Say(1, {OpenedWith(1, kPhone, "alice", {"*"}), Joined(2, kPhone, "team-7"), Joined(3, kPhone, "news")});
  world.Forget();
  world.Say(1, Renewed(4, kPhone, {"team-*"}));
  EXPECT_THAT(world.Sent(1), ElementsAre("leave 7.1 news 403"));
  world.Say(1, Left(5, kPhone, "news"));
  EXPECT_THAT(world.Sent(1), ElementsAre("unbind 7.1 news reply=5"));
  world.Say(1, Joined(6, kPhone, "news"));
  EXPECT_THAT(world.Sent(1), ElementsAre("refuse reply=6 403"));
  EXPECT_EQ(world.hub().counters().subscriptions_revoked, 1u);
}

TEST(HubRoomsClaims, ADeclarationIsJudgedByItsToken) {
  HubWorld world(With(RoomAuth::kClaims));
  world.OpenLink(1);
  world.Say(1, {Hello(1), DeclaredWith(kPhone, "alice", {"team-7", "news"}, {"team-*"}), ResyncDone()});
  EXPECT_THAT(WithoutAcks(world.Sent(1)), ElementsAre(StartsWith("welcome"), "bind 7.1 team-7 handle=1 reply=0",
                                                      "bind 7.1 news handle=2 reply=0", "leave 7.1 news 403"));
}

TEST(HubRoomsClaims, ASlotsNextOwnerDoesNotInherit) {
  HubWorld world(With(RoomAuth::kClaims));
  world.AttachConfirmed(1, 1);
  world.Say(1, {OpenedWith(1, kPhone, "alice", {"*"}), Closed(2, kPhone, "alice"), Opened(3, ConnectionOf(7, 2), "bob"),
                Joined(4, ConnectionOf(7, 2), "general")});
  world.ConfirmAll();
  EXPECT_THAT(Only("refuse", world.Sent(1)), ElementsAre("refuse reply=4 403"));
}

// -------------------------------------------------------------------------------------------------------------- asked

struct HubRoomsAsked : testing::Test {
  HubWorld world;
  explicit HubRoomsAsked(const HubOptions& options = With(RoomAuth::kAsked)) : world(options) {
    world.AttachConfirmed(1, 1, {Declared(kPhone, "alice"), Declared(kLaptop, "bob")});
  }
  // A member for `cache_for`.
  void Enter(uint64_t sequence, uint64_t connection, std::string_view room, RoomRight right = RoomRight::kWrite,
             milliseconds cache_for = {}) {
    world.Say(1, Joined(sequence, connection, room));
    world.AnswerRight(right, cache_for);
    world.Forget();
  }
  void PassAlive(milliseconds time) {
    for (; time.count() > 0; time -= std::min(time, milliseconds(1000))) {
      world.Say(1, Heartbeat());
      world.Pass(std::min(time, milliseconds(1000)));
    }
  }
};

TEST_F(HubRoomsAsked, AJoinWaitsForTheAnswer) {
  world.Say(1, Joined(1, kPhone, "general"));
  EXPECT_THAT(world.Asked(), ElementsAre("may alice(alice) general"));
  world.Pass(milliseconds(300));
  EXPECT_THAT(WithoutAcks(world.Sent(1)), IsEmpty());
  EXPECT_EQ(world.hub().sizes().joins_waiting, 1u);
  world.AnswerRight(RoomRight::kRead);
  EXPECT_THAT(world.Sent(1), ElementsAre("bind 7.1 general handle=1 reply=1"));
  EXPECT_EQ(world.hub().sizes().joins_waiting, 0u);
}

TEST_F(HubRoomsAsked, ARefusalIs403AndNobodyToAskIs503) {
  world.Say(1, Joined(1, kPhone, "general"));
  world.AnswerRight(RoomRight::kNone);
  world.Say(1, Joined(2, kPhone, "random"));
  world.AnswerNoRight();
  EXPECT_THAT(world.Sent(1), ElementsAre("refuse reply=1 403", "refuse reply=2 503"));
  EXPECT_EQ(world.hub().counters().joins_forbidden, 1u);
  EXPECT_EQ(world.hub().counters().joins_unchecked, 1u);
  EXPECT_EQ(world.hub().counters().room_rights_asked, 2u);
  EXPECT_EQ(world.hub().counters().room_rights_unanswered, 1u);
}

TEST_F(HubRoomsAsked, WhatIsKnownIsNotAskedAgain) {
  Enter(1, kPhone, "general");
  world.Say(1, {Left(2, kPhone, "general"), Joined(3, kPhone, "general")});
  EXPECT_THAT(Only("bind", world.Sent(1)), ElementsAre("bind 7.1 general handle=1 reply=3"));
  EXPECT_THAT(Only("may", world.Asked()), IsEmpty());
}

// The acknowledgement stands still, so that the shard repeats the join after a lost link; what comes behind is answered all the same.
TEST_F(HubRoomsAsked, AJoinThatWaitsIsNotAcknowledged) {
  Enter(1, kPhone, "random");
  world.Pass(milliseconds(100));
  EXPECT_THAT(Only("ack", world.Sent(1)), ElementsAre(StartsWith("ack 1")));
  world.Say(1, {Joined(2, kPhone, "general"), Joined(3, kPhone, "random"), Left(4, kPhone, "random")});
  world.Pass(milliseconds(200));
  EXPECT_THAT(WithoutAcks(world.Sent(1)), ElementsAre("bind 7.1 random handle=1 reply=3", "unbind 7.1 random reply=4"));
  world.AnswerRight(RoomRight::kWrite);
  world.Pass(milliseconds(100));
  EXPECT_THAT(Only("ack", world.Sent(1)), ElementsAre(StartsWith("ack 4")));
}

TEST_F(HubRoomsAsked, WhoWaitsForTheSameIsAskedOnce) {
  world.AttachConfirmed(2, 1, {Declared(ConnectionOf(7, 1, 1), "alice")}, kEdge, 1);
  world.Say(1, {Joined(1, kPhone, "general"), Joined(2, kPhone, "general")});
  world.Say(2, Joined(1, ConnectionOf(7, 1, 1), "general"));
  EXPECT_THAT(Only("may", world.Asked()), ElementsAre("may alice(alice) general"));
  world.AnswerRight(RoomRight::kRead);
  EXPECT_THAT(Only("bind", world.Sent(1)),
              ElementsAre("bind 7.1 general handle=1 reply=1", "bind 7.1 general handle=1 reply=2"));
  EXPECT_THAT(Only("bind", world.Sent(2)), ElementsAre("bind 7.1 general handle=1 reply=1"));
}

TEST_F(HubRoomsAsked, ALeaveCancelsAJoinThatWaits) {
  world.Say(1, {Joined(1, kPhone, "general"), Left(2, kPhone, "general")});
  EXPECT_THAT(world.Sent(1), ElementsAre("refuse reply=1 0", "unbind 7.1 general reply=2"));
  world.AnswerRight(RoomRight::kWrite);
  world.Pass(milliseconds(100));
  EXPECT_THAT(Only("bind", world.Sent(1)), IsEmpty());
  EXPECT_EQ(world.hub().sizes().memberships, 0u);
}

TEST_F(HubRoomsAsked, AnAnswerToOneWhoHasGoneIsRememberedAndNothingElse) {
  world.Say(1, {Joined(1, kPhone, "general"), Closed(2, kPhone, "alice"), Opened(3, ConnectionOf(7, 2), "bob")});
  world.Forget();
  world.AnswerRight(RoomRight::kWrite);
  EXPECT_THAT(Only("bind", world.Sent(1)), IsEmpty());
  EXPECT_EQ(world.hub().sizes().memberships, 0u);
}

TEST_F(HubRoomsAsked, AJoinOfALostLinkComesAgainWithTheNext) {
  world.Say(1, Joined(1, kPhone, "general"));
  world.LoseLink(1);
  world.AttachConfirmed(2, 2, {Declared(kPhone, "alice"), Declared(kLaptop, "bob")});
  world.Say(2, Joined(1, kPhone, "general"));
  EXPECT_THAT(Only("may", world.Asked()), IsEmpty()) << "that is still under way";
  world.AnswerRight(RoomRight::kWrite);
  EXPECT_THAT(Only("bind", world.Sent(2)), ElementsAre("bind 7.1 general handle=1 reply=1"));
  EXPECT_EQ(world.hub().sizes().joins_waiting, 0u);
}

TEST_F(HubRoomsAsked, ARightThatIsGoneTakesTheSubscriptionAwayWhenTheAnswerEnds) {
  Enter(1, kPhone, "general", RoomRight::kWrite, seconds(10));
  PassAlive(milliseconds(9'800));
  EXPECT_THAT(Only("may", world.Asked()), IsEmpty());
  PassAlive(milliseconds(300));
  EXPECT_THAT(Only("may", world.Asked()), ElementsAre("may alice(alice) general"));
  world.Forget();
  world.AnswerRight(RoomRight::kNone);
  EXPECT_THAT(world.Sent(1), ElementsAre("leave 7.1 general 403"));
  // Until the shard has said so it is asked and told again.
  PassAlive(milliseconds(5'200));
  EXPECT_THAT(Only("may", world.Asked()), ElementsAre("may alice(alice) general"));
  world.Forget();
  world.AnswerRight(RoomRight::kNone);
  EXPECT_THAT(world.Sent(1), ElementsAre("leave 7.1 general 403"));
  world.Say(1, Left(2, kPhone, "general"));
  PassAlive(milliseconds(6'000));
  EXPECT_THAT(Only("may", world.Asked()), IsEmpty());
  EXPECT_EQ(world.hub().sizes().room_rights, 0u) << "nobody needs it any more";
}

TEST_F(HubRoomsAsked, WhoeverStaysIsAskedForAgainAndAgain) {
  Enter(1, kPhone, "general");
  for (int i = 0; i < 3; ++i) {
    PassAlive(seconds(61));
    EXPECT_THAT(Only("may", world.Asked()), ElementsAre("may alice(alice) general"));
    world.AnswerRight(RoomRight::kWrite);
    EXPECT_THAT(Only("leave", world.Sent(1)), IsEmpty());
  }
}

struct HubRoomsAskedWithLogs : HubRoomsAsked {
  static HubOptions Options() {
    HubOptions options = With(RoomAuth::kAsked);
    options.room_log_age = seconds(120);
    return options;
  }
  HubRoomsAskedWithLogs() : HubRoomsAsked(Options()) {}
  // It waits for the room's log, and is not known to have the right any more.
  void JoinUntilTheAnswerHasEnded() {
    world.Say(1, Joined(1, kPhone, "general"));
    world.AnswerRight(RoomRight::kWrite, seconds(3));
    PassAlive(milliseconds(3'500));
    world.Forget();
  }
  void AnswerLog() {
    RoomLogPage page;
    page.current = {1, 5};
    world.AnswerLog(page);
  }
};

TEST_F(HubRoomsAskedWithLogs, WhoseAnswerEndedWhileTheLogWasReadIsAskedForAgain) {
  JoinUntilTheAnswerHasEnded();
  EXPECT_EQ(world.hub().sizes().room_rights, 0u) << "nobody is in the room yet";
  AnswerLog();
  EXPECT_THAT(Only("bind", world.Sent(1)), ElementsAre(HasSubstr("7.1 general")));
  PassAlive(milliseconds(300));
  EXPECT_THAT(Only("may", world.Asked()), ElementsAre("may alice(alice) general"));
}

TEST_F(HubRoomsAskedWithLogs, ALeaveEndsAJoinThatWaitsForARightBehindOneThatWaitsForTheLog) {
  JoinUntilTheAnswerHasEnded();
  world.Say(1, {Joined(2, kPhone, "general"), Left(3, kPhone, "general")});
  EXPECT_THAT(Only("refuse", world.Sent(1)), ElementsAre("refuse reply=2 0"));
  AnswerLog();
  world.AnswerRight(RoomRight::kWrite);
  EXPECT_THAT(WithoutAcks(world.Sent(1)), ElementsAre(HasSubstr("bind 7.1 general"), "unbind 7.1 general reply=3"));
  EXPECT_EQ(world.hub().sizes().joins_waiting, 0u);
}

TEST_F(HubRoomsAskedWithLogs, AJoinBehindALeaveThatWaitsForTheLogIsCarriedOut) {
  JoinUntilTheAnswerHasEnded();
  world.Say(1, {Left(2, kPhone, "general"), Joined(3, kPhone, "general")});
  AnswerLog();
  world.AnswerRight(RoomRight::kWrite);
  EXPECT_THAT(Only("refuse", world.Sent(1)), IsEmpty());
  AnswerLog();
  EXPECT_THAT(Only("bind", world.Sent(1)), ElementsAre(HasSubstr("reply=3")));
}

TEST_F(HubRoomsAsked, WhileNobodyCanSayMembersStayForTheGrace) {
  Enter(1, kPhone, "general");
  PassAlive(seconds(60));
  for (seconds passed{0}; passed < seconds(290); passed += seconds(5)) {
    PassAlive(seconds(5));
    if (world.questions_open() > 0) world.AnswerNoRight();
  }
  EXPECT_THAT(Only("leave", world.Sent(1)), IsEmpty());
  world.Say(1, Joined(2, kPhone, "random"));
  world.AnswerNoRight();
  EXPECT_THAT(Only("refuse", world.Sent(1)), ElementsAre("refuse reply=2 503")) << "who is not in does not get in";
  for (seconds passed{0}; passed < seconds(20); passed += seconds(5)) {
    PassAlive(seconds(5));
    if (world.questions_open() > 0) world.AnswerNoRight();
  }
  EXPECT_THAT(Only("leave", world.Sent(1)), Contains("leave 7.1 general 503"));
}

TEST_F(HubRoomsAsked, WhoIsDeclaredStaysAndIsCheckedInTheBackground) {
  world.OpenLink(2);
  world.Say(2, {Hello(1, 0, kEdge, 1), Declared(ConnectionOf(7, 1, 1), "carol", {"general", "random"}), ResyncDone()});
  EXPECT_THAT(Only("may", world.Asked()), IsEmpty()) << "many may be declared at once";
  world.Pass(milliseconds(100));
  EXPECT_THAT(Only("may", world.Asked()), ElementsAre("may carol(carol) general", "may carol(carol) random"));
  EXPECT_THAT(Only("leave", world.Sent(2)), IsEmpty());
  world.Forget();
  world.AnswerRight(RoomRight::kRead);
  world.AnswerRight(RoomRight::kNone);
  EXPECT_THAT(world.Sent(2), ElementsAre("leave 7.1 random 403"));
}

TEST_F(HubRoomsAsked, ADeclarationOfWhatIsKnownToBeForbiddenIsOverAtOnce) {
  Enter(1, kPhone, "general", RoomRight::kWrite, seconds(2));
  PassAlive(milliseconds(2'100));
  world.LoseLink(1);
  world.AnswerRight(RoomRight::kNone, seconds(60));
  world.OpenLink(2);
  world.Say(2, {Hello(2), Declared(kPhone, "alice", {"general"}), ResyncDone()});
  EXPECT_THAT(WithoutAcks(world.Sent(2)), Contains("leave 7.1 general 403"));
}

TEST_F(HubRoomsAsked, TypingGoesByTheLastAnswer) {
  Enter(1, kPhone, "general", RoomRight::kWrite, seconds(2));
  Enter(2, kLaptop, "general", RoomRight::kRead);
  PassAlive(milliseconds(2'100));
  world.Forget();
  world.Say(1, {Typing(kPhone, "general"), Typing(kLaptop, "general")});
  EXPECT_THAT(Only("publish", world.Asked()), ElementsAre(HasSubstr("typing general alice")))
      << "it is being asked again";
  EXPECT_THAT(world.Sent(1), ElementsAre(HasSubstr("deliver to 8.1 {\"type\":\"error\"")));
}

TEST_F(HubRoomsAsked, TypingOfAStrangerIsDroppedUntilSomebodySaysSo) {
  world.Say(1, {Typing(kPhone, "general"), Typing(kPhone, "general")});
  EXPECT_THAT(world.Asked(), ElementsAre("may alice(alice) general"));
  EXPECT_EQ(world.hub().counters().typing_unchecked, 2u);
  world.AnswerRight(RoomRight::kWrite);
  world.Say(1, Typing(kPhone, "general"));
  EXPECT_THAT(Only("publish", world.Asked()), ElementsAre(HasSubstr("typing general alice")));
}

link::v1::BusEnvelope Forget(std::string_view user, std::string_view room) {
  link::v1::BusEnvelope envelope;
  envelope.set_core(0xc7);
  envelope.set_sequence(1);
  envelope.mutable_request()->set_origin(0xc7);
  envelope.mutable_request()->set_id(9);
  envelope.mutable_request()->mutable_forget_room_rights()->set_user_id(std::string(user));
  envelope.mutable_request()->mutable_forget_room_rights()->set_room_id(std::string(room));
  return envelope;
}

TEST_F(HubRoomsAsked, WhatIsForgottenIsAskedAtOnce) {
  Enter(1, kPhone, "general");
  Enter(2, kPhone, "random");
  Enter(3, kLaptop, "general");
  world.Bus(Forget("alice", "general"));
  EXPECT_THAT(Only("may", world.Asked()), ElementsAre("may alice(alice) general"));
  world.AnswerRight(RoomRight::kNone);
  EXPECT_THAT(Only("leave", world.Sent(1)), ElementsAre("leave 7.1 general 403"));
  world.TurnEnd();
  EXPECT_THAT(world.Asked(), ElementsAre("reply to c7 9=c0:1"));
  world.Bus(Forget("", "general"));
  EXPECT_THAT(Only("may", world.Asked()), UnorderedElementsAre("may alice(alice) general", "may bob(bob) general"));
  world.AnswerRight(RoomRight::kWrite);
  world.AnswerRight(RoomRight::kWrite);
  world.Bus(Forget("alice", ""));
  EXPECT_THAT(Only("may", world.Asked()), UnorderedElementsAre("may alice(alice) general", "may alice(alice) random"));
}

// What is under way when a right changes may have been looked up before the change.
TEST_F(HubRoomsAsked, AnAnswerFromBeforeAChangeDoesNotCount) {
  world.Say(1, Joined(1, kPhone, "general"));
  world.Bus(Forget("alice", "general"));
  EXPECT_THAT(Only("may", world.Asked()), ElementsAre("may alice(alice) general", "may alice(alice) general"));
  world.AnswerRight(RoomRight::kWrite);
  EXPECT_THAT(Only("bind", world.Sent(1)), IsEmpty());
  world.AnswerRight(RoomRight::kNone);
  EXPECT_THAT(Only("refuse", world.Sent(1)), ElementsAre("refuse reply=1 403"));
}

struct HubRoomsBounded : HubRoomsAsked {
  static HubOptions Small() {
    HubOptions options = With(RoomAuth::kAsked);
    options.room_access.joins_max = 3;
    options.room_access.joins_per_link_max = 2;
    options.room_access.rows_max = 4;
    options.room_access.checks_max = 2;
    return options;
  }
  HubRoomsBounded() : HubRoomsAsked(Small()) {}
};

TEST_F(HubRoomsBounded, TooManyJoinsOfALinkAreRefused) {
  world.Say(1, {Joined(1, kPhone, "a"), Joined(2, kPhone, "b"), Joined(3, kPhone, "c")});
  EXPECT_THAT(world.Sent(1), ElementsAre("refuse reply=3 503"));
  world.AttachConfirmed(2, 1, {Declared(ConnectionOf(7, 1, 1), "carol")}, kEdge, 1);
  world.Say(2, {Joined(1, ConnectionOf(7, 1, 1), "a"), Joined(2, ConnectionOf(7, 1, 1), "b")});
  EXPECT_THAT(world.Sent(2), ElementsAre("refuse reply=2 503")) << "and of all links";
  EXPECT_EQ(world.hub().counters().joins_unchecked, 2u);
}

TEST_F(HubRoomsBounded, AnAnswerThatServesNobodyMakesPlace) {
  for (uint64_t i = 1; i <= 20; ++i) {
    world.Say(1, Joined(i, kPhone, "room" + std::to_string(i)));
    world.AnswerRight(RoomRight::kNone);
    EXPECT_LE(world.hub().sizes().room_rights, 4u);
  }
  EXPECT_EQ(world.hub().counters().joins_forbidden, 20u);
}

TEST_F(HubRoomsBounded, ChecksComeFewAtATime) {
  std::vector<std::string> rooms;
  for (int i = 0; i < 10; ++i) rooms.push_back("room" + std::to_string(i));
  world.AttachConfirmed(2, 1, {Declared(ConnectionOf(7, 1, 1), "carol", rooms)}, kEdge, 1);
  world.Pass(milliseconds(100));
  EXPECT_EQ(world.hub().sizes().room_rights, 10u) << "who is in a room has a place, whatever the bound";
  int answered = 0;
  for (; world.questions_open() > 0; ++answered) {
    EXPECT_LE(world.questions_open(), 2u);
    world.AnswerRight(RoomRight::kWrite);
  }
  EXPECT_EQ(answered, 10) << "one answer brings the next question";
}

}  // namespace
}  // namespace presence::core
