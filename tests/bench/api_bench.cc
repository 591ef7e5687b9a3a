// api_bench: what calls and watchers of the public API cost, as ratios to a bare gRPC server. README.md says how, and what the numbers
// mean. Starts everything itself; `api_bench bare` is the bare server.
#include "tests/bench/api_bench.h"

#include <sys/resource.h>

#include <cstdio>
#include <filesystem>
#include <limits>
#include <optional>
#include <string>
#include <string_view>

#include "common/config.h"
#include "tests/bench/bare_service.h"

namespace presence::bench {
namespace {

// A socket for each user.
void RaiseDescriptorLimit() {
  rlimit descriptors{};
  getrlimit(RLIMIT_NOFILE, &descriptors);
  descriptors.rlim_cur = descriptors.rlim_max;
  setrlimit(RLIMIT_NOFILE, &descriptors);
}

void Declare(ConfigReader& reader, ApiBenchOptions& options, Duration& round) {
  constexpr uint32_t kMany = 1'000'000;
  reader.Text("PROGRAMS", &options.programs, "the folder with presence-core and presence-edge");
  reader.Integer("ROUNDS", &options.rounds, 1, kMany,
                 "how often each measurement is repeated, in turn with the others");
  reader.Section("calls");
  reader.Text("IN_FLIGHT", &options.in_flight, "numbers of calls in flight, with commas");
  reader.Seconds("SECONDS", &round, {std::chrono::milliseconds(10), std::chrono::hours(1)},
                 "of each kind of call in a round");
  reader.Integer("CHANNELS", &options.channels, 1, 1'000, "connections that the calls take in turn");
  reader.Integer("PAYLOAD", &options.payload_bytes, 12, 1'000'000, "bytes of Broadcast's data_json");
  reader.Integer("SUBSCRIBERS", &options.subscribers, 1, 10'000, "WebSocket clients in the room that is not empty");
  reader.Section("watchers");
  reader.Integer("WATCHERS", &options.watchers, 1, 2'000, "WatchPresence streams, on one connection");
  reader.Integer("USERS", &options.users, 1, 10'000, "WebSocket clients, each a user");
  reader.Integer("RATE", &options.changes_per_second, 1, kMany, "changes per second, at most");
  reader.Integer("CHANGES", &options.changes, 1, kMany, "changes in a round");
}

int Main(int argc, char** argv) {
  const std::string_view command = argc > 1 ? argv[1] : "";
  if (command == "bare") RunBareServer();
  std::setvbuf(stdout, nullptr, _IOLBF, BUFSIZ);
  ApiBenchOptions options;
  options.programs = std::filesystem::read_symlink("/proc/self/exe").parent_path().string();
  Duration round = std::chrono::seconds(1);
  ConfigReader reader("api_bench calls|watchers",
                      "What calls and watchers of presence.v1 cost, beside a bare gRPC server in the same run.",
                      [](const std::string&) -> std::optional<std::string> { return std::nullopt; });
  Declare(reader, options, round);
  if (command != "calls" && command != "watchers") {
    std::fputs("api_bench: say calls or watchers; api_bench calls --help lists the options\n", stderr);
    return 2;
  }
  const auto outcome = reader.Read(argc - 1, argv + 1);
  if (outcome != ConfigReader::Outcome::kRun) return reader.Explain(outcome);
  options.seconds = std::chrono::duration<double>(round).count();
  RaiseDescriptorLimit();

  auto stack = ServiceStack::Start(options.programs);
  absl::Status status = stack.status();
  if (status.ok()) status = command == "calls" ? MeasureCalls(options, **stack) : MeasureWatchers(options, **stack);
  if (status.ok()) return 0;
  std::fprintf(stderr, "api_bench: %s\n", status.ToString().c_str());
  return 1;
}

}  // namespace
}  // namespace presence::bench

int main(int argc, char** argv) {
  return presence::bench::Main(argc, argv);
}
