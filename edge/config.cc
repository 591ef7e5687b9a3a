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
  reader.Check([&c] { return c.tokens.given(); },
               "there is no source of keys: set KEYCLOAK_URL and KEYCLOAK_REALM, or JWKS_FILE for development");
  reader.Check(
      [&c] { return c.link_tls != LinkTls::kOff || !c.link_files.any(); },
      "CORE_LINK_TLS=off, but CORE_LINK_CA, CORE_LINK_CERT or CORE_LINK_KEY is set: unset them, or CORE_LINK_TLS");
  reader.Check([&c] { return c.link_server_name.empty() || c.uses_link_tls(); },
               "CORE_LINK_SERVER_NAME needs TLS: set CORE_LINK_CA, or CORE_LINK_TLS=on for the system's authorities");
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
