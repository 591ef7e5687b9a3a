#include "core/json_members.h"

#include <simdjson.h>

#include <cstddef>

namespace presence::core {
namespace {

using OnMember = absl::FunctionRef<void(std::string_view, std::string_view)>;

bool IsDigit(char c) {
  return c >= '0' && c <= '9';
}
bool IsHexDigit(char c) {
  return IsDigit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

// Each method moves over what it is named for; false when that is not there.
class Scanner {
 public:
  explicit Scanner(std::string_view text) : text_(text) {}

  bool AtEnd() const { return at_ == text_.size(); }
  void Space() {
    while (Peek() == ' ' || Peek() == '\t' || Peek() == '\n' || Peek() == '\r') ++at_;
  }

  bool Object(int depth, OnMember on_member) {
    if (depth > kJsonDepthMax || !Take('{')) return false;
    Space();
    if (Take('}')) return true;
    do {
      Space();
      const size_t key = at_;
      if (!String()) return false;
      const size_t key_end = at_;
      Space();
      if (!Take(':')) return false;
      Space();
      const size_t value = at_;
      if (!Value(depth)) return false;
      on_member(text_.substr(key, key_end - key), text_.substr(value, at_ - value));
      Space();
    } while (Take(','));
    return Take('}');
  }

 private:
  // NUL at the end: no rule takes it, and where it is in the text it is a mistake, too.
  char Peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }
  bool Take(char c) {
    if (Peek() != c) return false;
    ++at_;
    return true;
  }

  bool Value(int depth) {
    switch (Peek()) {
      case '{':
        return Object(depth + 1, [](std::string_view, std::string_view) {});
      case '[':
        return Array(depth + 1);
      case '"':
        return String();
      case 't':
        return Word("true");
      case 'f':
        return Word("false");
      case 'n':
        return Word("null");
      default:
        return Number();
    }
  }

  bool Array(int depth) {
    if (depth > kJsonDepthMax || !Take('[')) return false;
    Space();
    if (Take(']')) return true;
    do {
      Space();
      if (!Value(depth)) return false;
      Space();
    } while (Take(','));
    return Take(']');
  }

  bool String() {
    if (!Take('"')) return false;
    while (at_ < text_.size()) {
      const char c = text_[at_++];
      if (c == '"') return true;
      if (static_cast<unsigned char>(c) < 0x20) return false;
      if (c == '\\' && !Escape()) return false;
    }
    return false;
  }

  bool Escape() {
    const char c = Peek();
    ++at_;
    if (c != 'u') return c != '\0' && std::string_view("\"\\/bfnrt").find(c) != std::string_view::npos;
    for (int i = 0; i < 4; ++i, ++at_) {
      if (!IsHexDigit(Peek())) return false;
    }
    return true;
  }

  bool Number() {
    Take('-');
    if (!Take('0') && !Digits()) return false;
    if (Take('.') && !Digits()) return false;
    if (Peek() != 'e' && Peek() != 'E') return true;
    ++at_;
    if (!Take('+')) Take('-');
    return Digits();
  }

  bool Digits() {
    const size_t start = at_;
    while (IsDigit(Peek())) ++at_;
    return at_ > start;
  }

  bool Word(std::string_view word) {
    if (text_.substr(at_, word.size()) != word) return false;
    at_ += word.size();
    return true;
  }

  const std::string_view text_;
  size_t at_ = 0;
};

}  // namespace

bool ForEachMember(std::string_view text, OnMember on_member) {
  if (!simdjson::validate_utf8(text.data(), text.size())) return false;
  Scanner scanner(text);
  scanner.Space();
  if (!scanner.Object(1, on_member)) return false;
  scanner.Space();
  return scanner.AtEnd();
}

}  // namespace presence::core
