// Many WatchPresence calls of one client, on one channel, which count what they are told.
//
// Made and asked by one thread; reactions run on gRPC's.
#pragma once

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "presence/v1/presence.grpc.pb.h"

namespace presence::bench {

class WatcherCrowd {
 public:
  explicit WatcherCrowd(const std::string& address);
  ~WatcherCrowd();  // closes
  WatcherCrowd(const WatcherCrowd&) = delete;
  WatcherCrowd& operator=(const WatcherCrowd&) = delete;

  // Opens `count` more, with at most `opening_max` whose snapshots are under way, and returns when all snapshots are complete.
  absl::Status Open(size_t count, size_t opening_max, const v1::WatchPresenceRequest& request);
  // Until so many rows in all have come.
  absl::Status AwaitRows(uint64_t rows);
  // Cancels all, and waits for their ends.
  void Close();

  uint64_t rows() const { return counts_.rows.load(); }
  uint64_t responses() const { return counts_.responses.load(); }
  v1::PresenceService::Stub& stub() { return *stub_; }

 private:
  struct Counts {
    std::atomic<uint64_t> rows{0}, responses{0}, snapshots{0}, ended{0};
  };
  class Watcher;

  absl::Status Await(const std::atomic<uint64_t>& count, uint64_t value, const char* what) const;

  std::unique_ptr<v1::PresenceService::Stub> stub_;
  Counts counts_;
  std::vector<std::unique_ptr<Watcher>> watchers_;
};

}  // namespace presence::bench
