#include "core/api_service.h"

#include <google/protobuf/util/time_util.h>

#include <string>
#include <utility>

#include "core/api_text.h"

namespace presence::core {
namespace {

using google::protobuf::util::TimeUtil;

void Fill(StoredPresence&& from, v1::Presence& to) {
  static_assert(static_cast<int>(v1::STATUS_ONLINE) == static_cast<int>(link::v1::STATUS_ONLINE) &&
                    static_cast<int>(v1::STATUS_AWAY) == static_cast<int>(link::v1::STATUS_AWAY) &&
                    static_cast<int>(v1::STATUS_OFFLINE) == static_cast<int>(link::v1::STATUS_OFFLINE),
                "the public statuses are numbered as the link's");
  to.set_user_id(std::move(from.user_id));
  to.set_username(std::move(from.username));
  to.set_status(static_cast<v1::Status>(from.status));
  if (from.last_seen_ms != 0) *to.mutable_last_seen_time() = TimeUtil::MillisecondsToTimestamp(from.last_seen_ms);
  to.set_version(from.version);
}

absl::StatusOr<std::string> ReadPayload(const v1::BroadcastRequest& request) {
  switch (request.payload_case()) {
    case v1::BroadcastRequest::kData:
      return StructToJson("data", request.data());
    case v1::BroadcastRequest::kDataJson:
      if (absl::Status status = CheckJsonObject("data_json", request.data_json()); !status.ok()) return status;
      return request.data_json();
    case v1::BroadcastRequest::PAYLOAD_NOT_SET:
      break;
  }
  return absl::InvalidArgumentError("payload: one of data and data_json must be set");
}

}  // namespace

grpc::ServerUnaryReactor* ApiService::GetPresence(grpc::CallbackServerContext* context,
                                                  const v1::GetPresenceRequest* request, v1::Presence* response) {
  auto* call = new UnaryCall(*context, budget_, metrics_.get_presence);
  if (absl::Status status = CheckId("user_id", request->user_id()); !status.ok()) return call->Refuse(status);
  if (!call->Admit(request->user_id().size())) return call->RefuseOverBudget();
  runtime_.WithStore([call, request, response](Store& store) {
    if (call->GivenUp()) return call->Answer(absl::CancelledError());
    store.GetPresence(request->user_id(), [call, response](absl::StatusOr<StoredPresence> presence) {
      if (presence.ok()) Fill(*std::move(presence), *response);
      call->Answer(presence.status());
    });
  });
  return call;
}

grpc::ServerUnaryReactor* ApiService::ListPresence(grpc::CallbackServerContext* context,
                                                   const v1::ListPresenceRequest* request,
                                                   v1::ListPresenceResponse* response) {
  auto* call = new UnaryCall(*context, budget_, metrics_.list_presence);
  const absl::StatusOr<uint32_t> page_size = ReadPageSize(request->page_size());
  if (!page_size.ok()) return call->Refuse(page_size.status());
  absl::StatusOr<std::string> after = ReadPageToken(request->page_token());
  if (!after.ok()) return call->Refuse(after.status());
  if (!call->Admit(*page_size * kListedUserBytes)) return call->RefuseOverBudget();
  runtime_.WithStore([call, response, limit = *page_size, after = *std::move(after)](Store& store) {
    if (call->GivenUp()) return call->Answer(absl::CancelledError());
    store.ListPresence(after, limit, [call, response](absl::StatusOr<PresencePage> page) {
      if (page.ok()) {
        CutPage(*page);
        if (page->more && !page->users.empty()) {
          response->set_next_page_token(MakePageToken(page->users.back().user_id));
        }
        response->mutable_users()->Reserve(static_cast<int>(page->users.size()));
        for (StoredPresence& user : page->users) Fill(std::move(user), *response->add_users());
      }
      call->Answer(page.status());
    });
  });
  return call;
}

grpc::ServerUnaryReactor* ApiService::Broadcast(grpc::CallbackServerContext* context,
                                                const v1::BroadcastRequest* request, v1::BroadcastResponse*) {
  auto* call = new UnaryCall(*context, budget_, metrics_.broadcast);
  if (absl::Status status = CheckId("room_id", request->room_id()); !status.ok()) return call->Refuse(status);
  absl::StatusOr<std::string> payload = ReadPayload(*request);
  if (!payload.ok()) return call->Refuse(payload.status());
  if (!call->Admit(payload->size())) return call->RefuseOverBudget();
  runtime_.Broadcast(request->room_id(), *std::move(payload),
                     [call](const absl::Status& status) { call->Answer(status); });
  return call;
}

}  // namespace presence::core
