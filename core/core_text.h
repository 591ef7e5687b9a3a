// How a core's incarnation is written in Redis: 16 hexadecimal digits. Pure, thread-safe.
#pragma once

#include <charconv>
#include <cstdint>
#include <cstdio>
#include <optional>
#include <string>
#include <string_view>

namespace presence::core {

inline std::string FormatCore(uint64_t incarnation) {
  char text[20];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(incarnation));
  return text;
}

// Nothing when it is no such text.
inline std::optional<uint64_t> ParseCore(std::string_view text) {
  uint64_t incarnation = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), incarnation, 16);
  if (error != std::errc() || end != text.data() + text.size() || text.size() != 16) return std::nullopt;
  return incarnation;
}

}  // namespace presence::core
