// Decides whether an access token is good and whom it names (RFC 7519, 8725, 9068).
//
// A pure function over token, keys and time; immutable, so any thread may use one verifier. The signature is the
// business of jws.h, the form of single claims that of claims.h. Neither the verdict nor anything else repeats the
// token.
#pragma once

#include <chrono>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "common/claims.h"
#include "common/jwk_set.h"
#include "common/jws.h"
#include "common/room_claims.h"
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
  RoomRights room_rights{};          // see VerifierOptions::room_claims
  std::optional<WallTime> not_before{};
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
  RoomClaimOptions room_claims{};  // where rights to rooms are said; empty: they are not read
  // Service accounts of Keycloak have a `preferred_username`, those of other issuers often have none.
  bool username_required = true;
};

class TokenVerifier {
 public:
  static constexpr size_t kTokenBytesMax = kJwsBytesMax;
  static constexpr size_t kNameBytesMax = kNameClaimBytesMax;

  explicit TokenVerifier(VerifierOptions options);

  // The form, the header (`typ` absent, JWT or at+jwt), the key and the signature as VerifyJws says; then the claims: `exp`
  // (required), `nbf`, `iat` (not in the future) with leeway, `iss`, `aud`, `azp` as configured, `sub` and
  // `preferred_username` (both required, but see username_required).
  //
  // What the same issuer signs for other purposes is refused (RFC 8725, section 3.12): Keycloak's `typ`, where there is
  // one, must be Bearer, so that its ID, refresh, logout and DPoP tokens are no bearer's access tokens; and no token has
  // the claims that only security events (`events`) or ID tokens (`at_hash`, `c_hash`, `s_hash`) have.
  TokenVerdict Verify(std::string_view token, const JwkSet& keys, WallTime now) const;

  // The times at which Verify would say the same of this token: `from` is the first, `until` the first no more.
  struct Validity {
    WallTime from, until;
  };
  Validity ValidityOf(const Identity& identity) const;

 private:
  VerifierOptions options_;
};

}  // namespace presence
