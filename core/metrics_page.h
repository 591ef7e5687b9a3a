// Which numbers of a core are on its metrics page, under which names.
#pragma once

#include "common/metrics.h"
#include "core/core_metrics.h"
#include "core/link_service.h"
#include "core/unary_call.h"

namespace presence::core {

struct MetricSources {
  const CoreMetrics& core;
  const ServiceMetrics& api;
  const ServiceMetrics& admin;
  const LinkService::Metrics& link;
};

// The sources must outlive `page`.
void AddCoreMetrics(MetricsPage& page, const MetricSources& sources);

}  // namespace presence::core
