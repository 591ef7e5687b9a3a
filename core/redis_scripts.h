// The scripts that run inside Redis: the texts of the .lua files beside this one, which the build turns into constants.
#pragma once

#include <string_view>

namespace presence::core {

extern const std::string_view kPresenceTransitionScript;  // presence_transition.lua
extern const std::string_view kPublishOnceScript;         // publish_once.lua
extern const std::string_view kRoomLogScript;             // room_log.lua
extern const std::string_view kAnnounceCoreScript;        // announce_core.lua
extern const std::string_view kRoomRightScript;           // room_right.lua
extern const std::string_view kKeepLogoutScript;          // keep_logout.lua

}  // namespace presence::core
