// Time as an input. Nothing in the domain reads a clock: whoever feeds a machine says what time it is.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace presence {

using SteadyTime = std::chrono::steady_clock::time_point;  // for local deadlines; never jumps
using WallTime = std::chrono::system_clock::time_point;    // for what others see; may jump
using Duration = std::chrono::nanoseconds;

struct Now {
  SteadyTime steady;
  WallTime wall;
};

// Reads both clocks. For adapters only.
Now ReadClocks();

// Milliseconds since the Unix epoch.
int64_t ToUnixMillis(WallTime time);
WallTime FromUnixMillis(int64_t millis);  // beyond the clock's range (the years 1677 to 2262): its end

// "2025-01-14T12:00:00Z": UTC, ISO 8601, whole seconds, as the specification writes timestamps.
std::string FormatTimestamp(WallTime time);

}  // namespace presence
