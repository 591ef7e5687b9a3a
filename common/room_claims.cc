#include "common/room_claims.h"

#include <nlohmann/json.hpp>
#include <string_view>

namespace presence {
namespace {

using nlohmann::json;

const json* Member(const json& object, std::string_view name) {
  if (!object.is_object()) return nullptr;
  const auto found = object.find(std::string(name));
  return found == object.end() ? nullptr : &*found;
}

// Calls visit(const std::string&) for one text, or for each text of a list.
template <typename Visit>
void VisitTexts(const json* texts, Visit visit) {
  if (texts == nullptr) return;
  if (const auto* text = texts->get_ptr<const std::string*>()) return visit(*text);
  if (!texts->is_array()) return;
  for (const json& one : *texts) {
    if (const auto* text = one.get_ptr<const std::string*>()) visit(*text);
  }
}

void AddAll(const json* patterns, RoomRight right, RoomRights* rights) {
  VisitTexts(patterns, [&](const std::string& pattern) { rights->Add(right, pattern); });
}

void AddRoles(const json* access, std::string_view prefix, RoomRights* rights) {
  if (access == nullptr) return;
  VisitTexts(Member(*access, "roles"), [&](std::string_view role) {
    if (!role.starts_with(prefix)) return;
    role.remove_prefix(prefix.size());
    for (const auto& [name, right] : {std::pair<std::string_view, RoomRight>{"write:", RoomRight::kWrite},
                                      std::pair<std::string_view, RoomRight>{"read:", RoomRight::kRead}}) {
      if (role.starts_with(name)) rights->Add(right, role.substr(name.size()));
    }
  });
}

}  // namespace

RoomRights ReadRoomRights(const json& claims, const RoomClaimOptions& options) {
  RoomRights rights;
  if (!options.claim.empty()) {
    if (const json* claim = Member(claims, options.claim); claim != nullptr && claim->is_object()) {
      AddAll(Member(*claim, "write"), RoomRight::kWrite, &rights);
      AddAll(Member(*claim, "read"), RoomRight::kRead, &rights);
    } else {
      AddAll(claim, RoomRight::kWrite, &rights);
    }
  }
  if (!options.role_prefix.empty()) {
    AddRoles(Member(claims, "realm_access"), options.role_prefix, &rights);
    if (const json* clients = Member(claims, "resource_access")) {
      for (const std::string& client : options.role_clients) {
        AddRoles(Member(*clients, client), options.role_prefix, &rights);
      }
    }
  }
  return rights;
}

}  // namespace presence
