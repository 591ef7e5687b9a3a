// Reads the claims of a token whose signature is good (RFC 7519, section 4): dates, parties, names, roles.
//
// Pure functions; thread-safe. Each knows one claim's form and says nothing of what the claim is worth.
#pragma once

#include <cstddef>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "common/time.h"

namespace presence {

constexpr size_t kNameClaimBytesMax = 2048;  // as long as link.proto lets names be

enum class DateClaim : uint8_t { kAbsent, kPresent, kMalformed };

// Seconds since 1970 (RFC 7519, section 2: NumericDate, fractions allowed); whole seconds are kept. `date` is set when it is
// present.
DateClaim ReadDate(const nlohmann::json& claims, const char* claim, WallTime* date);

// Whether the claim is a string, and one of these.
bool StringIn(const nlohmann::json& claims, const char* claim, const std::vector<std::string>& accepted);

// Whether `aud`, a string or an array of strings (RFC 7519, section 4.1.3), names one of these.
bool AudienceIn(const nlohmann::json& claims, const std::vector<std::string>& accepted);

// A string of 1 to kNameClaimBytesMax bytes of UTF-8 without NUL; false when it is anything else, or absent.
bool ReadName(const nlohmann::json& claims, const char* claim, std::string* name);

// Those of `wanted` that stand in `realm_access.roles`, or in `resource_access.<client>.roles` of one of `clients`, as Keycloak
// writes them; in the order of `wanted`. Anything there that is not such a list grants nothing.
std::vector<std::string> ReadRoles(const nlohmann::json& claims, const std::vector<std::string>& wanted,
                                   const std::vector<std::string>& clients);

}  // namespace presence
