// What one shard lets others see: written by its thread about ten times a second, read by whoever answers /health or
// /metrics. Relaxed numbers, a moment old; nothing is decided by them.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "common/metrics.h"
#include "common/time.h"

namespace presence::edge {

class Shard;

struct ShardStats {
  Gauge ready;        // 1: a core is attached, or was until a moment ago, and the edge is not draining
  Gauge link_live;    // 1: a core has welcomed this shard
  Gauge connections;  // open WebSockets
  Gauge rooms, events_held;
  Gauge connections_total;
  // Copies of ShardCounters.
  Gauge messages_received, messages_sent, deliveries, errors, heartbeat_timeouts, late_commands, events_refused,
      presence_coalesced, room_duplicates, gaps, link_losses, resyncs, tokens_renewed, tokens_refused, expired_closes,
      unproven_closes, unproven_refused;
  // The gate's and REST's.
  Counter handshakes_admitted, handshakes_without_token, handshakes_missing_or_bad_token, handshakes_foreign_origin,
      handshakes_not_ready, rest_requests, rest_errors, logouts_done, logouts_refused, logouts_not_kept;
  // Of the limits: see client_addresses.h.
  Counter connections_over_address, handshakes_over_address, sockets_over_address, forwarded_malformed;
  // Copies of ShardCounters.
  Gauge frames_over_frames, frames_over_bytes, rate_closes, rooms_over_limit, sent_away;
  LatencyHistogram turn_seconds;       // one look at the link: its commands handled and flushed
  LatencyHistogram handshake_seconds;  // deciding about one upgrade, signature included
  LatencyHistogram rest_seconds;       // from a whole request to its answer
};

// What the shard has counted, and how it stands.
void Publish(const Shard& shard, Now now, ShardStats& stats);

}  // namespace presence::edge
