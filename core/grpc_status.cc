#include "core/grpc_status.h"

#include <google/protobuf/any.pb.h>
#include <google/protobuf/util/time_util.h>

#include <map>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace presence::core {
namespace {

using google::protobuf::Message;
using google::protobuf::util::TimeUtil;

constexpr absl::string_view kTypePrefix = "type.googleapis.com/";

std::string TypeUrl(const Message& detail) {
  return absl::StrCat(kTypePrefix, detail.GetTypeName());
}

absl::Status With(absl::Status status, const Message& detail) {
  status.SetPayload(TypeUrl(detail), absl::Cord(detail.SerializeAsString()));
  return status;
}

bool Has(const absl::Status& status, const Message& detail) {
  return status.GetPayload(TypeUrl(detail)).has_value();
}

bool HasReason(const absl::Status& status, std::string_view reason) {
  google::rpc::ErrorInfo info;
  const auto payload = status.GetPayload(TypeUrl(info));
  return payload.has_value() && info.ParseFromString(std::string(*payload)) && info.reason() == reason;
}

}  // namespace

absl::Status WithReason(absl::Status status, std::string_view reason,
                        const std::vector<std::pair<std::string, std::string>>& metadata) {
  google::rpc::ErrorInfo info;
  info.set_reason(std::string(reason));
  info.set_domain("presence");
  for (const auto& [name, value] : metadata) (*info.mutable_metadata())[name] = value;
  return With(std::move(status), info);
}

absl::Status WithRetryDelay(absl::Status status, std::chrono::milliseconds delay) {
  google::rpc::RetryInfo info;
  *info.mutable_retry_delay() = TimeUtil::MillisecondsToDuration(delay.count());
  return With(std::move(status), info);
}

absl::Status WithViolations(absl::Status status, const std::vector<FieldViolation>& violations) {
  google::rpc::BadRequest bad;
  for (const FieldViolation& violation : violations) {
    auto& added = *bad.add_field_violations();
    added.set_field(violation.field);
    added.set_description(violation.description);
  }
  return With(std::move(status), bad);
}

grpc::Status ToGrpc(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  if ((absl::IsUnavailable(status) || absl::IsResourceExhausted(status)) && !Has(status, google::rpc::RetryInfo()) &&
      !Has(status, google::rpc::BadRequest()) && !HasReason(status, reason::kMayHaveBeenDelivered)) {
    return ToGrpc(WithRetryDelay(status, kRetryDelay));
  }
  const std::string message(status.message().data(), status.message().size());
  // absl hands payloads out in any order: sorted, so that equal statuses are equal bytes.
  std::map<std::string, std::string> payloads;
  status.ForEachPayload([&payloads](absl::string_view type_url, const absl::Cord& payload) {
    payloads.emplace(std::string(type_url), std::string(payload));
  });
  std::string details;
  if (!payloads.empty()) {
    google::rpc::Status full;
    full.set_code(static_cast<int>(status.code()));
    full.set_message(message);
    for (auto& [type_url, payload] : payloads) {
      google::protobuf::Any& any = *full.add_details();
      any.set_type_url(type_url);
      any.set_value(std::move(payload));
    }
    details = full.SerializeAsString();
  }
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), message, details);
}

}  // namespace presence::core
