// The id of one connection, and how it is written down. Everywhere the same: on the link, in Redis, in logs.
#pragma once

#include <cstdint>
#include <string>

namespace presence {

// Shard, slot and generation of one connection of one edge process, packed into 64 bits. A slot is used again
// with the next generation, so a late order for its former owner is recognised.
struct ConnectionId {
  static constexpr unsigned kShardBits = 12, kSlotBits = 20, kGenerationBits = 32;

  uint32_t shard = 0;
  uint32_t slot = 0;
  uint32_t generation = 0;

  constexpr uint64_t Pack() const {
    return (uint64_t{shard} << (kSlotBits + kGenerationBits)) | (uint64_t{slot} << kGenerationBits) | generation;
  }
  static constexpr ConnectionId Unpack(uint64_t packed) {
    return {static_cast<uint32_t>(packed >> (kSlotBits + kGenerationBits)),
            static_cast<uint32_t>(packed >> kGenerationBits) & ((1u << kSlotBits) - 1), static_cast<uint32_t>(packed)};
  }
  friend bool operator==(const ConnectionId&, const ConnectionId&) = default;
};

// "conn-<incarnation>-<packed id>", both as 16 hexadecimal digits: unique over all edges and their restarts.
std::string ConnectionName(uint64_t incarnation, uint64_t packed_connection);

}  // namespace presence
