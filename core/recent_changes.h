// Which presence changes every link has been given lately: the newest version for each user, of the last 15 s by version.
//
// Lives on the hub's thread. By it, what the change log says again is told apart from what was missed, and an older change that
// comes late is dropped. Versions are microseconds of Redis' clock, so "lately" holds still while the store is away.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <string_view>

#include "absl/container/node_hash_map.h"
#include "absl/strings/string_view.h"

namespace presence::core {

class RecentChanges {
 public:
  // The version last delivered for that user; 0: none lately.
  uint64_t VersionOf(std::string_view user_id) const {
    const auto found = by_user_.find(absl::string_view(user_id.data(), user_id.size()));
    return found == by_user_.end() ? 0 : found->second;
  }

  // A change has been given to every link.
  void Delivered(std::string_view user_id, uint64_t version) {
    auto& entry = *by_user_.try_emplace(absl::string_view(user_id.data(), user_id.size())).first;
    if (version <= entry.second) return;
    entry.second = version;
    order_.push_back({version, &entry.first});
    if (version > watermark_) watermark_ = version;
    Prune();
  }

  // The highest version seen; 0: none.
  uint64_t watermark() const { return watermark_; }
  size_t size() const { return by_user_.size(); }

 private:
  static constexpr uint64_t kKeptMicros = 15'000'000;
  // 10,000 changes a second; past it the oldest are forgotten, and perhaps delivered once more.
  static constexpr size_t kUsersMax = 150'000;

  struct Record {
    uint64_t version = 0;
    const std::string* user_id = nullptr;  // in by_user_, while this record or a later one of the user stands
  };

  void Prune() {
    while (!order_.empty() && (order_.front().version + kKeptMicros < watermark_ || order_.size() > kUsersMax)) {
      const Record oldest = order_.front();
      order_.pop_front();
      const auto found = by_user_.find(*oldest.user_id);
      if (found->second == oldest.version) by_user_.erase(found);
    }
  }

  absl::node_hash_map<std::string, uint64_t> by_user_;
  std::deque<Record> order_;
  uint64_t watermark_ = 0;
};

}  // namespace presence::core
