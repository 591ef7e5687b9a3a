// Patterns of room ids, as tokens and backends say them. First line: the pattern; the rest: a room id. Held against the plain way to match,
// which takes the product of both lengths.
#include <string>
#include <vector>

#include "common/room_rights.h"
#include "tests/fuzz/fuzz_target.h"

namespace presence {
namespace {

bool MatchesPlainly(std::string_view pattern, std::string_view text) {
  if (pattern.empty()) return false;
  // reach[j]: the pattern so far matches the first j bytes.
  std::vector<char> reach(text.size() + 1, 0);
  reach[0] = 1;
  for (const char c : pattern) {
    std::vector<char> next(text.size() + 1, 0);
    for (size_t j = 0; j <= text.size(); ++j) {
      if (c == '*') {
        next[j] = reach[j] != 0 || (j > 0 && next[j - 1] != 0);
      } else {
        next[j] = j > 0 && reach[j - 1] != 0 && text[j - 1] == c;
      }
    }
    reach = std::move(next);
  }
  return reach[text.size()] != 0;
}

}  // namespace
}  // namespace presence

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace presence;
  fuzz::ByteSource in(data, size);
  const std::string_view pattern = in.Line();
  const std::string_view room_id = in.rest();
  const bool matches = MatchesRoomPattern(pattern, room_id);
  PRESENCE_CHECK(matches == MatchesPlainly(pattern, room_id), "both ways to match agree");

  RoomRights rights;
  const bool added = rights.Add(RoomRight::kRead, pattern);
  const RoomRight found = rights.In(room_id);
  PRESENCE_CHECK(found != RoomRight::kWrite, "a right to read is none to write");
  PRESENCE_CHECK(added || rights.empty(), "what is left out grants nothing");
  PRESENCE_CHECK((found == RoomRight::kRead) == (added && matches), "a right is that of its pattern");
  return 0;
}
