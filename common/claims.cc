#include "common/claims.h"

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>

namespace presence {
namespace {

using nlohmann::json;

constexpr double kNumericDateMax = 7258118400;  // the year 2200; WallTime ends in 2262

bool OneOf(const std::vector<std::string>& accepted, const json& value) {
  const auto* text = value.get_ptr<const std::string*>();
  return text != nullptr && std::find(accepted.begin(), accepted.end(), *text) != accepted.end();
}

// {"roles": ["a", "b"]}, or whatever else there may be.
bool ListsRole(const json& access, const std::string& role) {
  if (!access.is_object()) return false;
  const auto roles = access.find("roles");
  if (roles == access.end() || !roles->is_array()) return false;
  return std::any_of(roles->begin(), roles->end(), [&](const json& one) {
    const auto* name = one.get_ptr<const std::string*>();
    return name != nullptr && *name == role;
  });
}

}  // namespace

DateClaim ReadDate(const json& claims, const char* claim, WallTime* date) {
  const auto it = claims.find(claim);
  if (it == claims.end()) return DateClaim::kAbsent;
  if (!it->is_number()) return DateClaim::kMalformed;
  const double seconds = it->get<double>();
  if (!(seconds >= 0 && seconds <= kNumericDateMax)) return DateClaim::kMalformed;
  *date = WallTime(std::chrono::seconds(static_cast<int64_t>(seconds)));
  return DateClaim::kPresent;
}

bool StringIn(const json& claims, const char* claim, const std::vector<std::string>& accepted) {
  const auto it = claims.find(claim);
  return it != claims.end() && OneOf(accepted, *it);
}

bool AudienceIn(const json& claims, const std::vector<std::string>& accepted) {
  const auto audience = claims.find("aud");
  if (audience == claims.end()) return false;
  if (!audience->is_array()) return OneOf(accepted, *audience);
  return std::any_of(audience->begin(), audience->end(), [&](const json& one) { return OneOf(accepted, one); });
}

bool ReadName(const json& claims, const char* claim, std::string* name) {
  const auto it = claims.find(claim);
  if (it == claims.end()) return false;
  const auto* text = it->get_ptr<const std::string*>();
  // That it is UTF-8 the JSON parser has seen to.
  if (text == nullptr || text->empty() || text->size() > kNameClaimBytesMax || text->find('\0') != std::string::npos) {
    return false;
  }
  *name = *text;
  return true;
}

std::vector<std::string> ReadRoles(const json& claims, const std::vector<std::string>& wanted,
                                   const std::vector<std::string>& clients) {
  std::vector<std::string> granted;
  if (wanted.empty()) return granted;
  std::vector<const json*> lists;
  if (const auto realm = claims.find("realm_access"); realm != claims.end()) lists.push_back(&*realm);
  if (const auto accesses = claims.find("resource_access"); accesses != claims.end() && accesses->is_object()) {
    for (const std::string& name : clients) {
      if (const auto client = accesses->find(name); client != accesses->end()) lists.push_back(&*client);
    }
  }
  for (const std::string& role : wanted) {
    const auto grants = [&role](const json* list) { return ListsRole(*list, role); };
    if (std::any_of(lists.begin(), lists.end(), grants)) granted.push_back(role);
  }
  return granted;
}

}  // namespace presence
