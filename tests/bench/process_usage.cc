#include "tests/bench/process_usage.h"

#include <ctime>
#include <fstream>
#include <sstream>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace presence::bench {

absl::StatusOr<ProcessUsage> UsageOf(pid_t pid) {
  // The kernel's clock of that process: finer than the ticks in /proc/PID/stat, and with the threads that have ended.
  clockid_t clock{};
  timespec used{};
  if (clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &used) != 0) {
    return absl::NotFoundError(absl::StrCat("no process ", pid));
  }
  ProcessUsage usage;
  usage.cpu_seconds = static_cast<double>(used.tv_sec) + static_cast<double>(used.tv_nsec) / 1e9;
  std::ifstream status_file(absl::StrCat("/proc/", pid, "/status"));
  for (std::string line; std::getline(status_file, line);) {
    std::istringstream words(line);
    std::string name;
    int64_t kib = 0;
    words >> name >> kib;
    if (name == "VmRSS:") usage.resident_bytes = kib * 1024;
    if (name == "RssAnon:") usage.anonymous_bytes = kib * 1024;
  }
  return usage;
}

absl::StatusOr<std::vector<ProcessUsage>> UsageOf(const std::vector<ProcessName>& processes) {
  std::vector<ProcessUsage> usages;
  for (const ProcessName& process : processes) {
    auto usage = UsageOf(process.pid);
    if (!usage.ok()) return usage.status();
    usages.push_back(*usage);
  }
  return usages;
}

}  // namespace presence::bench
