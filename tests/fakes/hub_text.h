// How the lines that hub tests compare write connections and lists.
#pragma once

#include <cstdint>
#include <string>
#include <type_traits>

#include "common/connection_id.h"

namespace presence::core {

// "3.1": slot and generation.
inline std::string Name(uint64_t connection) {
  const ConnectionId id = ConnectionId::Unpack(connection);
  return std::to_string(id.slot) + "." + std::to_string(id.generation);
}

// Numbers or texts, with commas between them.
template <typename Range>
std::string Join(const Range& parts) {
  std::string out;
  for (const auto& part : parts) {
    if (!out.empty()) out.push_back(',');
    if constexpr (std::is_integral_v<std::decay_t<decltype(part)>>) {
      out.append(std::to_string(part));
    } else {
      out.append(part);
    }
  }
  return out;
}

}  // namespace presence::core
