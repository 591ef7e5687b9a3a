// Operations: the picture of the cluster, and orders to cores and edges by their names.
#include "core/admin_service.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <utility>
#include <vector>

#include "common/log.h"
#include "core/admin_state.h"
#include "tests/core/api_client.h"

namespace presence::core {
namespace {

using grpc::StatusCode;
using link::v1::ClusterReply;
using link::v1::CoreCommand;
using testing::ElementsAre;
using testing::IsEmpty;

// --- the picture, from what cores say.

ClusterReply StateOf(const std::string& name, uint64_t incarnation) {
  ClusterReply reply;
  reply.set_core(incarnation);
  reply.mutable_state()->set_name(name);
  return reply;
}

struct SeenShard {
  std::string edge;
  uint64_t incarnation = 0;
  uint32_t shard = 0;
  uint64_t attach = 1;
  bool attached = true;
};

void Sees(ClusterReply& reply, const SeenShard& seen) {
  auto& shard = *reply.mutable_state()->add_shards();
  shard.set_edge(seen.edge);
  shard.set_incarnation(seen.incarnation);
  shard.set_shard(seen.shard);
  shard.set_attach(seen.attach);
  shard.set_attached(seen.attached);
}

std::vector<std::string> Shards(const admin::v1::EdgeState& edge) {
  std::vector<std::string> shards;
  for (const auto& shard : edge.shards()) {
    shards.push_back(std::to_string(shard.shard()) + (shard.attached() ? " at " : " was at ") + shard.core());
  }
  return shards;
}

TEST(ClusterState, IsInOrderOfNamesAndTellsProcessesApart) {
  std::vector<ClusterReply> replies = {StateOf("b", 1), StateOf("a", 9), StateOf("a", 2)};
  Sees(replies[0], {.edge = "east", .incarnation = 0xab, .shard = 1});
  Sees(replies[0], {.edge = "east", .incarnation = 0x0f});
  Sees(replies[1], {.edge = "east", .incarnation = 0xab, .shard = 0});
  admin::v1::GetClusterStateResponse state;
  FillClusterState(replies, state);
  std::vector<std::string> cores;
  for (const auto& core : state.cores()) cores.push_back(core.name() + " " + core.incarnation());
  EXPECT_THAT(cores, ElementsAre("a 0000000000000002", "a 0000000000000009", "b 0000000000000001"));
  ASSERT_EQ(state.edges_size(), 2);
  EXPECT_EQ(state.edges(0).incarnation(), "000000000000000f");
  EXPECT_THAT(Shards(state.edges(1)), ElementsAre("0 at a", "1 at b"));
}

TEST(ClusterState, AnAttachedShardWinsOverALostOneAndElseTheLaterAttach) {
  std::vector<ClusterReply> replies = {StateOf("a", 1), StateOf("b", 2)};
  Sees(replies[0], {.edge = "e", .incarnation = 1, .shard = 0, .attach = 9, .attached = false});
  Sees(replies[1], {.edge = "e", .incarnation = 1, .shard = 0, .attach = 3, .attached = true});
  Sees(replies[0], {.edge = "e", .incarnation = 1, .shard = 1, .attach = 5, .attached = false});
  Sees(replies[1], {.edge = "e", .incarnation = 1, .shard = 1, .attach = 4, .attached = false});
  for (int i = 0; i < 2; ++i) {
    admin::v1::GetClusterStateResponse state;
    FillClusterState(replies, state);
    ASSERT_EQ(state.edges_size(), 1);
    EXPECT_THAT(Shards(state.edges(0)), ElementsAre("0 at b", "1 was at a"));
    std::swap(replies[0], replies[1]);
  }
}

TEST(ClusterState, KnowsWhoCouldTakeOver) {
  std::vector<ClusterReply> replies = {StateOf("a", 1), StateOf("b", 2), StateOf("a", 0)};
  EXPECT_THAT(FindCores(replies, "a").incarnations, ElementsAre(0, 1));
  EXPECT_TRUE(FindCores(replies, "a").others);
  EXPECT_THAT(FindCores(replies, "c").incarnations, IsEmpty());
  replies[1].mutable_state()->set_draining(true);
  EXPECT_FALSE(FindCores(replies, "a").others) << "b is on its way out itself";
}

TEST(ClusterState, LeavesOutWhoCouldNotAnswer) {
  std::vector<ClusterReply> replies = {StateOf("a", 1), StateOf("b", 2)};
  replies[1].set_code(12);
  EXPECT_EQ(CoresSeen(replies), 1);
  admin::v1::GetClusterStateResponse state;
  FillClusterState(replies, state);
  EXPECT_EQ(state.cores_size(), 1);
}

// --- the calls.

class AdminServiceTest : public ApiTest {
 protected:
  static void Options(CoreRuntimeOptions& options) {
    options.hub.version = "1.2.3";
    options.hub.started_ms = 1'700'000'000'000;
    options.hub.gather_max = std::chrono::milliseconds(500);
  }
  AdminServiceTest() : ApiTest(Options) {}

  grpc::Status State(admin::v1::GetClusterStateResponse* state) {
    return Call(&Admin::GetClusterState, admin::v1::GetClusterStateRequest(), state);
  }
  static admin::v1::DrainEdgeRequest DrainEdge(const std::string& edge) {
    admin::v1::DrainEdgeRequest request;
    request.set_edge(edge);
    return request;
  }
  static admin::v1::DrainCoreRequest DrainCore(const std::string& core) {
    admin::v1::DrainCoreRequest request;
    request.set_core(core);
    return request;
  }
  static admin::v1::SetLogLevelRequest Level(admin::v1::LogLevel level) {
    admin::v1::SetLogLevelRequest request;
    request.set_level(level);
    return request;
  }
};

// A core that says so of itself, and counts `count` for every order.
PeerCore::Answer Named(const std::string& name, uint32_t count = 0) {
  return [name, count](const link::v1::BusEnvelope& envelope) {
    if (envelope.request().has_state()) return std::optional(StateOf(name, PeerCore::kIncarnation));
    ClusterReply reply;
    reply.mutable_count()->set_count(count);
    return std::optional(reply);
  };
}

TEST_F(AdminServiceTest, ShowsCoresEdgesAndShards) {
  PeerCore peer(core_, Named("a-peer"));
  TestEdge edge(core_);
  edge.AttachWithRoom(3, "room");
  core_.OnLoop([] {});
  admin::v1::GetClusterStateResponse state;
  const grpc::Status status = State(&state);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_FALSE(state.incomplete());
  ASSERT_EQ(state.cores_size(), 2);
  EXPECT_EQ(state.cores(0).name(), "a-peer");
  const admin::v1::CoreState& core = state.cores(1);
  EXPECT_EQ(core.name(), "core-under-test");
  EXPECT_EQ(core.incarnation(), "0000000000000063");
  EXPECT_EQ(core.version(), "1.2.3");
  EXPECT_EQ(core.start_time().seconds(), 1'700'000'000);
  EXPECT_TRUE(core.store_up());
  EXPECT_FALSE(core.draining());
  EXPECT_EQ(core.link_count(), 1);
  EXPECT_EQ(core.connection_count(), 1);
  EXPECT_EQ(core.user_count(), 1);
  EXPECT_EQ(core.room_count(), 1);
  EXPECT_EQ(core.membership_count(), 1);
  ASSERT_EQ(state.edges_size(), 1);
  EXPECT_EQ(state.edges(0).name(), "test-edge");
  EXPECT_EQ(state.edges(0).incarnation(), "0000000000000007");
  EXPECT_THAT(Shards(state.edges(0)), ElementsAre("3 at core-under-test"));
  EXPECT_EQ(state.edges(0).shards(0).connection_count(), 1);
}

TEST_F(AdminServiceTest, ShowsWhatThereIsWhenACoreDoesNotAnswer) {
  PeerCore peer(core_, Silent());
  admin::v1::GetClusterStateResponse state;
  ASSERT_TRUE(State(&state).ok());
  EXPECT_TRUE(state.incomplete());
  EXPECT_EQ(state.cores_size(), 1);
}

TEST_F(AdminServiceTest, ShowsThisCoreAloneWhileTheStoreIsAway) {
  core_.SetReachable(false);
  admin::v1::GetClusterStateResponse state;
  ASSERT_TRUE(State(&state).ok());
  EXPECT_TRUE(state.incomplete());
  ASSERT_EQ(state.cores_size(), 1);
  EXPECT_FALSE(state.cores(0).store_up());
}

TEST_F(AdminServiceTest, DrainsAnEdgeByItsName) {
  TestEdge edge(core_);
  edge.AttachWithRoom(0, "room");
  admin::v1::DrainEdgeRequest request = DrainEdge("test-edge");
  request.mutable_window()->set_seconds(2);
  admin::v1::DrainEdgeResponse response;
  const grpc::Status status = Call(&Admin::DrainEdge, request, &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(response.connection_count(), 1);
  EXPECT_EQ(edge.Await(CoreCommand::kBeginDrain).begin_drain().window_ms(), 2000u);
}

TEST_F(AdminServiceTest, AnEdgeWithoutClientsIsDrainedAllTheSame) {
  TestEdge edge(core_);
  edge.Say({Hello(), ResyncDone()});
  edge.Await(CoreCommand::kWelcome);
  admin::v1::DrainEdgeResponse response;
  ASSERT_TRUE(Call(&Admin::DrainEdge, DrainEdge("test-edge"), &response).ok());
  EXPECT_EQ(response.connection_count(), 0);
  EXPECT_EQ(edge.Await(CoreCommand::kBeginDrain).begin_drain().window_ms(), 5000u) << "unless another window is set";
}

TEST_F(AdminServiceTest, DoesNotFindWhoIsNotThere) {
  PeerCore peer(core_, Named("a-peer"));
  admin::v1::SetLogLevelRequest core = Level(admin::v1::LOG_LEVEL_INFO), edge = Level(admin::v1::LOG_LEVEL_INFO);
  core.set_core("missing");
  edge.set_edge("missing");
  for (const grpc::Status& status :
       {Try(&Admin::DrainEdge, DrainEdge("missing")), Try(&Admin::DrainCore, DrainCore("missing")),
        Try(&Admin::SetLogLevel, core), Try(&Admin::SetLogLevel, edge)}) {
    EXPECT_EQ(status.error_code(), StatusCode::NOT_FOUND);
    EXPECT_EQ(status.error_message().find("missing"), std::string::npos);
  }
}

TEST_F(AdminServiceTest, WhoIsNotSeenMayStillBeThereWhenACoreDoesNotAnswer) {
  PeerCore peer(core_, Silent());
  admin::v1::SetLogLevelRequest level = Level(admin::v1::LOG_LEVEL_INFO);
  level.set_edge("elsewhere");
  for (const grpc::Status& status :
       {Try(&Admin::DrainEdge, DrainEdge("elsewhere")), Try(&Admin::DrainCore, DrainCore("elsewhere")),
        Try(&Admin::DrainCore, DrainCore("core-under-test")), Try(&Admin::SetLogLevel, level)}) {
    EXPECT_EQ(status.error_code(), StatusCode::UNAVAILABLE);
    EXPECT_EQ(RetrySeconds(status), 1);
  }
}

TEST_F(AdminServiceTest, TheOnlyCoreIsNotDrained) {
  const grpc::Status status = Try(&Admin::DrainCore, DrainCore("core-under-test"));
  EXPECT_EQ(status.error_code(), StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(ReasonOf(status), "LAST_CORE");
}

TEST_F(AdminServiceTest, DrainsACoreByItsName) {
  PeerCore peer(core_, Named("a-peer"));
  TestEdge edge(core_);
  edge.AttachWithRoom(0, "room");
  admin::v1::DrainCoreRequest request = DrainCore("core-under-test");
  request.mutable_window();
  admin::v1::DrainCoreResponse response;
  const grpc::Status status = Call(&Admin::DrainCore, request, &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(response.link_count(), 1);
  EXPECT_EQ(edge.Finish().error_code(), StatusCode::UNAVAILABLE);
}

TEST_F(AdminServiceTest, DrainsAnotherCoreByItsName) {
  std::vector<uint64_t> drained;
  PeerCore peer(core_, [&drained](const link::v1::BusEnvelope& envelope) {
    if (envelope.request().has_drain()) drained.push_back(envelope.request().drain().core());
    return Named("a-peer", 4)(envelope);
  });
  admin::v1::DrainCoreResponse response;
  ASSERT_TRUE(Call(&Admin::DrainCore, DrainCore("a-peer"), &response).ok());
  EXPECT_EQ(response.link_count(), 4);
  core_.OnLoop([&] { EXPECT_THAT(drained, ElementsAre(PeerCore::kIncarnation)); });
}

TEST_F(AdminServiceTest, SetsTheLogLevelOfWhoIsNamed) {
  PeerCore peer(core_, Named("a-peer", 1));
  TestEdge edge(core_);
  edge.AttachWithRoom(0, "room");
  admin::v1::SetLogLevelRequest request = Level(admin::v1::LOG_LEVEL_WARNING);
  admin::v1::SetLogLevelResponse response;
  request.set_edge("test-edge");
  ASSERT_TRUE(Call(&Admin::SetLogLevel, request, &response).ok());
  EXPECT_EQ(response.process_count(), 1);
  EXPECT_EQ(edge.Await(CoreCommand::kSetLogLevel).set_log_level().level(), link::v1::LOG_LEVEL_WARNING);
  request.set_core("a-peer");
  ASSERT_TRUE(Call(&Admin::SetLogLevel, request, &response).ok());
  EXPECT_EQ(response.process_count(), 1);
  request.set_all(true);
  request.set_level(admin::v1::LOG_LEVEL_INFO);
  ASSERT_TRUE(Call(&Admin::SetLogLevel, request, &response).ok());
  EXPECT_EQ(response.process_count(), 3) << "two cores and an edge";
}

// ------------------------------------------------------------------------------------------- while the store is away

TEST_F(AdminServiceTest, WhatIsHereIsToldWhileTheStoreIsAway) {
  TestEdge edge(core_);
  edge.AttachWithRoom(0, "room");
  core_.SetReachable(false);
  admin::v1::SetLogLevelRequest level = Level(admin::v1::LOG_LEVEL_WARNING);
  level.set_core("core-under-test");
  grpc::Status status = Try(&Admin::SetLogLevel, level);
  EXPECT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(log::SetLevel(log::Level::kInfo), log::Level::kWarning);
  level.set_edge("test-edge");
  status = Try(&Admin::SetLogLevel, level);
  EXPECT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(edge.Await(CoreCommand::kSetLogLevel).set_log_level().level(), link::v1::LOG_LEVEL_WARNING);
  admin::v1::DrainEdgeResponse response;
  status = Call(&Admin::DrainEdge, DrainEdge("test-edge"), &response);
  EXPECT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(response.connection_count(), 1);
  EXPECT_EQ(edge.Await(CoreCommand::kBeginDrain).begin_drain().window_ms(), 5000u);
}

TEST_F(AdminServiceTest, WhatMayBeElsewhereIsUnavailableWhileTheStoreIsAway) {
  core_.SetReachable(false);
  admin::v1::SetLogLevelRequest all = Level(admin::v1::LOG_LEVEL_INFO), other = Level(admin::v1::LOG_LEVEL_INFO);
  all.set_all(true);
  other.set_core("another");
  for (const grpc::Status& status :
       {Try(&Admin::SetLogLevel, all), Try(&Admin::SetLogLevel, other), Try(&Admin::DrainEdge, DrainEdge("another")),
        Try(&Admin::DrainCore, DrainCore("core-under-test"))}) {
    EXPECT_EQ(status.error_code(), StatusCode::UNAVAILABLE);
  }
}

// It knows of the edge, and has told it: that another core is silent changes nothing.
TEST_F(AdminServiceTest, AnEdgeThatWasToldIsToldWhoeverElseIsSilent) {
  TestEdge edge(core_);
  edge.AttachWithRoom(0, "room");
  PeerCore peer(core_, Silent());
  const grpc::Status status = Try(&Admin::DrainEdge, DrainEdge("test-edge"));
  EXPECT_TRUE(status.ok()) << status.error_message();
  edge.Await(CoreCommand::kBeginDrain);
}

TEST_F(AdminServiceTest, RefusesWhatIsInvalidAndNamesEveryField) {
  admin::v1::DrainEdgeRequest edge = DrainEdge("");
  edge.mutable_window()->set_seconds(3601);
  admin::v1::DrainCoreRequest core = DrainCore(std::string(256, 'c'));
  core.mutable_window()->set_seconds(-1);
  admin::v1::SetLogLevelRequest not_all = Level(static_cast<admin::v1::LogLevel>(5));
  not_all.set_all(false);
  const std::vector<std::pair<std::vector<std::string>, grpc::Status>> refusals = {
      {{"edge", "window"}, Try(&Admin::DrainEdge, edge)},
      {{"core", "window"}, Try(&Admin::DrainCore, core)},
      {{"target", "level"}, Try(&Admin::SetLogLevel, admin::v1::SetLogLevelRequest())},
      {{"all", "level"}, Try(&Admin::SetLogLevel, not_all)},
  };
  for (const auto& [fields, status] : refusals) {
    EXPECT_EQ(status.error_code(), StatusCode::INVALID_ARGUMENT);
    EXPECT_EQ(FieldsAtFault(status), fields);
  }
}

}  // namespace
}  // namespace presence::core
