// The gRPC service that edges use (proto/presence/link/v1/link.proto): carries frames between Attach streams and the loop,
// and answers the reads that the edges' REST needs, and the logouts that they were told of.
//
// Methods and reactions run on gRPC's threads; they post to the runtime and return. Commands come from the loop encoded
// (core/frame_gatherer.h), so Attach is a raw method: it moves bytes, and parses what comes in where gRPC would have, on
// gRPC's threads, into messages that are used again.
//
// Every method asks LinkAccess first: what reads presence is not open to whom Attach is closed.
//
// The runtime must outlive every call: shut the server down first. Knows nothing of what events mean; it checks only that a
// frame parses.
#pragma once

#include <grpcpp/grpcpp.h>

#include <utility>

#include "core/core_runtime.h"
#include "core/link_access.h"
#include "core/unary_call.h"
#include "presence/link/v1/link.grpc.pb.h"

namespace presence::core {

// The largest thing an edge may send: a declaration with 1,000 rooms of 2,048 bytes is 2 MiB.
inline constexpr int kLinkReceiveBytesMax = 4 * 1024 * 1024;

// A name to keep the generated mixins readable.
using LinkServiceBase = link::v1::Link::WithRawCallbackMethod_Attach<
    link::v1::Link::WithCallbackMethod_LookUpPresence<link::v1::Link::WithCallbackMethod_ListPresence<
        link::v1::Link::WithCallbackMethod_EndSessions<link::v1::Link::Service>>>>;

class LinkService final : public LinkServiceBase {
 public:
  struct Metrics {
    MethodMetrics look_up_presence, list_presence, end_sessions;
  };

  LinkService(CoreRuntime& runtime, LinkAccess access) : runtime_(runtime), access_(std::move(access)) {}

  grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* Attach(grpc::CallbackServerContext* context) override;

  grpc::ServerUnaryReactor* LookUpPresence(grpc::CallbackServerContext* context,
                                           const link::v1::LookUpPresenceRequest* request,
                                           link::v1::PresenceRecord* response) override;
  grpc::ServerUnaryReactor* ListPresence(grpc::CallbackServerContext* context,
                                         const link::v1::ListPresenceRequest* request,
                                         link::v1::ListPresenceResponse* response) override;
  grpc::ServerUnaryReactor* EndSessions(grpc::CallbackServerContext* context,
                                        const link::v1::EndSessionsRequest* request,
                                        link::v1::EndSessionsResponse* response) override;

  const Metrics& metrics() const { return metrics_; }

 private:
  CoreRuntime& runtime_;
  const LinkAccess access_;
  // Each edge shard sends at most 1,024 at once; the store answers or gives up within 2 s. 64 MiB is 26 of the
  // largest lists.
  CallBudget budget_{.service = "Link", .calls_max = 10'000, .bytes_max = 64 * 1024 * 1024};
  Metrics metrics_;
};

}  // namespace presence::core
