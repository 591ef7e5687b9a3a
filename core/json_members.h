// Looks at JSON that is to be passed on byte for byte: is it one object, and what are its members? Thread-safe: no state.
//
// A parser that makes values refuses texts which JSON allows and every browser reads: numbers beyond 64 bits, and escapes that are
// half of a surrogate pair, as a publisher makes by cutting a text in the middle of an emoji. This only checks the grammar.
#pragma once

#include <string_view>

#include "absl/functional/function_ref.h"

namespace presence::core {

// Deeper nesting is refused: the stack is finite.
inline constexpr int kJsonDepthMax = 512;

// False when `text` is not one JSON object in UTF-8 (RFC 8259), spaces around it allowed. Else each member, in its order: key
// and value as they are written, quotes and escapes included. What was handed out before a mistake is void.
bool ForEachMember(std::string_view text,
                   absl::FunctionRef<void(std::string_view key, std::string_view value)> on_member);

}  // namespace presence::core
