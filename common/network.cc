#include "common/network.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <algorithm>
#include <string>

namespace presence {
namespace {

bool StartsWith(std::string_view text, std::string_view prefix) {
  return text.substr(0, prefix.size()) == prefix;
}

}  // namespace

bool IsLoopback(std::string_view host) {
  if (host.find('\0') != std::string_view::npos) return false;  // inet_pton would look at the front alone
  if (StartsWith(host, "unix:")) return true;
  if (host.size() >= 2 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  std::string name(host);
  std::transform(name.begin(), name.end(), name.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
  if (name == "localhost") return true;
  in_addr v4{};
  if (inet_pton(AF_INET, name.c_str(), &v4) == 1) return (ntohl(v4.s_addr) >> 24) == 127;
  in6_addr v6{};
  if (inet_pton(AF_INET6, name.c_str(), &v6) != 1) return false;
  return IN6_IS_ADDR_LOOPBACK(&v6) || (IN6_IS_ADDR_V4MAPPED(&v6) && v6.s6_addr[12] == 127);
}

std::string_view HostOfTarget(std::string_view target) {
  if (StartsWith(target, "unix:")) return target;
  for (const std::string_view scheme : {"dns:", "ipv4:", "ipv6:"}) {
    if (!StartsWith(target, scheme)) continue;
    target.remove_prefix(scheme.size());
    if (StartsWith(target, "//")) {  // an authority, mostly empty, and then the name
      const size_t end = target.find('/', 2);
      target.remove_prefix(end == std::string_view::npos ? 2 : end + 1);
    }
    break;
  }
  if (!target.empty() && target.front() == '[') {
    const size_t end = target.find(']');
    return end == std::string_view::npos ? target : target.substr(1, end - 1);
  }
  const size_t colon = target.rfind(':');
  if (colon == std::string_view::npos || target.find(':') != colon) return target;  // no port, or a bare IPv6 address
  return target.substr(0, colon);
}

}  // namespace presence
