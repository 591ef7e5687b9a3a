#include "edge/edge_metrics.h"

#include "common/log.h"

namespace presence::edge {
namespace {

struct Numbers {
  const ShardStats& stats;
  const SocketLoopCounters& sockets;
};

// A number that a shard publishes as a copy: a gauge to the code, a counter to Prometheus.
std::function<double()> Value(const Gauge& gauge) {
  return [&gauge] { return static_cast<double>(gauge.Value()); };
}

uint64_t ProtocolErrors(const SocketLoopCounters& sockets) {
  return sockets.closes_1002.Value() + sockets.closes_1003.Value() + sockets.closes_1007.Value() +
         sockets.closes_1009.Value();
}

void AddSpecified(MetricsPage& page, Numbers n) {
  page.AddGauge("ws_connections_active", "Current active WebSocket connections.", &n.stats.connections);
  page.AddCounter("ws_connections_total", "Total connections created.", Value(n.stats.connections_total));
  page.AddCounter("ws_messages_sent", "Messages sent to clients.", Value(n.stats.messages_sent));
  page.AddCounter("ws_messages_received", "Messages received from clients.", Value(n.stats.messages_received));
  page.AddCounter(
      "ws_errors_total",
      "WebSocket errors: error frames, refused handshakes, protocol errors, heartbeat timeouts, slow clients.", [n] {
        const ShardStats& s = n.stats;
        return static_cast<double>(s.errors.Value() + s.heartbeat_timeouts.Value() +
                                   s.handshakes_missing_or_bad_token.Value() + s.handshakes_foreign_origin.Value() +
                                   ProtocolErrors(n.sockets) + n.sockets.slow_closes.Value());
      });
}

void AddHandshakes(MetricsPage& page, Numbers n) {
  const auto add = [&](const char* outcome, const Counter& counter) {
    page.AddCounter("presence_edge_handshakes_total", "Requests for a WebSocket, by what the gate said.", &counter,
                    {{"outcome", outcome}});
  };
  add("admitted", n.stats.handshakes_admitted);
  add("token_to_come", n.stats.handshakes_without_token);
  add("bad_token", n.stats.handshakes_missing_or_bad_token);
  add("foreign_origin", n.stats.handshakes_foreign_origin);
  add("not_ready", n.stats.handshakes_not_ready);
}

void AddTokens(MetricsPage& page, Numbers n) {
  const auto shown = [&](const char* outcome, const Gauge& gauge) {
    page.AddCounter("presence_edge_tokens_shown_total", "Tokens in `auth` messages, by what came of them.",
                    Value(gauge), {{"outcome", outcome}});
  };
  shown("renewed", n.stats.tokens_renewed);
  shown("refused", n.stats.tokens_refused);
  const auto logout = [&](const char* outcome, const Counter& counter) {
    page.AddCounter("presence_edge_logouts_total", "Logouts that an identity provider has sent, by what came of them.",
                    &counter, {{"outcome", outcome}});
  };
  logout("done", n.stats.logouts_done);
  logout("refused", n.stats.logouts_refused);
  logout("not_kept", n.stats.logouts_not_kept);
  const auto close = [&](const char* reason, const Gauge& gauge) {
    page.AddCounter("presence_edge_token_closes_total", "Connections closed for want of a good token, by reason.",
                    Value(gauge), {{"reason", reason}});
  };
  close("expired", n.stats.expired_closes);
  close("not_shown", n.stats.unproven_closes);
  close("too_many_without", n.stats.unproven_refused);
}

void AddDeliveries(MetricsPage& page, Numbers n) {
  page.AddCounter("presence_edge_deliveries_total",
                  "Room messages, typing and presence queued for clients, once for each connection.",
                  Value(n.stats.deliveries));
  const auto drop = [&](const char* reason, std::function<double()> read) {
    page.AddCounter("presence_edge_drops_total", "What was not delivered or not accepted, by reason.", std::move(read),
                    {{"reason", reason}});
  };
  drop("slow_client_volatile", [n] { return static_cast<double>(n.sockets.volatile_drops.Value()); });
  drop("slow_client_closed", [n] { return static_cast<double>(n.sockets.slow_closes.Value()); });
  drop("late_command", Value(n.stats.late_commands));
  drop("too_many_held_events", Value(n.stats.events_refused));
  page.AddCounter("presence_edge_room_duplicates_total", "Messages of a room's log that the shard had had.",
                  Value(n.stats.room_duplicates));
  page.AddCounter("presence_edge_gaps_total", "`gap` frames sent: messages may be lost.", Value(n.stats.gaps));
  page.AddCounter("presence_edge_presence_coalesced_total",
                  "Presence changes that a newer one replaced before it was sent.", Value(n.stats.presence_coalesced));
  page.AddCounter("presence_edge_clients_sent_away_total", "Clients told to connect to another edge, and closed.",
                  Value(n.stats.sent_away));
  page.AddCounter("presence_edge_heartbeat_timeouts_total", "Clients closed for silence.",
                  Value(n.stats.heartbeat_timeouts));
}

void AddClosesAndSockets(MetricsPage& page, Numbers n) {
  const auto close = [&](const char* code, const Counter& counter) {
    page.AddCounter("presence_edge_protocol_closes_total",
                    "Closed because the client broke the protocol, by close code.", &counter, {{"code", code}});
  };
  close("1002", n.sockets.closes_1002);
  close("1003", n.sockets.closes_1003);
  close("1007", n.sockets.closes_1007);
  close("1009", n.sockets.closes_1009);
  page.AddCounter("presence_edge_sockets_accepted_total", "Sockets accepted.", &n.sockets.sockets_accepted);
  page.AddCounter("presence_edge_sockets_refused_total", "Sockets closed at once: too many.",
                  &n.sockets.sockets_refused);
  const auto tls = [&](const char* outcome, const Counter& counter) {
    page.AddCounter("presence_edge_tls_handshakes_total", "TLS handshakes of clients, by what came of them.", &counter,
                    {{"outcome", outcome}});
  };
  tls("completed", n.sockets.tls_handshakes);
  tls("failed", n.sockets.tls_failures);
  page.AddCounter("presence_edge_received_bytes_total", "Read from clients.", &n.sockets.bytes_in);
  page.AddCounter("presence_edge_sent_bytes_total", "Written to clients.", &n.sockets.bytes_out);
  page.AddCounter("presence_edge_writes_total", "writev calls; frames_written over this is how well messages join.",
                  &n.sockets.writev_calls);
  page.AddCounter("presence_edge_frames_written_total", "Frames and responses written.", &n.sockets.frames_written);
  page.AddCounter("presence_edge_timeouts_total", "Sockets given up, by what they were waited for.",
                  &n.sockets.request_timeouts, {{"waiting_for", "request"}});
  page.AddCounter("presence_edge_timeouts_total", "", &n.sockets.close_timeouts, {{"waiting_for", "close"}});
}

// One series for each limit: what it has refused, dropped or closed.
void AddLimits(MetricsPage& page, Numbers n) {
  const auto limited = [&](const char* limit, std::function<double()> read) {
    page.AddCounter("presence_edge_limited_total", "What a limit has refused, dropped or closed, by limit.",
                    std::move(read), {{"limit", limit}});
  };
  const auto count = [](const Counter& counter) { return [&counter] { return static_cast<double>(counter.Value()); }; };
  limited("frames_per_second", Value(n.stats.frames_over_frames));
  limited("bytes_per_second", Value(n.stats.frames_over_bytes));
  limited("rate_closed", Value(n.stats.rate_closes));
  limited("rooms_per_connection", Value(n.stats.rooms_over_limit));
  limited("connections_per_address", count(n.stats.connections_over_address));
  limited("handshakes_per_address", count(n.stats.handshakes_over_address));
  limited("handshakes_per_address_reset", count(n.stats.sockets_over_address));
  limited("handshakes_pending", count(n.sockets.pending_closed));
  limited("handshake_timeout", count(n.sockets.request_timeouts));
  limited("head_bytes", count(n.sockets.heads_too_long));
  limited("message_bytes", count(n.sockets.closes_1009));
  limited("send_buffer_volatile", count(n.sockets.volatile_drops));
  limited("send_buffer_closed", count(n.sockets.slow_closes));
  page.AddCounter("presence_edge_forwarded_malformed_total",
                  "Requests of trusted proxies whose X-Forwarded-For is no list of addresses.",
                  &n.stats.forwarded_malformed);
}

void AddLink(MetricsPage& page, Numbers n) {
  page.AddGauge("presence_edge_link_live", "Shards that are attached to a core.", &n.stats.link_live);
  page.AddCounter("presence_edge_link_losses_total", "Links lost.", Value(n.stats.link_losses));
  page.AddCounter("presence_edge_resyncs_total", "Declarations made to a core.", Value(n.stats.resyncs));
  page.AddGauge("presence_edge_events_held", "Events that no core has acknowledged yet.", &n.stats.events_held);
  page.AddGauge("presence_edge_rooms", "Rooms with a member, added up over the shards.", &n.stats.rooms);
}

void AddLatencies(MetricsPage& page, Numbers n) {
  page.AddHistogram("presence_edge_turn_seconds",
                    "From taking commands off the link to the last byte handed to the kernel.", &n.stats.turn_seconds);
  page.AddHistogram("presence_edge_handshake_seconds",
                    "Deciding about a WebSocket request, its token's signature included.", &n.stats.handshake_seconds);
  page.AddHistogram("presence_edge_rest_seconds", "REST calls, from the whole request to the answer.",
                    &n.stats.rest_seconds);
  page.AddCounter("presence_edge_rest_requests_total", "REST calls.", &n.stats.rest_requests);
  page.AddCounter("presence_edge_rest_errors_total", "REST calls answered with 4xx or 5xx.", &n.stats.rest_errors);
}

}  // namespace

void RegisterMetrics(EdgeContext& context, std::span<const std::unique_ptr<ShardThread>> shards) {
  MetricsPage& page = context.metrics;
  for (size_t i = 0; i < shards.size(); ++i) {
    const Numbers numbers{*context.stats[i], shards[i]->socket_counters()};
    AddSpecified(page, numbers);
    AddHandshakes(page, numbers);
    AddTokens(page, numbers);
    AddDeliveries(page, numbers);
    AddClosesAndSockets(page, numbers);
    AddLimits(page, numbers);
    AddLink(page, numbers);
    AddLatencies(page, numbers);
  }
  page.AddGauge("presence_edge_addresses", "Addresses that the limits of addresses know at the moment.",
                [&context] { return static_cast<double>(context.addresses.numbers().addresses); });
  page.AddCounter("presence_edge_addresses_forgotten_total",
                  "Addresses without a connection that made way for others in the table of those limits.",
                  [&context] { return static_cast<double>(context.addresses.numbers().forgotten); });
  page.AddGauge("presence_edge_keys", "Keys that tokens are verified with.", [&context] {
    const auto keys = context.keys.Current();
    return keys == nullptr ? 0.0 : static_cast<double>(keys->keys().size());
  });
  page.AddCounter("presence_edge_key_fetch_failures_total", "Reads of the key set that failed.",
                  [&context] { return static_cast<double>(context.keys.stats().failures); });
  page.AddCounter("presence_edge_log_lines_dropped_total", "Log lines lost because the output was too slow.",
                  [] { return static_cast<double>(log::LinesDropped()); });
  page.AddCounter("presence_edge_log_lines_suppressed_total",
                  "Log lines left out because their kind was over its budget.",
                  [] { return static_cast<double>(log::LinesSuppressed()); });
  page.AddProcessMetrics();
}

Health HealthOf(const EdgeContext& context) {
  Health health{.ready = true, .why_not = {}, .active_connections = 0};
  for (const auto& stats : context.stats) {
    health.active_connections += stats->connections.Value();
    if (stats->ready.Value() == 0) health = {false, "no core is attached", health.active_connections};
  }
  if (!context.keys.Ready()) health = {false, "there are no keys to verify tokens with", health.active_connections};
  if (context.draining.load(std::memory_order_relaxed)) health = {false, "draining", health.active_connections};
  return health;
}

}  // namespace presence::edge
