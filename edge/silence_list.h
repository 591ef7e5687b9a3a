// The connections of a shard, ordered by their last sign of life: who has been silent for longest stands in front. Each operation
// takes constant time and allocates nothing but the array that the highest slot needs.
//
// Lives on the shard's thread. REQUIRES: times never go back.
#pragma once

#include <cstdint>
#include <vector>

#include "common/time.h"

namespace presence::edge {

class SilenceList {
 public:
  static constexpr uint32_t kNone = UINT32_MAX;

  void Add(uint32_t slot, SteadyTime now) {
    if (slot >= links_.size()) links_.resize(slot + 1);
    Append(slot, now);
  }
  // REQUIRES: the slot is in the list.
  void Touch(uint32_t slot, SteadyTime now) {
    if (slot == back_) {
      links_[slot].last_frame = now;
      return;
    }
    Remove(slot);
    Append(slot, now);
  }
  void Remove(uint32_t slot) {
    const Link& link = links_[slot];
    (link.before == kNone ? front_ : links_[link.before].behind) = link.behind;
    (link.behind == kNone ? back_ : links_[link.behind].before) = link.before;
  }
  uint32_t front() const { return front_; }  // kNone: empty
  SteadyTime LastFrame(uint32_t slot) const { return links_[slot].last_frame; }

 private:
  struct Link {
    uint32_t before = kNone;
    uint32_t behind = kNone;
    SteadyTime last_frame;
  };

  void Append(uint32_t slot, SteadyTime now) {
    links_[slot] = {back_, kNone, now};
    (back_ == kNone ? front_ : links_[back_].behind) = slot;
    back_ = slot;
  }

  std::vector<Link> links_;
  uint32_t front_ = kNone;
  uint32_t back_ = kNone;
};

}  // namespace presence::edge
