// Strong ids. Each wraps one number; different ids do not mix, and none mixes with plain numbers.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <utility>

namespace presence {

template <typename Tag, typename Rep>
class StrongId {
 public:
  constexpr StrongId() = default;
  constexpr explicit StrongId(Rep value) : value_(value) {}
  constexpr Rep value() const { return value_; }
  friend constexpr auto operator<=>(StrongId, StrongId) = default;

  template <typename H>
  friend H AbslHashValue(H h, StrongId id) {
    return H::combine(std::move(h), id.value_);
  }

 private:
  Rep value_{};
};

}  // namespace presence

template <typename Tag, typename Rep>
struct std::hash<presence::StrongId<Tag, Rep>> {
  std::size_t operator()(presence::StrongId<Tag, Rep> id) const { return std::hash<Rep>()(id.value()); }
};
