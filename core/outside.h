// What other services publish on message:broadcast and presence:updates: untrusted text, valid or not.
//
// One thread: a reader holds a parser whose buffers are used again. A text is checked as a whole, so that what is not a JSON
// object in UTF-8 never gets further. Copies by cores (kCopyPrefix) are to be skipped before: they are not told apart here.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace presence::core {

// Ids on the link: 1 to 2,048 bytes without NUL. UTF-8 is the matter of whoever parsed them.
inline constexpr size_t kIdBytesMax = 2048;
bool IsValidId(std::string_view id);

struct OutsidePresence {
  std::string user_id;
  std::string username;     // empty when it is absent or null
  std::string_view status;  // constant text: "online", "away" or "offline"
  std::string timestamp;
};

class OutsideReader {
 public:
  // What a client can be sent in one frame.
  static constexpr size_t kMessageBytesMax = size_t{1} << 20;
  // Two ids, all escaped: 2 x 6 x 2,048 bytes, and as much again for members that others may add.
  static constexpr size_t kPresenceBytesMax = 64 * 1024;
  static constexpr size_t kTimestampBytesMax = 64;

  OutsideReader();
  ~OutsideReader();

  // The room of a message. INVALID_ARGUMENT with a reason in constant words, which never repeat the input. Of members with the same
  // name the last one counts, as in most parsers.
  absl::StatusOr<std::string> ReadRoomId(std::string_view text);
  absl::StatusOr<OutsidePresence> ReadPresence(std::string_view text);

 private:
  struct Parser;
  std::unique_ptr<Parser> parser_;
};

}  // namespace presence::core
