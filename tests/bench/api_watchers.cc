// api_bench watchers: what WatchPresence costs: memory, snapshots, and changes that a thousand streams are told. The core and the bare
// server take turns, with as many streams each.
#include <grpcpp/grpcpp.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "presence/v1/presence.grpc.pb.h"
#include "tests/bench/api_bench.h"
#include "tests/bench/call_round.h"
#include "tests/bench/process_usage.h"
#include "tests/bench/user_crowd.h"
#include "tests/bench/watcher_crowd.h"

namespace presence::bench {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kWarmUpWatchers = 10;
constexpr size_t kOpeningMax = 50;
constexpr size_t kSnapshotWatchers = 100;  // in a round
constexpr std::chrono::seconds kIdle{20};  // two of the core's signs of life
constexpr std::chrono::seconds kPatience{30};

// One of the two servers, and what was measured of it.
struct Side {
  ProcessName process;
  uint64_t watch_parameter = 0;  // resume_version of its watchers: see bare_service.h
  std::unique_ptr<WatcherCrowd> watchers;
  uint64_t changes_made = 0;

  // CPU seconds, and how much they were spent on.
  double open_cpu = 0, idle_cpu = 0, snapshot_cpu = 0, unwatched_cpu = 0, watched_cpu = 0, client_cpu = 0;
  uint64_t snapshot_rows = 0, snapshots = 0, unwatched = 0, watched = 0, responses = 0;
  // Per watcher.
  double idle_bytes = 0, idle_anonymous_bytes = 0;
};

class WatchersScenario {
 public:
  WatchersScenario(const ApiBenchOptions& options, ServiceStack& stack) : options_(options), stack_(stack) {
    sides_[0].process = stack.bare();
    sides_[0].watchers = std::make_unique<WatcherCrowd>(stack.bare_api());
    sides_[1].process = stack.core();
    sides_[1].watchers = std::make_unique<WatcherCrowd>(stack.core_api());
  }

  absl::Status Run() {
    using Step = absl::Status (WatchersScenario::*)();
    for (const Step step :
         {&WatchersScenario::MeasureIdle, &WatchersScenario::ConnectUsers, &WatchersScenario::MeasureUnwatched,
          &WatchersScenario::MeasureSnapshots, &WatchersScenario::MeasureWatched}) {
      if (absl::Status status = (this->*step)(); !status.ok()) return status;
    }
    Print();
    return crowd_->status();
  }

 private:
  // Nobody is online: empty snapshots, nothing to tell.
  absl::Status MeasureIdle() {
    for (Side& side : sides_) {
      if (absl::Status status = Open(side, kWarmUpWatchers); !status.ok()) return status;
      side.watchers->Close();
      const auto before = UsageOf(side.process.pid);
      if (absl::Status status = Open(side, options_.watchers); !status.ok()) return status;
      const auto after = UsageOf(side.process.pid);
      if (!before.ok() || !after.ok()) return absl::AbortedError("a server has ended");
      side.open_cpu = after->cpu_seconds - before->cpu_seconds;
      side.idle_bytes = PerWatcher(after->resident_bytes - before->resident_bytes);
      side.idle_anonymous_bytes = PerWatcher(after->anonymous_bytes - before->anonymous_bytes);
    }
    std::array<double, 2> before{};
    for (size_t i = 0; i < sides_.size(); ++i) before[i] = Cpu(sides_[i]);
    std::this_thread::sleep_for(kIdle);
    for (size_t i = 0; i < sides_.size(); ++i) {
      sides_[i].idle_cpu = Cpu(sides_[i]) - before[i];
      sides_[i].watchers->Close();
    }
    return absl::OkStatus();
  }

  absl::Status ConnectUsers() {
    auto crowd = UserCrowd::Open({stack_.edge_address(), stack_.signing_key(), options_.users, ""});
    if (!crowd.ok()) return crowd.status();
    crowd_ = *std::move(crowd);
    v1::ListPresenceRequest request;
    request.set_page_size(10'000);
    const auto deadline = Clock::now() + kPatience;
    for (uint32_t online = 0; online != options_.users;) {
      if (Clock::now() > deadline) return absl::DeadlineExceededError(absl::StrCat("only ", online, " are online"));
      grpc::ClientContext context;
      v1::ListPresenceResponse response;
      if (auto status = sides_[1].watchers->stub().ListPresence(&context, request, &response); !status.ok()) {
        return absl::AbortedError(absl::StrCat("ListPresence: ", status.error_message()));
      }
      online = static_cast<uint32_t>(response.users_size());
    }
    return absl::OkStatus();
  }

  absl::Status MeasureUnwatched() {
    for (uint32_t round = 0; round < options_.rounds; ++round) {
      for (Side& side : sides_) {
        const double before = Cpu(side);
        if (absl::Status status = MakeChanges(side); !status.ok()) return status;
        side.unwatched_cpu += Cpu(side) - before;
        side.unwatched += options_.changes;
      }
    }
    return absl::OkStatus();
  }

  absl::Status MeasureSnapshots() {
    sides_[0].watch_parameter = options_.users;
    for (uint32_t round = 0; round < options_.rounds; ++round) {
      for (Side& side : sides_) {
        const double before = Cpu(side);
        const uint64_t rows = side.watchers->rows();
        if (absl::Status status = Open(side, kSnapshotWatchers); !status.ok()) return status;
        side.snapshot_cpu += Cpu(side) - before;
        side.snapshot_rows += side.watchers->rows() - rows;
        side.snapshots += kSnapshotWatchers;
        side.watchers->Close();
      }
    }
    return absl::OkStatus();
  }

  absl::Status MeasureWatched() {
    for (Side& side : sides_) {
      if (absl::Status status = Open(side, options_.watchers); !status.ok()) return status;
    }
    for (uint32_t round = 0; round < options_.rounds; ++round) {
      for (Side& side : sides_) {
        const uint64_t rows = side.watchers->rows(), responses = side.watchers->responses();
        const double before = Cpu(side), client_before = ClientCpu();
        if (absl::Status status = MakeChanges(side); !status.ok()) return status;
        const uint64_t expected = uint64_t{options_.changes} * options_.watchers;
        if (absl::Status status = side.watchers->AwaitRows(rows + expected); !status.ok()) return status;
        side.watched_cpu += Cpu(side) - before;
        side.client_cpu += ClientCpu() - client_before;
        side.watched += options_.changes;
        side.responses += side.watchers->responses() - responses;
      }
    }
    return absl::OkStatus();
  }

  absl::Status Open(Side& side, size_t count) {
    v1::WatchPresenceRequest request;
    request.mutable_everyone();
    request.set_resume_version(side.watch_parameter);
    return side.watchers->Open(count, kOpeningMax, request);
  }

  // Each of another user, at the rate; one after the other.
  absl::Status MakeChanges(Side& side) {
    const auto start = Clock::now();
    for (uint32_t i = 0; i < options_.changes; ++i) {
      std::this_thread::sleep_until(start + i * std::chrono::nanoseconds(1'000'000'000 / options_.changes_per_second));
      v1::SetStatusRequest request;
      request.set_user_id(UserId(side.changes_made % options_.users));
      request.set_status(side.changes_made / options_.users % 2 == 0 ? v1::STATUS_AWAY : v1::STATUS_ONLINE);
      ++side.changes_made;
      grpc::ClientContext context;
      context.set_deadline(std::chrono::system_clock::now() + kCallDeadline);
      v1::SetStatusResponse response;
      const grpc::Status status = side.watchers->stub().SetStatus(&context, request, &response);
      if (!status.ok()) return absl::AbortedError(absl::StrCat("SetStatus: ", status.error_message()));
    }
    return absl::OkStatus();
  }

  double PerWatcher(int64_t bytes) const { return static_cast<double>(bytes) / options_.watchers; }
  // A server that has ended fails its calls: that is told elsewhere.
  static double Cpu(const Side& side) { return UsageOf(side.process.pid).value_or(ProcessUsage{}).cpu_seconds; }
  double ClientCpu() { return UsageOf(getpid()).value_or(ProcessUsage{}).cpu_seconds - crowd_->CpuSeconds(); }

  void Print() const {
    std::printf(
        "%u watchers of everyone, %u users, %u rounds of %u changes at %u per second\n"
        "%-62s %9s %9s %9s\n",
        options_.watchers, options_.users, options_.rounds, options_.changes, options_.changes_per_second, "", "bare",
        "core", "ratio");
    const double watchers = options_.watchers;
    const auto open_us = [&](const Side& side) { return side.open_cpu / watchers * 1e6; };
    Row("opening one, its empty snapshot told: us of CPU", open_us);
    Row("an idle one: bytes of RSS", [](const Side& side) { return side.idle_bytes; });
    Row("an idle one: bytes of it anonymous", [](const Side& side) { return side.idle_anonymous_bytes; });
    Row("an idle one: us of CPU in a second",
        [&](const Side& side) { return side.idle_cpu / watchers / static_cast<double>(kIdle.count()) * 1e6; });
    Row("a row of a snapshot, without opening: us of CPU", [&](const Side& side) {
      const double opening = open_us(side) * static_cast<double>(side.snapshots);
      return (side.snapshot_cpu * 1e6 - opening) / static_cast<double>(side.snapshot_rows);
    });
    const auto unwatched_us = [](const Side& side) {
      return side.unwatched_cpu / static_cast<double>(side.unwatched) * 1e6;
    };
    Row("a change that nobody watches, by SetStatus: us of CPU", unwatched_us);
    Row("a change, for each watcher: us of CPU beyond that", [&](const Side& side) {
      return (side.watched_cpu * 1e6 / static_cast<double>(side.watched) - unwatched_us(side)) / watchers;
    });
    Row("the same for the client: us of CPU",
        [&](const Side& side) { return side.client_cpu * 1e6 / static_cast<double>(side.watched) / watchers; });
    Row("responses for each watcher and change", [&](const Side& side) {
      return static_cast<double>(side.responses) / static_cast<double>(side.watched) / watchers;
    });
  }

  template <typename Figure>
  void Row(const char* name, const Figure& figure) const {
    const double bare = figure(sides_[0]), core = figure(sides_[1]);
    std::printf("%-62s %9.2f %9.2f ", name, bare, core);
    if (bare > 0) {
      std::printf("%9.2f\n", core / bare);
    } else {
      std::printf("%9s\n", "-");
    }
  }

  const ApiBenchOptions& options_;
  ServiceStack& stack_;
  std::array<Side, 2> sides_;
  std::unique_ptr<UserCrowd> crowd_;
};

}  // namespace

absl::Status MeasureWatchers(const ApiBenchOptions& options, ServiceStack& stack) {
  return WatchersScenario(options, stack).Run();
}

}  // namespace presence::bench
