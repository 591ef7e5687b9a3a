// Who knows who may be in which room, as an interface: sets in Redis (redis_rights.h) or a backend (grpc_room_authorizer.h).
//
// Lives on the core's loop thread. A question is answered exactly once, later, on the same thread, never from inside Ask. What cannot be
// asked or is not answered in time is answered with kUnavailable: the hub decides what that means. Remembers nothing (room_access.h does).
#pragma once

#include <chrono>
#include <cstdint>
#include <string_view>

#include "common/room_rights.h"

namespace presence::core {

// The views live for the call.
struct RoomQuestion {
  uint64_t id = 0;  // the hub's; comes back with the answer
  std::string_view user_id, username, room_id;
};

struct RoomAnswer {
  enum class Outcome : uint8_t { kAnswered, kUnavailable };
  Outcome outcome = Outcome::kUnavailable;
  RoomRight right = RoomRight::kNone;      // kAnswered
  std::chrono::milliseconds cache_for{0};  // 0: as the core is set
};

class RoomRightListener {
 public:
  virtual ~RoomRightListener() = default;
  virtual void OnRoomRight(uint64_t id, const RoomAnswer& answer) = 0;
};

class RoomAuthorizer {
 public:
  virtual ~RoomAuthorizer() = default;
  virtual void Ask(const RoomQuestion& question) = 0;
};

}  // namespace presence::core
