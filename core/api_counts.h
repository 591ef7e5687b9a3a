// Counts of connections as the API tells them: int32, where a larger one is the largest. Any thread.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include "absl/types/span.h"
#include "presence/link/v1/link.pb.h"

namespace presence::core {

inline int32_t ToCount(uint64_t count) {
  return static_cast<int32_t>(std::min<uint64_t>(count, std::numeric_limits<int32_t>::max()));
}

// What the cores have counted, together.
inline int32_t CountOf(absl::Span<const link::v1::ClusterReply> replies) {
  uint64_t sum = 0;
  for (const link::v1::ClusterReply& reply : replies) sum += reply.count().count();
  return ToCount(sum);
}

}  // namespace presence::core
