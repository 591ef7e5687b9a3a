#include "core/link_mailbox.h"

#include <utility>

namespace presence::core {
namespace {

// Two are in use at any time when the loop keeps up; a few more for bursts. A message keeps the room of the largest frame
// that it ever held: at most 256 KiB of events.
constexpr size_t kBlankMax = 4;

}  // namespace

std::unique_ptr<link::v1::EdgeFrame> LinkMailbox::Blank() {
  {
    absl::MutexLock lock(&mutex_);
    if (!blank_.empty()) {
      auto message = std::move(blank_.back());
      blank_.pop_back();
      return message;
    }
  }
  return std::make_unique<link::v1::EdgeFrame>();
}

LinkMailbox::Accepted LinkMailbox::AddFrame(Frame frame) {
  absl::MutexLock lock(&mutex_);
  waiting_bytes_ += frame.bytes;
  waiting_.frames.push_back(std::move(frame));
  waiting_.reading_paused = waiting_bytes_ >= kWaitingBytesMax;
  return {.wake = WakeOnce(), .keep_reading = !waiting_.reading_paused};
}

bool LinkMailbox::AddWriteDone(bool ok) {
  absl::MutexLock lock(&mutex_);
  waiting_.write_done = ok;
  return WakeOnce();
}

bool LinkMailbox::AddEnd(absl::Status why) {
  absl::MutexLock lock(&mutex_);
  if (std::exchange(ended_, true)) return false;
  waiting_.ended = std::move(why);
  return WakeOnce();
}

void LinkMailbox::Take(Contents& contents) {
  absl::MutexLock lock(&mutex_);
  for (Frame& frame : contents.frames) {
    if (blank_.size() < kBlankMax) blank_.push_back(std::move(frame.message));
  }
  contents.frames.clear();
  std::swap(contents.frames, waiting_.frames);
  contents.write_done = std::exchange(waiting_.write_done, std::nullopt);
  contents.ended = std::exchange(waiting_.ended, std::nullopt);
  contents.reading_paused = std::exchange(waiting_.reading_paused, false);
  waiting_bytes_ = 0;
  looked_for_ = false;
}

bool LinkMailbox::WakeOnce() {
  return !std::exchange(looked_for_, true);
}

}  // namespace presence::core
