// Operations on cores and edges (proto/presence/admin/v1/admin.proto).
//
// As ApiService: methods run on gRPC's threads, check, and post to the runtime; answers come from the loop thread. The runtime
// must outlive every call.
//
// An order to a core or an edge by its name is two questions to all cores: who is there, then the order. A count of what the
// order did cannot tell an edge without clients from one that is not there.
#pragma once

#include <grpcpp/grpcpp.h>

#include "core/access.h"
#include "core/core_runtime.h"
#include "core/unary_call.h"
#include "presence/admin/v1/admin.grpc.pb.h"

namespace presence::core {

class AdminService final : public admin::v1::AdminService::CallbackService {
  using Context = grpc::CallbackServerContext;
  using Reactor = grpc::ServerUnaryReactor;

 public:
  AdminService(CoreRuntime& runtime, Access& access) : runtime_(runtime), access_(access) {}

  Reactor* GetClusterState(Context* context, const admin::v1::GetClusterStateRequest* request,
                           admin::v1::GetClusterStateResponse* response) override;
  Reactor* DrainEdge(Context* context, const admin::v1::DrainEdgeRequest* request,
                     admin::v1::DrainEdgeResponse* response) override;
  Reactor* DrainCore(Context* context, const admin::v1::DrainCoreRequest* request,
                     admin::v1::DrainCoreResponse* response) override;
  Reactor* SetLogLevel(Context* context, const admin::v1::SetLogLevelRequest* request,
                       admin::v1::SetLogLevelResponse* response) override;

  grpc::ServerWriteReactor<admin::v1::TapResponse>* Tap(Context* context,
                                                        const admin::v1::TapRequest* request) override;

  const ServiceMetrics& metrics() const { return metrics_; }

 private:
  CoreRuntime& runtime_;
  Access& access_;
  // Operators, not clients: 100 at once are a script gone wild. A state of 10,000 shards is half a megabyte.
  CallBudget budget_{.service = "AdminService", .calls_max = 100, .bytes_max = 64 * 1024 * 1024};

  ServiceMetrics metrics_;
  MethodMetrics& get_cluster_state_ = metrics_.Add("GetClusterState");
  MethodMetrics& drain_edge_ = metrics_.Add("DrainEdge");
  MethodMetrics& drain_core_ = metrics_.Add("DrainCore");
  MethodMetrics& set_log_level_ = metrics_.Add("SetLogLevel");
  StreamMetrics& tap_ = metrics_.AddStream("Tap");
};

}  // namespace presence::core
