// Whose word about the client's address is taken (TRUSTED_PROXIES), and what that word is.
//
// Only X-Forwarded-For is read, the one header that every proxy knows and appends to; `Forwarded`, `X-Real-IP` and others are not: a
// proxy that does not know a header passes on what a client has put there. Immutable; thread-safe.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "edge/peer_address.h"

namespace presence::edge {

class TrustedProxies {
 public:
  TrustedProxies() = default;  // nobody

  // Addresses and networks: "10.0.0.7", "10.0.0.0/8", "2001:db8::/32". INVALID_ARGUMENT names the first item that is neither, or has
  // bits set behind its prefix.
  static absl::StatusOr<TrustedProxies> Parse(std::span<const std::string> items);

  bool Contains(const PeerAddress& address) const;

  struct Client {
    PeerAddress address;
    // A trusted proxy that speaks for nobody, as in its health checks: no limit of an address holds for it, unless it opens a WebSocket.
    bool exempt = false;
    // X-Forwarded-For could not be read as far as was needed; then the address is the peer's, and is not exempt.
    bool malformed = false;
  };
  // Who is behind `peer`. `forwarded_for`: the items of all X-Forwarded-For lines in order, trimmed. From the right, the first one
  // that is no trusted proxy: what stands left of it may be the client's invention. All are trusted: the leftmost one.
  Client ClientOf(const PeerAddress& peer, std::span<const std::string_view> forwarded_for) const;

 private:
  struct Network {
    PeerAddress prefix;
    int bits = 128;
  };
  std::vector<Network> networks_;
};

}  // namespace presence::edge
