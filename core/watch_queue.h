// What waits for one watcher: for each user the newest that it has not been told, in the order in which they came in.
//
// Loop thread. Invariant: a user waits at most once; of one user a newer version replaces an older one in place. Rows are
// shared by all watchers and never change. An empty queue holds next to no memory, however long it was: there are 10,000 of them. Does
// not bound itself: see size().
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "core/id_map.h"
#include "core/store.h"

namespace presence::core {

using PresenceRow = std::shared_ptr<const StoredPresence>;

class WatchQueue {
 public:
  struct Item {
    PresenceRow row;
    bool left = false;  // the user is no member any more: only the id of the row counts
  };

  // The user's presence. Ignored when a newer one waits; false then.
  bool Add(const PresenceRow& row) { return Put({row, false}); }
  // The user has left, whatever waited.
  void AddLeft(const PresenceRow& row) { Put({row, true}); }

  // REQUIRES: not empty.
  Item Pop() {
    Item item = std::move(items_[first_]);
    positions_.erase(std::string_view(item.row->user_id));
    ++first_;
    ++popped_;
    if (empty()) {
      LetGo();
    } else if (first_ >= kGapMin && first_ >= items_.size() / 2) {
      items_.erase(items_.begin(), items_.begin() + static_cast<std::ptrdiff_t>(first_));
      first_ = 0;
    }
    return item;
  }

  bool empty() const { return first_ == items_.size(); }
  size_t size() const { return items_.size() - first_; }
  // How many were ever popped, and how many there will have been when all that wait now are.
  uint64_t popped() const { return popped_; }
  uint64_t end() const { return popped_ + size(); }

 private:
  static constexpr size_t kKept = 16;     // a quiet watcher does not allocate for each change
  static constexpr size_t kGapMin = 256;  // each item is moved once at most for each one that is popped

  bool Put(Item item) {
    const std::string_view user_id = item.row->user_id;
    const auto found = positions_.find(user_id);
    if (found == positions_.end()) {
      positions_.emplace(user_id, end());
      items_.push_back(std::move(item));
      return true;
    }
    Item& waiting = items_[first_ + static_cast<size_t>(found->second - popped_)];
    if (!item.left && !waiting.left && item.row->version <= waiting.row->version) return false;
    const uint64_t position = found->second;
    positions_.erase(found);  // its key is a view into the row that goes
    waiting = std::move(item);
    positions_.emplace(std::string_view(waiting.row->user_id), position);
    return true;
  }

  void LetGo() {
    first_ = 0;
    if (items_.capacity() <= kKept) return items_.clear();
    std::vector<Item>().swap(items_);
    IdMap<uint64_t, std::string_view>().swap(positions_);
  }

  std::vector<Item> items_;
  size_t first_ = 0;  // of those that wait; before it are empty ones
  uint64_t popped_ = 0;
  IdMap<uint64_t, std::string_view> positions_;  // views into the rows of items_; never iterated over
};

}  // namespace presence::core
