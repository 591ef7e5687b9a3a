#include "core/tap_stream.h"

#include <google/protobuf/util/time_util.h>

#include <deque>
#include <memory>
#include <utility>

#include "core/api_request.h"
#include "core/server_stream.h"

namespace presence::core {
namespace {

using google::protobuf::util::TimeUtil;
using Response = admin::v1::TapResponse;

// admin.proto. Some 300 bytes each, 1 KiB at most and more: up to 10 MiB of a tap that nobody reads.
constexpr size_t kWaitingMax = 10'000;

static_assert(static_cast<int>(admin::v1::TAP_EVENT_KIND_ORDER) == static_cast<int>(link::v1::TAP_KIND_ORDER) &&
                  static_cast<int>(admin::v1::TapEventKind_MAX) == static_cast<int>(link::v1::TapKind_MAX),
              "the public kinds are numbered as the link's");

class TapStream final : public LoopStream<Response>, public TapSink {
 public:
  TapStream(grpc::CallbackServerContext& context, CoreRuntime& runtime, StreamMetrics& metrics,
            link::v1::TapOrder target)
      : LoopStream(context, runtime, metrics), tap_(runtime.NextRequest()), target_(std::move(target)) {}

  void OnTapped(const link::v1::TapEvents& events) override {
    if (ended()) return;
    for (const link::v1::TapEvent& event : events.events()) {
      Response& response = waiting_.emplace_back();
      *response.mutable_time() = TimeUtil::MillisecondsToTimestamp(event.time_ms());
      response.set_core(events.core());
      response.set_kind(static_cast<admin::v1::TapEventKind>(event.kind()));
      response.set_user_id(event.user_id());
      response.set_room_id(event.room_id());
      if (event.has_connection()) response.set_connection_id(ConnectionText(event.connection()));
      response.set_detail(event.detail());
      response.set_left_out_count(static_cast<int32_t>(event.left_out()));
    }
    if (waiting_.size() > kWaitingMax) return EndSlow(absl::ResourceExhaustedError("the tap reads too slowly"));
    Pump();
  }

  // Or the core stops.
  void OnTapRefused(const absl::Status& why) override { opened() ? End(why) : Refuse(why); }

 private:
  void Begin() override {
    // The runtime lets go of it in CloseTap, which is posted after this.
    auto self = std::static_pointer_cast<TapStream>(shared_from_this());
    runtime().OpenTap(tap_, std::move(target_), self);
    // Behind that, which says OnTapRefused or nothing.
    runtime().OnLoop([self](LoopParts&) {
      if (!self->ended()) self->Opened();
    });
  }

  bool Fill(Response* response) override {
    if (waiting_.empty()) return false;
    *response = std::move(waiting_.front());
    waiting_.pop_front();
    return true;
  }

  void Close() override {
    waiting_.clear();
    runtime().CloseTap(tap_);
  }

  const uint64_t tap_;
  link::v1::TapOrder target_;
  std::deque<Response> waiting_;
};

}  // namespace

grpc::ServerWriteReactor<Response>* StartTap(grpc::CallbackServerContext& context, const admin::v1::TapRequest& request,
                                             CoreRuntime& runtime, StreamMetrics& metrics) {
  RequestCheck check;
  link::v1::TapOrder target;
  switch (request.target_case()) {
    case admin::v1::TapRequest::kUserId:
      check.Id("user_id", request.user_id());
      target.set_user_id(request.user_id());
      break;
    case admin::v1::TapRequest::kRoomId:
      check.Id("room_id", request.room_id());
      target.set_room_id(request.room_id());
      break;
    case admin::v1::TapRequest::TARGET_NOT_SET:
      check.Refuse("target", "must be one of user_id and room_id");
      break;
  }
  if (!check.ok()) return RefuseTap(check.status(), metrics);
  return TapStream::Start(std::make_shared<TapStream>(context, runtime, metrics, std::move(target)));
}

grpc::ServerWriteReactor<Response>* RefuseTap(const absl::Status& why, StreamMetrics& metrics) {
  return new RefusedStream<Response>(why, metrics);
}

}  // namespace presence::core
