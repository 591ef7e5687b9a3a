// presence_sim --seed=N [--trace]      one run, in full
// presence_sim --seeds=A..B            many; the first that fails is named and ends it
// presence_sim --seconds=S [--seed=N]  as many as fit into that time, from N on; the variable
//                                      PRESENCE_SIM_SECONDS stands above S
// --jobs=N                             in so many processes, each with every Nth seed; the first failure ends all
//
// Exit code 0: no invariant was broken. Each seed is run in a world of its own; the first one twice, to see that it repeats itself.
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <string>
#include <string_view>
#include <vector>

#include "tests/sim/world.h"

namespace presence::sim {
namespace {

volatile std::sig_atomic_t g_seed_high = 0, g_seed_low = 0;

// A broken invariant inside the code under test: say how to see it again.
void OnAbort(int /*signal*/) {
  char line[64] = "replay: presence_sim --seed=";
  size_t length = std::char_traits<char>::length(line);
  const uint64_t seed = (uint64_t{static_cast<uint32_t>(g_seed_high)} << 32) | static_cast<uint32_t>(g_seed_low);
  length = static_cast<size_t>(std::to_chars(line + length, line + sizeof line - 1, seed).ptr - line);
  line[length++] = '\n';
  static_cast<void>(!write(STDERR_FILENO, line, length));
}

struct Options {
  uint64_t first = 1, last = 1;
  double seconds = 0;
  uint64_t jobs = 1;
  bool trace = false;
};

bool ReadNumber(std::string_view text, uint64_t* number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *number);
  return error == std::errc() && end == text.data() + text.size();
}

bool Read(std::string_view argument, Options* options) {
  const auto value = [argument](std::string_view name) {
    return argument.starts_with(name) ? argument.substr(name.size()) : std::string_view();
  };
  if (argument == "--trace") return options->trace = true;
  if (const std::string_view jobs = value("--jobs="); !jobs.empty()) {
    return ReadNumber(jobs, &options->jobs) && options->jobs >= 1 && options->jobs <= 1'000;
  }
  if (const std::string_view seed = value("--seed="); !seed.empty()) {
    return ReadNumber(seed, &options->first) && ReadNumber(seed, &options->last);
  }
  if (const std::string_view seeds = value("--seeds="); !seeds.empty()) {
    const size_t dots = seeds.find("..");
    return dots != std::string_view::npos && ReadNumber(seeds.substr(0, dots), &options->first) &&
           ReadNumber(seeds.substr(dots + 2), &options->last);
  }
  uint64_t seconds = 0;
  if (const std::string_view text = value("--seconds="); !text.empty() && ReadNumber(text, &seconds)) {
    options->seconds = static_cast<double>(seconds);
    return true;
  }
  return false;
}

// Of one process.
struct Progress {
  uint64_t runs = 0;
  FailureTimes times;
};

// False: an invariant is broken. `hash` is of everything that clients saw and the log said.
bool RunSeed(uint64_t seed, bool trace, uint64_t* hash, Progress* progress) {
  g_seed_high = static_cast<std::sig_atomic_t>(seed >> 32);
  g_seed_low = static_cast<std::sig_atomic_t>(seed & 0xffffffff);
  World world(seed, trace);
  try {
    world.Run();
  } catch (const std::exception& broken) {
    std::fflush(stdout);
    std::fprintf(stderr, "FAILED after %.3f s: %s\nreplay: presence_sim --seed=%llu --trace\n",
                 static_cast<double>(world.now().count()) / 1e6, broken.what(), static_cast<unsigned long long>(seed));
    return false;
  }
  *hash = world.trace_hash();
  ++progress->runs;
  progress->times.Add(world.failures().times());
  return true;
}

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Every `jobs`th seed, from the `job`th on. False: an invariant is broken.
bool RunEvery(const Options& options, uint64_t job, Clock::time_point start, Progress* progress) {
  uint64_t hash = 0;
  for (uint64_t seed = options.first + job;
       options.seconds > 0 ? SecondsSince(start) < options.seconds : seed <= options.last; seed += options.jobs) {
    if (!RunSeed(seed, options.trace, &hash, progress)) return false;
  }
  return true;
}

// The same in a process for each job: the worlds share nothing, and one that aborts takes only itself with it.
bool RunInProcesses(const Options& options, Clock::time_point start, Progress* progress) {
  std::vector<pid_t> children;
  for (uint64_t job = 0; job < options.jobs; ++job) {
    const pid_t child = fork();
    if (child == 0) _exit(RunEvery(options, job, start, progress + job) ? 0 : 1);
    if (child < 0) std::perror("fork");
    if (child > 0) children.push_back(child);
  }
  bool good = children.size() == options.jobs;
  while (!children.empty()) {
    int status = 0;
    const pid_t ended = wait(&status);
    if (ended < 0 && errno == EINTR) continue;
    std::erase(children, ended);
    if (status == 0) continue;
    good = false;
    for (const pid_t child : children) kill(child, SIGKILL);
  }
  return good;
}

void Print(const FailureTimes& times) {
  std::printf("until the last watcher knows, in virtual time:\n");
  for (size_t i = 0; i < kFailureRows; ++i) {
    const FailureTimes::Row& row = times.rows[i];
    std::printf("  %-24s %6llu times, worst %5.1f s, bound there %4.1f s\n", kFailureRowNames[i],
                static_cast<unsigned long long>(row.runs), static_cast<double>(row.worst.count()) / 1e6,
                static_cast<double>(row.bound.count()) / 1e6);
  }
}

int Main(const Options& options) {
  std::signal(SIGABRT, OnAbort);
  const Clock::time_point start = Clock::now();
  uint64_t hash = 0, again = 0;
  if (!options.trace) {
    Progress twice;
    if (!RunSeed(options.first, false, &hash, &twice) || !RunSeed(options.first, false, &again, &twice)) return 1;
    if (hash != again) {
      std::fprintf(stderr, "FAILED: seed %llu does not repeat itself\n",
                   static_cast<unsigned long long>(options.first));
      return 1;
    }
  }
  // Each process writes its own.
  const size_t size = options.jobs * sizeof(Progress);
  void* const shared = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (shared == MAP_FAILED) {
    std::perror("mmap");
    return 1;
  }
  auto* const progress = static_cast<Progress*>(shared);
  for (uint64_t job = 0; job < options.jobs; ++job) new (progress + job) Progress;
  if (!(options.jobs > 1 ? RunInProcesses(options, start, progress) : RunEvery(options, 0, start, progress))) return 1;
  Progress all;
  for (uint64_t job = 0; job < options.jobs; ++job) {
    all.runs += progress[job].runs;
    all.times.Add(progress[job].times);
  }
  std::printf("%llu seeds from %llu on, no invariant broken, %.0f seeds a minute\n",
              static_cast<unsigned long long>(all.runs), static_cast<unsigned long long>(options.first),
              static_cast<double>(all.runs) * 60 / SecondsSince(start));
  Print(all.times);
  return 0;
}

}  // namespace
}  // namespace presence::sim

int main(int argc, char** argv) {
  presence::sim::Options options;
  for (int i = 1; i < argc; ++i) {
    if (!presence::sim::Read(argv[i], &options)) {
      std::fprintf(stderr, "usage: presence_sim [--seed=N [--trace] | --seeds=A..B | --seconds=S] [--jobs=N]\n");
      return 2;
    }
  }
  if (const char* seconds = std::getenv("PRESENCE_SIM_SECONDS"); seconds != nullptr && options.seconds > 0) {
    presence::sim::Read(std::string("--seconds=") + seconds, &options);
  }
  return presence::sim::Main(options);
}
