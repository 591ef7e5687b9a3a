// What RFC 6455 says about the bytes of a client, written down a second time and as plainly as possible: the oracle of the engine's fuzzer.
//
// Reads all bytes at once. Knows no extensions. The engine must report the same events in the same order; where the bytes break the
// protocol or stop in the middle, it may only end.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace presence::fuzz {

struct ReferenceReading {
  std::vector<std::string> events;  // "text ...", "binary ...", "control", as they must have been reported
  enum class End : uint8_t {
    kOpen,     // every frame was good and whole
    kClosed,   // by a good close frame, whose code is `code`; 1005 when it had none
    kBroken,   // the next frame breaks the protocol
    kPartial,  // the next frame is not whole: whether it is good cannot be said yet
  };
  End end = End::kOpen;
  uint16_t code = 0;
};

// `message_bytes_max`: a longer message breaks the protocol.
ReferenceReading ReadAsReference(std::string_view bytes, size_t message_bytes_max);

}  // namespace presence::fuzz
