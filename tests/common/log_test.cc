#include "common/log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <condition_variable>
#include <latch>
#include <mutex>
#include <thread>
#include <vector>

namespace presence {
namespace {

using namespace std::chrono_literals;
using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::MatchesRegex;

// Collects what the log's thread writes. Its output can be held up, as a full pipe would.
class CapturedLog {
 public:
  explicit CapturedLog(log::Level level = log::Level::kInfo, size_t queue_lines_max = 1024) {
    log::Start({.level = level, .queue_lines_max = queue_lines_max, .sink = [this](std::string_view line) {
                  std::unique_lock lock(mutex_);
                  arrived_.notify_all();
                  ++waiting_;
                  flowing_.wait(lock, [&] { return !stalled_; });
                  lines_.emplace_back(line);
                }});
  }
  ~CapturedLog() {
    Resume();
    log::Stop();
  }
  CapturedLog(const CapturedLog&) = delete;
  CapturedLog& operator=(const CapturedLog&) = delete;

  // Returns once the log's thread is caught in its output with the line "stalled".
  void Stall() {
    std::unique_lock lock(mutex_);
    stalled_ = true;
    const int before = waiting_;
    log::Error("stalled");
    arrived_.wait(lock, [&] { return waiting_ > before; });
  }
  void Resume() {
    const std::lock_guard lock(mutex_);
    stalled_ = false;
    flowing_.notify_all();
  }
  // Everything that was written; ends the log.
  std::vector<std::string> Finish() {
    Resume();
    log::Stop();
    const std::lock_guard lock(mutex_);
    return lines_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable arrived_, flowing_;
  bool stalled_ = false;
  int waiting_ = 0;
  std::vector<std::string> lines_;
};

TEST(LogTest, ALineHasTheFormOfTheSpecification) {
  CapturedLog captured;
  log::Info("User {} ({}) connected with connection {}", "alice", "user-123", "conn-abc");
  EXPECT_THAT(captured.Finish(),
              ElementsAre(MatchesRegex("[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2} INFO "
                                       "User alice \\(user-123\\) connected with connection conn-abc\n")));
}

TEST(LogTest, LevelsBelowTheChosenOneAreNotWritten) {
  CapturedLog captured(log::Level::kWarning);
  log::Debug("one");
  log::Info("two");
  log::Warning("three");
  log::Error("four");
  EXPECT_EQ(log::SetLevel(log::Level::kError), log::Level::kWarning);
  log::Warning("five");
  EXPECT_THAT(captured.Finish(), ElementsAre(HasSubstr(" WARNING three\n"), HasSubstr(" ERROR four\n")));
}

TEST(LogTest, ALineBreakCannotStartASecondLine) {
  CapturedLog captured;
  log::Info("{}", "harmless\n2025-01-14 12:00:00 ERROR forged\r");
  EXPECT_THAT(captured.Finish(), ElementsAre(EndsWith("harmless\\n2025-01-14 12:00:00 ERROR forged\\r\n")));
}

TEST(LogTest, AStalledOutputDropsTheOldestLinesAndHoldsUpNoWriter) {
  const uint64_t dropped_before = log::LinesDropped();
  CapturedLog captured(log::Level::kInfo, 4);
  captured.Stall();
  for (int i = 0; i < 10; ++i) log::Info("line {}", i);  // returns, though nothing can be written
  EXPECT_EQ(log::LinesDropped() - dropped_before, 6u);
  const auto lines = captured.Finish();
  EXPECT_THAT(lines.front(), HasSubstr("stalled"));
  EXPECT_THAT(lines, ::testing::Contains(HasSubstr("line 9\n")));
  EXPECT_THAT(lines, ::testing::Not(::testing::Contains(HasSubstr("line 0\n"))));
  EXPECT_THAT(lines, ::testing::Contains(HasSubstr("log lines were dropped")));
}

TEST(LogTest, ManyWritersLoseNothingWhileTheQueueHasRoom) {
  CapturedLog captured(log::Level::kInfo, 8192);
  std::latch together(4);
  std::vector<std::thread> writers;
  for (int writer = 0; writer < 4; ++writer) {
    writers.emplace_back([&, writer] {
      together.arrive_and_wait();
      for (int i = 0; i < 500; ++i) log::Info("writer {} line {}", writer, i);
    });
  }
  for (auto& writer : writers) writer.join();
  EXPECT_EQ(captured.Finish().size(), 2000u);
}

TEST(LogTest, LinesAfterStopDoNotReachTheStoppedOutput) {
  CapturedLog captured;
  captured.Finish();
  log::Info("to standard output");
  EXPECT_THAT(captured.Finish(), IsEmpty());
}

TEST(LogTest, LevelNamesAreUnderstoodInAnyCase) {
  EXPECT_EQ(log::ParseLevel("INFO"), log::Level::kInfo);
  EXPECT_EQ(log::ParseLevel("debug"), log::Level::kDebug);
  EXPECT_EQ(log::ParseLevel("Warn"), log::Level::kWarning);
  EXPECT_EQ(log::ParseLevel("LOUD"), std::nullopt);
}

TEST(LineLimitTest, ABurstPassesThenTheRateHolds) {
  log::LineLimit limit("connections", /*lines_per_second=*/10, /*burst_lines=*/5);
  const SteadyTime start{1000s};
  int admitted = 0;
  for (int i = 0; i < 20; ++i) admitted += limit.AdmitAt(start);
  EXPECT_EQ(admitted, 5);
  EXPECT_EQ(limit.Suppressed(), 15u);
  // One line per 100 ms from here on.
  EXPECT_FALSE(limit.AdmitAt(start + 99ms));
  EXPECT_TRUE(limit.AdmitAt(start + 100ms));
  EXPECT_FALSE(limit.AdmitAt(start + 150ms));
  // A long silence saves up no more than one burst.
  admitted = 0;
  for (int i = 0; i < 20; ++i) admitted += limit.AdmitAt(start + 1h);
  EXPECT_EQ(admitted, 5);
}

TEST(LineLimitTest, LinesBelowTheLevelSpendNothing) {
  CapturedLog captured(log::Level::kError);
  log::LineLimit limit("connections", 1, 1);
  EXPECT_FALSE(limit.Admit(log::Level::kInfo));
  EXPECT_EQ(limit.Suppressed(), 0u);
  EXPECT_TRUE(limit.Admit(log::Level::kError));
}

TEST(LineLimitTest, TheLogSaysHowManyLinesWereLeftOut) {
  CapturedLog captured;
  log::LineLimit limit("refused handshakes", 1, 2);
  for (int i = 0; i < 10; ++i) {
    if (limit.AdmitAt(SteadyTime{1s})) log::Info("refused {}", i);
  }
  EXPECT_THAT(captured.Finish(),
              ElementsAre(HasSubstr("refused 0"), HasSubstr("refused 1"),
                          HasSubstr("WARNING 8 more log lines about refused handshakes were left out")));
}

TEST(LineLimitTest, WritersThatCompeteShareOneBudget) {
  log::LineLimit limit("connections", 1, 100);
  std::atomic<int> admitted{0};
  std::vector<std::thread> writers;
  for (int writer = 0; writer < 4; ++writer) {
    writers.emplace_back([&] {
      for (int i = 0; i < 1000; ++i) admitted += limit.AdmitAt(SteadyTime{1s});
    });
  }
  for (auto& writer : writers) writer.join();
  EXPECT_EQ(admitted, 100);
  EXPECT_EQ(limit.Suppressed(), 3900u);
}

TEST(EscapedTest, PlainTextAndOrdinaryLettersPass) {
  EXPECT_EQ(Escaped("channel_general"), "channel_general");
  EXPECT_EQ(Escaped("Zoë 李 🙂"), "Zoë 李 🙂");
  EXPECT_EQ(Escaped(""), "");
}

TEST(EscapedTest, WhatCouldEndOrForgeALineIsEscaped) {
  EXPECT_EQ(Escaped("a\nb\rc\td"), "a\\nb\\rc\\td");
  EXPECT_EQ(Escaped(std::string_view("\0\x1B[31m\x7F", 7)), "\\x00\\x1b[31m\\x7f");
  EXPECT_EQ(Escaped("\xC2\x85"), "\\u0085");      // next line
  EXPECT_EQ(Escaped("\xE2\x80\xA8"), "\\u2028");  // line separator
  EXPECT_EQ(Escaped("\xE2\x80\xA9"), "\\u2029");  // paragraph separator
  EXPECT_EQ(Escaped("\xE2\x80\xAE"
                    "x"),
            "\\u202ex");                   // right-to-left override
  EXPECT_EQ(Escaped("C:\\n"), "C:\\\\n");  // an escape of ours cannot be imitated
}

TEST(EscapedTest, BytesThatAreNotUtf8AreShownAsBytes) {
  EXPECT_EQ(Escaped("\xFF"), "\\xff");
  EXPECT_EQ(Escaped("\xC0\xAF"), "\\xc0\\xaf");           // overlong
  EXPECT_EQ(Escaped("\xED\xA0\x80"), "\\xed\\xa0\\x80");  // a surrogate
  EXPECT_EQ(Escaped("caf\xC3"), "caf\\xc3");              // cut short
}

TEST(EscapedTest, LongTextIsCutBetweenCharacters) {
  EXPECT_EQ(Escaped(std::string(201, 'a')), std::string(200, 'a') + "…");
  EXPECT_EQ(Escaped(std::string(200, 'a')), std::string(200, 'a'));
  EXPECT_EQ(Escaped("aaé", 3), "aa…");   // no half of a letter
  EXPECT_EQ(Escaped("aa\n", 3), "aa…");  // no half of an escape
  EXPECT_LE(Escaped(std::string(100000, '\x01')).size(), 200u + 3u);
}

TEST(RedactTokenTest, TheValueOfATokenParameterIsLeftOut) {
  EXPECT_EQ(RedactToken("/ws?token=abc&x=1"), "/ws?token=[redacted]&x=1");
  EXPECT_EQ(RedactToken("/ws?x=1&token=abc"), "/ws?x=1&token=[redacted]");
  EXPECT_EQ(RedactToken("/ws?token=a&token=b&y"), "/ws?token=[redacted]&token=[redacted]&y");
  EXPECT_EQ(RedactToken("/ws?token="), "/ws?token=[redacted]");
  EXPECT_EQ(RedactToken("wss://host:1/ws?access_token=abc#f"), "wss://host:1/ws?access_token=[redacted]");
}

TEST(RedactTokenTest, SpellingsThatAServerWouldUnderstandAreCaught) {
  EXPECT_EQ(RedactToken("/ws?TOKEN=abc"), "/ws?TOKEN=[redacted]");
  EXPECT_EQ(RedactToken("/ws?%74oken=abc"), "/ws?%74oken=[redacted]");
  EXPECT_EQ(RedactToken("/ws?to%6B%65n=abc"), "/ws?to%6B%65n=[redacted]");
  EXPECT_EQ(RedactToken("/ws?a;token=abc;def"), "/ws?a;token=[redacted]");
  EXPECT_EQ(RedactToken("/ws?token=a=b=c&d=e"), "/ws?token=[redacted]&d=e");
}

TEST(RedactTokenTest, WhatLooksLikeAJwtIsLeftOutAnywhere) {
  const std::string jwt = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln";
  EXPECT_EQ(RedactToken("/ws?t=" + jwt + "&x=1"), "/ws?t=[redacted]&x=1");
  EXPECT_EQ(RedactToken("presence.v1, bearer." + jwt), "presence.v1, bearer.[redacted]");
}

TEST(RedactTokenTest, TheRestStaysAsItIs) {
  EXPECT_EQ(RedactToken("/presence?limit=10&cursor=eyJ"), "/presence?limit=10&cursor=eyJ");
  EXPECT_EQ(RedactToken("/token"), "/token");
  EXPECT_EQ(RedactToken("/ws?tokens=5&x=token"), "/ws?tokens=5&x=token");
  EXPECT_EQ(RedactToken("/ws?%7=1&%"), "/ws?%7=1&%");
}

}  // namespace
}  // namespace presence
