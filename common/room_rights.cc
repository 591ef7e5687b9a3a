#include "common/room_rights.h"

#include <algorithm>
#include <cstring>

namespace presence {

bool MatchesRoomPattern(std::string_view pattern, std::string_view room_id) {
  const size_t first = pattern.find('*');
  if (first == std::string_view::npos) return !pattern.empty() && pattern == room_id;
  if (!room_id.starts_with(pattern.substr(0, first))) return false;
  room_id.remove_prefix(first);
  const size_t last = pattern.rfind('*');
  const std::string_view end = pattern.substr(last + 1);
  if (!room_id.ends_with(end)) return false;
  room_id.remove_suffix(end.size());
  // What stands between two stars may be taken where it is first found: whatever would match behind a later place does so behind that.
  for (size_t at = first + 1; at <= last;) {
    const size_t star = pattern.find('*', at);
    const std::string_view middle = pattern.substr(at, star - at);
    at = star + 1;
    if (middle.empty()) continue;
    // Not std::string_view::find, which takes the product of both lengths for a text such as aaaa...
    const void* found = memmem(room_id.data(), room_id.size(), middle.data(), middle.size());
    if (found == nullptr) return false;
    const size_t skipped = static_cast<size_t>(static_cast<const char*>(found) - room_id.data());
    room_id.remove_prefix(skipped + middle.size());
  }
  return true;
}

bool RoomRights::Add(RoomRight right, std::string_view pattern) {
  if (right == RoomRight::kNone || pattern.empty() || pattern.size() > kPatternBytesMax ||
      pattern.find('\0') != std::string_view::npos) {
    return false;
  }
  if (write_.size() + read_.size() >= kPatternsMax || bytes_ + pattern.size() > kBytesMax) return false;
  (right == RoomRight::kWrite ? write_ : read_).emplace_back(pattern);
  bytes_ += pattern.size();
  return true;
}

RoomRight RoomRights::In(std::string_view room_id) const {
  const auto matches = [room_id](const std::string& pattern) { return MatchesRoomPattern(pattern, room_id); };
  if (std::any_of(write_.begin(), write_.end(), matches)) return RoomRight::kWrite;
  return std::any_of(read_.begin(), read_.end(), matches) ? RoomRight::kRead : RoomRight::kNone;
}

}  // namespace presence
