// How a logout is named in Redis: "session:{session_id}", or "user:{user_id}" for all sessions of that user. The key that keeps it is
// "revoked:" and the name. Pure, thread-safe.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "core/store.h"

namespace presence::core {

inline constexpr std::string_view kSessionPrefix = "session:", kUserPrefix = "user:";

inline std::string LogoutName(const Logout& logout) {
  const bool of_session = !logout.session_id.empty();
  return std::string(of_session ? kSessionPrefix : kUserPrefix).append(of_session ? logout.session_id : logout.user_id);
}

// Nothing when it is no such name.
inline std::optional<StoredLogout> ParseLogoutName(std::string_view name) {
  for (const std::string_view prefix : {kSessionPrefix, kUserPrefix}) {
    if (!name.starts_with(prefix) || name.size() == prefix.size()) continue;
    const std::string id(name.substr(prefix.size()));
    return prefix == kSessionPrefix ? StoredLogout{{}, id} : StoredLogout{id, {}};
  }
  return std::nullopt;
}

}  // namespace presence::core
