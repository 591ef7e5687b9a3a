// A hash map from ids, found by std::string_view. (Debian's absl::string_view is another type, so absl's own transparent hash does
// not take it.) Like every absl hash container it has a random order: never iterate where that reaches an output.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>

#include "absl/container/flat_hash_map.h"
#include "absl/hash/hash.h"
#include "absl/strings/string_view.h"

namespace presence::core {

struct IdHash {
  using is_transparent = void;
  size_t operator()(std::string_view id) const { return absl::HashOf(absl::string_view(id.data(), id.size())); }
};

// Key: std::string, or std::string_view into what outlives the entry.
template <typename Value, typename Key = std::string>
using IdMap = absl::flat_hash_map<Key, Value, IdHash, std::equal_to<>>;

}  // namespace presence::core
