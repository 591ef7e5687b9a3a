// Writing JSON text by hand, where a document tree would cost an allocation per frame. Thread-safe: no state.
#pragma once

#include <string>
#include <string_view>

namespace presence {

// Appends `text` as a JSON string, quotes included: `"`, `\` and control characters are escaped, everything
// else is copied byte for byte. `text` should be UTF-8; bytes that are not are replaced by U+FFFD, so that
// the output always parses.
void AppendJsonString(std::string_view text, std::string* out);

// The same as a value.
std::string JsonString(std::string_view text);

}  // namespace presence
