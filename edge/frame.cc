#include "edge/frame.h"

#include <cstring>
#include <limits>

#include "common/check.h"

namespace presence::edge {
namespace {

constexpr char kFinText = static_cast<char>(0x81);
// RFC 6455, section 5.2: a length up to 125 stands in the second byte; 126 and 127 say that 16 or 64 bits follow.
constexpr size_t kShortLengthMax = 125;
constexpr size_t kFrameHeaderBytesMax = 10;

}  // namespace

FrameRef FrameRef::Make(std::string_view header, std::string_view payload) {
  const size_t size = header.size() + payload.size();
  PRESENCE_CHECK(size <= std::numeric_limits<uint32_t>::max(), "a frame is below 4 GiB");
  void* memory = std::malloc(sizeof(Block) + size);
  PRESENCE_CHECK(memory != nullptr, "memory for a frame");
  FrameRef frame;
  frame.block_ = new (memory) Block{1, static_cast<uint32_t>(size)};
  char* bytes = reinterpret_cast<char*>(frame.block_ + 1);
  if (!header.empty()) std::memcpy(bytes, header.data(), header.size());
  if (!payload.empty()) std::memcpy(bytes + header.size(), payload.data(), payload.size());
  return frame;
}

FrameRef FrameRef::Text(std::string_view text) {
  char header[kFrameHeaderBytesMax] = {kFinText};
  size_t header_size = 2;
  if (text.size() <= kShortLengthMax) {
    header[1] = static_cast<char>(text.size());
  } else {
    const size_t length_bytes = text.size() <= std::numeric_limits<uint16_t>::max() ? 2 : 8;
    header[1] = length_bytes == 2 ? 126 : 127;
    for (size_t i = 0; i < length_bytes; ++i) {
      header[2 + i] = static_cast<char>(static_cast<uint64_t>(text.size()) >> (8 * (length_bytes - 1 - i)));
    }
    header_size += length_bytes;
  }
  return Make({header, header_size}, text);
}

FrameRef FrameRef::Raw(std::string_view bytes) {
  return Make({}, bytes);
}

}  // namespace presence::edge
