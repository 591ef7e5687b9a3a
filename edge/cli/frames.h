// The client's side of the protocol: the frames it sends, and what it makes of those that come.
//
// Pure functions. The server's side is client_protocol.h; this one is written apart on purpose, from the specification alone, so
// that the test client does not share the server's mistakes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace presence::edge::cli {

// A room as a person writes it: "channel_general", "#general" (short for it), "dm:dm_123".
struct Room {
  std::string id;
  bool is_dm = false;
};
// INVALID_ARGUMENT: empty, or blanks inside.
absl::StatusOr<Room> ParseRoom(std::string_view text);
std::string RoomText(const Room& room);

std::string SubscribeFrame(const Room& room);
std::string UnsubscribeFrame(const Room& room);
std::string TypingFrame(const Room& room);
std::string StatusFrame(std::string_view status);
std::string PingFrame();
std::string AuthFrame(std::string_view token);

// A frame from the server, as far as the test client looks into it. Absent and null members are nullopt.
struct ServerFrame {
  std::string type;  // "" when the frame is not a JSON object with a type
  std::optional<std::string> channel_id, dm_id, user_id, username, status, timestamp, expires_at, error;
  std::optional<int64_t> code, after_ms;
  bool has_both_room_members = false;  // channel_id and dm_id are there, be it as null
  std::string raw;
};
ServerFrame ParseServerFrame(std::string_view text);

// Whether the frame is about that room, as a channel or as a DM.
bool Concerns(const ServerFrame& frame, const Room& room);

// One readable line; safe for a terminal, whatever the frame holds.
std::string Describe(const ServerFrame& frame);

// What a close code means to a client, and what to do about it.
std::string DescribeClose(uint16_t code);

}  // namespace presence::edge::cli
