// Calls of a core's API as a backend service makes them, and what their errors say.
#pragma once

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/metrics_page.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "presence/admin/v1/admin.grpc.pb.h"
#include "presence/v1/presence.grpc.pb.h"
#include "tests/core/peer_core.h"
#include "tests/core/test_core.h"

namespace presence::core {

template <typename Detail>
std::optional<Detail> DetailOf(const grpc::Status& status) {
  google::rpc::Status full;
  if (!full.ParseFromString(status.error_details())) return std::nullopt;
  EXPECT_TRUE(status.error_details().empty() || full.code() == status.error_code());
  EXPECT_TRUE(status.error_details().empty() || full.message() == status.error_message());
  for (const google::protobuf::Any& any : full.details()) {
    Detail detail;
    if (any.UnpackTo(&detail)) return detail;
  }
  return std::nullopt;
}

// The paths in google.rpc.BadRequest.
inline std::vector<std::string> FieldsAtFault(const grpc::Status& status) {
  std::vector<std::string> fields;
  if (const auto bad = DetailOf<google::rpc::BadRequest>(status)) {
    for (const auto& violation : bad->field_violations()) {
      EXPECT_FALSE(violation.description().empty());
      fields.push_back(violation.field());
    }
  }
  return fields;
}

// Of google.rpc.ErrorInfo in our domain; empty: there is none.
inline std::string ReasonOf(const grpc::Status& status) {
  const auto info = DetailOf<google::rpc::ErrorInfo>(status);
  return info && info->domain() == "presence" ? info->reason() : std::string();
}

// When google.rpc.RetryInfo says that trying again is worth it; 0: it does not.
inline int64_t RetrySeconds(const grpc::Status& status) {
  const auto retry = DetailOf<google::rpc::RetryInfo>(status);
  return retry ? retry->retry_delay().seconds() : 0;
}

class ApiTest : public testing::Test {
 protected:
  using Change = std::function<void(CoreRuntimeOptions&)>;

  explicit ApiTest(
      const Change& change = [](CoreRuntimeOptions&) {}, std::unique_ptr<Access> access = Access::Open())
      : core_(change, std::move(access)) {}

  template <typename Service, typename Request, typename Response>
  using Method = grpc::Status (Service::Stub::*)(grpc::ClientContext*, const Request&, Response*);

  template <typename Request, typename Response>
  grpc::Status Call(Method<v1::PresenceService, Request, Response> method, const Request& request, Response* response) {
    grpc::ClientContext context;
    Prepare(context);
    return ((*stub_).*method)(&context, request, response);
  }
  template <typename Request, typename Response>
  grpc::Status Call(Method<admin::v1::AdminService, Request, Response> method, const Request& request,
                    Response* response) {
    grpc::ClientContext context;
    Prepare(context);
    return ((*admin_).*method)(&context, request, response);
  }
  // For who is only interested in how it ends.
  template <typename Stub, typename Request, typename Response>
  grpc::Status Try(grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                   const Request& request) {
    Response response;
    return Call(method, request, &response);
  }
  // What the metrics page says of this series.
  std::string Metric(const std::string& series) const {
    MetricsPage page;
    AddCoreMetrics(page, {core_.runtime->metrics(), core_.api->metrics(), core_.admin->metrics(), core_.link->metrics(),
                          redis_, room_rights_});
    const std::string text = "\n" + page.Text();
    const size_t at = text.find("\n" + series + " ");
    if (at == std::string::npos) return "absent";
    const size_t value = at + series.size() + 2;
    return text.substr(value, text.find('\n', value) - value);
  }
  // Turns of the loop later, at the latest after the patience that only a failing test needs.
  void AwaitMetric(const std::string& series, const std::string& value) {
    const auto give_up = Deadline();
    while (Metric(series) != value && std::chrono::system_clock::now() < give_up) core_.OnLoop([] {});
    EXPECT_EQ(Metric(series), value) << series;
  }

  // A call that ends when the test has played the edge's part.
  template <typename Stub, typename Request, typename Response>
  std::future<grpc::Status> Begin(grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                                  const Request& request, Response* response) {
    return std::async(std::launch::async,
                      [this, method, request, response] { return Call(method, request, response); });
  }

  TestCore core_;
  RedisCounters redis_;
  RoomRightsMetrics room_rights_;
  std::string token_;
  using Presence = v1::PresenceService::Stub;
  using Admin = admin::v1::AdminService::Stub;
  std::unique_ptr<Presence> stub_ = v1::PresenceService::NewStub(TestCore::Dial(*core_.api_server));
  std::unique_ptr<Admin> admin_ = admin::v1::AdminService::NewStub(TestCore::Dial(*core_.api_server));

 private:
  void Prepare(grpc::ClientContext& context) {
    context.set_deadline(Deadline());
    if (!token_.empty()) context.AddMetadata("authorization", "Bearer " + token_);
  }
};

// --- what an edge says about its connections.

inline link::v1::EdgeEvent Closed(uint64_t sequence, uint64_t connection, const std::string& user_id) {
  link::v1::EdgeEvent event;
  event.set_sequence(sequence);
  event.mutable_connection_closed()->set_connection(connection);
  event.mutable_connection_closed()->set_user_id(user_id);
  return event;
}

inline link::v1::EdgeEvent Left(uint64_t sequence, uint64_t connection, const std::string& room_id) {
  link::v1::EdgeEvent event;
  event.set_sequence(sequence);
  event.mutable_room_left()->set_connection(connection);
  event.mutable_room_left()->set_room_id(room_id);
  return event;
}

inline link::v1::EdgeEvent StatusIs(uint64_t sequence, uint64_t connection, Status status) {
  link::v1::EdgeEvent event;
  event.set_sequence(sequence);
  event.mutable_status_changed()->set_connection(connection);
  event.mutable_status_changed()->set_status(status);
  return event;
}

}  // namespace presence::core
