// One unary call, from its arrival on one of gRPC's threads to its answer on the loop thread.
//
// Belongs to gRPC: it deletes itself when gRPC is done with it, which is not before Refuse or Answer. Exactly one of the two is
// called, once. Request, response and context live until then. A call whose client has gone is answered like any other: nobody
// reads it. One that nobody waits for any more when its turn on the loop comes should be answered without work (see GivenUp), and
// what it asks all cores for is given up at once.
//
// What is under way is bounded by a CallBudget for each service; over it calls are refused with RESOURCE_EXHAUSTED.
#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "core/access.h"
#include "core/core_runtime.h"
#include "core/grpc_status.h"
#include "core/service_metrics.h"

namespace presence::core {

struct CallBudget {
  const char* service = "";  // for who is refused
  size_t calls_max = 0;
  size_t bytes_max = 0;  // what the calls make the service hold: payloads that wait, answers that are put together
  std::atomic<size_t> calls{0};
  std::atomic<size_t> bytes{0};
};

// What one user in a list is reckoned at, in the store's answer and in ours.
inline constexpr size_t kListedUserBytes = 256;

// OK, or why the caller may not: with the role in the details, when that is what is missing.
inline absl::Status CheckRole(Access& access, const grpc::CallbackServerContext& context, Role role) {
  absl::Status status = access.Check(context, role);
  if (!absl::IsPermissionDenied(status)) return status;
  return WithReason(std::move(status), reason::kRoleMissing, {{"role", std::string(RoleName(role))}});
}

class UnaryCall final : public grpc::ServerUnaryReactor {
 public:
  UnaryCall(const grpc::CallbackServerContext& context, CallBudget& budget, MethodMetrics& metrics)
      : context_(context), budget_(budget), metrics_(metrics), began_(std::chrono::steady_clock::now()) {}

  // --- from the method itself; those that refuse return the call, as the method does.

  // Takes the call's share of the budget. False: there is none; Refuse it.
  bool Admit(size_t bytes) {
    bytes_ = bytes;
    admitted_ = true;
    const size_t calls_now = budget_.calls.fetch_add(1, std::memory_order_relaxed) + 1;
    const size_t bytes_now = budget_.bytes.fetch_add(bytes, std::memory_order_relaxed) + bytes;
    return calls_now <= budget_.calls_max && bytes_now <= budget_.bytes_max;
  }

  grpc::ServerUnaryReactor* Refuse(const absl::Status& why) {
    metrics_.refused.fetch_add(1, std::memory_order_relaxed);
    End(why);
    return this;
  }
  grpc::ServerUnaryReactor* RefuseOverBudget() {
    return Refuse(WithReason(
        absl::ResourceExhaustedError(absl::StrCat(budget_.service, ": ", budget_.calls_max, " calls, or ",
                                                  budget_.bytes_max, " bytes, are under way; try again shortly")),
        reason::kTooManyCalls,
        {{"service", budget_.service},
         {"calls_max", absl::StrCat(budget_.calls_max)},
         {"bytes_max", absl::StrCat(budget_.bytes_max)}}));
  }

  // --- from the method, behind Admit, or from the loop thread, before Answer.

  // Cancelled, or past its deadline.
  bool GivenUp() const { return cancelled_.load() || context_.IsCancelled(); }

  // Asks all cores. `done` is called on the loop thread and Answers the call, or asks again. The runtime outlives the call.
  void Ask(CoreRuntime& runtime, link::v1::ClusterRequest body, AskDone done) {
    if (runtime_ == nullptr) runtime_ = &runtime;  // once: OnCancel may be reading it
    const uint64_t request = runtime.NextRequest();
    asked_.store(request);
    runtime.Ask(request, std::move(body), std::move(done));
    // OnCancel may have come between: then its GiveUp was too early, or named the question before this one.
    if (cancelled_.load()) runtime.GiveUp(request);
  }

  // --- from the loop thread.

  // The response is filled in when the status is OK.
  void Answer(const absl::Status& status) {
    metrics_.latency.Observe(std::chrono::steady_clock::now() - began_);
    (status.ok() ? metrics_.answered : GivenUp() ? metrics_.given_up : metrics_.failed).Add();
    End(status);
  }
  void AnswerGivenUp() { Answer(absl::CancelledError("nobody waits for the answer")); }

 private:
  void End(const absl::Status& status) {
    if (admitted_) {
      budget_.calls.fetch_sub(1, std::memory_order_relaxed);
      budget_.bytes.fetch_sub(bytes_, std::memory_order_relaxed);
    }
    Finish(ToGrpc(status));
  }

  // On another thread, any time after the method has returned and before OnDone: also while the loop answers, or asks once more.
  // Either this sees what was asked last, or Ask sees `cancelled_`.
  void OnCancel() override {
    cancelled_.store(true);
    if (const uint64_t request = asked_.load(); request != 0) runtime_->GiveUp(request);
  }

  void OnDone() override { delete this; }

  const grpc::CallbackServerContext& context_;
  CallBudget& budget_;
  MethodMetrics& metrics_;
  const SteadyTime began_;
  size_t bytes_ = 0;
  bool admitted_ = false;
  CoreRuntime* runtime_ = nullptr;  // before asked_
  std::atomic<uint64_t> asked_{0};
  std::atomic<bool> cancelled_{false};
};

}  // namespace presence::core
