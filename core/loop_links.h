// The links of a core as its loop has them: what comes in goes to the hub, what the hub says gathers and goes out.
//
// Lives on the loop thread. Invariants:
//   * each stream has at most one write in flight, and is finished exactly once;
//   * the hub hears of a link's end exactly once, from either side;
//   * the hub is never called from inside a call of its own (AddCommand, CloseLink only note).
//
// Does not do: gRPC (it knows streams by LinkStream), decisions (the hub's), time (ticks come from the loop).
#pragma once

#include <chrono>
#include <cstddef>
#include <deque>
#include <memory>
#include <optional>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "common/time.h"
#include "core/core_metrics.h"
#include "core/frame_gatherer.h"
#include "core/hub.h"
#include "core/link_mailbox.h"
#include "core/link_stream.h"

namespace presence::core {

struct LinkLimits {
  size_t frame_bytes_max = 256 * 1024;
  // What may wait for a slow shard: 64 full frames, about a second of a busy core. Over it the link is dropped.
  size_t backlog_bytes_max = 16 * 1024 * 1024;
  size_t links_max = 4096;  // as many as there are shard numbers of one edge; a bound, not a plan
  // How long a stream that is ended may take to pass on what was gathered for it and its status.
  std::chrono::milliseconds finish_max{1000};
};

// The time of a turn of the loop: everything that enters the hub reads it here.
class TurnClock {
 public:
  Now Read() {
    const Now now = ReadClocks();
    if (!began_) began_ = now.steady;
    return now;
  }
  void Forget() { began_.reset(); }
  // When the turn did something first; nothing: it did nothing.
  std::optional<SteadyTime> began() const { return began_; }

 private:
  std::optional<SteadyTime> began_;
};

class LoopLinks final {
 public:
  // All must outlive it; the hub may be constructed later, before the first call.
  LoopLinks(LinkLimits limits, Hub& hub, TurnClock& clock, CoreMetrics& metrics)
      : limits_(limits), hub_(hub), clock_(clock), metrics_(metrics) {}

  void Open(const std::shared_ptr<LinkStream>& stream);
  void Visit(LinkStream& stream);

  // --- HubOutput
  link::v1::CoreCommand& AddCommand(LinkId id);
  size_t backlog_bytes(LinkId id) const;  // of that link, now; without the command that AddCommand has given out last
  void CloseLink(LinkId id, const absl::Status& why);

  // --- the turn's end
  // Completes what AddCommand has given out. False when links went over their bound and were dropped, of which the hub was told:
  // it may have said more.
  bool Complete();
  void Flush();

  void OnTick(SteadyTime now);
  // No link is accepted any more; those that are open end with `why`, spread over the window.
  void Drain(std::chrono::milliseconds window, const absl::Status& why);

  size_t size() const { return links_.size(); }
  bool empty() const { return links_.empty(); }
  bool draining() const { return refusal_.has_value(); }
  size_t backlog_bytes() const { return backlog_bytes_; }

 private:
  struct Link {
    Link(std::shared_ptr<LinkStream> its_stream, size_t frame_bytes_max)
        : stream(std::move(its_stream)), gathered(frame_bytes_max) {}

    std::shared_ptr<LinkStream> stream;
    FrameGatherer gathered;
    bool write_in_flight = false;
    bool commanded = false;        // it was sent something
    bool waits_for_flush = false;  // is in to_flush_
    bool hub_knows = true;         // the hub takes it for open
    // How it ends, once that is decided: what is gathered goes first, but not after the deadline.
    std::optional<absl::Status> ending;
    SteadyTime ending_deadline;
  };

  // A finished stream that may still be held up by a peer that does not read.
  struct Lingering {
    std::shared_ptr<LinkStream> stream;
    absl::Status why;
    SteadyTime abort_at;
  };

  Link* Find(LinkId id);
  void PeerEnded(Link& link, const absl::Status& why);
  void FlushLater(Link& link);
  void Flush(Link& link);
  void EndAfterFlush(Link& link, absl::Status why);
  void Finish(const std::shared_ptr<LinkStream>& stream, const absl::Status& why);
  void FinishNow(Link& link, const absl::Status& why);
  void CompleteCommand();
  bool OverBound(const Link& link) const { return link.gathered.bytes() > limits_.backlog_bytes_max; }
  void EndDrained(SteadyTime now);

  const LinkLimits limits_;
  Hub& hub_;
  TurnClock& clock_;
  CoreMetrics& metrics_;

  absl::flat_hash_map<uint64_t, std::unique_ptr<Link>> links_;
  std::deque<Lingering> lingering_;  // by abort_at
  std::vector<LinkId> to_flush_;
  std::vector<LinkId> over_bound_;
  LinkMailbox::Contents visited_;  // kept for its frames, which go back to a mailbox
  size_t backlog_bytes_ = 0;       // at the last tick

  link::v1::CoreCommand command_;  // the one that AddCommand has given out
  Link* command_link_ = nullptr;   // for this link; null: nobody's

  std::optional<absl::Status> refusal_;  // while draining: why
  SteadyTime drain_began_;
  std::chrono::milliseconds drain_window_{0};
  std::deque<LinkId> to_drain_;  // in order of their ids
  size_t drained_of_ = 0;        // how many there were
};

}  // namespace presence::core
