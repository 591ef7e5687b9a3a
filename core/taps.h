// Operators' live views of one user or one room (presence.admin.v1, Tap): which are wanted of this core, and what it has seen for them.
//
// Lives on the hub's thread. A tap belongs to a core, its origin, which asks all cores for it and repeats that every 2 s; one that is not
// repeated ends after 5 s. Taps are a tool for a few people at a time: while there is none, an event costs the look at any(); with some,
// one comparison of ids for each. Bounds, for a tap, past which events are counted and left out:
//   * events_per_second in a second, which begins with its first event;
//   * kBytesMax of events that wait for Take.
// So many were left out is told with the next event that is not, or else, when the second is over, by an event of TAP_KIND_UNSPECIFIED
// that says nothing else: nobody takes a silence for the truth. Deterministic: taps are in order of (origin, tap).
// What all cores hear (a message, typing, a change of presence) is told by each to its own taps alone, so that a tap is told of it once.
// Does not send, and does not know what an event means.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "absl/container/btree_map.h"
#include "absl/functional/function_ref.h"
#include "common/time.h"
#include "presence/link/v1/link.pb.h"

namespace presence::core {

class Taps {
 public:
  static constexpr std::chrono::seconds kLease{5};
  static constexpr size_t kBytesMax = 256 << 10;
  static constexpr size_t kDetailBytesMax = 1'024;

  Taps(uint64_t self, std::string core_name, size_t taps_max_per_origin, size_t events_per_second)
      : self_(self),
        core_name_(std::move(core_name)),
        taps_max_per_origin_(taps_max_per_origin),
        events_per_second_(events_per_second) {}

  // Whether Saw can have an effect: to be asked before anything is put together for it.
  bool any() const { return !taps_.empty(); }
  size_t size() const { return taps_.size(); }

  // Begins, prolongs or ends a tap of that core. False: it has too many already, or the order names nothing to look at; then it has no
  // effect. The target of a tap is that of its first order.
  bool OnOrder(Now now, uint64_t origin, const link::v1::TapOrder& order);
  // Ends the leases; what waits for those is dropped. Tells of what was left out.
  void OnTick(Now now);

  // Views live for the call. What does not apply is empty or 0.
  struct Subject {
    std::string_view user_id, room_id;         // a tap sees the event when one of them is its target, byte for byte
    uint64_t incarnation = 0, connection = 0;  // of a connection
    std::string_view detail{};                 // ends at kDetailBytesMax, or before the first byte that is not UTF-8
  };
  enum class Heard : uint8_t {
    kHere,        // of a connection of this core: for the taps of all
    kEverywhere,  // by the bus or from outside: for this core's own
  };
  void Saw(Now now, link::v1::TapKind kind, const Subject& subject, Heard heard);

  // What waits, tap by tap: at most kBytesMax each. The messages are `send`'s for the call.
  void Take(absl::FunctionRef<void(uint64_t origin, uint64_t tap, const link::v1::TapEvents& events)> send);

  // Since the start: events that some tap was told, and not told.
  uint64_t events() const { return events_; }
  uint64_t events_left_out() const { return events_left_out_; }

 private:
  struct Key {
    uint64_t origin = 0, tap = 0;
    friend auto operator<=>(const Key&, const Key&) = default;
  };
  struct Tap {
    std::string user_id, room_id;  // exactly one is not empty
    SteadyTime ends_at;
    SteadyTime second_ends_at;  // of the second that events_in_second is about
    size_t events_in_second = 0;
    uint32_t left_out = 0;  // since the last event
    size_t bytes = 0;       // of `waiting`
    link::v1::TapEvents waiting;
  };

  size_t CountOf(uint64_t origin) const;
  // The next event of the tap; null: it is left out.
  link::v1::TapEvent* Add(Now now, Tap& tap, size_t bytes);

  const uint64_t self_;  // the incarnation of this core
  const std::string core_name_;
  const size_t taps_max_per_origin_, events_per_second_;
  absl::btree_map<Key, Tap> taps_;
  uint64_t events_ = 0, events_left_out_ = 0;
};

}  // namespace presence::core
