// What a listener shows and what it lets through, over real gRPC. The service does nothing: the listener does not know it.
#include "core/listeners.h"

#include <gmock/gmock.h>
#include <grpcpp/generic/generic_stub.h>
#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "presence/link/v1/link.grpc.pb.h"

namespace presence::core {
namespace {

std::unique_ptr<GrpcServer> Listening(GrpcServer::Options options) {
  SetUpGrpc();
  options.setting = "API_LISTEN";
  options.listen = {"127.0.0.1", 0};
  static link::v1::Link::CallbackService service;  // gRPC wants at least one
  auto server = GrpcServer::Listen(options, {&service});
  EXPECT_TRUE(server.ok()) << server.status();
  return *std::move(server);
}

// The code of an empty call to any method, with metadata of so many bytes.
grpc::StatusCode CodeOf(const std::shared_ptr<grpc::Channel>& channel, const std::string& method,
                        size_t metadata_bytes = 0) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
  if (metadata_bytes > 0) context.AddMetadata("authorization", std::string(metadata_bytes, 'x'));
  grpc::CompletionQueue queue;
  grpc::GenericStub stub(channel);
  const grpc::ByteBuffer request;
  grpc::Slice empty("", 0);
  const grpc::ByteBuffer message(&empty, 1);
  const auto call = stub.PrepareUnaryCall(&context, method, message, &queue);
  call->StartCall();
  grpc::ByteBuffer response;
  grpc::Status status;
  call->Finish(&response, &status, nullptr);
  void* tag = nullptr;
  bool ok = false;
  queue.Next(&tag, &ok);
  return status.error_code();
}

grpc::StatusCode CodeOf(const GrpcServer& server, const std::string& method, size_t metadata_bytes = 0) {
  return CodeOf(grpc::CreateChannel(server.address(), grpc::InsecureChannelCredentials()), method, metadata_bytes);
}

constexpr char kHealth[] = "/grpc.health.v1.Health/Check";
constexpr char kChannelz[] = "/grpc.channelz.v1.Channelz/GetServers";
constexpr char kReflection[] = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo";

bool HasReflection(const GrpcServer& server) {
  // A stream that gets an empty request and no more answers it with an error of its own, and ends well.
  return CodeOf(server, kReflection) != grpc::StatusCode::UNIMPLEMENTED;
}

TEST(Listeners, EachHasTheExtrasItWasGivenInOneProcess) {
  const auto plain = Listening({});
  const auto all = Listening({.reflection = true, .channelz = true});
  const auto reflecting = Listening({.reflection = true});
  const auto later = Listening({});
  EXPECT_TRUE(HasReflection(*all));
  EXPECT_TRUE(HasReflection(*reflecting));
  EXPECT_EQ(CodeOf(*all, kChannelz), grpc::StatusCode::OK);
  EXPECT_EQ(CodeOf(*reflecting, kChannelz), grpc::StatusCode::UNIMPLEMENTED);
  for (const auto* none : {&plain, &later}) {
    EXPECT_FALSE(HasReflection(**none));
    EXPECT_EQ(CodeOf(**none, kChannelz), grpc::StatusCode::UNIMPLEMENTED);
    EXPECT_EQ(CodeOf(**none, kHealth), grpc::StatusCode::OK) << "health is for everybody";
  }
}

TEST(Listeners, ALongTokenPassesAndAnEndlessOneDoesNot) {
  const auto api = Listening({.metadata_bytes_max = kApiMetadataBytesMax});
  EXPECT_EQ(CodeOf(*api, kHealth, 8 * 1024 + 8), grpc::StatusCode::OK);
  EXPECT_EQ(CodeOf(*api, kHealth, 17 * 1024), grpc::StatusCode::RESOURCE_EXHAUSTED);
}

// A caller on a connection of its own.
class Caller {
 public:
  explicit Caller(const std::string& address) {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    channel_ = grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
    EXPECT_TRUE(channel_->WaitForConnected(Soon()));
  }

  grpc::StatusCode Call(const std::string& method) { return CodeOf(channel_, method); }
  bool IsConnected() { return channel_->GetState(false) == GRPC_CHANNEL_READY; }
  bool IsCutOff() { return channel_->WaitForStateChange(GRPC_CHANNEL_READY, Soon()); }

 private:
  static std::chrono::system_clock::time_point Soon() {
    return std::chrono::system_clock::now() + std::chrono::seconds(20);
  }

  std::shared_ptr<grpc::Channel> channel_;
};

// Whoever calls LookUpPresence is known from then on.
class Introduction final : public link::v1::Link::CallbackService {
 public:
  explicit Introduction(Strangers& strangers) : strangers_(strangers) {}

  grpc::ServerUnaryReactor* LookUpPresence(grpc::CallbackServerContext* context,
                                           const link::v1::LookUpPresenceRequest* /*request*/,
                                           link::v1::PresenceRecord* /*response*/) override {
    strangers_.Know(*context);
    auto* reactor = context->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }

 private:
  Strangers& strangers_;
};

constexpr char kLookUp[] = "/presence.link.v1.Link/LookUpPresence";

class StrangersTest : public testing::TestWithParam<const char*> {};

INSTANTIATE_TEST_SUITE_P(Listeners, StrangersTest, testing::Values("127.0.0.1", "::1", "localhost", ""));

TEST_P(StrangersTest, ACallThatIsAllowedMakesThemKnown) {
  SetUpGrpc();
  Strangers strangers;
  Introduction service(strangers);
  const auto server =
      GrpcServer::Listen({.setting = "API_LISTEN", .listen = {GetParam(), 0}, .strangers = &strangers}, {&service});
  if (!server.ok() && std::string(GetParam()) == "::1") GTEST_SKIP() << "no IPv6 here";
  ASSERT_TRUE(server.ok()) << server.status();
  const std::string host = std::string(GetParam()).empty() ? "127.0.0.1" : GetParam();
  Caller caller(ListenAddress{host, strangers.port()}.ToString());
  EXPECT_EQ(caller.Call(kHealth), grpc::StatusCode::OK);
  EXPECT_EQ(strangers.count(), 1) << "anybody may ask for health";
  EXPECT_EQ(caller.Call(kLookUp), grpc::StatusCode::OK);
  EXPECT_EQ(strangers.count(), 0);
}

TEST(Listeners, TheOldestOfTooManyStrangersIsCutOffAndWhoIsKnownIsNot) {
  SetUpGrpc();
  Strangers strangers({.connections_max = 2});
  Introduction service(strangers);
  const auto server =
      GrpcServer::Listen({.setting = "API_LISTEN", .listen = {"127.0.0.1", 0}, .strangers = &strangers}, {&service});
  ASSERT_TRUE(server.ok()) << server.status();
  const std::string address = (*server)->address();
  Caller known(address);
  EXPECT_EQ(known.Call(kLookUp), grpc::StatusCode::OK);
  Caller first(address), second(address), third(address);
  EXPECT_TRUE(first.IsCutOff());
  for (Caller* caller : {&known, &second, &third}) EXPECT_TRUE(caller->IsConnected());
  EXPECT_EQ(strangers.count(), 2);
}

TEST(Listeners, OneAddressIsListenedOnOnce) {
  SetUpGrpc();
  Strangers strangers, others;
  Introduction service(strangers), other_service(others);
  const auto server =
      GrpcServer::Listen({.setting = "API_LISTEN", .listen = {"127.0.0.1", 0}, .strangers = &strangers}, {&service});
  ASSERT_TRUE(server.ok()) << server.status();
  const auto second = GrpcServer::Listen(
      {.setting = "API_LISTEN", .listen = {"127.0.0.1", strangers.port()}, .strangers = &others}, {&other_service});
  EXPECT_EQ(second.status().code(), absl::StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace presence::core
