#include "common/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <prometheus/collectable.h>
#include <prometheus/metric_family.h>

#include <thread>

namespace presence {
namespace {

using namespace std::chrono_literals;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

TEST(MetricsPageTest, CountersOfSeveralShardsAreOneSeries) {
  Counter first, second;
  MetricsPage page;
  page.AddCounter("ws_connections_total", "Connections that were opened.", &first);
  page.AddCounter("ws_connections_total", "Connections that were opened.", &second);
  first.Add(3);
  second.Add();
  EXPECT_EQ(page.Text(),
            "# HELP ws_connections_total Connections that were opened.\n"
            "# TYPE ws_connections_total counter\n"
            "ws_connections_total 4\n");
}

TEST(MetricsPageTest, NamesAreTakenAsTheyAre) {
  Counter sent;
  MetricsPage page;
  page.AddCounter("ws_messages_sent", "The specification's name, without _total.", &sent);
  EXPECT_THAT(page.Text(), AllOf(HasSubstr("\nws_messages_sent 0\n"), Not(HasSubstr("ws_messages_sent_total"))));
}

TEST(MetricsPageTest, ASeriesPerSetOfLabels) {
  Counter full, slow;
  MetricsPage page;
  page.AddCounter("drops_total", "Drops.", &full, {{"reason", "full"}});
  page.AddCounter("drops_total", "Drops.", &slow, {{"reason", "a \"slow\" one"}});
  full.Add(2);
  EXPECT_THAT(page.Text(), AllOf(HasSubstr("drops_total{reason=\"full\"} 2\n"),
                                 HasSubstr("drops_total{reason=\"a \\\"slow\\\" one\"} 0\n")));
}

TEST(MetricsPageTest, GaugesGoUpAndDownAndMayBeFunctions) {
  Gauge active;
  MetricsPage page;
  page.AddGauge("ws_connections_active", "Open now.", &active);
  page.AddGauge("rooms", "Rooms.", [] { return 2.5; });
  active.Add(5);
  active.Subtract(2);
  EXPECT_THAT(page.Text(), AllOf(HasSubstr("# TYPE ws_connections_active gauge\nws_connections_active 3\n"),
                                 HasSubstr("\nrooms 2.5\n")));
}

TEST(MetricsPageTest, HistogramsAreCumulativeAndAddedUp) {
  static constexpr std::array<double, 2> kBounds = {0.001, 0.1};
  LatencyHistogram first(kBounds), second(kBounds);
  MetricsPage page;
  page.AddHistogram("delivery_seconds", "From publication to the socket.", &first);
  page.AddHistogram("delivery_seconds", "From publication to the socket.", &second);
  first.Observe(1ms);  // on the bound: inside
  first.Observe(50ms);
  second.Observe(2s);    // above all bounds
  second.Observe(-5ms);  // a clock that stepped back counts as nothing
  EXPECT_EQ(page.Text(),
            "# HELP delivery_seconds From publication to the socket.\n"
            "# TYPE delivery_seconds histogram\n"
            "delivery_seconds_count 4\n"
            "delivery_seconds_sum 2.051\n"
            "delivery_seconds_bucket{le=\"0.001\"} 2\n"
            "delivery_seconds_bucket{le=\"0.1\"} 3\n"
            "delivery_seconds_bucket{le=\"+Inf\"} 4\n");
}

TEST(MetricsPageTest, TheProcessDescribesItself) {
  MetricsPage page;
  page.AddProcessMetrics();
  const auto families = page.AsCollectable()->Collect();
  const auto value = [&](const std::string& name) {
    for (const auto& family : families) {
      if (family.name == name) return std::max(family.metric[0].gauge.value, family.metric[0].counter.value);
    }
    return -1.0;
  };
  EXPECT_GT(value("process_resident_memory_bytes"), 1 << 20);
  EXPECT_LT(value("process_resident_memory_bytes"), 1e12);
  EXPECT_GT(value("process_cpu_seconds_total"), 0);
  EXPECT_GE(value("process_open_fds"), 3);
  EXPECT_GE(value("process_max_fds"), value("process_open_fds"));
  EXPECT_GE(value("process_threads"), 1);
  // Started before now, and not at the epoch: a day is more than any test takes.
  const double now = static_cast<double>(ToUnixMillis(ReadClocks().wall)) / 1e3;
  EXPECT_LE(value("process_start_time_seconds"), now + 1);
  EXPECT_GT(value("process_start_time_seconds"), now - 86400);
}

TEST(MetricsPageTest, AnyThreadMayScrapeWhileTheOwnerCounts) {
  Counter counter;
  LatencyHistogram histogram;
  MetricsPage page;
  page.AddCounter("events_total", "Events.", &counter);
  page.AddHistogram("event_seconds", "Time.", &histogram);
  std::thread owner([&] {
    for (int i = 0; i < 100000; ++i) {
      counter.Add();
      histogram.Observe(1us);
    }
  });
  uint64_t last = 0;
  for (int i = 0; i < 50; ++i) {
    const auto families = page.AsCollectable()->Collect();
    const auto value = static_cast<uint64_t>(families[0].metric[0].counter.value);
    EXPECT_GE(value, last);
    last = value;
    const auto& buckets = families[1].metric[0].histogram;
    EXPECT_EQ(buckets.bucket.back().cumulative_count, buckets.sample_count);
  }
  owner.join();
  EXPECT_EQ(counter.Value(), 100000u);
}

TEST(MetricsPageDeathTest, ANameWithTwoTypesOrABadNameIsABrokenInvariant) {
  MetricsPage page;
  Counter counter;
  Gauge gauge;
  page.AddCounter("x_total", "X.", &counter);
  EXPECT_DEATH(page.AddGauge("x_total", "X.", &gauge), "one type");
  EXPECT_DEATH(page.AddGauge("9 lives", "X.", &gauge), "Prometheus takes");
}

}  // namespace
}  // namespace presence
