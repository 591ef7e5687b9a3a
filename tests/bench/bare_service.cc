#include "tests/bench/bare_service.h"

#include <grpcpp/grpcpp.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "core/api_service.h"
#include "core/listeners.h"
#include "presence/v1/presence.grpc.pb.h"

namespace presence::bench {
namespace {

using Context = grpc::CallbackServerContext;
using Response = v1::WatchPresenceResponse;
using Row = std::shared_ptr<const v1::Presence>;

constexpr size_t kRowsMax = 500;                      // as the core's stream
constexpr uint64_t kVersion = 1'790'000'000'000'000;  // as long as a real one: microseconds since 1970

void Fill(const std::string& user_id, v1::Presence& presence) {
  presence.set_user_id(user_id);
  presence.set_username(user_id);
  presence.set_status(v1::STATUS_ONLINE);
  presence.mutable_last_seen_time()->set_seconds(kVersion / 1'000'000);
  presence.mutable_last_seen_time()->set_nanos(123'000'000);
  presence.set_version(kVersion);
}

// Reactions run on gRPC's threads, possibly inside StartWrite: so nothing is called under the lock. A write is announced by
// `writing_`; who ends a stream meanwhile leaves Finish to the write's end.
class BareStream final : public grpc::ServerWriteReactor<Response>, public std::enable_shared_from_this<BareStream> {
 public:
  explicit BareStream(uint64_t snapshot_rows) : snapshot_rows_(snapshot_rows) {}

  // Once, before it is given to gRPC. `forget` drops the owner's share.
  void Begin(std::function<void(const std::shared_ptr<BareStream>&)> forget) {
    self_ = shared_from_this();
    forget_ = std::move(forget);
    Pump(/*write_ended=*/false);
  }

  void Tell(const Row& row) {
    {
      absl::MutexLock lock(&mutex_);
      waiting_.push_back(row);
    }
    Pump(false);
  }

 private:
  void Pump(bool write_ended) {
    bool finish = false;
    {
      absl::MutexLock lock(&mutex_);
      if (write_ended) writing_ = false;
      if (writing_ || finished_) return;
      finish = finished_ = ended_;
      if (!finish && !FillResponse()) return;
      writing_ = !finish;
    }
    if (finish) {
      Finish(grpc::Status::CANCELLED);
    } else {
      StartWrite(&response_);
    }
  }

  bool FillResponse() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    response_.Clear();
    if (!snapshot_done_) {
      const uint64_t end = std::min<uint64_t>(snapshot_rows_, next_row_ + kRowsMax);
      for (; next_row_ < end; ++next_row_) Fill(absl::StrCat("bench-", next_row_), *response_.add_presences());
      response_.set_snapshot(true);
      snapshot_done_ = next_row_ == snapshot_rows_;
      response_.set_snapshot_done(snapshot_done_);
      return true;
    }
    if (waiting_.empty()) return false;
    const size_t count = std::min(kRowsMax, waiting_.size());
    for (size_t i = 0; i < count; ++i) *response_.add_presences() = *waiting_[i];
    waiting_.erase(waiting_.begin(), waiting_.begin() + static_cast<std::ptrdiff_t>(count));
    response_.set_resume_version(kVersion);
    return true;
  }

  void OnWriteDone(bool ok) override {
    if (!ok) End();
    Pump(/*write_ended=*/true);
  }
  void OnCancel() override {
    End();
    Pump(false);
  }
  void OnDone() override {
    forget_(self_);
    self_.reset();
  }
  void End() {
    absl::MutexLock lock(&mutex_);
    ended_ = true;
  }

  const uint64_t snapshot_rows_;
  std::function<void(const std::shared_ptr<BareStream>&)> forget_;
  std::shared_ptr<BareStream> self_;  // gRPC's share
  Response response_;                 // of who has set writing_

  absl::Mutex mutex_;
  std::vector<Row> waiting_ ABSL_GUARDED_BY(mutex_);
  uint64_t next_row_ ABSL_GUARDED_BY(mutex_) = 0;
  bool snapshot_done_ ABSL_GUARDED_BY(mutex_) = false;
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
};

class BareService final : public v1::PresenceService::CallbackService {
 public:
  grpc::ServerUnaryReactor* GetPresence(Context* context, const v1::GetPresenceRequest* request,
                                        v1::Presence* response) override {
    Fill(request->user_id(), *response);
    return Done(context);
  }

  grpc::ServerUnaryReactor* Broadcast(Context* context, const v1::BroadcastRequest* request,
                                      v1::BroadcastResponse* response) override {
    response->set_reached_connections(static_cast<int32_t>(request->data_json().size() % 100));
    return Done(context);
  }

  grpc::ServerUnaryReactor* SetStatus(Context* context, const v1::SetStatusRequest* request,
                                      v1::SetStatusResponse* response) override {
    v1::Presence presence;
    Fill(request->user_id(), presence);
    presence.set_status(request->status());
    const Row row = std::make_shared<const v1::Presence>(std::move(presence));
    std::vector<std::shared_ptr<BareStream>> streams;
    {
      absl::MutexLock lock(&mutex_);
      streams.assign(streams_.begin(), streams_.end());
    }
    for (const auto& stream : streams) stream->Tell(row);
    response->set_connection_count(1);
    return Done(context);
  }

  grpc::ServerWriteReactor<Response>* WatchPresence(Context*, const v1::WatchPresenceRequest* request) override {
    auto stream = std::make_shared<BareStream>(request->resume_version());
    {
      absl::MutexLock lock(&mutex_);
      streams_.insert(stream);
    }
    stream->Begin([this](const std::shared_ptr<BareStream>& ended) {
      absl::MutexLock lock(&mutex_);
      streams_.erase(ended);
    });
    return stream.get();
  }

 private:
  static grpc::ServerUnaryReactor* Done(Context* context) {
    grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }

  absl::Mutex mutex_;
  std::unordered_set<std::shared_ptr<BareStream>> streams_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace

void RunBareServer() {
  core::SetUpGrpc();
  BareService service;
  auto server = core::GrpcServer::Listen({.setting = "bare",
                                          .listen = {"127.0.0.1", 0},
                                          .receive_bytes_max = core::kApiReceiveBytesMax,
                                          .metadata_bytes_max = core::kApiMetadataBytesMax,
                                          .streams_max = core::kApiStreamsMax},
                                         {&service});
  if (!server.ok()) {
    std::fprintf(stderr, "%s\n", std::string(server.status().message()).c_str());
    std::exit(1);
  }
  std::printf("listening on %s\n", (*server)->address().c_str());
  std::fflush(stdout);
  while (true) pause();
}

}  // namespace presence::bench
