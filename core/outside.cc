#include "core/outside.h"

#include <simdjson.h>

#include <array>

#include "core/json_members.h"

namespace presence::core {

bool IsValidId(std::string_view id) {
  return !id.empty() && id.size() <= kIdBytesMax && id.find('\0') == std::string_view::npos;
}

namespace {

// Of an id as it may be written: each byte as an escape of six.
constexpr size_t kStringBytesMax = 6 * kIdBytesMax + 2;

}  // namespace

struct OutsideReader::Parser {
  simdjson::dom::parser dom;

  // The members of the object that `text` is. They live until the next call.
  absl::StatusOr<simdjson::dom::object> Object(std::string_view text) {
    simdjson::dom::element element;
    if (dom.parse(text.data(), text.size()).get(element) != simdjson::SUCCESS) {
      return absl::InvalidArgumentError("not JSON in UTF-8");
    }
    simdjson::dom::object object;
    if (element.get(object) != simdjson::SUCCESS) return absl::InvalidArgumentError("not a JSON object");
    return object;
  }

  // What a JSON string says; empty when `text` is something else. It lives until the next call.
  std::string_view String(std::string_view text) {
    if (text.size() > kStringBytesMax) return {};
    std::string_view value;
    if (dom.parse(text.data(), text.size()).get(value) != simdjson::SUCCESS) return {};
    return value;
  }
};

OutsideReader::OutsideReader() : parser_(std::make_unique<Parser>()) {}
OutsideReader::~OutsideReader() = default;

absl::StatusOr<std::string> OutsideReader::ReadRoomId(std::string_view text) {
  if (text.size() > kMessageBytesMax) return absl::InvalidArgumentError("larger than 1 MiB");
  std::string room_id;
  const bool is_object = ForEachMember(text, [&](std::string_view key, std::string_view value) {
    if (key != "\"room_id\"" && (key.find('\\') == std::string_view::npos || parser_->String(key) != "room_id")) return;
    room_id = parser_->String(value);
  });
  if (!is_object) return absl::InvalidArgumentError("not a JSON object in UTF-8");
  if (!IsValidId(room_id)) {
    return absl::InvalidArgumentError("room_id is not a string of 1 to 2048 bytes without NUL");
  }
  return room_id;
}

absl::StatusOr<OutsidePresence> OutsideReader::ReadPresence(std::string_view text) {
  if (text.size() > kPresenceBytesMax) return absl::InvalidArgumentError("larger than 64 KiB");
  auto object = parser_->Object(text);
  if (!object.ok()) return object.status();

  const auto string_of = [](simdjson::dom::element value) {
    std::string_view found;
    return value.get(found) == simdjson::SUCCESS ? found : std::string_view();
  };
  std::string_view type, user_id, username, status, timestamp;
  bool username_is_text = true;
  for (const auto& member : *object) {
    if (member.key == "type") {
      type = string_of(member.value);
    } else if (member.key == "user_id") {
      user_id = string_of(member.value);
    } else if (member.key == "username") {
      username_is_text = member.value.is_string() || member.value.is_null();
      username = string_of(member.value);
    } else if (member.key == "status") {
      status = string_of(member.value);
    } else if (member.key == "timestamp") {
      timestamp = string_of(member.value);
    }
  }
  if (type != "presence") return absl::InvalidArgumentError("type is not \"presence\"");
  if (!IsValidId(user_id)) {
    return absl::InvalidArgumentError("user_id is not a string of 1 to 2048 bytes without NUL");
  }
  if (!username_is_text || username.size() > kIdBytesMax) {
    return absl::InvalidArgumentError("username is not a string of at most 2048 bytes");
  }
  if (timestamp.empty() || timestamp.size() > kTimestampBytesMax) {
    return absl::InvalidArgumentError("timestamp is not a string of 1 to 64 bytes");
  }
  constexpr std::array<std::string_view, 3> kStatuses = {"online", "away", "offline"};
  for (const std::string_view known : kStatuses) {
    if (status == known) {
      return OutsidePresence{std::string(user_id), std::string(username), known, std::string(timestamp)};
    }
  }
  return absl::InvalidArgumentError("status is not online, away or offline");
}

}  // namespace presence::core
