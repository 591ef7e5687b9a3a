// Every setting of presence-edge, read and validated at one place. Names and defaults: the specification's where it has them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/config.h"
#include "common/log.h"
#include "common/time.h"
#include "common/tls_files.h"
#include "common/token_settings.h"

namespace presence::edge {

enum class RestAuth : uint8_t { kOpen, kBearer };
enum class TokenExpiry : uint8_t { kIgnore, kClose };
enum class LinkTls : uint8_t { kAuto, kOn, kOff };

struct Config {
  std::string service_name = "presence";
  std::string service_host = "0.0.0.0";
  uint16_t service_port = 8006;
  TlsPaths service_files;  // certificate and key for clients; none: they speak plainly
  Duration strict_transport_age{0};
  std::string edge_name;  // default: host name and process id
  log::Level log_level = log::Level::kInfo;
  uint32_t shards = 0;  // default: one per hardware thread
  std::vector<std::string> core_link = {"127.0.0.1:50052"};

  LinkTls link_tls = LinkTls::kAuto;
  TlsPaths link_files;  // peer_ca: who signs the cores' certificates
  std::string link_server_name;
  std::string link_secret;
  std::string link_secret_file;

  TokenSettings tokens;
  std::string keycloak_client_secret;
  std::vector<std::string> allowed_origins = {"http://localhost:3000", "http://localhost:5173"};
  RestAuth rest_auth = RestAuth::kOpen;
  std::string room_claim = "rooms";
  std::string room_role_prefix = "room:";
  TokenExpiry token_expiry = TokenExpiry::kIgnore;
  Duration token_expiry_warning = std::chrono::seconds(60);
  bool auth_first_message = false;
  Duration auth_timeout = std::chrono::seconds(5);
  uint32_t auth_pending_max = 1'000;

  Duration heartbeat_interval = std::chrono::seconds(30);
  uint64_t message_bytes_max = 64 * 1024;
  uint64_t send_buffer_bytes_max = 1024 * 1024;
  uint32_t connections_max = 19'000;
  uint32_t rooms_per_connection_max = 1'000;
  // A client that comes back subscribes to all its rooms at once: 1,000 frames, of 100 bytes or so, and what else it does then.
  uint32_t frames_per_second = 50;
  uint32_t frames_burst = 2'000;
  uint64_t bytes_per_second = 64 * 1024;
  uint64_t bytes_burst = 1024 * 1024;
  uint64_t head_bytes_max = 16'000;
  Duration handshake_timeout = std::chrono::seconds(5);
  uint32_t handshakes_pending_max = 4'096;
  // Of one address, behind which may be a whole company: more than half of what a shard takes, back within seconds.
  uint32_t connections_per_address = 12'000;
  uint32_t handshakes_per_second_per_address = 1'000;
  std::vector<std::string> trusted_proxies;
  uint32_t presence_frames_per_second = 200'000;
  Duration isolation_max = std::chrono::seconds(30);
  Duration drain_window = std::chrono::seconds(3);

  // Where a token says of which rooms it is good for: to be told to the cores.
  RoomClaimOptions RoomClaims() const;

  bool uses_link_tls() const { return link_tls == LinkTls::kOn || (link_tls == LinkTls::kAuto && link_files.any()); }
};

// Declares all settings. What depends on the machine (name, shards, connections) is filled in by Complete, which
// also raises the soft descriptor limit to the hard one.
void Declare(Config& config, ConfigReader& reader);
void Complete(Config& config);

}  // namespace presence::edge
