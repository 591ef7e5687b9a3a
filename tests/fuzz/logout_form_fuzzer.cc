// The form of POST /backchannel-logout: any bytes.
#include <cctype>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "edge/logout_form.h"
#include "tests/fuzz/fuzz_target.h"

namespace presence::edge {
namespace {

constexpr std::string_view kName = "logout_token";

std::vector<std::string> Split(std::string_view text, char separator) {
  std::vector<std::string> parts(1);
  for (const char c : text) {
    if (c == separator) {
      parts.emplace_back();
    } else {
      parts.back() += c;
    }
  }
  return parts;
}

// Unlike http.h's: everything before an escape is found first, and the digits are read by the standard library.
std::optional<std::string> Decode(std::string_view text) {
  const std::vector<std::string> parts = Split(text, '%');
  std::string decoded = parts[0];
  for (size_t i = 1; i < parts.size(); ++i) {
    const std::string& part = parts[i];
    const auto is_digit = [&](size_t at) {
      return at < part.size() && std::isxdigit(static_cast<unsigned char>(part[at]));
    };
    if (!is_digit(0) || !is_digit(1)) return std::nullopt;
    decoded += static_cast<char>(std::stoi(part.substr(0, 2), nullptr, 16));
    decoded += part.substr(2);
  }
  return decoded;
}

// The plain way: all pairs first.
std::string Reference(std::string_view form) {
  std::vector<std::optional<std::string>> values;
  for (const std::string& pair : Split(form, '&')) {
    const size_t equals = std::min(pair.find('='), pair.size());
    if (Decode(std::string_view(pair).substr(0, equals)) != kName) continue;
    values.push_back(Decode(equals == pair.size() ? std::string_view() : std::string_view(pair).substr(equals + 1)));
  }
  return values.size() == 1 && values[0].has_value() ? *values[0] : std::string();
}

std::string Escaped(std::string_view text) {
  std::string escaped;
  for (const char c : text) {
    constexpr std::string_view kDigits = "0123456789aBcDeF";
    const auto byte = static_cast<uint8_t>(c);
    escaped += {'%', kDigits[byte >> 4], kDigits[byte & 15]};
  }
  return escaped;
}

}  // namespace
}  // namespace presence::edge

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace presence::edge;
  const std::string form(reinterpret_cast<const char*>(data), size);
  const std::string token = LogoutTokenOfForm(form);
  PRESENCE_CHECK(token == Reference(form), "a second reader finds the same token");
  if (!token.empty()) {
    PRESENCE_CHECK(LogoutTokenOfForm("a=b&" + form + "&c") == token, "what else is in the form does not matter");
    PRESENCE_CHECK(LogoutTokenOfForm(form + "&" + form).empty(), "two of them are none");
  }
  const std::string made = Escaped(kName) + "=" + Escaped(form);
  PRESENCE_CHECK(LogoutTokenOfForm(made) == form, "any value survives being escaped");
  return 0;
}
