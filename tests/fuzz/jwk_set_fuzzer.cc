// JWK sets, as an issuer's answer or a file holds them: bounds are kept, and what is kept can be found and used.
#include <algorithm>
#include <string>

#include "common/jwk_set.h"
#include "tests/fuzz/fuzz_target.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using presence::JwkSet;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto set = JwkSet::Parse(text);
  if (!set.ok()) {
    PRESENCE_CHECK(set.status().message().size() < 200, "an error text is short");
    return 0;
  }
  PRESENCE_CHECK(size <= JwkSet::kDocumentBytesMax, "a document has its bound");
  PRESENCE_CHECK(set->keys().size() + set->skipped().size() <= JwkSet::kKeysMax, "a set has its bound");
  for (const auto& key : set->keys()) {
    PRESENCE_CHECK(key.key != nullptr, "a key is a key");
    PRESENCE_CHECK(!presence::AlgorithmName(key.algorithm).empty(), "an algorithm has a name");
    const auto found = set->Find(key.kid);
    const bool is_there = std::any_of(found.begin(), found.end(), [&](const auto& one) { return &one == &key; });
    PRESENCE_CHECK(is_there == !key.kid.empty(), "a key with a name is found by it");
  }
  for (const auto& skipped : set->skipped()) {
    PRESENCE_CHECK(skipped.kid.size() <= 64 && !skipped.reason.empty(), "what is left out is named shortly");
  }
  return 0;
}
