// The public keys that tokens are verified with: a JWK set (RFC 7517), parsed once.
//
// Immutable after Parse, so any thread may read it; share it by std::shared_ptr<const JwkSet>. Each key
// carries OpenSSL's key object, built once, and the single algorithm that it may be used with: a token never
// chooses the algorithm.
//
// Does not do: private or symmetric keys, certificates (x5c, x5u), other algorithms than those of
// signature_algorithm.h, fetching (key_source.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/signature_algorithm.h"

struct evp_pkey_st;  // OpenSSL's EVP_PKEY

namespace presence {

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
  static constexpr size_t kKeysMax = 100;      // Keycloak shows two or three per realm
  static constexpr size_t kKidBytesMax = 512;  // Keycloak: 43
  static constexpr int kRsaBitsMin = 2048, kRsaBitsMax = 8192;

  // A key that was left out, and why; constant text and at most 64 printable characters of its kid.
  struct Skipped {
    std::string kid;
    std::string_view reason;
  };

  JwkSet(JwkSet&&) = default;
  JwkSet& operator=(JwkSet&&) = default;

  // Takes the keys that can verify a signature: RSA (kRsaBitsMin to kRsaBitsMax, e odd and at least 3), EC
  // P-256 and P-384 (on the curve), Ed25519 and Ed448; `use` absent or "sig", `key_ops` absent or with "verify". `alg`
  // absent means RS256, ES256, ES384 or EdDSA, by the kind of key. Others are skipped, not an error: a realm also
  // publishes encryption keys. Of several with the same kid and algorithm the first counts.
  //
  // INVALID_ARGUMENT: not a JWK set (no object, no array `keys`, a member name twice), or beyond the two
  // bounds. A set without any usable key is not an error; see empty().
  static absl::StatusOr<JwkSet> Parse(std::string_view json);

  // The keys with that kid: none, one, or one per algorithm. Never those without a kid.
  absl::Span<const VerificationKey> Find(std::string_view kid) const;
  // The key, when the set holds exactly one; it may verify tokens that name no key. Else nullptr.
  const VerificationKey* Only() const { return keys_.size() == 1 ? keys_.data() : nullptr; }

  // Another one for each set that was parsed in this process, even from the same text: what was decided by the keys of
  // one set can be told from what another one would say.
  uint64_t id() const { return id_; }

  bool empty() const { return keys_.empty(); }
  absl::Span<const VerificationKey> keys() const { return keys_; }  // sorted by kid, then algorithm
  absl::Span<const Skipped> skipped() const { return skipped_; }    // in the document's order

 private:
  JwkSet() = default;

  uint64_t id_ = 0;
  std::vector<VerificationKey> keys_;
  std::vector<Skipped> skipped_;
};

}  // namespace presence
