// Which numbers of a core are on its metrics page, under which names.
#pragma once

#include "common/metrics.h"
#include "core/api_service.h"
#include "core/core_metrics.h"
#include "core/link_service.h"

namespace presence::core {

// All arguments must outlive `page`.
void AddCoreMetrics(MetricsPage& page, const CoreMetrics& core, const ApiService::Metrics& api,
                    const LinkService::Metrics& link);

}  // namespace presence::core
