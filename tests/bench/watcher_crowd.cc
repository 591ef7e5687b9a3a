#include "tests/bench/watcher_crowd.h"

#include <chrono>
#include <thread>

#include "absl/strings/str_cat.h"

namespace presence::bench {
namespace {

constexpr std::chrono::seconds kPatience{60};

}  // namespace

class WatcherCrowd::Watcher final : public grpc::ClientReadReactor<v1::WatchPresenceResponse> {
 public:
  Watcher(v1::PresenceService::Stub& stub, const v1::WatchPresenceRequest& request, Counts& counts)
      : counts_(counts), request_(request) {
    stub.async()->WatchPresence(&context_, &request_, this);
    StartRead(&response_);
    StartCall();
  }

  void Cancel() { context_.TryCancel(); }

 private:
  void OnReadDone(bool ok) override {
    if (!ok) return;
    counts_.rows += static_cast<uint64_t>(response_.presences_size());
    ++counts_.responses;
    if (response_.snapshot_done()) {
      ++counts_.snapshots;
      v1::WatchPresenceResponse().Swap(&response_);  // the memory of the snapshot
    }
    StartRead(&response_);
  }
  void OnDone(const grpc::Status&) override { ++counts_.ended; }

  Counts& counts_;
  const v1::WatchPresenceRequest request_;
  grpc::ClientContext context_;
  v1::WatchPresenceResponse response_;
};

WatcherCrowd::WatcherCrowd(const std::string& address)
    : stub_(v1::PresenceService::NewStub(grpc::CreateChannel(address, grpc::InsecureChannelCredentials()))) {}

WatcherCrowd::~WatcherCrowd() {
  Close();
}

absl::Status WatcherCrowd::Open(size_t count, size_t opening_max, const v1::WatchPresenceRequest& request) {
  const uint64_t before = counts_.snapshots;
  for (size_t opened = 0; opened < count; ++opened) {
    if (opened >= opening_max) {
      absl::Status status = Await(counts_.snapshots, before + opened - opening_max + 1, "snapshots");
      if (!status.ok()) return status;
    }
    watchers_.push_back(std::make_unique<Watcher>(*stub_, request, counts_));
  }
  return Await(counts_.snapshots, before + count, "snapshots");
}

absl::Status WatcherCrowd::AwaitRows(uint64_t rows) {
  if (absl::Status status = Await(counts_.rows, rows, "rows"); !status.ok()) return status;
  if (counts_.rows == rows) return absl::OkStatus();
  return absl::AbortedError(absl::StrCat("watchers were told ", counts_.rows - rows, " rows too many"));
}

absl::Status WatcherCrowd::Await(const std::atomic<uint64_t>& count, uint64_t value, const char* what) const {
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  while (count < value) {
    if (counts_.ended > 0) return absl::AbortedError(absl::StrCat(counts_.ended.load(), " watchers were ended"));
    if (std::chrono::steady_clock::now() > deadline) {
      return absl::DeadlineExceededError(absl::StrCat("of ", value, " ", what, " only ", count.load(), " have come"));
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return absl::OkStatus();
}

void WatcherCrowd::Close() {
  for (const auto& watcher : watchers_) watcher->Cancel();
  while (counts_.ended < watchers_.size()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  watchers_.clear();
  counts_.ended = 0;
}

}  // namespace presence::bench
