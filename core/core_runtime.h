// The loop thread: one Asio loop on which the hub, the store and the timers live, and to which everybody else only posts.
//
//   gRPC's threads ──mailboxes, posts──▶ loop: hub.On...() ──▶ store, gathered frames
//                                        end of turn: pending answers, links over their bound, one write per link
//
// A turn is what is ready on the loop, up to kHandlersPerTurn. At its end what was gathered for a link goes out in one frame,
// unless a write of that link is in flight: then the next frame gathers meanwhile. Under load batches grow by themselves, an idle system
// waits for nothing.
//
// Invariants:
//   * the hub, the store and LinkStream's calls are touched by the loop thread alone (after Start);
//   * each stream has at most one write in flight, and is finished exactly once;
//   * the hub hears of a link's end exactly once, from either side.
//
// Does not do: gRPC (it knows streams by LinkStream), decisions (the hub's).
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "core/core_metrics.h"
#include "core/hub.h"
#include "core/link_stream.h"
#include "core/store.h"

namespace asio {
class io_context;
}

namespace presence::core {

// A store and, for one that is not driven by the loop itself, what makes it hand out its answers: called at the end of each turn
// until it returns false.
struct HostedStore {
  std::function<bool()> run_pending;  // may own what the store needs: it is destroyed after the store
  std::unique_ptr<Store> store;
};
// Called by the runtime's constructor; nothing is told to the listener before Start.
using StoreFactory = std::function<HostedStore(asio::io_context& io, StoreListener& listener)>;

struct CoreRuntimeOptions {
  HubOptions hub;
  std::chrono::milliseconds tick{100};
  size_t frame_bytes_max = 256 * 1024;
  // What may wait for a slow shard: 64 full frames, about a second of a busy core. Over it the link is dropped.
  size_t link_backlog_bytes_max = 16 * 1024 * 1024;
  size_t links_max = 4096;  // as many as there are shard numbers of one edge; a bound, not a plan
  // How long a stream that is ended may take to pass on what was gathered for it and its status.
  std::chrono::milliseconds finish_max{1000};
  // Called on the loop thread when the store came up or went away.
  std::function<void(bool up)> on_store_changed = [](bool) {};
};

class CoreRuntime final {
 public:
  CoreRuntime(CoreRuntimeOptions options, const StoreFactory& make_store);
  // Stops. Every stream must have been finished and every answer given by then: shut the servers down before.
  ~CoreRuntime();
  CoreRuntime(const CoreRuntime&) = delete;
  CoreRuntime& operator=(const CoreRuntime&) = delete;

  // From the owner's thread, once each.
  void Start();
  // Ends all links with UNAVAILABLE "core is stopping", accepts no further one, and waits until the hub is idle or
  // the time is up. True: nothing that was accepted is lost. Answers go on being given.
  bool Drain(std::chrono::milliseconds timeout);
  void Stop();

  // --- from any thread, also before Start.

  // For the constructor of a LinkStream.
  LinkId NextLinkId() { return LinkId(next_link_.fetch_add(1, std::memory_order_relaxed)); }
  // A new stream. Its Finish will be called in any case.
  void OpenLink(std::shared_ptr<LinkStream> stream);
  // Its mailbox has something: when a call of the mailbox said so.
  void VisitLink(std::shared_ptr<LinkStream> stream);

  // Runs `read` on the loop thread, with the store.
  void WithStore(std::function<void(Store&)> read);
  // `done` is called once, on the loop thread: see Hub::OnBroadcastRequested. `data_json` is a valid JSON object.
  void Broadcast(std::string room_id, std::string data_json, std::function<void(const absl::Status&)> done);

  const CoreMetrics& metrics() const;

 private:
  class Loop;

  std::atomic<uint64_t> next_link_{1};
  std::unique_ptr<Loop> loop_;
};

}  // namespace presence::core
