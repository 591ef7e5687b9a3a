#include "core/link_service.h"

#include <grpc/grpc.h>
#include <grpcpp/impl/codegen/proto_utils.h>

#include <chrono>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "common/time.h"
#include "core/api_counts.h"
#include "core/api_pages.h"
#include "core/api_text.h"

namespace presence::core {
namespace {

using link::v1::EdgeFrame;

// The provider's clock may be ahead of this one. A logout of a later time would shut out those who log in until then.
constexpr auto kLogoutAheadMax = std::chrono::minutes(5);

// gRPC's rules, and how they are kept. One write at a time: the runtime waits for the mailbox to say that the last one is
// done. No operation once the call may be over: OnDone comes only after Finish, and Finish, StartWrite and a resumed StartRead come
// from the loop thread alone, in that order; a StartRead from inside OnReadDone is safe, since that reaction counts as
// outstanding. Abort may come at any time and is therefore fenced by the mutex.
class AttachCall final : public grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>, public LinkStream {
 public:
  AttachCall(CoreRuntime& runtime, grpc::CallbackServerContext& context)
      : LinkStream(runtime.NextLinkId(), context.peer()), runtime_(runtime), context_(&context) {}

  void Begin() {
    self_ = std::static_pointer_cast<AttachCall>(shared_from_this());
    runtime_.OpenLink(self_);
    StartRead(&reading_);
  }

  // --- LinkStream: the loop thread.

  void Write(std::string_view frame) override {
    const grpc::Slice slice(frame.data(), frame.size());
    writing_ = grpc::ByteBuffer(&slice, 1);
    StartWrite(&writing_);
  }

  void ResumeReading() override { StartRead(&reading_); }

  void Finish(const absl::Status& why) override { ServerBidiReactor::Finish(ToGrpc(why)); }

  void Abort(const absl::Status& why) override ABSL_LOCKS_EXCLUDED(mutex_) {
    grpc_call* call = nullptr;
    {
      absl::MutexLock lock(&mutex_);
      if (context_ == nullptr) return;
      call = context_->c_call();
      grpc_call_ref(call);
    }
    // Not under the lock: it may run reactions. Unlike TryCancel it carries the status, as far as HTTP/2 can.
    const std::string text(why.message().data(), why.message().size());
    grpc_call_cancel_with_status(call, static_cast<grpc_status_code>(why.code()), text.c_str(), nullptr);
    grpc_call_unref(call);
  }

  // --- reactions: gRPC's threads.

  void OnReadDone(bool ok) override {
    if (!ok) return Wake(mailbox().AddEnd(absl::OkStatus()));  // half-closed, or gone
    LinkMailbox::Frame frame{.message = mailbox().Blank(), .bytes = reading_.Length()};
    if (!grpc::SerializationTraits<EdgeFrame>::Deserialize(&reading_, frame.message.get()).ok()) {
      return Wake(mailbox().AddEnd(absl::InvalidArgumentError("this is not an EdgeFrame")));
    }
    const LinkMailbox::Accepted accepted = mailbox().AddFrame(std::move(frame));
    // Before the wake: once the loop has looked it may finish the call.
    if (accepted.keep_reading) StartRead(&reading_);
    Wake(accepted.wake);
  }

  void OnWriteDone(bool ok) override { Wake(mailbox().AddWriteDone(ok)); }

  void OnCancel() override { Wake(mailbox().AddEnd(absl::CancelledError("the edge has gone"))); }

  void OnDone() override ABSL_LOCKS_EXCLUDED(mutex_) {
    {
      absl::MutexLock lock(&mutex_);
      context_ = nullptr;
    }
    self_.reset();  // the runtime may hold it a little longer
  }

 private:
  void Wake(bool needed) {
    if (needed) runtime_.VisitLink(shared_from_this());
  }

  CoreRuntime& runtime_;
  std::shared_ptr<AttachCall> self_;  // gRPC's share, until OnDone
  grpc::ByteBuffer reading_;
  grpc::ByteBuffer writing_;
  absl::Mutex mutex_;
  grpc::CallbackServerContext* context_ ABSL_GUARDED_BY(mutex_);
};

// Deletes itself when gRPC is done with it.
class RefusedAttach final : public grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer> {
 public:
  explicit RefusedAttach(const absl::Status& why) { Finish(ToGrpc(why)); }
  void OnDone() override { delete this; }
};

void Fill(StoredPresence&& from, link::v1::PresenceRecord& to) {
  to.set_user_id(std::move(from.user_id));
  to.set_username(std::move(from.username));
  to.set_status(from.status);
  to.set_last_seen_ms(from.last_seen_ms);
  to.set_version(from.version);
}

}  // namespace

grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* LinkService::Attach(grpc::CallbackServerContext* context) {
  if (const absl::Status status = access_.Check(*context); !status.ok()) return new RefusedAttach(status);
  const auto call = std::make_shared<AttachCall>(runtime_, *context);
  call->Begin();
  return call.get();
}

grpc::ServerUnaryReactor* LinkService::LookUpPresence(grpc::CallbackServerContext* context,
                                                      const link::v1::LookUpPresenceRequest* request,
                                                      link::v1::PresenceRecord* response) {
  auto* call = new UnaryCall(*context, budget_, metrics_.look_up_presence);
  if (const absl::Status status = access_.Check(*context); !status.ok()) return call->Refuse(status);
  if (absl::Status status = CheckId("user_id", request->user_id()); !status.ok()) return call->Refuse(status);
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

grpc::ServerUnaryReactor* LinkService::ListPresence(grpc::CallbackServerContext* context,
                                                    const link::v1::ListPresenceRequest* request,
                                                    link::v1::ListPresenceResponse* response) {
  auto* call = new UnaryCall(*context, budget_, metrics_.list_presence);
  if (const absl::Status status = access_.Check(*context); !status.ok()) return call->Refuse(status);
  if (request->limit() < 1 || request->limit() > kPresencePages.size_max) {
    return call->Refuse(absl::InvalidArgumentError("limit: must be 1 to 10000"));
  }
  if (!request->after_user_id().empty()) {
    if (absl::Status status = CheckId("after_user_id", request->after_user_id()); !status.ok()) {
      return call->Refuse(status);
    }
  }
  if (!call->Admit(request->limit() * kListedUserBytes)) return call->RefuseOverBudget();
  runtime_.OnLoop([call, request, response](LoopParts& loop) {
    if (call->GivenUp()) return call->AnswerGivenUp();
    loop.store.ListPresence(request->after_user_id(), request->limit(),
                            [call, response](absl::StatusOr<PresencePage> page) {
                              if (page.ok()) {
                                CutPage(*page);
                                response->mutable_users()->Reserve(static_cast<int>(page->users.size()));
                                for (StoredPresence& user : page->users) Fill(std::move(user), *response->add_users());
                                response->set_more(page->more);
                              }
                              call->Answer(page.status());
                            });
  });
  return call;
}

grpc::ServerUnaryReactor* LinkService::EndSessions(grpc::CallbackServerContext* context,
                                                   const link::v1::EndSessionsRequest* request,
                                                   link::v1::EndSessionsResponse* response) {
  auto* call = new UnaryCall(*context, budget_, metrics_.end_sessions);
  if (const absl::Status status = access_.Check(*context); !status.ok()) return call->Refuse(status);
  if (request->user_id().empty() && request->session_id().empty()) {
    return call->Refuse(absl::InvalidArgumentError("user_id or session_id: one of them must be there"));
  }
  for (const auto& [field, id] : {std::pair("user_id", &request->user_id()), {"session_id", &request->session_id()}}) {
    if (id->empty()) continue;
    if (absl::Status status = CheckId(field, *id); !status.ok()) return call->Refuse(status);
  }
  const int64_t latest_ms = ToUnixMillis(ReadClocks().wall + kLogoutAheadMax);
  if (request->logged_out_at_ms() < 1 || request->logged_out_at_ms() > latest_ms) {
    return call->Refuse(absl::InvalidArgumentError("logged_out_at_ms: must be in the past"));
  }
  link::v1::ClusterRequest body;
  link::v1::EndSessionsOrder& order = *body.mutable_end_sessions();
  order.set_user_id(request->user_id());
  order.set_session_id(request->session_id());
  order.set_logged_out_at_ms(request->logged_out_at_ms());
  if (!call->Admit(body.ByteSizeLong())) return call->RefuseOverBudget();
  call->Ask(runtime_, std::move(body),
            [call, response](const absl::Status& status, const std::vector<link::v1::ClusterReply>& replies) {
              response->set_connections(static_cast<uint32_t>(CountOf(replies)));
              call->Answer(status);
            });
  return call;
}

}  // namespace presence::core
