#include "core/presence_text.h"

#include <simdjson.h>

#include <chrono>
#include <cstdio>

#include "common/json.h"
#include "common/time.h"

namespace presence::core {
namespace {

// An entry of ours is below 2 x 6 x 2,048 bytes of escaped ids; a larger text is not one.
constexpr size_t kEntryBytesMax = 64 * 1024;

void AppendMember(std::string_view name, std::string_view value, std::string* out) {
  out->append(name);
  AppendJsonString(value, out);
}

Status StatusFromName(std::string_view name) {
  if (name == "online") return link::v1::STATUS_ONLINE;
  if (name == "away") return link::v1::STATUS_AWAY;
  return link::v1::STATUS_OFFLINE;
}

// The number in the `size` digits at `offset`, or -1.
int Digits(std::string_view text, size_t offset, size_t size) {
  int value = 0;
  for (size_t i = offset; i < offset + size; ++i) {
    if (i >= text.size() || text[i] < '0' || text[i] > '9') return -1;
    value = value * 10 + (text[i] - '0');
  }
  return value;
}

}  // namespace

std::string_view StatusName(Status status) {
  switch (status) {
    case link::v1::STATUS_ONLINE:
      return "online";
    case link::v1::STATUS_AWAY:
      return "away";
    default:
      return "offline";
  }
}

std::string FormatPresenceEntry(const StoredPresence& presence, std::string_view connection_name) {
  std::string out;
  out.reserve(presence.user_id.size() + presence.username.size() + 190);
  AppendMember("{\"user_id\":", presence.user_id, &out);
  AppendMember(",\"username\":", presence.username, &out);
  AppendMember(",\"status\":", StatusName(presence.status), &out);
  AppendMember(",\"connection_id\":", connection_name, &out);
  AppendMember(",\"last_seen\":", FormatTimestamp(FromUnixMillis(presence.last_seen_ms)), &out);
  out.append(",\"version\":").append(std::to_string(presence.version)).push_back('}');
  return out;
}

std::string FormatPresenceUpdate(uint64_t core_incarnation, const StoredPresence& presence, int64_t changed_ms) {
  char origin[32];
  std::snprintf(origin, sizeof origin, "presence.core/%016llx", static_cast<unsigned long long>(core_incarnation));
  std::string out;
  out.reserve(presence.user_id.size() + presence.username.size() + 190);
  AppendMember("{\"origin\":", origin, &out);
  out.append(",\"type\":\"presence\"");
  AppendMember(",\"user_id\":", presence.user_id, &out);
  AppendMember(",\"username\":", presence.username, &out);
  AppendMember(",\"status\":", StatusName(presence.status), &out);
  AppendMember(",\"timestamp\":", FormatTimestamp(FromUnixMillis(changed_ms)), &out);
  out.append(",\"version\":").append(std::to_string(presence.version)).push_back('}');
  return out;
}

int64_t ParseTimestamp(std::string_view text) {
  const int year = Digits(text, 0, 4), month = Digits(text, 5, 2), day = Digits(text, 8, 2);
  const int hour = Digits(text, 11, 2), minute = Digits(text, 14, 2), second = Digits(text, 17, 2);
  if (year < 0 || hour < 0 || hour > 23 || minute < 0 || minute > 59 || second < 0 || second > 60) return 0;
  if (text[4] != '-' || text[7] != '-' || (text[10] != 'T' && text[10] != ' ') || text[13] != ':' || text[16] != ':') {
    return 0;
  }
  const std::chrono::year_month_day date{std::chrono::year(year), std::chrono::month(static_cast<unsigned>(month)),
                                         std::chrono::day(static_cast<unsigned>(day))};
  if (month < 1 || day < 1 || !date.ok()) return 0;
  std::string_view rest = text.substr(19);
  int64_t fraction_ms = 0;
  if (!rest.empty() && rest.front() == '.') {
    rest.remove_prefix(1);
    for (int64_t unit = 100; !rest.empty() && rest.front() >= '0' && rest.front() <= '9'; unit /= 10) {
      fraction_ms += unit * (rest.front() - '0');
      rest.remove_prefix(1);
    }
  }
  if (!rest.empty() && rest != "Z" && rest != "+00:00") return 0;
  const auto days = std::chrono::sys_days(date).time_since_epoch();
  const int64_t seconds = std::chrono::seconds(days).count() + hour * 3600 + minute * 60 + second;
  return seconds * 1000 + fraction_ms;
}

StoredPresence ParsePresenceEntry(std::string_view user_id, std::string_view text) {
  StoredPresence presence;
  presence.user_id = user_id;
  if (text.empty() || text.size() > kEntryBytesMax) return presence;
  thread_local simdjson::dom::parser parser;
  simdjson::dom::object object;
  std::string_view status, username, last_seen;
  if (parser.parse(text.data(), text.size()).get(object) != simdjson::SUCCESS) return presence;
  if (object["status"].get(status) != simdjson::SUCCESS) return presence;
  presence.status = StatusFromName(status);
  if (object["username"].get(username) == simdjson::SUCCESS) presence.username = username;
  if (object["last_seen"].get(last_seen) == simdjson::SUCCESS) presence.last_seen_ms = ParseTimestamp(last_seen);
  if (object["version"].get(presence.version) != simdjson::SUCCESS) presence.version = 0;
  return presence;
}

}  // namespace presence::core
