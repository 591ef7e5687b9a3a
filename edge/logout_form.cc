#include "edge/logout_form.h"

#include <algorithm>
#include <utility>

#include "edge/http.h"

namespace presence::edge {

std::string LogoutTokenOfForm(std::string_view form) {
  std::string token;
  bool found = false;
  while (!form.empty()) {
    const std::string_view pair = form.substr(0, form.find('&'));
    form.remove_prefix(std::min(pair.size() + 1, form.size()));
    const size_t equals = std::min(pair.find('='), pair.size());
    const auto name = PercentDecode(pair.substr(0, equals));
    if (!name.ok() || *name != "logout_token") continue;
    if (std::exchange(found, true)) return {};
    auto value = PercentDecode(pair.substr(std::min(equals + 1, pair.size())));
    if (!value.ok()) return {};
    token = *std::move(value);
  }
  return token;
}

}  // namespace presence::edge
