// One unary call, from its arrival on one of gRPC's threads to its answer on the loop thread.
//
// Belongs to gRPC: it deletes itself when gRPC is done with it, which is not before Refuse or Answer. Exactly one of the two is
// called, once. Request, response and context live until then. A call whose client has gone is answered like any other: nobody
// reads it. One that nobody waits for any more when its turn on the loop comes should be answered without work: see GivenUp.
//
// What is under way is bounded by a CallBudget for each service; over it calls are refused with RESOURCE_EXHAUSTED.
#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "common/metrics.h"
#include "core/grpc_status.h"

namespace presence::core {

struct CallBudget {
  size_t calls_max = 0;
  size_t bytes_max = 0;  // what the calls make the service hold: payloads that wait, answers that are put together
  std::atomic<size_t> calls{0};
  std::atomic<size_t> bytes{0};
};

// What one user in a list is reckoned at, in the store's answer and in ours.
inline constexpr size_t kListedUserBytes = 256;

struct MethodMetrics {
  // By the loop thread: calls that were admitted.
  LatencyHistogram latency;
  Counter answered, failed;
  // By any thread: calls that were invalid or over the budget.
  std::atomic<uint64_t> refused{0};
};

class UnaryCall final : public grpc::ServerUnaryReactor {
 public:
  UnaryCall(const grpc::CallbackServerContext& context, CallBudget& budget, MethodMetrics& metrics)
      : context_(context), budget_(budget), metrics_(metrics), began_(std::chrono::steady_clock::now()) {}

  // Takes the call's share of the budget. False: there is none; Refuse it.
  bool Admit(size_t bytes) {
    bytes_ = bytes;
    admitted_ = true;
    const size_t calls_now = budget_.calls.fetch_add(1, std::memory_order_relaxed) + 1;
    const size_t bytes_now = budget_.bytes.fetch_add(bytes, std::memory_order_relaxed) + bytes;
    return calls_now <= budget_.calls_max && bytes_now <= budget_.bytes_max;
  }

  // From the method itself; returns the call, as the method does.
  grpc::ServerUnaryReactor* Refuse(const absl::Status& why) {
    metrics_.refused.fetch_add(1, std::memory_order_relaxed);
    End(why);
    return this;
  }
  grpc::ServerUnaryReactor* RefuseOverBudget() {
    return Refuse(absl::ResourceExhaustedError("too many calls are under way; try again shortly"));
  }

  // From the loop thread, when its turn comes: cancelled, or past its deadline.
  bool GivenUp() const { return context_.IsCancelled(); }

  // From the loop thread. The response is filled in when the status is OK.
  void Answer(const absl::Status& status) {
    metrics_.latency.Observe(std::chrono::steady_clock::now() - began_);
    (status.ok() ? metrics_.answered : metrics_.failed).Add();
    End(status);
  }

 private:
  void End(const absl::Status& status) {
    if (admitted_) {
      budget_.calls.fetch_sub(1, std::memory_order_relaxed);
      budget_.bytes.fetch_sub(bytes_, std::memory_order_relaxed);
    }
    Finish(ToGrpc(status));
  }

  void OnDone() override { delete this; }

  const grpc::CallbackServerContext& context_;
  CallBudget& budget_;
  MethodMetrics& metrics_;
  const SteadyTime began_;
  size_t bytes_ = 0;
  bool admitted_ = false;
};

}  // namespace presence::core
