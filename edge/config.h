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
enum class LinkTls : uint8_t { kAuto, kOn, kOff };

struct Config {
  std::string service_name = "presence";
  std::string service_host = "0.0.0.0";
  uint16_t service_port = 8006;
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

  Duration heartbeat_interval = std::chrono::seconds(30);
  uint64_t message_bytes_max = 64 * 1024;
  uint64_t send_buffer_bytes_max = 1024 * 1024;
  uint32_t connections_max = 19'000;
  uint32_t rooms_per_connection_max = 1'000;
  uint32_t presence_frames_per_second = 200'000;
  Duration isolation_max = std::chrono::seconds(30);
  Duration drain_window = std::chrono::seconds(3);

  bool uses_link_tls() const { return link_tls == LinkTls::kOn || (link_tls == LinkTls::kAuto && link_files.any()); }
};

// Declares all settings. What depends on the machine (name, shards, connections) is filled in by Complete, which
// also raises the soft descriptor limit to the hard one.
void Declare(Config& config, ConfigReader& reader);
void Complete(Config& config);

}  // namespace presence::edge
