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
grpc::StatusCode CodeOf(const GrpcServer& server, const std::string& method, size_t metadata_bytes = 0) {
  const auto channel = grpc::CreateChannel(server.address(), grpc::InsecureChannelCredentials());
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

}  // namespace
}  // namespace presence::core
