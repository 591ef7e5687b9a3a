// What waits to be written to one connection: references to shared frames, counted in bytes.
//
// Pure; lives on its shard's thread. An empty queue is 16 bytes and nothing behind them: a single frame is held
// directly, more of them in a ring that exists from the second frame until the queue is drained.
//
// Invariants: bytes() is exactly what the socket has not taken, the rest of a partially written frame included; a frame
// of which a part was written stays first until it is gone; frames keep their order, and a replacement takes the place
// of what it replaces.
//
// Does not do: writing, and deciding what happens to a connection that is too slow.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>
#include <utility>

#include "edge/frame.h"

namespace presence::edge {

enum class PushResult : uint8_t {
  kQueued,
  kReplaced,  // took the place of a queued frame with the same key
  kDropped,   // kVolatile, and more than half of the bound is queued
  kFull,      // not queued: the bound would be passed
};

class WriteQueue {
 public:
  WriteQueue() = default;
  WriteQueue(const WriteQueue&) = delete;
  WriteQueue& operator=(const WriteQueue&) = delete;
  ~WriteQueue() { Clear(); }

  // An empty queue takes a frame of any size. Replacing happens only while the queue is backlogged (see Consume):
  // before that, looking for the key would cost more than the frame.
  PushResult Push(const FrameRef& frame, SendPolicy policy, size_t bytes_max) {
    if (ring_ == nullptr && !only_ && policy.send_class != SendClass::kLatest) {
      only_ = frame;
      return PushResult::kQueued;
    }
    return PushBehind(frame, policy, bytes_max);
  }

  // Calls visit(std::string_view) for what is to be written next, in order, at most `buffers_max` times. Returns the
  // bytes.
  template <typename Visit>
  size_t Gather(size_t buffers_max, Visit&& visit) const;

  // After each attempt to write: the socket took `bytes`, at most what was gathered; 0 when it refused. Returns how
  // many frames are complete by that. What is left makes the queue backlogged until it is drained.
  size_t Consume(size_t bytes);

  // Keeps only the rest of a partially written frame; the memory for others is freed.
  void DropUnstarted();
  void Clear();

  bool empty() const { return ring_ == nullptr && !only_; }
  size_t bytes() const { return ring_ != nullptr ? ring_->bytes : (only_ ? only_.bytes().size() : 0); }
  size_t frames() const { return ring_ != nullptr ? ring_->count : (only_ ? 1 : 0); }

 private:
  struct Slot {
    FrameRef frame;
    uint32_t key = 0;
    bool replaceable = false;
  };
  // Frames are numbered as they come; number n lives in slots[n modulo capacity]. Followed by its slots.
  struct Ring {
    size_t bytes = 0;
    uint32_t capacity = 0;  // a power of two
    uint32_t first = 0;     // number of the first frame
    uint32_t count = 0;
    uint32_t first_written = 0;  // bytes of the first frame that the socket has
    bool backlogged = false;
    uint32_t index_used = 0;
    // Key → number of the newest frame with it, open addressing; only in long backlogs. Number + 1, 0 is free; numbers
    // of frames that are gone are recognised and used again.
    std::unique_ptr<uint32_t[]> index;

    Slot* slots() { return reinterpret_cast<Slot*>(this + 1); }
    Slot& At(uint32_t number) { return slots()[number & (capacity - 1)]; }
    bool Holds(uint32_t number) const { return number - first < count; }
    // The first frame cannot be replaced once a part of it is out.
    bool MayReplace(uint32_t number) { return Holds(number) && (number != first || first_written == 0); }
  };

  static Ring* NewRing(uint32_t capacity);
  static void FreeRing(Ring* ring);

  PushResult PushBehind(const FrameRef& frame, SendPolicy policy, size_t bytes_max);
  Ring& GrownRing();
  void MoveToRing(uint32_t capacity);
  Slot* FindReplaceable(uint32_t key);
  void BuildIndex();
  void AddToIndex(uint32_t key, uint32_t number);
  uint32_t& IndexEntry(uint32_t key);

  FrameRef only_;         // the only frame, untouched by the socket, not kLatest; else empty
  Ring* ring_ = nullptr;  // else this
};

template <typename Visit>
size_t WriteQueue::Gather(size_t buffers_max, Visit&& visit) const {
  if (ring_ == nullptr) {
    if (!only_ || buffers_max == 0) return 0;
    visit(only_.bytes());
    return only_.bytes().size();
  }
  size_t bytes = 0;
  const auto buffers = static_cast<uint32_t>(std::min<size_t>(buffers_max, ring_->count));
  for (uint32_t i = 0; i < buffers; ++i) {
    std::string_view frame = ring_->At(ring_->first + i).frame.bytes();
    if (i == 0) frame.remove_prefix(ring_->first_written);
    visit(frame);
    bytes += frame.size();
  }
  return bytes;
}

}  // namespace presence::edge
