// What this core has published on the bus and not heard back, in order.
//
// Lives on the hub's thread. A message is delivered when it comes back, so that all cores see one order. When it does not
// come back, this core delivers it to its own edges, in the order of publication, and remembers how far: what loops back after
// that is dropped. Invariant: each message of this core is delivered here once, and they in the order of their sequences.
// Does not deliver.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "common/time.h"
#include "presence/link/v1/link.pb.h"

namespace presence::core {

class Publications {
 public:
  struct Limits {
    size_t publications_max = 0;
    size_t bytes_max = 0;
  };
  Publications(uint64_t core_incarnation, Limits limits) : core_(core_incarnation), limits_(limits) {}

  // No further publication may be added.
  bool Full() const {
    return waiting_.size() >= limits_.publications_max || unanswered_ >= limits_.publications_max ||
           bytes_ >= limits_.bytes_max;
  }

  // The same for what is volatile, which leaves half of the room to messages.
  bool FullForVolatile() const { return Full() || unanswered_ >= limits_.publications_max / 2; }

  // A message for the bus; the reference lives until the next call.
  const link::v1::BusEnvelope& AddMessage(SteadyTime now, uint64_t request, std::string_view room_id, std::string text);
  // The envelope of something volatile: nobody waits for it to come back.
  link::v1::BusEnvelope NewVolatile();

  // The store has answered: the request behind that sequence, if somebody waits for it.
  std::optional<uint64_t> TakeRequest(uint64_t sequence);

  // The oldest message that is not delivered; nullptr: none.
  const link::v1::BusEnvelope* Oldest() const { return waiting_.empty() ? nullptr : &waiting_.front().envelope; }
  SteadyTime OldestSince() const { return waiting_.front().since; }
  // It is delivered.
  void PopOldest();

  // Envelopes of this core up to this sequence are delivered.
  uint64_t delivered_through() const { return delivered_through_; }
  void DeliveredThrough(uint64_t sequence) { delivered_through_ = sequence; }

  size_t waiting() const { return waiting_.size(); }
  size_t unanswered() const { return unanswered_; }

 private:
  struct Message {
    link::v1::BusEnvelope envelope;
    SteadyTime since;
  };

  const uint64_t core_;
  const Limits limits_;
  std::deque<Message> waiting_;
  size_t bytes_ = 0;  // of the texts in waiting_
  uint64_t last_sequence_ = 0;
  uint64_t delivered_through_ = 0;
  size_t unanswered_ = 0;                             // by the store
  absl::flat_hash_map<uint64_t, uint64_t> requests_;  // by sequence; never iterated over
};

}  // namespace presence::core
