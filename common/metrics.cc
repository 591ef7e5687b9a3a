#include "common/metrics.h"

#include <dirent.h>
#include <prometheus/check_names.h>
#include <prometheus/collectable.h>
#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <ctime>
#include <limits>
#include <mutex>
#include <sstream>

#include "common/check.h"

namespace presence {

LatencyHistogram::LatencyHistogram(std::span<const double> bounds_seconds) : bounds_seconds_(bounds_seconds) {
  PRESENCE_CHECK(bounds_seconds.size() <= kBoundsMax, "a histogram has no more bounds than it has room for");
  for (size_t i = 0; i < bounds_seconds.size(); ++i) {
    PRESENCE_CHECK(i == 0 || bounds_seconds[i - 1] < bounds_seconds[i], "bounds ascend");
    bounds_ns_[i] = std::llround(bounds_seconds[i] * 1e9);
  }
}

void LatencyHistogram::Observe(Duration latency) {
  const int64_t ns = latency.count() < 0 ? 0 : latency.count();
  size_t bucket = 0;
  while (bucket < bounds_seconds_.size() && ns > bounds_ns_[bucket]) ++bucket;
  auto& count = counts_[bucket];
  count.store(count.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
  sum_ns_.store(sum_ns_.load(std::memory_order_relaxed) + static_cast<uint64_t>(ns), std::memory_order_relaxed);
}

LatencyHistogram::Snapshot LatencyHistogram::Read() const {
  Snapshot snapshot;
  snapshot.bounds_seconds = bounds_seconds_;
  for (size_t i = 0; i <= bounds_seconds_.size(); ++i) snapshot.counts[i] = counts_[i].load(std::memory_order_relaxed);
  snapshot.sum_ns = sum_ns_.load(std::memory_order_relaxed);
  return snapshot;
}

// What the page holds: families in the order of their registration, in each the series, in each what is added up.
class MetricsPage::Families : public prometheus::Collectable {
 public:
  struct Series {
    Labels labels;
    std::vector<std::function<double()>> values;
    std::vector<const LatencyHistogram*> histograms;
  };
  struct Family {
    std::string name;
    std::string help;
    prometheus::MetricType type;
    std::vector<Series> series;
  };

  void AddValue(const std::string& name, const std::string& help, prometheus::MetricType type, const Labels& labels,
                std::function<double()> read) {
    const std::lock_guard lock(mutex_);
    Find(name, help, type, labels).values.push_back(std::move(read));
  }

  void AddHistogram(const std::string& name, const std::string& help, const Labels& labels,
                    const LatencyHistogram* histogram) {
    const std::lock_guard lock(mutex_);
    Series& series = Find(name, help, prometheus::MetricType::Histogram, labels);
    if (!series.histograms.empty()) {
      const auto bounds = histogram->Read().bounds_seconds;
      const auto first = series.histograms.front()->Read().bounds_seconds;
      PRESENCE_CHECK(std::equal(bounds.begin(), bounds.end(), first.begin(), first.end()),
                     "histograms that are added up have the same bounds");
    }
    series.histograms.push_back(histogram);
  }

  std::vector<prometheus::MetricFamily> Collect() const override {
    const std::lock_guard lock(mutex_);
    std::vector<prometheus::MetricFamily> page;
    page.reserve(families_.size());
    for (const Family& family : families_) {
      prometheus::MetricFamily& out = page.emplace_back();
      out.name = family.name;
      out.help = family.help;
      out.type = family.type;
      for (const Series& series : family.series) out.metric.push_back(Sample(family.type, series));
    }
    return page;
  }

 private:
  Series& Find(const std::string& name, const std::string& help, prometheus::MetricType type, const Labels& labels) {
    PRESENCE_CHECK(prometheus::CheckMetricName(name), "a metric has a name that Prometheus takes");
    Family* family = nullptr;
    for (Family& candidate : families_) {
      if (candidate.name == name) family = &candidate;
    }
    if (family == nullptr) family = &families_.emplace_back(Family{name, help, type, {}});
    PRESENCE_CHECK(family->type == type, "one name has one type");
    for (Series& series : family->series) {
      if (series.labels == labels) return series;
    }
    for (const auto& label : labels) {
      PRESENCE_CHECK(prometheus::CheckLabelName(label.first), "a label has a name that Prometheus takes");
    }
    return family->series.emplace_back(Series{labels, {}, {}});
  }

  static prometheus::ClientMetric Sample(prometheus::MetricType type, const Series& series) {
    prometheus::ClientMetric out;
    for (const auto& [name, value] : series.labels) out.label.push_back({name, value});
    if (type == prometheus::MetricType::Histogram) {
      out.histogram = Sum(series.histograms);
      return out;
    }
    double sum = 0;
    for (const auto& read : series.values) sum += read();
    (type == prometheus::MetricType::Counter ? out.counter.value : out.gauge.value) = sum;
    return out;
  }

  static prometheus::ClientMetric::Histogram Sum(const std::vector<const LatencyHistogram*>& histograms) {
    std::span<const double> bounds;
    std::array<uint64_t, LatencyHistogram::kBoundsMax + 1> counts{};
    prometheus::ClientMetric::Histogram out;
    for (const LatencyHistogram* histogram : histograms) {
      const LatencyHistogram::Snapshot snapshot = histogram->Read();
      bounds = snapshot.bounds_seconds;
      for (size_t i = 0; i <= bounds.size(); ++i) counts[i] += snapshot.counts[i];
      out.sample_sum += static_cast<double>(snapshot.sum_ns) / 1e9;
    }
    // The total is taken from the buckets, so that the page agrees with itself while writers go on.
    for (size_t i = 0; i <= bounds.size(); ++i) {
      out.sample_count += counts[i];
      const double bound = i < bounds.size() ? bounds[i] : std::numeric_limits<double>::infinity();
      out.bucket.push_back({out.sample_count, bound});
    }
    return out;
  }

  mutable std::mutex mutex_;  // registration against scrapes; never taken by a writer of numbers
  std::vector<Family> families_;
};

namespace {

// Field `number` (from 1, as in proc(5)) of /proc/self/stat, for numbers behind the program's name; 0 when unreadable.
double StatField(int number) {
  std::FILE* file = std::fopen("/proc/self/stat", "re");
  if (file == nullptr) return 0;
  char line[1024];
  const size_t size = std::fread(line, 1, sizeof line - 1, file);
  std::fclose(file);
  // The name, field 2, is in parentheses and may hold blanks and parentheses itself.
  const std::string_view all(line, size);
  std::string rest(all.substr(std::min(all.rfind(')') + 1, size)));
  std::istringstream fields(rest);
  std::string field;
  for (int i = 3; i <= number; ++i) fields >> field;
  return std::strtod(field.c_str(), nullptr);
}

double ResidentBytes() {
  return StatField(24) * static_cast<double>(sysconf(_SC_PAGESIZE));
}

double CpuSeconds() {
  timespec spent{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &spent);
  return static_cast<double>(spent.tv_sec) + static_cast<double>(spent.tv_nsec) / 1e9;
}

double OpenFds() {
  // Since Linux 6.2 the folder's size is their number; counting 15,000 entries would hold up whoever scrapes for milliseconds.
  struct stat folder {};
  if (stat("/proc/self/fd", &folder) == 0 && folder.st_size > 0) return static_cast<double>(folder.st_size);
  DIR* directory = opendir("/proc/self/fd");
  if (directory == nullptr) return 0;
  int count = -3;  // ".", ".." and the descriptor of the folder itself
  while (readdir(directory) != nullptr) ++count;
  closedir(directory);
  return count;
}

double MaxFds() {
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  return static_cast<double>(limit.rlim_cur);
}

// The process's start on the wall clock, from its age: right when the clock was set since boot, too.
double StartTimeSeconds() {
  timespec up{};
  timespec wall{};
  clock_gettime(CLOCK_BOOTTIME, &up);
  clock_gettime(CLOCK_REALTIME, &wall);
  const double started_after_boot = StatField(22) / static_cast<double>(sysconf(_SC_CLK_TCK));
  return static_cast<double>(wall.tv_sec) + static_cast<double>(wall.tv_nsec) / 1e9 -
         (static_cast<double>(up.tv_sec) + static_cast<double>(up.tv_nsec) / 1e9 - started_after_boot);
}

}  // namespace

MetricsPage::MetricsPage() : families_(std::make_shared<Families>()) {}
MetricsPage::~MetricsPage() = default;

void MetricsPage::AddCounter(const std::string& name, const std::string& help, const Counter* counter,
                             const Labels& labels) {
  AddCounter(
      name, help, [counter] { return static_cast<double>(counter->Value()); }, labels);
}

void MetricsPage::AddCounter(const std::string& name, const std::string& help, std::function<double()> read,
                             const Labels& labels) {
  families_->AddValue(name, help, prometheus::MetricType::Counter, labels, std::move(read));
}

void MetricsPage::AddGauge(const std::string& name, const std::string& help, const Gauge* gauge, const Labels& labels) {
  AddGauge(
      name, help, [gauge] { return static_cast<double>(gauge->Value()); }, labels);
}

void MetricsPage::AddGauge(const std::string& name, const std::string& help, std::function<double()> read,
                           const Labels& labels) {
  families_->AddValue(name, help, prometheus::MetricType::Gauge, labels, std::move(read));
}

void MetricsPage::AddHistogram(const std::string& name, const std::string& help, const LatencyHistogram* histogram,
                               const Labels& labels) {
  families_->AddHistogram(name, help, labels, histogram);
}

void MetricsPage::AddProcessMetrics() {
  AddGauge("process_resident_memory_bytes", "Resident memory size in bytes.", ResidentBytes);
  AddCounter("process_cpu_seconds_total", "Total user and system CPU time spent in seconds.", CpuSeconds);
  AddGauge("process_open_fds", "Number of open file descriptors.", OpenFds);
  AddGauge("process_max_fds", "Maximum number of open file descriptors.", MaxFds);
  AddGauge("process_threads", "Number of threads.", [] { return StatField(20); });
  AddGauge("process_start_time_seconds", "Start time of the process since the Unix epoch in seconds.",
           [start = StartTimeSeconds()] { return start; });
}

std::string MetricsPage::Text() const {
  return prometheus::TextSerializer().Serialize(families_->Collect());
}

std::shared_ptr<prometheus::Collectable> MetricsPage::AsCollectable() const {
  return families_;
}

}  // namespace presence
