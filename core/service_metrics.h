// What a gRPC service counts for /metrics, by method. Pure numbers; see each for who writes it. Any thread may read.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <string>
#include <utility>

#include "common/metrics.h"

namespace presence::core {

struct MethodMetrics {
  // By the loop thread: calls that were admitted.
  LatencyHistogram latency;
  Counter answered, failed, given_up;
  // By any thread: calls that were not allowed, invalid or over the budget.
  std::atomic<uint64_t> refused{0};
};

struct StreamMetrics {
  // By the loop thread.
  Counter opened;      // they began; those that were refused not included
  Counter ended_slow;  // of those: the client let too much wait
  Counter responses;   // handed to gRPC
  // By any thread: streams that were not allowed, invalid or over a bound.
  std::atomic<uint64_t> refused{0};
};

// The methods of one service, for the metrics page: a member `MethodMetrics& ping_ = metrics_.Add("Ping")` is all that a method needs.
class ServiceMetrics {
 public:
  template <typename Metrics>
  struct Named {
    std::string name;
    Metrics metrics;
  };
  using Method = Named<MethodMetrics>;
  using Stream = Named<StreamMetrics>;

  // Before the service is used.
  MethodMetrics& Add(std::string name) { return AddTo(methods_, std::move(name)); }
  StreamMetrics& AddStream(std::string name) { return AddTo(streams_, std::move(name)); }
  const std::deque<Method>& methods() const { return methods_; }
  const std::deque<Stream>& streams() const { return streams_; }

 private:
  template <typename Metrics>
  static Metrics& AddTo(std::deque<Named<Metrics>>& all, std::string name) {
    Named<Metrics>& added = all.emplace_back();
    added.name = std::move(name);
    return added.metrics;
  }

  // They stay where they are.
  std::deque<Method> methods_;
  std::deque<Stream> streams_;
};

}  // namespace presence::core
