// Reads a user's rights to rooms out of the claims of a verified token.
//
// Pure function; thread-safe; never fails: what is not as described grants nothing.
//   "rooms": ["general", "team-*"]                          each may be written in
//   "rooms": {"write": ["general"], "read": ["news-*"]}     or one text in place of a list
//   "realm_access": {"roles": ["room:write:team-*", "room:read:news"]}   likewise in resource_access of the named clients
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "common/room_rights.h"

namespace presence {

struct RoomClaimOptions {
  std::string claim{};        // its name, such as "rooms"; empty: none is read
  std::string role_prefix{};  // what such roles begin with, such as "room:"; empty: none are read
  // Whose roles count beside the realm's. Only named clients: the administrator of another one may call its roles what he likes.
  std::vector<std::string> role_clients{};
};

RoomRights ReadRoomRights(const nlohmann::json& claims, const RoomClaimOptions& options);

}  // namespace presence
