// base64url as JWS and JWK use it (RFC 7515, section 2): no padding, no white space, one spelling per value.
//
// Pure functions; thread-safe.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace presence {

std::string Base64UrlEncode(std::string_view bytes);

// nullopt for whatever Base64UrlEncode does not write: padding, foreign characters, an impossible length, and
// left-over bits that are not zero. So one value has one spelling, and no byte of a signature can change
// unnoticed.
std::optional<std::string> Base64UrlDecode(std::string_view text);

}  // namespace presence
