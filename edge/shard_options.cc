#include "edge/shard_options.h"

#include <algorithm>
#include <chrono>

#include "edge/client_protocol.h"

namespace presence::edge {

using std::chrono::milliseconds;

ShardOptions ShardOptionsOf(const EdgeContext& context, uint32_t shard) {
  const Config& c = context.config;
  ShardOptions options;
  options.edge_name = c.edge_name;
  options.incarnation = context.incarnation;
  options.version = context.version;
  options.started_ms = context.started_ms;
  options.shard = shard;
  options.heartbeat_interval = std::chrono::duration_cast<milliseconds>(c.heartbeat_interval);
  options.isolation_max = std::chrono::duration_cast<milliseconds>(c.isolation_max);
  options.rooms_per_connection_max = c.rooms_per_connection_max;
  options.presence_frames_per_second = c.presence_frames_per_second;
  options.close_expired = c.token_expiry == TokenExpiry::kClose;
  options.expiry_warning = std::chrono::duration_cast<milliseconds>(c.token_expiry_warning);
  options.expiry_leeway = c.tokens.PartyOptions().leeway;
  options.auth_timeout = std::chrono::duration_cast<milliseconds>(c.auth_timeout);
  options.unproven_max = c.auth_pending_max;
  options.frames_per_second = c.frames_per_second;
  options.frames_burst = c.frames_burst;
  options.bytes_per_second = c.bytes_per_second;
  // Else the greatest message that is allowed could never pass; twice, for what its fragments add.
  options.bytes_burst = std::max(c.bytes_burst, 2 * c.message_bytes_max);
  if (c.auth_first_message) options.bytes_burst = std::max<uint64_t>(options.bytes_burst, 2 * kAuthFrameBytesMax);
  return options;
}

SocketLoopOptions SocketOptionsOf(const EdgeContext& context, uint16_t port) {
  const Config& c = context.config;
  SocketLoopOptions options;
  options.tls = context.service_tls;
  options.strict_transport_age = std::chrono::duration_cast<std::chrono::seconds>(c.strict_transport_age);
  options.host = c.service_host;
  options.port = port;
  options.message_bytes_max = c.message_bytes_max;
  options.send_buffer_bytes_max = c.send_buffer_bytes_max;
  options.sockets_max = c.connections_max;
  options.head_bytes_max = c.head_bytes_max;
  options.request_timeout = std::chrono::duration_cast<milliseconds>(c.handshake_timeout);
  // Else those who ask for nothing could have all the sockets.
  options.pending_max = std::min(c.handshakes_pending_max, std::max(1u, c.connections_max / 2));
  return options;
}

CoreLinkOptions LinkOptionsOf(const EdgeContext& context, uint32_t shard) {
  CoreLinkOptions options;
  options.addresses = context.config.core_link;
  options.start = context.incarnation + shard;
  options.credentials = context.link;
  return options;
}

}  // namespace presence::edge
