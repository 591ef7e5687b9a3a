// What the configuration of the edge means for each of its shards. Pure.
#pragma once

#include <cstdint>

#include "edge/core_link.h"
#include "edge/shard.h"
#include "edge/shard_thread.h"
#include "edge/socket_loop.h"

namespace presence::edge {

ShardOptions ShardOptionsOf(const EdgeContext& context, uint32_t shard);
SocketLoopOptions SocketOptionsOf(const EdgeContext& context, uint16_t port);
CoreLinkOptions LinkOptionsOf(const EdgeContext& context, uint32_t shard);

}  // namespace presence::edge
