// JSON from strangers: one object, of bounded depth, whose meaning cannot depend on who reads it.
//
// Pure functions; thread-safe. No exception leaves; nothing recurses over the input.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace presence {

// OK when `text` is one JSON object (RFC 8259) in valid UTF-8, without a byte order mark, nested at most
// `depth_max` deep (the object itself counts as 1), with no member name twice in one object, and no number
// out of the range of a double. Else INVALID_ARGUMENT; the message is constant text and echoes nothing of the
// input.
absl::Status CheckJsonObject(std::string_view text, int depth_max);

// The checked object as a tree.
absl::StatusOr<nlohmann::json> ParseJsonObject(std::string_view text, int depth_max);

}  // namespace presence
