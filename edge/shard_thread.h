// One shard at work: a thread with an Asio loop that joins the sockets, the pure shard machine, the link to a core, the gate
// and REST. All wiring between them is here; each of them knows none of the others.
//
// Everything inside lives on the shard's thread. From outside: Start, BeginDrain, Stop and Join, by main's thread; SendAway and
// stats by any. What all shards share is in EdgeContext: immutable, or thread-safe by itself.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/key_source.h"
#include "common/logout_token.h"
#include "common/metrics.h"
#include "edge/address_limits.h"
#include "edge/config.h"
#include "edge/core_link.h"
#include "edge/gate.h"
#include "edge/shard_stats.h"
#include "edge/socket_loop.h"
#include "edge/trusted_proxies.h"

namespace presence::edge {

struct EdgeContext {
  Config config;
  uint64_t incarnation = 0;  // random, of this process
  Gate gate;
  LogoutTokenVerifier logout_tokens;
  KeySource& keys;
  TrustedProxies proxies;
  AddressLimits addresses;                         // of all shards
  std::vector<std::unique_ptr<ShardStats>> stats;  // one for each shard
  MetricsPage metrics;
  LinkCredentials link;
  std::shared_ptr<TlsFiles> service_tls = nullptr;  // for clients; null: they speak plainly
  std::string version;                              // of the program, for operators
  int64_t started_ms = 0;                           // of the process, since the Unix epoch, for operators
  std::atomic<bool> draining{false};                // by a signal or by DrainEdge: no newcomers, /health says 503
  // Sends the clients of all shards away over this time; a second call, and one while the process ends, changes nothing. For the
  // shards' threads, once they are started.
  std::function<void(std::chrono::milliseconds window)> drain_edge = {};
};

class ShardThread {
 public:
  // Listens at once: UNAVAILABLE when the port cannot be had. `port` 0 is for the first shard of a test; the others then take
  // what it got. The context must outlive the thread.
  static absl::StatusOr<std::unique_ptr<ShardThread>> Create(EdgeContext& context, uint32_t shard, uint16_t port);
  virtual ~ShardThread() = default;

  virtual uint16_t port() const = 0;
  virtual const SocketLoopCounters& socket_counters() const = 0;

  virtual void Start() = 0;
  // Clients are sent to another edge, spread over `window`, and whoever still gets in at once; the shard stays. Nothing
  // happens after BeginDrain.
  virtual void SendAway(std::chrono::milliseconds window) = 0;
  // The same, faster or slower than before, and then the end; `done` is called on the shard's thread when every
  // client is gone and the core has confirmed it, or after `deadline`.
  virtual void BeginDrain(std::chrono::milliseconds window, std::chrono::milliseconds deadline,
                          std::function<void()> done) = 0;
  // Ends the loop and the thread.
  virtual void Stop() = 0;
};

}  // namespace presence::edge
