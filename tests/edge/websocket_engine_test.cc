// An open server connection against hand-built frames: messages, violations, closing, the end of the stream, and bytes
// cut at will.
#include "edge/websocket_engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <initializer_list>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tests/edge/websocket_frames.h"

namespace presence::edge {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::StartsWith;

class OpenServer : public ::testing::Test {
 protected:
  OpenServer() { ServerSession::Opened(session_); }

  const std::vector<std::string>& events() { return session_.recorder.events; }
  std::string Output() { return session_.recorder.TakeOutput(); }
  void Feed(std::string_view bytes) { session_.Feed(bytes); }
  WebsocketEngine& engine() { return *session_.engine; }

  // The peer broke the protocol: one close frame, then the end, and nothing moves after it.
  void ExpectFailed(uint16_t code) {
    EXPECT_THAT(events(), ElementsAre("ended " + std::to_string(code)));
    const std::string output = Output();
    ASSERT_GE(output.size(), 4u);
    EXPECT_EQ(static_cast<uint8_t>(output[0]), kFin | kClose);
    EXPECT_EQ(output.substr(2, 2), ClosePayload(code));
    EXPECT_EQ(output.size(), 2u + static_cast<uint8_t>(output[1])) << "more than one frame";
    Feed(FromClient(kFin | kText, "late"));
    engine().SendText("late");
    engine().Close(1000, "");
    engine().Eof();
    EXPECT_THAT(Output(), IsEmpty());
    EXPECT_EQ(events().size(), 1u);
  }

  ServerSession session_{WebsocketServerOptions{.message_bytes_max = 1000, .subprotocol = ""}};
};

// ---- messages ----

TEST_F(OpenServer, TextAndBinaryMessagesArrive) {
  Feed(FromClient(kFin | kText, "gr\xc3\xbc\xc3\x9f") + FromClient(kFin | kBinary, "\xff\xfe") +
       FromClient(kFin | kText, ""));
  EXPECT_THAT(events(), ElementsAre("text gr\xc3\xbc\xc3\x9f", "binary \xff\xfe", "text "));
  EXPECT_THAT(Output(), IsEmpty());
}

TEST_F(OpenServer, FragmentsAreJoinedAroundAPing) {
  Feed(FromClient(kText, "one ") + FromClient(kContinuation, "two ") + FromClient(kFin | kPing, "?") +
       FromClient(kFin | kContinuation, "three"));
  EXPECT_THAT(events(), ElementsAre("control", "text one two three"));
  EXPECT_EQ(Output(), FromServer(kFin | kPong, "?"));
}

TEST_F(OpenServer, ACharacterMayBeSplitBetweenFragments) {
  Feed(FromClient(kText, "\xe2\x82") + FromClient(kFin | kContinuation, "\xac"));
  EXPECT_THAT(events(), ElementsAre("text \xe2\x82\xac"));
}

TEST_F(OpenServer, PingsAreAnsweredBeforeTheyAreReported) {
  session_.recorder.when_control = [&] { engine().Close(1000, ""); };
  const std::string longest(125, 'p');
  Feed(FromClient(kFin | kPing, longest));
  EXPECT_THAT(events(), ElementsAre("control"));
  EXPECT_EQ(Output(), FromServer(kFin | kPong, longest) + FromServer(kFin | kClose, ClosePayload(1000)));
}

TEST_F(OpenServer, PongsAreReported) {
  engine().SendPing("are you there");
  EXPECT_EQ(Output(), FromServer(kFin | kPing, "are you there"));
  Feed(FromClient(kFin | kPong, "are you there"));
  EXPECT_THAT(events(), ElementsAre("control"));
  EXPECT_THAT(Output(), IsEmpty());
}

TEST_F(OpenServer, TextOfEveryLengthOfLengthIsSent) {
  for (const size_t size : {0u, 125u, 126u, 65'535u, 65'536u}) {
    const std::string text(size, 't');
    engine().SendText(text);
    EXPECT_EQ(Output(), FromServer(kFin | kText, text));
  }
}

TEST_F(OpenServer, OwnMessagesMayBeLongerThanThePeers) {
  session_.recorder.when_message = [&] { engine().SendText(std::string(5000, 'l')); };
  Feed(FromClient(kFin | kText, "go"));
  EXPECT_EQ(Output(), FromServer(kFin | kText, std::string(5000, 'l')));
  EXPECT_THAT(events(), ElementsAre("text go"));
}

// ---- what breaks the protocol ----

TEST_F(OpenServer, UnmaskedFrameFails) {
  Feed(FromServer(kFin | kText, "bare") + FromClient(kFin | kText, "later"));
  ExpectFailed(1002);
}

TEST_F(OpenServer, ReservedBitFails) {
  Feed(FromClient(kFin | kRsv1 | kText, "compressed?"));
  ExpectFailed(1002);
}

TEST_F(OpenServer, ReservedOpcodesFail) {
  for (const uint8_t opcode : std::initializer_list<uint8_t>{0x3, 0x4, 0x7, 0xB, 0xF}) {
    ServerSession session;
    ServerSession::Opened(session).Feed(FromClient(static_cast<uint8_t>(kFin | opcode), ""));
    EXPECT_THAT(session.recorder.events, ElementsAre("ended 1002")) << int{opcode};
  }
}

TEST_F(OpenServer, OversizedControlFrameFails) {
  Feed(FromClient(kFin | kPing, std::string(126, 'p')));
  ExpectFailed(1002);
}

TEST_F(OpenServer, FragmentedControlFrameFails) {
  Feed(FromClient(kPing, "half"));
  ExpectFailed(1002);
}

TEST_F(OpenServer, ContinuationOfNothingFails) {
  Feed(FromClient(kFin | kContinuation, "of what"));
  ExpectFailed(1002);
}

TEST_F(OpenServer, NewMessageInsideAFragmentedOneFails) {
  Feed(FromClient(kText, "begun") + FromClient(kFin | kText, "another"));
  ExpectFailed(1002);
}

TEST_F(OpenServer, InvalidUtf8Fails) {
  Feed(FromClient(kFin | kText, "ok \xc0\xaf"));
  ExpectFailed(1007);
}

TEST_F(OpenServer, TruncatedCharacterAtTheEndFails) {
  Feed(FromClient(kFin | kText, "\xe2\x82"));
  ExpectFailed(1007);
}

TEST_F(OpenServer, InvalidUtf8OverFragmentsFails) {
  Feed(FromClient(kText, "\xe2\x82") + FromClient(kFin | kContinuation, "("));
  ExpectFailed(1007);
}

TEST_F(OpenServer, TruncatedCharacterAtTheEndOfFragmentsFails) {
  for (const std::string_view tail : {"\xc3", "\xe2\x82", "\xf0\x9f\x98"}) {
    ServerSession session;
    ServerSession::Opened(session).Feed(FromClient(kText, "a") + FromClient(kFin | kContinuation, tail));
    EXPECT_THAT(session.recorder.events, ElementsAre("ended 1007"));
    EXPECT_EQ(session.recorder.output.substr(2, 2), ClosePayload(1007));
  }
}

TEST_F(OpenServer, SurrogatesAreNotUtf8) {
  Feed(FromClient(kFin | kText, "\xed\xa0\x80"));
  ExpectFailed(1007);
}

TEST_F(OpenServer, AMessageOfTheLongestLengthArrives) {
  Feed(FromClient(kFin | kText, std::string(1000, 'm')));
  Feed(FromClient(kText, std::string(600, 'm')) + FromClient(kFin | kContinuation, std::string(400, 'm')));
  EXPECT_THAT(events(), ElementsAre("text " + std::string(1000, 'm'), "text " + std::string(1000, 'm')));
}

TEST_F(OpenServer, ALongerMessageFailsAtItsHeader) {
  Feed(FromClient(kFin | kText, std::string(1001, 'm')).substr(0, 8));
  ExpectFailed(1009);
}

TEST_F(OpenServer, AMessageThatGrowsTooLongFails) {
  Feed(FromClient(kText, std::string(600, 'm')) + FromClient(kFin | kContinuation, std::string(401, 'm')));
  ExpectFailed(1009);
}

TEST_F(OpenServer, TheLongestLengthMayChangeMeanwhile) {
  engine().LimitMessages(10);
  Feed(FromClient(kFin | kText, "0123456789"));
  engine().LimitMessages(20);
  Feed(FromClient(kFin | kText, "01234567890123456789"));
  EXPECT_THAT(events(), ElementsAre("text 0123456789", "text 01234567890123456789"));
  session_.recorder.events.clear();
  engine().LimitMessages(10);
  Feed(FromClient(kText, "012345") + FromClient(kFin | kContinuation, "67890"));
  ExpectFailed(1009);
}

TEST_F(OpenServer, ALimitThatAMessageChangesIsForTheNextOneInTheSameRead) {
  engine().LimitMessages(10);
  session_.recorder.when_message = [&] { engine().LimitMessages(500); };
  // The second length has two bytes, which is looked at before the message is.
  Feed(FromClient(kFin | kText, "auth") + FromClient(kFin | kText, std::string(500, 'm')));
  EXPECT_THAT(events(), ElementsAre("text auth", "text " + std::string(500, 'm')));
  session_.recorder.events.clear();
  session_.recorder.when_message = [&] { engine().LimitMessages(200); };
  Feed(FromClient(kFin | kText, "auth") + FromClient(kFin | kText, std::string(201, 'm')));
  EXPECT_THAT(events(), ElementsAre("text auth", "ended 1009"));
}

TEST_F(OpenServer, ALengthThatOverflowsASumFails) {
  // 600 more than 2^64 - 600 is nothing at all.
  Feed(FromClient(kText, std::string(600, 'm')) +
       Frame(kFin | kContinuation, std::string(3000, 'm'), kMaskKey, ~uint64_t{0} - 599));
  ExpectFailed(1009);
}

TEST_F(OpenServer, ALongPingInsideALimitedMessageIsNoError) {
  ServerSession session(WebsocketServerOptions{.message_bytes_max = 10, .subprotocol = ""});
  ServerSession::Opened(session);
  for (const char c : FromClient(kText, "12345") + FromClient(kFin | kPing, std::string(125, 'p')))
    session.Feed({&c, 1});
  EXPECT_THAT(session.recorder.events, ElementsAre("control"));
}

// ---- closing ----

TEST_F(OpenServer, ThePeersCloseIsEchoed) {
  for (const uint16_t code : std::initializer_list<uint16_t>{1000, 1001, 1003, 1007, 1011, 1014, 3000, 4999}) {
    ServerSession session;
    ServerSession::Opened(session).Feed(FromClient(kFin | kClose, ClosePayload(code, "bye")) +
                                        FromClient(kFin | kText, "late"));
    EXPECT_THAT(session.recorder.events, ElementsAre("ended " + std::to_string(code)));
    EXPECT_EQ(session.recorder.output, FromServer(kFin | kClose, ClosePayload(code, "bye")));
  }
}

TEST_F(OpenServer, ACloseWithoutACodeIsAnswered) {
  Feed(FromClient(kFin | kClose, ""));
  EXPECT_THAT(events(), ElementsAre("ended 1005"));
  EXPECT_EQ(Output(), FromServer(kFin | kClose, ClosePayload(1000)));
}

TEST_F(OpenServer, CloseCodesThatMayNotBeSentFail) {
  for (const uint16_t code : std::initializer_list<uint16_t>{0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535}) {
    ServerSession session;
    ServerSession::Opened(session).Feed(FromClient(kFin | kClose, ClosePayload(code)));
    EXPECT_THAT(session.recorder.events, ElementsAre("ended 1002")) << code;
    EXPECT_EQ(session.recorder.output.substr(2, 2), ClosePayload(1002)) << code;
  }
}

TEST_F(OpenServer, HalfACloseCodeFails) {
  Feed(FromClient(kFin | kClose, "\x03"));
  ExpectFailed(1002);
}

TEST_F(OpenServer, ACloseReasonThatIsNoTextFails) {
  Feed(FromClient(kFin | kClose, ClosePayload(1000, "\xff")));
  ExpectFailed(1002);
}

TEST_F(OpenServer, OurCloseEndsWithThePeersAnswer) {
  // Also for the codes at which websocketpp would hang up without waiting.
  for (const uint16_t code : std::initializer_list<uint16_t>{1000, 1001, 1008, 1009, 1011, 1012, 1013, 4000}) {
    ServerSession session;
    ServerSession::Opened(session).engine->Close(code, "why");
    EXPECT_EQ(session.recorder.TakeOutput(), FromServer(kFin | kClose, ClosePayload(code, "why")));
    session.engine->Close(1001, "again");
    session.engine->SendText("late");
    session.engine->SendPing("late");
    session.Feed(FromClient(kFin | kText, "crossing") + FromClient(kFin | kPing, ""));
    EXPECT_THAT(session.recorder.events, IsEmpty());
    session.Feed(FromClient(kFin | kClose, ClosePayload(code)));
    EXPECT_THAT(session.recorder.events, ElementsAre("ended " + std::to_string(code)));
    EXPECT_THAT(session.recorder.output, IsEmpty());
  }
}

TEST_F(OpenServer, AReasonIsCutBetweenCharacters) {
  engine().Close(1000, std::string(122, 'r') + "\xc3\xbc" + "rest");
  EXPECT_EQ(Output(), FromServer(kFin | kClose, ClosePayload(1000, std::string(122, 'r'))));
}

TEST_F(OpenServer, ACodeThatMayNotBeSentBecomesAnInternalError) {
  engine().Close(1006, "");
  EXPECT_EQ(Output(), FromServer(kFin | kClose, ClosePayload(1011)));
}

TEST_F(OpenServer, AViolationWhileClosingEndsWithoutASecondFrame) {
  engine().Close(1000, "");
  Output();
  Feed(FromServer(kFin | kText, "unmasked"));
  EXPECT_THAT(events(), ElementsAre("ended 1000"));
  EXPECT_THAT(Output(), IsEmpty());
}

TEST_F(OpenServer, ClosingFromInsideAMessageStopsTheRest) {
  session_.recorder.when_message = [&] { engine().Close(1008, "enough"); };
  Feed(FromClient(kFin | kText, "one") + FromClient(kFin | kText, "two") +
       FromClient(kFin | kClose, ClosePayload(1008)) + FromClient(kFin | kText, "three"));
  EXPECT_THAT(events(), ElementsAre("text one", "ended 1008"));
  EXPECT_EQ(Output(), FromServer(kFin | kClose, ClosePayload(1008, "enough")));
}

TEST_F(OpenServer, EverythingIsSafeFromInsideTheEnd) {
  session_.recorder.when_ended = [&] {
    engine().Close(1000, "");
    engine().SendText("late");
    engine().SendPing("late");
    engine().Eof();
  };
  Feed(FromClient(kFin | kClose, ClosePayload(1000)));
  EXPECT_THAT(events(), ElementsAre("ended 1000"));
  EXPECT_EQ(Output(), FromServer(kFin | kClose, ClosePayload(1000)));
}

TEST(WebsocketEngineTest, BeforeItIsOpenNothingIsSent) {
  ServerSession session;
  session.Feed("GET /ws HT");
  session.engine->SendText("early");
  session.engine->SendPing("early");
  session.engine->Close(1000, "early");
  EXPECT_THAT(session.recorder.output, IsEmpty());
  EXPECT_THAT(session.recorder.events, IsEmpty());
}

// ---- the end of the stream ----

TEST(WebsocketEngineTest, TheEndOfTheStreamEndsEachPhase) {
  const std::string open = UpgradeRequest();
  const std::pair<std::string, uint16_t> phases[] = {
      {"", 1006},
      {"GET", 1006},
      {open.substr(0, open.size() - 1), 1006},
      {open, 1006},
      {open + FromClient(kFin | kText, "half a frame").substr(0, 9), 1006},
      {open + FromClient(kText, "half a message"), 1006},
  };
  for (const auto& [bytes, code] : phases) {
    ServerSession session;
    session.Feed(bytes);
    session.engine->Eof();
    session.engine->Eof();
    ASSERT_FALSE(session.recorder.events.empty());
    EXPECT_EQ(session.recorder.events.back(), "ended " + std::to_string(code));
    EXPECT_EQ(session.recorder.events.size(), bytes.size() < open.size() ? 1u : 2u);
  }
}

TEST_F(OpenServer, TheEndOfTheStreamAfterOurCloseReportsOurCode) {
  engine().Close(1012, "restart");
  engine().Eof();
  EXPECT_THAT(events(), ElementsAre("ended 1012"));
}

TEST_F(OpenServer, TheEndOfTheStreamFromInsideAMessage) {
  session_.recorder.when_message = [&] { engine().Eof(); };
  Feed(FromClient(kFin | kText, "one") + FromClient(kFin | kText, "two") + FromClient(kFin | kPing, ""));
  EXPECT_THAT(events(), ElementsAre("text one", "ended 1006"));
  EXPECT_THAT(Output(), IsEmpty());
}

TEST(WebsocketEngineTest, AnEngineMayBeDroppedInAnyPhase) {
  const std::string session_bytes = UpgradeRequest() + FromClient(kText, "frag") + FromClient(kFin | kPing, "x");
  for (size_t size = 0; size <= session_bytes.size(); ++size) {
    ServerSession session;
    session.Feed(session_bytes.substr(0, size));
  }
}

// ---- how the bytes are cut does not matter ----

TEST(WebsocketEngineTest, OneByteAtATimeGivesTheSame) {
  const std::string common =
      UpgradeRequest() + FromClient(kFin | kText, "short") + FromClient(kFin | kText, std::string(200, 'a')) +
      FromClient(kFin | kBinary, std::string(70'000, 'b')) + FromClient(kText, "\xe2") +
      FromClient(kFin | kPing, "ping") + FromClient(kContinuation, "\x82") + FromClient(kFin | kContinuation, "\xac");
  const std::string endings[] = {
      FromClient(kFin | kClose, ClosePayload(4001, "done")) + FromClient(kFin | kText, "late"),
      FromServer(kFin | kText, "unmasked") + FromClient(kFin | kText, "late"),
      FromClient(kFin | kText, "\xff") + FromClient(kFin | kPing, "late"),
      FromClient(kFin | kText, std::string(100'000, 'l')),
  };
  for (const std::string& ending : endings) {
    WebsocketServerOptions options;
    options.message_bytes_max = 80'000;
    ServerSession whole(options), bytewise(options);
    whole.Feed(common + ending);
    for (const char c : common + ending) bytewise.Feed({&c, 1});
    EXPECT_EQ(whole.recorder.events, bytewise.recorder.events);
    EXPECT_EQ(whole.recorder.output, bytewise.recorder.output);
    EXPECT_EQ(whole.recorder.events.size(), 7u);
  }
}

TEST(WebsocketEngineTest, GarbageNeverBreaksIt) {
  std::mt19937 random(20240607);
  const std::string good = FromClient(kFin | kText, "hello") + FromClient(kText, "a") + FromClient(kFin | kPing, "p") +
                           FromClient(kFin | kContinuation, "b") + FromClient(kFin | kClose, ClosePayload(1000));
  for (int round = 0; round < 3000; ++round) {
    ServerSession session;
    std::string bytes = round % 3 == 0 ? "" : UpgradeRequest();
    if (round % 3 == 1) {
      for (int i = 0; i < 200; ++i) bytes += static_cast<char>(random());
    } else {
      bytes += good;
      for (int i = 0; i < 3; ++i) bytes[random() % bytes.size()] = static_cast<char>(random());
    }
    for (size_t at = 0; at < bytes.size();) {
      const size_t size = 1 + random() % 50;
      session.Feed(std::string_view(bytes).substr(at, size));
      at += size;
    }
    session.engine->Eof();
    EXPECT_THAT(session.recorder.events.back(), StartsWith("ended "));
  }
}

}  // namespace
}  // namespace presence::edge
