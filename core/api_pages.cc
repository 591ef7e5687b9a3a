#include "core/api_pages.h"

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "core/api_text.h"

namespace presence::core {
namespace {

// FNV-1a. Guards against tokens that were cut, edited or made elsewhere; it keeps no secret.
class Checksum {
 public:
  void Add(std::string_view text) {
    for (const char c : text) Add(static_cast<uint8_t>(c));
  }
  void AddNumber(uint64_t number) {
    for (int shift = 56; shift >= 0; shift -= 8) Add(static_cast<uint8_t>(number >> shift));
  }
  uint32_t value() const { return hash_; }

 private:
  void Add(uint8_t byte) { hash_ = (hash_ ^ byte) * 16777619u; }

  uint32_t hash_ = 2166136261u;
};

template <typename Number>
void AppendBigEndian(Number number, std::string& out) {
  for (int shift = 8 * (static_cast<int>(sizeof number) - 1); shift >= 0; shift -= 8) {
    out.push_back(static_cast<char>(number >> shift));
  }
}

uint64_t ReadBigEndian(std::string_view bytes) {
  uint64_t number = 0;
  for (const char c : bytes) number = (number << 8) | static_cast<uint8_t>(c);
  return number;
}

constexpr char kTokenVersion = 2;
constexpr size_t kTokenHeaderBytes = 6;  // version, kind, checksum
constexpr size_t kConnectionCursorBytes = 16;

}  // namespace

absl::StatusOr<uint32_t> ReadPageSize(PageLimits limits, int32_t page_size) {
  if (page_size == 0) return limits.size_default;
  if (page_size < 0 || static_cast<uint32_t>(page_size) > limits.size_max) {
    return absl::InvalidArgumentError(
        absl::StrCat("must be 1 to ", limits.size_max, ", or 0 for ", limits.size_default));
  }
  return static_cast<uint32_t>(page_size);
}

std::string MakePageToken(PageScope scope, std::string_view cursor) {
  Checksum sum;
  sum.AddNumber(static_cast<uint64_t>(scope.kind));
  sum.AddNumber(scope.arguments.size());
  sum.Add(scope.arguments);
  sum.Add(cursor);
  std::string raw{kTokenVersion, static_cast<char>(scope.kind)};
  AppendBigEndian(sum.value(), raw);
  raw.append(cursor);
  return absl::WebSafeBase64Escape(raw);
}

absl::StatusOr<std::string> ReadPageToken(PageScope scope, std::string_view token) {
  if (token.empty()) return std::string();
  std::string raw;
  if (token.size() <= 2 * kIdBytesMax && absl::WebSafeBase64Unescape({token.data(), token.size()}, &raw) &&
      raw.size() > kTokenHeaderBytes) {
    std::string cursor = raw.substr(kTokenHeaderBytes);
    // Making it again checks version, kind, checksum and spelling in one.
    if (MakePageToken(scope, cursor) == token) return cursor;
  }
  return absl::InvalidArgumentError("must be empty, or a next_page_token of the same call with the same arguments");
}

std::string ConnectionCursor(const link::v1::ConnectionName& name) {
  std::string cursor;
  AppendBigEndian(uint64_t{name.incarnation()}, cursor);
  AppendBigEndian(uint64_t{name.connection()}, cursor);
  return cursor;
}

absl::StatusOr<link::v1::ConnectionName> ReadConnectionCursor(std::string_view cursor) {
  if (cursor.size() != kConnectionCursorBytes) return absl::InvalidArgumentError("does not name a connection");
  link::v1::ConnectionName name;
  name.set_incarnation(ReadBigEndian(cursor.substr(0, 8)));
  name.set_connection(ReadBigEndian(cursor.substr(8)));
  return name;
}

void CutPage(PresencePage& page, size_t bytes_max) {
  constexpr size_t kBytesBesideTexts = 48;  // status, times, version, tags
  size_t bytes = 0;
  for (size_t i = 0; i < page.users.size(); ++i) {
    bytes += page.users[i].user_id.size() + page.users[i].username.size() + kBytesBesideTexts;
    if (i == 0 || bytes <= bytes_max) continue;
    page.users.resize(i);
    page.more = true;
    return;
  }
}

}  // namespace presence::core
