// Who is at the other end of each socket of a shard, by address, and whether that address may have one more connection or ask once
// more. Joins the table that all shards share (AddressLimits) with whose word is taken about a client's address (TrustedProxies).
//
// A direct peer is counted from accept on: over its limit of connections, or when it keeps knocking after it was told 429, its socket is
// reset at once, before any TLS. Each accepted socket has paid for its first request. A trusted proxy's sockets are not counted; each of
// their requests is one of the address that the proxy names, and a request for a WebSocket is a connection of it until the socket closes.
// What a proxy asks for without naming anybody is its own: nothing but a WebSocket counts then.
// REST calls and handshakes count alike.
//
// Lives on the shard's thread. Does not do: answering, closing.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "common/time.h"
#include "edge/address_limits.h"
#include "edge/http.h"
#include "edge/peer_address.h"
#include "edge/shard_stats.h"
#include "edge/trusted_proxies.h"

namespace presence::edge {

class ClientAddresses {
 public:
  // All of them outlive it. `stats` gets the refusals counted.
  ClientAddresses(const TrustedProxies& proxies, AddressLimits& limits, ShardStats& stats)
      : proxies_(proxies), limits_(limits), stats_(stats) {}

  // False: hang up; no call about this socket follows.
  bool OnAccepted(uint32_t slot, const PeerAddress& peer, SteadyTime now);
  // The answer to a request that is one too many: 429 with Retry-After, and a direct peer's socket ends with it. nullopt: it is none.
  std::optional<HttpResponse> Refuse(uint32_t slot, const HttpRequest& request, SteadyTime now);
  void OnReleased(uint32_t slot, SteadyTime now);

  // The client's address, as far as it is known: of the last request, or the peer's.
  const PeerAddress& client(uint32_t slot) const { return sockets_[slot].client; }

 private:
  struct Socket {
    PeerAddress peer;
    PeerAddress client;
    bool proxy = false;    // the peer is a trusted one
    bool counted = false;  // `client` has one connection more by this socket
    bool paid = false;     // for a request that has not come yet
    bool over = false;     // that request is to be refused
  };

  std::optional<HttpResponse> RefuseProxied(Socket& socket, const HttpRequest& request, SteadyTime now);
  HttpResponse TooManyHandshakes(const Socket& socket);
  HttpResponse TooManyConnections(const Socket& socket);

  const TrustedProxies& proxies_;
  AddressLimits& limits_;
  ShardStats& stats_;
  std::vector<Socket> sockets_;  // by slot
};

}  // namespace presence::edge
