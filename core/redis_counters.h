// What a RedisStore counts for /metrics. Written by its loop thread alone, read by any. Pure numbers: who shows them need
// not know Redis.
#pragma once

#include "common/metrics.h"

namespace presence::core {

struct RedisCounters {
  Counter commands_refused;  // not sent: Redis was away, or too many were waiting
  Counter errors;            // answers of Redis that were an error
  Counter connections_lost;  // those that could not be made included
  Counter sweeps_failed;     // of single users, put off
  Counter bus_invalid;       // payloads on presence.bus that are no BusEnvelope: dropped
  Counter replies_invalid;   // payloads on this core's own channel that are no ClusterReplies: dropped
};

}  // namespace presence::core
