// Page tokens, connection names and other texts of the API. A token that is taken is exactly the one that was made.
#include <string>

#include "core/api_pages.h"
#include "core/api_text.h"
#include "tests/fuzz/fuzz_target.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace presence::core;
  presence::fuzz::ByteSource in(data, size);
  const auto kind = static_cast<PageKind>(1 + in.Byte() % 4);
  const std::string_view arguments = in.Take(in.Byte() % 32);
  const std::string_view text = in.rest();
  const PageScope scope{kind, arguments};

  if (const auto cursor = ReadPageToken(scope, text); cursor.ok() && !text.empty()) {
    PRESENCE_CHECK(MakePageToken(scope, *cursor) == text, "a token that is taken was made here");
  }
  if (!text.empty() && text.size() <= kIdBytesMax) {
    const std::string token = MakePageToken(scope, text);
    const auto cursor = ReadPageToken(scope, token);
    PRESENCE_CHECK(cursor.ok() && *cursor == text, "a token says its cursor");
    PRESENCE_CHECK(
        !ReadPageToken({kind == PageKind::kRooms ? PageKind::kMembers : PageKind::kRooms, arguments}, token).ok(),
        "a token is good for its own call");
  }
  if (const auto name = ReadConnectionCursor(text); name.ok()) {
    PRESENCE_CHECK(ConnectionCursor(*name) == text, "a cursor names one connection");
  }
  if (const auto name = ReadConnectionName(text); name.ok()) {
    PRESENCE_CHECK(ConnectionText(*name) == text, "a connection has one name");
  }
  if (CheckId(text).ok()) {
    PRESENCE_CHECK(!text.empty() && text.size() <= kIdBytesMax && text.find('\0') == std::string_view::npos,
                   "an id keeps its bounds");
  }
  const bool is_object = CheckJsonObject(text).ok();
  PRESENCE_CHECK(!is_object || text.find('{') != std::string_view::npos, "a payload is an object");
  return 0;
}
