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

#include "common/jwk_set.h"
#include "common/time.h"

namespace presence {

// Who a connection belongs to: from the token alone.
struct Identity {
  std::string user_id;     // `sub`: 1 to 2,048 bytes of UTF-8 without NUL
  std::string username;    // `preferred_username`: likewise; empty when absent and not required
  std::string session_id;  // `sid`; empty when absent
  WallTime expires_at;
  std::optional<WallTime> issued_at;
  std::vector<std::string> roles{};  // those of VerifierOptions::roles that the token grants, in that order
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

  // The roles to look for, in `realm_access.roles` and, for each of role_clients, in
  // `resource_access.<client>.roles`, as Keycloak writes them. Only named clients count: the administrator of
  // another client may call its roles what he likes. Anything there that is not such a list grants nothing. Empty:
  // the token's roles are not read.
  std::vector<std::string> roles{};
  std::vector<std::string> role_clients{};
  // Service accounts of Keycloak have a `preferred_username`, those of other issuers often have none.
  bool username_required = true;
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
  //     `keys` (it may be absent when there is only one key), `alg` exactly that key's algorithm. Keys inside the
  //     header (jwk, jku, x5c) count for nothing;
  //  3. signature, by OpenSSL;
  //  4. claims: `exp` (required), `nbf`, `iat` (not in the future) with leeway, `iss`, `aud`, `azp` as configured,
  //     `sub` and `preferred_username` (both required, but see username_required). Keycloak's `typ`, where
  //     there is one, is Bearer: its ID, refresh, logout and DPoP tokens are no bearer's access tokens.
  TokenVerdict Verify(std::string_view token, const JwkSet& keys, WallTime now) const;

 private:
  VerifierOptions options_;
};

}  // namespace presence
