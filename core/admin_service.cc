#include "core/admin_service.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/admin_state.h"
#include "core/api_counts.h"
#include "core/api_request.h"
#include "core/tap_stream.h"

namespace presence::core {
namespace {

using link::v1::ClusterReply;
using link::v1::ClusterRequest;
using Replies = std::vector<ClusterReply>;

// What a call is reckoned at: the cores' answers, and ours.
constexpr size_t kStateBytes = 512 * 1024;
constexpr size_t kOrderBytes = kStateBytes;  // it asks for the state first

constexpr std::chrono::milliseconds kWindowDefault = std::chrono::seconds(5);
constexpr std::chrono::milliseconds kWindowMax = std::chrono::hours(1);

template <typename Request>
uint32_t ReadWindow(const Request& request, RequestCheck& check) {
  const std::chrono::milliseconds window =
      request.has_window() ? check.Window("window", request.window(), kWindowMax) : kWindowDefault;
  return static_cast<uint32_t>(window.count());
}

ClusterRequest StateQuestion() {
  ClusterRequest question;
  question.mutable_state();
  return question;
}

// Of each process that is meant, the incarnations of the cores that can tell it: of an edge those that have a shard of it, of a core itself.
using Tellers = std::vector<std::vector<uint64_t>>;

Tellers TellersOfEdge(const Replies& replies, std::string_view name) {
  std::map<uint64_t, std::vector<uint64_t>> edges;
  for (const ClusterReply& reply : replies) {
    for (const link::v1::ShardSeen& shard : reply.state().shards()) {
      if (shard.attached() && shard.edge() == name) edges[shard.incarnation()].push_back(reply.core());
    }
  }
  Tellers tellers;
  for (auto& [incarnation, cores] : edges) tellers.push_back(std::move(cores));
  return tellers;
}

Tellers TellersOfCore(const Replies& replies, std::string_view name) {
  Tellers tellers;
  for (const uint64_t core : FindCores(replies, name).incarnations) tellers.push_back({core});
  return tellers;
}

// OK when everybody who is meant was told, though a core that has nothing to do with it has not answered; while Redis is away, those are
// all the others.
absl::Status WhetherTold(const Tellers& tellers, const absl::Status& status, const Replies& counts) {
  if (tellers.empty() || absl::IsCancelled(status)) return status;
  const bool told = std::all_of(tellers.begin(), tellers.end(), [&](const std::vector<uint64_t>& cores) {
    return std::any_of(counts.begin(), counts.end(), [&](const ClusterReply& reply) {
      return reply.code() == 0 && std::find(cores.begin(), cores.end(), reply.core()) != cores.end();
    });
  });
  return told ? absl::OkStatus() : status;
}

// Of a name that is not there, as far as `asked` can tell: its own error, when not all cores have answered.
absl::Status NotThere(const absl::Status& asked, const char* what) {
  return asked.ok() ? absl::NotFoundError(what) : asked;
}

}  // namespace

grpc::ServerUnaryReactor* AdminService::GetClusterState(Context* context,
                                                        const admin::v1::GetClusterStateRequest* /*request*/,
                                                        admin::v1::GetClusterStateResponse* response) {
  auto* const call = new UnaryCall(*context, budget_, get_cluster_state_);
  if (auto why = CheckRole(access_, *context, Role::kAdmin); !why.ok()) return call->Refuse(why);
  if (!call->Admit(kStateBytes)) return call->RefuseOverBudget();
  call->Ask(runtime_, StateQuestion(), [call, response](const absl::Status& status, const Replies& replies) {
    if (CoresSeen(replies) == 0 || absl::IsCancelled(status)) return call->Answer(status);
    FillClusterState(replies, *response);
    response->set_incomplete(!status.ok());
    call->Answer(absl::OkStatus());
  });
  return call;
}

grpc::ServerUnaryReactor* AdminService::DrainEdge(Context* context, const admin::v1::DrainEdgeRequest* request,
                                                  admin::v1::DrainEdgeResponse* response) {
  auto* const call = new UnaryCall(*context, budget_, drain_edge_);
  if (auto why = CheckRole(access_, *context, Role::kAdmin); !why.ok()) return call->Refuse(why);
  RequestCheck check;
  check.Name("edge", request->edge());
  ClusterRequest order;
  order.mutable_drain()->set_edge(request->edge());
  order.mutable_drain()->set_window_ms(ReadWindow(*request, check));
  if (!check.ok()) return call->Refuse(check.status());
  if (!call->Admit(kOrderBytes)) return call->RefuseOverBudget();
  call->Ask(
      runtime_, StateQuestion(),
      [this, call, request, response, order = std::move(order)](const absl::Status& asked, const Replies& replies) {
        if (call->GivenUp()) return call->AnswerGivenUp();
        if (CountEdges(replies, request->edge()) == 0) {
          return call->Answer(NotThere(asked, "no edge of this name is attached; see GetClusterState"));
        }
        call->Ask(runtime_, order,
                  [call, response, tellers = TellersOfEdge(replies, request->edge())](const absl::Status& status,
                                                                                      const Replies& counts) {
                    response->set_connection_count(CountOf(counts));
                    call->Answer(WhetherTold(tellers, status, counts));
                  });
      });
  return call;
}

grpc::ServerUnaryReactor* AdminService::DrainCore(Context* context, const admin::v1::DrainCoreRequest* request,
                                                  admin::v1::DrainCoreResponse* response) {
  // One after the other: a name should be one core's alone, but nothing keeps operators from giving it twice.
  struct Drain {
    CoreRuntime& runtime;
    UnaryCall* call;
    admin::v1::DrainCoreResponse* response;
    uint32_t window_ms;
    std::vector<uint64_t> incarnations{};

    static void Next(std::shared_ptr<Drain> drain) {
      if (drain->incarnations.empty()) return drain->call->Answer(absl::OkStatus());
      if (drain->call->GivenUp()) return drain->call->AnswerGivenUp();
      ClusterRequest order;
      order.mutable_drain()->set_core(drain->incarnations.back());
      order.mutable_drain()->set_window_ms(drain->window_ms);
      drain->incarnations.pop_back();
      drain->call->Ask(drain->runtime, std::move(order), [drain](const absl::Status& status, const Replies& counts) {
        if (!status.ok()) return drain->call->Answer(status);
        drain->response->set_link_count(ToCount(uint64_t{0} + drain->response->link_count() + CountOf(counts)));
        Next(drain);
      });
    }
  };

  auto* const call = new UnaryCall(*context, budget_, drain_core_);
  if (auto why = CheckRole(access_, *context, Role::kAdmin); !why.ok()) return call->Refuse(why);
  RequestCheck check;
  check.Name("core", request->core());
  auto drain = std::make_shared<Drain>(Drain{runtime_, call, response, ReadWindow(*request, check)});
  if (!check.ok()) return call->Refuse(check.status());
  if (!call->Admit(kOrderBytes)) return call->RefuseOverBudget();
  call->Ask(runtime_, StateQuestion(),
            [call, request, drain = std::move(drain)](const absl::Status& asked, const Replies& replies) {
              NamedCores cores = FindCores(replies, request->core());
              if (cores.incarnations.empty()) {
                return call->Answer(NotThere(asked, "no live core has this name; see GetClusterState"));
              }
              if (!cores.others) {
                // Unless one that did not answer could take over.
                if (!asked.ok()) return call->Answer(asked);
                return call->Answer(
                    WithReason(absl::FailedPreconditionError("there is no other core that could take over; start one "
                                                             "first, or stop this one without draining it"),
                               reason::kLastCore));
              }
              drain->incarnations = std::move(cores.incarnations);
              Drain::Next(drain);
            });
  return call;
}

grpc::ServerUnaryReactor* AdminService::SetLogLevel(Context* context, const admin::v1::SetLogLevelRequest* request,
                                                    admin::v1::SetLogLevelResponse* response) {
  using Request = admin::v1::SetLogLevelRequest;
  auto* const call = new UnaryCall(*context, budget_, set_log_level_);
  if (auto why = CheckRole(access_, *context, Role::kAdmin); !why.ok()) return call->Refuse(why);
  static_assert(static_cast<int>(admin::v1::LOG_LEVEL_ERROR) == static_cast<int>(link::v1::LOG_LEVEL_ERROR) &&
                    static_cast<int>(admin::v1::LOG_LEVEL_DEBUG) == static_cast<int>(link::v1::LOG_LEVEL_DEBUG),
                "the public levels are numbered as the link's");
  RequestCheck check;
  ClusterRequest order;
  link::v1::LogLevelOrder& body = *order.mutable_log_level();
  switch (request->target_case()) {
    case Request::kCore:
      check.Name("core", request->core());
      body.set_core(request->core());
      break;
    case Request::kEdge:
      check.Name("edge", request->edge());
      body.set_edge(request->edge());
      break;
    case Request::kAll:
      if (!request->all()) check.Refuse("all", "must be true, or another target must be set");
      body.set_all(true);
      break;
    case Request::TARGET_NOT_SET:
      check.Refuse("target", "one of core, edge and all must be set");
      break;
  }
  if (request->level() == admin::v1::LOG_LEVEL_UNSPECIFIED || !admin::v1::LogLevel_IsValid(request->level())) {
    check.Refuse("level", "must be DEBUG, INFO, WARNING or ERROR");
  }
  body.set_level(static_cast<link::v1::LogLevel>(request->level()));
  if (!check.ok()) return call->Refuse(check.status());
  if (!call->Admit(kOrderBytes)) return call->RefuseOverBudget();
  call->Ask(
      runtime_, StateQuestion(),
      [this, call, request, response, order = std::move(order)](const absl::Status& asked, const Replies& replies) {
        if (call->GivenUp()) return call->AnswerGivenUp();
        // An edge process whose shards are with several cores is told by each, and counts once.
        const int cores = request->has_edge() ? 0
                          : request->has_core()
                              ? static_cast<int>(FindCores(replies, request->core()).incarnations.size())
                              : CoresSeen(replies);
        const int edges = request->has_core() ? 0 : CountEdges(replies, request->edge());
        if (cores + edges == 0) {
          return call->Answer(NotThere(asked, "there is no such core or edge; see GetClusterState"));
        }
        response->set_process_count(cores + edges);
        // Whether all processes were told, nobody knows before all cores have answered.
        Tellers tellers;
        if (request->has_edge()) tellers = TellersOfEdge(replies, request->edge());
        if (request->has_core()) tellers = TellersOfCore(replies, request->core());
        call->Ask(runtime_, order,
                  [call, tellers = std::move(tellers)](const absl::Status& status, const Replies& counts) {
                    call->Answer(WhetherTold(tellers, status, counts));
                  });
      });
  return call;
}

grpc::ServerWriteReactor<admin::v1::TapResponse>* AdminService::Tap(Context* context,
                                                                    const admin::v1::TapRequest* request) {
  if (auto why = CheckRole(access_, *context, Role::kAdmin); !why.ok()) return RefuseTap(why, tap_);
  return StartTap(*context, *request, runtime_, tap_);
}

}  // namespace presence::core
