// How values of settings are written: text to value and back. For config.cc; pure functions.
//
// What cannot be read is nullopt; nothing here knows names, bounds or messages.
#pragma once

#include <charconv>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/config.h"
#include "common/time.h"

namespace presence::config_values {

// The whole of `text` as a number, or nothing. from_chars knows no locale and no leading "+" or blanks.
template <typename Number>
std::optional<Number> ParseNumber(std::string_view text) {
  Number value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::optional<bool> ParseBool(std::string_view text);
std::optional<uint64_t> ParseBytes(std::string_view text);  // "65536", "64KiB", "1 MB"
std::optional<ListenAddress> ParseListen(std::string_view text);
std::vector<std::string> ParseList(std::string_view text);

std::string FormatBytes(uint64_t bytes);  // in the largest unit that divides it
std::string FormatDuration(Duration duration, Duration unit);
std::string Joined(const std::vector<std::string>& items, std::string_view separator);

std::string LowerCase(std::string_view text);
// "redis://user:secret@host" becomes "redis://user:[hidden]@host".
std::string WithoutPassword(const std::string& url);

}  // namespace presence::config_values
