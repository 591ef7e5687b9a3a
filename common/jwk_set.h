// The public keys that tokens are verified with: a JWK set (RFC 7517), parsed once.
//
// Immutable after Parse, so any thread may read it; share it by std::shared_ptr<const JwkSet>. Each key
// carries OpenSSL's key object, built once, and the single algorithm that it may be used with: a token never
// chooses the algorithm.
//
// Does not do: private or symmetric keys, certificates (x5c, x5u), curves other than P-256, algorithms other
// than RS256 and ES256, fetching (key_source.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

struct evp_pkey_st;  // OpenSSL's EVP_PKEY

namespace presence {

// RFC 7518, section 3.1.
enum class SignatureAlgorithm : uint8_t { kRs256, kEs256 };

// "RS256" or "ES256", as in the `alg` of a header or a key: case matters.
std::string_view AlgorithmName(SignatureAlgorithm algorithm);

struct VerificationKey {
  struct FreeKey {
    void operator()(evp_pkey_st* key) const;
  };

  std::string kid;  // empty: the key has none
  SignatureAlgorithm algorithm = SignatureAlgorithm::kRs256;
  std::unique_ptr<evp_pkey_st, FreeKey> key;  // OpenSSL verifies with it on several threads at once
};

class JwkSet {
 public:
  static constexpr size_t kDocumentBytesMax = 256 * 1024;
  static constexpr size_t kKeysMax = 100;  // Keycloak shows two or three per realm
  static constexpr int kRsaBitsMin = 2048, kRsaBitsMax = 8192;

  // A key that was left out, and why; constant text and at most 64 printable characters of its kid.
  struct Skipped {
    std::string kid;
    std::string_view reason;
  };

  JwkSet(JwkSet&&) = default;
  JwkSet& operator=(JwkSet&&) = default;

  // Takes the keys that can verify a signature: RSA (kRsaBitsMin to kRsaBitsMax, e odd and at least 3) and EC
  // P-256 (on the curve), `use` absent or "sig", `key_ops` absent or with "verify". `alg` absent means RS256
  // or ES256, by the kind of key. Others are skipped, not an error: a realm also publishes encryption keys.
  // Of several with the same kid and algorithm the first counts.
  //
  // INVALID_ARGUMENT: not a JWK set (no object, no array `keys`, a member name twice), or beyond the two
  // bounds. A set without any usable key is not an error; see empty().
  static absl::StatusOr<JwkSet> Parse(std::string_view json);

  // The keys with that kid: none, one, or one per algorithm. Never those without a kid.
  absl::Span<const VerificationKey> Find(std::string_view kid) const;
  // The key, when the set holds exactly one; it may verify tokens that name no key. Else nullptr.
  const VerificationKey* Only() const { return keys_.size() == 1 ? keys_.data() : nullptr; }

  bool empty() const { return keys_.empty(); }
  absl::Span<const VerificationKey> keys() const { return keys_; }  // sorted by kid, then algorithm
  absl::Span<const Skipped> skipped() const { return skipped_; }    // in the document's order

 private:
  JwkSet() = default;

  std::vector<VerificationKey> keys_;
  std::vector<Skipped> skipped_;
};

}  // namespace presence
