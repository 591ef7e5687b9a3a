#include "core/grpc_room_authorizer.h"

#include <grpcpp/grpcpp.h>

#include <asio/post.hpp>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <unordered_map>
#include <utility>

#include "common/log.h"
#include "common/tls_credentials.h"
#include "presence/v1/room_authorizer.grpc.pb.h"

namespace presence::core {
namespace {

// Far more than the message has: what a backend sends beyond it is an error.
constexpr int kReceiveBytesMax = 64 * 1024;
log::LineLimit failure_lines("room authorizer failures", 1, 3);

RoomAnswer AnswerOf(const v1::AuthorizeResponse& response) {
  RoomAnswer answer;
  switch (response.right()) {
    case v1::ROOM_RIGHT_NONE:
      answer.right = RoomRight::kNone;
      break;
    case v1::ROOM_RIGHT_READ:
      answer.right = RoomRight::kRead;
      break;
    case v1::ROOM_RIGHT_WRITE:
      answer.right = RoomRight::kWrite;
      break;
    default:
      return answer;  // of a later release, or not said
  }
  answer.outcome = RoomAnswer::Outcome::kAnswered;
  const google::protobuf::Duration& lifetime = response.cache_for();
  // The hub bounds it; here only what milliseconds can hold.
  if (lifetime.seconds() >= 0 && lifetime.seconds() < 1'000'000'000 && lifetime.nanos() >= 0) {
    answer.cache_for = std::chrono::milliseconds(lifetime.seconds() * 1000 + (lifetime.nanos() + 999'999) / 1'000'000);
  }
  return answer;
}

}  // namespace

class GrpcRoomAuthorizer::State : public std::enable_shared_from_this<State> {
 public:
  State(asio::io_context& io, GrpcRoomAuthorizerOptions options, RoomRightListener& listener,
        RoomRightsMetrics& metrics)
      : io_(io), options_(std::move(options)), listener_(listener), metrics_(metrics) {}

  void Ask(const RoomQuestion& question) {
    v1::AuthorizeRequest request;
    request.mutable_user_id()->assign(question.user_id);
    request.mutable_username()->assign(question.username);
    request.mutable_room_id()->assign(question.room_id);
    // Who waits goes first, also when this is asked from inside an answer.
    if (waiting_.empty() && calls_.size() < options_.calls_max) return Start(question.id, std::move(request));
    if (waiting_.size() < options_.waiting_max) {
      waiting_.push_back({question.id, std::move(request), std::chrono::steady_clock::now()});
      return metrics_.waiting.Set(waiting_.size());
    }
    metrics_.refused.Add();
    asio::post(io_, [self = shared_from_this(), id = question.id] {
      if (!self->closed_) self->listener_.OnRoomRight(id, {});
    });
  }

  void Close() {
    closed_ = true;
    waiting_.clear();
    for (const auto& [id, call] : calls_) call->context.TryCancel();
    std::unique_lock lock(mutex_);
    gone_.wait(lock, [this] { return with_grpc_ == 0; });
    // Here and not with the last reference: that may be on a thread of gRPC's, which would then wait for itself.
    calls_.clear();
    stub_.reset();
  }

 private:
  struct Call {
    grpc::ClientContext context;
    v1::AuthorizeRequest request;
    v1::AuthorizeResponse response;
    std::chrono::steady_clock::time_point started = std::chrono::steady_clock::now();
  };

  struct Waiting {
    uint64_t id = 0;
    v1::AuthorizeRequest request;
    std::chrono::steady_clock::time_point since;
  };

  v1::RoomAuthorizer::Stub& Stub() {
    std::shared_ptr<const TlsMaterial> material = options_.tls == nullptr ? nullptr : options_.tls->Current();
    if (stub_ == nullptr || material != dialled_with_) {
      grpc::ChannelArguments arguments;
      arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
      arguments.SetMaxReceiveMessageSize(kReceiveBytesMax);
      // A backend that is back is found within a second, not after gRPC's two minutes.
      arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1000);
      auto credentials =
          material == nullptr ? grpc::InsecureChannelCredentials() : MakeTlsChannelCredentials(*options_.tls);
      stub_ = v1::RoomAuthorizer::NewStub(grpc::CreateCustomChannel(options_.address, credentials, arguments));
      dialled_with_ = std::move(material);
    }
    return *stub_;
  }

  void Start(uint64_t id, v1::AuthorizeRequest request) {
    const auto call = std::make_shared<Call>();
    call->request = std::move(request);
    call->context.set_deadline(std::chrono::system_clock::now() + options_.timeout);
    calls_.emplace(id, call);
    metrics_.in_flight.Set(calls_.size());
    {
      std::lock_guard lock(mutex_);
      ++with_grpc_;
    }
    Stub().async()->Authorize(&call->context, &call->request, &call->response,
                              [self = shared_from_this(), id](const grpc::Status& status) {
                                // The call itself is kept by calls_ until the loop has read it.
                                asio::post(self->io_, [self, id, status] { self->OnDone(id, status); });
                                std::lock_guard lock(self->mutex_);
                                if (--self->with_grpc_ == 0) self->gone_.notify_all();
                              });
  }

  void OnDone(uint64_t id, const grpc::Status& status) {
    if (closed_) return;
    const auto found = calls_.find(id);
    const std::shared_ptr<Call> call = found->second;
    calls_.erase(found);
    const RoomAnswer answer = status.ok() ? AnswerOf(call->response) : RoomAnswer{};
    if (answer.outcome == RoomAnswer::Outcome::kAnswered) {
      metrics_.answered.Add();
      metrics_.latency.Observe(std::chrono::steady_clock::now() - call->started);
    } else {
      metrics_.failed.Add();
      if (failure_lines.Admit(log::Level::kWarning)) {
        log::Warning("ROOM_AUTHORIZER: {}",
                     status.ok() ? std::string("an answer without a right") : Escaped(status.error_message()));
      }
    }
    listener_.OnRoomRight(id, answer);
    StartWaiting();
    metrics_.in_flight.Set(calls_.size());
    metrics_.waiting.Set(waiting_.size());
  }

  // With a backend that is slow each of them would wait for all before it: who has waited for a whole timeout is answered without it.
  void StartWaiting() {
    while (!waiting_.empty() && calls_.size() < options_.calls_max) {
      Waiting next = std::move(waiting_.front());
      waiting_.pop_front();
      if (std::chrono::steady_clock::now() - next.since < options_.timeout) {
        Start(next.id, std::move(next.request));
      } else {
        metrics_.refused.Add();
        listener_.OnRoomRight(next.id, {});
      }
    }
  }

  asio::io_context& io_;
  const GrpcRoomAuthorizerOptions options_;
  RoomRightListener& listener_;
  RoomRightsMetrics& metrics_;
  std::unique_ptr<v1::RoomAuthorizer::Stub> stub_;
  std::shared_ptr<const TlsMaterial> dialled_with_;
  std::unordered_map<uint64_t, std::shared_ptr<Call>> calls_;  // by question: with gRPC, or done and not read
  std::deque<Waiting> waiting_;
  bool closed_ = false;

  std::mutex mutex_;  // guards what follows
  std::condition_variable gone_;
  size_t with_grpc_ = 0;
};

GrpcRoomAuthorizer::GrpcRoomAuthorizer(asio::io_context& io, GrpcRoomAuthorizerOptions options,
                                       RoomRightListener& listener, RoomRightsMetrics& metrics)
    : state_(std::make_shared<State>(io, std::move(options), listener, metrics)) {}

GrpcRoomAuthorizer::~GrpcRoomAuthorizer() {
  state_->Close();
}

void GrpcRoomAuthorizer::Ask(const RoomQuestion& question) {
  state_->Ask(question);
}

}  // namespace presence::core
