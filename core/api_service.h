// The public API (proto/presence/v1/presence.proto).
//
// Methods run on gRPC's threads: they ask Access, check the request, which is the costly part of a message, and post to the runtime;
// answers come from the loop thread. The runtime must outlive every call: shut the server down first.
//
//   api_service.cc    presence: reads, and the watch (watch_stream.h)
//   api_messages.cc   messages and typing
//   api_rooms.cc      who is where, on all cores
//   api_orders.cc     what all cores carry out: statuses, disconnections, leaves
//
// Does not do: decisions (the hub's), the answers' merging (cluster_queries.h).
#pragma once

#include <grpcpp/grpcpp.h>

#include "core/access.h"
#include "core/core_runtime.h"
#include "core/unary_call.h"
#include "presence/v1/presence.grpc.pb.h"

namespace presence::core {

// A payload of 1 MiB as JSON text is up to 11 MiB as a Struct ("1," becomes a Value of 11 bytes): text, names and a hundred
// thousand numbers fit, and who sends more of them uses data_json. What gRPC's other languages take by default, too.
inline constexpr int kApiReceiveBytesMax = 4 * 1024 * 1024;

class ApiService final : public v1::PresenceService::CallbackService {
  using Context = grpc::CallbackServerContext;
  using Reactor = grpc::ServerUnaryReactor;

 public:
  ApiService(CoreRuntime& runtime, Access& access) : runtime_(runtime), access_(access) {}

  Reactor* GetPresence(Context* context, const v1::GetPresenceRequest* request, v1::Presence* response) override;
  Reactor* BatchGetPresence(Context* context, const v1::BatchGetPresenceRequest* request,
                            v1::BatchGetPresenceResponse* response) override;
  Reactor* ListPresence(Context* context, const v1::ListPresenceRequest* request,
                        v1::ListPresenceResponse* response) override;

  grpc::ServerWriteReactor<v1::WatchPresenceResponse>* WatchPresence(Context* context,
                                                                     const v1::WatchPresenceRequest* request) override;

  Reactor* Broadcast(Context* context, const v1::BroadcastRequest* request, v1::BroadcastResponse* response) override;
  Reactor* SendToUser(Context* context, const v1::SendToUserRequest* request,
                      v1::SendToUserResponse* response) override;
  Reactor* SetTyping(Context* context, const v1::SetTypingRequest* request, v1::SetTypingResponse* response) override;

  Reactor* ListRooms(Context* context, const v1::ListRoomsRequest* request, v1::ListRoomsResponse* response) override;
  Reactor* GetRoom(Context* context, const v1::GetRoomRequest* request, v1::GetRoomResponse* response) override;
  Reactor* ListConnections(Context* context, const v1::ListConnectionsRequest* request,
                           v1::ListConnectionsResponse* response) override;

  Reactor* SetStatus(Context* context, const v1::SetStatusRequest* request, v1::SetStatusResponse* response) override;
  Reactor* DisconnectUser(Context* context, const v1::DisconnectUserRequest* request,
                          v1::DisconnectUserResponse* response) override;
  Reactor* DisconnectConnection(Context* context, const v1::DisconnectConnectionRequest* request,
                                v1::DisconnectConnectionResponse* response) override;
  Reactor* UnsubscribeUser(Context* context, const v1::UnsubscribeUserRequest* request,
                           v1::UnsubscribeUserResponse* response) override;
  Reactor* ForgetRoomRights(Context* context, const v1::ForgetRoomRightsRequest* request,
                            v1::ForgetRoomRightsResponse* response) override;

  const ServiceMetrics& metrics() const { return metrics_; }

 private:
  UnaryCall* NewCall(Context* context, MethodMetrics& metrics) { return new UnaryCall(*context, budget_, metrics); }

  CoreRuntime& runtime_;
  Access& access_;
  // The hub lets 10,000 publications wait; 64 MiB is 64 of the largest payloads, or 26 of the largest pages.
  CallBudget budget_{.service = "PresenceService", .calls_max = 10'000, .bytes_max = 64 * 1024 * 1024};

  ServiceMetrics metrics_;
  MethodMetrics& get_presence_ = metrics_.Add("GetPresence");
  MethodMetrics& batch_get_presence_ = metrics_.Add("BatchGetPresence");
  MethodMetrics& list_presence_ = metrics_.Add("ListPresence");
  StreamMetrics& watch_presence_ = metrics_.AddStream("WatchPresence");
  MethodMetrics& broadcast_ = metrics_.Add("Broadcast");
  MethodMetrics& send_to_user_ = metrics_.Add("SendToUser");
  MethodMetrics& set_typing_ = metrics_.Add("SetTyping");
  MethodMetrics& list_rooms_ = metrics_.Add("ListRooms");
  MethodMetrics& get_room_ = metrics_.Add("GetRoom");
  MethodMetrics& list_connections_ = metrics_.Add("ListConnections");
  MethodMetrics& set_status_ = metrics_.Add("SetStatus");
  MethodMetrics& disconnect_user_ = metrics_.Add("DisconnectUser");
  MethodMetrics& disconnect_connection_ = metrics_.Add("DisconnectConnection");
  MethodMetrics& unsubscribe_user_ = metrics_.Add("UnsubscribeUser");
  MethodMetrics& forget_room_rights_ = metrics_.Add("ForgetRoomRights");
};

}  // namespace presence::core
