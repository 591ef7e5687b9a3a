// Decides whether a token is good and whom it names: JWS compact form, RS256 or ES256 (RFC 7515, 7519, 8725).
//
// A pure function over token, keys and time; immutable, so any thread may use one verifier. Nothing of the
// payload is read before OpenSSL has verified the signature with a key of ours. Neither the verdict nor
// anything else repeats the token.
#pragma once

#include <chrono>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "common/time.h"
#include "edge/jwk_set.h"

namespace presence::edge {

// Who a connection belongs to: from the token alone.
struct Identity {
  std::string user_id;     // `sub`: 1 to 2,048 bytes of UTF-8 without NUL
  std::string username;    // `preferred_username`: likewise
  std::string session_id;  // `sid`; empty when absent
  WallTime expires_at;
  std::optional<WallTime> issued_at;
};

enum class TokenFault {
  kMissing,     // there is none
  kInvalid,     // whatever else is wrong
  kExpired,     // good, but its time is over
  kUnknownKey,  // well-formed, but no key has its `kid`: may be good after the next fetch of the keys
};

struct Rejection {
  TokenFault fault = TokenFault::kInvalid;
  std::string_view why;  // constant text for logs and tests; not for the client
};

using TokenVerdict = std::variant<Identity, Rejection>;

struct VerifierOptions {
  std::vector<std::string> issuers{};     // `iss` must be one of them, byte for byte; empty: not checked
  std::vector<std::string> audiences{};   // `aud` must contain one of them; empty: not checked
  std::vector<std::string> client_ids{};  // `azp` must be, or `aud` contain, one of them; empty: not checked
  std::chrono::seconds leeway{30};        // for clocks that differ: on exp, nbf and iat
};

class TokenVerifier {
 public:
  // Keycloak's tokens have 1 to 3 KB; a request head has 16,000 bytes.
  static constexpr size_t kTokenBytesMax = 8 * 1024;
  static constexpr size_t kNameBytesMax = 2048;  // link.proto

  explicit TokenVerifier(VerifierOptions options);

  // In this order:
  //  1. form: length, alphabet, three parts that are not empty, strict base64url;
  //  2. header: a JSON object with no member twice, `typ` absent, JWT or at+jwt, no `crit`, `kid` of a key in
  //  `keys` (it may
  //     be absent when there is only one key), `alg` exactly that key's algorithm. Keys inside the header
  //     (jwk, jku, x5c) count for nothing;
  //  3. signature, by OpenSSL;
  //  4. claims: `exp` (required), `nbf`, `iat` (not in the future) with leeway, `iss`, `aud`, `azp` as
  //  configured, `sub` and
  //     `preferred_username` (both required). Keycloak's `typ` Refresh, Offline and Logout are no access
  //     tokens.
  TokenVerdict Verify(std::string_view token, const JwkSet& keys, WallTime now) const;

 private:
  VerifierOptions options_;
};

}  // namespace presence::edge
