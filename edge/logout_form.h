// The body of a back-channel logout request (OpenID Connect Back-Channel Logout 1.0, section 2.5): a form that strangers may have written.
//
// Pure. What the token says is common/logout_token.h's business.
#pragma once

#include <string>
#include <string_view>

namespace presence::edge {

// The value of the only `logout_token` of an application/x-www-form-urlencoded body, decoded; empty: there is none, there are several, or
// its escapes are broken. Other parameters may stand beside it, whatever they are. The alphabet of tokens needs no '+', so that stays one.
std::string LogoutTokenOfForm(std::string_view form);

}  // namespace presence::edge
