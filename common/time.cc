#include "common/time.h"

#include <algorithm>
#include <cstdio>
#include <ctime>

namespace presence {

Now ReadClocks() {
  return Now{std::chrono::steady_clock::now(), std::chrono::system_clock::now()};
}

int64_t ToUnixMillis(WallTime time) {
  return std::chrono::floor<std::chrono::milliseconds>(time.time_since_epoch()).count();
}

WallTime FromUnixMillis(int64_t millis) {
  // Numbers come from Redis and from other processes, too; the clock counts nanoseconds.
  constexpr int64_t kMillisMax =
      std::chrono::duration_cast<std::chrono::milliseconds>(WallTime::duration::max()).count();
  return WallTime(std::chrono::milliseconds(std::clamp(millis, -kMillisMax, kMillisMax)));
}

std::string FormatTimestamp(WallTime time) {
  const auto seconds =
      static_cast<std::time_t>(std::chrono::floor<std::chrono::seconds>(time.time_since_epoch()).count());
  std::tm utc{};
  gmtime_r(&seconds, &utc);
  char text[32];
  const size_t size = std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc);
  return std::string(text, size);
}

}  // namespace presence
