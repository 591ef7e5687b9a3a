// Sessions that end, and users with too many connections: what the store refuses is sent away, a logout is kept before anybody is
// asked to act on it, and a core that did not hear the bus finds out.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "core/hub.h"
#include "tests/core/cluster_requests.h"
#include "tests/fakes/hub_cluster.h"
#include "tests/fakes/hub_world.h"

namespace presence::core {
namespace {

using link::v1::ClusterRequest;
using link::v1::EdgeEvent;
using link::v1::STATUS_AWAY;
using link::v1::STATUS_OFFLINE;
using link::v1::STATUS_ONLINE;
using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::UnorderedElementsAre;
using Outcome = WriteResult::Outcome;

const uint64_t kPhone = ConnectionOf(7), kLaptop = ConnectionOf(8), kTablet = ConnectionOf(9);

EdgeEvent Renewed(uint64_t sequence, uint64_t connection, std::string_view session, int64_t issued_at_s) {
  EdgeEvent event;
  event.set_sequence(sequence);
  event.mutable_token_renewed()->set_connection(connection);
  return WithToken(event, session, issued_at_s);
}

std::vector<std::string> Closes(HubWorld::Lines lines) {
  std::erase_if(lines, [](const std::string& line) { return !line.starts_with("close "); });
  return lines;
}

std::vector<std::string> Binds(HubWorld::Lines lines) {
  std::erase_if(lines, [](const std::string& line) { return !line.starts_with("bind "); });
  return lines;
}

// ------------------------------------------------------------------------------------------- what the store is told

TEST(HubTokens, TravelWithEachWrite) {
  HubWorld world;
  world.Attach(1, 1);
  world.Say(1, WithToken(Opened(1, kPhone, "alice"), "s1", 990));
  EXPECT_THAT(world.Asked(), ElementsAre("assert e1/0/7.1 attach=1 alice online token=s1@990 new"));
  world.Answer(Outcome::kApplied);
  world.Say(1, StatusSet(2, kPhone, STATUS_AWAY));
  EXPECT_THAT(world.Asked(), ElementsAre("assert e1/0/7.1 attach=1 alice away token=s1@990")) << "it is in";
  world.Answer(Outcome::kApplied);
  world.Say(1, Renewed(3, kPhone, "s2", 995));
  EXPECT_THAT(world.Asked(), ElementsAre("assert e1/0/7.1 attach=1 alice away token=s2@995"));
  world.Tick();
  EXPECT_THAT(world.Sent(1), Not(Contains("ack 3"))) << "the store has not confirmed it";
  world.Answer(Outcome::kApplied);
  world.Tick();
  EXPECT_THAT(world.Sent(1), Contains("ack 3"));
  EXPECT_EQ(world.hub().counters().tokens_renewed, 1u);
}

TEST(HubTokens, ComeWithTheDeclaration) {
  HubWorld world;
  world.OpenLink(1);
  world.Say(1, Hello(1));
  world.Say(1, WithToken(Declared(kPhone, "alice"), "s1", 990));
  EXPECT_THAT(world.Asked(), Contains("assert e1/0/7.1 attach=1 alice online token=s1@990"))
      << "it was let in elsewhere: the limit does not concern it";
}

TEST(HubTokens, AnUnconfirmedNewcomerRemainsOne) {
  HubWorld world;
  world.Attach(1, 1);
  world.Say(1, WithToken(Opened(1, kPhone, "alice"), "s1", 990));
  world.Answer(Outcome::kUnavailable);
  world.Forget();
  world.Pass(seconds(1));
  EXPECT_THAT(world.Asked(), Contains(HasSubstr("reassert e1/0/7.1 attach=1 alice online")));
  world.Forget();
  world.Answer(Outcome::kUnavailable);
  world.Pass(seconds(1));
  EXPECT_THAT(world.Asked(), Contains(testing::EndsWith("token=s1@990 new")));
}

TEST(HubTokens, OfUnknownConnectionsAreLateAndIdsAreChecked) {
  HubWorld world;
  world.Attach(1, 1);
  world.Say(1, Renewed(1, kPhone, "s1", 990));
  EXPECT_EQ(world.hub().counters().late_events, 1u);
  world.Tick();
  EXPECT_THAT(world.Sent(1), Contains("ack 1"));
  world.Say(1, Renewed(2, ConnectionOf(7, 1, 3), "s1", 990));
  EXPECT_THAT(world.Sent(1), ElementsAre("closed INVALID_ARGUMENT"));
  world.Attach(2, 2);
  world.Say(2, WithToken(Opened(3, kPhone, "alice"), std::string(2049, 's'), 990));
  EXPECT_THAT(world.Sent(2), ElementsAre("closed INVALID_ARGUMENT"));
  EXPECT_EQ(world.hub().sizes().connections, 0u);
}

// --------------------------------------------------------------------------------------------- what the store refuses

TEST(HubRefusals, ALoggedOutTokenIsClosedAndItsEndIsWritten) {
  HubWorld world;
  world.Attach(1, 1);
  world.Say(1, WithToken(Opened(1, kPhone, "alice"), "s1", 990));
  world.Answer(Outcome::kRevoked, STATUS_OFFLINE);
  world.Tick();
  EXPECT_THAT(world.Sent(1), ElementsAre("close 7.1 4401 logged out", "ack 1"));
  EXPECT_EQ(world.hub().counters().connections_logged_out, 1u);
  world.Say(1, Activity({kPhone}));
  EXPECT_THAT(world.Asked(), ElementsAre(HasSubstr("assert"))) << "no refresh of what is not there";
  world.Say(1, Closed(2, kPhone, "alice"));
  EXPECT_THAT(world.Asked(), ElementsAre(HasSubstr("remove e1/0/7.1 attach=1 alice")));
  world.Answer(Outcome::kApplied, STATUS_OFFLINE);
  EXPECT_TRUE(world.hub().Idle());
}

TEST(HubRefusals, TooManyConnectionsAreClosedOtherwise) {
  HubWorld world;
  world.Attach(1, 1);
  world.Say(1, WithToken(Opened(1, kPhone, "alice"), "s1", 990));
  world.Answer(Outcome::kTooMany);
  EXPECT_THAT(world.Sent(1), ElementsAre("close 7.1 1008 too many connections"));
  EXPECT_EQ(world.hub().counters().connections_too_many, 1u);
  EXPECT_EQ(world.hub().counters().connections_logged_out, 0u);
}

TEST(HubRefusals, ARefreshedTokenMayBeVoidToo) {
  HubWorld world;
  world.AttachConfirmed(1, 1, {WithToken(Declared(kPhone, "alice"), "s1", 990)});
  world.Say(1, Renewed(1, kPhone, "s1", 995));
  world.Answer(Outcome::kRevoked, STATUS_OFFLINE);
  EXPECT_THAT(world.Sent(1), ElementsAre("close 7.1 4401 logged out"));
}

TEST(HubRefusals, AShardThatDoesNotHearItIsToldWhenItComesBack) {
  HubWorld world;
  world.Attach(1, 1);
  world.Say(1, WithToken(Opened(1, kPhone, "alice"), "s1", 990));
  world.LoseLink(1);
  world.Answer(Outcome::kRevoked, STATUS_OFFLINE);
  world.OpenLink(2);
  world.Say(2, {Hello(2), WithToken(Declared(kPhone, "alice"), "s1", 990)});
  EXPECT_THAT(Closes(world.Sent(2)), IsEmpty()) << "nobody has refused this attach";
  world.Answer(Outcome::kRevoked, STATUS_OFFLINE);
  EXPECT_THAT(Closes(world.Sent(2)), ElementsAre("close 7.1 4401 logged out"));
}

TEST(HubRefusals, WhatIsClosedMeanwhileIsNotClosedAgain) {
  HubWorld world;
  world.Attach(1, 1);
  world.Say(1, WithToken(Opened(1, kPhone, "alice"), "s1", 990));
  world.Say(1, Closed(2, kPhone, "alice"));
  world.Answer(Outcome::kRevoked, STATUS_OFFLINE);
  EXPECT_THAT(Closes(world.Sent(1)), IsEmpty());
  EXPECT_THAT(world.Asked(), Contains(HasSubstr("remove")));
  world.Answer(Outcome::kApplied, STATUS_OFFLINE);
  EXPECT_TRUE(world.hub().Idle());
  EXPECT_EQ(world.hub().counters().connections_logged_out, 0u);
}

// ------------------------------------------------------------------------------------------ joins before the store's word

// Else who has a logged-out token could come again and again, and read each time until it is closed.
TEST(HubHeldJoins, WaitForTheStoresWordOnTheToken) {
  HubWorld world;
  world.Attach(1, 1);
  world.Say(1, WithToken(Opened(1, kPhone, "alice"), "s1", 990));
  world.Say(1, {Joined(2, kPhone, "general"), Joined(3, kPhone, "random"), Typing(kPhone, "general")});
  EXPECT_THAT(world.Sent(1), IsEmpty());
  world.Forget();
  world.Answer(Outcome::kApplied);
  EXPECT_THAT(world.Sent(1), ElementsAre("bind 7.1 general handle=1 reply=2", "bind 7.1 random handle=2 reply=3"));
  EXPECT_THAT(world.Asked(), Contains(HasSubstr("typing"))) << "behind the joins, and not lost";
  world.Say(1, Joined(4, kPhone, "later"));
  EXPECT_THAT(world.Sent(1), Contains("bind 7.1 later handle=3 reply=4")) << "judged once";
}

TEST(HubHeldJoins, OfALoggedOutTokenAreNeverGranted) {
  HubWorld world;
  world.Attach(1, 1);
  world.Say(1, WithToken(Opened(1, kPhone, "alice"), "s1", 990));
  world.Say(1, {Joined(2, kPhone, "general"), Typing(kPhone, "general")});
  world.Forget();
  world.Answer(Outcome::kRevoked, STATUS_OFFLINE);
  EXPECT_THAT(world.Asked(), Not(Contains(HasSubstr("typing"))));
  world.Tick();
  EXPECT_THAT(world.Sent(1), ElementsAre("close 7.1 4401 logged out", "ack 2"));
  EXPECT_EQ(world.hub().sizes().memberships, 0u);
  world.Say(1, Joined(3, kPhone, "general"));
  EXPECT_EQ(world.hub().sizes().memberships, 0u) << "nor before its end is heard";
}

TEST(HubHeldJoins, AreNotAcknowledgedAndALeaveWaitsWithThem) {
  HubWorld world;
  world.Attach(1, 1);
  world.Say(1, WithToken(Opened(1, kPhone, "alice"), "s1", 990));
  world.Say(1, {Joined(2, kPhone, "general"), Left(3, kPhone, "general"), Left(4, kPhone, "random")});
  world.Tick();
  EXPECT_THAT(world.Sent(1), ElementsAre("unbind 7.1 random reply=4")) << "of no join";
  world.Answer(Outcome::kApplied);
  world.Tick();
  EXPECT_THAT(world.Sent(1), ElementsAre("bind 7.1 general handle=1 reply=2", "unbind 7.1 general reply=3", "ack 4"));
}

TEST(HubHeldJoins, EndWithTheirConnection) {
  HubWorld world;
  world.Attach(1, 1);
  world.Say(1, WithToken(Opened(1, kPhone, "alice"), "s1", 990));
  world.Say(1, {Joined(2, kPhone, "general"), Closed(5, kPhone, "alice")});
  world.Answer(Outcome::kApplied);
  world.Answer(Outcome::kApplied, STATUS_OFFLINE);
  world.Tick();
  EXPECT_THAT(world.Sent(1), ElementsAre("ack 5")) << "nobody waits for the join of a connection that is gone";
}

TEST(HubHeldJoins, WaitForNobodyWhenTheStoreIsAwayOrRefuses) {
  HubWorld world;
  world.Attach(1, 1);
  world.Say(1, WithToken(Opened(1, kPhone, "alice"), "s1", 990));
  world.Say(1, Joined(2, kPhone, "general"));
  world.Say(1, WithToken(Opened(6, kTablet, "carol"), "s3", 990));
  world.Say(1, Joined(7, kTablet, "random"));
  world.Answer(Outcome::kUnavailable);
  EXPECT_THAT(Binds(world.Sent(1)),
              ElementsAre("bind 7.1 general handle=1 reply=2", "bind 9.1 random handle=2 reply=7"))
      << "the other one's write may not even be sent for a while";
  world.Pass(milliseconds(1100));  // it is tried again
  world.Say(1, WithToken(Opened(8, kLaptop, "bob"), "s2", 990));
  world.Say(1, Joined(9, kLaptop, "general"));
  EXPECT_THAT(world.Sent(1), Not(Contains("bind 8.1 general handle=1 reply=9")));
  world.StoreDown();
  EXPECT_THAT(world.Sent(1), Contains("bind 8.1 general handle=1 reply=9"));
  world.Say(1, Joined(10, kLaptop, "random"));
  EXPECT_THAT(world.Sent(1), Contains(HasSubstr("bind 8.1 random")));
}

TEST(HubHeldJoins, OfADeclaredConnectionWaitToo) {
  HubWorld world;
  world.OpenLink(1);
  world.Say(1, {Hello(1), WithToken(Declared(kPhone, "alice"), "s1", 990), ResyncDone()});
  world.Forget();
  world.Say(1, Joined(1, kPhone, "general"));
  EXPECT_THAT(world.Sent(1), IsEmpty());
  world.Answer(Outcome::kApplied);
  EXPECT_THAT(world.Sent(1), Contains(HasSubstr("bind 7.1 general")));
}

// --------------------------------------------------------------------------------------------------------- logouts

TEST(HubLogouts, AreKeptBeforeAnybodyIsAsked) {
  HubWorld world;
  world.AttachConfirmed(1, 1, {WithToken(Declared(kPhone, "alice"), "s1", 990)});
  world.Ask(80, EndSessions("alice", "", 1000));
  EXPECT_THAT(world.Asked(), ElementsAre("keep logout alice@1000"));
  world.AnswerLogout();
  EXPECT_THAT(world.Asked(), ElementsAre(HasSubstr("request")));
  EXPECT_EQ(world.hub().counters().logouts_kept, 1u);
  world.AnswerPublish();
  world.LoopBack();
  EXPECT_THAT(world.Sent(1), ElementsAre("close 7.1 4401 logged out"));
  EXPECT_THAT(world.Answers(), IsEmpty());
  world.Say(1, Closed(1, kPhone, "alice"));
  EXPECT_THAT(world.Answers(), ElementsAre("80 OK c0:1"));
}

TEST(HubLogouts, ThatAreNotKeptAreUnavailable) {
  HubWorld world;
  world.AttachConfirmed(1, 1, {WithToken(Declared(kPhone, "alice"), "s1", 990)});
  world.Ask(80, EndSessions("alice", "", 1000));
  world.AnswerLogout(false);
  EXPECT_THAT(world.Answers(), ElementsAre("80 UNAVAILABLE"));
  world.StoreDown();
  world.Ask(81, EndSessions("alice", "", 1000));
  EXPECT_THAT(world.Answers(), ElementsAre("81 UNAVAILABLE"));
  EXPECT_THAT(Closes(world.Sent(1)), IsEmpty());
}

// Identity providers do not repeat a logout; and it may have been kept all the same.
TEST(HubLogouts, ThatAreNotKeptAreTriedAgainForAMinute) {
  HubWorld world;
  world.AttachConfirmed(1, 1, {WithToken(Declared(kPhone, "alice"), "s1", 990)});
  world.Ask(80, EndSessions("alice", "", 1000));
  world.AnswerLogout(false);
  world.Forget();
  world.Pass(milliseconds(1100));
  EXPECT_THAT(world.Asked(), Contains("keep logout alice@1000"));
  world.AnswerLogout(false);
  world.Pass(milliseconds(1100));
  world.AnswerLogout();
  world.LoopBack();
  EXPECT_THAT(Closes(world.Sent(1)), ElementsAre("close 7.1 4401 logged out"));
  world.Ask(81, EndSessions("bob", "", 1000));
  world.Stall(seconds(61));
  world.AnswerLogout(false);
  world.Forget();
  world.Pass(seconds(3));
  EXPECT_THAT(world.Asked(), Not(Contains(HasSubstr("keep logout"))));
}

TEST(HubLogouts, AreToldAgainByAStoreThatMayHaveLostThem) {
  HubWorld world;
  world.AttachConfirmed(1, 1, {WithToken(Declared(kPhone, "alice"), "s1", 990)});
  world.Ask(80, EndSessions("alice", "", 1000));
  world.AnswerLogout();
  world.StoreDown();  // what was published is lost
  world.Forget();
  world.StoreUp();
  EXPECT_THAT(world.Asked(), Contains(HasSubstr("request")));
  world.Pass(seconds(16));
  world.StoreDown();
  world.Forget();
  world.StoreUp();
  EXPECT_THAT(world.Asked(), Not(Contains(HasSubstr("request")))) << "that was long ago";
}

TEST(HubLogouts, GoOnWhenNobodyWaitsForThem) {
  HubWorld world;
  world.AttachConfirmed(1, 1, {WithToken(Declared(kPhone, "alice"), "s1", 990)});
  world.Ask(80, EndSessions("alice", "", 1000));
  world.hub().OnClusterCancelled(world.now(), 80);
  EXPECT_THAT(world.Answers(), ElementsAre("80 CANCELLED"));
  world.AnswerLogout();
  world.LoopBack();
  EXPECT_THAT(world.Sent(1), ElementsAre("close 7.1 4401 logged out"));
  world.Say(1, Closed(1, kPhone, "alice"));
  EXPECT_THAT(world.Answers(), IsEmpty());
  EXPECT_EQ(world.hub().sizes().gathers, 0u);
}

TEST(HubLogouts, AreBounded) {
  HubOptions options = HubWorld::DefaultOptions();
  options.gathers_max = 1;
  HubWorld world(options);
  world.Ask(80, EndSessions("alice", "", 1000));
  world.Ask(81, EndSessions("bob", "", 1000));
  EXPECT_THAT(world.Answers(), ElementsAre("81 RESOURCE_EXHAUSTED"));
}

// Two cores: alice has a phone and a laptop in one session on the first, and a tablet in another one on the second.
struct HubSessions : testing::Test {
  HubCluster cluster{2};
  HubCluster::Node &one = cluster[0], &two = cluster[1];
  HubSessions() {
    one.Attach(1, 1,
               {WithToken(Declared(kPhone, "alice"), "s1", 990), WithToken(Declared(kLaptop, "alice"), "s1", 995),
                WithToken(Declared(kTablet, "bob"), "s3", 990)});
    two.Attach(2, 1, {WithToken(Declared(kTablet, "alice"), "s2", 990)}, 0xe2);
  }
};

TEST_F(HubSessions, AUsersSessionsEndOnAllCores) {
  two.Ask(80, EndSessions("alice", "", 996));
  EXPECT_THAT(one.Sent(1), UnorderedElementsAre("close 7.1 4401 logged out", "close 8.1 4401 logged out"));
  EXPECT_THAT(two.Sent(2), ElementsAre("close 9.1 4401 logged out"));
  one.Say(1, Closed(1, kPhone, "alice"));
  one.Say(1, Closed(2, kLaptop, "alice"));
  EXPECT_THAT(two.Answers(), IsEmpty());
  two.Say(2, Closed(1, kTablet, "alice"));
  EXPECT_THAT(two.Answers(), ElementsAre("80 OK c0:2 c1:1"));
  EXPECT_EQ(one.hub().counters().sessions_ended, 2u);
}

TEST_F(HubSessions, OneSessionEndsAndTheOthersGoOn) {
  two.Ask(80, EndSessions("alice", "s1", 996));
  EXPECT_THAT(one.Sent(1), UnorderedElementsAre("close 7.1 4401 logged out", "close 8.1 4401 logged out"));
  EXPECT_THAT(two.Sent(2), IsEmpty());
}

TEST_F(HubSessions, NamedBySessionAlone) {
  one.Ask(80, EndSessions("", "s2", 996));
  EXPECT_THAT(two.Sent(2), ElementsAre("close 9.1 4401 logged out"));
  EXPECT_THAT(one.Sent(1), IsEmpty());
}

TEST_F(HubSessions, ATokenOfAfterTheLogoutIsNotConcerned) {
  one.Ask(80, EndSessions("", "s1", 992));
  EXPECT_THAT(one.Sent(1), ElementsAre("close 7.1 4401 logged out"));
}

TEST_F(HubSessions, TheNewestTokenCounts) {
  one.Say(1, Renewed(1, kPhone, "s9", 999));
  one.Ask(80, EndSessions("", "s1", 999));
  EXPECT_THAT(one.Sent(1), ElementsAre("close 8.1 4401 logged out"));
  one.Ask(81, EndSessions("", "s9", 999));
  EXPECT_THAT(one.Sent(1), ElementsAre("close 7.1 4401 logged out"));
}

TEST_F(HubSessions, WhoOpensWithAVoidTokenAfterwardsIsClosedAtOnce) {
  two.Ask(80, EndSessions("carol", "", 996));
  one.Say(1, WithToken(Opened(1, ConnectionOf(3), "carol"), "s7", 996));
  EXPECT_THAT(one.Sent(1), ElementsAre("close 3.1 4401 logged out"));
  one.Say(1, WithToken(Opened(2, ConnectionOf(4), "carol"), "s8", 997));
  EXPECT_THAT(one.Sent(1), IsEmpty());
}

// The order goes by while nobody has the connection: its shard is between two cores.
TEST_F(HubSessions, WhatIsBetweenTwoCoresIsClosedWhereItArrives) {
  two.LoseLink(2);
  one.OpenLink(3);
  two.Ask(80, EndSessions("", "s2", 996));
  one.Say(3, Hello(2, 0, 0xe2));
  one.Say(3, WithToken(Declared(kTablet, "alice"), "s2", 990));
  EXPECT_THAT(one.Sent(3), ElementsAre("close 9.1 4401 logged out"));
}

TEST_F(HubSessions, ACoreThatDidNotHearTheBusLooksWhatWasKeptMeanwhile) {
  two.SetReachable(false);
  cluster.Settle();
  one.Ask(80, EndSessions("alice", "", 996));
  cluster.Pass(seconds(2));
  EXPECT_THAT(two.Sent(2), IsEmpty());
  two.SetReachable(true);
  cluster.Settle();
  EXPECT_THAT(two.Sent(2), ElementsAre("close 9.1 4401 logged out"));
}

TEST_F(HubSessions, NobodyElseIsAskedAboutThen) {
  two.SetReachable(false);
  cluster.Settle();
  one.Ask(80, EndSessions("bob", "", 996));
  two.SetReachable(true);
  cluster.Settle();
  EXPECT_EQ(two.hub().counters().reasserted, 0u);
  EXPECT_THAT(two.Sent(2), IsEmpty());
}

TEST_F(HubSessions, AfterALongTimeEverybodyIs) {
  two.SetReachable(false);
  cluster.Pass(std::chrono::minutes(11));  // longer than the log of logouts
  two.SetReachable(true);
  cluster.Settle();
  EXPECT_EQ(two.hub().counters().reasserted, 1u);
}

TEST(HubLogoutReads, AreForTheTimeThatWasMissedAndRepeatedUntilTheySucceed) {
  HubWorld world;
  world.AttachConfirmed(1, 1, {WithToken(Declared(kPhone, "alice"), "s1", 990)});
  EXPECT_THAT(world.LogoutReads(), IsEmpty()) << "nothing was missed";
  world.StoreDown();
  world.Stall(seconds(5));
  world.StoreUp();
  EXPECT_THAT(world.LogoutReads(), ElementsAre(seconds(15))) << "and a margin of 10 s";
  world.StoreDown();
  world.AnswerLogoutRead(absl::UnavailableError("away"));
  world.Stall(seconds(5));
  world.StoreUp();
  EXPECT_THAT(world.LogoutReads(), ElementsAre(seconds(20))) << "what was missed before, too";
  world.AnswerLogoutRead(absl::UnavailableError("refused"));
  world.Pass(milliseconds(900));
  EXPECT_THAT(world.LogoutReads(), IsEmpty());
  world.Pass(milliseconds(200));
  EXPECT_THAT(world.LogoutReads(), ElementsAre(milliseconds(21'000)));
  world.Forget();
  world.AnswerLogoutRead(LogoutLog{true, {{"alice", ""}, {"", "s7"}}});
  EXPECT_THAT(world.Asked(), ElementsAre(testing::StartsWith("reassert e1/0/7.1 attach=1 alice online")));
  world.Pass(seconds(3));
  EXPECT_THAT(world.LogoutReads(), IsEmpty());
}

TEST(HubLogoutReads, AStoreThatHasLostItsStateIsNotAsked) {
  HubWorld world;
  world.AttachConfirmed(1, 1, {WithToken(Declared(kPhone, "alice"), "s1", 990)});
  world.StoreDown();
  world.StoreUpWithoutItsState();
  world.Pass(seconds(3));
  EXPECT_THAT(world.LogoutReads(), IsEmpty()) << "all are asserted again";
}

}  // namespace
}  // namespace presence::core
