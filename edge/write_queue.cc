#include "edge/write_queue.h"

#include <cstdlib>
#include <new>

#include "common/check.h"

namespace presence::edge {
namespace {

constexpr uint32_t kFirstCapacity = 8;
// Up to this many frames are searched one by one; that is faster than a table.
constexpr uint32_t kSearchedFramesMax = 32;
// Entries for each slot of the ring: at most half are used when the table is built anew, so that happens once in
// `capacity` insertions or more.
constexpr uint32_t kIndexFactor = 4;

uint32_t Hash(uint32_t key) {
  const uint32_t mixed = key * 0x9E3779B1u;  // 2^32 / golden ratio: keys are small and dense
  return mixed ^ (mixed >> 16);
}

}  // namespace

static_assert(sizeof(WriteQueue) <= 16);

WriteQueue::Ring* WriteQueue::NewRing(uint32_t capacity) {
  static_assert(alignof(Slot) <= alignof(Ring) && sizeof(Ring) % alignof(Slot) == 0);
  void* memory = std::malloc(sizeof(Ring) + capacity * sizeof(Slot));
  PRESENCE_CHECK(memory != nullptr, "memory for a write queue");
  Ring* ring = new (memory) Ring;
  ring->capacity = capacity;
  std::uninitialized_default_construct_n(ring->slots(), capacity);
  return ring;
}

void WriteQueue::FreeRing(Ring* ring) {
  std::destroy_n(ring->slots(), ring->capacity);
  ring->~Ring();
  std::free(ring);
}

void WriteQueue::Clear() {
  only_ = FrameRef();
  if (ring_ != nullptr) FreeRing(std::exchange(ring_, nullptr));
}

// The frames keep their numbers, so an index stays right; but it has to be larger, and is built anew when needed.
void WriteQueue::MoveToRing(uint32_t capacity) {
  Ring* ring = NewRing(capacity);
  if (Ring* old = std::exchange(ring_, ring); old != nullptr) {
    ring->bytes = old->bytes;
    ring->first = old->first;
    ring->count = old->count;
    ring->first_written = old->first_written;
    ring->backlogged = old->backlogged;
    for (uint32_t n = old->first; n != old->first + old->count; ++n) ring->At(n) = std::move(old->At(n));
    FreeRing(old);
  } else if (only_) {
    ring->bytes = only_.bytes().size();
    ring->count = 1;
    ring->At(0).frame = std::exchange(only_, FrameRef());
  }
}

WriteQueue::Ring& WriteQueue::GrownRing() {
  if (ring_ == nullptr) {
    MoveToRing(kFirstCapacity);
  } else if (ring_->count == ring_->capacity) {
    MoveToRing(ring_->capacity * 2);
  }
  return *ring_;
}

PushResult WriteQueue::PushBehind(const FrameRef& frame, SendPolicy policy, size_t bytes_max) {
  const size_t size = frame.bytes().size();
  const bool latest = policy.send_class == SendClass::kLatest;
  if (latest) {
    if (Slot* slot = FindReplaceable(policy.key); slot != nullptr) {
      const size_t old_size = slot->frame.bytes().size();
      if (size > old_size && ring_->bytes - old_size + size > bytes_max) return PushResult::kFull;
      ring_->bytes = ring_->bytes - old_size + size;
      slot->frame = frame;
      return PushResult::kReplaced;
    }
  }
  if (policy.send_class == SendClass::kVolatile && bytes() > bytes_max / 2) return PushResult::kDropped;
  if (!empty() && bytes() + size > bytes_max) return PushResult::kFull;
  Ring& ring = GrownRing();
  const uint32_t number = ring.first + ring.count;
  Slot& slot = ring.At(number);
  slot.frame = frame;
  slot.key = policy.key;
  slot.replaceable = latest;
  ++ring.count;
  ring.bytes += size;
  if (latest && ring.index != nullptr) AddToIndex(policy.key, number);
  return PushResult::kQueued;
}

size_t WriteQueue::Consume(size_t bytes) {
  if (ring_ == nullptr) {
    if (!only_) return 0;
    if (bytes == only_.bytes().size()) {
      only_ = FrameRef();
      return 1;
    }
    MoveToRing(kFirstCapacity);
  }
  PRESENCE_CHECK(bytes <= ring_->bytes, "a socket takes no more than was queued");
  ring_->bytes -= bytes;
  size_t complete = 0;
  while (ring_->count > 0) {
    Slot& slot = ring_->At(ring_->first);
    const size_t rest = slot.frame.bytes().size() - ring_->first_written;
    if (bytes < rest) break;
    bytes -= rest;
    slot.frame = FrameRef();
    ring_->first_written = 0;
    ++ring_->first;
    --ring_->count;
    ++complete;
  }
  if (ring_->count == 0) {
    FreeRing(std::exchange(ring_, nullptr));
    return complete;
  }
  ring_->first_written += static_cast<uint32_t>(bytes);
  ring_->backlogged = true;
  return complete;
}

void WriteQueue::DropUnstarted() {
  if (ring_ == nullptr || ring_->first_written == 0) {
    Clear();
    return;
  }
  while (ring_->count > 1) {
    Slot& slot = ring_->At(ring_->first + --ring_->count);
    ring_->bytes -= slot.frame.bytes().size();
    slot.frame = FrameRef();
  }
  MoveToRing(kFirstCapacity);
}

// The newest frame with that key: an older one may be queued from before the backlog, and must not come out after the
// replacement.
WriteQueue::Slot* WriteQueue::FindReplaceable(uint32_t key) {
  if (ring_ == nullptr || !ring_->backlogged) return nullptr;
  if (ring_->count > kSearchedFramesMax) {
    if (ring_->index == nullptr) BuildIndex();
    const uint32_t entry = IndexEntry(key);
    return entry != 0 && ring_->MayReplace(entry - 1) ? &ring_->At(entry - 1) : nullptr;
  }
  for (uint32_t i = ring_->count; i-- > 0;) {
    const uint32_t number = ring_->first + i;
    Slot& slot = ring_->At(number);
    if (slot.replaceable && slot.key == key) return ring_->MayReplace(number) ? &slot : nullptr;
  }
  return nullptr;
}

void WriteQueue::BuildIndex() {
  ring_->index = std::make_unique<uint32_t[]>(ring_->capacity * kIndexFactor);
  ring_->index_used = 0;
  for (uint32_t i = 0; i < ring_->count; ++i) {
    const uint32_t number = ring_->first + i;
    if (const Slot& slot = ring_->At(number); slot.replaceable) AddToIndex(slot.key, number);
  }
}

void WriteQueue::AddToIndex(uint32_t key, uint32_t number) {
  if (ring_->index_used > ring_->capacity * kIndexFactor / 2) {
    BuildIndex();  // with this frame, which is queued already
    return;
  }
  uint32_t& entry = IndexEntry(key);
  if (entry == 0) ++ring_->index_used;
  entry = number + 1;
}

// The entry of this key; 0 or the number of a frame that is gone when no queued frame has it.
uint32_t& WriteQueue::IndexEntry(uint32_t key) {
  const uint32_t mask = ring_->capacity * kIndexFactor - 1;
  uint32_t* gone = nullptr;
  for (uint32_t i = Hash(key) & mask;; i = (i + 1) & mask) {
    uint32_t& entry = ring_->index[i];
    if (entry == 0) return gone != nullptr ? *gone : entry;
    if (!ring_->Holds(entry - 1)) {
      if (gone == nullptr) gone = &entry;
    } else if (ring_->At(entry - 1).key == key) {
      return entry;
    }
  }
}

}  // namespace presence::edge
