// Gathers commands for one link into the bytes of CoreFrame messages.
//
// Each command is encoded as soon as it is complete, so what waits for a slow shard is bytes in a few large buffers, counted
// exactly, and not trees of messages. (Keeping CoreFrame messages and clearing them would not save the allocations: clearing
// a oneof frees what is in it.) Concatenated encodings of `commands` are the encoding of the frame, byte for byte what
// protobuf would write.
//
// Lives on the loop thread. Allocates per frame that has to wait, not per command.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <string_view>

#include "presence/link/v1/link.pb.h"

namespace presence::core {

class FrameGatherer {
 public:
  // A frame is at most `frame_bytes_max` long; one larger command goes alone.
  explicit FrameGatherer(size_t frame_bytes_max) : frame_bytes_max_(frame_bytes_max) {}

  // Appends a command that is complete.
  void Append(const link::v1::CoreCommand& command);

  bool empty() const { return bytes_ == 0; }
  // Everything gathered and not yet popped.
  size_t bytes() const { return bytes_; }

  // The oldest frame. REQUIRES: not empty(). Valid until Append or Pop.
  std::string_view Front() const;
  // REQUIRES: not empty().
  void Pop();
  // Forgets everything and gives its memory back.
  void Clear();

 private:
  struct Buffer {
    std::unique_ptr<uint8_t[]> data;
    size_t size = 0;
    size_t capacity = 0;

    // Room for `more` bytes at the end; the caller fills them in.
    uint8_t* Grow(size_t more);
  };

  size_t frame_bytes_max_;
  size_t bytes_ = 0;
  std::deque<Buffer> frames_;  // oldest first; the last one is still being filled
  Buffer spare_;               // an emptied buffer: in the steady state one frame gathers again and again
};

// Empties `command` but keeps which kind it is, so that filling in the same kind again reuses its strings. To whoever fills
// it in through mutable_...() it is a cleared command.
void ClearForReuse(link::v1::CoreCommand& command);

}  // namespace presence::core
