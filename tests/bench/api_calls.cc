// api_bench calls: unary calls at several numbers in flight. Kinds of calls alternate within each round, so that what else the machine
// does falls on all of them alike.
#include <grpcpp/grpcpp.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "presence/v1/presence.grpc.pb.h"
#include "tests/bench/api_bench.h"
#include "tests/bench/call_round.h"
#include "tests/bench/process_usage.h"
#include "tests/bench/user_crowd.h"

namespace presence::bench {
namespace {

using Stub = v1::PresenceService::Stub;

constexpr const char* kRoom = "bench-room";
constexpr const char* kEmptyRoom = "bench-empty-room";
constexpr double kWarmUpPart = 0.2;  // of a round
constexpr std::chrono::seconds kDeliveryMax{20};

// Calls are spread over `channels` connections, each with its own slice of those in flight.
std::vector<std::unique_ptr<Stub>> Connect(const std::string& address, uint32_t channels) {
  std::vector<std::unique_ptr<Stub>> stubs;
  for (uint32_t i = 0; i < channels; ++i) {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    stubs.push_back(v1::PresenceService::NewStub(
        grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments)));
  }
  return stubs;
}

std::string PayloadOf(size_t bytes) {
  constexpr std::string_view kBegin = R"({"text":")", kEnd = R"("})";
  std::string payload(kBegin);
  payload.append(bytes - std::min(bytes, kBegin.size() + kEnd.size()), 'x');
  return payload.append(kEnd);
}

struct Usage {
  double server = 0, redis = 0, edge = 0, client = 0;  // CPU seconds
};

// What the rounds of one kind have come to.
struct Figures {
  std::vector<double> per_second;
  std::vector<float> latencies_us;
  Usage used;
};

struct Kind {
  const char* name;
  const char* baseline;  // its name; its own: it is one
  ProcessName server;
  std::function<CallRound(size_t in_flight, double seconds)> run;
  Figures figures;
};

template <typename T>
T Quantile(std::vector<T>& values, double quantile) {
  if (values.empty()) return 0;
  const auto rank = static_cast<std::ptrdiff_t>(quantile * static_cast<double>(values.size() - 1));
  std::nth_element(values.begin(), values.begin() + rank, values.end());
  return values[static_cast<size_t>(rank)];
}

class CallsScenario {
 public:
  CallsScenario(const ApiBenchOptions& options, ServiceStack& stack)
      : options_(options),
        stack_(stack),
        bare_(Connect(stack.bare_api(), options.channels)),
        core_(Connect(stack.core_api(), options.channels)) {
    const auto get = [this](size_t stub_set, size_t in_flight, double seconds) {
      return Get(stub_set == 0 ? bare_ : core_, in_flight, seconds);
    };
    const auto send = [this](std::vector<std::unique_ptr<Stub>>& stubs, const char* room) {
      return [this, &stubs, room](size_t in_flight, double seconds) { return Send(stubs, room, in_flight, seconds); };
    };
    kinds_ = {
        {"GetPresence, bare", "GetPresence, bare", stack.bare(), std::bind_front(get, 0), {}},
        {"GetPresence", "GetPresence, bare", stack.core(), std::bind_front(get, 1), {}},
        {"Broadcast, bare", "Broadcast, bare", stack.bare(), send(bare_, kEmptyRoom), {}},
        {"Broadcast, nobody there", "Broadcast, bare", stack.core(), send(core_, kEmptyRoom), {}},
        {"Broadcast, subscribers", "Broadcast, bare", stack.core(), send(core_, kRoom), {}},
    };
  }

  absl::Status Run() {
    auto crowd = UserCrowd::Open({stack_.edge_address(), stack_.signing_key(), options_.subscribers, kRoom});
    if (!crowd.ok()) return crowd.status();
    crowd_ = *std::move(crowd);
    std::printf(
        "%u channels, payload %u bytes, %u subscribers, %u rounds of %.1f s each\n"
        "%-9s %-24s %9s %8s %9s %9s | CPU seconds per million calls\n"
        "%-9s %-24s %9s %8s %9s %9s | %7s %8s %7s %7s %7s\n",
        options_.channels, options_.payload_bytes, options_.subscribers, options_.rounds, options_.seconds, "", "", "",
        "of the", "", "", "in flight", "call", "calls/s", "bare one", "p50 us", "p99 us", "server", "of bare", "Redis",
        "edge", "client");
    for (const absl::string_view word : absl::StrSplit(options_.in_flight, ',')) {
      uint32_t in_flight = 0;
      if (!absl::SimpleAtoi(word, &in_flight) || in_flight == 0) {
        return absl::InvalidArgumentError("--in_flight takes numbers, such as 1,16,256");
      }
      if (absl::Status status = RunAt(in_flight); !status.ok()) return status;
    }
    return crowd_->status();
  }

 private:
  absl::Status RunAt(size_t in_flight) {
    for (Kind& kind : kinds_) {
      kind.figures = {};
      if (absl::Status status = RunOnce(kind, in_flight, options_.seconds * kWarmUpPart, nullptr); !status.ok()) {
        return status;
      }
    }
    for (uint32_t round = 0; round < options_.rounds; ++round) {
      for (Kind& kind : kinds_) {
        absl::Status status = RunOnce(kind, in_flight, options_.seconds, &kind.figures);
        if (!status.ok()) return status;
      }
    }
    for (const Kind& kind : kinds_) Print(in_flight, kind);
    return absl::OkStatus();
  }

  absl::StatusOr<Usage> UsageNow(const ProcessName& server) {
    const auto usages = UsageOf(std::vector<ProcessName>{server, stack_.redis(), stack_.edge(), {"client", getpid()}});
    if (!usages.ok()) return usages.status();
    return Usage{(*usages)[0].cpu_seconds, (*usages)[1].cpu_seconds, (*usages)[2].cpu_seconds,
                 (*usages)[3].cpu_seconds - crowd_->CpuSeconds()};
  }

  absl::Status RunOnce(const Kind& kind, size_t in_flight, double seconds, Figures* figures) {
    reached_ = 0;
    const uint64_t heard = crowd_->messages();
    const auto before = UsageNow(kind.server);
    CallRound round = kind.run(in_flight, seconds);
    if (round.first_failure) {
      return absl::AbortedError(absl::StrCat(kind.name, ": ", round.failed, " calls failed, the first one with ",
                                             static_cast<int>(round.first_failure->error_code()), " ",
                                             round.first_failure->error_message()));
    }
    const bool core = kind.server.pid == stack_.core().pid;
    if (absl::Status status = core ? AwaitDeliveries(heard + reached_) : absl::OkStatus(); !status.ok()) return status;
    const auto after = UsageNow(kind.server);
    if (!before.ok()) return before.status();
    if (!after.ok()) return after.status();
    if (figures == nullptr) return absl::OkStatus();
    figures->per_second.push_back(round.calls() / round.seconds);
    figures->latencies_us.insert(figures->latencies_us.end(), round.latencies_us.begin(), round.latencies_us.end());
    figures->used.server += after->server - before->server;
    figures->used.redis += after->redis - before->redis;
    figures->used.edge += after->edge - before->edge;
    figures->used.client += after->client - before->client;
    return absl::OkStatus();
  }

  // What the calls have set going belongs to their costs.
  absl::Status AwaitDeliveries(uint64_t messages) {
    const auto deadline = std::chrono::steady_clock::now() + kDeliveryMax;
    while (crowd_->messages() < messages) {
      if (absl::Status status = crowd_->status(); !status.ok()) return status;
      if (std::chrono::steady_clock::now() > deadline) {
        return absl::AbortedError(absl::StrCat("of the messages ", messages - crowd_->messages(), " have not arrived"));
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    if (crowd_->messages() == messages) return absl::OkStatus();
    return absl::AbortedError("more messages have arrived than the calls were told");
  }

  CallRound Get(const std::vector<std::unique_ptr<Stub>>& stubs, size_t in_flight, double seconds) {
    std::vector<v1::GetPresenceRequest> requests(std::max<size_t>(options_.subscribers, 1));
    for (size_t i = 0; i < requests.size(); ++i) requests[i].set_user_id(UserId(i));
    return RunCalls<v1::GetPresenceRequest, v1::Presence>(
        in_flight, std::chrono::duration<double>(seconds), requests,
        [&](grpc::ClientContext* context, const v1::GetPresenceRequest* request, v1::Presence* response, auto done) {
          NextStub(stubs).async()->GetPresence(context, request, response, std::move(done));
        },
        [](const v1::Presence&) {});
  }

  CallRound Send(const std::vector<std::unique_ptr<Stub>>& stubs, const char* room, size_t in_flight, double seconds) {
    v1::BroadcastRequest request;
    request.set_room_id(room);
    request.set_data_json(PayloadOf(options_.payload_bytes));
    return RunCalls<v1::BroadcastRequest, v1::BroadcastResponse>(
        in_flight, std::chrono::duration<double>(seconds), {request},
        [&](grpc::ClientContext* context, const v1::BroadcastRequest* sent, v1::BroadcastResponse* response,
            auto done) { NextStub(stubs).async()->Broadcast(context, sent, response, std::move(done)); },
        [this](const v1::BroadcastResponse& response) {
          reached_.fetch_add(static_cast<uint64_t>(response.reached_connections()), std::memory_order_relaxed);
        });
  }

  Stub& NextStub(const std::vector<std::unique_ptr<Stub>>& stubs) {
    return *stubs[next_stub_.fetch_add(1, std::memory_order_relaxed) % stubs.size()];
  }

  void Print(size_t in_flight, const Kind& kind) {
    const auto baseline =
        std::find_if(kinds_.begin(), kinds_.end(), [&](const Kind& other) { return other.name == kind.baseline; });
    // Round by round: the two were neighbours in time.
    std::vector<double> ratios;
    for (size_t i = 0; i < kind.figures.per_second.size(); ++i) {
      ratios.push_back(kind.figures.per_second[i] / baseline->figures.per_second[i]);
    }
    std::vector<double> per_second = kind.figures.per_second;
    std::vector<float> latencies = kind.figures.latencies_us;
    const auto per_million = [](const Figures& of, double seconds) {
      return seconds * 1e6 / static_cast<double>(of.latencies_us.size());
    };
    const Figures& of = kind.figures;
    const double server = per_million(of, of.used.server);
    std::printf("%9zu %-24s %9.0f %8.2f %9.0f %9.0f | %7.1f %8.2f %7.1f %7.1f %7.1f\n", in_flight, kind.name,
                Quantile(per_second, 0.5), Quantile(ratios, 0.5), static_cast<double>(Quantile(latencies, 0.5)),
                static_cast<double>(Quantile(latencies, 0.99)), server,
                server / per_million(baseline->figures, baseline->figures.used.server), per_million(of, of.used.redis),
                per_million(of, of.used.edge), per_million(of, of.used.client));
  }

  const ApiBenchOptions& options_;
  ServiceStack& stack_;
  std::vector<std::unique_ptr<Stub>> bare_, core_;
  std::atomic<size_t> next_stub_{0};
  std::unique_ptr<UserCrowd> crowd_;
  std::atomic<uint64_t> reached_{0};
  std::vector<Kind> kinds_;
};

}  // namespace

absl::Status MeasureCalls(const ApiBenchOptions& options, ServiceStack& stack) {
  return CallsScenario(options, stack).Run();
}

}  // namespace presence::bench
