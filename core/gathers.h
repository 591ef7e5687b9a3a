// What this core has asked all cores, and who has not answered yet: the counts of messages, and requests to the cluster.
//
// Lives on the hub's thread. A gather awaits the cores that were live when it began, this one included; a core that leaves the
// registry meanwhile is awaited no longer, except for an order to connections (needs_all). An answer counts once for each core, and only
// until the gather is finished: what comes later is dropped, and the caller of Count and Answer is told so. Finished gathers are handed
// out by TakeFinished, in the order in which they finished. Bounded by `gathers_max`, which the caller keeps by Full(). Does not publish
// and answers nobody itself.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/container/flat_hash_map.h"
#include "absl/container/inlined_vector.h"
#include "absl/types/span.h"
#include "common/time.h"
#include "presence/link/v1/link.pb.h"

namespace presence::core {

struct Gather {
  enum class Kind : uint8_t { kMessage, kRequest };
  enum class End : uint8_t {
    kOpen,
    kComplete,     // everybody has answered
    kTimedOut,     // not everybody has, in time
    kUnpublished,  // the store could not publish it
    kCancelled,    // nobody waits for it any more
  };

  Kind kind = Kind::kMessage;
  End end = End::kOpen;
  bool published = false;  // the store has said so; a message is not finished before
  uint64_t id = 0;
  uint64_t request = 0;  // the API's
  SteadyTime deadline;   // past it, it is over: at it, this core still delivers what has not come back
  absl::InlinedVector<uint64_t, 4> awaited;  // cores
  // Of a message.
  uint32_t reached = 0;
  std::string request_id;
  // Of a request.
  std::vector<link::v1::ClusterReply> replies;
  std::unique_ptr<link::v1::ClusterRequest> query;  // what this core can answer without the others; null: an order
  // An order to connections. The shards of a core that goes away meanwhile come back to another one, which may have answered already:
  // without that core's word the order is not known to be carried out, and the caller must repeat it.
  bool needs_all = false;
};

class Gathers {
 public:
  Gathers(uint64_t self, size_t gathers_max) : self_(self), gathers_max_(gathers_max), cores_{self} {}

  // --- the registry. Ascending; this core is always in it. A core that has left is asked for orders for kBetweenCores more: its
  // shards are on their way to another one, and nobody else can say that they have no such connection.
  void SetCores(absl::Span<const uint64_t> cores);
  // A core has said something: it is live before the registry tells.
  void Heard(uint64_t core);
  absl::Span<const uint64_t> cores() const { return cores_; }

  // --- beginnings
  bool Full() const { return open_.size() >= gathers_max_; }
  // Ids count up; also for what is asked of all cores and not gathered.
  uint64_t NextId() { return ++last_id_; }
  // With id, kind, request and deadline. REQUIRES: not Full(); the id is NextId's and used once.
  void Begin(Gather&& gather);

  // --- what happens to them. Nothing for one that is finished or was never begun.
  // False: too late.
  bool Count(uint64_t id, uint64_t core, uint32_t count);
  bool Answer(link::v1::ClusterReply&& reply);
  bool Answer(const link::v1::ClusterReply& reply);  // copies it only if somebody waits for it
  void Published(uint64_t id);
  void NotPublished(uint64_t id);
  void Cancel(uint64_t request);
  void OnTick(SteadyTime now);
  // Ends without being handed out: it is answered otherwise.
  std::optional<Gather> Take(uint64_t id);

  // Answers in the order of the cores.
  std::optional<Gather> TakeFinished();

  size_t size() const { return open_.size(); }

 private:
  // An edge whose link has ended redials within 0.1 s and has declared its connections in some tenths more.
  static constexpr std::chrono::seconds kBetweenCores{1};

  using Open = absl::btree_map<uint64_t, Gather>;  // by id
  struct Left {
    uint64_t core = 0;
    SteadyTime until;
  };

  // The core is awaited no longer. False: it was not awaited.
  static bool StrikeOut(Gather& gather, uint64_t core);
  void FinishIfComplete(Open::iterator gather);
  Open::iterator Finish(Open::iterator gather, Gather::End end);

  const uint64_t self_;
  const size_t gathers_max_;
  std::vector<uint64_t> cores_;
  std::deque<Left> left_;  // by until
  SteadyTime now_;         // of the last tick
  uint64_t last_id_ = 0;
  Open open_;
  absl::flat_hash_map<uint64_t, uint64_t> by_request_;  // of Kind::kRequest; never iterated over
  std::deque<Gather> finished_;
};

}  // namespace presence::core
