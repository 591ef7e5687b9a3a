// Messages to rooms and users, and typing.
#include <string>
#include <utility>

#include "core/api_counts.h"
#include "core/api_fingerprint.h"
#include "core/api_request.h"
#include "core/api_service.h"

namespace presence::core {
namespace {

constexpr int kExcludedUsersMax = 100;
constexpr size_t kRequestIdBytesMax = 128;

// What both kinds of messages have. The addressee is not in it.
template <typename Request>
OutgoingMessage ReadMessage(const Request& request, RequestCheck& check) {
  OutgoingMessage message;
  switch (request.payload_case()) {
    case Request::kData:
      message.data_json = check.Field("data", StructToJson(request.data()));
      break;
    case Request::kDataJson:
      check.Field("data_json", CheckJsonObject(request.data_json()));
      message.data_json = request.data_json();
      break;
    case Request::PAYLOAD_NOT_SET:
      check.Refuse("payload", "one of data and data_json must be set");
      break;
  }
  check.Field("request_id", CheckText(request.request_id(), kRequestIdBytesMax));
  message.request_id = request.request_id();
  return message;
}

// Of a request that is in order.
template <typename Request>
void AddFingerprint(std::string_view method, const Request& request, OutgoingMessage& message) {
  if (message.request_id.empty()) return;
  const bool is_struct = request.payload_case() == Request::kData;
  const std::string canonical = is_struct ? CanonicalBytes(request.data()) : std::string();
  message.fingerprint = Fingerprint({.method = method,
                                     .addressee = message.room_id.empty() ? message.user_id : message.room_id,
                                     .payload_field = is_struct ? "data" : "data_json",
                                     .payload = is_struct ? canonical : message.data_json,
                                     .excluded_user_ids = message.excluded_user_ids});
}

template <typename Response>
MessageDone Answering(UnaryCall* call, bool repeatable, Response* response) {
  return [call, repeatable, response](const absl::Status& status, const MessageAnswer& answer) {
    if (absl::IsAlreadyExists(status)) return call->Answer(WithReason(status, reason::kRequestIdReused));
    if (absl::IsUnavailable(status) && !repeatable) {
      return call->Answer(WithReason(status, reason::kMayHaveBeenDelivered));
    }
    response->set_reached_connections(ToCount(answer.reached));
    response->set_count_incomplete(answer.count_incomplete);
    response->set_repeated_request(answer.repeated);
    call->Answer(status);
  };
}

}  // namespace

grpc::ServerUnaryReactor* ApiService::Broadcast(Context* context, const v1::BroadcastRequest* request,
                                                v1::BroadcastResponse* response) {
  UnaryCall* const call = NewCall(context, broadcast_);
  if (auto why = CheckRole(access_, *context, Role::kPublish); !why.ok()) return call->Refuse(why);
  RequestCheck check;
  check.Id("room_id", request->room_id());
  OutgoingMessage message = ReadMessage(*request, check);
  check.Ids("excluded_user_ids", request->excluded_user_ids(), kExcludedUsersMax, RequestCheck::None::kIsFine);
  if (!check.ok()) return call->Refuse(check.status());
  message.room_id = request->room_id();
  message.excluded_user_ids.assign(request->excluded_user_ids().begin(), request->excluded_user_ids().end());
  AddFingerprint("Broadcast", *request, message);
  if (!call->Admit(message.data_json.size())) return call->RefuseOverBudget();
  message.given_up = [call] { return call->GivenUp(); };
  const bool repeatable = !message.request_id.empty();
  runtime_.Send(std::move(message), Answering(call, repeatable, response));
  return call;
}

grpc::ServerUnaryReactor* ApiService::SendToUser(Context* context, const v1::SendToUserRequest* request,
                                                 v1::SendToUserResponse* response) {
  UnaryCall* const call = NewCall(context, send_to_user_);
  if (auto why = CheckRole(access_, *context, Role::kPublish); !why.ok()) return call->Refuse(why);
  RequestCheck check;
  check.Id("user_id", request->user_id());
  OutgoingMessage message = ReadMessage(*request, check);
  if (!check.ok()) return call->Refuse(check.status());
  message.user_id = request->user_id();
  AddFingerprint("SendToUser", *request, message);
  if (!call->Admit(message.data_json.size())) return call->RefuseOverBudget();
  message.given_up = [call] { return call->GivenUp(); };
  const bool repeatable = !message.request_id.empty();
  runtime_.Send(std::move(message), Answering(call, repeatable, response));
  return call;
}

grpc::ServerUnaryReactor* ApiService::SetTyping(Context* context, const v1::SetTypingRequest* request,
                                                v1::SetTypingResponse* /*response*/) {
  UnaryCall* const call = NewCall(context, set_typing_);
  if (auto why = CheckRole(access_, *context, Role::kPublish); !why.ok()) return call->Refuse(why);
  RequestCheck check;
  check.Id("room_id", request->room_id());
  check.Id("user_id", request->user_id());
  check.Field("username", CheckText(request->username(), kIdBytesMax));
  if (!v1::RoomKind_IsValid(request->room_kind())) check.Refuse("room_kind", "must be CHANNEL, DM or not set");
  if (!check.ok()) return call->Refuse(check.status());
  if (!call->Admit(request->ByteSizeLong())) return call->RefuseOverBudget();
  link::v1::RoomTyping typing;
  typing.set_room_id(request->room_id());
  typing.set_kind(request->room_kind() == v1::ROOM_KIND_DM ? link::v1::ROOM_KIND_DM : link::v1::ROOM_KIND_CHANNEL);
  typing.set_user_id(request->user_id());
  typing.set_username(request->username().empty() ? request->user_id() : request->username());
  runtime_.SetTyping(std::move(typing), [call](const absl::Status& status) { call->Answer(status); });
  return call;
}

}  // namespace presence::core
