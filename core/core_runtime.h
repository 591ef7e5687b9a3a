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
#include <vector>

#include "absl/status/status.h"
#include "core/core_metrics.h"
#include "core/hub.h"
#include "core/link_stream.h"
#include "core/loop_links.h"
#include "core/room_authorizer.h"
#include "core/store.h"
#include "core/watches.h"
#include "presence/link/v1/link.pb.h"

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

// For RoomAuth::kAsked: likewise; nothing is told to the listener before Start.
using RoomAuthorizerFactory =
    std::function<std::unique_ptr<RoomAuthorizer>(asio::io_context& io, RoomRightListener& listener)>;

struct CoreRuntimeOptions {
  HubOptions hub;
  std::chrono::milliseconds tick{100};
  LinkLimits links;
  WatchOptions watches;
  // Called on the loop thread when the store came up or went away.
  std::function<void(bool up)> on_store_changed = [](bool) {};
  // Called on the loop thread when an operator has begun to drain this core: it is not ready any more.
  std::function<void()> on_draining = [] {};
  RoomAuthorizerFactory make_room_authorizer{};  // empty: there is none
};

// What lives on the loop thread.
struct LoopParts {
  Now now;
  Store& store;
};

// A message for Send: as MessageRequest, owned.
struct OutgoingMessage {
  std::string room_id, user_id;  // exactly one is not empty
  std::string data_json;         // a valid JSON object
  std::vector<std::string> excluded_user_ids;
  std::string request_id, fingerprint;  // both empty: no idempotency key
  // Asked when its turn comes: true, and it is not sent but answered with CANCELLED. Empty: never.
  std::function<bool()> given_up{};
};

using MessageDone = std::function<void(const absl::Status&, const MessageAnswer&)>;
using AskDone = std::function<void(const absl::Status&, std::vector<link::v1::ClusterReply>)>;

class TapSink {
 public:
  virtual ~TapSink() = default;
  virtual void OnTapped(const link::v1::TapEvents& events) = 0;
  virtual void OnTapRefused(const absl::Status& why) = 0;
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

  // Runs `work` on the loop thread. References are good for the call alone.
  void OnLoop(std::function<void(LoopParts&)> work);

  // On the loop thread only: from inside OnLoop's work, or when called back there.
  Watches& watches();

  // A number for Ask or a tap: never used twice, below 2^63.
  uint64_t NextRequest() { return next_request_.fetch_add(1, std::memory_order_relaxed); }

  // Each `done` is called once, on the loop thread: see Hub's On...Requested for the errors.
  void Send(OutgoingMessage message, MessageDone done);
  void SetTyping(link::v1::RoomTyping typing, std::function<void(const absl::Status&)> done);
  // Asks all cores. `body` without origin and id.
  void Ask(uint64_t request, link::v1::ClusterRequest body, AskDone done);
  // Nobody waits for it any more: answered with CANCELLED at once, if it is not yet. Of an unknown request: nothing.
  void GiveUp(uint64_t request);

  // What happens to one user or in one room. `sink` gets OnTapped, or OnTapRefused instead or when the core stops, on the loop
  // thread, until CloseTap was carried out; it is held until then.
  void OpenTap(uint64_t tap, link::v1::TapOrder target, std::shared_ptr<TapSink> sink);
  void CloseTap(uint64_t tap);

  const CoreMetrics& metrics() const;

 private:
  class Loop;

  std::atomic<uint64_t> next_link_{1};
  std::atomic<uint64_t> next_request_{1};
  std::unique_ptr<Loop> loop_;
};

}  // namespace presence::core
