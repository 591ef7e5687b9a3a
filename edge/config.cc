#include "edge/config.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <thread>

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
                 "on SIGTERM the clients are closed spread over this time");

  reader.Section("Core");
  reader.List("CORE_LINK", &c.core_link, "LINK_LISTEN addresses of the cores (host:port), tried in turn");
  reader.Seconds("EDGE_ISOLATION_MAX", &c.isolation_max, {seconds(0), hours(24)},
                 "without any core for so long, clients are closed with 1012; 0: never");
  reader.Integer("PRESENCE_FRAMES_PER_SECOND", &c.presence_frames_per_second, 1'000, 100'000'000,
                 "presence frames to clients, per shard; the rest waits and is coalesced per user");

  reader.Section("Keys and tokens");
  reader.Url("KEYCLOAK_URL", &c.keycloak_url, "where Keycloak is; its realm's keys verify the tokens");
  reader.Text("KEYCLOAK_REALM", &c.keycloak_realm, "the realm");
  reader.Text("KEYCLOAK_CLIENT_ID", &c.keycloak_client_id,
              "must be the azp or in the aud of a token while JWT_AUDIENCE is unset; empty: not checked");
  reader.Secret("KEYCLOAK_CLIENT_SECRET", &c.keycloak_client_secret,
                "accepted for compatibility and not used: verifying tokens takes public keys only");
  reader.Text("JWKS_FILE", &c.jwks_file, "a JWK set in a file instead of Keycloak: for development and tests");
  reader.List("JWT_ISSUER", &c.jwt_issuers,
              "accepted issuers; empty: KEYCLOAK_URL/realms/KEYCLOAK_REALM, with JWKS_FILE any");
  reader.List("JWT_AUDIENCE", &c.jwt_audiences,
              "one of these must be in the token's aud; empty: see KEYCLOAK_CLIENT_ID");
  reader.List("ALLOWED_ORIGINS", &c.allowed_origins,
              "pages that may connect and read REST answers, beside the edge's own; * is any");
  reader.Choice("REST_AUTH", &c.rest_auth, {{"open", RestAuth::kOpen}, {"bearer", RestAuth::kBearer}},
                "whether GET /presence needs a token");

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

  reader.Check([&c] { return !c.core_link.empty(); }, "CORE_LINK is empty: name at least one core as host:port");
  reader.Check([&c] { return !c.jwks_file.empty() || !c.keycloak_url.empty(); },
               "there is no source of keys: set KEYCLOAK_URL and KEYCLOAK_REALM, or JWKS_FILE for development");
  reader.Check([&c] { return c.jwks_file.empty() || access(c.jwks_file.c_str(), R_OK) == 0; },
               "JWKS_FILE cannot be read: `presence-cli keys --out DIR` makes DIR/jwks.json");
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
  if (c.jwks_file.empty() && c.jwt_issuers.empty()) {
    std::string base = c.keycloak_url;
    while (!base.empty() && base.back() == '/') base.pop_back();
    c.jwt_issuers = {base + "/realms/" + c.keycloak_realm};
  }
}

}  // namespace presence::edge
