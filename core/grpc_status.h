// Statuses of ours as gRPC's. The codes are the same numbers; the details travel as google.rpc.Status in
// grpc-status-details-bin, where every gRPC library finds them.
//
// Any thread. Text of statuses is for developers: it says what is wrong and what to do, and never repeats what was sent.
// Details hold what a program may want to act upon.
#pragma once

#include <grpcpp/support/status.h>

#include <chrono>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"

namespace presence::core {

// google.rpc.ErrorInfo.reason, in the domain "presence". Part of the API: names are never changed or reused.
namespace reason {
inline constexpr std::string_view kRoleMissing = "ROLE_MISSING";           // PERMISSION_DENIED; role
inline constexpr std::string_view kPayloadTooLarge = "PAYLOAD_TOO_LARGE";  // RESOURCE_EXHAUSTED; bytes_max
inline constexpr std::string_view kMayHaveBeenDelivered =
    "MAY_HAVE_BEEN_DELIVERED";  // UNAVAILABLE; of a message without request_id
inline constexpr std::string_view kRequestIdReused = "REQUEST_ID_REUSED";        // ALREADY_EXISTS
inline constexpr std::string_view kUserNotConnected = "USER_HAS_NO_CONNECTION";  // FAILED_PRECONDITION
inline constexpr std::string_view kLastCore = "LAST_CORE";                       // FAILED_PRECONDITION
inline constexpr std::string_view kTooManyCalls =
    "TOO_MANY_CALLS";  // RESOURCE_EXHAUSTED; service, calls_max, bytes_max
}  // namespace reason

// What UNAVAILABLE and RESOURCE_EXHAUSTED tell the caller to wait, unless the status says something else. Most of what is behind
// them is over by then: a core that did not answer is found out after 0.5 s, Redis is tried again at least every second, a
// message that waits is given up for the bus after 0.5 s. Callers should add jitter, as gRPC's own retries do.
inline constexpr std::chrono::milliseconds kRetryDelay{1000};

// google.rpc.ErrorInfo. `status` is not OK.
absl::Status WithReason(absl::Status status, std::string_view reason,
                        const std::vector<std::pair<std::string, std::string>>& metadata = {});

// google.rpc.RetryInfo. `status` is not OK.
absl::Status WithRetryDelay(absl::Status status, std::chrono::milliseconds delay);

// google.rpc.BadRequest.
struct FieldViolation {
  std::string field;        // as in "user_ids[3]"
  std::string description;  // "must ..."
};
// `status` is not OK.
absl::Status WithViolations(absl::Status status, const std::vector<FieldViolation>& violations);

// With the details that the status has, and RetryInfo for UNAVAILABLE and RESOURCE_EXHAUSTED. Those at which a field is at fault
// get none: trying again would not help; nor those of a message that may have been delivered: trying again would double it.
grpc::Status ToGrpc(const absl::Status& status);

}  // namespace presence::core
