#include "edge/config.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <thread>

#include "edge/trusted_proxies.h"

namespace presence::edge {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;

void Declare(Config& c, ConfigReader& reader) {
  reader.Section("Service");
  reader.Text("SERVICE_NAME", &c.service_name, "what /health calls this service");
  reader.Text("SERVICE_HOST", &c.service_host, "address to listen on");
  reader.Port("SERVICE_PORT", &c.service_port, "WebSocket and REST");
  reader.Text(
      "SERVICE_TLS_CERT", &c.service_files.certificate,
      "PEM file: the certificate for clients, then its intermediates; with it the port speaks wss and https only");
  reader.Text("SERVICE_TLS_KEY", &c.service_files.key, "PEM file: its private key, without a passphrase");
  reader.Seconds("SERVICE_HSTS_MAX_AGE", &c.strict_transport_age, {seconds(0), hours(24 * 730)},
                 "Strict-Transport-Security for so long; binds every port of the host to https. 0: not sent");
  reader.Text("EDGE_NAME", &c.edge_name, "for logs and operators; empty: host name and process id");
  reader.Choice("LOG_LEVEL", &c.log_level,
                {{"DEBUG", log::Level::kDebug},
                 {"INFO", log::Level::kInfo},
                 {"WARNING", log::Level::kWarning},
                 {"WARN", log::Level::kWarning},
                 {"ERROR", log::Level::kError}},
                "the least severe lines to write");
  reader.Integer("EDGE_SHARDS", &c.shards, 0, 256, "threads, each with its own clients; 0: one per hardware thread");
  reader.Seconds("EDGE_DRAIN_WINDOW", &c.drain_window, {seconds(0), seconds(7)},
                 "on SIGTERM the clients are sent to another edge, spread over this time");

  reader.Section("Core");
  reader.List("CORE_LINK", &c.core_link, "LINK_LISTEN addresses of the cores (host:port), tried in turn");
  reader.Seconds("EDGE_ISOLATION_MAX", &c.isolation_max, {seconds(0), hours(24)},
                 "without any core for so long, clients are closed with 1012; 0: never");
  reader.Integer("PRESENCE_FRAMES_PER_SECOND", &c.presence_frames_per_second, 1'000, 100'000'000,
                 "presence frames to clients, per shard; the rest waits and is coalesced per user");

  reader.Choice("CORE_LINK_TLS", &c.link_tls, {{"auto", LinkTls::kAuto}, {"on", LinkTls::kOn}, {"off", LinkTls::kOff}},
                "TLS to the cores; auto: on when one of the next three is set");
  reader.Text("CORE_LINK_CA", &c.link_files.peer_ca,
              "PEM file: who may have signed the cores' certificates; empty: the system's authorities");
  reader.Text("CORE_LINK_CERT", &c.link_files.certificate, "PEM file: this edge's certificate, for mutual TLS");
  reader.Text("CORE_LINK_KEY", &c.link_files.key, "PEM file: its private key, without a passphrase");
  reader.Text("CORE_LINK_SERVER_NAME", &c.link_server_name,
              "the name that must stand in the cores' certificates; empty: the host of the address");
  reader.Secret("LINK_SECRET", &c.link_secret, "the same as on the cores; at least 16 bytes");
  reader.Text("LINK_SECRET_FILE", &c.link_secret_file, "a file that holds it instead");

  reader.Section("Keys and tokens");
  DeclareTokenSettings(reader, c.tokens);
  reader.Secret("KEYCLOAK_CLIENT_SECRET", &c.keycloak_client_secret,
                "accepted for compatibility and not used: verifying tokens takes public keys only");
  reader.List("ALLOWED_ORIGINS", &c.allowed_origins,
              "pages that may connect and read REST answers, beside the edge's own; * is any");
  reader.Choice("REST_AUTH", &c.rest_auth, {{"open", RestAuth::kOpen}, {"bearer", RestAuth::kBearer}},
                "whether GET /presence needs a token");

  reader.Text("ROOM_CLAIM", &c.room_claim,
              "the claim with the rooms of a token, for cores with ROOM_AUTH=claims; empty: none is read");
  reader.Text("ROOM_ROLE_PREFIX", &c.room_role_prefix,
              "likewise, what roles about rooms begin with (room:write:team-*, room:read:news); empty: none are read");
  reader.Choice(
      "WS_TOKEN_EXPIRY", &c.token_expiry, {{"ignore", TokenExpiry::kIgnore}, {"close", TokenExpiry::kClose}},
      "whether a connection ends with its token (close code 4401), unless the client sends a newer one in time");
  reader.Seconds("WS_TOKEN_EXPIRY_WARNING", &c.token_expiry_warning, {seconds(0), hours(1)},
                 "so long before its token's end a client is told; 0: it is not");
  reader.Bool("WS_AUTH_FIRST_MESSAGE", &c.auth_first_message,
              "a WebSocket may open without a token and show it in its first message");
  reader.Seconds("WS_AUTH_TIMEOUT", &c.auth_timeout, {milliseconds(100), minutes(1)},
                 "until that message must have come");
  reader.Integer("WS_AUTH_PENDING_MAX", &c.auth_pending_max, 1, 100'000,
                 "sockets per shard that have not shown it yet; past that, the one that has been silent for longest is "
                 "closed with 1013");

  reader.Section("WebSocket");
  reader.Seconds("WS_HEARTBEAT_INTERVAL", &c.heartbeat_interval, {milliseconds(100), hours(1)},
                 "clients ping this often; silence for more than twice that closes. The same on edges and cores");
  reader.Bytes("WS_MAX_MESSAGE_BYTES", &c.message_bytes_max, {128, 16 << 20}, "a longer message is closed with 1009");
  reader.Bytes("WS_SEND_BUFFER_BYTES", &c.send_buffer_bytes_max, {64 << 10, 256 << 20},
               "what may wait for one slow client; past it: 1013");
  reader.Integer("WS_CONNECTIONS_MAX", &c.connections_max, 1, 1 << 20,
                 "sockets per shard; lowered to what the descriptor limit allows");
  reader.Integer("WS_ROOMS_PER_CONNECTION", &c.rooms_per_connection_max, 1, 1'000,
                 "further subscriptions get error 429");

  reader.Section("Limits");
  reader.Integer(
      "WS_FRAMES_PER_SECOND", &c.frames_per_second, 0, 1'000'000,
      "messages and control frames of one client: past it error 429, and who goes on is closed with 1008; 0: no limit");
  reader.Integer("WS_FRAMES_BURST", &c.frames_burst, 1, 1'000'000,
                 "so many at once after a pause; enough for one client's subscriptions when it comes back");
  reader.Bytes("WS_BYTES_PER_SECOND", &c.bytes_per_second, {0, 1 << 30},
               "bytes of one client, with the same results; 0: no limit");
  reader.Bytes("WS_BYTES_BURST", &c.bytes_burst, {1024, 1 << 29},
               "so many at once after a pause; at least twice WS_MAX_MESSAGE_BYTES is granted");
  reader.Bytes("HTTP_HEAD_BYTES", &c.head_bytes_max, {1024, 16'000},
               "request line and headers, a token among them; more gets HTTP 431");
  reader.Seconds("WS_HANDSHAKE_TIMEOUT", &c.handshake_timeout, {milliseconds(100), minutes(1)},
                 "from a socket's first moment to the end of its request, then it is closed");
  reader.Integer(
      "HANDSHAKES_PENDING_MAX", &c.handshakes_pending_max, 16, 1 << 20,
      "sockets per shard that owe a request, at most half of WS_CONNECTIONS_MAX; one more, and the oldest is closed");
  reader.Integer(
      "WS_CONNECTIONS_PER_ADDRESS", &c.connections_per_address, 0, 1 << 30,
      "of one IPv4 address or IPv6 /64; further ones are reset, or get HTTP 429 from behind a proxy; 0: no limit");
  reader.Integer("HANDSHAKES_PER_SECOND_PER_ADDRESS", &c.handshakes_per_second_per_address, 0, 1'000'000,
                 "handshakes and REST calls of one address, ten seconds' worth at once; past it HTTP 429; 0: no limit");
  reader.List(
      "TRUSTED_PROXIES", &c.trusted_proxies,
      "addresses and networks (10.0.0.0/8) whose X-Forwarded-For is believed, and that no address limit holds for");

  reader.Check(
      [&c] { return TrustedProxies::Parse(c.trusted_proxies).ok(); },
      "TRUSTED_PROXIES: each item is an address (10.0.0.7) or a network (10.0.0.0/8, no bits behind the prefix)");
  reader.Check([&c] { return c.service_files.certificate.empty() == c.service_files.key.empty(); },
               "SERVICE_TLS_CERT and SERVICE_TLS_KEY belong together: set both or none");
  reader.Check([&c] { return c.strict_transport_age == Duration::zero() || c.service_files.any(); },
               "SERVICE_HSTS_MAX_AGE needs SERVICE_TLS_CERT: behind a proxy that has the certificate, set it there");
  reader.Check([&c] { return !c.core_link.empty(); }, "CORE_LINK is empty: name at least one core as host:port");
  reader.Check([&c] { return c.tokens.given(); },
               "there is no source of keys: set KEYCLOAK_URL and KEYCLOAK_REALM, or JWKS_FILE for development");
  reader.Check(
      [&c] { return c.link_tls != LinkTls::kOff || !c.link_files.any(); },
      "CORE_LINK_TLS=off, but CORE_LINK_CA, CORE_LINK_CERT or CORE_LINK_KEY is set: unset them, or CORE_LINK_TLS");
  reader.Check([&c] { return c.link_server_name.empty() || c.uses_link_tls(); },
               "CORE_LINK_SERVER_NAME needs TLS: set CORE_LINK_CA, or CORE_LINK_TLS=on for the system's authorities");
}

RoomClaimOptions Config::RoomClaims() const {
  RoomClaimOptions options{room_claim, room_role_prefix, tokens.jwt_audiences};
  if (!tokens.keycloak_client_id.empty()) options.role_clients.push_back(tokens.keycloak_client_id);
  return options;
}

namespace {

// For everything that is no client: the links, key fetches, the log, libraries.
constexpr uint64_t kDescriptorsReserved = 256, kDescriptorsReservedPerShard = 32;

// As many clients as the process may have descriptors for, shared out over the shards. Else clients could take the last one,
// and a lost core could not be dialled.
void FitConnections(Config& c) {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  getrlimit(RLIMIT_NOFILE, &limit);
  const uint64_t reserved = kDescriptorsReserved + kDescriptorsReservedPerShard * c.shards;
  const uint64_t for_clients = limit.rlim_cur > 2 * reserved ? limit.rlim_cur - reserved : limit.rlim_cur / 2;
  c.connections_max =
      static_cast<uint32_t>(std::min<uint64_t>(c.connections_max, std::max<uint64_t>(1, for_clients / c.shards)));
}

}  // namespace

void Complete(Config& c) {
  if (c.edge_name.empty()) {
    char host[256] = "edge";
    gethostname(host, sizeof host - 1);
    c.edge_name = std::string(host) + ":" + std::to_string(getpid());
  }
  if (c.shards == 0) c.shards = std::clamp(std::thread::hardware_concurrency(), 1u, 256u);
  FitConnections(c);
}

}  // namespace presence::edge
