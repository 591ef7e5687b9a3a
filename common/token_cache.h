// Remembers what good tokens said: a token that is shown again, as in a storm of reconnects, costs a hash and a look-up
// instead of a signature check.
//
// Thread-safe: sixteen parts with a mutex each, held for the time of a look-up; for handshakes and calls, not for messages.
// Only what was good is kept, never a refusal: a stranger could fill it with those, and a refused token may be good
// tomorrow. An entry counts for the key set that verified it (JwkSet::id) and within the times that the token itself
// states: outside of them it is as if there were none, and the verifier says what is wrong.
//
// Tokens are known by the SHA-256 of their whole text and are not kept themselves: two spellings are two tokens, and whoever
// reads this memory finds nothing that opens a door. Bounded; when full, the oldest entry of its part makes room.
//
// Does not know about logouts: who ends sessions asks for that beside it.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "common/time.h"
#include "common/token_verifier.h"

namespace presence {

using TokenDigest = std::array<unsigned char, 32>;

// SHA-256. REQUIRES: the length is bounded by the caller (TokenVerifier::kTokenBytesMax): hashing costs by the byte.
TokenDigest DigestOf(std::string_view token);

template <typename Value>
class TokenCache {
 public:
  // At least one entry in each part, however small `entries_max` is.
  explicit TokenCache(size_t entries_max) : part_entries_max_(std::max<size_t>(1, entries_max / kParts)) {}

  // What Keep was told of this token, if it was under the same keys, and `now` is within its validity.
  std::optional<Value> Find(const TokenDigest& token, uint64_t keys, WallTime now) {
    Part& part = PartOf(token);
    const std::lock_guard lock(part.mutex);
    if (part.keys != keys) return std::nullopt;
    const auto found = part.entries.find(token);
    if (found == part.entries.end()) return std::nullopt;
    const TokenVerifier::Validity& validity = found->second.validity;
    if (now < validity.from || now >= validity.until) return std::nullopt;
    return found->second.value;
  }

  void Keep(const TokenDigest& token, uint64_t keys, Value value, TokenVerifier::Validity validity) {
    Part& part = PartOf(token);
    const std::lock_guard lock(part.mutex);
    if (keys < part.keys) return;  // verified while the keys changed: nobody will ask for these any more
    if (part.keys != keys) {
      part.entries.clear();
      part.by_age.clear();
      part.oldest = 0;
      part.keys = keys;
    }
    const bool is_new = part.entries.insert_or_assign(token, Entry{std::move(value), validity}).second;
    if (!is_new) return;
    if (part.by_age.size() < part_entries_max_) {
      part.by_age.push_back(token);
      return;
    }
    part.entries.erase(std::exchange(part.by_age[part.oldest], token));
    part.oldest = (part.oldest + 1) % part.by_age.size();
  }

  size_t size() const {
    size_t size = 0;
    for (const Part& part : parts_) {
      const std::lock_guard lock(part.mutex);
      size += part.entries.size();
    }
    return size;
  }

 private:
  static constexpr size_t kParts = 16;

  // Already evenly spread: any eight bytes will do.
  struct DigestHash {
    size_t operator()(const TokenDigest& digest) const {
      size_t hash;
      std::memcpy(&hash, digest.data(), sizeof hash);
      return hash;
    }
  };
  struct Entry {
    Value value;
    TokenVerifier::Validity validity;
  };
  struct alignas(64) Part {
    mutable std::mutex mutex;  // guards what follows
    uint64_t keys = 0;
    absl::flat_hash_map<TokenDigest, Entry, DigestHash> entries;
    std::vector<TokenDigest> by_age;  // of the entries; a ring once it is full
    size_t oldest = 0;                // in by_age, when it is full
  };
  Part& PartOf(const TokenDigest& token) { return parts_[token.back() % kParts]; }

  const size_t part_entries_max_;
  std::array<Part, kParts> parts_;
};

}  // namespace presence
