// What one link, or the whole hub, has missed of presence: owed, then read from the change log, then told page by page.
//
// Lives on the hub's thread. A log may be long (80,000 online users are some 20 MB of commands), so it waits here and goes out in
// pages. Meanwhile the bus brings newer changes to every link, and an older status must not follow a newer one: whatever is
// delivered to all is looked up here and struck out. Therefore the log is held in the order of user ids.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "core/store.h"

namespace presence::core {

class MissedChanges {
 public:
  uint64_t since = 0;  // version from which on, until all is told; 0: nothing is owed
  uint64_t read = 0;   // id of the ReadChanges under way; 0: none
  size_t told = 0;     // changes taken since the last tick

  // The log has been read, and these are to be told.
  void Found(std::vector<StoredChange> changes) {
    changes_ = std::move(changes);
    next_ = 0;
    const auto by_user = [](const StoredChange& a, const StoredChange& b) {
      return a.presence.user_id < b.presence.user_id;
    };
    // A log of everybody comes in this order already, and only that one is long.
    if (!std::is_sorted(changes_.begin(), changes_.end(), by_user))
      std::sort(changes_.begin(), changes_.end(), by_user);
  }
  // The next one, valid until the next call of any method; null: there is none.
  const StoredChange* Take() {
    while (next_ < changes_.size()) {
      const StoredChange& change = changes_[next_++];
      ++told;
      if (change.presence.status != kStruckOut) return &change;
    }
    Forget();
    return nullptr;
  }
  // Every link has been given a change of that user: what is older, or just as old when `same_too`, is not told any more.
  void StrikeOut(std::string_view user_id, uint64_t version, bool same_too) {
    if (!HasMore()) return;
    const auto found = std::lower_bound(
        changes_.begin() + static_cast<std::ptrdiff_t>(next_), changes_.end(), user_id,
        [](const StoredChange& change, std::string_view id) { return std::string_view(change.presence.user_id) < id; });
    if (found == changes_.end() || found->presence.user_id != user_id) return;
    const uint64_t logged = found->presence.version;
    if (logged < version || (same_too && logged == version)) found->presence.status = kStruckOut;
  }
  bool HasMore() const { return next_ < changes_.size(); }
  // What is not told yet. It stays owed: the log will be read again.
  void Forget() {
    std::vector<StoredChange>().swap(changes_);
    next_ = 0;
  }

 private:
  static constexpr Status kStruckOut = link::v1::STATUS_UNSPECIFIED;  // in no log

  std::vector<StoredChange> changes_;  // by user id
  size_t next_ = 0;
};

}  // namespace presence::core
