#include "tests/bench/process_usage.h"

#include <unistd.h>

#include <fstream>
#include <sstream>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace presence::bench {

absl::StatusOr<ProcessUsage> UsageOf(pid_t pid) {
  const std::string folder = "/proc/" + std::to_string(pid);
  std::ifstream stat_file(folder + "/stat");
  std::string stat;
  if (!std::getline(stat_file, stat)) return absl::NotFoundError(absl::StrCat("no process ", pid));
  // The second field is the program's name in parentheses, which may hold anything. utime and stime are fields 14 and
  // 15.
  std::istringstream fields(stat.substr(stat.rfind(')') + 1));
  std::string skipped;
  for (int field = 3; field < 14; ++field) fields >> skipped;
  double user_ticks = 0, system_ticks = 0;
  fields >> user_ticks >> system_ticks;

  ProcessUsage usage;
  usage.cpu_seconds = (user_ticks + system_ticks) / static_cast<double>(sysconf(_SC_CLK_TCK));
  std::ifstream status_file(folder + "/status");
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
