// Who gets in: decides about each request for a WebSocket and each token that a client shows, and lets both wait for one fetch when the
// token's key is not known.
//
// One for each shard, on its thread. A decision that waited may find the socket gone or its slot reused: whoever is told checks the
// generation.
//
// Does not do: what a token means for a connection (shard.h), what one address may have (client_addresses.h), REST calls (rest.h).
#pragma once

#include <asio/io_context.hpp>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "absl/container/flat_hash_map.h"
#include "common/key_source.h"
#include "common/time.h"
#include "edge/client_addresses.h"
#include "edge/http.h"
#include "edge/shard.h"
#include "edge/shard_stats.h"
#include "edge/shard_thread.h"
#include "edge/socket_loop.h"

namespace presence::edge {

// For the shard; views into `identity`.
TokenFacts FactsOf(const Identity& identity);

class ShardDoor {
 public:
  // All of them outlive it. `clients` names addresses for the log; `ready`: whether the shard takes newcomers.
  struct Sources {
    EdgeContext& context;
    ShardStats& stats;
    const ClientAddresses& clients;
    asio::io_context& io;
    std::function<bool(Now)> ready;
  };
  // `waited`: it comes later than Judge. The facts of `check` die with the call.
  using Judged = std::function<void(Now now, const TokenCheck& check, bool waited)>;

  explicit ShardDoor(Sources sources) : sources_(std::move(sources)) {}

  // A request for kWebsocketPath: upgraded or answered, now or later. `sockets` outlives the loop's work.
  void DecideUpgrade(SocketLoop& sockets, SocketId socket, const HttpRequest& request) {
    DecideUpgrade(sockets, socket, request, /*may_wait_for_keys=*/true);
  }
  // The handshake of an upgraded socket is complete: whose it is, once; none: it is to be shown by the first message.
  std::optional<Identity> TakeAdmitted(SocketId socket);
  // The slot's socket is gone. So no generation is ever compared with one of long ago.
  void Forget(uint32_t slot) { admitted_.erase(slot); }

  // Mostly at once, so that what the client sends next finds the token judged.
  void Judge(const std::string& token, Judged judged) { Judge(token, std::move(judged), /*waited=*/false); }

  // KeySource::RequestRefresh, but with kWaiting `again` comes on this thread.
  RefreshAnswer AfterKeyRefresh(std::string_view kid, std::function<void()> again);

 private:
  struct Admitted {
    uint32_t generation = 0;
    std::optional<Identity> identity;
  };

  void DecideUpgrade(SocketLoop& sockets, SocketId socket, const HttpRequest& request, bool may_wait_for_keys);
  void Judge(const std::string& token, Judged judged, bool waited);
  void Await(SocketId socket, std::optional<Identity> identity);
  void CountRefusal(const Refuse* refuse);

  const Sources sources_;
  absl::flat_hash_map<uint32_t, Admitted> admitted_;  // by slot, between Upgrade and OnOpen
};

}  // namespace presence::edge
