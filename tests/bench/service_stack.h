// The processes that a benchmark of the API runs against: a Redis, a core, an edge, and the bare server of bare_service.h, on free
// ports and in processes of their own. They die with this object, and with this process.
//
// One thread. What is set in the environment counts for the core and the edge, too, but for names, addresses and keys.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tests/bench/process_usage.h"
#include "tests/fakes/redis_server.h"

namespace presence::bench {

class ChildProcess {
 public:
  struct Setting {
    std::string name, value;
  };

  // What it writes goes to `log_path`.
  static absl::StatusOr<std::unique_ptr<ChildProcess>> Start(const std::vector<std::string>& command,
                                                             const std::vector<Setting>& environment,
                                                             std::string log_path);
  ~ChildProcess();  // SIGKILL
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  // The word that follows `text` in what it has written: up to a space, a comma or the end of the line. Waits for it at most 20 s.
  // UNAVAILABLE, with the last lines: it has ended, or does not say so.
  absl::StatusOr<std::string> AwaitWordAfter(std::string_view text);

  pid_t pid() const { return pid_; }

 private:
  ChildProcess(pid_t pid, std::string log_path) : pid_(pid), log_path_(std::move(log_path)) {}

  const pid_t pid_;
  const std::string log_path_;
};

class ServiceStack {
 public:
  // `programs`: the folder with presence-core and presence-edge.
  static absl::StatusOr<std::unique_ptr<ServiceStack>> Start(const std::string& programs);
  ~ServiceStack();

  const std::string& core_api() const { return core_api_; }
  const std::string& bare_api() const { return bare_api_; }
  const std::string& edge_address() const { return edge_address_; }
  const std::string& signing_key() const { return signing_key_; }  // the file

  ProcessName core() const { return {"core", core_->pid()}; }
  ProcessName bare() const { return {"bare", bare_->pid()}; }
  ProcessName edge() const { return {"edge", edge_->pid()}; }
  ProcessName redis() const { return {"Redis", redis_pid_}; }

 private:
  ServiceStack() = default;
  absl::Status StartAll(const std::string& programs);

  RedisServer redis_;
  pid_t redis_pid_ = 0;
  std::string directory_;
  std::unique_ptr<ChildProcess> core_, bare_, edge_;
  std::string core_api_, bare_api_, edge_address_, signing_key_;
};

}  // namespace presence::bench
