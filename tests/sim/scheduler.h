// Virtual time: what is to happen, in order. Events of the same moment happen in the order in which they were planned.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "common/time.h"

namespace presence::sim {

using SimTime = std::chrono::microseconds;  // since the start of the simulation

// Something that runs on one machine. Dead, it hears nothing any more; stalled, it hears everything later.
struct Process {
  bool alive = true;
  SimTime stalled_until{0};
};

class Scheduler {
 public:
  SimTime now() const { return now_; }
  Now Clocks() const { return {SteadyTime() + std::chrono::hours(1) + now_, FromUnixMillis(1'736'856'000'000) + now_}; }

  void At(SimTime when, std::function<void()> run) {
    events_.push_back({std::max(when, now_), ++last_number_, std::move(run)});
    std::push_heap(events_.begin(), events_.end(), IsLater);
  }
  void After(SimTime delay, std::function<void()> run) { At(now_ + delay, std::move(run)); }
  void AtProcess(SimTime when, const std::shared_ptr<Process>& process, std::function<void()> run) {
    At(when, [this, process, run = std::move(run)]() mutable {
      if (!process->alive) return;
      if (process->stalled_until > now_) return AtProcess(process->stalled_until, process, std::move(run));
      run();
    });
  }

  void RunUntil(SimTime end) {
    while (!events_.empty() && events_.front().when <= end) {
      std::pop_heap(events_.begin(), events_.end(), IsLater);
      const Event event = std::move(events_.back());
      events_.pop_back();
      now_ = event.when;
      event.run();
    }
    now_ = end;
  }

 private:
  struct Event {
    SimTime when;
    uint64_t number;
    std::function<void()> run;
  };
  static bool IsLater(const Event& a, const Event& b) {
    return a.when != b.when ? a.when > b.when : a.number > b.number;
  }

  std::vector<Event> events_;
  SimTime now_{0};
  uint64_t last_number_ = 0;
};

}  // namespace presence::sim
