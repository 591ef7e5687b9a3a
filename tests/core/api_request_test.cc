// What a caller is told about a bad request, from the check to what travels in grpc-status-details-bin; and what two messages with one
// request_id are compared by.
#include "core/api_request.h"

#include <gmock/gmock.h>
#include <google/protobuf/util/json_util.h>
#include <gtest/gtest.h>

#include <chrono>
#include <limits>
#include <string>

#include "core/api_fingerprint.h"
#include "tests/core/api_client.h"

namespace presence::core {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

TEST(RequestCheck, FindsNothingWrongWithAGoodRequest) {
  google::protobuf::RepeatedPtrField<std::string> none;
  google::protobuf::Duration hour;
  hour.set_seconds(3600);
  RequestCheck check;
  check.Id("user_id", "alice");
  check.Ids("excluded_user_ids", none, 100, RequestCheck::None::kIsFine);
  check.Name("edge", std::string(255, 'e'));
  EXPECT_EQ(check.PageSize(kClusterPages, 0), 100u);
  EXPECT_EQ(check.IdCursor({PageKind::kRooms}, ""), "");
  EXPECT_EQ(check.Window("window", hour, std::chrono::hours(1)), std::chrono::hours(1));
  EXPECT_TRUE(check.ok());
  EXPECT_TRUE(check.status().ok());
}

TEST(RequestCheck, NamesEveryFieldAtFault) {
  google::protobuf::RepeatedPtrField<std::string> ids;
  *ids.Add() = "good";
  *ids.Add() = "";
  *ids.Add() = std::string(kIdBytesMax + 1, 'x');
  RequestCheck check;
  check.Id("room_id", "");
  check.Ids("user_ids", ids, 500, RequestCheck::None::kIsWrong);
  check.PageSize(kClusterPages, -1);
  check.IdCursor({PageKind::kRooms}, "not a token");
  const grpc::Status status = ToGrpc(check.status());
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(status.error_message(), "room_id: must not be empty; 4 more fields are wrong");
  EXPECT_THAT(FieldsAtFault(status), ElementsAre("room_id", "user_ids[1]", "user_ids[2]", "page_size", "page_token"));
}

TEST(RequestCheck, DoesNotFillTheTrailersWithIt) {
  google::protobuf::RepeatedPtrField<std::string> ids;
  for (int i = 0; i < 500; ++i) ids.Add();
  RequestCheck check;
  check.Ids("excluded_user_ids", ids, 500, RequestCheck::None::kIsWrong);
  const grpc::Status status = ToGrpc(check.status());
  EXPECT_EQ(FieldsAtFault(status).size(), RequestCheck::kViolationsMax);
  EXPECT_EQ(status.error_message(), "excluded_user_ids[0]: must not be empty; 499 more fields are wrong");
  EXPECT_LT(status.error_details().size(), 4096u);
}

TEST(RequestCheck, TooManyOrNoneAreOneFault) {
  google::protobuf::RepeatedPtrField<std::string> ids;
  RequestCheck none;
  none.Ids("user_ids", ids, 2, RequestCheck::None::kIsWrong);
  EXPECT_EQ(ToGrpc(none.status()).error_message(), "user_ids: must name 1 to 2 users");
  for (int i = 0; i < 3; ++i) ids.Add();
  RequestCheck many;
  many.Ids("user_ids", ids, 2, RequestCheck::None::kIsFine);
  EXPECT_EQ(ToGrpc(many.status()).error_message(), "user_ids: must name at most 2 users");
}

TEST(RequestCheck, WhatIsOnlyTooLargeIsExhaustedAndNotToBeRepeated) {
  RequestCheck check;
  check.Field("data_json", CheckJsonObject(std::string(kPayloadBytesMax + 1, ' ')));
  const grpc::Status status = ToGrpc(check.status());
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(FieldsAtFault(status), ElementsAre("data_json"));
  EXPECT_EQ(ReasonOf(status), "PAYLOAD_TOO_LARGE");
  EXPECT_EQ(RetrySeconds(status), 0);
  check.Id("room_id", "");
  EXPECT_EQ(ToGrpc(check.status()).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST(RequestCheck, AWindowIsZeroToItsMaximum) {
  const auto read = [](int64_t seconds, int32_t nanos) {
    google::protobuf::Duration window;
    window.set_seconds(seconds);
    window.set_nanos(nanos);
    RequestCheck check;
    const auto milliseconds = check.Window("window", window, std::chrono::hours(1));
    return check.ok() ? milliseconds.count() : -1;
  };
  EXPECT_EQ(read(0, 0), 0);
  EXPECT_EQ(read(1, 500'000'000), 1500);
  EXPECT_EQ(read(3600, 0), 3'600'000);
  EXPECT_EQ(read(3600, 1'000'000), -1);
  EXPECT_EQ(read(-1, 0), -1);
  EXPECT_EQ(read(0, -1), -1);
  EXPECT_EQ(read(0, 1'000'000'000), -1);
  EXPECT_EQ(read(std::numeric_limits<int64_t>::max(), 0), -1);
}

TEST(ToGrpc, SaysWhenToTryAgainWhereThatHelps) {
  EXPECT_EQ(RetrySeconds(ToGrpc(absl::UnavailableError("away"))), 1);
  EXPECT_EQ(RetrySeconds(ToGrpc(absl::ResourceExhaustedError("full"))), 1);
  EXPECT_EQ(RetrySeconds(ToGrpc(WithRetryDelay(absl::UnavailableError("away"), std::chrono::seconds(7)))), 7);
  EXPECT_EQ(ToGrpc(absl::NotFoundError("gone")).error_details(), "");
  EXPECT_TRUE(ToGrpc(absl::OkStatus()).ok());
}

TEST(ToGrpc, CarriesReasonsWithTheirMetadata) {
  const grpc::Status status =
      ToGrpc(WithReason(absl::PermissionDeniedError("no"), reason::kRoleMissing, {{"role", "presence-read"}}));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::PERMISSION_DENIED);
  const auto info = DetailOf<google::rpc::ErrorInfo>(status);
  ASSERT_TRUE(info);
  EXPECT_EQ(info->reason(), "ROLE_MISSING");
  EXPECT_EQ(info->domain(), "presence");
  EXPECT_EQ(info->metadata().at("role"), "presence-read");
}

// --- fingerprints.

FingerprintParts Parts() {
  return {.method = "Broadcast",
          .addressee = "room",
          .payload_field = "data_json",
          .payload = "{}",
          .excluded_user_ids = {"b", "a"}};
}

TEST(Fingerprint, IsTheSameForTheSameMessage) {
  FingerprintParts other = Parts();
  other.excluded_user_ids = {"a", "b", "a"};
  EXPECT_EQ(Fingerprint(Parts()), Fingerprint(other)) << "exclusions are a set";
  EXPECT_EQ(Fingerprint(Parts()).size(), 32u);
}

TEST(Fingerprint, DiffersWithEveryPartAndWithWhereOneEnds) {
  FingerprintParts method = Parts(), addressee = Parts(), field = Parts(), payload = Parts(), fewer = Parts(),
                   moved = Parts(), joined = Parts();
  method.method = "SendToUser";
  addressee.addressee = "other";
  field.payload_field = "data";
  payload.payload = "{ }";
  fewer.excluded_user_ids = {"a"};
  moved.addressee = "roomd";
  moved.payload_field = "ata_json";
  joined.excluded_user_ids = {"ab"};
  for (const FingerprintParts& other : {method, addressee, field, payload, fewer, moved, joined}) {
    EXPECT_NE(Fingerprint(other), Fingerprint(Parts()));
  }
}

TEST(CanonicalBytes, DoNotDependOnTheOrderOfMembers) {
  google::protobuf::Struct forwards, backwards;
  for (int i = 0; i < 100; ++i) {
    (*forwards.mutable_fields())["member" + std::to_string(i)].set_number_value(i);
    (*backwards.mutable_fields())["member" + std::to_string(99 - i)].set_number_value(99 - i);
  }
  EXPECT_EQ(CanonicalBytes(forwards), CanonicalBytes(backwards));
  (*forwards.mutable_fields())["member7"].set_number_value(8);
  EXPECT_NE(CanonicalBytes(forwards), CanonicalBytes(backwards));
}

}  // namespace
}  // namespace presence::core
