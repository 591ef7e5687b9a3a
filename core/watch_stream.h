// One WatchPresence call: takes from Watches as fast as its client reads. See server_stream.h for its threads and its life.
//
// Checks the request; access is checked by the caller.
#pragma once

#include <grpcpp/grpcpp.h>

#include "absl/status/status.h"
#include "core/core_runtime.h"
#include "core/service_metrics.h"
#include "presence/v1/presence.pb.h"

namespace presence::core {

// REQUIRES: the runtime and the metrics outlive the call.
grpc::ServerWriteReactor<v1::WatchPresenceResponse>* StartWatch(grpc::CallbackServerContext& context,
                                                                const v1::WatchPresenceRequest& request,
                                                                CoreRuntime& runtime, StreamMetrics& metrics);

// A stream that ends at once.
grpc::ServerWriteReactor<v1::WatchPresenceResponse>* RefuseWatch(const absl::Status& why, StreamMetrics& metrics);

}  // namespace presence::core
