#include "core/link_mailbox.h"

#include <gtest/gtest.h>

#include <utility>

namespace presence::core {
namespace {

LinkMailbox::Frame FrameOf(LinkMailbox& mailbox, uint64_t sequence, size_t bytes = 100) {
  LinkMailbox::Frame frame{.message = mailbox.Blank(), .bytes = bytes};
  frame.message->Clear();
  frame.message->add_events()->set_sequence(sequence);
  return frame;
}

TEST(LinkMailbox, WakesTheLoopOnceUntilItHasLooked) {
  LinkMailbox mailbox;
  EXPECT_TRUE(mailbox.AddFrame(FrameOf(mailbox, 1)).wake);
  EXPECT_FALSE(mailbox.AddFrame(FrameOf(mailbox, 2)).wake);
  EXPECT_FALSE(mailbox.AddWriteDone(true));

  LinkMailbox::Contents contents;
  mailbox.Take(contents);
  ASSERT_EQ(contents.frames.size(), 2u);
  EXPECT_EQ(contents.frames[0].message->events(0).sequence(), 1u);
  EXPECT_EQ(contents.frames[1].message->events(0).sequence(), 2u);
  EXPECT_EQ(contents.write_done, true);
  EXPECT_EQ(contents.ended, std::nullopt);

  EXPECT_TRUE(mailbox.AddFrame(FrameOf(mailbox, 3)).wake) << "the loop has looked and must be told again";
}

TEST(LinkMailbox, TellsEachThingOnce) {
  LinkMailbox mailbox;
  mailbox.AddFrame(FrameOf(mailbox, 1));
  mailbox.AddWriteDone(false);
  LinkMailbox::Contents contents;
  mailbox.Take(contents);
  EXPECT_EQ(contents.write_done, false);
  mailbox.Take(contents);
  EXPECT_TRUE(contents.frames.empty());
  EXPECT_EQ(contents.write_done, std::nullopt);
}

TEST(LinkMailbox, PausesReadingWhenTooMuchWaits) {
  LinkMailbox mailbox;
  LinkMailbox::Contents contents;
  EXPECT_TRUE(mailbox.AddFrame(FrameOf(mailbox, 1, LinkMailbox::kWaitingBytesMax - 1)).keep_reading);
  EXPECT_FALSE(mailbox.AddFrame(FrameOf(mailbox, 2, 1)).keep_reading);
  mailbox.Take(contents);
  EXPECT_TRUE(contents.reading_paused);
  EXPECT_TRUE(mailbox.AddFrame(FrameOf(mailbox, 3, 1)).keep_reading);
  mailbox.Take(contents);
  EXPECT_FALSE(contents.reading_paused);
}

TEST(LinkMailbox, KeepsTheFirstReasonOfTheEnd) {
  LinkMailbox mailbox;
  EXPECT_TRUE(mailbox.AddEnd(absl::InvalidArgumentError("first")));
  EXPECT_FALSE(mailbox.AddEnd(absl::CancelledError("second")));
  LinkMailbox::Contents contents;
  mailbox.Take(contents);
  EXPECT_EQ(contents.ended, absl::InvalidArgumentError("first"));
  EXPECT_FALSE(mailbox.AddEnd(absl::CancelledError("third")));
  mailbox.Take(contents);
  EXPECT_EQ(contents.ended, std::nullopt);
}

TEST(LinkMailbox, UsesMessagesAgain) {
  LinkMailbox mailbox;
  LinkMailbox::Contents contents;
  auto frame = FrameOf(mailbox, 1);
  const auto* const message = frame.message.get();
  mailbox.AddFrame(std::move(frame));
  mailbox.Take(contents);
  mailbox.Take(contents);  // gives back what the first brought
  EXPECT_EQ(mailbox.Blank().get(), message);
}

}  // namespace
}  // namespace presence::core
