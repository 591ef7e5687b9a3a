// presence-edge: WebSockets and REST for browsers, one thread for each shard, each attached to a core.
//
//   clients ── SocketLoop ── Gate ── Shard ── CoreLink ══ core      (one of each per shard: shard_thread.h)
//                             │
//                          KeySource (JWKS_FILE or Keycloak)

#include <csignal>
#include <future>
#include <random>
#include <thread>

#include "common/config.h"
#include "common/log.h"
#include "edge/config.h"
#include "edge/edge_metrics.h"
#include "edge/key_source.h"
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

KeySourceOptions KeysOf(const Config& config) {
  KeySourceOptions options;
  if (config.jwks_file.empty()) {
    options.url = CertsUrl(config.keycloak_url, config.keycloak_realm);
  } else {
    options.file = config.jwks_file;
  }
  return options;
}

Gate::Options GateOf(const Config& config) {
  Gate::Options options;
  options.allowed_origins = config.allowed_origins;
  options.rest_auth = config.rest_auth == RestAuth::kBearer;
  options.verifier.issuers = config.jwt_issuers;
  options.verifier.audiences = config.jwt_audiences;
  if (config.jwt_audiences.empty() && !config.keycloak_client_id.empty()) {
    options.verifier.client_ids = {config.keycloak_client_id};
  }
  return options;
}

void Drain(EdgeContext& context, std::span<const std::unique_ptr<ShardThread>> shards) {
  const auto window = std::chrono::duration_cast<milliseconds>(context.config.drain_window);
  log::Info("Stopping: closing connections over {} ms", window.count());
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

int Run(const Config& config) {
  auto keys = KeySource::Start(KeysOf(config));
  if (!keys.ok()) {
    log::Error("Keys: {}", std::string(keys.status().message()));
    return 1;
  }
  EdgeContext context{.config = config,
                      .incarnation = RandomIncarnation(),
                      .gate = Gate(GateOf(config)),
                      .keys = **keys,
                      .stats = {},
                      .metrics = {}};
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
  RegisterMetrics(context, shards);
  for (const auto& shard : shards) shard->Start();
  log::Info("presence-edge {} is listening on {}:{}, {} shards of at most {} connections", PRESENCE_VERSION,
            config.service_host, port, shards.size(), config.connections_max);

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
