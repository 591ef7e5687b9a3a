// What happened to one Attach stream since the loop last looked: frames that arrived, a write that is done, the end.
//
// gRPC's threads fill it, the loop empties it. Only the first item since the last Take asks for the loop to be woken, so a
// burst of frames costs one post to the loop (an allocation, the loop's lock, perhaps a system call), not one each; and
// frames are handed over by swapping message objects, which are used again.
//
// Bounded: when kWaitingBytesMax of frames wait, reading pauses until the loop has taken them, and gRPC's flow control holds
// the edge back. The most that can wait is that and one frame more.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "presence/link/v1/link.pb.h"

namespace presence::core {

class LinkMailbox {
 public:
  static constexpr size_t kWaitingBytesMax = 1024 * 1024;  // four full frames

  struct Frame {
    std::unique_ptr<link::v1::EdgeFrame> message;
    size_t bytes = 0;  // as it came over the wire
  };

  struct Contents {
    std::vector<Frame> frames;          // in the order of arrival; all came before the end
    std::optional<bool> write_done;     // whether it succeeded
    std::optional<absl::Status> ended;  // nothing more will arrive; with what to finish
    bool reading_paused = false;        // the taker starts it again
  };

  struct Accepted {
    bool wake = false;          // the loop must be told to look
    bool keep_reading = false;  // else the loop will say when
  };

  LinkMailbox() = default;
  LinkMailbox(const LinkMailbox&) = delete;
  LinkMailbox& operator=(const LinkMailbox&) = delete;

  // --- for gRPC's threads. The results of type bool: the loop must be told to look.

  // A message to parse into; with remains of an earlier one, which parsing replaces.
  std::unique_ptr<link::v1::EdgeFrame> Blank() ABSL_LOCKS_EXCLUDED(mutex_);
  Accepted AddFrame(Frame frame) ABSL_LOCKS_EXCLUDED(mutex_);
  bool AddWriteDone(bool ok) ABSL_LOCKS_EXCLUDED(mutex_);
  // The first reason stays.
  bool AddEnd(absl::Status why) ABSL_LOCKS_EXCLUDED(mutex_);

  // --- for the loop.

  // Moves everything into `contents`, whose former frames are used again.
  void Take(Contents& contents) ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  bool WakeOnce() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  absl::Mutex mutex_;
  bool looked_for_ ABSL_GUARDED_BY(mutex_) = false;  // the loop has been woken and has not looked yet
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  size_t waiting_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  Contents waiting_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::unique_ptr<link::v1::EdgeFrame>> blank_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace presence::core
