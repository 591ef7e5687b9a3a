// Names for /metrics: the specification's five, and what else operators need.
#pragma once

#include <span>

#include "edge/rest.h"
#include "edge/shard_thread.h"

namespace presence::edge {

// Once, at start, when all shards exist. The shards and the context must outlive the page.
void RegisterMetrics(EdgeContext& context, std::span<const std::unique_ptr<ShardThread>> shards);

// Of all shards: GET /health.
Health HealthOf(const EdgeContext& context);

}  // namespace presence::edge
