// The two scenarios of api_bench: what the public API costs, beside a bare gRPC server in the same run.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "tests/bench/service_stack.h"

namespace presence::bench {

struct ApiBenchOptions {
  std::string programs;  // the folder with presence-core and presence-edge
  uint32_t rounds = 5;

  // calls
  std::string in_flight = "1,16,256";
  double seconds = 1;  // of each kind of call in a round
  uint32_t channels = 1;
  uint32_t payload_bytes = 200;  // of data_json
  uint32_t subscribers = 10;

  // watchers
  uint32_t watchers = 1'000;
  uint32_t users = 1'000;
  uint32_t changes_per_second = 20;
  uint32_t changes = 100;  // in a round
};

// Both print a table. An error: a call failed, or not everything arrived.
absl::Status MeasureCalls(const ApiBenchOptions& options, ServiceStack& stack);
absl::Status MeasureWatchers(const ApiBenchOptions& options, ServiceStack& stack);

}  // namespace presence::bench
