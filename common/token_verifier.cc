#include "common/token_verifier.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "common/claims.h"

namespace presence {
namespace {

using nlohmann::json;

// RFC 7519, section 5.1, and RFC 9068, section 2.1. Other types are other things: logout+jwt, dpop+jwt, ...
constexpr std::array<std::string_view, 2> kAccessTokenTypes = {"jwt", "at+jwt"};

std::optional<Rejection> CheckDates(const json& claims, WallTime now, std::chrono::seconds leeway, Identity* identity) {
  if (ReadDate(claims, "exp", &identity->expires_at) != DateClaim::kPresent) {
    return Invalid("exp is absent or malformed");
  }
  WallTime not_before, issued_at;
  const DateClaim nbf = ReadDate(claims, "nbf", &not_before);
  if (nbf == DateClaim::kMalformed) return Invalid("nbf is malformed");
  const DateClaim iat = ReadDate(claims, "iat", &issued_at);
  if (iat == DateClaim::kMalformed) return Invalid("iat is malformed");
  if (nbf == DateClaim::kPresent) {
    if (not_before > now + leeway) return Invalid("nbf is in the future");
    identity->not_before = not_before;
  }
  if (iat == DateClaim::kPresent) {
    if (issued_at > now + leeway) return Invalid("iat is in the future");
    identity->issued_at = issued_at;
  }
  // Last of the dates, so that "expired" is said of a token that is otherwise timely.
  if (now >= identity->expires_at + leeway) return Rejection{TokenFault::kExpired, "exp has passed"};
  return std::nullopt;
}

std::optional<Rejection> CheckParties(const json& claims, const VerifierOptions& options) {
  if (!options.issuers.empty() && !StringIn(claims, "iss", options.issuers)) return Invalid("iss is not accepted");
  if (!options.audiences.empty() && !AudienceIn(claims, options.audiences)) return Invalid("aud is not accepted");
  if (!options.client_ids.empty() && !StringIn(claims, "azp", options.client_ids) &&
      !AudienceIn(claims, options.client_ids)) {
    return Invalid("neither azp nor aud is accepted");
  }
  return std::nullopt;
}

// Keycloak says in the claim `typ` what a token is for, ID, Refresh or Logout among others, and signs them all with one
// key. A DPoP token is good only with a proof, which nobody asks for here. Issuers that say nothing in `typ` are known by
// claims that access tokens do not have.
std::optional<Rejection> CheckPurpose(const json& claims) {
  if (const auto purpose = claims.find("typ"); purpose != claims.end()) {
    if (!purpose->is_string()) return Invalid("typ is malformed");
    if (*purpose != "Bearer") return Invalid("typ is not an access token's");
  }
  if (claims.contains("events")) return Invalid("it is a security event, not an access token");
  const auto has = [&claims](const char* claim) { return claims.contains(claim); };
  constexpr std::array kOfIdTokens = {"at_hash", "c_hash", "s_hash"};  // OpenID Connect Core 1.0, section 3.3.2.11
  if (std::any_of(kOfIdTokens.begin(), kOfIdTokens.end(), has))
    return Invalid("it is an ID token, not an access token");
  return std::nullopt;
}

}  // namespace

TokenVerifier::TokenVerifier(VerifierOptions options) : options_(std::move(options)) {}

TokenVerdict TokenVerifier::Verify(std::string_view token, const JwkSet& keys, WallTime now) const {
  const std::variant<json, Rejection> verified = VerifyJws(token, keys, kAccessTokenTypes);
  if (const auto* rejection = std::get_if<Rejection>(&verified)) return *rejection;
  const json& claims = std::get<json>(verified);
  Identity identity;
  if (auto fault = CheckPurpose(claims)) return *fault;
  if (auto fault = CheckParties(claims, options_)) return *fault;
  if (!ReadName(claims, "sub", &identity.user_id)) return Invalid("sub is absent or malformed");
  const bool names_user = options_.username_required || claims.contains("preferred_username");
  if (names_user && !ReadName(claims, "preferred_username", &identity.username)) {
    return Invalid("preferred_username is absent or malformed");
  }
  if (claims.contains("sid") && !ReadName(claims, "sid", &identity.session_id)) return Invalid("sid is malformed");
  if (auto fault = CheckDates(claims, now, options_.leeway, &identity)) return *fault;
  identity.roles = ReadRoles(claims, options_.roles, options_.role_clients);
  identity.room_rights = ReadRoomRights(claims, options_.room_claims);
  return identity;
}

TokenVerifier::Validity TokenVerifier::ValidityOf(const Identity& identity) const {
  const WallTime from = std::max(identity.not_before.value_or(WallTime{}), identity.issued_at.value_or(WallTime{}));
  return {.from = from - options_.leeway, .until = identity.expires_at + options_.leeway};
}

}  // namespace presence
