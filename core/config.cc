#include "core/config.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>

#include "common/network.h"

namespace presence::core {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// Tells cores apart in logs: unique among the processes of one host, and readable.
std::string DefaultCoreName() {
  std::array<char, 256> host{};
  if (gethostname(host.data(), host.size() - 1) != 0) host = {"core"};
  return std::string(host.data()) + ":" + std::to_string(getpid());
}

// Nothing is open to others by mistake: who listens beyond loopback says who may come.
void DeclareAccessRules(ConfigReader& reader, Config& c) {
  const auto beyond_loopback = [](const ListenAddress& listen) { return !IsLoopback(listen.host); };
  reader.Check(
      [&c, beyond_loopback] {
        return c.api_auth != ApiAuth::kAuto || c.effective_api_auth() != ApiAuth::kOpen ||
               !beyond_loopback(c.api_listen);
      },
      "API_LISTEN is not a loopback address, and nothing says who may call: set KEYCLOAK_URL and KEYCLOAK_REALM (or "
      "JWKS_FILE) for tokens, or API_TLS_CERT, API_TLS_KEY and API_TLS_CLIENT_CA for client certificates, or "
      "API_AUTH=open to "
      "let everybody call");
  reader.Check(
      [&c, beyond_loopback] {
        return c.link_auth != LinkAuth::kAuto || c.effective_link_auth() != LinkAuth::kOpen ||
               !beyond_loopback(c.link_listen);
      },
      "LINK_LISTEN is not a loopback address, and nothing says which edges may attach: set LINK_SECRET (the same on "
      "cores and "
      "edges), or LINK_TLS_CERT, LINK_TLS_KEY and LINK_TLS_CLIENT_CA for client certificates, or LINK_AUTH=open to let "
      "everybody attach");
  reader.Check([&c] { return c.api_auth != ApiAuth::kJwt || c.tokens.given(); },
               "API_AUTH=jwt needs keys: set KEYCLOAK_URL and KEYCLOAK_REALM, or JWKS_FILE");
  reader.Check([&c] { return c.api_auth != ApiAuth::kMtls || !c.api_tls.peer_ca.empty(); },
               "API_AUTH=mtls needs API_TLS_CLIENT_CA");
  reader.Check(
      [&c] { return c.api_auth != ApiAuth::kOpen || c.api_tls.peer_ca.empty(); },
      "API_AUTH=open, but API_TLS_CLIENT_CA asks for certificates: set API_AUTH=mtls, or unset one of the two");
  reader.Check([&c] { return c.api_tls.certificate.empty() == c.api_tls.key.empty(); },
               "API_TLS_CERT and API_TLS_KEY belong together: set both or none");
  reader.Check([&c] { return c.api_tls.peer_ca.empty() || !c.api_tls.certificate.empty(); },
               "API_TLS_CLIENT_CA needs API_TLS_CERT and API_TLS_KEY: there are no client certificates without TLS");
  reader.Check([&c] { return c.link_auth != LinkAuth::kSecret || c.has_link_secret(); },
               "LINK_AUTH=secret needs LINK_SECRET or LINK_SECRET_FILE");
  reader.Check([&c] { return c.link_auth != LinkAuth::kMtls || !c.link_tls.peer_ca.empty(); },
               "LINK_AUTH=mtls needs LINK_TLS_CLIENT_CA");
  reader.Check([&c] { return c.link_auth != LinkAuth::kOpen || (c.link_tls.peer_ca.empty() && !c.has_link_secret()); },
               "LINK_AUTH=open, but LINK_TLS_CLIENT_CA or LINK_SECRET is set: unset it, or LINK_AUTH");
  reader.Check([&c] { return c.link_tls.certificate.empty() == c.link_tls.key.empty(); },
               "LINK_TLS_CERT and LINK_TLS_KEY belong together: set both or none");
  reader.Check([&c] { return c.link_tls.peer_ca.empty() || !c.link_tls.certificate.empty(); },
               "LINK_TLS_CLIENT_CA needs LINK_TLS_CERT and LINK_TLS_KEY: there are no client certificates without TLS");
  reader.Check(
      [&c] { return !c.grpc_channelz || c.effective_api_auth() != ApiAuth::kJwt; },
      "GRPC_CHANNELZ=on would show everybody the connections, since channelz cannot ask for a role: unset it, or use "
      "API_AUTH=mtls (or open, which lets everybody do everything)");
}

void DeclareRoomSettings(ConfigReader& reader, Config& c) {
  reader.Section("Rooms");
  reader.Choice(
      "ROOM_AUTH", &c.room_auth,
      {{"open", RoomAuthSource::kOpen},
       {"claims", RoomAuthSource::kClaims},
       {"redis", RoomAuthSource::kRedis},
       {"grpc", RoomAuthSource::kGrpc}},
      "who may be in a room: everybody, whom the token lets in, whom sets in Redis name, or whom ROOM_AUTHORIZER does");
  reader.Seconds("ROOM_AUTH_CACHE", &c.room_auth_cache, {seconds(1), seconds(3600)},
                 "redis, grpc: how long an answer is remembered; a refusal for 5 s at most");
  reader.Seconds(
      "ROOM_AUTH_GRACE", &c.room_auth_grace, {seconds(0), seconds(86400)},
      "redis, grpc: so long after its last answer somebody stays in a room while nobody can say whether that is right");
  reader.Text("ROOM_AUTHORIZER", &c.room_authorizer,
              "grpc: where presence.v1.RoomAuthorizer is, host:port or another gRPC name");
  reader.Text("ROOM_AUTHORIZER_CA", &c.room_authorizer_tls.peer_ca,
              "PEM file: who may have signed its certificate; without this and the next two: no TLS");
  reader.Text("ROOM_AUTHORIZER_CERT", &c.room_authorizer_tls.certificate,
              "PEM file: this core's certificate, for mutual TLS");
  reader.Text("ROOM_AUTHORIZER_KEY", &c.room_authorizer_tls.key, "PEM file: its private key, without a passphrase");
  reader.Seconds("ROOM_AUTHORIZER_TIMEOUT", &c.room_authorizer_timeout, {milliseconds(50), seconds(30)},
                 "for an answer; then nobody can say");
  reader.Integer("ROOM_AUTHORIZER_CONCURRENCY", &c.room_authorizer_concurrency, 1, 10'000,
                 "questions at a time; 10,000 more wait, further ones are refused");
  reader.Integer("ROOM_SUBSCRIBERS_MAX", &c.room_subscribers_max, 0, 100'000'000,
                 "connections in one room, of the edges of this core; a further one gets error 429; 0: no limit");
  reader.Check([&c] { return c.room_auth != RoomAuthSource::kRedis || !c.in_memory(); },
               "ROOM_AUTH=redis needs a Redis with the sets: REDIS_URL is memory:");
  reader.Check([&c] { return c.room_auth != RoomAuthSource::kGrpc || !c.room_authorizer.empty(); },
               "ROOM_AUTH=grpc needs ROOM_AUTHORIZER: where the backend is that knows who may be in a room");
  reader.Check([&c] { return c.room_auth == RoomAuthSource::kGrpc || c.room_authorizer.empty(); },
               "ROOM_AUTHORIZER is set, but nobody would ask it: set ROOM_AUTH=grpc, or unset it");
  reader.Check([&c] { return c.room_authorizer_tls.certificate.empty() == c.room_authorizer_tls.key.empty(); },
               "ROOM_AUTHORIZER_CERT and ROOM_AUTHORIZER_KEY belong together: set both or none");
}

RoomAuth RoomAuthOf(RoomAuthSource source) {
  switch (source) {
    case RoomAuthSource::kOpen:
      return RoomAuth::kOpen;
    case RoomAuthSource::kClaims:
      return RoomAuth::kClaims;
    case RoomAuthSource::kRedis:
    case RoomAuthSource::kGrpc:
      return RoomAuth::kAsked;
  }
  return RoomAuth::kAsked;
}

// As it is set.
const char* NameOf(RoomAuthSource source) {
  switch (source) {
    case RoomAuthSource::kOpen:
      return "open";
    case RoomAuthSource::kClaims:
      return "claims";
    case RoomAuthSource::kRedis:
      return "redis";
    case RoomAuthSource::kGrpc:
      return "grpc";
  }
  return "?";
}

}  // namespace

void DeclareSettings(ConfigReader& reader, Config& c) {
  c.core_name = DefaultCoreName();

  reader.Section("Service");
  reader.Text("SERVICE_NAME", &c.service_name, "name of the service in the log");
  reader.Text("CORE_NAME", &c.core_name, "name of this core in the logs of the edges");
  reader.Choice("LOG_LEVEL", &c.log_level,
                {{"DEBUG", log::Level::kDebug},
                 {"INFO", log::Level::kInfo},
                 {"WARNING", log::Level::kWarning},
                 {"WARN", log::Level::kWarning},
                 {"ERROR", log::Level::kError}},
                "the least level that is logged");

  reader.Section("Redis");
  reader.Url("REDIS_URL", &c.redis_url,
             "where state and bus are: redis://[:password@]host:port/db; memory: keeps them in this process, for one "
             "core alone");

  reader.List("REDIS_SENTINELS", &c.redis_sentinels,
              "host:port of each Sentinel; they say where the primary is, and of REDIS_URL only user, password and "
              "database count");
  reader.Text("REDIS_MASTER_NAME", &c.redis_master_name, "what the Sentinels call the primary");
  reader.Secret("REDIS_SENTINEL_PASSWORD", &c.redis_sentinel_password, "of the Sentinels themselves, if they want one");

  reader.Section("Listeners");
  reader.Listen("API_LISTEN", &c.api_listen, "the public gRPC API, health and reflection; port 0: any free one");
  reader.Listen("LINK_LISTEN", &c.link_listen, "the edges attach here; not for the public");
  reader.ListenOrOff("METRICS_LISTEN", &c.metrics_listen, "Prometheus metrics at /metrics");
  reader.Bool("GRPC_REFLECTION", &c.grpc_reflection, "lets grpcurl and the like ask the API listener for its services");
  reader.Bool("GRPC_CHANNELZ", &c.grpc_channelz,
              "gRPC's own view of connections and calls, on the API listener; not with API_AUTH=jwt");

  reader.Section("Access to the API");
  reader.Choice(
      "API_AUTH", &c.api_auth,
      {{"auto", ApiAuth::kAuto}, {"jwt", ApiAuth::kJwt}, {"mtls", ApiAuth::kMtls}, {"open", ApiAuth::kOpen}},
      "who may call: the bearer of a token with the role of the call, a client certificate, or everybody. auto: jwt "
      "with KEYCLOAK_URL or JWKS_FILE, else mtls with API_TLS_CLIENT_CA, else open, on loopback alone");
  reader.Text("API_TLS_CERT", &c.api_tls.certificate, "PEM file: the API's certificate and its chain; empty: no TLS");
  reader.Text("API_TLS_KEY", &c.api_tls.key, "PEM file: its private key, without a passphrase");
  reader.Text("API_TLS_CLIENT_CA", &c.api_tls.peer_ca,
              "PEM file: clients must show a certificate that one of these has signed");
  DeclareTokenSettings(reader, c.tokens);

  reader.Section("Access to the link");
  reader.Choice(
      "LINK_AUTH", &c.link_auth,
      {{"auto", LinkAuth::kAuto}, {"mtls", LinkAuth::kMtls}, {"secret", LinkAuth::kSecret}, {"open", LinkAuth::kOpen}},
      "which edges may attach: with a client certificate, with the secret, or all. auto: mtls with "
      "LINK_TLS_CLIENT_CA, else secret with LINK_SECRET, else open, on loopback alone");
  reader.Secret("LINK_SECRET", &c.link_secret, "the same as on the edges; at least 16 bytes");
  reader.Text("LINK_SECRET_FILE", &c.link_secret_file, "a file that holds it instead");
  reader.Text("LINK_TLS_CERT", &c.link_tls.certificate,
              "PEM file: the link's certificate and its chain; empty: no TLS");
  reader.Text("LINK_TLS_KEY", &c.link_tls.key, "PEM file: its private key, without a passphrase");
  reader.Text("LINK_TLS_CLIENT_CA", &c.link_tls.peer_ca,
              "PEM file: edges must show a certificate that one of these has signed");

  DeclareRoomSettings(reader, c);

  reader.Section("Presence");
  reader.Seconds("WS_HEARTBEAT_INTERVAL", &c.heartbeat_interval, {milliseconds(100), seconds(3600)},
                 "how often clients ping; as set for the edges");
  reader.Seconds("WS_PRESENCE_TTL", &c.presence_ttl, {seconds(1), seconds(86400)},
                 "how long a presence entry outlives the last sign of life");
  reader.Seconds("WS_TYPING_TTL", &c.typing_ttl, {seconds(1), seconds(300)}, "how long somebody is shown as typing");
  reader.Choice("PRESENCE_SCOPE", &c.presence_scope,
                {{"everyone", PresenceScope::kEveryone}, {"rooms", PresenceScope::kRooms}},
                "who hears of a presence change: everyone, or those who share a room with the user");
  reader.Seconds("EDGE_GRACE", &c.edge_grace, {seconds(1), seconds(60)},
                 "how long an edge may be away before its connections count as closed");

  reader.Section("Sessions");
  reader.Integer(
      "CONNECTIONS_PER_USER", &c.connections_per_user, 0, 100'000,
      "open connections of one user, over all edges; a further one is closed with 1008; 0: no limit. The same on "
      "all cores");
  reader.Seconds(
      "LOGOUT_LIFETIME", &c.logout_lifetime, {seconds(60), std::chrono::hours(24 * 366)},
      "how long a logout is remembered: at least as long as a token may live that was issued before it. The same "
      "on all cores");

  reader.Integer("ROOM_LOG_LENGTH", &c.room_log_length, 0, 100'000,
                 "messages of Broadcast that are kept of each room, for those who were cut off meanwhile; 0: none, and "
                 "nothing is made up for. The same on all cores");
  reader.Seconds("ROOM_LOG_AGE", &c.room_log_age, {seconds(1), std::chrono::minutes(30)},
                 "how long they are kept, at most. The same on all cores");

  reader.Check([&c] { return c.in_memory() || c.redis_address().ok(); },
               "REDIS_URL must be redis://[[user]:password@]host[:port][/database], unix:///path or memory:");
  reader.Check([&c] { return c.sentinels().ok(); },
               "REDIS_SENTINELS must be a list of host:port, and REDIS_MASTER_NAME must not be empty beside it");
  reader.Check([&c] { return c.redis_sentinels.empty() || !c.in_memory(); },
               "REDIS_SENTINELS and REDIS_URL=memory: contradict each other: unset one of them");
  reader.Check([&c] { return c.presence_ttl >= 3 * c.heartbeat_interval; },
               "WS_PRESENCE_TTL must be at least 3 x WS_HEARTBEAT_INTERVAL, or live users would be shown offline");
  DeclareAccessRules(reader, c);
}

absl::StatusOr<SentinelOptions> Config::sentinels() const {
  SentinelOptions options;
  for (const std::string& text : redis_sentinels) {
    absl::StatusOr<RedisAddress> address = ParseSentinel(text);
    if (!address.ok()) return address.status();
    address->password = redis_sentinel_password;
    options.sentinels.push_back(*std::move(address));
  }
  if (!options.empty() && redis_master_name.empty()) return absl::InvalidArgumentError("REDIS_MASTER_NAME is empty");
  options.primary_name = redis_master_name;
  return options;
}

ApiAuth Config::effective_api_auth() const {
  if (api_auth != ApiAuth::kAuto) return api_auth;
  if (tokens.given()) return ApiAuth::kJwt;
  return api_tls.peer_ca.empty() ? ApiAuth::kOpen : ApiAuth::kMtls;
}

LinkAuth Config::effective_link_auth() const {
  if (link_auth != LinkAuth::kAuto) return link_auth;
  if (!link_tls.peer_ca.empty()) return LinkAuth::kMtls;
  return has_link_secret() ? LinkAuth::kSecret : LinkAuth::kOpen;
}

VerifierOptions Config::ApiVerifierOptions() const {
  VerifierOptions options = tokens.PartyOptions();
  if (!tokens.keycloak_client_id.empty()) options.role_clients = {tokens.keycloak_client_id};
  // An audience of an API is, in Keycloak, the client that stands for it.
  for (const std::string& audience : tokens.jwt_audiences) options.role_clients.push_back(audience);
  return options;
}

HubOptions Config::MakeHubOptions(uint64_t incarnation) const {
  HubOptions options;
  options.core_name = core_name;
  options.incarnation = incarnation;
  options.scope = presence_scope;
  options.edge_grace = std::chrono::ceil<milliseconds>(edge_grace);
  // For H of 2 s: 2.5, 1 and 0.5 s. A longer H leaves time for a Redis that restarts, so that nobody moves for nothing.
  options.isolation_max = std::clamp<milliseconds>(
      std::chrono::ceil<milliseconds>(heartbeat_interval) + milliseconds(500), milliseconds(1000), milliseconds(5000));
  options.room_subscribers_max = room_subscribers_max;
  if (room_log_length > 0) options.room_log_age = std::chrono::ceil<seconds>(room_log_age);
  options.room_auth = RoomAuthOf(room_auth);
  options.room_auth_name = NameOf(room_auth);
  options.room_access.cache = std::chrono::ceil<milliseconds>(room_auth_cache);
  options.room_access.grace = std::chrono::ceil<milliseconds>(room_auth_grace);
  // Half of what may be under way: the other half is for those who want in.
  options.room_access.checks_max = std::clamp<size_t>(room_authorizer_concurrency / 2, 1, 64);
  return options;
}

StoreOptions Config::MakeStoreOptions(uint64_t incarnation) const {
  StoreOptions options;
  options.presence_ttl = std::chrono::ceil<seconds>(presence_ttl);
  options.typing_ttl = std::chrono::ceil<seconds>(typing_ttl);
  // An edge closes a connection after 2 H of silence and reports signs of life once a second; the rest is for the way.
  options.entry_lifetime = std::chrono::ceil<milliseconds>(2 * heartbeat_interval) + seconds(3);
  options.core_incarnation = incarnation;
  options.connections_per_user_max = connections_per_user;
  options.logout_lifetime = std::chrono::ceil<seconds>(logout_lifetime);
  options.room_log_length = room_log_length;
  options.room_log_age = std::chrono::ceil<seconds>(room_log_age);
  return options;
}

}  // namespace presence::core
