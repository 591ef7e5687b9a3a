// Who is where, on all cores: rooms, their members, and connections.
#include <google/protobuf/util/time_util.h>

#include <string>
#include <utility>
#include <vector>

#include "core/api_counts.h"
#include "core/api_request.h"
#include "core/api_service.h"
#include "core/cluster_queries.h"

namespace presence::core {
namespace {

using google::protobuf::util::TimeUtil;
using link::v1::ClusterReply;
using link::v1::ClusterRequest;

// What one entry of a page is reckoned at, in the cores' answers and in ours: as a user in a list; a connection's rooms are
// some ten of 40 bytes.
constexpr size_t kListedConnectionBytes = 1024;

void Fill(link::v1::RoomCount&& from, v1::Room& to) {
  to.set_room_id(std::move(*from.mutable_room_id()));
  to.set_connection_count(ToCount(from.connections()));
}

void Fill(link::v1::MemberCount&& from, v1::RoomMember& to) {
  to.set_user_id(std::move(*from.mutable_user_id()));
  to.set_username(std::move(*from.mutable_username()));
  to.set_connection_count(ToCount(from.connections()));
}

void Fill(link::v1::ConnectionState&& from, v1::Connection& to) {
  to.set_connection_id(ConnectionText(from.name()));
  to.set_user_id(std::move(*from.mutable_user_id()));
  to.set_username(std::move(*from.mutable_username()));
  to.set_status(static_cast<v1::Status>(from.status()));
  to.set_edge(std::move(*from.mutable_edge()));
  to.set_shard(static_cast<int32_t>(from.shard()));
  to.set_core(std::move(*from.mutable_core()));
  to.set_room_count(ToCount(from.room_count()));
  to.mutable_room_ids()->Swap(from.mutable_room_ids());
  *to.mutable_silent_for() = TimeUtil::MillisecondsToDuration(from.silent_ms());
}

// Fills a page with what fits into an answer. The number of entries taken: fewer than there are when they do not fit.
template <typename From, typename To>
size_t FillPage(std::vector<From>& from, google::protobuf::RepeatedPtrField<To>* to) {
  size_t bytes = 0;
  for (size_t i = 0; i < from.size(); ++i) {
    bytes += from[i].ByteSizeLong();
    if (i > 0 && bytes > kPageBytesMax) return i;
    Fill(std::move(from[i]), *to->Add());
  }
  return from.size();
}

}  // namespace

grpc::ServerUnaryReactor* ApiService::ListRooms(Context* context, const v1::ListRoomsRequest* request,
                                                v1::ListRoomsResponse* response) {
  constexpr PageScope kScope{PageKind::kRooms};
  UnaryCall* const call = NewCall(context, list_rooms_);
  if (auto why = CheckRole(access_, *context, Role::kRead); !why.ok()) return call->Refuse(why);
  RequestCheck check;
  const uint32_t limit = check.PageSize(kClusterPages, request->page_size());
  ClusterRequest question;
  question.mutable_rooms()->set_after(check.IdCursor(kScope, request->page_token()));
  question.mutable_rooms()->set_limit(limit);
  if (!check.ok()) return call->Refuse(check.status());
  if (!call->Admit(limit * kListedUserBytes)) return call->RefuseOverBudget();
  call->Ask(runtime_, std::move(question),
            [call, limit, response](const absl::Status& status, const std::vector<ClusterReply>& replies) {
              if (!status.ok()) return call->Answer(status);
              RoomsPage page = MergeRooms(replies, limit);
              const size_t taken = FillPage(page.rooms, response->mutable_rooms());
              if (taken > 0 && (page.more || taken < page.rooms.size())) {
                response->set_next_page_token(MakePageToken(kScope, response->rooms().rbegin()->room_id()));
              }
              call->Answer(absl::OkStatus());
            });
  return call;
}

grpc::ServerUnaryReactor* ApiService::GetRoom(Context* context, const v1::GetRoomRequest* request,
                                              v1::GetRoomResponse* response) {
  UnaryCall* const call = NewCall(context, get_room_);
  if (auto why = CheckRole(access_, *context, Role::kRead); !why.ok()) return call->Refuse(why);
  const PageScope scope{PageKind::kMembers, request->room_id()};
  RequestCheck check;
  check.Id("room_id", request->room_id());
  const uint32_t limit = check.PageSize(kClusterPages, request->page_size());
  ClusterRequest question;
  question.mutable_members()->set_room_id(request->room_id());
  question.mutable_members()->set_after(check.IdCursor(scope, request->page_token()));
  question.mutable_members()->set_limit(limit);
  if (!check.ok()) return call->Refuse(check.status());
  if (!call->Admit(limit * kListedUserBytes)) return call->RefuseOverBudget();
  call->Ask(runtime_, std::move(question),
            [call, scope, limit, response](const absl::Status& status, const std::vector<ClusterReply>& replies) {
              if (!status.ok()) return call->Answer(status);
              MembersPage page = MergeMembers(replies, limit);
              if (page.connections == 0) {
                return call->Answer(
                    absl::NotFoundError("nobody is subscribed to this room: it does not exist, at least not now"));
              }
              response->mutable_room()->set_room_id(std::string(scope.arguments));
              response->mutable_room()->set_connection_count(ToCount(page.connections));
              const size_t taken = FillPage(page.members, response->mutable_members());
              if (taken > 0 && (page.more || taken < page.members.size())) {
                response->set_next_page_token(MakePageToken(scope, response->members().rbegin()->user_id()));
              }
              call->Answer(absl::OkStatus());
            });
  return call;
}

grpc::ServerUnaryReactor* ApiService::ListConnections(Context* context, const v1::ListConnectionsRequest* request,
                                                      v1::ListConnectionsResponse* response) {
  UnaryCall* const call = NewCall(context, list_connections_);
  if (auto why = CheckRole(access_, *context, Role::kRead); !why.ok()) return call->Refuse(why);
  RequestCheck check;
  ClusterRequest question;
  link::v1::ConnectionsQuery& query = *question.mutable_connections();
  std::string arguments;  // of the token: an edge and a user may have the same name
  switch (request->owner_case()) {
    case v1::ListConnectionsRequest::kUserId:
      check.Id("user_id", request->user_id());
      query.set_user_id(request->user_id());
      arguments = "user:" + request->user_id();
      break;
    case v1::ListConnectionsRequest::kEdge:
      check.Name("edge", request->edge());
      query.set_edge(request->edge());
      arguments = "edge:" + request->edge();
      break;
    case v1::ListConnectionsRequest::OWNER_NOT_SET:
      check.Refuse("owner", "one of user_id and edge must be set");
      break;
  }
  const uint32_t limit = check.PageSize(kClusterPages, request->page_size());
  query.set_limit(limit);
  const std::string cursor =
      check.Field("page_token", ReadPageToken({PageKind::kConnections, arguments}, request->page_token()));
  if (!cursor.empty()) *query.mutable_after() = check.Field("page_token", ReadConnectionCursor(cursor));
  if (!check.ok()) return call->Refuse(check.status());
  if (!call->Admit(limit * kListedConnectionBytes)) return call->RefuseOverBudget();
  call->Ask(runtime_, std::move(question),
            [call, limit, response, arguments = std::move(arguments)](const absl::Status& status,
                                                                      const std::vector<ClusterReply>& replies) {
              if (!status.ok()) return call->Answer(status);
              ConnectionsPage page = MergeConnections(replies, limit);
              const size_t taken = FillPage(page.connections, response->mutable_connections());
              if (taken > 0 && (page.more || taken < page.connections.size())) {
                response->set_next_page_token(MakePageToken({PageKind::kConnections, arguments},
                                                            ConnectionCursor(page.connections[taken - 1].name())));
              }
              call->Answer(absl::OkStatus());
            });
  return call;
}

}  // namespace presence::core
