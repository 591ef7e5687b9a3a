// Rows found by their text id, each text held once: users and rooms.
//
// One thread. Row must have a member `std::string id`. Nothing here iterates over the hash set: its order is random.
#pragma once

#include <cstddef>
#include <optional>
#include <string_view>

#include "absl/container/flat_hash_set.h"
#include "core/id_map.h"
#include "core/slab.h"

namespace presence::core {

template <typename Row, typename Tag>
class Interned {
 public:
  using Index = typename Slab<Row, Tag>::Index;

  Interned() : by_id_(0, Hash{&rows_}, Equal{&rows_}) {}
  Interned(const Interned&) = delete;
  Interned& operator=(const Interned&) = delete;

  // The row of this id, a new one if there is none.
  Index Intern(std::string_view id) {
    const auto found = by_id_.find(id);
    if (found != by_id_.end()) return *found;
    const Index index = rows_.Add();
    rows_[index].id = id;
    by_id_.insert(index);
    return index;
  }
  std::optional<Index> Find(std::string_view id) const {
    const auto found = by_id_.find(id);
    return found == by_id_.end() ? std::nullopt : std::optional<Index>(*found);
  }
  void Free(Index index) {
    by_id_.erase(index);
    rows_.Free(index);
  }
  Row& operator[](Index index) { return rows_[index]; }
  const Row& operator[](Index index) const { return rows_[index]; }
  size_t size() const { return rows_.size(); }

 private:
  struct Hash {
    using is_transparent = void;
    const Slab<Row, Tag>* rows;
    size_t operator()(std::string_view id) const { return IdHash()(id); }
    size_t operator()(Index index) const { return (*this)(std::string_view((*rows)[index].id)); }
  };
  struct Equal {
    using is_transparent = void;
    const Slab<Row, Tag>* rows;
    bool operator()(Index a, Index b) const { return a == b; }
    bool operator()(Index a, std::string_view b) const { return (*rows)[a].id == b; }
    bool operator()(std::string_view a, Index b) const { return (*rows)[b].id == a; }
  };

  Slab<Row, Tag> rows_;
  absl::flat_hash_set<Index, Hash, Equal> by_id_;
};

}  // namespace presence::core
