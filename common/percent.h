// Percent-encoding of URLs (RFC 3986, section 2.1). A pure function; thread-safe.
#pragma once

#include <string>
#include <string_view>

namespace presence {

// For one path segment or query value: everything but A-Z a-z 0-9 - . _ ~ is encoded.
std::string PercentEncode(std::string_view text);

}  // namespace presence
