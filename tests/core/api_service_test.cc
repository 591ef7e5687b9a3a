// Real gRPC over loopback, from a backend service's side.
#include "core/api_service.h"

#include <gmock/gmock.h>
#include <google/protobuf/text_format.h>
#include <grpcpp/generic/generic_stub.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "core/metrics_page.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "tests/core/api_client.h"
#include "tests/core/test_core.h"

namespace presence::core {
namespace {

using grpc::StatusCode;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::StartsWith;

class ApiServiceTest : public ApiTest {
 protected:
  grpc::Status Get(const std::string& user_id, v1::Presence* presence) {
    v1::GetPresenceRequest request;
    request.set_user_id(user_id);
    return Call(&Presence::GetPresence, request, presence);
  }
  grpc::Status Batch(const std::vector<std::string>& user_ids, v1::BatchGetPresenceResponse* response) {
    v1::BatchGetPresenceRequest request;
    for (const std::string& user_id : user_ids) request.add_user_ids(user_id);
    return Call(&Presence::BatchGetPresence, request, response);
  }
  grpc::Status List(int32_t page_size, const std::string& token, v1::ListPresenceResponse* page,
                    v1::Status status = v1::STATUS_UNSPECIFIED) {
    v1::ListPresenceRequest request;
    request.set_page_size(page_size);
    request.set_page_token(token);
    request.set_status(status);
    return Call(&Presence::ListPresence, request, page);
  }

  static std::vector<std::string> UserIds(const v1::ListPresenceResponse& page) {
    std::vector<std::string> ids;
    for (const v1::Presence& user : page.users()) ids.push_back(user.user_id());
    return ids;
  }
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

TEST_F(ApiServiceTest, TellsOfManyInTheirOrder) {
  core_.PutOnline("alice");
  core_.PutOnline("bob", link::v1::STATUS_AWAY);
  v1::BatchGetPresenceResponse response;
  ASSERT_TRUE(Batch({"bob", "nobody", "alice", "bob"}, &response).ok());
  std::vector<std::pair<std::string, v1::Status>> told;
  for (const v1::Presence& presence : response.presences()) told.emplace_back(presence.user_id(), presence.status());
  EXPECT_THAT(told, ElementsAre(std::pair("bob", v1::STATUS_AWAY), std::pair("nobody", v1::STATUS_OFFLINE),
                                std::pair("alice", v1::STATUS_ONLINE), std::pair("bob", v1::STATUS_AWAY)));
}

TEST_F(ApiServiceTest, ABatchIsOneToFiveHundredUsers) {
  v1::BatchGetPresenceResponse response;
  EXPECT_TRUE(Batch(std::vector<std::string>(500, "u"), &response).ok());
  EXPECT_EQ(response.presences_size(), 500);
  for (const size_t count : {size_t{0}, size_t{501}}) {
    const grpc::Status status = Batch(std::vector<std::string>(count, "u"), &response);
    EXPECT_EQ(status.error_code(), StatusCode::INVALID_ARGUMENT);
    EXPECT_THAT(FieldsAtFault(status), ElementsAre("user_ids"));
  }
  EXPECT_THAT(FieldsAtFault(Batch({"a", "", "b", std::string("\0", 1)}, &response)),
              ElementsAre("user_ids[1]", "user_ids[3]"));
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

TEST_F(ApiServiceTest, ListsThoseOfOneStatusInPagesThatMayBeEmpty) {
  for (const char* user : {"a", "b", "d"}) core_.PutOnline(user);
  for (const char* user : {"c", "e"}) core_.PutOnline(user, link::v1::STATUS_AWAY);
  std::vector<std::vector<std::string>> pages;
  v1::ListPresenceResponse page;
  do {
    const std::string token = page.next_page_token();
    page.Clear();
    ASSERT_TRUE(List(2, token, &page, v1::STATUS_AWAY).ok());
    pages.push_back(UserIds(page));
  } while (!page.next_page_token().empty());
  EXPECT_THAT(pages, ElementsAre(IsEmpty(), ElementsAre("c"), ElementsAre("e")));
  ASSERT_TRUE(List(0, "", &page, v1::STATUS_ONLINE).ok());
  EXPECT_THAT(UserIds(page), ElementsAre("a", "b", "d"));
}

TEST_F(ApiServiceTest, APageTokenGoesWithItsFilter) {
  for (const char* user : {"a", "b"}) core_.PutOnline(user);
  v1::ListPresenceResponse page;
  ASSERT_TRUE(List(1, "", &page).ok());
  const std::string token = page.next_page_token();
  EXPECT_TRUE(List(2, token, &page).ok()) << "the size may change";
  EXPECT_THAT(FieldsAtFault(List(1, token, &page, v1::STATUS_ONLINE)), ElementsAre("page_token"));
}

TEST_F(ApiServiceTest, RefusesWhatIsInvalidAndNamesTheField) {
  const std::string nul("a\0b", 3);
  const std::string too_long(2049, 'x');
  v1::Presence presence;
  v1::ListPresenceResponse page;
  const std::vector<std::pair<std::vector<std::string>, grpc::Status>> refusals = {
      {{"user_id"}, Get("", &presence)},
      {{"user_id"}, Get(nul, &presence)},
      {{"user_id"}, Get(too_long, &presence)},
      {{"page_size"}, List(-1, "", &page)},
      {{"page_size"}, List(10'001, "", &page)},
      {{"page_token"}, List(10, "not-a-token", &page)},
      {{"status"}, List(10, "", &page, v1::STATUS_OFFLINE)},
      {{"status"}, List(10, "", &page, static_cast<v1::Status>(4))},
      {{"status", "page_size", "page_token"}, List(-1, "not-a-token", &page, v1::STATUS_OFFLINE)},
  };
  for (const auto& [fields, status] : refusals) {
    EXPECT_EQ(status.error_code(), StatusCode::INVALID_ARGUMENT) << fields.front();
    EXPECT_EQ(FieldsAtFault(status), fields);
    EXPECT_THAT(status.error_message(), StartsWith(fields.front() + ": "));
    EXPECT_LT(status.error_message().size(), 200u) << "echoes the input";
  }
}

TEST_F(ApiServiceTest, IsUnavailableWithoutAStoreAndRecovers) {
  core_.SetReachable(false);
  v1::Presence presence;
  v1::BatchGetPresenceResponse batch;
  v1::ListPresenceResponse page;
  for (const grpc::Status& status : {Get("alice", &presence), Batch({"alice"}, &batch), List(10, "", &page)}) {
    EXPECT_EQ(status.error_code(), StatusCode::UNAVAILABLE);
    EXPECT_EQ(RetrySeconds(status), 1);
  }
  core_.SetReachable(true);
  EXPECT_TRUE(Get("alice", &presence).ok());
  EXPECT_TRUE(Batch({"alice"}, &batch).ok());
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
  AddCoreMetrics(page, {core_.runtime->metrics(), core_.api->metrics(), core_.admin->metrics(), core_.link->metrics(),
                        redis_, room_rights_});
  v1::Presence presence;
  ASSERT_TRUE(Get("alice", &presence).ok());
  ASSERT_FALSE(Get("", &presence).ok());
  const std::string text = page.Text();
  EXPECT_THAT(text, HasSubstr(R"(presence_core_calls_total{method="GetPresence",outcome="answered"} 1)"));
  EXPECT_THAT(text, HasSubstr(R"(presence_core_calls_total{method="GetPresence",outcome="refused"} 1)"));
  EXPECT_THAT(text, HasSubstr(R"(presence_core_call_duration_seconds_count{method="GetPresence"} 1)"));
  EXPECT_THAT(text, HasSubstr("presence_core_store_up 1"));
  // Every method of both services is there.
  const auto expect_methods = [&text](const std::string& service, const std::string& prefix) {
    const auto* descriptor = google::protobuf::DescriptorPool::generated_pool()->FindServiceByName(service);
    ASSERT_NE(descriptor, nullptr);
    for (int i = 0; i < descriptor->method_count(); ++i) {
      const bool stream = descriptor->method(i)->server_streaming();
      EXPECT_THAT(text, HasSubstr((stream ? "presence_core_streams_opened_total{method=\"" : "{method=\"") + prefix +
                                  descriptor->method(i)->name() + "\""));
    }
  };
  expect_methods("presence.v1.PresenceService", "");
  expect_methods("presence.admin.v1.AdminService", "admin.");
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
  const std::string api = "presence.v1.PresenceService", admin = "presence.admin.v1.AdminService",
                    link = "presence.link.v1.Link";
  for (const std::string& service : {std::string(), api}) EXPECT_EQ(HealthOf(*core.api_server, service), kServing);
  for (const std::string& service : {std::string(), link}) EXPECT_EQ(HealthOf(*core.link_server, service), kServing);
  EXPECT_EQ(HealthOf(*core.api_server, "unknown"), HealthCheckResponse::SERVICE_UNKNOWN);

  core.SetReachable(false);
  for (const std::string& service : {std::string(), api}) {
    EXPECT_EQ(HealthOf(*core.api_server, service), kNotServing);
  }
  EXPECT_EQ(HealthOf(*core.api_server, admin), kServing) << "operators may look, then above all";
  EXPECT_EQ(HealthOf(*core.link_server, link), kServing)
      << "edges are better off with a core without Redis than with none";

  core.SetReachable(true);
  EXPECT_EQ(HealthOf(*core.api_server, api), kServing);
  core.serving.SetDraining();
  for (const std::string& service : {api, admin}) EXPECT_EQ(HealthOf(*core.api_server, service), kNotServing);
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
       {std::string("presence.v1.PresenceService"), std::string("presence.admin.v1.AdminService"),
        std::string("grpc.health.v1.Health")}) {
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
  const auto second = GrpcServer::Listen({.setting = "API_LISTEN", .listen = {"127.0.0.1", port}}, {core.api.get()});
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
