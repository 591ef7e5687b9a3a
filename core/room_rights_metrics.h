// What a RoomAuthorizer counts for /metrics. Written by its loop thread alone, read by any.
#pragma once

#include "common/metrics.h"

namespace presence::core {

struct RoomRightsMetrics {
  LatencyHistogram latency;  // of questions that were answered
  Counter answered, failed;  // with a right or none; with an error, or not in time
  Counter refused;           // not asked: too many were waiting, or nobody was there
  Gauge in_flight, waiting;
};

}  // namespace presence::core
