// What an address says about where it leads, without asking anybody. Pure functions; thread-safe.
#pragma once

#include <string_view>

namespace presence {

// True when only processes of this host can be at the other end: 127.0.0.0/8, ::1 (with or without brackets, and
// 127.0.0.0/8 mapped into IPv6), "localhost", "unix:...". Everything else is false, also what would resolve to such
// an address: a name may mean something else tomorrow.
bool IsLoopback(std::string_view host);

// The host of "host:port", "[v6]:port", "dns:///host:port", "ipv4:host:port" and "ipv6:[v6]:port", the targets gRPC
// takes; "unix:..." as it is.
std::string_view HostOfTarget(std::string_view target);

}  // namespace presence
