// One WebSocket message as it goes over the wire, built once and shared by everybody who gets it.
//
// Immutable after it is made. The reference count is not atomic: a frame lives and dies on its shard's thread. Header, count
// and bytes are one allocation.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <string_view>
#include <utility>

namespace presence::edge {

class FrameRef {
 public:
  FrameRef() = default;
  FrameRef(const FrameRef& other) : block_(other.block_) {
    if (block_ != nullptr) ++block_->references;
  }
  FrameRef(FrameRef&& other) noexcept : block_(std::exchange(other.block_, nullptr)) {}
  FrameRef& operator=(FrameRef other) noexcept {
    std::swap(block_, other.block_);
    return *this;
  }
  ~FrameRef() {
    if (block_ != nullptr && --block_->references == 0) std::free(block_);
  }

  // A text message in one frame: FIN, no mask (RFC 6455, section 5.2). `text` must be valid UTF-8.
  static FrameRef Text(std::string_view text);
  // Bytes as they are: what the WebSocket engine wants written.
  static FrameRef Raw(std::string_view bytes);

  explicit operator bool() const { return block_ != nullptr; }
  // Of a non-empty reference only.
  std::string_view bytes() const { return {reinterpret_cast<const char*>(block_ + 1), block_->size}; }

 private:
  struct Block {
    uint32_t references;
    uint32_t size;
  };
  static FrameRef Make(std::string_view header, std::string_view payload);

  Block* block_ = nullptr;
};

// How a frame behaves when its reader is slow.
enum class SendClass : uint8_t {
  kReliable,  // never dropped: past the bound the connection is closed with 1013
  kVolatile,  // dropped once more than half of the bound is queued
  kLatest,    // replaces what is still queued with the same key; never dropped
};

struct SendPolicy {
  SendClass send_class = SendClass::kReliable;
  uint32_t key = 0;  // kLatest only: one number for each user whose presence it is; UINT32_MAX is the socket loop's
};

}  // namespace presence::edge
