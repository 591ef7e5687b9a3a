// Which numbers of a core are on its metrics page, under which names.
#pragma once

#include "common/metrics.h"
#include "core/core_metrics.h"
#include "core/link_service.h"
#include "core/redis_counters.h"
#include "core/room_rights_metrics.h"
#include "core/service_metrics.h"

namespace presence::core {

struct MetricSources {
  const CoreMetrics& core;
  const ServiceMetrics& api;
  const ServiceMetrics& admin;
  const LinkService::Metrics& link;
  const RedisCounters& redis;            // all zero with another store
  const RoomRightsMetrics& room_rights;  // all zero where nobody is asked
};

// The sources must outlive `page`.
void AddCoreMetrics(MetricsPage& page, const MetricSources& sources);

}  // namespace presence::core
