// What a process has used, as the kernel counts it. Linux only.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace presence::bench {

struct ProcessName {
  std::string label;
  pid_t pid = 0;
};

struct ProcessUsage {
  double cpu_seconds = 0;       // user and system, of all threads
  int64_t resident_bytes = 0;   // RSS, shared pages of libraries included
  int64_t anonymous_bytes = 0;  // the part of it that is heap and stacks
};

// NOT_FOUND: no such process, or none that may be looked at.
absl::StatusOr<ProcessUsage> UsageOf(pid_t pid);

// All of them, in that order, or the first error.
absl::StatusOr<std::vector<ProcessUsage>> UsageOf(const std::vector<ProcessName>& processes);

}  // namespace presence::bench
