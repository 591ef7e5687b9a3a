// A backend over real gRPC: one that says no, is slow, fails, or is not there.
#include "core/grpc_room_authorizer.h"

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <asio/io_context.hpp>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "presence/v1/room_authorizer.grpc.pb.h"

namespace presence::core {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using std::chrono::steady_clock;
using testing::ElementsAre;
using Outcome = RoomAnswer::Outcome;

// Says what the room is called: "read", "write", "none", "unsaid", "error"; "hold" waits until Release.
class Backend final : public v1::RoomAuthorizer::CallbackService {
 public:
  Backend() {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port_);
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
  }
  ~Backend() override {
    Release();
    server_->Shutdown(std::chrono::system_clock::now() + seconds(1));
  }

  std::string address() const { return "127.0.0.1:" + std::to_string(port_); }
  size_t held() {
    std::lock_guard lock(mutex_);
    return held_.size();
  }
  size_t held_at_once() {
    std::lock_guard lock(mutex_);
    return held_max_;
  }
  void Release() {
    std::vector<grpc::ServerUnaryReactor*> held;
    {
      std::lock_guard lock(mutex_);
      held.swap(held_);
    }
    for (auto* reactor : held) reactor->Finish(grpc::Status::OK);
  }
  std::vector<std::string> asked() {
    std::lock_guard lock(mutex_);
    return asked_;
  }

 private:
  grpc::ServerUnaryReactor* Authorize(grpc::CallbackServerContext* context, const v1::AuthorizeRequest* request,
                                      v1::AuthorizeResponse* response) override {
    auto* reactor = context->DefaultReactor();
    const std::string& room = request->room_id();
    std::unique_lock lock(mutex_);
    asked_.push_back(request->user_id() + "(" + request->username() + ") " + room);
    if (room == "read") response->set_right(v1::ROOM_RIGHT_READ);
    if (room == "write" || room == "hold") response->set_right(v1::ROOM_RIGHT_WRITE);
    if (room == "none") response->set_right(v1::ROOM_RIGHT_NONE);
    if (room == "read") response->mutable_cache_for()->set_nanos(1'500'000);
    if (room == "none") response->mutable_cache_for()->set_seconds(90);
    if (room == "write") response->mutable_cache_for()->set_seconds(-5);
    if (room == "hold") {
      held_.push_back(reactor);
      held_max_ = std::max(held_max_, held_.size());
      return reactor;
    }
    lock.unlock();
    reactor->Finish(room == "error" ? grpc::Status(grpc::StatusCode::INTERNAL, "broken") : grpc::Status::OK);
    return reactor;
  }

  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
  std::mutex mutex_;
  std::vector<grpc::ServerUnaryReactor*> held_;
  size_t held_max_ = 0;
  std::vector<std::string> asked_;
};

struct GrpcRoomAuthorizerTest : testing::Test, RoomRightListener {
  Backend backend;
  asio::io_context io;
  RoomRightsMetrics metrics;
  std::map<uint64_t, RoomAnswer> answers;

  std::unique_ptr<GrpcRoomAuthorizer> Make(GrpcRoomAuthorizerOptions options = {}) {
    if (options.address.empty()) options.address = backend.address();
    return std::make_unique<GrpcRoomAuthorizer>(io, std::move(options), *this, metrics);
  }
  bool RunUntil(const std::function<bool()>& condition) {
    const auto deadline = steady_clock::now() + seconds(20);
    while (!condition()) {
      if (steady_clock::now() > deadline) return false;
      io.restart();
      io.run_one_for(milliseconds(10));
    }
    return true;
  }
  RoomAnswer Ask(GrpcRoomAuthorizer& authorizer, std::string_view room) {
    const uint64_t id = answers.size() + 1000;
    authorizer.Ask({id, "alice", "Alice", room});
    EXPECT_TRUE(RunUntil([&] { return answers.contains(id); })) << room;
    return answers[id];
  }
  void OnRoomRight(uint64_t id, const RoomAnswer& answer) override {
    EXPECT_TRUE(answers.emplace(id, answer).second) << "answered once";
  }
};

TEST_F(GrpcRoomAuthorizerTest, TheBackendDecides) {
  const auto authorizer = Make({.timeout = seconds(15)});
  const RoomAnswer read = Ask(*authorizer, "read"), write = Ask(*authorizer, "write"), none = Ask(*authorizer, "none");
  EXPECT_EQ(read.outcome, Outcome::kAnswered);
  EXPECT_EQ(read.right, RoomRight::kRead);
  EXPECT_EQ(read.cache_for, milliseconds(2)) << "rounded up: 0 would mean that it does not say";
  EXPECT_EQ(write.right, RoomRight::kWrite);
  EXPECT_EQ(write.cache_for, milliseconds(0)) << "nonsense is as good as nothing";
  EXPECT_EQ(none.outcome, Outcome::kAnswered);
  EXPECT_EQ(none.right, RoomRight::kNone);
  EXPECT_EQ(none.cache_for, seconds(90));
  EXPECT_THAT(backend.asked(), ElementsAre("alice(Alice) read", "alice(Alice) write", "alice(Alice) none"));
  EXPECT_EQ(metrics.answered.Value(), 3u);
}

TEST_F(GrpcRoomAuthorizerTest, AnErrorAndAnAnswerWithoutARightSayNothing) {
  const auto authorizer = Make({.timeout = seconds(15)});
  EXPECT_EQ(Ask(*authorizer, "error").outcome, Outcome::kUnavailable);
  EXPECT_EQ(Ask(*authorizer, "unsaid").outcome, Outcome::kUnavailable);
  EXPECT_EQ(metrics.failed.Value(), 2u);
}

TEST_F(GrpcRoomAuthorizerTest, WhoIsSlowHasNotAnswered) {
  const auto authorizer = Make({.timeout = milliseconds(200)});
  EXPECT_EQ(Ask(*authorizer, "hold").outcome, Outcome::kUnavailable);
  EXPECT_EQ(metrics.failed.Value(), 1u);
  EXPECT_EQ(metrics.in_flight.Value(), 0u);
}

TEST_F(GrpcRoomAuthorizerTest, WhoIsNotThereHasNotAnswered) {
  const auto authorizer = Make({.address = "unix:/nowhere/at/all", .timeout = seconds(15)});
  EXPECT_EQ(Ask(*authorizer, "write").outcome, Outcome::kUnavailable);
}

TEST_F(GrpcRoomAuthorizerTest, SoManyAtATimeSoManyWaitAndTheRestIsRefused) {
  const auto authorizer = Make({.timeout = seconds(15), .calls_max = 3, .waiting_max = 4});
  for (uint64_t id = 1; id <= 9; ++id) authorizer->Ask({id, "alice", "Alice", "hold"});
  EXPECT_TRUE(answers.empty()) << "never from inside";
  ASSERT_TRUE(RunUntil([&] { return answers.size() == 2 && backend.held() == 3; }));
  EXPECT_EQ(answers.begin()->first, 8u);
  EXPECT_EQ(answers[9].outcome, Outcome::kUnavailable);
  EXPECT_EQ(metrics.refused.Value(), 2u);
  EXPECT_EQ(metrics.in_flight.Value(), 3u);
  EXPECT_EQ(metrics.waiting.Value(), 4u);
  ASSERT_TRUE(RunUntil([&] {
    backend.Release();
    return answers.size() == 9;
  }));
  for (uint64_t id = 1; id <= 7; ++id) EXPECT_EQ(answers[id].right, RoomRight::kWrite) << id;
  EXPECT_EQ(backend.held_at_once(), 3u);
  EXPECT_EQ(metrics.waiting.Value(), 0u);
}

// Ten times 200 ms would be the wait of the last one.
TEST_F(GrpcRoomAuthorizerTest, NobodyWaitsForAllBeforeHimWhenTheBackendIsSlow) {
  const auto authorizer = Make({.timeout = milliseconds(200), .calls_max = 1});
  for (uint64_t id = 1; id <= 10; ++id) authorizer->Ask({id, "alice", "Alice", "hold"});
  ASSERT_TRUE(RunUntil([&] { return answers.size() == 10; }));
  for (const auto& [id, answer] : answers) EXPECT_EQ(answer.outcome, Outcome::kUnavailable);
  EXPECT_LE(backend.asked().size(), 3u);
}

TEST_F(GrpcRoomAuthorizerTest, ItEndsWithCallsUnderWay) {
  auto authorizer = Make({.timeout = seconds(15), .calls_max = 2});
  for (uint64_t id = 1; id <= 5; ++id) authorizer->Ask({id, "alice", "Alice", "hold"});
  ASSERT_TRUE(RunUntil([&] { return backend.held() == 2; }));
  authorizer.reset();
  io.restart();
  io.poll();
  EXPECT_TRUE(answers.empty()) << "nobody is told any more";
}

}  // namespace
}  // namespace presence::core
