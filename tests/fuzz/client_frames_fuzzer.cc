// Text frames from clients. What is read keeps the protocol's bounds, and what is answered with it is JSON that says the same room.
#include <nlohmann/json.hpp>
#include <string>

#include "common/json.h"
#include "common/utf8.h"
#include "edge/client_protocol.h"
#include "tests/fuzz/fuzz_target.h"

namespace presence::edge {
namespace {

using Type = ClientMessage::Type;

bool IsRoomId(std::string_view id) {
  return !id.empty() && id.size() <= kRoomIdBytesMax && id.find('\0') == std::string_view::npos &&
         Utf8Prefix(id, id.size()).size() == id.size();
}

void CheckRoomMessage(const ClientMessage& message, ClientMessageParser& parser) {
  PRESENCE_CHECK(IsRoomId(message.room_id), "a room id keeps the link's bounds");
  const bool is_channel = message.room_kind == link::v1::ROOM_KIND_CHANNEL;
  PRESENCE_CHECK(is_channel || message.room_kind == link::v1::ROOM_KIND_DM, "a room is a channel or a DM");
  const std::string room_id(message.room_id);
  const char* const field = is_channel ? "channel_id" : "dm_id";

  std::string answer;
  AppendSubscribed(message.room_kind, room_id, &answer);
  const nlohmann::json read = nlohmann::json::parse(answer, nullptr, false);
  PRESENCE_CHECK(!read.is_discarded() && read.value(field, "") == room_id, "a confirmation names the same room");

  const std::string again = std::string(R"({"type":"typing",")") + field + "\":" + JsonString(room_id) + "}";
  const auto reread = parser.Parse(again);
  PRESENCE_CHECK(reread.ok() && reread->type == Type::kTyping && reread->room_id == room_id,
                 "a room id survives being written and read");
}

void CheckRefusal(const absl::Status& status) {
  PRESENCE_CHECK(!status.message().empty() && status.message().size() < 100, "an error text is short");
  std::string frame;
  AppendError({status.message().data(), status.message().size()}, 400, &frame);
  PRESENCE_CHECK(nlohmann::json::accept(frame), "an error frame is JSON");
}

}  // namespace
}  // namespace presence::edge

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace presence::edge;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  static ClientMessageParser used;
  ClientMessageParser fresh;
  const auto message = used.Parse(text);
  const auto same = fresh.Parse(text);
  PRESENCE_CHECK(message.status() == same.status(), "a parser does not remember");
  if (!message.ok()) {
    CheckRefusal(message.status());
    return 0;
  }
  PRESENCE_CHECK(message->type == same->type && message->room_id == same->room_id, "a parser does not remember");
  PRESENCE_CHECK(nlohmann::json::accept(text), "what is understood is JSON");
  if (message->type == Type::kSubscribe || message->type == Type::kUnsubscribe || message->type == Type::kTyping) {
    CheckRoomMessage(*message, fresh);
  }
  return 0;
}
