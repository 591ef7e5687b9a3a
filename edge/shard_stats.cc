#include "edge/shard_stats.h"

#include "edge/shard.h"

namespace presence::edge {

void Publish(const Shard& shard, Now now, ShardStats& stats) {
  const ShardCounters& c = shard.counters();
  stats.ready.Set(shard.ready(now));
  stats.link_live.Set(shard.link_live());
  stats.connections.Set(shard.connections());
  stats.rooms.Set(shard.rooms());
  stats.events_held.Set(shard.events_held());
  stats.messages_received.Set(c.messages_received);
  stats.messages_sent.Set(c.messages_sent);
  stats.deliveries.Set(c.deliveries);
  stats.errors.Set(c.errors);
  stats.heartbeat_timeouts.Set(c.heartbeat_timeouts);
  stats.late_commands.Set(c.late_commands);
  stats.events_refused.Set(c.events_refused);
  stats.presence_coalesced.Set(c.presence_coalesced);
  stats.room_duplicates.Set(c.room_duplicates);
  stats.gaps.Set(c.gaps);
  stats.link_losses.Set(c.link_losses);
  stats.resyncs.Set(c.resyncs);
  stats.tokens_renewed.Set(c.tokens_renewed);
  stats.tokens_refused.Set(c.tokens_refused);
  stats.expired_closes.Set(c.expired_closes);
  stats.unproven_closes.Set(c.unproven_closes);
  stats.unproven_refused.Set(c.unproven_refused);
  stats.frames_over_frames.Set(c.frames_over_frames);
  stats.frames_over_bytes.Set(c.frames_over_bytes);
  stats.rate_closes.Set(c.rate_closes);
  stats.rooms_over_limit.Set(c.rooms_over_limit);
  stats.sent_away.Set(c.sent_away);
}

}  // namespace presence::edge
