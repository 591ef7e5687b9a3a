#include "common/logout_token.h"

#include <array>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "common/claims.h"
#include "common/jws.h"

namespace presence {
namespace {

using nlohmann::json;

constexpr std::array<std::string_view, 2> kLogoutTokenTypes = {"logout+jwt", "jwt"};
constexpr const char* kLogoutEvent = "http://schemas.openid.net/event/backchannel-logout";

std::optional<Rejection> CheckPurpose(const json& claims) {
  if (const auto purpose = claims.find("typ"); purpose != claims.end() && *purpose != "Logout") {
    return Invalid("typ is not a logout token's");
  }
  const auto events = claims.find("events");
  if (events == claims.end() || !events->is_object()) return Invalid("events is absent or malformed");
  const auto logout = events->find(kLogoutEvent);
  if (logout == events->end() || !logout->is_object()) return Invalid("events has no logout");
  // So that no ID token passes for one (section 2.4).
  if (claims.contains("nonce")) return Invalid("a logout token has no nonce");
  return std::nullopt;
}

std::optional<Rejection> CheckParties(const json& claims, const VerifierOptions& options) {
  if (!options.issuers.empty() && !StringIn(claims, "iss", options.issuers)) return Invalid("iss is not accepted");
  if (options.audiences.empty() && options.client_ids.empty()) return std::nullopt;
  if (!AudienceIn(claims, options.audiences) && !AudienceIn(claims, options.client_ids)) {
    return Invalid("aud is not accepted");
  }
  return std::nullopt;
}

std::optional<Rejection> CheckDates(const json& claims, WallTime now, std::chrono::seconds leeway,
                                    WallTime* issued_at) {
  WallTime expires_at, not_before;
  if (ReadDate(claims, "iat", issued_at) != DateClaim::kPresent) return Invalid("iat is absent or malformed");
  if (ReadDate(claims, "exp", &expires_at) != DateClaim::kPresent) return Invalid("exp is absent or malformed");
  const DateClaim nbf = ReadDate(claims, "nbf", &not_before);
  if (nbf == DateClaim::kMalformed) return Invalid("nbf is malformed");
  if (nbf == DateClaim::kPresent && not_before > now + leeway) return Invalid("nbf is in the future");
  if (*issued_at > now + leeway) return Invalid("iat is in the future");
  if (*issued_at + LogoutTokenVerifier::kAgeMax + leeway < now) return Invalid("iat is too long ago");
  if (now >= expires_at + leeway) return Rejection{TokenFault::kExpired, "exp has passed"};
  return std::nullopt;
}

}  // namespace

LogoutTokenVerifier::LogoutTokenVerifier(VerifierOptions options) : options_(std::move(options)) {}

std::variant<LogoutOrder, Rejection> LogoutTokenVerifier::Verify(std::string_view token, const JwkSet& keys,
                                                                 WallTime now) const {
  const std::variant<json, Rejection> verified = VerifyJws(token, keys, kLogoutTokenTypes);
  if (const auto* rejection = std::get_if<Rejection>(&verified)) return *rejection;
  const json& claims = std::get<json>(verified);
  LogoutOrder order;
  if (auto fault = CheckPurpose(claims)) return *fault;
  if (auto fault = CheckParties(claims, options_)) return *fault;
  if (!ReadName(claims, "jti", &order.token_id)) return Invalid("jti is absent or malformed");
  if (claims.contains("sub") && !ReadName(claims, "sub", &order.user_id)) return Invalid("sub is malformed");
  if (claims.contains("sid") && !ReadName(claims, "sid", &order.session_id)) return Invalid("sid is malformed");
  if (order.user_id.empty() && order.session_id.empty()) return Invalid("neither sub nor sid");
  if (auto fault = CheckDates(claims, now, options_.leeway, &order.issued_at)) return *fault;
  return order;
}

}  // namespace presence
