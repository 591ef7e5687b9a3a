// Looks at what a client sends before its TLS handshake is done, and refuses a hello that only wants memory.
//
// OpenSSL makes room for a whole message as soon as it has read the message's head: nine bytes of an empty promise cost
// 175 KB. A client may send two hellos (the second after a HelloRetryRequest, RFC 8446, section 4.1.4), cut into records
// as it likes; those two are looked at, and what follows is encrypted or short by OpenSSL's own rules.
//
// Pure.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace presence::edge {

class TlsHelloGuard {
 public:
  static constexpr size_t kHelloBytesMax = 16 * 1024;  // real ones have 200 to 2,000

  // The next bytes of the stream. False: refuse them.
  bool Admits(std::string_view bytes) {
    while (!bytes.empty() && messages_ < 2) {
      if (record_left_ == 0) {
        TakeRecordHead(Byte(bytes));
      } else if (record_head_[0] != kHandshake) {
        Skip(bytes, std::min<size_t>(record_left_, bytes.size()));
      } else if (message_left_ > 0) {
        const size_t size = std::min<size_t>({record_left_, message_left_, bytes.size()});
        Skip(bytes, size);
        message_left_ -= static_cast<uint32_t>(size);
      } else {
        --record_left_;
        if (!TakeMessageHead(Byte(bytes))) return false;
      }
    }
    return true;
  }

 private:
  static constexpr uint8_t kHandshake = 22;   // RFC 8446, section 5.1
  static constexpr uint8_t kClientHello = 1;  // section 4

  static uint8_t Byte(std::string_view& bytes) {
    const auto byte = static_cast<uint8_t>(bytes.front());
    bytes.remove_prefix(1);
    return byte;
  }
  void Skip(std::string_view& bytes, size_t size) {
    bytes.remove_prefix(size);
    record_left_ = static_cast<uint16_t>(record_left_ - size);
  }
  void TakeRecordHead(uint8_t byte) {
    record_head_[record_head_bytes_++] = byte;
    if (record_head_bytes_ < record_head_.size()) return;
    record_head_bytes_ = 0;
    record_left_ = static_cast<uint16_t>(record_head_[3] << 8 | record_head_[4]);
  }
  bool TakeMessageHead(uint8_t byte) {
    message_head_[message_head_bytes_++] = byte;
    if (message_head_bytes_ < message_head_.size()) return true;
    message_head_bytes_ = 0;
    ++messages_;
    message_left_ = static_cast<uint32_t>(message_head_[1] << 16 | message_head_[2] << 8 | message_head_[3]);
    return message_head_[0] != kClientHello || message_left_ <= kHelloBytesMax;
  }

  std::array<uint8_t, 5> record_head_{};
  std::array<uint8_t, 4> message_head_{};
  uint8_t record_head_bytes_ = 0, message_head_bytes_ = 0;
  uint8_t messages_ = 0;  // whose heads are complete
  uint16_t record_left_ = 0;
  uint32_t message_left_ = 0;
};

}  // namespace presence::edge
