// What the loop thread counts for /metrics, beside the hub's own counters.
//
// Written by the loop thread alone, read by any. The hub's numbers are copied here with each tick, so that a scrape never
// waits for the loop, nor the loop for a scrape.
#pragma once

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "common/metrics.h"
#include "core/hub.h"

namespace presence::core {

// 10 us to 1 s.
inline constexpr std::array<double, 16> kTurnBoundsSeconds = {
    0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1};

class CoreMetrics {
 public:
  struct HubNumbers {
    HubCounters counters;
    HubSizes sizes;
  };

  Gauge store_up;     // 0 or 1
  Counter store_ups;  // how often it came up
  Gauge links_open;
  Counter links_opened, links_dropped_over_bound, links_refused;
  Counter link_bytes_received, link_frames_received;
  Counter link_bytes_sent, link_frames_sent;
  Gauge link_backlog_bytes;     // gathered and not yet written, over all links, at the last tick
  Gauge broadcasts_unanswered;  // messages of the API, to rooms and users, not yet answered
  Gauge watchers;               // WatchPresence streams
  LatencyHistogram turn{kTurnBoundsSeconds};

  void CopyHub(const Hub& hub) ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    hub_ = {hub.counters(), hub.sizes()};
  }
  HubNumbers hub() const ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    return hub_;
  }

 private:
  mutable absl::Mutex mutex_;
  HubNumbers hub_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace presence::core
