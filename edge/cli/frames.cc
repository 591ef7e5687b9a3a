#include "edge/cli/frames.h"

#include <nlohmann/json.hpp>

#include "common/json.h"
#include "common/log.h"

namespace presence::edge::cli {
namespace {

using nlohmann::json;

constexpr size_t kShownBytesMax = 1000;

std::string RoomFrame(std::string_view type, const Room& room) {
  return "{\"type\":" + JsonString(type) + (room.is_dm ? ",\"dm_id\":" : ",\"channel_id\":") + JsonString(room.id) +
         "}";
}

std::optional<std::string> TextMember(const json& object, const char* name) {
  const auto member = object.find(name);
  if (member == object.end() || !member->is_string()) return std::nullopt;
  return member->get<std::string>();
}

std::string Shown(const std::optional<std::string>& text) {
  return text ? Escaped(*text) : "?";
}

std::string RoomOf(const ServerFrame& frame) {
  if (frame.dm_id) return "dm:" + Escaped(*frame.dm_id);
  return Shown(frame.channel_id);
}

std::string DescribeMessage(const ServerFrame& frame) {
  const json root = json::parse(frame.raw, nullptr, /*allow_exceptions=*/false);
  const auto data = root.find("data");
  if (data == root.end() || !data->is_object()) return "message       " + Escaped(frame.raw, kShownBytesMax);
  const auto content = TextMember(*data, "content");
  const auto author = TextMember(*data, "user_id");
  const auto channel = TextMember(*data, "channel_id");
  const auto dm = TextMember(*data, "dm_id");
  if (!content) return "message       " + Escaped(frame.raw, kShownBytesMax);
  return "message       " + (dm ? "dm:" + Escaped(*dm) : Shown(channel)) + "  " + Shown(author) + ": " +
         Escaped(*content, kShownBytesMax);
}

}  // namespace

absl::StatusOr<Room> ParseRoom(std::string_view text) {
  Room room;
  if (text.substr(0, 3) == "dm:") {
    room = Room{std::string(text.substr(3)), true};
  } else if (text.substr(0, 1) == "#") {
    room = Room{"channel_" + std::string(text.substr(1)), false};
    if (text.size() == 1) room.id.clear();
  } else {
    room = Room{std::string(text), false};
  }
  if (room.id.empty()) return absl::InvalidArgumentError("name a room: channel_general, #general or dm:dm_123");
  return room;
}

std::string RoomText(const Room& room) {
  return (room.is_dm ? "dm:" : "") + room.id;
}

std::string SubscribeFrame(const Room& room) {
  return RoomFrame("subscribe", room);
}
std::string UnsubscribeFrame(const Room& room) {
  return RoomFrame("unsubscribe", room);
}
std::string TypingFrame(const Room& room) {
  return RoomFrame("typing", room);
}
std::string StatusFrame(std::string_view status) {
  return "{\"type\":\"status\",\"status\":" + JsonString(status) + "}";
}
std::string PingFrame() {
  return "{\"type\":\"ping\"}";
}

std::string AuthFrame(std::string_view token) {
  return "{\"type\":\"auth\",\"token\":" + JsonString(token) + "}";
}

ServerFrame ParseServerFrame(std::string_view text) {
  ServerFrame frame;
  frame.raw = std::string(text);
  const json root = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!root.is_object()) return frame;
  frame.type = TextMember(root, "type").value_or("");
  frame.channel_id = TextMember(root, "channel_id");
  frame.dm_id = TextMember(root, "dm_id");
  frame.user_id = TextMember(root, "user_id");
  frame.username = TextMember(root, "username");
  frame.status = TextMember(root, "status");
  frame.timestamp = TextMember(root, "timestamp");
  frame.expires_at = TextMember(root, "expires_at");
  frame.error = TextMember(root, "error");
  if (const auto code = root.find("code"); code != root.end() && code->is_number_integer())
    frame.code = code->get<int64_t>();
  if (const auto after = root.find("after_ms"); after != root.end() && after->is_number_integer())
    frame.after_ms = after->get<int64_t>();
  frame.has_both_room_members = root.contains("channel_id") && root.contains("dm_id");
  return frame;
}

bool Concerns(const ServerFrame& frame, const Room& room) {
  return (room.is_dm ? frame.dm_id : frame.channel_id) == room.id;
}

std::string Describe(const ServerFrame& frame) {
  if (frame.type == "subscribed") return "subscribed    " + RoomOf(frame);
  if (frame.type == "unsubscribed") return "unsubscribed  " + RoomOf(frame);
  if (frame.type == "typing") return "typing        " + RoomOf(frame) + "  " + Shown(frame.username);
  if (frame.type == "pong") return "pong          " + Shown(frame.timestamp);
  if (frame.type == "message") return DescribeMessage(frame);
  if (frame.type == "presence") {
    return "presence      " + Shown(frame.username) + " (" + Shown(frame.user_id) + ") is " + Shown(frame.status);
  }
  if (frame.type == "gap") return "gap           " + RoomOf(frame) + ": messages may be lost";
  if (frame.type == "auth") return "token         " + Shown(frame.status) + ", good until " + Shown(frame.expires_at);
  if (frame.type == "token_expiring") return "token         ends at " + Shown(frame.expires_at) + ": send a newer one";
  if (frame.type == "reconnect") {
    return "reconnect     to another server, in " + (frame.after_ms ? std::to_string(*frame.after_ms) : "?") + " ms";
  }
  if (frame.type == "error") {
    return "error " + (frame.code ? std::to_string(*frame.code) : std::string("?")) + "     " + Shown(frame.error);
  }
  return "other         " + Escaped(frame.raw, kShownBytesMax);
}

std::string DescribeClose(uint16_t code) {
  const std::string number = "closed with " + std::to_string(code) + ": ";
  switch (code) {
    case 1000:
      return number + "goodbye";
    case 1001:
      return number + "the server goes away; connect again";
    case 1002:
      return number + "this client broke the WebSocket protocol";
    case 1005:
      return number + "the server gave no reason";
    case 1006:
      return "the connection broke without a goodbye: the server or the network is gone";
    case 1007:
      return number + "text that is not UTF-8";
    case 1008:
      return number + "the token is bad or over, or nothing was sent for two heartbeat intervals";
    case 1009:
      return number + "a message was too long";
    case 1011:
      return number + "an error inside the server; see its log";
    case 1012:
      return number + "the server restarts; connect again";
    case 1013:
      return number + "this client read too slowly, or the server is full; connect again later";
    case 4401:
      return number + "the token has ended, or its session is logged out; get a new token";
    default:
      return number + "no meaning that this client knows";
  }
}

}  // namespace presence::edge::cli
