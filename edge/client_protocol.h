// The JSON frames of the specification's "Message Types": reading what clients send, writing what the shard says of its own
// accord. Everything else that a client gets is written in core and passes through as text.
//
// Lives on the shard's thread. Reading allocates nothing once the parser has seen its largest message; writing appends to a string
// that the caller keeps.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "common/time.h"
#include "presence/link/v1/link.pb.h"

namespace presence::edge {

inline constexpr size_t kRoomIdBytesMax = 2048;         // as in link.proto
inline constexpr size_t kTokenTextBytesMax = 8 * 1024;  // as TokenVerifier::kTokenBytesMax
// A frame that shows such a token, and 512 bytes for the JSON around it.
inline constexpr size_t kAuthFrameBytesMax = kTokenTextBytesMax + 512;

struct ClientMessage {
  enum class Type : uint8_t { kSubscribe, kUnsubscribe, kTyping, kStatus, kPing, kAuth };
  Type type = Type::kPing;
  // kSubscribe, kUnsubscribe, kTyping. The view lives until the parser's next call.
  link::v1::RoomKind room_kind = link::v1::ROOM_KIND_UNSPECIFIED;
  std::string_view room_id;
  // kStatus: AWAY or ONLINE.
  link::v1::Status status = link::v1::STATUS_UNSPECIFIED;
  // kAuth: as given, at most kTokenTextBytesMax, not looked at further. The view lives until the parser's next call.
  std::string_view token;
};

class ClientMessageParser {
 public:
  ClientMessageParser();
  ~ClientMessageParser();
  ClientMessageParser(const ClientMessageParser&) = delete;
  ClientMessageParser& operator=(const ClientMessageParser&) = delete;

  // One text frame. INVALID_ARGUMENT for anything that is not a message of the specification: its text is meant for the client
  // (`error` frame, code 400), constant, and echoes nothing of the input.
  //
  // Strict where two readers could differ: one JSON object with nothing behind it, at most 16 levels deep; `type`, `channel_id`,
  // `dm_id`, `status` and `token` at most once each; room ids of 1 to 2,048 bytes of UTF-8 without NUL. Lenient where clients may grow:
  // further members, and members that the type does not use, are skipped.
  absl::StatusOr<ClientMessage> Parse(std::string_view text);

 private:
  struct Buffers;
  std::unique_ptr<Buffers> buffers_;
};

// Each appends one whole frame, with exactly the documented members in the documented order.
void AppendPong(WallTime now, std::string* out);
void AppendSubscribed(link::v1::RoomKind kind, std::string_view room_id, std::string* out);
void AppendUnsubscribed(link::v1::RoomKind kind, std::string_view room_id, std::string* out);
// Messages of the room may be lost.
void AppendGap(link::v1::RoomKind kind, std::string_view room_id, std::string* out);
void AppendError(std::string_view text, uint32_t code, std::string* out);
// The answer to `auth`: until when the new token is good.
void AppendAuthenticated(WallTime expires_at, std::string* out);
void AppendTokenExpiring(WallTime expires_at, std::string* out);
// A close follows: come back, to another edge, after so long.
void AppendReconnect(std::chrono::milliseconds after, std::string* out);

}  // namespace presence::edge
