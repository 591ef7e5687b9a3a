// What the public API accepts, as pure functions: ids, names, payloads, close codes. Any thread.
//
// A refusal says what is wrong ("must not be empty"), for RequestCheck to put the field before it, and never echoes what was sent.
#pragma once

#include <google/protobuf/struct.pb.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "presence/link/v1/link.pb.h"

namespace presence::core {

inline constexpr size_t kIdBytesMax = 2048;
inline constexpr size_t kPayloadBytesMax = 1024 * 1024;

// At most `bytes_max` bytes of UTF-8 without NUL, else INVALID_ARGUMENT.
absl::Status CheckText(std::string_view text, size_t bytes_max);
// The same, of 1 to kIdBytesMax bytes.
absl::Status CheckId(std::string_view id);
// With "field: " before the refusal.
absl::Status CheckId(std::string_view field, std::string_view id);

// OK when `text` is a valid JSON object of at most kPayloadBytesMax bytes; INVALID_ARGUMENT or RESOURCE_EXHAUSTED.
absl::Status CheckJsonObject(std::string_view text);

// As JSON text. INVALID_ARGUMENT for what JSON cannot say (NaN, an infinity, a value without a kind); RESOURCE_EXHAUSTED over
// kPayloadBytesMax. The order of the members is not always the same.
absl::StatusOr<std::string> StructToJson(const google::protobuf::Struct& data);

// RFC 6455, section 7.4: what an application may close with, or INVALID_ARGUMENT. 0: 1008, the policy's.
absl::StatusOr<uint32_t> ReadCloseCode(int32_t code);

// "conn-..." taken apart: exactly as presence::ConnectionName writes it, else INVALID_ARGUMENT.
absl::StatusOr<link::v1::ConnectionName> ReadConnectionName(std::string_view text);
std::string ConnectionText(const link::v1::ConnectionName& name);

}  // namespace presence::core
