// The public API (proto/presence/v1/presence.proto).
//
// Methods run on gRPC's threads: they check the request, which is the costly part of a broadcast, and post to the runtime; answers come
// from the loop thread. The runtime must outlive every call: shut the server down first.
#pragma once

#include <grpcpp/grpcpp.h>

#include "core/core_runtime.h"
#include "core/unary_call.h"
#include "presence/v1/presence.grpc.pb.h"

namespace presence::core {

// A payload of 1 MiB as JSON text is up to 11 MiB as a Struct ("1," becomes a Value of 11 bytes): most of them fit, and who
// sends long lists of small numbers uses data_json.
inline constexpr int kApiReceiveBytesMax = 8 * 1024 * 1024;

class ApiService final : public v1::PresenceService::CallbackService {
 public:
  struct Metrics {
    MethodMetrics get_presence, list_presence, broadcast;
  };

  explicit ApiService(CoreRuntime& runtime) : runtime_(runtime) {}

  grpc::ServerUnaryReactor* GetPresence(grpc::CallbackServerContext* context, const v1::GetPresenceRequest* request,
                                        v1::Presence* response) override;
  grpc::ServerUnaryReactor* ListPresence(grpc::CallbackServerContext* context, const v1::ListPresenceRequest* request,
                                         v1::ListPresenceResponse* response) override;
  grpc::ServerUnaryReactor* Broadcast(grpc::CallbackServerContext* context, const v1::BroadcastRequest* request,
                                      v1::BroadcastResponse* response) override;

  const Metrics& metrics() const { return metrics_; }

 private:
  CoreRuntime& runtime_;
  // The hub lets 10,000 publications wait; 64 MiB is 64 of the largest payloads, or 26 of the largest pages.
  CallBudget budget_{.calls_max = 10'000, .bytes_max = 64 * 1024 * 1024};
  Metrics metrics_;
};

}  // namespace presence::core
