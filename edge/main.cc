// presence-edge: WebSockets and REST for browsers, one thread for each shard, each attached to a core.
//
//   clients ── SocketLoop ── Gate ── Shard ── CoreLink ══ core      (one of each per shard: shard_thread.h)
//                             │
//                          KeySource (JWKS_FILE or Keycloak)

#include <csignal>
#include <future>
#include <random>
#include <thread>

#include "absl/synchronization/mutex.h"
#include "common/config.h"
#include "common/key_source.h"
#include "common/log.h"
#include "common/network.h"
#include "common/shared_secret.h"
#include "common/tls_files.h"
#include "edge/config.h"
#include "edge/edge_metrics.h"
#include "edge/shard_thread.h"

namespace presence::edge {
namespace {

using std::chrono::milliseconds;

uint64_t RandomIncarnation() {
  std::random_device device;
  uint64_t value = 0;
  while (value == 0) value = (uint64_t{device()} << 32) | device();
  return value;
}

Gate::Options GateOf(const Config& config) {
  Gate::Options options;
  options.allowed_origins = config.allowed_origins;
  options.rest_auth = config.rest_auth == RestAuth::kBearer;
  options.auth_first_message = config.auth_first_message;
  options.verifier = config.tokens.PartyOptions();
  options.verifier.room_claims = config.RoomClaims();
  return options;
}

// A logout token is for the client whose session ends, whatever its access tokens are for.
VerifierOptions LogoutTokensOf(const Config& config) {
  VerifierOptions options = config.tokens.PartyOptions();
  if (!config.tokens.keycloak_client_id.empty()) options.client_ids = {config.tokens.keycloak_client_id};
  return options;
}

AddressLimitsOptions AddressLimitsOf(const Config& config) {
  AddressLimitsOptions options;
  options.connections_max = config.connections_per_address;
  options.handshakes_per_second = config.handshakes_per_second_per_address;
  options.handshakes_burst = uint64_t{10} * config.handshakes_per_second_per_address;
  options.addresses_max += size_t{config.shards} * config.connections_max;  // each of which may come from another one
  return options;
}

void Drain(EdgeContext& context, std::span<const std::unique_ptr<ShardThread>> shards) {
  const auto window = std::chrono::duration_cast<milliseconds>(context.config.drain_window);
  log::Info("Stopping: sending clients away over {} ms", window.count());
  context.draining = true;  // readiness goes first
  std::vector<std::future<void>> drained;
  for (const auto& shard : shards) {
    auto done = std::make_shared<std::promise<void>>();
    drained.push_back(done->get_future());
    // The whole exit takes less than 10 s: what cannot be confirmed by then is left to the core.
    shard->BeginDrain(window, window + milliseconds(1500), [done] { done->set_value(); });
  }
  for (auto& each : drained) each.wait();
}

const TlsNames kServiceFiles{"SERVICE_TLS_CERT", "SERVICE_TLS_KEY", ""};
const TlsNames kLinkFiles{"CORE_LINK_CERT", "CORE_LINK_KEY", "CORE_LINK_CA"};

// Files that settings name are read before anything starts, so that what is wrong with them is reported with all other mistakes.
void CheckFiles(const Config& config, ConfigReader& reader) {
  reader.CheckStatus([&config] { return TlsFiles::Check(config.service_files, kServiceFiles); });
  reader.CheckStatus([&config] { return TlsFiles::Check(config.link_files, kLinkFiles); });
  reader.CheckStatus(
      [&config] { return LoadSecret("LINK_SECRET", config.link_secret, config.link_secret_file).status(); });
}

// What this edge shows its cores, and what it expects of them.
absl::StatusOr<LinkCredentials> LinkCredentialsOf(const Config& config) {
  LinkCredentials credentials;
  absl::StatusOr<std::string> secret = LoadSecret("LINK_SECRET", config.link_secret, config.link_secret_file);
  if (!secret.ok()) return secret.status();
  credentials.secret = *std::move(secret);
  credentials.server_name = config.link_server_name;
  if (config.uses_link_tls()) {
    auto tls = TlsFiles::Open(config.link_files, kLinkFiles);
    if (!tls.ok()) return tls.status();
    credentials.tls = *std::move(tls);
  } else if (!credentials.secret.empty()) {
    for (const std::string& core : config.core_link) {
      if (IsLoopback(HostOfTarget(core))) continue;
      log::Warning("LINK_SECRET goes to {} without TLS: who can read that network can read it, too; set CORE_LINK_CA",
                   Escaped(core));
      break;
    }
  }
  return credentials;
}

int Run(const Config& config) {
  // Debian's Abseil, on which gRPC stands, looks for deadlock cycles at each lock, in release builds, too.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  auto link = LinkCredentialsOf(config);
  if (!link.ok()) {
    log::Error("{}", std::string(link.status().message()));
    return 1;
  }
  auto proxies = TrustedProxies::Parse(config.trusted_proxies);
  if (!proxies.ok()) {
    log::Error("TRUSTED_PROXIES: {}", std::string(proxies.status().message()));
    return 1;
  }
  std::shared_ptr<TlsFiles> service_tls;
  if (config.service_files.any()) {
    auto opened = TlsFiles::Open(config.service_files, kServiceFiles);
    if (!opened.ok()) {
      log::Error("{}", std::string(opened.status().message()));
      return 1;
    }
    service_tls = *std::move(opened);
  }
  auto keys = KeySource::Start(config.tokens.KeyOptions());
  if (!keys.ok()) {
    log::Error("Keys: {}", std::string(keys.status().message()));
    return 1;
  }
  EdgeContext context{.config = config,
                      .incarnation = RandomIncarnation(),
                      .gate = Gate(GateOf(config)),
                      .logout_tokens = LogoutTokenVerifier(LogoutTokensOf(config)),
                      .keys = **keys,
                      .proxies = *std::move(proxies),
                      .addresses = AddressLimits(AddressLimitsOf(config)),
                      .stats = {},
                      .metrics = {},
                      .link = *std::move(link),
                      .service_tls = service_tls,
                      .version = PRESENCE_VERSION,
                      .started_ms = ToUnixMillis(ReadClocks().wall)};
  for (uint32_t i = 0; i < config.shards; ++i) context.stats.push_back(std::make_unique<ShardStats>());

  std::vector<std::unique_ptr<ShardThread>> shards;
  uint16_t port = config.service_port;
  for (uint32_t i = 0; i < config.shards; ++i) {
    auto shard = ShardThread::Create(context, i, port);
    if (!shard.ok()) {
      log::Error("SERVICE_HOST={} SERVICE_PORT={}: {}", config.service_host, port,
                 std::string(shard.status().message()));
      return 1;
    }
    port = (*shard)->port();
    shards.push_back(*std::move(shard));
  }
  context.drain_edge = [&context, &shards](milliseconds window) {
    if (context.draining.exchange(true)) return;  // readiness goes first
    log::Info("Draining: sending clients away over {} ms", window.count());
    for (const auto& shard : shards) shard->SendAway(window);
  };
  RegisterMetrics(context, shards);
  for (const auto& shard : shards) shard->Start();
  log::Info("presence-edge {} is listening on {}:{} ({}), {} shards of at most {} connections", PRESENCE_VERSION,
            config.service_host, port, service_tls != nullptr ? "wss, https" : "ws, http", shards.size(),
            config.connections_max);

  // Everything else blocks these signals: see main.
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  int signal = 0;
  sigwait(&signals, &signal);
  std::thread([signals] {
    int second = 0;
    sigwait(&signals, &second);
    std::_Exit(1);
  }).detach();

  Drain(context, shards);
  for (const auto& shard : shards) shard->Stop();
  keys->reset();  // its thread may still post to a shard: it goes first
  log::Info("Stopped");
  return 0;
}

}  // namespace
}  // namespace presence::edge

int main(int argc, char** argv) {
  using presence::ConfigReader;
  std::signal(SIGPIPE, SIG_IGN);
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);

  presence::edge::Config config;
  ConfigReader reader("presence-edge", "WebSockets and REST for browsers; attaches to presence-core.");
  presence::edge::Declare(config, reader);
  presence::edge::CheckFiles(config, reader);
  if (const auto outcome = reader.Read(argc, argv); outcome != ConfigReader::Outcome::kRun) {
    return reader.Explain(outcome);
  }
  presence::edge::Complete(config);
  presence::log::Options logging;
  logging.level = config.log_level;
  presence::log::Start(logging);
  for (const auto& setting : reader.Changed()) presence::log::Info("{}", presence::Escaped(setting));
  const int code = presence::edge::Run(config);
  presence::log::Stop();
  return code;
}
