#include "core/frame_gatherer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace presence::core {
namespace {

using link::v1::CoreCommand;
using link::v1::CoreFrame;

CoreCommand Delivery(uint32_t handle, size_t text_bytes) {
  CoreCommand command;
  command.mutable_deliver()->set_handle(handle);
  command.mutable_deliver()->set_text(std::string(text_bytes, 'x'));
  return command;
}

CoreFrame PopFrame(FrameGatherer& gatherer) {
  CoreFrame frame;
  EXPECT_TRUE(frame.ParseFromArray(gatherer.Front().data(), static_cast<int>(gatherer.Front().size())));
  gatherer.Pop();
  return frame;
}

TEST(FrameGatherer, WritesWhatProtobufWouldHaveWritten) {
  FrameGatherer gatherer(1000);
  CoreFrame expected;
  for (uint32_t i = 1; i <= 3; ++i) {
    *expected.add_commands() = Delivery(i, i * 50);
    gatherer.Append(expected.commands().rbegin()[0]);
  }
  expected.add_commands()->mutable_heartbeat();  // an empty message has a length, too
  gatherer.Append(expected.commands().rbegin()[0]);
  EXPECT_EQ(std::string(gatherer.Front()), expected.SerializeAsString());
  EXPECT_EQ(gatherer.bytes(), expected.ByteSizeLong());
}

TEST(FrameGatherer, BeginsAnotherFrameBeforeOneGrowsTooLarge) {
  FrameGatherer gatherer(1000);
  for (uint32_t i = 1; i <= 10; ++i) gatherer.Append(Delivery(i, 300));
  uint32_t next = 1;
  while (!gatherer.empty()) {
    EXPECT_LE(gatherer.Front().size(), 1000u);
    const CoreFrame frame = PopFrame(gatherer);
    for (const auto& command : frame.commands()) EXPECT_EQ(command.deliver().handle(), next++);
  }
  EXPECT_EQ(next, 11u) << "a command was lost";
  EXPECT_EQ(gatherer.bytes(), 0u);
}

TEST(FrameGatherer, SendsALargerCommandAlone) {
  FrameGatherer gatherer(1000);
  gatherer.Append(Delivery(1, 10));
  gatherer.Append(Delivery(2, 5000));
  gatherer.Append(Delivery(3, 10));
  for (uint32_t handle = 1; handle <= 3; ++handle) {
    const CoreFrame frame = PopFrame(gatherer);
    ASSERT_EQ(frame.commands_size(), 1);
    EXPECT_EQ(frame.commands(0).deliver().handle(), handle);
  }
  EXPECT_TRUE(gatherer.empty());
}

TEST(FrameGatherer, GathersOnAfterClear) {
  FrameGatherer gatherer(1000);
  for (uint32_t i = 0; i < 10; ++i) gatherer.Append(Delivery(i, 300));
  gatherer.Clear();
  EXPECT_TRUE(gatherer.empty());
  gatherer.Append(Delivery(42, 1));
  EXPECT_EQ(PopFrame(gatherer).commands(0).deliver().handle(), 42u);
}

TEST(ClearForReuse, LeavesNothingOfTheFormerCommand) {
  CoreCommand command;
  command.mutable_deliver()->set_handle(1);
  command.mutable_deliver()->set_text("former");
  command.mutable_deliver()->set_volatile_(true);
  const std::string* const text = &command.deliver().text();
  ClearForReuse(command);
  EXPECT_EQ(command.mutable_deliver()->ByteSizeLong(), 0u);
  EXPECT_EQ(&command.deliver().text(), text) << "the string and its room should have been kept";

  command.mutable_bind()->set_room_id("room");
  ClearForReuse(command);
  EXPECT_EQ(command.mutable_bind()->ByteSizeLong(), 0u);
  command.mutable_close_connection()->set_reason("former");
  ClearForReuse(command);
  EXPECT_EQ(command.mutable_close_connection()->ByteSizeLong(), 0u);
}

}  // namespace
}  // namespace presence::core
