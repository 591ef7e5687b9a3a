// A table whose rows keep their address and are named by a small index; freed rows are used again, last freed first.
//
// One thread. Deterministic: the same calls give the same indexes. A row's generation counts its uses, so that a reference
// which may outlive the row is recognised as stale.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "common/check.h"
#include "common/ids.h"

namespace presence::core {

template <typename T, typename Tag>
class Slab {
 public:
  using Index = StrongId<Tag, uint32_t>;

  // A reference that may become stale: see Holds.
  struct Ref {
    Index index;
    uint32_t generation = 0;
  };

  // A row with a default value.
  Index Add() {
    ++size_;
    uint32_t index = first_free_;
    if (index != kNone) {
      first_free_ = row(index).next_free;
    } else {
      index = end_++;
      if (index / kChunk == chunks_.size()) chunks_.push_back(std::make_unique<Row[]>(kChunk));
    }
    row(index).next_free = kUsed;
    return Index(index);
  }

  void Free(Index index) {
    Row& freed = row(index.value());
    PRESENCE_CHECK(freed.next_free == kUsed, "only a used row is freed");
    std::destroy_at(&freed.value);
    std::construct_at(&freed.value);
    ++freed.generation;
    freed.next_free = first_free_;
    first_free_ = index.value();
    --size_;
  }

  T& operator[](Index index) { return row(index.value()).value; }
  const T& operator[](Index index) const { return row(index.value()).value; }

  // REQUIRES: used.
  Ref RefTo(Index index) const { return {index, row(index.value()).generation}; }
  bool Holds(Ref ref) const { return row(ref.index.value()).generation == ref.generation; }

  // Rows in use.
  size_t size() const { return size_; }
  // Indexes below this one have been used. To walk over the table, with used().
  uint32_t end() const { return end_; }
  bool used(Index index) const { return row(index.value()).next_free == kUsed; }

 private:
  // Rows of one allocation: large enough to make it rare, small enough to waste little.
  static constexpr uint32_t kChunk = 256;
  static constexpr uint32_t kNone = UINT32_MAX, kUsed = UINT32_MAX - 1;

  struct Row {
    T value{};
    uint32_t generation = 0;
    uint32_t next_free = kNone;
  };

  Row& row(uint32_t index) { return chunks_[index / kChunk][index % kChunk]; }
  const Row& row(uint32_t index) const { return chunks_[index / kChunk][index % kChunk]; }

  std::vector<std::unique_ptr<Row[]>> chunks_;
  uint32_t first_free_ = kNone;
  uint32_t end_ = 0;
  size_t size_ = 0;
};

}  // namespace presence::core
