#include "core/client_text.h"

#include <cstdio>

#include "common/json.h"

namespace presence::core {

std::string MessageFrame(std::string_view data_json) {
  constexpr std::string_view kStart = "{\"type\":\"message\",\"data\":";
  std::string out;
  out.reserve(kStart.size() + data_json.size() + 1);
  out.append(kStart).append(data_json).push_back('}');
  return out;
}

std::string MessageCopy(uint64_t core_incarnation, std::string_view room_id, std::string_view data_json) {
  char incarnation[17];
  std::snprintf(incarnation, sizeof incarnation, "%016llx", static_cast<unsigned long long>(core_incarnation));
  std::string out;
  out.reserve(kCopyPrefix.size() + room_id.size() + data_json.size() + 70);
  out.append(kCopyPrefix).append(incarnation).append("\",\"room_id\":");
  AppendJsonString(room_id, &out);
  out.append(",\"type\":\"message\",\"data\":").append(data_json).push_back('}');
  return out;
}

std::string TypingFrame(const link::v1::RoomTyping& typing) {
  const bool dm = typing.kind() == link::v1::ROOM_KIND_DM;
  std::string out;
  out.reserve(typing.room_id().size() + typing.user_id().size() + typing.username().size() + 90);
  out.append("{\"type\":\"typing\",\"channel_id\":");
  if (dm) {
    out.append("null,\"dm_id\":");
    AppendJsonString(typing.room_id(), &out);
  } else {
    AppendJsonString(typing.room_id(), &out);
    out.append(",\"dm_id\":null");
  }
  out.append(",\"user_id\":");
  AppendJsonString(typing.user_id(), &out);
  out.append(",\"username\":");
  AppendJsonString(typing.username(), &out);
  out.push_back('}');
  return out;
}

std::string PresenceFrame(const PresenceFrameFields& fields) {
  std::string out;
  out.reserve(fields.user_id.size() + fields.username.size() + fields.timestamp.size() + 90);
  out.append("{\"type\":\"presence\",\"user_id\":");
  AppendJsonString(fields.user_id, &out);
  out.append(",\"username\":");
  AppendJsonString(fields.username, &out);
  out.append(",\"status\":");
  AppendJsonString(fields.status, &out);
  out.append(",\"timestamp\":");
  AppendJsonString(fields.timestamp, &out);
  out.push_back('}');
  return out;
}

std::string ErrorFrame(std::string_view text, uint32_t code) {
  std::string out = "{\"type\":\"error\",\"error\":";
  AppendJsonString(text, &out);
  out.append(",\"code\":").append(std::to_string(code)).push_back('}');
  return out;
}

}  // namespace presence::core
