#include "tests/fuzz/websocket_reference.h"

#include <algorithm>
#include <optional>

#include "common/utf8.h"

namespace presence::fuzz {
namespace {

using End = ReferenceReading::End;

constexpr uint8_t kContinuation = 0, kText = 1, kBinary = 2, kClose = 8, kPong = 10;

struct Frame {
  bool fin = false;
  uint8_t reserved = 0, opcode = 0;
  bool masked = false;
  uint64_t length = 0;
  bool shortest = true;  // the length is written in the fewest bytes (section 5.2)
  std::string payload;
};

// Section 5.2. Nothing when the header or the payload is not all there; `frame` then holds what is.
std::optional<size_t> ReadFrame(std::string_view bytes, Frame* frame) {
  if (bytes.size() < 2) return std::nullopt;
  const auto at = [&](size_t i) { return static_cast<uint8_t>(bytes[i]); };
  frame->fin = (at(0) & 0x80) != 0;
  frame->reserved = at(0) & 0x70;
  frame->opcode = at(0) & 0x0F;
  frame->masked = (at(1) & 0x80) != 0;
  frame->length = at(1) & 0x7F;
  const size_t length_bytes = frame->length == 126 ? 2 : frame->length == 127 ? 8 : 0;
  const size_t header = 2 + length_bytes + (frame->masked ? 4 : 0);
  if (bytes.size() < header) return std::nullopt;
  if (length_bytes > 0) {
    frame->length = 0;
    for (size_t i = 0; i < length_bytes; ++i) frame->length = frame->length << 8 | at(2 + i);
    frame->shortest = frame->length >= (length_bytes == 2 ? 126u : 65'536u);
  }
  if (bytes.size() - header < frame->length) return std::nullopt;
  frame->payload = bytes.substr(header, frame->length);
  for (size_t i = 0; frame->masked && i < frame->payload.size(); ++i) {
    frame->payload[i] = static_cast<char>(frame->payload[i] ^ bytes[header - 4 + i % 4]);
  }
  return header + frame->length;
}

bool IsControl(uint8_t opcode) {
  return (opcode & 8) != 0;
}

// Sections 5.1, 5.2 and 5.5: what is wrong with a frame by itself.
bool IsWellFormed(const Frame& frame) {
  if (!frame.masked || frame.reserved != 0 || !frame.shortest || frame.length > 0x7FFFFFFFFFFFFFFF) return false;
  if (IsControl(frame.opcode)) return frame.opcode <= kPong && frame.fin && frame.length <= 125;
  return frame.opcode <= kBinary;
}

// How much of the text is whole characters, and whether the rest may be the beginning of one (section 8.1).
bool MayBecomeUtf8(std::string_view text) {
  const std::string_view rest = text.substr(Utf8Prefix(text, text.size()).size());
  if (rest.empty()) return true;
  if (rest.size() > 3) return false;
  // Some continuation completes it: the ranges of a second byte (RFC 3629, section 4) lie within these.
  for (const char* const tail : {"\x80\x80\x80", "\x90\x80\x80", "\x9F\x80\x80", "\xA0\x80\x80", "\xBF\xBF\xBF"}) {
    for (size_t more = 1; more <= 3; ++more) {
      std::string whole(rest);
      whole.append(tail, more);
      if (Utf8SequenceLength(whole) == whole.size()) return true;
    }
  }
  return false;
}

bool IsUtf8(std::string_view text) {
  return Utf8Prefix(text, text.size()).size() == text.size();
}

// Section 7.4; 1012 to 1014 are of IANA's registry.
bool MayBeReceived(uint16_t code) {
  return (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) || (code >= 3000 && code <= 4999);
}

class Reference {
 public:
  explicit Reference(size_t message_bytes_max) : message_bytes_max_(message_bytes_max) {}

  ReferenceReading Read(std::string_view bytes) {
    while (!bytes.empty() && reading_.end == End::kOpen) {
      Frame frame;
      const auto size = ReadFrame(bytes, &frame);
      if (!size) {
        reading_.end = End::kPartial;
        break;
      }
      bytes.remove_prefix(*size);
      if (!IsWellFormed(frame) || !(IsControl(frame.opcode) ? OnControl(frame) : OnData(frame))) {
        reading_.end = End::kBroken;
      }
    }
    return reading_;
  }

 private:
  bool OnControl(const Frame& frame) {
    if (frame.opcode != kClose) {
      reading_.events.emplace_back("control");
      return true;
    }
    if (frame.payload.size() == 1) return false;
    reading_.code = 1005;
    if (!frame.payload.empty()) {
      reading_.code =
          static_cast<uint16_t>(static_cast<uint8_t>(frame.payload[0]) << 8 | static_cast<uint8_t>(frame.payload[1]));
      if (!MayBeReceived(reading_.code) || !IsUtf8(std::string_view(frame.payload).substr(2))) return false;
    }
    reading_.end = End::kClosed;
    return true;
  }

  // Section 5.4.
  bool OnData(const Frame& frame) {
    if ((frame.opcode == kContinuation) != inside_message_) return false;
    if (frame.opcode != kContinuation) {
      is_text_ = frame.opcode == kText;
      message_.clear();
    }
    if (message_.size() + frame.length > message_bytes_max_) return false;
    message_ += frame.payload;
    inside_message_ = !frame.fin;
    if (is_text_ && !(frame.fin ? IsUtf8(message_) : MayBecomeUtf8(message_))) return false;
    if (frame.fin) reading_.events.push_back((is_text_ ? "text " : "binary ") + message_);
    return true;
  }

  const size_t message_bytes_max_;
  bool inside_message_ = false, is_text_ = false;
  std::string message_;
  ReferenceReading reading_;
};

}  // namespace

ReferenceReading ReadAsReference(std::string_view bytes, size_t message_bytes_max) {
  return Reference(message_bytes_max).Read(bytes);
}

}  // namespace presence::fuzz
