// Where something stands in the log of a room, and what follows what.
//
// An *epoch* is a time without a loss: messages of one epoch are numbered from 1, without holes. It is named by the microsecond of Redis'
// clock in which it began, and a new one begins when Redis knows nothing of the room, or is another run (a restart, a failover), which
// may have lost what it had acknowledged last. The first message of an epoch says what was before it: the last position of the epoch
// before, or, with the sequence 0, since when Redis has kept its data (presence.rooms) while it knew of no messages in the room.
//
// Whether another run has lost anything nobody can tell by what it has. But somebody has *seen* what is lost: the core that acknowledged it,
// or whoever it was delivered to. Each reader says how far the room has been seen; a position behind what Redis has kept of it is the proof,
// and the log goes on with a note instead of a message (link.v1.RoomLost), in an epoch that has nothing before it. So every reader and every
// later message is behind that note, whoever was there before it is told of a gap, once, and the same is not proven again.
//
// Pure. Used by the hub, which decides who has had what, and by the stores.
#pragma once

#include <chrono>
#include <cstdint>
#include <utility>

#include "presence/link/v1/link.pb.h"

namespace presence::core {

struct RoomPosition {
  uint64_t epoch = 0;     // 0: not known
  uint64_t sequence = 0;  // of the last message; 0: at the moment `epoch` there was none

  bool known() const { return epoch != 0; }
  friend bool operator==(const RoomPosition&, const RoomPosition&) = default;
};

// So long after its last message Redis forgets where a room was. Longer than any interruption that is to be noticed.
inline constexpr std::chrono::hours kRoomMemory{1};
inline constexpr uint64_t kRoomMemoryMicros = std::chrono::microseconds(kRoomMemory).count();

inline RoomPosition PositionOf(const link::v1::BusEnvelope& envelope) {
  return {envelope.room_epoch(), envelope.room_sequence()};
}

inline RoomPosition PreviousOf(const link::v1::BusEnvelope& envelope) {
  if (envelope.room_sequence() > 1) return {envelope.room_epoch(), envelope.room_sequence() - 1};
  return {envelope.room_previous_epoch(), envelope.room_previous_sequence()};
}

// Whether whoever is at `reader` is in front of `other` in the log. One who has seen no message is in front of all.
inline bool IsBefore(RoomPosition reader, RoomPosition other) {
  const auto rank = [](RoomPosition position) {
    return std::pair(position.sequence == 0 ? 0 : position.epoch, position.sequence);
  };
  return rank(reader) < rank(other);
}

// Whether whoever is at `reader` has missed nothing when the next thing is in `epoch` and `previous` was before it.
inline bool Follows(RoomPosition reader, uint64_t epoch, RoomPosition previous) {
  if (previous.sequence != 0) return reader == previous;
  if (reader.epoch < previous.epoch) return false;  // Redis has been emptied since
  // Nothing was known of the room: right for who has seen nothing, or nothing for so long that it was forgotten.
  return reader.sequence == 0 || reader.epoch + kRoomMemoryMicros <= epoch;
}

inline bool Follows(RoomPosition reader, const link::v1::BusEnvelope& envelope) {
  return Follows(reader, envelope.room_epoch(), PreviousOf(envelope));
}

// Where the log of a room stands in Redis, and what was before its epoch. Of a room of which nothing is known: this moment, with the sequence
// 0, and since when Redis has kept its data.
struct RoomExtent {
  RoomPosition current, previous;
};

// Whether Redis has lost something, given that somebody has seen the room at `seen`. Of what was before `previous` nothing is known, and what
// is said to be more than kRoomMemory ahead of Redis' clock nobody has seen.
inline bool IsLost(RoomPosition seen, RoomExtent kept, uint64_t now_us) {
  if (seen.sequence == 0 || seen.epoch > now_us + kRoomMemoryMicros) return false;
  if (kept.current.sequence != 0 && seen.epoch >= kept.current.epoch) return IsBefore(kept.current, seen);
  if (kept.previous.sequence != 0) return IsBefore(kept.previous, seen);
  return seen.epoch >= kept.previous.epoch && seen.epoch + kRoomMemoryMicros > kept.current.epoch;
}

}  // namespace presence::core
