// What this core has published on the bus and not heard back, in order.
//
// Lives on the hub's thread. A message is delivered when it comes back, so that all cores see one order. When it does not
// come back, this core delivers it to its own edges, in the order of publication, and remembers how far: what loops back after
// that is dropped. Invariant: each message of this core is delivered here once, and they in the order of their sequences.
//
// Messages with a request_id are published *once*: they have no sequence, are delivered whenever they loop back, and never without:
// whether such a one was published may be unknown, and a repeat of it must not double it. Here they are only counted.
//
// Messages to rooms with a log are *logged*: they have no sequence either, the room's position says their order. They are known by
// their gather, which is the envelope's count_id. The log brings what the bus does not, so none is delivered without a position, but for
// this: the store says that it does not know, and the message has no request_id. Then it is delivered here, whoever has sent it is told that the store did not confirm it, and when the bus or the log brings it after all, it is known to be delivered.
//
// Does not deliver.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
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
    return waiting() >= limits_.publications_max || unanswered_ >= limits_.publications_max ||
           bytes_ >= limits_.bytes_max;
  }

  // The same for what is volatile, which leaves half of the room to messages.
  bool FullForVolatile() const { return Full() || unanswered_ >= limits_.publications_max / 2; }

  // A message for the bus, to a room or a user, without core and sequence, that was gathered for under `gather`. The reference
  // lives until the next call.
  const link::v1::BusEnvelope& AddMessage(SteadyTime now, uint64_t gather, link::v1::BusEnvelope message);
  // The envelope of something volatile, or of a request to all cores: nobody waits for it to come back. `gather`: for TakeGather;
  // 0: none.
  link::v1::BusEnvelope NewEnvelope(uint64_t gather);

  // The store has answered: the gather behind that sequence, if there is one.
  std::optional<uint64_t> TakeGather(uint64_t sequence);

  // A message that is published once, under its gather's id.
  void AddOnce(uint64_t gather, const link::v1::BusEnvelope& message);
  // The store has answered.
  void OnceAnswered(uint64_t gather);

  // A message for a room's log, with its core.
  enum class Logged : uint8_t {
    kOnce,      // it has a request_id
    kAnyNumber  // it is delivered here when the store does not confirm it
  };
  // The reference lives until the store has answered.
  const link::v1::BusEnvelope& AddLogged(uint64_t gather, link::v1::BusEnvelope message, Logged how);
  // The bus or the log has brought it.
  void LoggedCameBack(uint64_t gather);
  struct LoggedMessage {
    link::v1::BusEnvelope message;
    Logged how = Logged::kOnce;
    bool back = false;  // or delivered here
    bool IsToBeDelivered() const { return !back && how == Logged::kAnyNumber; }
  };
  // The store has answered.
  std::optional<LoggedMessage> LoggedAnswered(uint64_t gather);
  // It was delivered here; remembered for `memory`, which is longer than a log goes back.
  void DeliveredHere(SteadyTime now, uint64_t gather, std::chrono::seconds memory);
  bool WasDeliveredHere(uint64_t gather) const { return delivered_here_.contains(gather); }

  // The oldest message that is not delivered; nullptr: none.
  const link::v1::BusEnvelope* Oldest() const { return waiting_.empty() ? nullptr : &waiting_.front().envelope; }
  SteadyTime OldestSince() const { return waiting_.front().since; }
  // It is delivered.
  void PopOldest();

  // Envelopes of this core up to this sequence are delivered.
  uint64_t delivered_through() const { return delivered_through_; }
  void DeliveredThrough(uint64_t sequence) { delivered_through_ = sequence; }

  size_t waiting() const { return waiting_.size() + once_.size() + logged_.size(); }
  size_t unanswered() const { return unanswered_ + once_.size() + logged_.size(); }

 private:
  struct Message {
    link::v1::BusEnvelope envelope;
    SteadyTime since;
  };

  // Of the text and the ids: what is kept of it.
  static size_t BytesOf(const link::v1::BusEnvelope& message);

  const uint64_t core_;
  const Limits limits_;
  std::deque<Message> waiting_;
  size_t bytes_ = 0;  // of what is in waiting_, once_ and logged_
  uint64_t last_sequence_ = 0;
  uint64_t delivered_through_ = 0;
  size_t unanswered_ = 0;                            // by the store, without those in once_ and logged_
  absl::flat_hash_map<uint64_t, uint64_t> gathers_;  // by sequence; never iterated over
  absl::flat_hash_map<uint64_t, size_t> once_;       // bytes, by gather; never iterated over
  std::map<uint64_t, LoggedMessage> logged_;         // by gather, which counts up; not answered
  absl::flat_hash_set<uint64_t> delivered_here_;     // by gather; never iterated over
  std::deque<std::pair<SteadyTime, uint64_t>> delivered_here_until_;
};

}  // namespace presence::core
