// What the public API accepts, as pure functions: ids, page tokens, payloads. Any thread.
//
// Every refusal names the field first ("room_id: ..."), then what is wrong, and never echoes what was sent.
#pragma once

#include <google/protobuf/struct.pb.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/store.h"

namespace presence::core {

inline constexpr size_t kIdBytesMax = 2048;
inline constexpr uint32_t kPageSizeDefault = 1'000;
inline constexpr uint32_t kPageSizeMax = 10'000;
inline constexpr size_t kPayloadBytesMax = 1024 * 1024;

// 1 to kIdBytesMax bytes of UTF-8 without NUL, else INVALID_ARGUMENT.
absl::Status CheckId(std::string_view field, std::string_view id);

// 0 is the default; INVALID_ARGUMENT when negative or over kPageSizeMax.
absl::StatusOr<uint32_t> ReadPageSize(int32_t page_size);

// Where the next page begins, as text of the alphabet of base64url that clients should not look into.
std::string MakePageToken(std::string_view after_user_id);
// The user id in a token; "" for an empty one: the first page. INVALID_ARGUMENT for what MakePageToken has not made.
absl::StatusOr<std::string> ReadPageToken(std::string_view token);

// An answer has to fit into the 4 MiB that gRPC clients accept by default.
inline constexpr size_t kPageBytesMax = 3 * 1024 * 1024;
// Ends the page early, with `more`, where its ids and names would pass that.
void CutPage(PresencePage& page, size_t bytes_max = kPageBytesMax);

// OK when `text` is a valid JSON object of at most kPayloadBytesMax bytes; INVALID_ARGUMENT or RESOURCE_EXHAUSTED.
absl::Status CheckJsonObject(std::string_view field, std::string_view text);

// As JSON text. INVALID_ARGUMENT for what JSON cannot say (NaN, an infinity, a value without a kind); RESOURCE_EXHAUSTED over
// kPayloadBytesMax.
absl::StatusOr<std::string> StructToJson(std::string_view field, const google::protobuf::Struct& data);

}  // namespace presence::core
