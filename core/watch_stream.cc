#include "core/watch_stream.h"

#include <google/protobuf/util/time_util.h>

#include <memory>
#include <optional>
#include <utility>

#include "core/api_request.h"
#include "core/server_stream.h"
#include "core/watches.h"

namespace presence::core {
namespace {

using google::protobuf::util::TimeUtil;
using Response = v1::WatchPresenceResponse;

// A response stays small, so that a slow reader is not given much more than it reads: some 100 us of encoding.
constexpr size_t kRowsMax = 500;
constexpr size_t kBytesMax = 256 * 1024;
constexpr int kUsersMax = 1'000;
// Of a response whose memory a quiet stream keeps for the next one: some 300 bytes each.
constexpr size_t kRowsKept = 2;

class WatchStream final : public LoopStream<Response>, private WatchReader {
 public:
  WatchStream(grpc::CallbackServerContext& context, CoreRuntime& runtime, StreamMetrics& metrics, WatchTarget target)
      : LoopStream(context, runtime, metrics), target_(std::move(target)) {}

 private:
  void Begin() override {
    absl::StatusOr<WatcherId> watcher = runtime().watches().Open(std::move(target_), *this);
    if (!watcher.ok()) return Refuse(watcher.status());
    watcher_ = *watcher;
    Opened();
  }

  bool Fill(Response* response) override {
    WatchUpdate* const update = watcher_ ? runtime().watches().Take(*watcher_, kRowsMax, kBytesMax) : nullptr;
    if (update == nullptr) return false;
    if (update->presences.size() + update->left_user_ids.size() > kRowsKept) Grew();
    response->mutable_presences()->Reserve(static_cast<int>(update->presences.size()));
    for (const PresenceRow& row : update->presences) {
      v1::Presence& presence = *response->add_presences();
      presence.set_user_id(row->user_id);
      presence.set_username(row->username);
      presence.set_status(static_cast<v1::Status>(row->status));
      if (row->last_seen_ms != 0) {
        *presence.mutable_last_seen_time() = TimeUtil::MillisecondsToTimestamp(row->last_seen_ms);
      }
      presence.set_version(row->version);
    }
    for (std::string& user_id : update->left_user_ids) response->add_left_user_ids(std::move(user_id));
    response->set_snapshot(update->snapshot);
    response->set_snapshot_done(update->snapshot_done);
    response->set_resume_version(update->resume_version);
    return true;
  }

  void Close() override {
    if (watcher_) runtime().watches().Close(*std::exchange(watcher_, std::nullopt));
  }

  void OnReady() override { Pump(); }
  void OnEnded(const absl::Status& why, bool slow) override {
    watcher_.reset();
    slow ? EndSlow(why) : End(why);
  }

  WatchTarget target_;
  std::optional<WatcherId> watcher_;
};

}  // namespace

grpc::ServerWriteReactor<Response>* StartWatch(grpc::CallbackServerContext& context,
                                               const v1::WatchPresenceRequest& request, CoreRuntime& runtime,
                                               StreamMetrics& metrics) {
  RequestCheck check;
  WatchTarget target;
  switch (request.target_case()) {
    case v1::WatchPresenceRequest::kUsers:
      check.Ids("users.user_ids", request.users().user_ids(), kUsersMax, RequestCheck::None::kIsWrong);
      target.user_ids.assign(request.users().user_ids().begin(), request.users().user_ids().end());
      break;
    case v1::WatchPresenceRequest::kRoomId:
      check.Id("room_id", request.room_id());
      target.room_id = request.room_id();
      break;
    case v1::WatchPresenceRequest::kEveryone:
      break;
    case v1::WatchPresenceRequest::TARGET_NOT_SET:
      check.Refuse("target", "must be one of users, room_id and everyone");
      break;
  }
  if (!check.ok()) return RefuseWatch(check.status(), metrics);
  target.resume_version = request.resume_version();
  return WatchStream::Start(std::make_shared<WatchStream>(context, runtime, metrics, std::move(target)));
}

grpc::ServerWriteReactor<Response>* RefuseWatch(const absl::Status& why, StreamMetrics& metrics) {
  return new RefusedStream<Response>(why, metrics);
}

}  // namespace presence::core
