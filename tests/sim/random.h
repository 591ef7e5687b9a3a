// Random numbers from one seed, the same on every machine: SplitMix64 (Steele, Lea and Flood, 2014). The standard library's
// distributions are not specified to the bit, so these are ours.
#pragma once

#include <cstdint>
#include <vector>

#include "tests/sim/scheduler.h"

namespace presence::sim {

class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  uint64_t Next() {
    uint64_t z = (state_ += 0x9E3779B97F4A7C15u);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
  }
  // REQUIRES: bound > 0. The bias of the remainder is below 2^-40 for the bounds that occur here.
  size_t Below(size_t bound) { return static_cast<size_t>(Next() % bound); }
  bool OneIn(size_t n) { return Below(n) == 0; }
  SimTime Between(SimTime low, SimTime high) {
    return low + SimTime(static_cast<int64_t>(Below(static_cast<size_t>((high - low).count()) + 1)));
  }
  template <typename T>
  T& PickFrom(std::vector<T>& items) {
    return items[Below(items.size())];
  }

 private:
  uint64_t state_;
};

}  // namespace presence::sim
