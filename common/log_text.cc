// Escaped and RedactToken: what may stand in a line.
#include <algorithm>
#include <cstdio>
#include <string>

#include "common/log.h"
#include "common/utf8.h"

namespace presence {
namespace {

constexpr std::string_view kEllipsis = "\xE2\x80\xA6";
constexpr std::string_view kRedacted = "[redacted]";

bool IsPlain(unsigned char c) {
  return c >= 0x20 && c < 0x7F && c != '\\';
}

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// One character, or one byte that belongs to none, as it may stand in a line.
std::string EscapedOne(std::string_view sequence, bool is_utf8) {
  const auto first = static_cast<unsigned char>(sequence[0]);
  if (sequence.size() == 1 && IsPlain(first)) return std::string(sequence);
  if (sequence == "\\") return "\\\\";
  if (sequence == "\n") return "\\n";
  if (sequence == "\r") return "\\r";
  if (sequence == "\t") return "\\t";
  char text[8];
  if (sequence.size() == 1 || !is_utf8) {
    std::snprintf(text, sizeof text, "\\x%02x", first);
    return text;
  }
  // U+0080 to U+009F are control characters (U+0085 ends a line); U+2028 and U+2029 end a line; U+202A to U+202E and U+2066 to
  // U+2069 turn the direction of what follows, and U+200E, U+200F and U+FEFF are invisible: a terminal would show another line
  // than was written.
  if (sequence.size() == 2 && first == 0xC2 && static_cast<unsigned char>(sequence[1]) < 0xA0) {
    std::snprintf(text, sizeof text, "\\u%04x", static_cast<unsigned char>(sequence[1]));
    return text;
  }
  if (sequence.size() == 3) {
    const unsigned code = (first & 0x0Fu) << 12 | (static_cast<unsigned char>(sequence[1]) & 0x3Fu) << 6 |
                          (static_cast<unsigned char>(sequence[2]) & 0x3Fu);
    if ((code >= 0x200E && code <= 0x200F) || (code >= 0x2028 && code <= 0x202E) ||
        (code >= 0x2066 && code <= 0x2069) || code == 0xFEFF) {
      std::snprintf(text, sizeof text, "\\u%04x", code);
      return text;
    }
  }
  return std::string(sequence);
}

// A parameter's name in lower case, percent escapes undone ("%54oken", "access_token", "a+b").
std::string DecodedName(std::string_view name) {
  std::string decoded;
  for (size_t i = 0; i < name.size(); ++i) {
    char c = name[i];
    if (c == '%' && i + 2 < name.size() && HexDigit(name[i + 1]) >= 0 && HexDigit(name[i + 2]) >= 0) {
      c = static_cast<char>(HexDigit(name[i + 1]) * 16 + HexDigit(name[i + 2]));
      i += 2;
    }
    decoded.push_back(c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c);
  }
  return decoded;
}

bool IsTokenName(std::string_view name) {
  static constexpr std::string_view kToken = "token";
  const std::string decoded = DecodedName(name);
  return decoded.size() >= kToken.size() && decoded.compare(decoded.size() - kToken.size(), kToken.size(), kToken) == 0;
}

bool IsJwtCharacter(char c) {
  return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.';
}

// A JWT's header is JSON, so its base64 begins with "eyJ"; whatever brings one here, it stays out of the log.
void RedactJwts(std::string* text) {
  size_t at = 0;
  while ((at = text->find("eyJ", at)) != std::string::npos) {
    size_t end = at;
    while (end < text->size() && IsJwtCharacter((*text)[end])) ++end;
    if (end - at >= 20) {
      text->replace(at, end - at, kRedacted);
      end = at + kRedacted.size();
    }
    at = end;
  }
}

}  // namespace

std::string Escaped(std::string_view text, size_t bytes_max) {
  if (text.size() <= bytes_max &&
      std::all_of(text.begin(), text.end(), [](char c) { return IsPlain(static_cast<unsigned char>(c)); })) {
    return std::string(text);
  }
  std::string out;
  while (!text.empty()) {
    const size_t length = Utf8SequenceLength(text);
    const std::string piece = EscapedOne(text.substr(0, std::max<size_t>(length, 1)), length != 0);
    if (out.size() + piece.size() > bytes_max) return out.append(kEllipsis);
    out += piece;
    text.remove_prefix(std::max<size_t>(length, 1));
  }
  return out;
}

std::string RedactToken(std::string_view target) {
  std::string out;
  // A name begins after any of these; a value ends at "&" alone, so that nothing of a token escapes behind a ";" or "#".
  static constexpr std::string_view kNameStarts = "?&;#/";
  size_t name_start = 0;
  size_t i = 0;
  while (i < target.size()) {
    const char c = target[i];
    if (c == '=' && IsTokenName(target.substr(name_start, i - name_start))) {
      out += '=';
      out += kRedacted;
      i = std::min(target.find('&', i), target.size());
      name_start = i;
      continue;
    }
    if (kNameStarts.find(c) != std::string_view::npos) name_start = i + 1;
    out += c;
    ++i;
  }
  RedactJwts(&out);
  return out;
}

}  // namespace presence
