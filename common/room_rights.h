// Who may be in which rooms, as a token says it: ids, or patterns in which `*` stands for any text, the empty one included.
//
// Plain values; RoomRightsTable lives on one thread. Invariants: a right to write is a right to read; what is said grants and never
// denies, so what is left out for a bound takes rights away and gives none. Does not know where rights come from (room_claims.h, a
// backend, Redis) and decides nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/node_hash_map.h"
#include "absl/strings/string_view.h"

namespace presence {

// Ordered: each includes those before it. kRead: to hear what is said in the room. kWrite: to type in it as well.
enum class RoomRight : uint8_t { kNone, kRead, kWrite };

// Byte for byte, in time that grows with the sum of both lengths and not with their product: clients choose room ids, and a pattern such as
// `*a*a*a*b` must not cost more than another one. An empty pattern matches nothing.
bool MatchesRoomPattern(std::string_view pattern, std::string_view room_id);

class RoomRights {
 public:
  // As in link.proto. A token has 8 KiB, so only one that is all patterns of a few bytes comes near.
  static constexpr size_t kPatternsMax = 256;
  static constexpr size_t kBytesMax = 16 * 1024;
  static constexpr size_t kPatternBytesMax = 2048;  // no room id is longer

  // False, and nothing is added: a bound is reached, or no room id can match.
  bool Add(RoomRight right, std::string_view pattern);

  // The highest that any pattern grants.
  RoomRight In(std::string_view room_id) const;

  bool empty() const { return write_.empty() && read_.empty(); }
  const std::vector<std::string>& write() const { return write_; }
  const std::vector<std::string>& read() const { return read_; }

  friend bool operator==(const RoomRights&, const RoomRights&) = default;
  template <typename H>
  friend H AbslHashValue(H h, const RoomRights& rights) {
    for (const auto* patterns : {&rights.write_, &rights.read_}) {
      for (const std::string& pattern : *patterns) h = H::combine(std::move(h), absl::string_view(pattern));
      h = H::combine(std::move(h), patterns->size());
    }
    return h;
  }

 private:
  std::vector<std::string> write_, read_;
  size_t bytes_ = 0;
};

// Rights that many connections have alike, each once. What grants nothing costs nothing: it is the null pointer.
class RoomRightsTable {
 public:
  RoomRightsTable() = default;
  RoomRightsTable(const RoomRightsTable&) = delete;
  RoomRightsTable& operator=(const RoomRightsTable&) = delete;

  // Each Hold wants one Release; the pointer is good until then.
  const RoomRights* Hold(const RoomRights& rights) {
    if (rights.empty()) return nullptr;
    auto& [held, holds] = *held_.try_emplace(rights, size_t{0}).first;
    ++holds;
    return &held;
  }
  void Release(const RoomRights* rights) {
    if (rights == nullptr) return;
    const auto found = held_.find(*rights);
    if (--found->second == 0) held_.erase(found);
  }
  size_t size() const { return held_.size(); }

 private:
  absl::node_hash_map<RoomRights, size_t> held_;
};

}  // namespace presence
