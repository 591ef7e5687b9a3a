// Pages of long lists: sizes, tokens, and where an answer has to end. Pure functions; any thread.
//
// A token says where the next page begins. It is text of the alphabet of base64url that clients should not look into, belongs to one
// call with one set of arguments, and holds no secret: it can be forged, and what is in it is checked like any other input.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "core/store.h"

namespace presence::core {

struct PageLimits {
  uint32_t size_default;
  uint32_t size_max;
};
inline constexpr PageLimits kPresencePages{1'000, 10'000};
inline constexpr PageLimits kClusterPages{100, 1'000};  // of what all cores are asked for

// Whose pages. The numbers are in tokens.
enum class PageKind : uint8_t { kPresence = 1, kRooms = 2, kMembers = 3, kConnections = 4 };

// What a list is a list of: a token is good for this alone. `arguments` distinguishes two calls of one method: a room, a filter.
struct PageScope {
  PageKind kind;
  std::string_view arguments{};
};

// 0 is the default; INVALID_ARGUMENT when negative or over the maximum.
absl::StatusOr<uint32_t> ReadPageSize(PageLimits limits, int32_t page_size);

std::string MakePageToken(PageScope scope, std::string_view cursor);
// The cursor in a token; "" for an empty one: the first page. INVALID_ARGUMENT for what MakePageToken has not made of this scope.
absl::StatusOr<std::string> ReadPageToken(PageScope scope, std::string_view token);

// A connection as a cursor: 16 bytes, in the order of (incarnation, connection).
std::string ConnectionCursor(const link::v1::ConnectionName& name);
// INVALID_ARGUMENT for what ConnectionCursor has not made.
absl::StatusOr<link::v1::ConnectionName> ReadConnectionCursor(std::string_view cursor);

// An answer has to fit into the 4 MiB that gRPC clients accept by default.
inline constexpr size_t kPageBytesMax = 3 * 1024 * 1024;
// Ends the page early, with `more`, where its ids and names would pass that.
void CutPage(PresencePage& page, size_t bytes_max = kPageBytesMax);

}  // namespace presence::core
