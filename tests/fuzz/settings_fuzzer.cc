// Texts of settings that name places: REDIS_URL, and hosts of which it must be known whether they are this one.
#include <string>

#include "common/network.h"
#include "core/redis_connection.h"
#include "tests/fuzz/fuzz_target.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using presence::core::ParseRedisUrl;
  const std::string text(reinterpret_cast<const char*>(data), size);
  if (const auto address = ParseRedisUrl(text); address.ok()) {
    PRESENCE_CHECK(address->host.empty() != address->unix_path.empty(), "either a host or a path");
    PRESENCE_CHECK(address->port != 0, "a port is one");
    const std::string shown = address->ToString();
    const bool plain = address->unix_path.empty() && address->host.find_first_of("@/[]%") == std::string::npos;
    if (plain) {
      const auto again = ParseRedisUrl(shown);
      PRESENCE_CHECK(again.ok() && again->host == address->host && again->port == address->port &&
                         again->database == address->database,
                     "what the log shows leads to the same place");
      PRESENCE_CHECK(again->user.empty() && again->password.empty(), "and has no password");
    }
  }
  const std::string_view host = presence::HostOfTarget(text);
  PRESENCE_CHECK(host.size() <= text.size(), "a host is a part of the target");
  if (presence::IsLoopback(text)) {
    PRESENCE_CHECK(text.find('\0') == std::string::npos || text.rfind("unix:", 0) == 0, "a name with NUL is nobody");
  }
  return 0;
}
