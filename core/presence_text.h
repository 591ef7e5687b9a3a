// The texts in which presence is stored and announced for other services, as the specification shows them:
// the value of presence:{user_id} and the message on presence:updates. Pure functions, thread-safe.
//
// The Redis store's script writes the same bytes (presence_transition.lua): keep both in step; the differential test
// compares them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "core/store.h"

namespace presence::core {

// "offline", "away", "online".
std::string_view StatusName(Status status);

// {"user_id":..,"username":..,"status":..,"connection_id":..,"last_seen":"..Z","version":N}
std::string FormatPresenceEntry(const StoredPresence& presence, std::string_view connection_name);

// {"origin":"presence.core/<16 hex>","type":"presence","user_id":..,"username":..,"status":..,"timestamp":"..Z",
//  "version":N}
std::string FormatPresenceUpdate(uint64_t core_incarnation, const StoredPresence& presence, int64_t changed_ms);

// Reads what somebody, perhaps another service, has stored for `user_id`. What is not a JSON object with a status of
// ours reads as OFFLINE; further members are ignored, and missing ones read as "not known".
StoredPresence ParsePresenceEntry(std::string_view user_id, std::string_view text);

// Milliseconds since the epoch of "2025-01-14T12:00:00", with or without a fraction, followed by nothing, "Z" or
// "+00:00"; 0 for anything else.
int64_t ParseTimestamp(std::string_view text);

}  // namespace presence::core
