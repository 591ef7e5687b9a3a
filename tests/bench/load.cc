// presence-load: measures what connections and deliveries cost a running service. README.md says how, and what the
// numbers mean.
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <chrono>
#include <cinttypes>
#include <cstdio>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/time.h"
#include "edge/cli/dev_keys.h"
#include "tests/bench/client_swarm.h"
#include "tests/bench/load_options.h"
#include "tests/bench/process_usage.h"
#include "tests/bench/redis_publisher.h"

namespace presence::bench {
namespace {

using SteadyClock = std::chrono::steady_clock;

double SecondsSince(SteadyClock::time_point start) {
  return std::chrono::duration<double>(SteadyClock::now() - start).count();
}

absl::StatusOr<std::vector<std::string>> MakeTokens(const LoadOptions& options) {
  if (!options.token.empty()) return std::vector<std::string>{options.token};
  std::vector<std::string> tokens;
  edge::cli::Options signing;
  signing.issuer = options.issuer;
  signing.audience = options.audience;
  for (size_t i = 0; i < options.users; ++i) {
    signing.user = absl::StrCat("load-", i);
    auto token = edge::cli::SignDevelopmentToken(signing, options.key_path, ReadClocks().wall);
    if (!token.ok()) return token.status();
    tokens.push_back(*std::move(token));
  }
  return tokens;
}

SwarmOptions SwarmOptionsOf(const LoadOptions& options, const std::vector<std::string>& tokens) {
  SwarmOptions swarm;
  swarm.addresses = options.edges;
  swarm.tls = !options.authorities.empty();
  swarm.authorities = options.authorities;
  swarm.connections = options.connections;
  swarm.connecting_max = options.connecting_max;
  swarm.token = [&tokens](size_t connection) -> const std::string& { return tokens[connection % tokens.size()]; };
  return swarm;
}

void PrintMemory(const LoadOptions& options, const char* when, const std::vector<ProcessUsage>& now,
                 const std::vector<ProcessUsage>& before) {
  for (size_t i = 0; i < now.size(); ++i) {
    const auto each = [&](int64_t bytes) {
      return static_cast<double>(bytes) / static_cast<double>(options.connections);
    };
    std::printf("%-8s %-14s RSS %8.1f MiB, %7.0f bytes per connection (anonymous %7.0f)\n",
                options.processes[i].label.c_str(), when, static_cast<double>(now[i].resident_bytes) / 1048576.0,
                each(now[i].resident_bytes - before[i].resident_bytes),
                each(now[i].anonymous_bytes - before[i].anonymous_bytes));
  }
}

// Connection i subscribes to what `room` names; until all are confirmed, as `subscribed` counts.
template <typename RoomOf>
absl::Status SubscribeAll(ClientSwarm& swarm, const LoadOptions& options, RoomOf room, const int64_t& subscribed) {
  for (size_t i = 0; i < options.connections; ++i) {
    swarm.SendText(i, absl::StrCat(R"({"type":"subscribe","channel_id":")", room(i), R"("})"));
  }
  for (const auto start = SteadyClock::now(); subscribed < static_cast<int64_t>(options.connections);) {
    if (auto polled = swarm.Poll(std::chrono::milliseconds(100)); !polled.ok()) return polled.status();
    if (SteadyClock::now() - start > options.patience) {
      return absl::DeadlineExceededError(absl::StrCat("only ", subscribed, " subscriptions were confirmed"));
    }
  }
  return absl::OkStatus();
}

constexpr std::string_view kSubscribed = R"({"type":"subscribed")";

// New users are announced to everybody, so a swarm that has just opened is busy for a while. Waits for a second without
// a frame that `others` counts, at most two minutes. Everybody pings meanwhile, so that nobody counts as gone.
absl::Status AwaitQuiet(ClientSwarm& swarm, const LoadOptions& options, const int64_t& others) {
  const auto start = SteadyClock::now();
  auto last = start;
  auto pinged = start;
  for (int64_t seen = others; SecondsSince(last) < 1 && SecondsSince(start) < 120;) {
    if (SteadyClock::now() - pinged > options.ping_interval) {
      pinged = SteadyClock::now();
      for (size_t i = 0; i < options.connections; ++i) swarm.SendText(i, R"({"type":"ping"})");
    }
    if (auto polled = swarm.Poll(std::chrono::milliseconds(10)); !polled.ok()) return polled.status();
    if (std::exchange(seen, others) != others) last = SteadyClock::now();
  }
  if (SecondsSince(last) < 1) std::printf("other frames keep coming: the numbers contain them\n");
  return absl::OkStatus();
}

// Why the server closed connections, counted.
class Closes {
 public:
  void Add(uint16_t code, std::string_view reason) { ++counts_[{code, std::string(reason)}]; }
  int64_t total() const {
    int64_t total = 0;
    for (const auto& [why, count] : counts_) total += count;
    return total;
  }
  // A line for each code and reason.
  void Print() const {
    for (const auto& [why, count] : counts_) {
      std::printf("%" PRId64 " closed with %u %s\n", count, why.first,
                  why.first == 1006 ? "(lost, without a close frame)" : why.second.c_str());
    }
  }

 private:
  std::map<std::pair<uint16_t, std::string>, int64_t> counts_;
};

// ---- idle ----

class IdleCounts : public SwarmHandler {
 public:
  void OnText(size_t, std::string_view text) override {
    ++(text.starts_with(R"({"type":"pong")") ? pongs : text.starts_with(kSubscribed) ? subscribed : others);
  }
  void OnClosed(size_t, uint16_t code, std::string_view reason) override { closes.Add(code, reason); }
  int64_t pongs = 0, subscribed = 0, others = 0;
  Closes closes;
};

absl::Status RunIdle(const LoadOptions& options, const std::vector<std::string>& tokens) {
  auto before = UsageOf(options.processes);
  if (!before.ok()) return before.status();
  IdleCounts counts;
  ClientSwarm swarm(SwarmOptionsOf(options, tokens), counts);
  const auto start = SteadyClock::now();
  if (absl::Status status = swarm.OpenAll(options.patience); !status.ok()) return status;
  std::printf("%zu connections open after %.2f s\n", swarm.open(), SecondsSince(start));
  if (options.rooms > 0) {
    const auto room = [&](size_t i) { return absl::StrCat("channel_load-", i % options.rooms); };
    if (absl::Status status = SubscribeAll(swarm, options, room, counts.subscribed); !status.ok()) return status;
  }
  if (absl::Status status = AwaitQuiet(swarm, options, counts.others); !status.ok()) return status;
  auto opened = UsageOf(options.processes);
  if (!opened.ok()) return opened.status();
  PrintMemory(options, "opened", *opened, *before);

  // Connection i pings at i / connections of each interval, so that the load is even.
  const auto holding = SteadyClock::now();
  const double interval = std::chrono::duration<double>(options.ping_interval).count();
  const double hold = std::chrono::duration<double>(options.hold).count();
  int64_t pinged = 0;
  for (double elapsed = 0; elapsed < hold; elapsed = SecondsSince(holding)) {
    const auto due = static_cast<int64_t>(elapsed / interval * static_cast<double>(options.connections));
    for (; pinged < due; ++pinged) {
      swarm.SendText(static_cast<size_t>(pinged) % options.connections, R"({"type":"ping"})");
    }
    if (auto polled = swarm.Poll(std::chrono::milliseconds(10)); !polled.ok()) return polled.status();
  }
  auto held = UsageOf(options.processes);
  if (!held.ok()) return held.status();
  PrintMemory(options, "held", *held, *before);
  for (size_t i = 0; i < held->size(); ++i) {
    std::printf("%-8s while idle     %.2f %% of one CPU\n", options.processes[i].label.c_str(),
                100.0 * ((*held)[i].cpu_seconds - (*opened)[i].cpu_seconds) / SecondsSince(holding));
  }
  std::printf("%" PRId64 " pings sent, %" PRId64 " pongs (one more per connection: the first frame), %" PRId64
              " other frames, %" PRId64 " connections closed by the server\n",
              pinged, counts.pongs, counts.others, counts.closes.total());
  counts.closes.Print();
  if (counts.closes.total() > 0) return absl::AbortedError("not all connections stayed open");
  swarm.CloseAll();
  return absl::OkStatus();
}

// ---- fanout ----

// How long deliveries took, in buckets of a sixteenth of a power of two: 6 % wide.
class Latencies {
 public:
  void Add(uint64_t nanoseconds) {
    const uint64_t n = std::max<uint64_t>(nanoseconds, 16);
    const auto exponent = static_cast<unsigned>(std::bit_width(n)) - 5;
    ++counts_[exponent * 16 + ((n >> exponent) & 15)];
    ++total_;
  }
  double Milliseconds(double quantile) const {
    auto rank = static_cast<int64_t>(quantile * static_cast<double>(total_));
    for (size_t i = 0; i < counts_.size(); ++i) {
      rank -= counts_[i];
      if (rank < 0) return static_cast<double>((16 + i % 16) << (i / 16)) / 1e6;
    }
    return 0;
  }

 private:
  std::array<int64_t, 60 * 16> counts_{};
  int64_t total_ = 0;
};

// Checks what every connection gets: the messages 0, 1, 2... of the room, each once.
class FanoutCounts : public SwarmHandler {
 public:
  FanoutCounts(const LoadOptions& options, std::string prefix)
      : prefix_(std::move(prefix)), payload_bytes_(options.payload_bytes), next_(options.connections, 0) {}

  void OnText(size_t connection, std::string_view text) override {
    if (!text.starts_with(prefix_)) {
      ++(text.starts_with(kSubscribed) ? subscribed : others);
      return;
    }
    // {"room_id":"...","seq":N,"at":NANOSECONDS,"pad":"..."}
    const char* const end = text.data() + text.size();
    uint64_t sequence = 0, published_at = 0;
    const char* at = std::from_chars(text.data() + prefix_.size(), end, sequence).ptr;
    constexpr std::string_view kAt = R"(,"at":)";
    at = std::from_chars(std::min(at + kAt.size(), end), end, published_at).ptr;
    ++delivered;
    if (text.size() != payload_bytes_) ++changed;
    uint64_t& next = next_[connection];
    if (sequence < next) ++repeated;
    if (sequence > next) lost += static_cast<int64_t>(sequence - next);
    next = std::max(next, sequence + 1);
    const auto now = static_cast<uint64_t>(SteadyClock::now().time_since_epoch().count());
    latencies.Add(now - std::min(now, published_at));
  }

  void OnClosed(size_t, uint16_t code, std::string_view reason) override { closes.Add(code, reason); }

  // Messages that have not come at all are lost, too.
  int64_t LostOf(uint64_t published) const {
    int64_t missing = lost;
    for (const uint64_t next : next_) missing += static_cast<int64_t>(published - std::min(published, next));
    return missing;
  }

  int64_t delivered = 0, subscribed = 0, others = 0, lost = 0, repeated = 0, changed = 0;
  Closes closes;
  Latencies latencies;

 private:
  const std::string prefix_;
  const size_t payload_bytes_;
  std::vector<uint64_t> next_;
};

std::string MessageText(const std::string& prefix, uint64_t sequence, size_t bytes) {
  std::string text = prefix;
  text += std::to_string(sequence);
  text += R"(,"at":)";
  text += std::to_string(SteadyClock::now().time_since_epoch().count());
  text += R"(,"pad":")";
  constexpr std::string_view kEnd = R"("})";
  if (text.size() + kEnd.size() < bytes) text.append(bytes - text.size() - kEnd.size(), 'x');
  return text += kEnd;
}

absl::Status RunFanout(const LoadOptions& options, const std::vector<std::string>& tokens) {
  auto publisher = RedisPublisher::Connect(options.redis, options.redis_password);
  if (!publisher.ok()) return publisher.status();
  RedisPublisher& redis = **publisher;
  const std::string prefix = R"({"room_id":")" + options.room + R"(","seq":)";
  FanoutCounts counts(options, prefix);
  ClientSwarm swarm(SwarmOptionsOf(options, tokens), counts);
  if (absl::Status status = swarm.OpenAll(options.patience); !status.ok()) return status;

  const auto connections = static_cast<int64_t>(options.connections);
  const auto room = [&](size_t) -> const std::string& { return options.room; };
  if (absl::Status status = SubscribeAll(swarm, options, room, counts.subscribed); !status.ok()) return status;
  if (absl::Status status = AwaitQuiet(swarm, options, counts.others); !status.ok()) return status;
  const int64_t others_before = counts.others;
  std::printf("%zu connections in room %s\n", swarm.open(), options.room.c_str());

  swarm.Watch(redis.fd(), EPOLLIN, [&redis](uint32_t events) -> absl::Status {
    if ((events & ~uint32_t{EPOLLOUT}) != 0) {
      if (absl::Status status = redis.OnReadable(); !status.ok()) return status;
    }
    return redis.OnWritable();
  });
  auto before = UsageOf(options.processes);
  if (!before.ok()) return before.status();
  const auto own_before = UsageOf(getpid());
  const auto start = SteadyClock::now();
  auto progress = start;
  uint64_t published = 0;
  const auto may_publish = [&] {
    if (published == options.messages) return false;
    if (options.messages_per_second > 0 &&
        static_cast<double>(published) >= SecondsSince(start) * static_cast<double>(options.messages_per_second)) {
      return false;
    }
    const int64_t outstanding = static_cast<int64_t>(published) * connections - counts.delivered;
    return outstanding == 0 || outstanding + connections <= static_cast<int64_t>(options.outstanding_max);
  };
  bool watches_output = false;
  while (counts.delivered < static_cast<int64_t>(options.messages) * connections) {
    for (; may_publish(); ++published) {
      redis.Publish("message:broadcast", MessageText(prefix, published, options.payload_bytes));
    }
    if (absl::Status status = redis.OnWritable(); !status.ok()) return status;
    if (std::exchange(watches_output, redis.wants_write()) != redis.wants_write()) {
      swarm.Rewatch(redis.fd(), watches_output ? EPOLLIN | EPOLLOUT : EPOLLIN);
    }
    const int64_t delivered_before = counts.delivered;
    const std::chrono::milliseconds wait(options.messages_per_second > 0 ? 1 : 100);
    if (auto polled = swarm.Poll(wait); !polled.ok()) return polled.status();
    const auto now = SteadyClock::now();
    if (counts.delivered != delivered_before) progress = now;
    if (now - progress > options.patience) break;
  }
  const double seconds = std::chrono::duration<double>(progress - start).count();
  auto after = UsageOf(options.processes);
  if (!after.ok()) return after.status();
  const auto own_after = UsageOf(getpid());

  if (counts.delivered == 0) return absl::AbortedError(absl::StrCat("none of ", published, " messages arrived"));
  const double deliveries = static_cast<double>(counts.delivered);
  std::printf("%" PRIu64 " messages of %zu bytes, %" PRId64 " deliveries in %.2f s: %.0f per second\n", published,
              options.payload_bytes, counts.delivered, seconds, deliveries / seconds);
  for (size_t i = 0; i < after->size(); ++i) {
    std::printf("%-8s %.2f CPU seconds per million deliveries\n", options.processes[i].label.c_str(),
                ((*after)[i].cpu_seconds - (*before)[i].cpu_seconds) / deliveries * 1e6);
  }
  if (own_before.ok() && own_after.ok()) {
    std::printf("%-8s %.2f CPU seconds per million deliveries\n", "load",
                (own_after->cpu_seconds - own_before->cpu_seconds) / deliveries * 1e6);
  }
  std::printf("from publishing to receiving: 50 %% in %.2f ms, 90 %% in %.2f ms, 99 %% in %.2f ms\n",
              counts.latencies.Milliseconds(0.5), counts.latencies.Milliseconds(0.9),
              counts.latencies.Milliseconds(0.99));
  const int64_t lost = counts.LostOf(published);
  std::printf("lost %" PRId64 ", repeated or late %" PRId64 ", of another length %" PRId64 ", other frames %" PRId64
              ", connections closed by the server %" PRId64 "\n",
              lost, counts.repeated, counts.changed, counts.others - others_before, counts.closes.total());
  counts.closes.Print();
  swarm.CloseAll();
  if (lost + counts.repeated + counts.changed + counts.closes.total() > 0) {
    return absl::AbortedError("not every message arrived once, in order, unchanged");
  }
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  if (!arguments.empty() && (arguments[0] == "help" || arguments[0] == "--help")) {
    std::fputs(LoadHelp().c_str(), stdout);
    return 0;
  }
  std::setvbuf(stdout, nullptr, _IOLBF, BUFSIZ);
  const auto options = ParseLoadOptions(arguments);
  if (!options.ok()) {
    std::fprintf(stderr, "presence-load: %s\n\n%s", std::string(options.status().message()).c_str(),
                 LoadHelp().c_str());
    return 2;
  }
  rlimit descriptors{};
  getrlimit(RLIMIT_NOFILE, &descriptors);
  descriptors.rlim_cur = descriptors.rlim_max;
  setrlimit(RLIMIT_NOFILE, &descriptors);

  absl::Status status;
  if (const auto tokens = MakeTokens(*options); !tokens.ok()) {
    status = tokens.status();
  } else {
    status = options->scenario == Scenario::kIdle ? RunIdle(*options, *tokens) : RunFanout(*options, *tokens);
  }
  if (status.ok()) return 0;
  std::fprintf(stderr, "presence-load: %s\n", status.ToString().c_str());
  return 1;
}

}  // namespace
}  // namespace presence::bench

int main(int argc, char** argv) {
  return presence::bench::Main(argc, argv);
}
