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

// Of one machine: the steady clock runs at a rate of its own, the other one is off, and may be set.
struct MachineClock {
  int64_t drift_ppm = 0;
  SimTime wall_offset{0};

  Now Read(SimTime now) const {
    return {SteadyTime() + std::chrono::hours(1) + now + now * drift_ppm / 1'000'000,
            FromUnixMillis(1'736'856'000'000) + now + wall_offset};
  }
};

// Something that runs on one machine. Dead, it hears nothing any more; stalled, it hears everything later.
struct Process {
  bool alive = true;
  SimTime stalled_until{0};
  MachineClock clock;
};

class Scheduler {
 public:
  SimTime now() const { return now_; }
  // Of a clock that is right.
  Now Clocks() const { return MachineClock().Read(now_); }

  void At(SimTime when, std::function<void()> run) { Plan(when, nullptr, std::move(run)); }
  void After(SimTime delay, std::function<void()> run) { At(now_ + delay, std::move(run)); }
  void AtProcess(SimTime when, std::shared_ptr<Process> process, std::function<void()> run) {
    Plan(when, std::move(process), std::move(run));
  }

  void RunUntil(SimTime end) {
    while (!planned_.empty() && planned_.front().when <= end) {
      std::pop_heap(planned_.begin(), planned_.end(), IsLater);
      const Planned next = planned_.back();
      planned_.pop_back();
      now_ = next.when;
      // Taken out: what it plans may come to the same place.
      Event event = std::move(events_[next.place]);
      free_.push_back(next.place);
      if (event.process == nullptr) {
        event.run();
      } else if (event.process->alive && event.process->stalled_until > now_) {
        const SimTime later = event.process->stalled_until;
        Plan(later, std::move(event.process), std::move(event.run));
      } else if (event.process->alive) {
        event.run();
      }
    }
    now_ = end;
  }

 private:
  struct Event {
    std::shared_ptr<Process> process;  // null: it is nobody's
    std::function<void()> run;
  };
  // The heap holds these, which are cheap to move.
  struct Planned {
    SimTime when;
    uint64_t number;
    uint32_t place;  // in events_
  };
  static bool IsLater(const Planned& a, const Planned& b) {
    return a.when != b.when ? a.when > b.when : a.number > b.number;
  }

  void Plan(SimTime when, std::shared_ptr<Process> process, std::function<void()> run) {
    uint32_t place = static_cast<uint32_t>(events_.size());
    if (free_.empty()) {
      events_.emplace_back();
    } else {
      place = free_.back();
      free_.pop_back();
    }
    events_[place] = {std::move(process), std::move(run)};
    planned_.push_back({std::max(when, now_), ++last_number_, place});
    std::push_heap(planned_.begin(), planned_.end(), IsLater);
  }

  std::vector<Event> events_;
  std::vector<uint32_t> free_;
  std::vector<Planned> planned_;
  SimTime now_{0};
  uint64_t last_number_ = 0;
};

}  // namespace presence::sim
