#include "tests/bench/user_crowd.h"

#include <pthread.h>

#include <chrono>
#include <ctime>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/time.h"
#include "edge/cli/dev_keys.h"

namespace presence::bench {
namespace {

constexpr std::chrono::seconds kPatience{20};
constexpr std::chrono::seconds kPingEvery{10};
constexpr std::chrono::milliseconds kLookAround{50};  // at `stop_`

}  // namespace

std::string UserId(size_t number) {
  return absl::StrCat("bench-", number);
}

absl::StatusOr<std::unique_ptr<UserCrowd>> UserCrowd::Open(Options options) {
  std::unique_ptr<UserCrowd> crowd(new UserCrowd(std::move(options)));
  if (absl::Status status = crowd->Connect(); !status.ok()) return status;
  crowd->thread_ = std::thread([&self = *crowd] { self.Run(); });
  return crowd;
}

absl::Status UserCrowd::Connect() {
  edge::cli::Options signing;
  for (size_t i = 0; i < options_.users; ++i) {
    signing.user = UserId(i);
    auto token = edge::cli::SignDevelopmentToken(signing, options_.signing_key, ReadClocks().wall);
    if (!token.ok()) return token.status();
    tokens_.push_back(*std::move(token));
  }
  SwarmOptions swarm;
  swarm.addresses = {options_.edge};
  swarm.connections = options_.users;
  swarm.token = [this](size_t connection) -> const std::string& { return tokens_[connection]; };
  SwarmHandler& self = *this;
  swarm_ = std::make_unique<ClientSwarm>(std::move(swarm), self);
  if (absl::Status status = swarm_->OpenAll(kPatience); !status.ok()) return status;
  if (options_.room.empty()) return absl::OkStatus();
  const std::string subscribe = absl::StrCat(R"({"type":"subscribe","channel_id":")", options_.room, R"("})");
  for (size_t i = 0; i < options_.users; ++i) swarm_->SendText(i, subscribe);
  for (const auto start = std::chrono::steady_clock::now(); subscribed_ < options_.users;) {
    if (auto polled = swarm_->Poll(kLookAround); !polled.ok()) return polled.status();
    if (std::chrono::steady_clock::now() - start > kPatience) {
      return absl::DeadlineExceededError("not all subscriptions were confirmed");
    }
  }
  return absl::OkStatus();
}

UserCrowd::~UserCrowd() {
  stop_ = true;
  if (thread_.joinable()) thread_.join();
}

void UserCrowd::Run() {
  auto pinged = std::chrono::steady_clock::now();
  while (!stop_) {
    if (auto polled = swarm_->Poll(kLookAround); !polled.ok()) {
      failed_ = true;
      return;
    }
    if (std::chrono::steady_clock::now() - pinged < kPingEvery) continue;
    pinged = std::chrono::steady_clock::now();
    for (size_t i = 0; i < options_.users; ++i) swarm_->SendText(i, R"({"type":"ping"})");
  }
  swarm_->CloseAll();
}

void UserCrowd::OnText(size_t, std::string_view text) {
  if (text.starts_with(R"({"type":"message")")) {
    messages_.fetch_add(1, std::memory_order_relaxed);
  } else if (text.starts_with(R"({"type":"subscribed")")) {
    ++subscribed_;
  }
}

void UserCrowd::OnClosed(size_t, uint16_t, std::string_view) {
  ++closed_;
}

double UserCrowd::CpuSeconds() {
  clockid_t clock{};
  timespec used{};
  if (pthread_getcpuclockid(thread_.native_handle(), &clock) != 0 || clock_gettime(clock, &used) != 0) return 0;
  return static_cast<double>(used.tv_sec) + static_cast<double>(used.tv_nsec) / 1e9;
}

absl::Status UserCrowd::status() const {
  if (failed_) return absl::UnavailableError("the WebSocket clients' sockets failed");
  if (closed_ == 0) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat("the edge closed ", closed_.load(), " WebSocket clients"));
}

}  // namespace presence::bench
