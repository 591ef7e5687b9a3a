// Numbers for a Prometheus page: cheap to write on a shard's or the hub's thread, added up when somebody
// looks.
//
// Counter, Gauge and LatencyHistogram have ONE writing thread each (every shard owns its own); any thread may
// read. A write is a plain load and store, relaxed: no locked instruction, no shared cache line with other
// writers when the owner keeps them so.
//
// MetricsPage names them. Several objects under one name and labels are added up at scrape time: one series
// over all shards. Register at start, scrape from any thread. Names are complete as given (units last;
// counters end in "_total" unless the specification names them otherwise): nothing is appended.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "common/time.h"

namespace prometheus {
class Collectable;
}

namespace presence {

class Counter {
 public:
  void Add(uint64_t n = 1) { value_.store(value_.load(std::memory_order_relaxed) + n, std::memory_order_relaxed); }
  uint64_t Value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> value_{0};
};

class Gauge {
 public:
  void Set(uint64_t value) { value_.store(value, std::memory_order_relaxed); }
  void Add(uint64_t n = 1) { Set(Value() + n); }
  // Precondition: n <= Value().
  void Subtract(uint64_t n = 1) { Set(Value() - n); }
  uint64_t Value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> value_{0};
};

// Upper bounds in seconds, 100 us to 10 s in steps of 1, 2.5, 5.
inline constexpr std::array<double, 16> kLatencyBoundsSeconds = {
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10};

class LatencyHistogram {
 public:
  static constexpr size_t kBoundsMax = 24;

  // `bounds_seconds`: ascending, at most kBoundsMax, and it outlives the histogram (constants).
  explicit LatencyHistogram(std::span<const double> bounds_seconds = kLatencyBoundsSeconds);

  // Negative counts as zero.
  void Observe(Duration latency);

  struct Snapshot {
    std::span<const double> bounds_seconds;
    std::array<uint64_t, kBoundsMax + 1> counts{};  // per bucket, not cumulative; the last one used: above all bounds
    uint64_t sum_ns = 0;
  };
  Snapshot Read() const;

 private:
  std::span<const double> bounds_seconds_;
  std::array<int64_t, kBoundsMax> bounds_ns_{};
  std::array<std::atomic<uint64_t>, kBoundsMax + 1> counts_{};
  std::atomic<uint64_t> sum_ns_{0};
};

class MetricsPage {
 public:
  using Labels = std::vector<std::pair<std::string, std::string>>;

  MetricsPage();
  ~MetricsPage();
  MetricsPage(const MetricsPage&) = delete;
  MetricsPage& operator=(const MetricsPage&) = delete;

  // Objects must outlive the page; functions are called by whoever scrapes. The first registration of a name
  // gives its help and type; a name of a second type or a name that Prometheus refuses is a broken invariant.
  void AddCounter(const std::string& name, const std::string& help, const Counter* counter, const Labels& labels = {});
  void AddCounter(const std::string& name, const std::string& help, std::function<double()> read,
                  const Labels& labels = {});
  void AddGauge(const std::string& name, const std::string& help, const Gauge* gauge, const Labels& labels = {});
  void AddGauge(const std::string& name, const std::string& help, std::function<double()> read,
                const Labels& labels = {});
  // Histograms that are added up have the same bounds.
  void AddHistogram(const std::string& name, const std::string& help, const LatencyHistogram* histogram,
                    const Labels& labels = {});
  // process_resident_memory_bytes, process_cpu_seconds_total, process_open_fds, process_max_fds,
  // process_threads, process_start_time_seconds.
  void AddProcessMetrics();

  // The page in the text format, version 0.0.4; families in the order of their registration.
  std::string Text() const;
  static constexpr const char* kContentType = "text/plain; version=0.0.4; charset=utf-8";

  // For prometheus-cpp's Exposer, which keeps only a weak reference: the page owns it.
  std::shared_ptr<prometheus::Collectable> AsCollectable() const;

 private:
  class Families;
  std::shared_ptr<Families> families_;
};

}  // namespace presence
