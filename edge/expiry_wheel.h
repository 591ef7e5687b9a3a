// Which slot's second has come, by a clock that may be set. A wheel of 4,096 buckets, one for each second; what is due later than in 68
// minutes lies in its bucket until the wheel has turned often enough. Adding and removing take constant time; a look takes one step for
// each second since the last one, and for what lies in those buckets.
//
// A clock that is set forward makes due what lies behind it (one turn of the wheel at most); one that is set back makes nothing due, and
// delays nothing beyond its own second by more than the step.
//
// Lives on the shard's thread. Allocates nothing but the array that the highest slot needs, and the wheel with its first slot.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace presence::edge {

class ExpiryWheel {
 public:
  // Takes it out of its present place.
  void Add(uint32_t slot, int64_t due_second) {
    if (buckets_.empty()) buckets_.assign(kBuckets, kNone);
    if (slot >= entries_.size()) entries_.resize(slot + 1);
    Remove(slot);
    // Behind the hand it would wait for a whole turn.
    const uint32_t bucket = BucketOf(std::max(due_second, looked_at_));
    entries_[slot] = {kNone, buckets_[bucket], bucket, due_second};
    if (buckets_[bucket] != kNone) entries_[buckets_[bucket]].before = slot;
    buckets_[bucket] = slot;
  }

  // One that is not in it: no effect.
  void Remove(uint32_t slot) {
    if (slot >= entries_.size() || entries_[slot].bucket == kNone) return;
    Entry& entry = entries_[slot];
    (entry.before == kNone ? buckets_[entry.bucket] : entries_[entry.before].behind) = entry.behind;
    if (entry.behind != kNone) entries_[entry.behind].before = entry.before;
    entry = Entry();
  }

  // Takes out slots whose second is now or over, at most `count_max` of them, and appends them to `due`. The rest comes with the next call.
  void TakeDue(int64_t now_second, size_t count_max, std::vector<uint32_t>* due) {
    if (buckets_.empty()) {
      looked_at_ = now_second;
      return;
    }
    looked_at_ = std::min(looked_at_, now_second);
    looked_at_ = std::max(looked_at_, now_second - int64_t{kBuckets} + 1);
    for (;; ++looked_at_) {
      uint32_t slot = buckets_[BucketOf(looked_at_)];
      while (slot != kNone) {
        const uint32_t behind = entries_[slot].behind;
        if (entries_[slot].due_second <= now_second) {
          if (count_max-- == 0) return;
          Remove(slot);
          due->push_back(slot);
        }
        slot = behind;
      }
      if (looked_at_ == now_second) return;  // and is looked at again: the second is not over
    }
  }

 private:
  static constexpr uint32_t kNone = UINT32_MAX;
  static constexpr uint32_t kBuckets = 4096;

  struct Entry {
    uint32_t before = kNone;
    uint32_t behind = kNone;
    uint32_t bucket = kNone;  // kNone: not in the wheel
    int64_t due_second = 0;
  };

  static uint32_t BucketOf(int64_t second) { return static_cast<uint32_t>(static_cast<uint64_t>(second) % kBuckets); }

  std::vector<uint32_t> buckets_;  // the first slot of each
  std::vector<Entry> entries_;     // by slot
  int64_t looked_at_ = 0;          // the second whose bucket is looked at next
};

}  // namespace presence::edge
