// The JSON texts that the core writes: frames for clients, and copies of messages for outside listeners.
//
// Pure functions, thread-safe. Frames have exactly the members that the specification documents, in its order.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "core/store.h"
#include "presence/link/v1/link.pb.h"

namespace presence::core {

// What every copy for outsiders starts with, and nothing else does: by it cores skip their own and each other's copies.
inline constexpr std::string_view kCopyPrefix = "{\"origin\":\"presence.core/";

// {"type":"message","data":<data_json>}
std::string MessageFrame(std::string_view data_json);

// {"origin":"presence.core/<16 hex>","room_id":"..","type":"message","data":<data_json>}, for message:broadcast.
std::string MessageCopy(uint64_t core_incarnation, std::string_view room_id, std::string_view data_json);

// {"type":"typing","channel_id":"..","dm_id":null,"user_id":"..","username":".."}; for a DM the other way round.
std::string TypingFrame(const link::v1::RoomTyping& typing);

// {"type":"presence","user_id":"..","username":"..","status":"..","timestamp":".."}. A name that is not known is empty.
struct PresenceFrameFields {
  std::string_view user_id, username, status, timestamp;
};
std::string PresenceFrame(const PresenceFrameFields& fields);

// {"type":"error","error":"..","code":403}, as the edge writes it.
std::string ErrorFrame(std::string_view text, uint32_t code);

}  // namespace presence::core
