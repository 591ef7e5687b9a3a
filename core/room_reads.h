// Which rooms' logs are to be read, and which reads are under way: a queue with bounds, so that neither Redis nor a link is flooded when
// thousands of rooms have missed something at once.
//
// Lives on the hub's thread. Invariants: a room is in the queue at most once, and has at most one read under way that hands on messages; at
// most kAtOnce of those are. What is handed on in a tick is bounded by kBytesPerTick, and a read under way counts as a full page of 256 KiB
// until it is there. A page may exceed that by its last message, of 1 MiB at most. Reads of a floor bring no messages and are not counted.
// Does not read, and does not know who wants it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "absl/container/flat_hash_set.h"
#include "core/room_position.h"

namespace presence::core {

class RoomReads {
 public:
  static constexpr size_t kAtOnce = 8;
  static constexpr size_t kEntries = 256;
  static constexpr size_t kBytesPerTick = size_t{2} << 20;

  struct Read {
    std::string room_id;
    RoomPosition from{};
    RoomPosition seen{}, doubted{};  // as in RoomLogQuery
    RoomPosition heard{};            // of the room, when the read began
    uint64_t born = 0;               // of the room, as in RoomTable; of a floor: 0
    bool floor = false;              // for joins; nobody else gets anything of it
    bool brings = false;             // messages, from `from` on; else only where the log stands
  };

  // The room is read when its turn comes, however often it is asked for until then; if a read is under way, once more after it.
  void Want(std::string_view room_id);
  // The next room whose turn it is, taken out of the queue; Begin is expected for it, unless nobody wants it any more.
  std::optional<std::string> Next();
  uint64_t Begin(Read read);  // the id
  // Nothing: of an id that was not begun, or has ended.
  std::optional<Read> End(uint64_t id);
  // So many bytes of messages were handed to links.
  void Spent(size_t bytes) { spent_ += bytes; }
  // The room is wanted at the next tick: a link that is to get it is full.
  void Later(std::string_view room_id) { later_.insert(std::string(room_id)); }
  void OnTick();
  // Nobody is to be read, and what is under way has ended: whatever it still brings is older than what was missed meanwhile.
  void Forget();

  size_t size() const { return queue_.size() + under_way_.size() + later_.size(); }

 private:
  uint64_t last_id_ = 0;
  size_t spent_ = 0;
  std::deque<std::string> queue_;
  absl::flat_hash_set<std::string> queued_;  // what is in queue_; never iterated over
  std::map<uint64_t, Read> under_way_;
  absl::flat_hash_set<std::string> reading_;  // rooms under way, without floors; never iterated over
  absl::flat_hash_set<std::string> again_;    // of those; never iterated over
  std::set<std::string> later_;
};

}  // namespace presence::core
