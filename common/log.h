// The log: `2025-01-14 12:00:00 INFO text`, UTC, one line per event, on standard output.
//
//   log::Info("User {} ({}) connected with connection {}", Escaped(name), Escaped(id), connection);
//
// Any thread may write. After Start a line costs the writer its formatting and a short hand-over; a thread of
// the log does the output. When that falls behind, the oldest waiting lines are dropped, counted and
// reported: no writer ever waits for a disk, a pipe or a terminal. Before Start and after Stop lines are
// written at once by the caller.
//
// Text that came from outside goes through Escaped, request targets through RedactToken, and lines that one
// client can cause at will through a LineLimit. The log itself does none of that.
#pragma once

#include <fmt/core.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "common/time.h"

namespace presence {

// Bytes from anywhere made fit for one line: control characters, line breaks (U+0085, U+2028 and U+2029,
// too), bytes that are not UTF-8 and the backslash are escaped. No more than `bytes_max` bytes come out, then
// "…": what it shows is bounded, and no line can be forged or split.
std::string Escaped(std::string_view text, size_t bytes_max = 200);

// A request target or URL without its secrets: the value of each query parameter whose name ends in "token"
// (percent-decoded, in any case) and whatever looks like a JWT become "[redacted]". Escape the result for the
// log.
std::string RedactToken(std::string_view target);

namespace log {

enum class Level : uint8_t { kDebug, kInfo, kWarning, kError };

std::string_view LevelName(Level level);                 // "DEBUG", "INFO", "WARNING", "ERROR"
std::optional<Level> ParseLevel(std::string_view text);  // in any case; WARN is understood, too

struct Options {
  Level level = Level::kInfo;
  size_t queue_lines_max = 8192;  // x about 400 bytes: 3 MiB
  // Where finished lines go, line break included; empty: standard output. Called by the log's thread.
  std::function<void(std::string_view line)> sink;
};

// Starts the thread; Stop writes what waits and ends it. From main, in pairs.
void Start(const Options& options);
void Stop();

// At any time, by any thread; lines that are being written then may still go by the level before, which is returned.
Level SetLevel(Level level);

namespace internal {
extern std::atomic<Level> level;
}

// One relaxed load: ask before costly arguments are made.
inline bool Enabled(Level level) {
  return level >= internal::level.load(std::memory_order_relaxed);
}

// Writes `text` as it is, when the level is enabled. Line breaks in it become "\n" (the two characters).
void Write(Level level, std::string_view text);

template <typename... Args>
void Debug(fmt::format_string<Args...> format, Args&&... args) {
  if (Enabled(Level::kDebug)) Write(Level::kDebug, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void Info(fmt::format_string<Args...> format, Args&&... args) {
  if (Enabled(Level::kInfo)) Write(Level::kInfo, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void Warning(fmt::format_string<Args...> format, Args&&... args) {
  if (Enabled(Level::kWarning)) Write(Level::kWarning, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void Error(fmt::format_string<Args...> format, Args&&... args) {
  if (Enabled(Level::kError)) Write(Level::kError, fmt::format(format, std::forward<Args>(args)...));
}

// A budget for one class of lines, such as "connections" or "refused handshakes". Static, or as long-lived as
// the log.
//
//   static log::LineLimit limit("connections");
//   if (limit.Admit(log::Level::kInfo)) log::Info("User {} ...", ...);
//
// Any thread. Lock-free: a refused line costs a clock read, a load and an addition. Once a second the log's
// thread says how many lines of the class were left out.
class LineLimit {
 public:
  // `name` is constant text.
  explicit LineLimit(const char* name, uint32_t lines_per_second = 100, uint32_t burst_lines = 200);
  ~LineLimit();
  LineLimit(const LineLimit&) = delete;
  LineLimit& operator=(const LineLimit&) = delete;

  // False: the level is off, or the budget is spent.
  bool Admit(Level level) { return Enabled(level) && AdmitAt(std::chrono::steady_clock::now()); }
  bool AdmitAt(SteadyTime now);

  const char* name() const { return name_; }
  uint64_t Suppressed() const { return suppressed_.load(std::memory_order_relaxed); }
  // What was suppressed since the last call. For the log's thread.
  uint64_t TakeUnreported();

 private:
  const char* name_;
  const int64_t line_ns_;   // one line's share of a second
  const int64_t burst_ns_;  // how far spending may run ahead of time
  std::atomic<int64_t> paid_until_ns_{0};
  std::atomic<uint64_t> suppressed_{0};
  uint64_t reported_ = 0;
};

// For the metrics page.
uint64_t LinesDropped();     // the queue was full
uint64_t LinesSuppressed();  // over the budget of their class

}  // namespace log
}  // namespace presence
