// UTF-8 by hand, for what is written to others and must be well-formed. Thread-safe: no state.
#pragma once

#include <cstddef>
#include <string_view>

namespace presence {

// Length of the well-formed sequence at the start of `text`, or 0: not UTF-8 (RFC 3629, section 4). `text` is not empty.
size_t Utf8SequenceLength(std::string_view text);

// As much of the text as fits into so many bytes and is whole: it ends before the first sequence that is not, or is not UTF-8.
std::string_view Utf8Prefix(std::string_view text, size_t bytes_max);

}  // namespace presence
