// The text of presence_transition.lua, which the build turns into a constant.
#pragma once

#include <string_view>

namespace presence::core {

extern const std::string_view kPresenceTransitionScript;

}  // namespace presence::core
