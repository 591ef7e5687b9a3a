#include "edge/client_protocol.h"

#include <simdjson.h>

#include <optional>

#include "common/check.h"
#include "common/json.h"

namespace presence::edge {
namespace {

using link::v1::RoomKind;
using Type = ClientMessage::Type;

constexpr size_t kDepthMax = 16;           // the documented messages need 1
constexpr size_t kCapacityAtStart = 1024;  // bytes; grows to the largest message seen, which the socket loop bounds

absl::Status Invalid(const char* text) {
  return absl::InvalidArgumentError(text);
}

// The members that mean something, wherever they stand in the object.
struct Members {
  std::optional<simdjson::dom::element> type, channel_id, dm_id, status, token;
};

absl::StatusOr<Members> Collect(simdjson::dom::object object) {
  Members members;
  for (const auto [key, value] : object) {
    std::optional<simdjson::dom::element>* member = nullptr;
    if (key == "type") member = &members.type;
    if (key == "channel_id") member = &members.channel_id;
    if (key == "dm_id") member = &members.dm_id;
    if (key == "status") member = &members.status;
    if (key == "token") member = &members.token;
    if (member == nullptr) continue;
    // Which one counts differs between JSON readers (RFC 8259, section 4), so neither does.
    if (member->has_value()) return Invalid("Duplicate member");
    *member = value;
  }
  return members;
}

std::optional<std::string_view> StringOf(const std::optional<simdjson::dom::element>& element) {
  std::string_view text;
  if (!element.has_value() || element->get_string().get(text) != simdjson::SUCCESS) return std::nullopt;
  return text;
}

std::optional<Type> TypeOf(std::string_view name) {
  if (name == "ping") return Type::kPing;
  if (name == "typing") return Type::kTyping;
  if (name == "subscribe") return Type::kSubscribe;
  if (name == "unsubscribe") return Type::kUnsubscribe;
  if (name == "status") return Type::kStatus;
  if (name == "auth") return Type::kAuth;
  return std::nullopt;
}

absl::Status ReadRoom(const Members& members, ClientMessage* message) {
  const auto given = [](const std::optional<simdjson::dom::element>& element) {
    return element.has_value() && !element->is_null();
  };
  const bool channel = given(members.channel_id);
  if (channel == given(members.dm_id)) return Invalid("Exactly one of channel_id and dm_id is required");
  const std::optional<std::string_view> id = StringOf(channel ? members.channel_id : members.dm_id);
  if (!id.has_value()) return Invalid("A room id must be a string");
  if (id->empty() || id->size() > kRoomIdBytesMax) return Invalid("A room id must have 1 to 2048 bytes");
  // Older simdjson makes bytes that are not UTF-8 of a lone "\udc00"; no protobuf string may carry those, and one that does would end
  // the link for everybody.
  if (id->find('\0') != std::string_view::npos || !simdjson::validate_utf8(id->data(), id->size())) {
    return Invalid("A room id must be valid Unicode without NUL");
  }
  message->room_kind = channel ? RoomKind::ROOM_KIND_CHANNEL : RoomKind::ROOM_KIND_DM;
  message->room_id = *id;
  return absl::OkStatus();
}

absl::Status ReadStatus(const Members& members, ClientMessage* message) {
  const std::optional<std::string_view> status = StringOf(members.status);
  if (status == "online") {
    message->status = link::v1::STATUS_ONLINE;
  } else if (status == "away") {
    message->status = link::v1::STATUS_AWAY;
  } else {
    return Invalid("Invalid status");
  }
  return absl::OkStatus();
}

absl::Status ReadToken(const Members& members, ClientMessage* message) {
  const std::optional<std::string_view> token = StringOf(members.token);
  if (!token.has_value() || token->empty()) return Invalid("A token is required");
  if (token->size() > kTokenTextBytesMax) return Invalid("A token must have at most 8192 bytes");
  message->token = *token;
  return absl::OkStatus();
}

void AppendConfirmation(std::string_view head, RoomKind kind, std::string_view room_id, std::string* out) {
  out->append(head);
  out->append(R"(,"channel_id":)");
  if (kind == RoomKind::ROOM_KIND_CHANNEL) {
    AppendJsonString(room_id, out);
    out->append(R"(,"dm_id":null})");
  } else {
    out->append(R"(null,"dm_id":)");
    AppendJsonString(room_id, out);
    out->push_back('}');
  }
}

}  // namespace

struct ClientMessageParser::Buffers {
  simdjson::dom::parser parser;
};

ClientMessageParser::ClientMessageParser() : buffers_(std::make_unique<Buffers>()) {
  PRESENCE_CHECK(buffers_->parser.allocate(kCapacityAtStart, kDepthMax) == simdjson::SUCCESS,
                 "there is memory at the start");
}

ClientMessageParser::~ClientMessageParser() = default;

absl::StatusOr<ClientMessage> ClientMessageParser::Parse(std::string_view text) {
  simdjson::dom::element root;
  if (buffers_->parser.parse(text.data(), text.size()).get(root) != simdjson::SUCCESS) {
    return Invalid("Invalid JSON");
  }
  simdjson::dom::object object;
  if (root.get_object().get(object) != simdjson::SUCCESS) return Invalid("A message must be a JSON object");
  const absl::StatusOr<Members> members = Collect(object);
  if (!members.ok()) return members.status();

  const std::optional<std::string_view> name = StringOf(members->type);
  const std::optional<Type> type = name.has_value() ? TypeOf(*name) : std::nullopt;
  if (!type.has_value()) return Invalid("Invalid message type");  // the specification's words

  ClientMessage message;
  message.type = *type;
  absl::Status status;
  switch (*type) {
    case Type::kSubscribe:
    case Type::kUnsubscribe:
    case Type::kTyping:
      status = ReadRoom(*members, &message);
      break;
    case Type::kStatus:
      status = ReadStatus(*members, &message);
      break;
    case Type::kAuth:
      status = ReadToken(*members, &message);
      break;
    case Type::kPing:
      break;
  }
  if (!status.ok()) return status;
  return message;
}

void AppendPong(WallTime now, std::string* out) {
  out->append(R"({"type":"pong","timestamp":")").append(FormatTimestamp(now)).append("\"}");
}

void AppendSubscribed(RoomKind kind, std::string_view room_id, std::string* out) {
  AppendConfirmation(R"({"type":"subscribed")", kind, room_id, out);
}

void AppendUnsubscribed(RoomKind kind, std::string_view room_id, std::string* out) {
  AppendConfirmation(R"({"type":"unsubscribed")", kind, room_id, out);
}

void AppendGap(RoomKind kind, std::string_view room_id, std::string* out) {
  AppendConfirmation(R"({"type":"gap")", kind, room_id, out);
}

void AppendError(std::string_view text, uint32_t code, std::string* out) {
  out->append(R"({"type":"error","error":)");
  AppendJsonString(text, out);
  out->append(R"(,"code":)").append(std::to_string(code)).push_back('}');
}

void AppendAuthenticated(WallTime expires_at, std::string* out) {
  out->append(R"({"type":"auth","status":"ok","expires_at":")").append(FormatTimestamp(expires_at)).append("\"}");
}

void AppendTokenExpiring(WallTime expires_at, std::string* out) {
  out->append(R"({"type":"token_expiring","expires_at":")").append(FormatTimestamp(expires_at)).append("\"}");
}

void AppendReconnect(std::chrono::milliseconds after, std::string* out) {
  out->append(R"({"type":"reconnect","after_ms":)").append(std::to_string(after.count())).push_back('}');
}

}  // namespace presence::edge
