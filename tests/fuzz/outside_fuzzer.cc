// What others publish on message:broadcast and presence:updates. Two readers of each text must agree on what it is.
#include <nlohmann/json.hpp>
#include <string>

#include "core/client_text.h"
#include "core/json_members.h"
#include "core/outside.h"
#include "tests/fuzz/fuzz_target.h"

namespace presence::core {
namespace {

void CheckMessage(OutsideReader& reader, std::string_view text) {
  const auto room_id = reader.ReadRoomId(text);
  const bool is_object = ForEachMember(text, [&](std::string_view key, std::string_view value) {
    PRESENCE_CHECK(key.size() >= 2 && key.front() == '"' && key.back() == '"' && !value.empty(),
                   "a member has a key and a value");
    PRESENCE_CHECK(key.data() >= text.data() && value.data() + value.size() <= text.data() + text.size(),
                   "members are parts of the text");
  });
  if (!room_id.ok()) {
    PRESENCE_CHECK(room_id.status().message().size() < 100, "a reason is short");
    return;
  }
  PRESENCE_CHECK(is_object && IsValidId(*room_id) && text.size() <= OutsideReader::kMessageBytesMax,
                 "a message keeps the bounds");
  const nlohmann::json other = nlohmann::json::parse(text, nullptr, false);
  // It refuses a little that browsers read (a lone half of a pair); where it reads, it reads the same.
  if (!other.is_discarded()) {
    PRESENCE_CHECK(other.value("room_id", "") == *room_id, "both readers see the same room");
  }
}

void CheckPresence(OutsideReader& reader, std::string_view text) {
  const auto presence = reader.ReadPresence(text);
  if (!presence.ok()) {
    PRESENCE_CHECK(presence.status().message().size() < 100, "a reason is short");
    return;
  }
  PRESENCE_CHECK(IsValidId(presence->user_id) && presence->username.size() <= kIdBytesMax &&
                     presence->timestamp.size() <= OutsideReader::kTimestampBytesMax,
                 "a change keeps the bounds");
  const std::string frame =
      PresenceFrame({presence->user_id, presence->username, presence->status, presence->timestamp});
  const auto again = reader.ReadPresence(frame);
  PRESENCE_CHECK(again.ok(), "a frame made of a change is one");
  PRESENCE_CHECK(again->status == presence->status, "and says the same");
}

}  // namespace
}  // namespace presence::core

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace presence::core;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  static OutsideReader reader;
  CheckMessage(reader, text);
  CheckPresence(reader, text);
  return 0;
}
