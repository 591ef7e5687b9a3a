// A token bucket in one number: the moment until which what was taken is paid for. A rate pays one unit every 1 s / rate; who takes
// runs ahead of time, by the burst at most. A bucket that was left alone for long enough is full again by itself: nothing ticks.
//
// Pure integer arithmetic; the rates are shared and immutable, a bucket is 8 bytes and belongs to whoever is limited. Time is what the
// caller says. Does not do: judging what happens to who is over it.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>

#include "common/time.h"

namespace presence::edge {

class RateLimit {
 public:
  // 10^9 units of burst at one a second are 10^18 ns: in range, and a moment added to it as well.
  static constexpr uint64_t kBurstMax = 1'000'000'000;

  // What one who is limited has taken so far.
  struct Bucket {
    SteadyTime paid_until;
  };

  // `per_second` 0: no limit. A burst of less than one unit is one; more than kBurstMax seconds' worth is cut to that.
  RateLimit(uint64_t per_second, uint64_t burst)
      : per_second_(per_second), burst_(DurationOf(std::clamp<uint64_t>(burst, 1, kBurstMax))) {}

  bool off() const { return per_second_ == 0; }

  // False, and nothing is taken: so much is not there.
  bool Take(Bucket& bucket, SteadyTime now, uint64_t amount = 1) const {
    if (off()) return true;
    const SteadyTime paid_until = PaidUntil(bucket, now) + DurationOf(amount);
    if (paid_until - now > burst_) return false;
    bucket.paid_until = paid_until;
    return true;
  }
  // Takes it whether it is there or not: the bucket may owe afterwards, up to one burst.
  void Charge(Bucket& bucket, SteadyTime now, uint64_t amount = 1) const {
    if (off()) return;
    bucket.paid_until = std::min(PaidUntil(bucket, now) + DurationOf(amount), now + 2 * burst_);
  }

  // Since more was charged than was there.
  bool Owes(const Bucket& bucket, SteadyTime now) const { return !off() && bucket.paid_until - now > burst_; }
  // As much as it may owe: one burst.
  bool OwesAll(const Bucket& bucket, SteadyTime now) const { return !off() && bucket.paid_until - now >= 2 * burst_; }
  // As if nothing had ever been taken.
  bool IsFull(const Bucket& bucket, SteadyTime now) const { return off() || bucket.paid_until <= now; }
  // Until one unit can be taken; zero: now.
  Duration TimeToNext(const Bucket& bucket, SteadyTime now) const {
    if (off()) return Duration::zero();
    return std::max<Duration>(PaidUntil(bucket, now) + DurationOf(1) - burst_ - now, Duration::zero());
  }

 private:
  static SteadyTime PaidUntil(const Bucket& bucket, SteadyTime now) { return std::max(bucket.paid_until, now); }
  std::chrono::nanoseconds DurationOf(uint64_t amount) const {
    if (per_second_ == 0) return std::chrono::nanoseconds::zero();
    return std::chrono::nanoseconds(
        static_cast<int64_t>(std::min(amount, kBurstMax) * uint64_t{1'000'000'000} / per_second_));
  }

  const uint64_t per_second_;
  const std::chrono::nanoseconds burst_;
};

}  // namespace presence::edge
