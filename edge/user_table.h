// Who is connected, each name once: connections of one user share one entry of a single allocation.
//
// Lives on the shard's thread. An entry is the pair of id and name: a user who was renamed between two tokens is in here twice.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/hash/hash.h"
#include "absl/strings/string_view.h"
#include "common/ids.h"

namespace presence::edge {

using UserIndex = StrongId<struct UserIndexTag, uint32_t>;

class UserTable {
 public:
  UserTable() : by_name_(0, NameHash{&users_}, NameEqual{&users_}) {}
  UserTable(const UserTable&) = delete;
  UserTable& operator=(const UserTable&) = delete;

  // Each Hold and HoldAgain wants one Release. Views live as long as the entry.
  UserIndex Hold(std::string_view user_id, std::string_view username) {
    const Name name{user_id, username};
    const auto found = by_name_.find(name);
    if (found != by_name_.end()) {
      ++users_[*found].holds;
      return UserIndex(*found);
    }
    uint32_t index = static_cast<uint32_t>(users_.size());
    if (free_.empty()) {
      users_.emplace_back();
    } else {
      index = free_.back();
      free_.pop_back();
    }
    User& user = users_[index];
    user.text.reset(new char[user_id.size() + username.size()]);
    user_id.copy(user.text.get(), user_id.size());
    username.copy(user.text.get() + user_id.size(), username.size());
    user.user_id_size = static_cast<uint32_t>(user_id.size());
    user.username_size = static_cast<uint32_t>(username.size());
    user.holds = 1;
    by_name_.insert(index);
    return UserIndex(index);
  }
  void HoldAgain(UserIndex user) { ++users_[user.value()].holds; }
  void Release(UserIndex user) {
    if (--users_[user.value()].holds > 0) return;
    by_name_.erase(user.value());
    users_[user.value()] = User();
    free_.push_back(user.value());
  }
  std::string_view UserId(UserIndex user) const { return users_[user.value()].name().first; }
  std::string_view Username(UserIndex user) const { return users_[user.value()].name().second; }
  size_t size() const { return by_name_.size(); }

 private:
  using Name = std::pair<std::string_view, std::string_view>;

  struct User {
    std::unique_ptr<char[]> text;  // the id, the name
    uint32_t user_id_size = 0;
    uint32_t username_size = 0;
    uint32_t holds = 0;
    Name name() const { return {{text.get(), user_id_size}, {text.get() + user_id_size, username_size}}; }
  };
  struct NameHash {
    using is_transparent = void;
    const std::vector<User>* users;
    size_t operator()(const Name& name) const {
      return absl::HashOf(absl::string_view(name.first.data(), name.first.size()),
                          absl::string_view(name.second.data(), name.second.size()));
    }
    size_t operator()(uint32_t user) const { return (*this)((*users)[user].name()); }
  };
  struct NameEqual {
    using is_transparent = void;
    const std::vector<User>* users;
    bool operator()(uint32_t a, uint32_t b) const { return a == b; }
    bool operator()(uint32_t a, const Name& b) const { return (*users)[a].name() == b; }
    bool operator()(const Name& a, uint32_t b) const { return (*this)(b, a); }
  };

  std::vector<User> users_;
  std::vector<uint32_t> free_;
  absl::flat_hash_set<uint32_t, NameHash, NameEqual> by_name_;
};

}  // namespace presence::edge
