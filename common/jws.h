// Whether a token was signed by one of our keys: JWS in compact form (RFC 7515), as strictly as RFC 8725 asks.
//
// A pure function over token and keys; thread-safe. Nothing of the payload is read before OpenSSL has verified the
// signature with a key of ours. Neither the verdict nor anything else repeats the token.
//
// Does not decide what the claims are worth: that is for token_verifier.h and logout_token.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <variant>

#include "absl/types/span.h"
#include "common/jwk_set.h"

namespace presence {

enum class TokenFault : uint8_t {
  kMissing,     // there is none
  kInvalid,     // whatever else is wrong
  kExpired,     // good, but its time is over
  kUnknownKey,  // well-formed, but no key has its `kid`: may be good after the next fetch of the keys
};

struct Rejection {
  TokenFault fault = TokenFault::kInvalid;
  std::string_view why;  // constant text for logs and tests; not for the client
  std::string kid{};     // with kUnknownKey: the one that no key has, at most JwkSet::kKidBytesMax
};

inline Rejection Invalid(std::string_view why) {
  return {.fault = TokenFault::kInvalid, .why = why};
}

// Keycloak's tokens have 1 to 3 KB; a request head has 16,000 bytes.
constexpr size_t kJwsBytesMax = 8 * 1024;

// The claims of a token whose signature is good; in this order:
//  1. form: length, alphabet, three parts that are not empty, strict base64url;
//  2. header: a JSON object with no member twice, `typ` absent or one of `types`, no `crit`, `kid` of a key in `keys` (it may
//     be absent when there is only one key), `alg` exactly that key's algorithm. Keys inside the header or behind
//     addresses in it (jwk, jku, x5c, x5u) count for nothing, and no address is ever fetched;
//  3. signature, by OpenSSL;
//  4. claims: a JSON object with no member twice (DecodeClaims).
// `types` are media types in lower case without "application/" (RFC 7515, section 4.1.9); compared without case.
std::variant<nlohmann::json, Rejection> VerifyJws(std::string_view token, const JwkSet& keys,
                                                  absl::Span<const std::string_view> types);

// The one step that costs: the signature over `message`, spelled as JWS spells it.
bool SignatureGood(const VerificationKey& key, std::string_view message, std::string_view signature);

}  // namespace presence
