#include "core/api_service.h"

#include <google/protobuf/util/time_util.h>

#include <string>
#include <utility>
#include <vector>

#include "core/api_request.h"
#include "core/watch_stream.h"

namespace presence::core {
namespace {

using google::protobuf::util::TimeUtil;

constexpr int kBatchUsersMax = 500;

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

}  // namespace

grpc::ServerUnaryReactor* ApiService::GetPresence(Context* context, const v1::GetPresenceRequest* request,
                                                  v1::Presence* response) {
  UnaryCall* const call = NewCall(context, get_presence_);
  if (auto why = CheckRole(access_, *context, Role::kRead); !why.ok()) return call->Refuse(why);
  RequestCheck check;
  check.Id("user_id", request->user_id());
  if (!check.ok()) return call->Refuse(check.status());
  if (!call->Admit(request->user_id().size())) return call->RefuseOverBudget();
  runtime_.OnLoop([call, request, response](LoopParts& loop) {
    if (call->GivenUp()) return call->AnswerGivenUp();
    loop.store.GetPresence(request->user_id(), [call, response](absl::StatusOr<StoredPresence> presence) {
      if (presence.ok()) Fill(*std::move(presence), *response);
      call->Answer(presence.status());
    });
  });
  return call;
}

grpc::ServerUnaryReactor* ApiService::BatchGetPresence(Context* context, const v1::BatchGetPresenceRequest* request,
                                                       v1::BatchGetPresenceResponse* response) {
  UnaryCall* const call = NewCall(context, batch_get_presence_);
  if (auto why = CheckRole(access_, *context, Role::kRead); !why.ok()) return call->Refuse(why);
  RequestCheck check;
  check.Ids("user_ids", request->user_ids(), kBatchUsersMax, RequestCheck::None::kIsWrong);
  if (!check.ok()) return call->Refuse(check.status());
  std::vector<std::string> user_ids(request->user_ids().begin(), request->user_ids().end());
  if (!call->Admit(user_ids.size() * kListedUserBytes)) return call->RefuseOverBudget();
  runtime_.OnLoop([call, response, user_ids = std::move(user_ids)](LoopParts& loop) {
    if (call->GivenUp()) return call->AnswerGivenUp();
    loop.store.GetPresences(user_ids, [call, response](absl::StatusOr<std::vector<StoredPresence>> presences) {
      if (presences.ok()) {
        response->mutable_presences()->Reserve(static_cast<int>(presences->size()));
        for (StoredPresence& presence : *presences) Fill(std::move(presence), *response->add_presences());
      }
      call->Answer(presences.status());
    });
  });
  return call;
}

grpc::ServerUnaryReactor* ApiService::ListPresence(Context* context, const v1::ListPresenceRequest* request,
                                                   v1::ListPresenceResponse* response) {
  UnaryCall* const call = NewCall(context, list_presence_);
  if (auto why = CheckRole(access_, *context, Role::kRead); !why.ok()) return call->Refuse(why);
  const v1::Status wanted = request->status();
  RequestCheck check;
  if (wanted != v1::STATUS_UNSPECIFIED && wanted != v1::STATUS_AWAY && wanted != v1::STATUS_ONLINE) {
    check.Refuse("status", "must be AWAY, ONLINE or not set");
  }
  // A token goes with the filter that it was made under.
  const PageScope scope{PageKind::kPresence, wanted == v1::STATUS_AWAY     ? "away"
                                             : wanted == v1::STATUS_ONLINE ? "online"
                                                                           : ""};
  const uint32_t limit = check.PageSize(kPresencePages, request->page_size());
  std::string after = check.IdCursor(scope, request->page_token());
  if (!check.ok()) return call->Refuse(check.status());
  if (!call->Admit(limit * kListedUserBytes)) return call->RefuseOverBudget();
  runtime_.OnLoop([call, response, wanted, scope, limit, after = std::move(after)](LoopParts& loop) {
    if (call->GivenUp()) return call->AnswerGivenUp();
    loop.store.ListPresence(after, limit, [call, response, wanted, scope](absl::StatusOr<PresencePage> page) {
      if (page.ok()) {
        CutPage(*page);
        if (page->more && !page->users.empty()) {
          response->set_next_page_token(MakePageToken(scope, page->users.back().user_id));
        }
        response->mutable_users()->Reserve(static_cast<int>(page->users.size()));
        for (StoredPresence& user : page->users) {
          if (wanted != v1::STATUS_UNSPECIFIED && static_cast<int>(user.status) != wanted) continue;
          Fill(std::move(user), *response->add_users());
        }
      }
      call->Answer(page.status());
    });
  });
  return call;
}

grpc::ServerWriteReactor<v1::WatchPresenceResponse>* ApiService::WatchPresence(
    Context* context, const v1::WatchPresenceRequest* request) {
  if (auto why = CheckRole(access_, *context, Role::kRead); !why.ok()) return RefuseWatch(why, watch_presence_);
  return StartWatch(*context, *request, runtime_, watch_presence_);
}

}  // namespace presence::core
