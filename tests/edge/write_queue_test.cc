#include "edge/write_queue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>
#include <optional>
#include <random>
#include <string>
#include <vector>

namespace presence::edge {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr size_t kBound = 100;

SendPolicy Latest(uint32_t key) {
  return {SendClass::kLatest, key};
}
constexpr SendPolicy kReliable{SendClass::kReliable, 0};
constexpr SendPolicy kVolatile{SendClass::kVolatile, 0};

class WriteQueueTest : public ::testing::Test {
 protected:
  PushResult Push(std::string_view bytes, SendPolicy policy = kReliable) {
    return queue_.Push(FrameRef::Raw(bytes), policy, kBound);
  }
  std::vector<std::string> Pending(size_t buffers_max = 1000) const {
    std::vector<std::string> pending;
    size_t total = 0;
    const size_t bytes = queue_.Gather(buffers_max, [&](std::string_view frame) {
      pending.emplace_back(frame);
      total += frame.size();
    });
    EXPECT_EQ(bytes, total);
    return pending;
  }

  WriteQueue queue_;
};

TEST_F(WriteQueueTest, OneFrameGoesStraightThrough) {
  EXPECT_TRUE(queue_.empty());
  EXPECT_THAT(Pending(), IsEmpty());
  EXPECT_EQ(queue_.Consume(0), 0u);

  EXPECT_EQ(Push("hello"), PushResult::kQueued);
  EXPECT_FALSE(queue_.empty());
  EXPECT_EQ(queue_.bytes(), 5u);
  EXPECT_EQ(queue_.frames(), 1u);
  EXPECT_THAT(Pending(), ElementsAre("hello"));

  EXPECT_EQ(queue_.Consume(5), 1u);
  EXPECT_TRUE(queue_.empty());
  EXPECT_EQ(queue_.bytes(), 0u);
}

TEST_F(WriteQueueTest, FramesAreGatheredInOrderUpToTheNumberAskedFor) {
  for (const char* frame : {"a", "bb", "ccc", "dddd"}) Push(frame);
  EXPECT_EQ(queue_.bytes(), 10u);
  EXPECT_THAT(Pending(), ElementsAre("a", "bb", "ccc", "dddd"));
  EXPECT_THAT(Pending(2), ElementsAre("a", "bb"));
  EXPECT_THAT(Pending(0), IsEmpty());
}

TEST_F(WriteQueueTest, APartialWriteContinuesInTheMiddleOfAFrame) {
  Push("abc");
  EXPECT_EQ(queue_.Consume(1), 0u);
  Push("defg");
  EXPECT_EQ(queue_.bytes(), 6u);
  EXPECT_THAT(Pending(), ElementsAre("bc", "defg"));

  EXPECT_EQ(queue_.Consume(4), 1u);
  EXPECT_THAT(Pending(), ElementsAre("fg"));
  EXPECT_EQ(queue_.Consume(1), 0u);
  EXPECT_THAT(Pending(), ElementsAre("g"));
  EXPECT_EQ(queue_.Consume(1), 1u);
  EXPECT_TRUE(queue_.empty());
}

TEST_F(WriteQueueTest, TheBoundCountsWhatTheSocketHasNotTaken) {
  EXPECT_EQ(Push(std::string(60, 'a')), PushResult::kQueued);
  EXPECT_EQ(Push(std::string(41, 'b')), PushResult::kFull);
  EXPECT_EQ(Push(std::string(40, 'c')), PushResult::kQueued);
  EXPECT_EQ(Push("x"), PushResult::kFull);

  queue_.Consume(10);  // of the first frame
  EXPECT_EQ(Push(std::string(10, 'd')), PushResult::kQueued);
  EXPECT_EQ(Push("x"), PushResult::kFull);
  EXPECT_EQ(queue_.bytes(), kBound);
}

TEST_F(WriteQueueTest, AnEmptyQueueTakesAFrameAboveItsBound) {
  EXPECT_EQ(Push(std::string(kBound + 1, 'a')), PushResult::kQueued);
  EXPECT_EQ(Push("b"), PushResult::kFull);
  queue_.Consume(kBound + 1);
  EXPECT_EQ(Push(std::string(kBound + 1, 'a'), Latest(1)), PushResult::kQueued);
}

TEST_F(WriteQueueTest, VolatileFramesAreDroppedPastHalfTheBound) {
  Push(std::string(50, 'a'));
  EXPECT_EQ(Push("typing", kVolatile), PushResult::kQueued);
  EXPECT_EQ(Push("typing", kVolatile), PushResult::kDropped);
  EXPECT_EQ(Push("message"), PushResult::kQueued);
  EXPECT_EQ(queue_.frames(), 3u);
}

TEST_F(WriteQueueTest, InABacklogTheLatestFrameTakesThePlaceOfTheOlderOne) {
  Push("head");
  Push("u1=online", Latest(1));
  Push("u2=online", Latest(2));
  Push("message");
  queue_.Consume(0);  // the socket refuses: backlogged

  EXPECT_EQ(Push("u1=away", Latest(1)), PushResult::kReplaced);
  EXPECT_EQ(Push("u3=online", Latest(3)), PushResult::kQueued);
  EXPECT_THAT(Pending(), ElementsAre("head", "u1=away", "u2=online", "message", "u3=online"));
  EXPECT_EQ(queue_.bytes(), 4u + 7 + 9 + 7 + 9);
}

TEST_F(WriteQueueTest, WithoutABacklogNothingIsReplaced) {
  Push("u1=online", Latest(1));
  EXPECT_EQ(Push("u1=away", Latest(1)), PushResult::kQueued);
  EXPECT_THAT(Pending(), ElementsAre("u1=online", "u1=away"));
}

TEST_F(WriteQueueTest, OfTwoQueuedFramesWithOneKeyTheNewerIsReplaced) {
  Push("head");
  Push("u1=1", Latest(1));
  Push("u1=2", Latest(1));
  queue_.Consume(0);
  EXPECT_EQ(Push("u1=3", Latest(1)), PushResult::kReplaced);
  EXPECT_THAT(Pending(), ElementsAre("head", "u1=1", "u1=3"));
}

TEST_F(WriteQueueTest, APartiallyWrittenFrameIsNotReplaced) {
  Push("u1=online", Latest(1));
  queue_.Consume(3);
  EXPECT_EQ(Push("u1=away", Latest(1)), PushResult::kQueued);
  EXPECT_EQ(Push("u1=offline", Latest(1)), PushResult::kReplaced);
  EXPECT_THAT(Pending(), ElementsAre("online", "u1=offline"));
}

TEST_F(WriteQueueTest, AReplacementThatWouldPassTheBoundIsRefusedAndTheOldFrameStays) {
  Push(std::string(60, 'a'));
  Push(std::string(40, 'b'), Latest(1));
  queue_.Consume(0);
  EXPECT_EQ(Push(std::string(41, 'c'), Latest(1)), PushResult::kFull);
  EXPECT_EQ(Push(std::string(40, 'd'), Latest(1)), PushResult::kReplaced);
  EXPECT_THAT(Pending(), ElementsAre(std::string(60, 'a'), std::string(40, 'd')));
}

TEST_F(WriteQueueTest, DroppingUnstartedFramesKeepsTheRestOfTheOneOnTheWire) {
  Push("started");
  for (int i = 0; i < 20; ++i) Push("x");
  queue_.Consume(2);
  queue_.DropUnstarted();
  EXPECT_THAT(Pending(), ElementsAre("arted"));
  EXPECT_EQ(queue_.bytes(), 5u);
  Push("close");
  EXPECT_EQ(queue_.Consume(10), 2u);
  EXPECT_TRUE(queue_.empty());

  Push("whole");
  queue_.Consume(0);
  queue_.DropUnstarted();
  EXPECT_TRUE(queue_.empty());
}

// A plain model of the rules, with the search that the queue does by table in long backlogs.
class Model {
 public:
  PushResult Push(const std::string& bytes, SendPolicy policy, size_t bytes_max) {
    if (policy.send_class == SendClass::kLatest && backlogged_) {
      for (size_t i = frames_.size(); i-- > 0;) {
        if (frames_[i].key != policy.key) continue;
        if (i == 0 && written_ > 0) break;
        if (bytes.size() > frames_[i].bytes.size() &&
            this->bytes() - frames_[i].bytes.size() + bytes.size() > bytes_max) {
          return PushResult::kFull;
        }
        frames_[i].bytes = bytes;
        return PushResult::kReplaced;
      }
    }
    if (!frames_.empty()) {
      if (policy.send_class == SendClass::kVolatile && this->bytes() > bytes_max / 2) return PushResult::kDropped;
      if (this->bytes() + bytes.size() > bytes_max) return PushResult::kFull;
    }
    frames_.push_back({bytes, policy.send_class == SendClass::kLatest ? std::optional(policy.key) : std::nullopt});
    return PushResult::kQueued;
  }
  void Consume(size_t bytes) {
    written_ += bytes;
    while (!frames_.empty() && written_ >= frames_.front().bytes.size()) {
      written_ -= frames_.front().bytes.size();
      frames_.pop_front();
    }
    backlogged_ = !frames_.empty();
  }
  size_t bytes() const { return Text().size(); }
  std::string Text() const {
    std::string text;
    for (const Frame& frame : frames_) text += frame.bytes;
    return text.substr(written_);
  }

 private:
  struct Frame {
    std::string bytes;
    std::optional<uint32_t> key;
  };
  std::deque<Frame> frames_;
  size_t written_ = 0;
  bool backlogged_ = false;
};

TEST(WriteQueueModelTest, BehavesLikeThePlainModelInShortAndLongBacklogs) {
  for (uint32_t seed = 1; seed <= 40; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    const auto below = [&random](uint32_t n) { return static_cast<uint32_t>(random() % n); };
    const size_t bytes_max = 50 + below(3000);
    const uint32_t keys = 1 + below(300);
    // Some readers keep up, some never do.
    const uint32_t consume_percent = below(30);
    WriteQueue queue;
    Model model;
    for (int step = 0; step < 1500; ++step) {
      if (below(100) < consume_percent) {
        const size_t bytes = below(4) == 0 ? model.bytes() : std::min<size_t>(model.bytes(), below(40));
        queue.Consume(bytes);
        model.Consume(bytes);
      } else {
        const std::string bytes(1 + below(12), static_cast<char>('a' + step % 26));
        const SendPolicy policy{static_cast<SendClass>(below(3)), below(keys)};
        ASSERT_EQ(queue.Push(FrameRef::Raw(bytes), policy, bytes_max), model.Push(bytes, policy, bytes_max));
      }
      ASSERT_EQ(queue.bytes(), model.bytes());
      if (step % 50 == 0) {
        std::string text;
        queue.Gather(100'000, [&](std::string_view frame) { text += frame; });
        ASSERT_EQ(text, model.Text());
      }
    }
  }
}

}  // namespace
}  // namespace presence::edge
