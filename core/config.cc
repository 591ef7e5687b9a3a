#include "core/config.h"

#include <unistd.h>

#include <array>
#include <chrono>

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

  reader.Section("Listeners");
  reader.Listen("API_LISTEN", &c.api_listen, "the public gRPC API, health and reflection; port 0: any free one");
  reader.Listen("LINK_LISTEN", &c.link_listen, "the edges attach here; not for the public");
  reader.ListenOrOff("METRICS_LISTEN", &c.metrics_listen, "Prometheus metrics at /metrics");
  reader.Bool("GRPC_REFLECTION", &c.grpc_reflection, "lets grpcurl and the like ask for the services");

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

  reader.Check([&c] { return c.in_memory() || c.redis_address().ok(); },
               "REDIS_URL must be redis://[[user]:password@]host[:port][/database], unix:///path or memory:");
  reader.Check([&c] { return c.presence_ttl >= 3 * c.heartbeat_interval; },
               "WS_PRESENCE_TTL must be at least 3 x WS_HEARTBEAT_INTERVAL, or live users would be shown offline");
}

HubOptions Config::MakeHubOptions(uint64_t incarnation) const {
  HubOptions options;
  options.core_name = core_name;
  options.incarnation = incarnation;
  options.scope = presence_scope;
  options.edge_grace = std::chrono::ceil<milliseconds>(edge_grace);
  return options;
}

StoreOptions Config::MakeStoreOptions(uint64_t incarnation) const {
  StoreOptions options;
  options.presence_ttl = std::chrono::ceil<seconds>(presence_ttl);
  options.typing_ttl = std::chrono::ceil<seconds>(typing_ttl);
  // An edge closes a connection after 2 H of silence and reports signs of life once a second; the rest is for the way.
  options.entry_lifetime = std::chrono::ceil<milliseconds>(2 * heartbeat_interval) + seconds(3);
  options.core_incarnation = incarnation;
  return options;
}

}  // namespace presence::core
