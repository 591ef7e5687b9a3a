// Everything that can be set in presence-core, in one place. Filled once, by main, before anything starts.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "common/config.h"
#include "common/log.h"
#include "common/time.h"
#include "common/tls_files.h"
#include "common/token_settings.h"
#include "core/hub.h"
#include "core/redis_connection.h"
#include "core/redis_sentinels.h"
#include "core/store.h"

namespace presence::core {

// Who may call. kJwt: a token of the realm with the role of the call. kMtls: a client certificate. kOpen: everybody.
enum class ApiAuth : uint8_t { kAuto, kJwt, kMtls, kOpen };
// kMtls: a client certificate, and the secret where one is set. kSecret: the secret.
enum class LinkAuth : uint8_t { kAuto, kMtls, kSecret, kOpen };

// Where rights to rooms come from; see RoomAuth in hub.h.
enum class RoomAuthSource : uint8_t { kOpen, kClaims, kRedis, kGrpc };

struct Config {
  std::string service_name = "presence";
  std::string core_name;  // default: host name and process id
  log::Level log_level = log::Level::kInfo;

  std::string redis_url = "redis://127.0.0.1:6379/0";  // kMemoryUrl: no Redis, this core alone

  std::vector<std::string> redis_sentinels;
  std::string redis_master_name = "mymaster";
  std::string redis_sentinel_password;

  ListenAddress api_listen{"127.0.0.1", 50051};
  ListenAddress link_listen{"127.0.0.1", 50052};
  std::optional<ListenAddress> metrics_listen = ListenAddress{"127.0.0.1", 9464};
  bool grpc_reflection = true;
  bool grpc_channelz = false;

  ApiAuth api_auth = ApiAuth::kAuto;  // after Read: ask effective_api_auth()
  TlsPaths api_tls;
  TokenSettings tokens;  // whose tokens the API takes

  LinkAuth link_auth = LinkAuth::kAuto;  // after Read: ask effective_link_auth()
  TlsPaths link_tls;
  std::string link_secret;
  std::string link_secret_file;

  RoomAuthSource room_auth = RoomAuthSource::kOpen;
  Duration room_auth_cache = std::chrono::seconds(60);
  Duration room_auth_grace = std::chrono::seconds(300);
  std::string room_authorizer;  // a gRPC target
  TlsPaths room_authorizer_tls;
  Duration room_authorizer_timeout = std::chrono::seconds(2);
  uint32_t room_authorizer_concurrency = 64;
  uint32_t room_subscribers_max = 100'000;

  Duration heartbeat_interval = std::chrono::seconds(30);
  Duration presence_ttl = std::chrono::seconds(300);
  Duration typing_ttl = std::chrono::seconds(5);
  PresenceScope presence_scope = PresenceScope::kEveryone;
  Duration edge_grace = std::chrono::seconds(5);
  uint32_t connections_per_user = 100;  // 0: no limit
  Duration logout_lifetime = std::chrono::hours(10);
  uint32_t room_log_length = 1'000;  // 0: rooms have no logs
  Duration room_log_age = std::chrono::seconds(120);

  static constexpr const char* kMemoryUrl = "memory:";
  bool in_memory() const { return redis_url == kMemoryUrl; }

  // What redis_url says. OK after Read.
  absl::StatusOr<RedisAddress> redis_address() const { return ParseRedisUrl(redis_url); }

  // What redis_sentinels says; without any: empty. OK after Read.
  absl::StatusOr<SentinelOptions> sentinels() const;

  // What kAuto comes to.
  ApiAuth effective_api_auth() const;
  LinkAuth effective_link_auth() const;
  bool has_link_secret() const { return !link_secret.empty() || !link_secret_file.empty(); }
  // Parties and, as the only client whose roles count beside the realm's, the API's own.
  VerifierOptions ApiVerifierOptions() const;

  HubOptions MakeHubOptions(uint64_t incarnation) const;
  StoreOptions MakeStoreOptions(uint64_t incarnation) const;
};

// Declares the settings; the fields of `config` hold the defaults and receive the values. `config` must outlive
// `reader`.
void DeclareSettings(ConfigReader& reader, Config& config);

}  // namespace presence::core
