// One Tap call: what happens to a user or in a room, as the hubs of all cores tell it. See server_stream.h for its threads and
// its life.
//
// Checks the request; access is checked by the caller.
#pragma once

#include <grpcpp/grpcpp.h>

#include "absl/status/status.h"
#include "core/core_runtime.h"
#include "core/service_metrics.h"
#include "presence/admin/v1/admin.pb.h"

namespace presence::core {

// REQUIRES: the runtime and the metrics outlive the call.
grpc::ServerWriteReactor<admin::v1::TapResponse>* StartTap(grpc::CallbackServerContext& context,
                                                           const admin::v1::TapRequest& request, CoreRuntime& runtime,
                                                           StreamMetrics& metrics);

// A stream that ends at once.
grpc::ServerWriteReactor<admin::v1::TapResponse>* RefuseTap(const absl::Status& why, StreamMetrics& metrics);

}  // namespace presence::core
