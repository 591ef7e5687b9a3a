#include "core/metrics_page.h"

#include <string>

#include "common/log.h"

namespace presence::core {
namespace {

struct HubCount {
  const char* name;
  const char* help;
  uint64_t HubCounters::*value;
};
constexpr HubCount kHubCounts[] = {
    {"presence_core_events_total", "Events from edges.", &HubCounters::events},
    {"presence_core_commands_total", "Commands to edges.", &HubCounters::commands},
    {"presence_core_messages_published_total", "Messages published on the bus by this core.",
     &HubCounters::messages_published},
    {"presence_core_messages_from_bus_total", "Messages heard on the bus, of all cores.",
     &HubCounters::messages_from_bus},
    {"presence_core_messages_from_outside_total", "Messages of other services on message:broadcast.",
     &HubCounters::messages_from_outside},
    {"presence_core_typing_from_bus_total", "Typing indicators heard on the bus.", &HubCounters::typing_from_bus},
    {"presence_core_presence_changes_total", "Presence changes heard on the bus.", &HubCounters::presence_changes},
    {"presence_core_presence_from_outside_total", "Presence objects of other services on presence:updates.",
     &HubCounters::presence_from_outside},
    {"presence_core_deliveries_total", "Deliveries sent to edge shards: one for each link and message.",
     &HubCounters::deliveries},
    {"presence_core_outside_invalid_total", "Dropped from message:broadcast and presence:updates.",
     &HubCounters::outside_invalid},
    {"presence_core_loopback_duplicates_total", "Heard on the bus after they were delivered locally.",
     &HubCounters::loopback_duplicates},
    {"presence_core_delivered_locally_total", "Delivered among this core's edges because the bus was late or away.",
     &HubCounters::delivered_locally},
    {"presence_core_fenced_total", "Writes refused because a later attach had written.", &HubCounters::fenced},
    {"presence_core_reasserted_total", "Entries written again after the store had lost them.",
     &HubCounters::reasserted},
    {"presence_core_resyncs_total", "Declarations of edge shards that were compared and applied.",
     &HubCounters::resyncs},
    {"presence_core_links_superseded_total", "Links ended because the shard attached again.",
     &HubCounters::links_superseded},
    {"presence_core_links_silent_total", "Links ended because they were silent.", &HubCounters::links_silent},
    {"presence_core_edges_expired_total", "Shards that did not return within EDGE_GRACE.", &HubCounters::edges_expired},
    {"presence_core_shards_taken_over_total", "Shards that another core has taken over.",
     &HubCounters::shards_taken_over},
    {"presence_core_shards_sent_away_total",
     "Times that a shard was told to look for another core because this one was cut off from the store.",
     &HubCounters::shards_sent_away},
    {"presence_core_joins_refused_total", "Joins refused: too many rooms.", &HubCounters::joins_refused},
    {"presence_core_broadcasts_refused_total", "Broadcasts refused: too many wait for the store.",
     &HubCounters::broadcasts_refused},
    {"presence_core_late_events_total", "Events of links and connections that had ended.", &HubCounters::late_events},
    {"presence_core_user_messages_from_bus_total", "Messages to users heard on the bus, of all cores.",
     &HubCounters::user_messages_from_bus},
    {"presence_core_requests_repeated_total", "Messages not sent again: their request_id was known.",
     &HubCounters::requests_repeated},
    {"presence_core_room_log_appended_total", "Messages that Redis keeps in the log of a room, asked for here.",
     &HubCounters::room_log_appended},
    {"presence_core_room_log_reads_total",
     "Reads of rooms' logs: for the first join of a room, and for what was missed.", &HubCounters::room_log_reads},
    {"presence_core_room_log_replayed_total", "Messages handed to a shard from a room's log.",
     &HubCounters::room_log_replayed},
    {"presence_core_room_log_duplicates_total", "Messages of the bus that a shard had had by then, from the log.",
     &HubCounters::room_log_duplicates},
    {"presence_core_room_gaps_total", "Rooms of a shard whose members were told that messages may be lost.",
     &HubCounters::room_gaps},
    {"presence_core_room_doubts_dropped_total",
     "Rooms of which an earlier epoch was not held against the log: too many at once.",
     &HubCounters::room_doubts_dropped},
    {"presence_core_cluster_requests_total", "Questions and orders to all cores, asked here.",
     &HubCounters::cluster_requests},
    {"presence_core_cluster_requests_refused_total", "Of those, refused: too many were under way.",
     &HubCounters::cluster_requests_refused},
    {"presence_core_gathers_incomplete_total", "Questions, orders and counts that some core did not answer in time.",
     &HubCounters::gathers_incomplete},
    {"presence_core_cluster_replies_late_total", "Answers of cores to what was over.",
     &HubCounters::cluster_replies_late},
    {"presence_core_orders_total", "Orders of the API to connections here.", &HubCounters::orders},
    {"presence_core_orders_done_total", "Of those, carried out.", &HubCounters::orders_done},
    {"presence_core_orders_expired_total", "Of those, not carried out in time.", &HubCounters::orders_expired},
    {"presence_core_logouts_kept_total", "Logouts that were asked for here and are kept in the store.",
     &HubCounters::logouts_kept},
    {"presence_core_sessions_ended_total", "Connections here that a logout has closed.", &HubCounters::sessions_ended},
    {"presence_core_connections_logged_out_total",
     "Connections that the store has refused: their user or session is logged out.",
     &HubCounters::connections_logged_out},
    {"presence_core_connections_too_many_total",
     "Connections that the store has refused: their user has CONNECTIONS_PER_USER already.",
     &HubCounters::connections_too_many},
    {"presence_core_connections_sent_away_total",
     "Connections that an edge has sent to another one, and whose users' presence is held until they are back.",
     &HubCounters::connections_sent_away},
    {"presence_core_tokens_renewed_total", "Newer tokens of open connections.", &HubCounters::tokens_renewed},
    {"presence_core_tap_events_total", "Events told to operators who tap a user or a room.", &HubCounters::tap_events},
    {"presence_core_tap_events_left_out_total", "Of those, left out: too many in a second.",
     &HubCounters::tap_events_left_out},
    {"presence_core_joins_forbidden_total", "Joins refused with 403: no right to the room.",
     &HubCounters::joins_forbidden},
    {"presence_core_joins_unchecked_total",
     "Joins refused with 503: nobody could say whether there is a right, or too many waited.",
     &HubCounters::joins_unchecked},
    {"presence_core_joins_room_full_total", "Joins refused with 429: ROOM_SUBSCRIBERS_MAX.",
     &HubCounters::joins_room_full},
    {"presence_core_typing_forbidden_total", "Typing refused with 403: no right to write in the room.",
     &HubCounters::typing_forbidden},
    {"presence_core_typing_unchecked_total", "Typing dropped while the right to the room was not known.",
     &HubCounters::typing_unchecked},
    {"presence_core_room_rights_asked_total", "Questions who may be in a room.", &HubCounters::room_rights_asked},
    {"presence_core_room_rights_unanswered_total", "Of those, without an answer.",
     &HubCounters::room_rights_unanswered},
    {"presence_core_room_rights_forgotten_total", "Remembered answers dropped by ForgetRoomRights.",
     &HubCounters::room_rights_forgotten},
    {"presence_core_subscriptions_revoked_total", "Connections told to leave a room because the right was gone.",
     &HubCounters::subscriptions_revoked},
};

struct HubSize {
  const char* name;
  const char* help;
  size_t HubSizes::*value;
};
constexpr HubSize kHubSizes[] = {
    {"presence_core_links", "Attached links.", &HubSizes::links},
    {"presence_core_shards", "Edge shards known, those within EDGE_GRACE included.", &HubSizes::shards},
    {"presence_core_connections", "Client connections of those shards.", &HubSizes::connections},
    {"presence_core_users", "Users with a connection here.", &HubSizes::users},
    {"presence_core_rooms", "Rooms with a member here.", &HubSizes::rooms},
    {"presence_core_memberships", "Memberships of connections in rooms.", &HubSizes::memberships},
    {"presence_core_store_writes_in_flight", "Transitions sent to the store and not answered.",
     &HubSizes::writes_in_flight},
    {"presence_core_store_writes_waiting", "Transitions waiting for their turn.", &HubSizes::writes_waiting},
    {"presence_core_publications_waiting", "Publications not heard back yet.", &HubSizes::publications_waiting},
    {"presence_core_cores", "Cores that are live, this one included.", &HubSizes::cores},
    {"presence_core_room_auth_mismatch", "Other cores that are live and have another ROOM_AUTH: must be 0.",
     &HubSizes::cores_set_otherwise},
    {"presence_core_gathers", "Questions, orders and counts not answered by all cores yet.", &HubSizes::gathers},
    {"presence_core_orders_waiting", "Orders to connections here, not carried out yet.", &HubSizes::orders},
    {"presence_core_room_rights", "Answers about rights to rooms that are remembered.", &HubSizes::room_rights},
    {"presence_core_room_questions", "Questions about rights to rooms, not answered yet.", &HubSizes::room_questions},
    {"presence_core_room_reads", "Rooms whose log is being read, or is to be.", &HubSizes::room_reads},
    {"presence_core_joins_waiting", "Joins that wait for such an answer.", &HubSizes::joins_waiting},
    {"presence_core_taps", "Live views of a user or a room, opened on any core.", &HubSizes::taps},
};

void AddMethod(MetricsPage& page, const std::string& method, const MethodMetrics& metrics) {
  page.AddHistogram("presence_core_call_duration_seconds", "Unary calls, from arrival to answer.", &metrics.latency,
                    {{"method", method}});
  const char* const name = "presence_core_calls_total";
  const char* const help =
      "Unary calls: answered; failed; given up by the caller; refused as not allowed, invalid or over the bound.";
  const auto add = [&](const Counter& counter, const char* outcome) {
    page.AddCounter(name, help, &counter, {{"method", method}, {"outcome", outcome}});
  };
  add(metrics.answered, "answered");
  add(metrics.failed, "failed");
  add(metrics.given_up, "given_up");
  page.AddCounter(name, help,
                  [&metrics] { return static_cast<double>(metrics.refused.load(std::memory_order_relaxed)); },
                  {{"method", method}, {"outcome", "refused"}});
}

void AddStream(MetricsPage& page, const std::string& method, const StreamMetrics& metrics) {
  const MetricsPage::Labels labels = {{"method", method}};
  page.AddCounter("presence_core_streams_opened_total", "Streams of the API that began.", &metrics.opened, labels);
  page.AddCounter(
      "presence_core_streams_refused_total", "Streams of the API that were not allowed, invalid or over a bound.",
      [&metrics] { return static_cast<double>(metrics.refused.load(std::memory_order_relaxed)); }, labels);
  page.AddCounter("presence_core_streams_ended_slow_total",
                  "Streams of the API that were ended because the client read too slowly.", &metrics.ended_slow,
                  labels);
  page.AddCounter("presence_core_stream_responses_total", "Responses on streams of the API.", &metrics.responses,
                  labels);
}

void AddService(MetricsPage& page, const std::string& prefix, const ServiceMetrics& service) {
  for (const ServiceMetrics::Method& method : service.methods()) AddMethod(page, prefix + method.name, method.metrics);
  for (const ServiceMetrics::Stream& stream : service.streams()) AddStream(page, prefix + stream.name, stream.metrics);
}

void AddRedis(MetricsPage& page, const RedisCounters& redis) {
  page.AddCounter("presence_core_redis_commands_refused_total",
                  "Commands not sent: Redis was away, or too many were waiting.", &redis.commands_refused);
  page.AddCounter("presence_core_redis_errors_total", "Answers of Redis that were an error.", &redis.errors);
  page.AddCounter("presence_core_redis_connections_lost_total",
                  "Connections to Redis that were lost, or could not be made.", &redis.connections_lost);
  page.AddCounter("presence_core_sweeps_failed_total", "Users whose sweep has failed and was put off.",
                  &redis.sweeps_failed);
  page.AddCounter("presence_core_bus_invalid_total", "Dropped from the bus of the cores: no message of theirs.",
                  &redis.bus_invalid);
  page.AddCounter("presence_core_replies_invalid_total", "Dropped from this core's own channel: no answer of a core.",
                  &redis.replies_invalid);
}

void AddRoomRights(MetricsPage& page, const RoomRightsMetrics& rights) {
  page.AddHistogram("presence_core_room_authorizer_duration_seconds", "Questions about rights that were answered.",
                    &rights.latency);
  const std::string name = "presence_core_room_authorizer_calls_total";
  const std::string help =
      "Questions about rights to Redis or to ROOM_AUTHORIZER: answered; failed or late; not asked.";
  page.AddCounter(name, help, &rights.answered, {{"outcome", "answered"}});
  page.AddCounter(name, help, &rights.failed, {{"outcome", "failed"}});
  page.AddCounter(name, help, &rights.refused, {{"outcome", "refused"}});
  page.AddGauge("presence_core_room_authorizer_in_flight", "Questions about rights under way.", &rights.in_flight);
  page.AddGauge("presence_core_room_authorizer_waiting", "Questions about rights that wait for their turn.",
                &rights.waiting);
}

}  // namespace

void AddCoreMetrics(MetricsPage& page, const MetricSources& sources) {
  const CoreMetrics& core = sources.core;
  page.AddGauge("presence_core_store_up", "1 while the store answers.", &core.store_up);
  page.AddCounter("presence_core_store_ups_total", "How often the store came up.", &core.store_ups);

  page.AddCounter("presence_core_links_opened_total", "Attach streams accepted.", &core.links_opened);
  page.AddCounter("presence_core_links_refused_total", "Attach streams refused: draining, or too many.",
                  &core.links_refused);
  page.AddCounter("presence_core_links_dropped_total", "Links dropped because the shard read too slowly.",
                  &core.links_dropped_over_bound);
  page.AddGauge("presence_core_links_open", "Attach streams now.", &core.links_open);
  const std::string bytes = "presence_core_link_bytes_total", bytes_help = "Frames over all links, in bytes.";
  page.AddCounter(bytes, bytes_help, &core.link_bytes_received, {{"direction", "received"}});
  page.AddCounter(bytes, bytes_help, &core.link_bytes_sent, {{"direction", "sent"}});
  const std::string frames = "presence_core_link_frames_total", frames_help = "Frames over all links.";
  page.AddCounter(frames, frames_help, &core.link_frames_received, {{"direction", "received"}});
  page.AddCounter(frames, frames_help, &core.link_frames_sent, {{"direction", "sent"}});
  page.AddGauge("presence_core_link_backlog_bytes", "Gathered for links and not yet written.",
                &core.link_backlog_bytes);
  page.AddGauge("presence_core_broadcasts_unanswered", "Messages of the API, to rooms and users, not answered yet.",
                &core.broadcasts_unanswered);
  page.AddGauge("presence_core_watchers", "WatchPresence streams.", &core.watchers);

  for (const HubSize& size : kHubSizes) {
    page.AddGauge(size.name, size.help,
                  [&core, value = size.value] { return static_cast<double>(core.hub().sizes.*value); });
  }
  for (const HubCount& count : kHubCounts) {
    page.AddCounter(count.name, count.help,
                    [&core, value = count.value] { return static_cast<double>(core.hub().counters.*value); });
  }

  page.AddHistogram("presence_core_turn_duration_seconds", "Turns of the loop that did something.", &core.turn);
  AddService(page, "", sources.api);
  AddService(page, "admin.", sources.admin);
  AddMethod(page, "link.LookUpPresence", sources.link.look_up_presence);
  AddMethod(page, "link.ListPresence", sources.link.list_presence);
  AddMethod(page, "link.EndSessions", sources.link.end_sessions);

  AddRedis(page, sources.redis);
  AddRoomRights(page, sources.room_rights);
  page.AddCounter("presence_core_log_lines_dropped_total", "Log lines dropped: the output was too slow.",
                  [] { return static_cast<double>(log::LinesDropped()); });
  page.AddCounter("presence_core_log_lines_suppressed_total", "Log lines over the budget of their class.",
                  [] { return static_cast<double>(log::LinesSuppressed()); });
  page.AddProcessMetrics();
}

}  // namespace presence::core
