#include "core/api_text.h"

#include <google/protobuf/util/json_util.h>
#include <simdjson.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace presence::core {
namespace {

absl::string_view Absl(std::string_view text) {
  return {text.data(), text.size()};
}

absl::Status Invalid(std::string_view field, std::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(Absl(field), ": ", Absl(what)));
}

// FNV-1a. Guards against tokens that were cut, edited or made elsewhere; it keeps no secret.
uint32_t Checksum(std::string_view text) {
  uint32_t hash = 2166136261u;
  for (const char c : text) hash = (hash ^ static_cast<uint8_t>(c)) * 16777619u;
  return hash;
}

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

constexpr char kTokenVersion = 1;
constexpr size_t kTokenHeaderBytes = 5;

}  // namespace

absl::Status CheckId(std::string_view field, std::string_view id) {
  if (id.empty()) return Invalid(field, "must not be empty");
  if (id.size() > kIdBytesMax) return Invalid(field, "must be at most 2048 bytes long");
  if (id.find('\0') != std::string_view::npos) return Invalid(field, "must not contain a NUL byte");
  if (!simdjson::validate_utf8(id.data(), id.size())) return Invalid(field, "must be UTF-8");
  return absl::OkStatus();
}

absl::StatusOr<uint32_t> ReadPageSize(int32_t page_size) {
  if (page_size == 0) return kPageSizeDefault;
  if (page_size < 0 || static_cast<uint32_t>(page_size) > kPageSizeMax) {
    return Invalid("page_size", "must be 1 to 10000, or 0 for 1000");
  }
  return static_cast<uint32_t>(page_size);
}

std::string MakePageToken(std::string_view after_user_id) {
  const uint32_t sum = Checksum(after_user_id);
  std::string raw{kTokenVersion};
  for (int shift = 24; shift >= 0; shift -= 8) raw.push_back(static_cast<char>(sum >> shift));
  raw.append(after_user_id);
  return absl::WebSafeBase64Escape(raw);
}

absl::StatusOr<std::string> ReadPageToken(std::string_view token) {
  if (token.empty()) return std::string();
  std::string raw;
  if (token.size() <= 2 * kIdBytesMax && absl::WebSafeBase64Unescape(Absl(token), &raw) &&
      raw.size() > kTokenHeaderBytes) {
    std::string user_id = raw.substr(kTokenHeaderBytes);
    // Making it again checks version, checksum and spelling in one.
    if (CheckId("page_token", user_id).ok() && MakePageToken(user_id) == token) return user_id;
  }
  return Invalid("page_token", "is not a next_page_token of this service");
}

void CutPage(PresencePage& page, size_t bytes_max) {
  constexpr size_t kBytesBesideTexts = 48;  // status, times, version, tags
  size_t bytes = 0;
  for (size_t i = 0; i < page.users.size(); ++i) {
    bytes += page.users[i].user_id.size() + page.users[i].username.size() + kBytesBesideTexts;
    if (i == 0 || bytes <= bytes_max) continue;
    page.users.resize(i);
    page.more = true;
    return;
  }
}

absl::Status CheckJsonObject(std::string_view field, std::string_view text) {
  if (text.size() > kPayloadBytesMax) {
    return absl::ResourceExhaustedError(absl::StrCat(Absl(field), ": is larger than 1 MiB as JSON text"));
  }
  // A parser keeps memory for the largest text that it has seen: one for each thread serves the common small ones, a large
  // text gets its own.
  constexpr size_t kSmallBytesMax = 64 * 1024;
  thread_local simdjson::dom::parser small_parser;
  std::optional<simdjson::dom::parser> large_parser;
  simdjson::dom::parser& parser = text.size() <= kSmallBytesMax ? small_parser : large_parser.emplace();
  simdjson::dom::element root;
  const simdjson::error_code error = parser.parse(text.data(), text.size()).get(root);
  if (error != simdjson::SUCCESS) return Invalid(field, "is not valid JSON");
  if (!root.is_object()) return Invalid(field, "must be a JSON object");
  return absl::OkStatus();
}

absl::StatusOr<std::string> StructToJson(std::string_view field, const google::protobuf::Struct& data) {
  std::string text;
  if (!SayableInJson(data) || !google::protobuf::util::MessageToJsonString(data, &text).ok()) {
    return Invalid(field, "holds a number that is not finite, or a value without a kind: JSON cannot say that");
  }
  if (absl::Status status = CheckJsonObject(field, text); !status.ok()) return status;
  return text;
}

}  // namespace presence::core
