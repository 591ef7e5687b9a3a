// What all cores carry out on the connections of a user: statuses, disconnections, leaves.
#include <string>
#include <utility>
#include <vector>

#include "core/api_counts.h"
#include "core/api_request.h"
#include "core/api_service.h"

namespace presence::core {
namespace {

using link::v1::ClusterReply;
using link::v1::ClusterRequest;

constexpr size_t kCloseReasonBytesMax = 123;  // RFC 6455, section 5.5: a control frame holds 125, two of them the code

// `code` and `reason` of both requests.
template <typename Request>
void ReadClose(const Request& request, RequestCheck& check, link::v1::DisconnectOrder& order) {
  order.set_code(check.Field("code", ReadCloseCode(request.code())));
  check.Field("reason", CheckText(request.reason(), kCloseReasonBytesMax));
  order.set_reason(request.reason());
}

// No core has a connection of this user. When the user is not offline all the same, a shard is just between two cores, and the order has
// reached nobody: that must not be told as done. `none`: the answer otherwise.
void AnswerNobody(UnaryCall* call, CoreRuntime& runtime, const std::string& user_id, absl::Status none) {
  runtime.OnLoop([call, user_id, none = std::move(none)](LoopParts& loop) {
    loop.store.GetPresence(user_id, [call, none](absl::StatusOr<StoredPresence> presence) {
      if (!presence.ok()) return call->Answer(presence.status());
      if (presence->status == link::v1::STATUS_OFFLINE) return call->Answer(none);
      call->Answer(
          absl::UnavailableError("the user is connected, but no core has the connection: it is just moving from "
                                 "one core to another; try again"));
    });
  });
}

}  // namespace

grpc::ServerUnaryReactor* ApiService::SetStatus(Context* context, const v1::SetStatusRequest* request,
                                                v1::SetStatusResponse* response) {
  UnaryCall* const call = NewCall(context, set_status_);
  if (auto why = CheckRole(access_, *context, Role::kPublish); !why.ok()) return call->Refuse(why);
  RequestCheck check;
  check.Id("user_id", request->user_id());
  if (request->status() != v1::STATUS_AWAY && request->status() != v1::STATUS_ONLINE) {
    check.Refuse("status", "must be AWAY or ONLINE; to take somebody offline, see DisconnectUser");
  }
  if (!check.ok()) return call->Refuse(check.status());
  ClusterRequest order;
  order.mutable_status()->set_user_id(request->user_id());
  order.mutable_status()->set_status(static_cast<link::v1::Status>(request->status()));
  if (!call->Admit(order.ByteSizeLong())) return call->RefuseOverBudget();
  call->Ask(runtime_, std::move(order),
            [call, request, response, &runtime = runtime_](const absl::Status& status,
                                                           const std::vector<ClusterReply>& replies) {
              if (!status.ok()) return call->Answer(status);
              response->set_connection_count(CountOf(replies));
              if (response->connection_count() > 0) return call->Answer(absl::OkStatus());
              AnswerNobody(call, runtime, request->user_id(),
                           WithReason(absl::FailedPreconditionError("the user has no connection that could have a "
                                                                    "status; try again when the user is connected"),
                                      reason::kUserNotConnected));
            });
  return call;
}

grpc::ServerUnaryReactor* ApiService::DisconnectUser(Context* context, const v1::DisconnectUserRequest* request,
                                                     v1::DisconnectUserResponse* response) {
  UnaryCall* const call = NewCall(context, disconnect_user_);
  if (auto why = CheckRole(access_, *context, Role::kAdmin); !why.ok()) return call->Refuse(why);
  RequestCheck check;
  ClusterRequest order;
  check.Id("user_id", request->user_id());
  order.mutable_disconnect()->set_user_id(request->user_id());
  ReadClose(*request, check, *order.mutable_disconnect());
  if (!check.ok()) return call->Refuse(check.status());
  if (!call->Admit(order.ByteSizeLong())) return call->RefuseOverBudget();
  call->Ask(runtime_, std::move(order),
            [call, request, response, &runtime = runtime_](const absl::Status& status,
                                                           const std::vector<ClusterReply>& replies) {
              response->set_connection_count(CountOf(replies));
              if (!status.ok() || response->connection_count() > 0) return call->Answer(status);
              AnswerNobody(call, runtime, request->user_id(), absl::OkStatus());
            });
  return call;
}

grpc::ServerUnaryReactor* ApiService::DisconnectConnection(Context* context,
                                                           const v1::DisconnectConnectionRequest* request,
                                                           v1::DisconnectConnectionResponse* /*response*/) {
  UnaryCall* const call = NewCall(context, disconnect_connection_);
  if (auto why = CheckRole(access_, *context, Role::kAdmin); !why.ok()) return call->Refuse(why);
  RequestCheck check;
  ClusterRequest order;
  *order.mutable_disconnect()->mutable_connection() =
      check.Field("connection_id", ReadConnectionName(request->connection_id()));
  ReadClose(*request, check, *order.mutable_disconnect());
  if (!check.ok()) return call->Refuse(check.status());
  if (!call->Admit(order.ByteSizeLong())) return call->RefuseOverBudget();
  call->Ask(runtime_, std::move(order), [call](const absl::Status& status, const std::vector<ClusterReply>& replies) {
    if (status.ok() && CountOf(replies) == 0) {
      return call->Answer(absl::NotFoundError("no core has this connection: it has been closed, or never was"));
    }
    call->Answer(status);
  });
  return call;
}

grpc::ServerUnaryReactor* ApiService::UnsubscribeUser(Context* context, const v1::UnsubscribeUserRequest* request,
                                                      v1::UnsubscribeUserResponse* response) {
  UnaryCall* const call = NewCall(context, unsubscribe_user_);
  if (auto why = CheckRole(access_, *context, Role::kAdmin); !why.ok()) return call->Refuse(why);
  RequestCheck check;
  check.Id("user_id", request->user_id());
  check.Id("room_id", request->room_id());
  if (!check.ok()) return call->Refuse(check.status());
  ClusterRequest order;
  order.mutable_unsubscribe()->set_user_id(request->user_id());
  order.mutable_unsubscribe()->set_room_id(request->room_id());
  if (!call->Admit(order.ByteSizeLong())) return call->RefuseOverBudget();
  call->Ask(runtime_, std::move(order),
            [call, response](const absl::Status& status, const std::vector<ClusterReply>& replies) {
              response->set_connection_count(CountOf(replies));
              call->Answer(status);
            });
  return call;
}

grpc::ServerUnaryReactor* ApiService::ForgetRoomRights(Context* context, const v1::ForgetRoomRightsRequest* request,
                                                       v1::ForgetRoomRightsResponse* response) {
  UnaryCall* const call = NewCall(context, forget_room_rights_);
  if (auto why = CheckRole(access_, *context, Role::kAdmin); !why.ok()) return call->Refuse(why);
  RequestCheck check;
  if (!request->user_id().empty()) check.Id("user_id", request->user_id());
  if (!request->room_id().empty()) check.Id("room_id", request->room_id());
  if (!check.ok()) return call->Refuse(check.status());
  ClusterRequest order;
  order.mutable_forget_room_rights()->set_user_id(request->user_id());
  order.mutable_forget_room_rights()->set_room_id(request->room_id());
  if (!call->Admit(order.ByteSizeLong())) return call->RefuseOverBudget();
  call->Ask(runtime_, std::move(order),
            [call, response](const absl::Status& status, const std::vector<ClusterReply>& replies) {
              response->set_forgotten_count(CountOf(replies));
              call->Answer(status);
            });
  return call;
}

}  // namespace presence::core
