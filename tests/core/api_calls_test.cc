// What is true of every call: who may make it, that it stops when nobody waits, and that there is a bound.
#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <future>
#include <memory>
#include <string>
#include <vector>

#include "absl/synchronization/notification.h"
#include "tests/core/api_client.h"
#include "tests/fakes/token_forge.h"

namespace presence::core {
namespace {

using grpc::StatusCode;

// --- who may.

std::string TokenWith(const std::vector<std::string>& roles) {
  nlohmann::json claims = GoodClaims();
  claims["realm_access"]["roles"] = roles;
  auto token = SignToken(claims, RsaKeyForTests());
  PRESENCE_CHECK(token.ok(), "the token can be signed");
  return *std::move(token);
}

std::unique_ptr<Access> RealmAccess() {
  const auto keys = std::make_shared<const JwkSet>(KeysOf({RsaKeyForTests()}));
  return Access::ByToken(
      {}, {.keys = [keys] { return keys; }, .refresh_keys = [](std::string_view) { return false; }, .now = ForgedNow});
}

class ApiAccessTest : public ApiTest {
 protected:
  struct Checked {
    const char* method;
    Role role;
    std::function<grpc::Status()> call;  // with an empty request: access comes first
  };

  ApiAccessTest() : ApiTest([](CoreRuntimeOptions&) {}, RealmAccess()) {}

  template <typename Stub, typename Request, typename Response>
  Checked Needs(const char* name, Role role,
                grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*)) {
    return {name, role, [this, method] { return Try(method, Request()); }};
  }

  template <typename Stub, typename Request, typename Response>
  Checked StreamNeeds(const char* name, Role role, Stub* stub,
                      std::unique_ptr<grpc::ClientReader<Response>> (Stub::*method)(grpc::ClientContext*,
                                                                                    const Request&)) {
    return {name, role, [this, stub, method] {
              grpc::ClientContext context;
              context.set_deadline(Deadline());
              if (!token_.empty()) context.AddMetadata("authorization", "Bearer " + token_);
              const auto stream = (stub->*method)(&context, Request());
              Response response;
              while (stream->Read(&response)) {
              }
              return stream->Finish();
            }};
  }

  std::vector<Checked> EveryMethod() {
    return {Needs("GetPresence", Role::kRead, &Presence::GetPresence),
            Needs("BatchGetPresence", Role::kRead, &Presence::BatchGetPresence),
            Needs("ListPresence", Role::kRead, &Presence::ListPresence),
            StreamNeeds("WatchPresence", Role::kRead, stub_.get(), &Presence::WatchPresence),
            Needs("SetStatus", Role::kPublish, &Presence::SetStatus),
            Needs("Broadcast", Role::kPublish, &Presence::Broadcast),
            Needs("SendToUser", Role::kPublish, &Presence::SendToUser),
            Needs("SetTyping", Role::kPublish, &Presence::SetTyping),
            Needs("ListRooms", Role::kRead, &Presence::ListRooms),
            Needs("GetRoom", Role::kRead, &Presence::GetRoom),
            Needs("ListConnections", Role::kRead, &Presence::ListConnections),
            Needs("DisconnectUser", Role::kAdmin, &Presence::DisconnectUser),
            Needs("DisconnectConnection", Role::kAdmin, &Presence::DisconnectConnection),
            Needs("UnsubscribeUser", Role::kAdmin, &Presence::UnsubscribeUser),
            Needs("ForgetRoomRights", Role::kAdmin, &Presence::ForgetRoomRights),
            Needs("GetClusterState", Role::kAdmin, &Admin::GetClusterState),
            Needs("DrainEdge", Role::kAdmin, &Admin::DrainEdge),
            Needs("DrainCore", Role::kAdmin, &Admin::DrainCore),
            Needs("SetLogLevel", Role::kAdmin, &Admin::SetLogLevel),
            StreamNeeds("Tap", Role::kAdmin, admin_.get(), &Admin::Tap)};
  }
};

TEST_F(ApiAccessTest, EveryMethodNeedsItsRole) {
  for (const Checked& checked : EveryMethod()) {
    SCOPED_TRACE(checked.method);
    token_.clear();
    EXPECT_EQ(checked.call().error_code(), StatusCode::UNAUTHENTICATED);
    for (const Role role : {Role::kRead, Role::kPublish, Role::kAdmin}) {
      token_ = TokenWith({std::string(RoleName(role))});
      const grpc::Status status = checked.call();
      if (role >= checked.role) {
        // Allowed: then the request's faults are found.
        EXPECT_TRUE(status.ok() || status.error_code() == StatusCode::INVALID_ARGUMENT) << status.error_message();
        continue;
      }
      EXPECT_EQ(status.error_code(), StatusCode::PERMISSION_DENIED);
      const auto info = DetailOf<google::rpc::ErrorInfo>(status);
      ASSERT_TRUE(info);
      EXPECT_EQ(info->reason(), "ROLE_MISSING");
      EXPECT_EQ(info->metadata().at("role"), RoleName(checked.role));
    }
  }
  // Without a token, and with each of three: then the target was missing.
  EXPECT_EQ(Metric(R"(presence_core_streams_refused_total{method="WatchPresence"})"), "4");
  EXPECT_EQ(Metric(R"(presence_core_streams_refused_total{method="admin.Tap"})"), "4");
}

TEST_F(ApiAccessTest, NoMethodIsForgotten) {
  const auto& pool = *google::protobuf::DescriptorPool::generated_pool();
  const size_t methods = static_cast<size_t>(pool.FindServiceByName("presence.v1.PresenceService")->method_count() +
                                             pool.FindServiceByName("presence.admin.v1.AdminService")->method_count());
  EXPECT_EQ(EveryMethod().size(), methods);
}

// --- stopping. Nothing here comes to an end by itself before the test has lost its patience.

class ApiGivingUpTest : public ApiTest {
 protected:
  ApiGivingUpTest()
      : ApiTest([](CoreRuntimeOptions& options) {
          options.hub.gather_max = std::chrono::minutes(1);
          options.hub.order_max = std::chrono::minutes(1);
        }) {}

  static std::string Outcome(const std::string& method, const std::string& outcome) {
    return "presence_core_calls_total{method=\"" + method + "\",outcome=\"" + outcome + "\"}";
  }
};

TEST_F(ApiGivingUpTest, ACancelledCallStops) {
  absl::Notification asked;
  PeerCore peer(core_, [&asked](const link::v1::BusEnvelope&) {
    asked.Notify();
    return std::nullopt;
  });
  grpc::ClientContext context;
  auto call = std::async(std::launch::async, [&] {
    v1::ListRoomsResponse response;
    return stub_->ListRooms(&context, v1::ListRoomsRequest(), &response);
  });
  asked.WaitForNotification();
  context.TryCancel();
  EXPECT_EQ(call.get().error_code(), StatusCode::CANCELLED);
  AwaitMetric(Outcome("ListRooms", "given_up"), "1");
  AwaitMetric("presence_core_gathers", "0");
}

TEST_F(ApiGivingUpTest, ACallPastItsDeadlineStops) {
  PeerCore peer(core_, Silent());
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(20));
  v1::DisconnectUserRequest request;
  request.set_user_id("alice");
  v1::DisconnectUserResponse response;
  EXPECT_EQ(stub_->DisconnectUser(&context, request, &response).error_code(), StatusCode::DEADLINE_EXCEEDED);
  AwaitMetric(Outcome("DisconnectUser", "given_up"), "1");
}

TEST_F(ApiGivingUpTest, ACallThatAsksTwiceStopsInItsSecondQuestion) {
  absl::Notification ordered;
  PeerCore peer(core_, [&ordered](const link::v1::BusEnvelope& envelope) -> std::optional<link::v1::ClusterReply> {
    if (envelope.request().has_drain()) {
      ordered.Notify();
      return std::nullopt;
    }
    link::v1::ClusterReply reply;
    reply.mutable_state()->set_name("a-peer");
    return reply;
  });
  grpc::ClientContext context;
  auto call = std::async(std::launch::async, [&] {
    admin::v1::DrainCoreRequest request;
    request.set_core("a-peer");
    admin::v1::DrainCoreResponse response;
    return admin_->DrainCore(&context, request, &response);
  });
  ordered.WaitForNotification();
  context.TryCancel();
  EXPECT_EQ(call.get().error_code(), StatusCode::CANCELLED);
  AwaitMetric(Outcome("admin.DrainCore", "given_up"), "1");
}

TEST_F(ApiGivingUpTest, ItMayBeCancelledAtAnyTime) {
  PeerCore peer(core_, [](const link::v1::BusEnvelope& envelope) -> std::optional<link::v1::ClusterReply> {
    if (!envelope.request().has_state()) return std::nullopt;
    link::v1::ClusterReply reply;
    reply.mutable_state()->set_name("a-peer");
    return reply;
  });
  constexpr int kCalls = 300;
  for (int i = 0; i < kCalls; ++i) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::microseconds(50 * (i % 60)));
    admin::v1::DrainCoreRequest request;
    request.set_core("a-peer");
    admin::v1::DrainCoreResponse response;
    EXPECT_EQ(admin_->DrainCore(&context, request, &response).error_code(), StatusCode::DEADLINE_EXCEEDED);
  }
  AwaitMetric("presence_core_gathers", "0");
  // Each has given its share of the budget of 100 back: else this one would be refused.
  EXPECT_TRUE(Try(&Admin::GetClusterState, admin::v1::GetClusterStateRequest()).ok());
}

TEST_F(ApiGivingUpTest, TooManyCallsAreRefusedAndTheRestGoesOn) {
  constexpr int kCallsMax = 100;  // of AdminService
  PeerCore peer(core_, Silent());
  struct Running {
    grpc::ClientContext context;
    admin::v1::GetClusterStateResponse response;
    grpc::Status status;
    std::unique_ptr<grpc::ClientAsyncResponseReader<admin::v1::GetClusterStateResponse>> reader;
  };
  grpc::CompletionQueue queue;
  std::vector<std::unique_ptr<Running>> calls;
  for (int i = 0; i <= kCallsMax; ++i) {
    Running& call = *calls.emplace_back(std::make_unique<Running>());
    call.context.set_deadline(Deadline());
    call.reader = admin_->AsyncGetClusterState(&call.context, admin::v1::GetClusterStateRequest(), &queue);
    call.reader->Finish(&call.response, &call.status, &call);
  }
  void* tag = nullptr;
  bool ok = false;
  ASSERT_TRUE(queue.Next(&tag, &ok));
  const grpc::Status refused = static_cast<Running*>(tag)->status;
  EXPECT_EQ(refused.error_code(), StatusCode::RESOURCE_EXHAUSTED) << "one more than there may be";
  EXPECT_EQ(ReasonOf(refused), "TOO_MANY_CALLS");
  EXPECT_EQ(DetailOf<google::rpc::ErrorInfo>(refused)->metadata().at("service"), "AdminService");
  EXPECT_EQ(RetrySeconds(refused), 1);
  for (const auto& call : calls) call->context.TryCancel();
  for (int i = 0; i < kCallsMax; ++i) {
    ASSERT_TRUE(queue.Next(&tag, &ok));
    EXPECT_EQ(static_cast<Running*>(tag)->status.error_code(), StatusCode::CANCELLED);
  }
  AwaitMetric(Outcome("admin.GetClusterState", "given_up"), std::to_string(kCallsMax));
  AwaitMetric(Outcome("admin.GetClusterState", "refused"), "1");
  queue.Shutdown();
  while (queue.Next(&tag, &ok)) {
  }
}

}  // namespace
}  // namespace presence::core
