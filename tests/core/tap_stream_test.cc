// Tap over real gRPC, on a whole core.
#include "core/tap_stream.h"

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tests/core/api_client.h"
#include "tests/core/link_events.h"
#include "tests/core/test_core.h"

namespace presence::core {
namespace {

using admin::v1::AdminService;
using admin::v1::TapRequest;
using admin::v1::TapResponse;
using grpc::StatusCode;
using ::testing::ElementsAre;

TapRequest User(const std::string& user_id) {
  TapRequest request;
  request.set_user_id(user_id);
  return request;
}

TapRequest Room(const std::string& room_id) {
  TapRequest request;
  request.set_room_id(room_id);
  return request;
}

class Tap {
 public:
  Tap(TestCore& core, const TapRequest& request) : stub_(AdminService::NewStub(TestCore::Dial(*core.api_server))) {
    context_.set_deadline(Deadline());
    stream_ = stub_->Tap(&context_, request);
  }
  ~Tap() {
    if (!stream_) return;
    context_.TryCancel();
    Finish();
  }

  // The next event of that kind; a failure when the stream ends before.
  TapResponse Await(admin::v1::TapEventKind kind) {
    TapResponse response;
    do {
      if (!stream_->Read(&response)) {
        ADD_FAILURE() << "the stream has ended";
        return {};
      }
      left_out += response.left_out_count();
    } while (response.kind() != kind);
    return response;
  }
  void Cancel() { context_.TryCancel(); }
  grpc::Status Finish() {
    TapResponse response;
    while (stream_->Read(&response)) ++read_to_the_end;
    const grpc::Status status = stream_->Finish();
    stream_.reset();
    return status;
  }

  int64_t left_out = 0;
  size_t read_to_the_end = 0;

 private:
  std::unique_ptr<AdminService::Stub> stub_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReader<TapResponse>> stream_;
};

// Waits, tick by tick, until so many are open.
void AwaitTaps(TestCore& core, size_t count) {
  const auto deadline = Deadline();
  const auto taps = [&] { return core.runtime->metrics().hub().sizes.taps; };
  while (taps() != count && std::chrono::system_clock::now() < deadline) core.OnLoop([] {});
  EXPECT_EQ(taps(), count);
}

const StreamMetrics& Counts(const TestCore& core) {
  return core.admin->metrics().streams().front().metrics;
}

TEST(TapStream, ShowsWhatHappensToAUser) {
  TestCore core;
  Tap tap(core, User("user"));
  AwaitTaps(core, 1);
  TestEdge edge(core);
  edge.AttachWithRoom(0, "room");
  const TapResponse connected = tap.Await(admin::v1::TAP_EVENT_KIND_CONNECTED);
  EXPECT_EQ(connected.core(), "core-under-test");
  EXPECT_EQ(connected.user_id(), "user");
  EXPECT_NE(connected.connection_id(), "");
  EXPECT_TRUE(connected.has_time());
  EXPECT_EQ(tap.Await(admin::v1::TAP_EVENT_KIND_SUBSCRIBED).room_id(), "room");
  EXPECT_EQ(Counts(core).opened.Value(), 1u);
  EXPECT_GE(Counts(core).responses.Value(), 2u);
}

TEST(TapStream, ShowsWhatHappensInARoomAndNothingElse) {
  TestCore core;
  Tap tap(core, Room("room"));
  AwaitTaps(core, 1);
  TestEdge other(core), edge(core);
  other.AttachWithRoom(1, "other");
  edge.AttachWithRoom(0, "room");
  const TapResponse first = tap.Await(admin::v1::TAP_EVENT_KIND_SUBSCRIBED);
  EXPECT_EQ(first.room_id(), "room");
}

TEST(TapStream, RefusesWhatIsInvalidAndNamesTheField) {
  TestCore core;
  EXPECT_THAT(FieldsAtFault(Tap(core, {}).Finish()), ElementsAre("target"));
  EXPECT_THAT(FieldsAtFault(Tap(core, User("")).Finish()), ElementsAre("user_id"));
  EXPECT_THAT(FieldsAtFault(Tap(core, Room(std::string(3'000, 'x'))).Finish()), ElementsAre("room_id"));
  EXPECT_EQ(Counts(core).refused.load(), 3u);
}

TEST(TapStream, RefusesOneTooMany) {
  TestCore core([](CoreRuntimeOptions& options) { options.hub.taps_max = 2; });
  Tap first(core, User("a")), second(core, User("b"));
  AwaitTaps(core, 2);
  EXPECT_EQ(Tap(core, User("c")).Finish().error_code(), StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(Counts(core).opened.Value(), 2u);
  EXPECT_EQ(Counts(core).refused.load(), 1u);
  EXPECT_EQ(Counts(core).ended_slow.Value(), 0u);
  first.Cancel();
  AwaitTaps(core, 1);
  Tap third(core, User("c"));
  AwaitTaps(core, 2);
}

TEST(TapStream, ACancelledTapEnds) {
  TestCore core;
  Tap tap(core, User("user"));
  AwaitTaps(core, 1);
  tap.Cancel();
  AwaitTaps(core, 0);
  EXPECT_EQ(tap.Finish().error_code(), StatusCode::CANCELLED);
  Tap early(core, User("user"));
  early.Cancel();  // perhaps before the core has heard of it
  EXPECT_EQ(early.Finish().error_code(), StatusCode::CANCELLED);
  AwaitTaps(core, 0);
}

TEST(TapStream, WhoDoesNotReadIsEnded) {
  TestCore core([](CoreRuntimeOptions& options) { options.hub.tap_events_per_second = 1'000'000; });
  Tap tap(core, Room("room"));
  AwaitTaps(core, 1);
  // Each is shown with 1 KiB of its text. Nobody waits for answers: the machine may be slow.
  const std::string text = "{\"x\":\"" + std::string(2'000, 'x') + "\"}";
  for (int i = 0; i < 400 && core.runtime->metrics().hub().sizes.taps != 0; ++i) {
    for (int message = 0; message < 100; ++message) {
      OutgoingMessage outgoing;
      outgoing.room_id = "room";
      outgoing.data_json = text;
      core.runtime->Send(std::move(outgoing), [](const absl::Status&, const MessageAnswer&) {});
    }
    core.OnLoop([] {});
  }
  EXPECT_EQ(core.runtime->metrics().hub().sizes.taps, 0u);
  const grpc::Status status = tap.Finish();
  EXPECT_EQ(status.error_code(), StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(Counts(core).ended_slow.Value(), 1u);
}

TEST(TapStream, TheCoreMayGoAwayInTheMiddle) {
  auto core = std::make_unique<TestCore>();
  Tap tap(*core, Room("room"));
  AwaitTaps(*core, 1);
  core.reset();
  EXPECT_NE(tap.Finish().error_code(), StatusCode::OK);
}

}  // namespace
}  // namespace presence::core
