// Real gRPC over loopback, from the edge's side.
#include "core/link_service.h"

#include <gmock/gmock.h>
#include <grpcpp/generic/generic_stub.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "tests/core/test_core.h"

namespace presence::core {
namespace {

using link::v1::CoreCommand;
using link::v1::CoreFrame;
using testing::HasSubstr;

std::string MessageText(int n) {
  return R"({"type":"message","data":{"n":)" + std::to_string(n) + "}}";
}

class LinkServiceTest : public testing::Test {
 protected:
  // Answered when the store has published it.
  static grpc::Status Broadcast(v1::PresenceService::Stub& api, const std::string& room, const std::string& data_json) {
    grpc::ClientContext context;
    context.set_deadline(Deadline());
    v1::BroadcastRequest request;
    request.set_room_id(room);
    request.set_data_json(data_json);
    v1::BroadcastResponse response;
    return api.Broadcast(&context, request, &response);
  }

  static std::unique_ptr<v1::PresenceService::Stub> Api(TestCore& core) {
    return v1::PresenceService::NewStub(TestCore::Dial(*core.api_server));
  }
};

TEST_F(LinkServiceTest, AttachBindDeliver) {
  TestCore core;
  TestEdge edge(core);
  edge.Say({Hello()});
  EXPECT_EQ(edge.Await(CoreCommand::kWelcome).welcome().core(), "core-under-test");
  edge.Say({ResyncDone(), Opened(1, Connection(3), "alice"), Joined(2, Connection(3), "room")});
  const CoreCommand bind = edge.Await(CoreCommand::kBind);
  EXPECT_EQ(bind.bind().connection(), Connection(3));
  EXPECT_EQ(bind.bind().room_id(), "room");
  EXPECT_EQ(bind.bind().reply_to(), 2u);

  const grpc::Status sent = Broadcast(*Api(core), "room", R"({"n":1})");
  EXPECT_TRUE(sent.ok()) << sent.error_message();
  const CoreCommand deliver = edge.Await(CoreCommand::kDeliver);
  EXPECT_EQ(deliver.deliver().handle(), bind.bind().handle());
  EXPECT_EQ(deliver.deliver().text(), MessageText(1));
}

TEST_F(LinkServiceTest, AnEdgeThatDoesNotReadGetsLargerFrames) {
  TestCore core;
  TestEdge edge(core);
  edge.AttachWithRoom(0, "room");
  const auto api = Api(core);
  constexpr int kMessages = 1000;
  const std::string filling(12'000, 'x');  // 12 MB in all: more than gRPC's windows hold, less than the bound
  for (int n = 0; n < kMessages; ++n) {
    ASSERT_TRUE(Broadcast(*api, "room", R"({"n":)" + std::to_string(n) + R"(,"x":")" + filling + "\"}").ok());
  }
  int next = 0;
  int frames = 0;
  size_t longest = 0;
  while (next < kMessages) {
    const CoreFrame frame = edge.ReadFrame();
    ASSERT_GT(frame.commands_size(), 0) << "the stream has ended";
    ++frames;
    longest = std::max(longest, frame.ByteSizeLong());
    for (const CoreCommand& command : frame.commands()) {
      if (!command.has_deliver()) continue;
      ASSERT_THAT(command.deliver().text(), HasSubstr(R"({"n":)" + std::to_string(next) + ","));
      ++next;
    }
  }
  EXPECT_LT(frames, kMessages);
  EXPECT_GT(longest, 100'000u);
  EXPECT_LE(longest, 256u * 1024);
}

TEST_F(LinkServiceTest, AnEdgeThatReadsTooSlowlyIsDroppedAndTheOthersAreNot) {
  TestCore core([](CoreRuntimeOptions& options) { options.links.backlog_bytes_max = 1024 * 1024; });
  TestEdge slow(core), quick(core);
  slow.AttachWithRoom(1, "room");
  quick.AttachWithRoom(2, "room");
  const auto api = Api(core);
  const std::string payload = R"({"x":")" + std::string(500'000, 'x') + "\"}";
  for (int n = 0; n < 20; ++n) {
    ASSERT_TRUE(Broadcast(*api, "room", payload).ok());
    quick.Await(CoreCommand::kDeliver);
  }
  EXPECT_EQ(slow.Finish().error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(core.runtime->metrics().links_dropped_over_bound.Value(), 1u);
}

TEST_F(LinkServiceTest, ALaterAttachOfTheShardSupersedes) {
  TestCore core;
  TestEdge former(core), later(core);
  former.Say({Hello(/*attach=*/1)});
  former.Await(CoreCommand::kWelcome);
  later.Say({Hello(/*attach=*/2)});
  later.Await(CoreCommand::kWelcome);
  EXPECT_EQ(former.Finish().error_code(), grpc::StatusCode::FAILED_PRECONDITION);
}

TEST_F(LinkServiceTest, WhatIsNoFrameEndsTheStream) {
  TestCore core;
  const auto channel = TestCore::Dial(*core.link_server);
  grpc::GenericStub stub(channel);
  grpc::ClientContext context;
  context.set_deadline(Deadline());
  grpc::CompletionQueue queue;
  const auto step = [&queue] {
    void* tag = nullptr;
    bool ok = false;
    EXPECT_TRUE(queue.Next(&tag, &ok));
  };
  const auto stream = stub.PrepareCall(&context, "/presence.link.v1.Link/Attach", &queue);
  stream->StartCall(nullptr);
  step();
  const grpc::Slice rubbish("\xff\xff\xff\xff rubbish");
  stream->Write(grpc::ByteBuffer(&rubbish, 1), nullptr);
  step();
  grpc::Status status;
  stream->Finish(&status, nullptr);
  step();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("EdgeFrame"));
}

TEST_F(LinkServiceTest, AFrameOverTheLimitEndsTheStreamAlone) {
  TestCore core;
  TestEdge edge(core), other(core);
  edge.Say({Hello(1, 1)});
  edge.Await(CoreCommand::kWelcome);
  link::v1::EdgeFrame frame = Frame({Opened(1, Connection(0, 1), std::string(5'000'000, 'x'))});
  edge.Say(frame);
  EXPECT_FALSE(edge.Finish().ok());
  other.AttachWithRoom(2, "room");
}

TEST_F(LinkServiceTest, TheEdgeMayEndTheStream) {
  TestCore core;
  TestEdge edge(core);
  edge.Say({Hello(), ResyncDone(), Opened(1, Connection(0), "alice")});
  edge.CloseItsSide();
  EXPECT_TRUE(edge.Finish().ok());
}

// Many attaches, cut at every stage of their life, some with deliveries under way. Run it with AddressSanitizer.
TEST_F(LinkServiceTest, EdgesMayDieAtAnyMoment) {
  TestCore core;
  TestEdge witness(core);
  witness.AttachWithRoom(1000, "room");
  std::vector<std::thread> edges;
  for (uint32_t worker = 0; worker < 4; ++worker) {
    edges.emplace_back([&core, worker] {
      for (uint32_t round = 0; round < 60; ++round) {
        TestEdge edge(core);
        const uint32_t shard = worker * 100 + round;
        switch (round % 6) {
          case 0:  // before a word
            break;
          case 1:
            edge.TryToSay({Hello(1, shard)});
            break;
          case 2:
            edge.TryToSay({Hello(1, shard)});
            edge.Await(CoreCommand::kWelcome);
            break;
          case 3:
            edge.AttachWithRoom(shard, "room");
            break;
          case 4:
            edge.AttachWithRoom(shard, "room");
            edge.TryToSay({Joined(3, Connection(0, shard), "other")});
            edge.CloseItsSide();
            break;
          case 5:
            edge.TryToSay({ResyncDone()});  // breaks the protocol: both sides end it at once
            break;
        }
      }
    });
  }
  const auto api = Api(core);
  for (int n = 0; n < 300; ++n) EXPECT_TRUE(Broadcast(*api, "room", R"({"n":)" + std::to_string(n) + "}").ok());
  for (std::thread& edge : edges) edge.join();
  for (int n = 0; n < 300; ++n) EXPECT_EQ(witness.Await(CoreCommand::kDeliver).deliver().text(), MessageText(n));
}

TEST_F(LinkServiceTest, DrainingSendsEdgesAway) {
  TestCore core;
  TestEdge edge(core);
  edge.AttachWithRoom(0, "room");
  EXPECT_TRUE(core.runtime->Drain(kPatience));
  const grpc::Status status = edge.Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(status.error_message(), "core is stopping");
  TestEdge late(core);
  EXPECT_EQ(late.Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
}

class LinkSessionsTest : public testing::Test {
 protected:
  grpc::Status EndSessions(const std::string& user_id, const std::string& session_id, int64_t logged_out_at_ms,
                           uint32_t* connections = nullptr) {
    grpc::ClientContext context;
    context.set_deadline(Deadline());
    link::v1::EndSessionsRequest request;
    request.set_user_id(user_id);
    request.set_session_id(session_id);
    request.set_logged_out_at_ms(logged_out_at_ms);
    link::v1::EndSessionsResponse response;
    const grpc::Status status = stub_->EndSessions(&context, request, &response);
    if (connections != nullptr) *connections = response.connections();
    return status;
  }
  static link::v1::EdgeEvent OpenedWith(uint64_t sequence, uint64_t connection, const std::string& user_id,
                                        const std::string& session_id, int64_t issued_at_ms) {
    link::v1::EdgeEvent event = Opened(sequence, connection, user_id);
    event.mutable_connection_opened()->mutable_token()->set_session_id(session_id);
    event.mutable_connection_opened()->mutable_token()->set_issued_at_ms(issued_at_ms);
    return event;
  }

  TestCore core_;
  std::unique_ptr<link::v1::Link::Stub> stub_ = link::v1::Link::NewStub(TestCore::Dial(*core_.link_server));
  const int64_t now_ms_ = ToUnixMillis(ReadClocks().wall);
};

TEST_F(LinkSessionsTest, EndsASessionAndKeepsItOut) {
  TestEdge edge(core_);
  edge.Say({Hello(), ResyncDone(), OpenedWith(1, Connection(1), "alice", "s1", now_ms_ - 5000),
            OpenedWith(2, Connection(2), "alice", "s2", now_ms_ - 5000), Joined(3, Connection(2), "room")});
  edge.Await(CoreCommand::kBind);  // all of it is known
  uint32_t connections = 0;
  grpc::Status status;
  std::thread caller([&] { status = EndSessions("alice", "s1", now_ms_, &connections); });
  const CoreCommand close = edge.Await(CoreCommand::kCloseConnection);
  EXPECT_EQ(close.close_connection().connection(), Connection(1));
  EXPECT_EQ(close.close_connection().code(), 4401u);
  EXPECT_EQ(close.close_connection().reason(), "logged out");
  link::v1::EdgeEvent closed;
  closed.set_sequence(4);
  closed.mutable_connection_closed()->set_connection(Connection(1));
  closed.mutable_connection_closed()->set_user_id("alice");
  edge.Say({closed});
  caller.join();
  EXPECT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(connections, 1u);
  edge.Say({OpenedWith(5, Connection(3), "alice", "s1", now_ms_ - 4000)});
  EXPECT_EQ(edge.Await(CoreCommand::kCloseConnection).close_connection().connection(), Connection(3));
}

TEST_F(LinkSessionsTest, NobodyIsNoError) {
  uint32_t connections = 7;
  EXPECT_TRUE(EndSessions("alice", "", now_ms_, &connections).ok());
  EXPECT_EQ(connections, 0u);
}

TEST_F(LinkSessionsTest, RefusesWhatIsOutOfBounds) {
  for (const grpc::Status& status : {EndSessions("", "", now_ms_), EndSessions(std::string(2049, 'x'), "", now_ms_),
                                     EndSessions("alice", std::string("s\0", 2), now_ms_), EndSessions("alice", "", 0),
                                     EndSessions("alice", "", -1), EndSessions("alice", "", now_ms_ + 3'600'000)}) {
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  }
  EXPECT_TRUE(EndSessions("alice", "", now_ms_ + 60'000).ok()) << "a clock that is a little ahead";
}

TEST_F(LinkSessionsTest, IsUnavailableWithoutAStore) {
  core_.SetReachable(false);
  EXPECT_EQ(EndSessions("alice", "", now_ms_).error_code(), grpc::StatusCode::UNAVAILABLE);
}

class LinkReadsTest : public testing::Test {
 protected:
  grpc::Status LookUp(const std::string& user_id, link::v1::PresenceRecord& record) {
    grpc::ClientContext context;
    context.set_deadline(Deadline());
    link::v1::LookUpPresenceRequest request;
    request.set_user_id(user_id);
    return stub_->LookUpPresence(&context, request, &record);
  }
  grpc::Status List(uint32_t limit, const std::string& after, link::v1::ListPresenceResponse& response) {
    grpc::ClientContext context;
    context.set_deadline(Deadline());
    link::v1::ListPresenceRequest request;
    request.set_limit(limit);
    request.set_after_user_id(after);
    return stub_->ListPresence(&context, request, &response);
  }

  TestCore core_;
  std::unique_ptr<link::v1::Link::Stub> stub_ = link::v1::Link::NewStub(TestCore::Dial(*core_.link_server));
};

TEST_F(LinkReadsTest, LooksUpAUser) {
  core_.PutOnline("alice", link::v1::STATUS_AWAY);
  link::v1::PresenceRecord record;
  ASSERT_TRUE(LookUp("alice", record).ok());
  EXPECT_EQ(record.user_id(), "alice");
  EXPECT_EQ(record.username(), "name of alice");
  EXPECT_EQ(record.status(), link::v1::STATUS_AWAY);
  EXPECT_GT(record.last_seen_ms(), 0);
  EXPECT_GT(record.version(), 0u);
}

TEST_F(LinkReadsTest, AStrangerIsOffline) {
  link::v1::PresenceRecord record;
  ASSERT_TRUE(LookUp("nobody", record).ok());
  EXPECT_EQ(record.user_id(), "nobody");
  EXPECT_EQ(record.status(), link::v1::STATUS_OFFLINE);
  EXPECT_EQ(record.username(), "");
}

TEST_F(LinkReadsTest, ListsInPages) {
  for (const char* user : {"carol", "alice", "bob"}) core_.PutOnline(user);
  link::v1::ListPresenceResponse page;
  ASSERT_TRUE(List(2, "", page).ok());
  ASSERT_EQ(page.users_size(), 2);
  EXPECT_EQ(page.users(0).user_id(), "alice");
  EXPECT_EQ(page.users(1).user_id(), "bob");
  EXPECT_TRUE(page.more());
  ASSERT_TRUE(List(2, "bob", page).ok());
  ASSERT_EQ(page.users_size(), 1);
  EXPECT_EQ(page.users(0).user_id(), "carol");
  EXPECT_FALSE(page.more());
}

TEST_F(LinkReadsTest, RefusesWhatIsOutOfBounds) {
  link::v1::PresenceRecord record;
  EXPECT_EQ(LookUp("", record).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(LookUp(std::string(2049, 'x'), record).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  link::v1::ListPresenceResponse page;
  EXPECT_EQ(List(0, "", page).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(List(10'001, "", page).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(LinkReadsTest, IsUnavailableWithoutAStore) {
  core_.SetReachable(false);
  link::v1::PresenceRecord record;
  EXPECT_EQ(LookUp("alice", record).error_code(), grpc::StatusCode::UNAVAILABLE);
  link::v1::ListPresenceResponse page;
  EXPECT_EQ(List(10, "", page).error_code(), grpc::StatusCode::UNAVAILABLE);
}

}  // namespace
}  // namespace presence::core
