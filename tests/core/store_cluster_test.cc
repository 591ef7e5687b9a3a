// The store contract: what cores say to each other. The bus, what is published once, who is live, replies.
#include "tests/core/store_contract.h"

namespace presence::core {
namespace {

// ---------------------------------------------------------------------------------------------- bus and rest

TEST_P(StoreContract, EveryCoreHearsTheBusInOneOrder) {
  link::v1::BusEnvelope envelope;
  for (uint64_t i = 1; i <= 20; ++i) {
    envelope.set_core(i % 2);
    envelope.set_sequence(i);
    envelope.mutable_message()->set_room_id("r");
    backend_->store(static_cast<int>(i % 2)).Publish(i, envelope, i == 4 ? "{\"room_id\":\"r\"}" : "");
  }
  backend_->Settle();
  ASSERT_THAT(backend_->heard(0).bus, SizeIs(20));
  for (size_t i = 0; i < 20; ++i) {
    EXPECT_EQ(backend_->heard(0).bus[i].SerializeAsString(), backend_->heard(1).bus[i].SerializeAsString());
  }
  EXPECT_TRUE(backend_->heard(0).published.at(2));
  EXPECT_THAT(backend_->heard(1).messages, ElementsAre("{\"room_id\":\"r\"}"));
}

TEST_P(StoreContract, OutsidersAreHeardByteForByte) {
  backend_->PublishOutside("message:broadcast", "not even JSON \xff");
  backend_->PublishOutside("presence:updates", "{\"type\" : \"presence\"}");
  backend_->Settle();
  EXPECT_THAT(backend_->heard(1).messages, ElementsAre("not even JSON \xff"));
  EXPECT_THAT(backend_->heard(1).updates, ElementsAre("{\"type\" : \"presence\"}"));
}

TEST_P(StoreContract, AnswersComeInTheOrderOfTheCalls) {
  PresenceWrite write = Device("u1", 1);
  const std::vector<RefreshEntry> entries(600, RefreshEntry{{kEdge, 1}, 5, "u1", false});
  for (uint64_t id = 0; id < 32; id += 4) {
    write.id = id;
    backend_->store().Write(write);
    backend_->store().Refresh(id + 1, entries);
    backend_->store().Publish(id + 2, {}, "");
    backend_->store().PublishOnce(id + 3, "request " + std::to_string(id / 2), "", {}, "");
  }
  EXPECT_THAT(backend_->heard().answers, IsEmpty()) << "answered from inside the call";
  backend_->Settle();
  ASSERT_THAT(backend_->heard().answers, SizeIs(32));
  EXPECT_TRUE(std::is_sorted(backend_->heard().answers.begin(), backend_->heard().answers.end()));
}

TEST_P(StoreContract, TypingIsThePlainUsername) {
  backend_->store().SetTyping("channel_general", "u:1", "Some \"Body\"");
  backend_->Settle();
  EXPECT_EQ(backend_->Dump()["typing:channel_general:u:1"], "string mortal\n=Some \"Body\"");
}

TEST_P(StoreContract, AStoreComesUpOnce) {
  EXPECT_EQ(backend_->heard().ups, 1);
  EXPECT_TRUE(backend_->heard().lost_state) << "there was no sweep key";
  EXPECT_EQ(backend_->heard().downs, 0);
}

// -------------------------------------------------------------------------------------------- published once

class StoreOnce : public StoreContract {
 protected:
  OnceResult PublishOnce(std::string_view request_id, std::string_view fingerprint, int core = 0) {
    link::v1::BusEnvelope envelope;
    envelope.set_sequence(++last_id_);
    backend_->store(core).PublishOnce(last_id_, request_id, fingerprint, envelope, "outside");
    EXPECT_FALSE(backend_->heard(core).once.contains(last_id_)) << "answered from inside the call";
    backend_->Settle();
    EXPECT_TRUE(backend_->heard(core).once.contains(last_id_)) << "no answer";
    return backend_->heard(core).once[last_id_];
  }
  void SaveAnswer(std::string_view request_id, std::string_view answer, int core = 0) {
    backend_->store(core).SaveAnswer(request_id, answer);
    backend_->Settle();
  }
  // As PublishOnce, in a word, with the answer.
  std::string Say(std::string_view request_id, std::string_view fingerprint, int core = 0) {
    const OnceResult result = PublishOnce(request_id, fingerprint, core);
    switch (result.outcome) {
      case OnceResult::Outcome::kPublished:
        return "published" + result.answer;
      case OnceResult::Outcome::kRepeated:
        return "repeated " + result.answer;
      case OnceResult::Outcome::kConflict:
        return "conflict" + result.answer;
      case OnceResult::Outcome::kUnavailable:
        return "unavailable" + result.answer;
    }
    return {};
  }
  // How often something was published, as both cores have heard it.
  size_t Published() {
    EXPECT_EQ(backend_->heard(0).bus.size(), backend_->heard(1).bus.size());
    EXPECT_EQ(backend_->heard(0).bus.size(), backend_->heard(1).messages.size());
    return backend_->heard(1).bus.size();
  }
};
INSTANTIATE_TEST_SUITE_P(Stores, StoreOnce, testing::Values(BackendKind::kMemory, BackendKind::kRedis), BackendName);

TEST_P(StoreOnce, ARepeatIsNotPublishedWhicheverCoreItComesTo) {
  EXPECT_EQ(Say("r1", "one"), "published");
  EXPECT_THAT(backend_->heard(1).arrivals, ElementsAre("bus 1"));
  EXPECT_THAT(backend_->heard(1).messages, ElementsAre("outside"));
  EXPECT_EQ(Say("r1", "one"), "repeated ");
  EXPECT_EQ(Say("r1", "one", /*core=*/1), "repeated ");
  EXPECT_EQ(Published(), 1u);
  EXPECT_EQ(Say("r2", "one", /*core=*/1), "published") << "of another request, what it says does not matter";
  EXPECT_EQ(Published(), 2u);
}

TEST_P(StoreOnce, SomethingElseUnderThatIdIsAConflict) {
  Say("r1", "one");
  EXPECT_EQ(Say("r1", "two"), "conflict");
  EXPECT_EQ(Say("r1", "", /*core=*/1), "conflict");
  EXPECT_EQ(Say("r1", "one "), "conflict");
  EXPECT_EQ(Published(), 1u);
  SaveAnswer("r1", "secret");
  EXPECT_EQ(Say("r1", "two"), "conflict") << "without the other's answer";
  EXPECT_EQ(Say("r1", "one"), "repeated secret");
}

TEST_P(StoreOnce, ARepeatIsAnsweredWithWhatWasSavedLast) {
  Say("r1", "one");
  SaveAnswer("r1", "a long first answer");
  EXPECT_EQ(Say("r1", "one", /*core=*/1), "repeated a long first answer");
  SaveAnswer("r1", "42", /*core=*/1);
  EXPECT_EQ(Say("r1", "one"), "repeated 42");
  SaveAnswer("r1", "");
  EXPECT_EQ(Say("r1", "one"), "repeated ");
}

TEST_P(StoreOnce, AfterFiveMinutesTheIdIsFreeWheneverTheAnswerCame) {
  Say("r1", "one");
  EXPECT_EQ(backend_->Ttl("presence.request:r1"), 300);
  backend_->Advance(minutes(5) - milliseconds(1));
  SaveAnswer("r1", "42");
  EXPECT_EQ(Say("r1", "one"), "repeated 42") << "which does not make it live longer";
  EXPECT_NE(backend_->Ttl("presence.request:r1"), std::nullopt);
  backend_->Advance(milliseconds(1));
  backend_->Drop({"presence.request:r1"});  // what Redis' own clock would do
  EXPECT_EQ(Say("r1", "two"), "published");
  EXPECT_EQ(Published(), 2u);
}

TEST_P(StoreOnce, AnAnswerThatComesTooLateIsForgotten) {
  SaveAnswer("r1", "42");
  EXPECT_FALSE(backend_->Dump().contains("presence.request:r1"));
  EXPECT_EQ(Say("r1", "one"), "published");
}

TEST_P(StoreOnce, AnEmptiedStorePublishesAgain) {
  Say("r1", "one");
  backend_->Wipe();
  EXPECT_EQ(Say("r1", "one"), "published");
}

TEST_P(StoreOnce, IdsFingerprintsAndAnswersAreBytes) {
  std::string all;
  for (int byte = 0; byte < 256; ++byte) all += static_cast<char>(byte);
  const std::vector<std::string> ids{all.substr(0, 128), all.substr(128), std::string(128, '\0'), "", "*", "r\r\n1"};
  const std::vector<std::string> prints{all, "", "1", "1:", ":", "10:1"};
  for (const std::string& id : ids) {
    for (const std::string& print : prints) {
      if (&print != &prints[0]) {
        EXPECT_EQ(Say(id, print), "conflict");
        continue;
      }
      EXPECT_EQ(Say(id, print), "published");
      SaveAnswer(id, "7:answer" + all);
      EXPECT_EQ(Say(id, print), "repeated 7:answer" + all);
    }
  }
  for (const std::string& print : prints) {
    const std::string id = "for " + print;
    EXPECT_EQ(Say(id, print), "published");
    SaveAnswer(id, print);
    EXPECT_EQ(Say(id, print, /*core=*/1), "repeated " + print);
    EXPECT_EQ(Say(id, print + print + "x"), "conflict");
  }
}

TEST_P(StoreOnce, WithoutATextForOutsidersThereIsNone) {
  backend_->store().PublishOnce(++last_id_, "r1", "one", {}, "");
  backend_->Settle();
  EXPECT_THAT(backend_->heard(1).bus, SizeIs(1));
  EXPECT_THAT(backend_->heard(1).messages, IsEmpty());
}

// ----------------------------------------------------------------------------------------------- who is live

class StoreCores : public StoreContract {
 protected:
  std::vector<uint64_t> Announce(int core) {
    auto& answers = backend_->heard(core).cores;
    const size_t before = answers.size();
    backend_->store(core).Announce();
    EXPECT_EQ(answers.size(), before) << "answered from inside the call";
    backend_->Settle();
    EXPECT_EQ(answers.size(), before + 1) << "one answer each";
    if (answers.size() == before || !answers.back().ok()) return {};
    return *answers.back();
  }
};
INSTANTIATE_TEST_SUITE_P(Stores, StoreCores, testing::Values(BackendKind::kMemory, BackendKind::kRedis), BackendName);

TEST_P(StoreCores, TwoCoresSeeEachOther) {
  EXPECT_THAT(Announce(1), ElementsAre(kSecondCore));
  EXPECT_THAT(Announce(0), ElementsAre(kFirstCore, kSecondCore)) << "ascending, whoever came first";
  EXPECT_THAT(Announce(1), ElementsAre(kFirstCore, kSecondCore));
}

TEST_P(StoreCores, ADeadCoreIsNotLiveAfterItsLifetime) {
  Announce(1);
  backend_->Advance(StoreOptions().core_lifetime - milliseconds(1));
  EXPECT_THAT(Announce(0), ElementsAre(kFirstCore, kSecondCore));
  backend_->Advance(milliseconds(1));
  EXPECT_THAT(Announce(0), ElementsAre(kFirstCore));
  EXPECT_THAT(backend_->Dump()["presence.cores"], testing::Not(HasSubstr("c0df"))) << "nothing is left of it";
  EXPECT_THAT(Announce(1), ElementsAre(kFirstCore, kSecondCore)) << "it was not dead";
}

TEST_P(StoreCores, ACoreThatStopsIsNotLiveAtOnce) {
  Announce(0);
  Announce(1);
  backend_->store(1).Withdraw();
  backend_->store(1).Withdraw();
  backend_->Settle();
  EXPECT_THAT(Announce(0), ElementsAre(kFirstCore));
  backend_->store(0).Withdraw();
  backend_->Settle();
  EXPECT_FALSE(backend_->Dump().contains("presence.cores"));
}

TEST_P(StoreCores, AnEmptiedStoreLearnsOfThemAgain) {
  Announce(0);
  Announce(1);
  backend_->Wipe();
  EXPECT_THAT(Announce(0), ElementsAre(kFirstCore));
  EXPECT_THAT(Announce(1), ElementsAre(kFirstCore, kSecondCore));
}

TEST_P(StoreCores, AClockThatGoesBackKeepsNobodyDeadAlive) {
  Announce(0);
  Announce(1);
  backend_->Advance(-minutes(10));
  EXPECT_THAT(Announce(0), ElementsAre(kFirstCore, kSecondCore));
  backend_->Advance(StoreOptions().core_lifetime);
  EXPECT_THAT(Announce(0), ElementsAre(kFirstCore));
}

// --------------------------------------------------------------------------------------------------- replies

TEST_P(StoreContract, AReplyReachesOnlyItsCoreAndInOneOrderWithTheBus) {
  link::v1::BusEnvelope envelope;
  link::v1::ClusterReplies replies;
  link::v1::ClusterReply& reply = *replies.add_replies();
  Store& second = backend_->store(1);
  for (uint64_t i = 1; i <= 40; i += 4) {
    envelope.set_sequence(i);
    second.Publish(i, envelope, "");
    reply.set_id(i + 1);
    second.Reply(kFirstCore, replies);
    envelope.set_sequence(i + 2);
    second.PublishOnce(i + 2, "r" + std::to_string(i), "", envelope, "");
    reply.set_id(i + 3);
    second.Reply(kFirstCore, replies);
    second.Reply(0xDEAD, replies);  // who is not there
  }
  backend_->Settle();
  std::vector<std::string> expected, bus;
  for (uint64_t i = 1; i <= 40; ++i) {
    expected.push_back((i % 2 == 1 ? "bus " : "reply ") + std::to_string(i));
    if (i % 2 == 1) bus.push_back(expected.back());
  }
  EXPECT_EQ(backend_->heard(0).arrivals, expected);
  EXPECT_EQ(backend_->heard(1).arrivals, bus);
}

TEST_P(StoreContract, ACoreMayReplyToItself) {
  link::v1::ClusterReplies replies;
  for (uint64_t id = 1; id <= 3; ++id) replies.add_replies()->set_id(id);
  backend_->store().Reply(kFirstCore, replies);
  backend_->store().Reply(kFirstCore, {});
  backend_->Settle();
  EXPECT_THAT(backend_->heard().arrivals, ElementsAre("reply 1", "reply 2", "reply 3"));
}

}  // namespace
}  // namespace presence::core
