// Decides whether a logout token is good, and whose sessions it ends (OpenID Connect Back-Channel Logout 1.0, sections 2.4
// and 2.6).
//
// A pure function over token, keys and time; immutable, so any thread may use one verifier. Nothing repeats the token.
//
// Does not do: remembering token_id against replays (an order that is obeyed twice ends nothing more: it concerns only
// tokens issued before it), ending anything.
#pragma once

#include <chrono>
#include <string>
#include <string_view>
#include <variant>

#include "common/jwk_set.h"
#include "common/time.h"
#include "common/token_verifier.h"

namespace presence {

// At least one of user_id and session_id is not empty. With a session_id that session alone ends, otherwise all of the user's.
struct LogoutOrder {
  std::string user_id;     // `sub`
  std::string session_id;  // `sid`
  WallTime issued_at;      // `iat`
  std::string token_id;    // `jti`
};

class LogoutTokenVerifier {
 public:
  // Such a token is sent at once; what is older comes from somebody who kept it.
  static constexpr std::chrono::seconds kAgeMax{300};

  // Of the options only issuers, audiences, client_ids and leeway count.
  explicit LogoutTokenVerifier(VerifierOptions options);

  // The form, the header (`typ` absent, JWT or logout+jwt), the key and the signature as VerifyJws says; then the claims:
  // `iss` as configured; `aud` has one of audiences or client_ids (if either is configured); `iat` (required) neither in
  // the future nor older than kAgeMax, with leeway; `exp` (required) and `nbf` with leeway; `jti` (required); `events`
  // with the logout event; no `nonce`; `sub` or `sid` or both. Keycloak's `typ`, where there is one, is Logout.
  std::variant<LogoutOrder, Rejection> Verify(std::string_view token, const JwkSet& keys, WallTime now) const;

 private:
  VerifierOptions options_;
};

}  // namespace presence
