#include "core/frame_gatherer.h"

#include <google/protobuf/io/coded_stream.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "common/check.h"

namespace presence::core {
namespace {

using google::protobuf::io::CodedOutputStream;
using link::v1::CoreCommand;
using link::v1::CoreFrame;

// Field `commands`, wire type 2 (length-delimited).
constexpr uint8_t kCommandsTag = CoreFrame::kCommandsFieldNumber << 3 | 2;
static_assert(CoreFrame::kCommandsFieldNumber < 16, "the tag is one byte");

constexpr size_t kCapacityMin = 4 * 1024;

}  // namespace

uint8_t* FrameGatherer::Buffer::Grow(size_t more) {
  if (size + more > capacity) {
    const size_t wider = std::max({size + more, 2 * capacity, kCapacityMin});
    auto moved = std::make_unique_for_overwrite<uint8_t[]>(wider);
    if (size > 0) std::memcpy(moved.get(), data.get(), size);
    data = std::move(moved);
    capacity = wider;
  }
  uint8_t* end = data.get() + size;
  size += more;
  return end;
}

void FrameGatherer::Append(const CoreCommand& command) {
  const size_t length = command.ByteSizeLong();  // also caches the sizes that serialising needs
  const size_t encoded = 1 + CodedOutputStream::VarintSize64(length) + length;
  if (frames_.empty() || frames_.back().size + encoded > frame_bytes_max_) {
    frames_.push_back(std::exchange(spare_, {}));
  }
  uint8_t* at = frames_.back().Grow(encoded);
  *at++ = kCommandsTag;
  at = CodedOutputStream::WriteVarint64ToArray(length, at);
  command.SerializeWithCachedSizesToArray(at);
  bytes_ += encoded;
}

std::string_view FrameGatherer::Front() const {
  PRESENCE_CHECK(!frames_.empty(), "there is a frame to look at");
  return {reinterpret_cast<const char*>(frames_.front().data.get()), frames_.front().size};
}

void FrameGatherer::Pop() {
  PRESENCE_CHECK(!frames_.empty(), "there is a frame to pop");
  Buffer& front = frames_.front();
  bytes_ -= front.size;
  front.size = 0;
  // A buffer that one huge command has widened is not worth keeping.
  if (front.capacity <= 2 * frame_bytes_max_ && front.capacity > spare_.capacity) spare_ = std::move(front);
  frames_.pop_front();
}

void FrameGatherer::Clear() {
  frames_.clear();
  spare_ = {};
  bytes_ = 0;
}

void ClearForReuse(CoreCommand& command) {
  switch (command.command_case()) {
    case CoreCommand::kDeliver:
      command.mutable_deliver()->Clear();
      break;
    case CoreCommand::kDeliverPresence:
      command.mutable_deliver_presence()->Clear();
      break;
    case CoreCommand::kBind:
      command.mutable_bind()->Clear();
      break;
    case CoreCommand::kUnbind:
      command.mutable_unbind()->Clear();
      break;
    case CoreCommand::kAcknowledge:
      command.mutable_acknowledge()->Clear();
      break;
    default:  // the rest is rare
      command.Clear();
      break;
  }
}

}  // namespace presence::core
