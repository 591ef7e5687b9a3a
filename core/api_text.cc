#include "core/api_text.h"

#include <google/protobuf/util/json_util.h>
#include <simdjson.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>

#include "absl/strings/str_cat.h"
#include "common/connection_id.h"
#include "core/json_members.h"

namespace presence::core {
namespace {

// protobuf would write NaN and the infinities as strings, and leave members without a kind out: better to refuse them
// than to deliver something else. The depth is bounded by the parser of the request: 100 messages.
bool SayableInJson(const google::protobuf::Struct& data);

bool SayableInJson(const google::protobuf::Value& value) {
  switch (value.kind_case()) {
    case google::protobuf::Value::kNumberValue:
      return std::isfinite(value.number_value());
    case google::protobuf::Value::kStructValue:
      return SayableInJson(value.struct_value());
    case google::protobuf::Value::kListValue:
      return std::all_of(value.list_value().values().begin(), value.list_value().values().end(),
                         [](const auto& item) { return SayableInJson(item); });
    case google::protobuf::Value::KIND_NOT_SET:
      return false;
    default:
      return true;
  }
}

bool SayableInJson(const google::protobuf::Struct& data) {
  return std::all_of(data.fields().begin(), data.fields().end(),
                     [](const auto& field) { return SayableInJson(field.second); });
}

}  // namespace

absl::Status CheckText(std::string_view text, size_t bytes_max) {
  if (text.size() > bytes_max) {
    return absl::InvalidArgumentError(absl::StrCat("must be at most ", bytes_max, " bytes long"));
  }
  if (text.find('\0') != std::string_view::npos) return absl::InvalidArgumentError("must not contain a NUL byte");
  if (!simdjson::validate_utf8(text.data(), text.size())) return absl::InvalidArgumentError("must be UTF-8");
  return absl::OkStatus();
}

absl::Status CheckId(std::string_view id) {
  if (id.empty()) return absl::InvalidArgumentError("must not be empty");
  return CheckText(id, kIdBytesMax);
}

absl::Status CheckId(std::string_view field, std::string_view id) {
  const absl::Status status = CheckId(id);
  if (status.ok()) return status;
  return absl::Status(status.code(),
                      absl::StrCat(absl::string_view(field.data(), field.size()), ": ", status.message()));
}

absl::Status CheckJsonObject(std::string_view text) {
  if (text.size() > kPayloadBytesMax) {
    return absl::ResourceExhaustedError("must be at most 1 MiB as JSON text");
  }
  // A parser keeps memory for the largest text that it has seen: one for each thread serves the common small ones, a large
  // text gets its own.
  constexpr size_t kSmallBytesMax = 64 * 1024;
  thread_local simdjson::dom::parser small_parser;
  std::optional<simdjson::dom::parser> large_parser;
  simdjson::dom::parser& parser = text.size() <= kSmallBytesMax ? small_parser : large_parser.emplace();
  simdjson::dom::element root;
  const simdjson::error_code error = parser.parse(text.data(), text.size()).get(root);
  if (error == simdjson::SUCCESS) {
    return root.is_object() ? absl::OkStatus() : absl::InvalidArgumentError("must be a JSON object");
  }
  // It makes values, and so refuses some of what JSON allows: see json_members.h.
  if (ForEachMember(text, [](std::string_view, std::string_view) {})) return absl::OkStatus();
  return absl::InvalidArgumentError("must be a valid JSON object");
}

absl::StatusOr<std::string> StructToJson(const google::protobuf::Struct& data) {
  std::string text;
  if (!SayableInJson(data) || !google::protobuf::util::MessageToJsonString(data, &text).ok()) {
    return absl::InvalidArgumentError(
        "must not hold a number that is not finite, or a value without a kind: JSON cannot say that");
  }
  if (absl::Status status = CheckJsonObject(text); !status.ok()) return status;
  return text;
}

absl::StatusOr<uint32_t> ReadCloseCode(int32_t code) {
  constexpr uint32_t kPolicyViolation = 1008;
  if (code == 0) return kPolicyViolation;
  const bool allowed =
      code == 1000 || code == 1001 || code == 1008 || (code >= 1011 && code <= 1013) || (code >= 3000 && code <= 4999);
  if (!allowed) {
    return absl::InvalidArgumentError("must be 1000, 1001, 1008, 1011 to 1013 or 3000 to 4999, or 0 for 1008");
  }
  return static_cast<uint32_t>(code);
}

absl::StatusOr<link::v1::ConnectionName> ReadConnectionName(std::string_view text) {
  constexpr std::string_view kPrefix = "conn-";
  constexpr size_t kDigits = 16;
  uint64_t incarnation = 0, connection = 0;
  if (text.size() == kPrefix.size() + 2 * kDigits + 1) {
    const char* const first = text.data() + kPrefix.size();
    std::from_chars(first, first + kDigits, incarnation, 16);
    std::from_chars(first + kDigits + 1, first + 2 * kDigits + 1, connection, 16);
  }
  // Writing it again checks prefix, separator and every digit in one.
  if (presence::ConnectionName(incarnation, connection) != text) {
    return absl::InvalidArgumentError("must be a connection_id as ListConnections tells it: conn-...");
  }
  link::v1::ConnectionName name;
  name.set_incarnation(incarnation);
  name.set_connection(connection);
  return name;
}

std::string ConnectionText(const link::v1::ConnectionName& name) {
  return presence::ConnectionName(name.incarnation(), name.connection());
}

}  // namespace presence::core
