// Real gRPC over loopback, from a backend service's side.
#include "core/api_service.h"

#include <gmock/gmock.h>
#include <google/protobuf/text_format.h>
#include <grpcpp/generic/generic_stub.h>
#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "core/metrics_page.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "tests/core/test_core.h"

namespace presence::core {
namespace {

using grpc::StatusCode;
using link::v1::CoreCommand;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::StartsWith;

class ApiServiceTest : public testing::Test {
 protected:
  template <typename Request, typename Response>
  using Method = grpc::Status (v1::PresenceService::Stub::*)(grpc::ClientContext*, const Request&, Response*);

  template <typename Request, typename Response>
  grpc::Status Call(Method<Request, Response> method, const Request& request, Response* response) {
    grpc::ClientContext context;
    context.set_deadline(Deadline());
    return ((*stub_).*method)(&context, request, response);
  }

  grpc::Status Get(const std::string& user_id, v1::Presence* presence) {
    v1::GetPresenceRequest request;
    request.set_user_id(user_id);
    return Call(&v1::PresenceService::Stub::GetPresence, request, presence);
  }
  grpc::Status List(int32_t page_size, const std::string& token, v1::ListPresenceResponse* page) {
    v1::ListPresenceRequest request;
    request.set_page_size(page_size);
    request.set_page_token(token);
    return Call(&v1::PresenceService::Stub::ListPresence, request, page);
  }
  grpc::Status Broadcast(const v1::BroadcastRequest& request) {
    v1::BroadcastResponse response;
    return Call(&v1::PresenceService::Stub::Broadcast, request, &response);
  }
  grpc::Status BroadcastJson(const std::string& room_id, const std::string& data_json) {
    v1::BroadcastRequest request;
    request.set_room_id(room_id);
    request.set_data_json(data_json);
    return Broadcast(request);
  }

  static std::vector<std::string> UserIds(const v1::ListPresenceResponse& page) {
    std::vector<std::string> ids;
    for (const v1::Presence& user : page.users()) ids.push_back(user.user_id());
    return ids;
  }

  TestCore core_;
  std::unique_ptr<v1::PresenceService::Stub> stub_ = v1::PresenceService::NewStub(TestCore::Dial(*core_.api_server));
};

TEST_F(ApiServiceTest, TellsWhoIsThere) {
  core_.PutOnline("alice", link::v1::STATUS_AWAY);
  v1::Presence presence;
  ASSERT_TRUE(Get("alice", &presence).ok());
  EXPECT_EQ(presence.user_id(), "alice");
  EXPECT_EQ(presence.username(), "name of alice");
  EXPECT_EQ(presence.status(), v1::STATUS_AWAY);
  EXPECT_GT(presence.last_seen_time().seconds(), 1'700'000'000);
  EXPECT_GT(presence.version(), 0u);
}

TEST_F(ApiServiceTest, AStrangerIsOfflineAndNoError) {
  v1::Presence presence;
  ASSERT_TRUE(Get("nobody", &presence).ok());
  EXPECT_EQ(presence.user_id(), "nobody");
  EXPECT_EQ(presence.status(), v1::STATUS_OFFLINE);
  EXPECT_FALSE(presence.has_last_seen_time());
  EXPECT_EQ(presence.version(), 0u);
}

TEST_F(ApiServiceTest, ListsEverybodyOnceInPages) {
  for (const char* user : {"d", "b", "e", "a", "c"}) core_.PutOnline(user);
  std::vector<std::vector<std::string>> pages;
  v1::ListPresenceResponse page;
  do {
    const std::string token = page.next_page_token();
    page.Clear();
    ASSERT_TRUE(List(2, token, &page).ok());
    pages.push_back(UserIds(page));
  } while (!page.next_page_token().empty());
  EXPECT_THAT(pages, ElementsAre(ElementsAre("a", "b"), ElementsAre("c", "d"), ElementsAre("e")));

  ASSERT_TRUE(List(0, "", &page).ok());
  EXPECT_EQ(page.users_size(), 5);
  EXPECT_EQ(page.next_page_token(), "");
}

TEST_F(ApiServiceTest, BroadcastsAStructAsJson) {
  TestEdge edge(core_);
  const uint32_t handle = edge.AttachWithRoom(0, "room");
  v1::BroadcastRequest request;
  request.set_room_id("room");
  (*request.mutable_data()->mutable_fields())["content"].set_string_value("héllo \"you\"");
  const grpc::Status status = Broadcast(request);
  ASSERT_TRUE(status.ok()) << status.error_message();
  const CoreCommand deliver = edge.Await(CoreCommand::kDeliver);
  EXPECT_EQ(deliver.deliver().handle(), handle);
  EXPECT_EQ(deliver.deliver().text(), R"({"type":"message","data":{"content":"héllo \"you\""}})");
}

TEST_F(ApiServiceTest, BroadcastsJsonTextByteForByte) {
  TestEdge edge(core_);
  edge.AttachWithRoom(0, "room");
  const std::string text = "{ \"b\" : 1.0e2,\n \"a\": \"\\u00e9\" , \"b\": 2 }";
  ASSERT_TRUE(BroadcastJson("room", text).ok());
  EXPECT_EQ(edge.Await(CoreCommand::kDeliver).deliver().text(), R"({"type":"message","data":)" + text + "}");
}

TEST_F(ApiServiceTest, BroadcastsOneMebibyte) {
  TestEdge edge(core_);
  edge.AttachWithRoom(0, "room");
  const std::string text = R"({"x":")" + std::string(1024 * 1024 - 8, 'x') + "\"}";
  const grpc::Status status = BroadcastJson("room", text);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_THAT(edge.Await(CoreCommand::kDeliver).deliver().text(), HasSubstr(text));
  EXPECT_EQ(BroadcastJson("room", R"({"x":")" + std::string(1024 * 1024, 'x') + "\"}").error_code(),
            StatusCode::RESOURCE_EXHAUSTED);
}

TEST_F(ApiServiceTest, RefusesWhatIsInvalidAndNamesTheField) {
  const std::string nul("a\0b", 3);
  const std::string too_long(2049, 'x');
  v1::Presence presence;
  v1::ListPresenceResponse page;
  v1::BroadcastRequest no_payload;
  no_payload.set_room_id("room");
  v1::BroadcastRequest no_number = no_payload;
  (*no_number.mutable_data()->mutable_fields())["n"].set_number_value(std::numeric_limits<double>::quiet_NaN());
  v1::BroadcastRequest no_room;
  no_room.mutable_data();

  const std::vector<std::pair<std::string, grpc::Status>> refusals = {
      {"user_id: ", Get("", &presence)},
      {"user_id: ", Get(nul, &presence)},
      {"user_id: ", Get(too_long, &presence)},
      {"page_size: ", List(-1, "", &page)},
      {"page_size: ", List(10'001, "", &page)},
      {"page_token: ", List(10, "not-a-token", &page)},
      {"room_id: ", Broadcast(no_room)},
      {"room_id: ", BroadcastJson(nul, "{}")},
      {"room_id: ", BroadcastJson(too_long, "{}")},
      {"payload: ", Broadcast(no_payload)},
      {"data: ", Broadcast(no_number)},
      {"data_json: ", BroadcastJson("room", "")},
      {"data_json: ", BroadcastJson("room", "[1]")},
      {"data_json: ", BroadcastJson("room", "{\"a\":")},
  };
  for (const auto& [field, status] : refusals) {
    EXPECT_EQ(status.error_code(), StatusCode::INVALID_ARGUMENT) << field;
    EXPECT_THAT(status.error_message(), StartsWith(field));
    EXPECT_LT(status.error_message().size(), 200u) << "echoes the input";
  }
}

TEST_F(ApiServiceTest, IsUnavailableWithoutAStoreAndRecovers) {
  core_.SetReachable(false);
  v1::Presence presence;
  v1::ListPresenceResponse page;
  EXPECT_EQ(Get("alice", &presence).error_code(), StatusCode::UNAVAILABLE);
  EXPECT_EQ(List(10, "", &page).error_code(), StatusCode::UNAVAILABLE);
  EXPECT_EQ(BroadcastJson("room", "{}").error_code(), StatusCode::UNAVAILABLE);
  core_.SetReachable(true);
  EXPECT_TRUE(Get("alice", &presence).ok());
  EXPECT_TRUE(BroadcastJson("room", "{}").ok());
}

TEST_F(ApiServiceTest, CallersMayGiveUpWhileTheStoreIsStalled) {
  core_.OnLoop([&] { core_.store->SetFrozen(true); });
  for (int i = 0; i < 20; ++i) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(5));
    v1::GetPresenceRequest request;
    request.set_user_id("alice");
    v1::Presence presence;
    EXPECT_EQ(stub_->GetPresence(&context, request, &presence).error_code(), StatusCode::DEADLINE_EXCEEDED);
  }
  core_.OnLoop([&] { core_.store->SetFrozen(false); });
  v1::Presence presence;
  EXPECT_TRUE(Get("alice", &presence).ok());
}

TEST_F(ApiServiceTest, MetricsTellOfCalls) {
  MetricsPage page;
  AddCoreMetrics(page, core_.runtime->metrics(), core_.api->metrics(), core_.link->metrics());
  v1::Presence presence;
  ASSERT_TRUE(Get("alice", &presence).ok());
  ASSERT_FALSE(Get("", &presence).ok());
  const std::string text = page.Text();
  EXPECT_THAT(text, HasSubstr(R"(presence_core_calls_total{method="GetPresence",outcome="answered"} 1)"));
  EXPECT_THAT(text, HasSubstr(R"(presence_core_calls_total{method="GetPresence",outcome="refused"} 1)"));
  EXPECT_THAT(text, HasSubstr(R"(presence_core_call_duration_seconds_count{method="GetPresence"} 1)"));
  EXPECT_THAT(text, HasSubstr("presence_core_store_up 1"));
}

// --- health.

using grpc::health::v1::HealthCheckResponse;

// SERVICE_UNKNOWN when the call fails.
HealthCheckResponse::ServingStatus HealthOf(GrpcServer& server, const std::string& service) {
  const auto stub = grpc::health::v1::Health::NewStub(TestCore::Dial(server));
  grpc::ClientContext context;
  context.set_deadline(Deadline());
  grpc::health::v1::HealthCheckRequest request;
  request.set_service(service);
  HealthCheckResponse response;
  return stub->Check(&context, request, &response).ok() ? response.status() : HealthCheckResponse::SERVICE_UNKNOWN;
}

TEST(Health, FollowsTheStoreAndDraining) {
  constexpr auto kServing = HealthCheckResponse::SERVING, kNotServing = HealthCheckResponse::NOT_SERVING;
  TestCore core;
  const std::string api = "presence.v1.PresenceService", link = "presence.link.v1.Link";
  for (const std::string& service : {std::string(), api}) EXPECT_EQ(HealthOf(*core.api_server, service), kServing);
  for (const std::string& service : {std::string(), link}) EXPECT_EQ(HealthOf(*core.link_server, service), kServing);
  EXPECT_EQ(HealthOf(*core.api_server, "unknown"), HealthCheckResponse::SERVICE_UNKNOWN);

  core.SetReachable(false);
  for (const std::string& service : {std::string(), api}) {
    EXPECT_EQ(HealthOf(*core.api_server, service), kNotServing);
  }
  EXPECT_EQ(HealthOf(*core.link_server, link), kServing)
      << "edges are better off with a core without Redis than with none";

  core.SetReachable(true);
  EXPECT_EQ(HealthOf(*core.api_server, api), kServing);
  core.serving.SetDraining();
  EXPECT_EQ(HealthOf(*core.api_server, api), kNotServing);
  EXPECT_EQ(HealthOf(*core.link_server, link), kNotServing);
}

// --- reflection. Its generated headers are not packaged, but its messages are in the library.

std::unique_ptr<google::protobuf::Message> NewReflectionMessage(const std::string& name) {
  const auto* type =
      google::protobuf::DescriptorPool::generated_pool()->FindMessageTypeByName("grpc.reflection.v1alpha." + name);
  return std::unique_ptr<google::protobuf::Message>(
      google::protobuf::MessageFactory::generated_factory()->GetPrototype(type)->New());
}

// Question and answer as protobuf text.
std::string AskReflection(GrpcServer& server, const std::string& question) {
  const auto request = NewReflectionMessage("ServerReflectionRequest");
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(question, request.get()));
  grpc::CompletionQueue queue;
  const auto step = [&queue] {
    void* tag = nullptr;
    bool ok = false;
    return queue.Next(&tag, &ok) && ok;
  };
  grpc::ClientContext context;
  context.set_deadline(Deadline());
  const auto stream =
      grpc::GenericStub(TestCore::Dial(server))
          .PrepareCall(&context, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", &queue);
  stream->StartCall(nullptr);
  EXPECT_TRUE(step());
  const grpc::Slice slice(request->SerializeAsString());
  stream->WriteLast(grpc::ByteBuffer(&slice, 1), grpc::WriteOptions(), nullptr);
  EXPECT_TRUE(step());
  grpc::ByteBuffer received;
  stream->Read(&received, nullptr);
  EXPECT_TRUE(step());
  grpc::Status status;
  stream->Finish(&status, nullptr);
  EXPECT_TRUE(step());
  const auto response = NewReflectionMessage("ServerReflectionResponse");
  EXPECT_TRUE(grpc::SerializationTraits<google::protobuf::Message>::Deserialize(&received, response.get()).ok());
  return response->DebugString();
}

TEST(Reflection, ExplainsEveryServiceThatItLists) {
  TestCore core;
  const std::string listed = AskReflection(*core.api_server, "list_services: '*'");
  for (const std::string& service :
       {std::string("presence.v1.PresenceService"), std::string("grpc.health.v1.Health")}) {
    EXPECT_THAT(listed, HasSubstr("name: \"" + service + "\""));
    EXPECT_THAT(AskReflection(*core.api_server, "file_containing_symbol: '" + service + "'"),
                HasSubstr("file_descriptor_proto"))
        << service;
  }
}

// --- listening.

TEST(Listening, ATakenAddressIsAnErrorThatNamesTheSetting) {
  TestCore core;
  const std::string taken = core.api_server->address();
  const auto port = static_cast<uint16_t>(std::stoi(taken.substr(taken.rfind(':') + 1)));
  const auto second = GrpcServer::Listen({"API_LISTEN", {"127.0.0.1", port}}, *core.api);
  ASSERT_FALSE(second.ok());
  const std::string why(second.status().message().data(), second.status().message().size());
  EXPECT_THAT(why, HasSubstr("API_LISTEN"));
  EXPECT_THAT(why, HasSubstr(taken));

  MetricsPage page;
  const auto metrics = MetricsServer::Listen("METRICS_LISTEN", {"127.0.0.1", port}, page);
  ASSERT_FALSE(metrics.ok());
  EXPECT_THAT(std::string(metrics.status().message().data(), metrics.status().message().size()),
              HasSubstr("METRICS_LISTEN"));
}

TEST(Listening, PortZeroIsAnyFreeOne) {
  MetricsPage page;
  const auto server = MetricsServer::Listen("METRICS_LISTEN", {"127.0.0.1", 0}, page);
  ASSERT_TRUE(server.ok()) << server.status();
  EXPECT_THAT((*server)->address(), StartsWith("127.0.0.1:"));
  EXPECT_NE((*server)->address(), "127.0.0.1:0");
}

}  // namespace
}  // namespace presence::core
