// presence_sim --seed=N [--trace]      one run, in full
// presence_sim --seeds=A..B            many; the first that fails is named and ends it
// presence_sim --seconds=S [--seed=N]  as many as fit into that time, from N on; the variable
//                                      PRESENCE_SIM_SECONDS stands above S
//
// Exit code 0: no invariant was broken. Each seed is run in a world of its own; the first one twice, to see that it repeats itself.
#include <unistd.h>

#include <charconv>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <string>
#include <string_view>

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

// False: an invariant is broken. `hash` is of everything that clients saw and the log said.
bool RunSeed(uint64_t seed, bool trace, uint64_t* hash) {
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
  return true;
}

int Main(const Options& options) {
  using Clock = std::chrono::steady_clock;
  std::signal(SIGABRT, OnAbort);
  const Clock::time_point start = Clock::now();
  const auto elapsed = [start] { return std::chrono::duration<double>(Clock::now() - start).count(); };
  uint64_t hash = 0, again = 0;
  if (!options.trace) {
    if (!RunSeed(options.first, false, &hash) || !RunSeed(options.first, false, &again)) return 1;
    if (hash != again) {
      std::fprintf(stderr, "FAILED: seed %llu does not repeat itself\n",
                   static_cast<unsigned long long>(options.first));
      return 1;
    }
  }
  uint64_t runs = 0;
  for (uint64_t seed = options.first; options.seconds > 0 ? elapsed() < options.seconds : seed <= options.last;
       ++seed) {
    if (!RunSeed(seed, options.trace, &hash)) return 1;
    ++runs;
  }
  std::printf("%llu seeds from %llu on, no invariant broken, %.0f seeds a minute\n",
              static_cast<unsigned long long>(runs), static_cast<unsigned long long>(options.first),
              static_cast<double>(runs) * 60 / elapsed());
  return 0;
}

}  // namespace
}  // namespace presence::sim

int main(int argc, char** argv) {
  presence::sim::Options options;
  for (int i = 1; i < argc; ++i) {
    if (!presence::sim::Read(argv[i], &options)) {
      std::fprintf(stderr, "usage: presence_sim [--seed=N [--trace] | --seeds=A..B | --seconds=S]\n");
      return 2;
    }
  }
  if (const char* seconds = std::getenv("PRESENCE_SIM_SECONDS"); seconds != nullptr && options.seconds > 0) {
    presence::sim::Read(std::string("--seconds=") + seconds, &options);
  }
  return presence::sim::Main(options);
}
