// presence-core: wires the parts together and takes them down again in order.
//
//   backend services ──▶ ApiService ──┐                            ┌─▶ RedisStore ──▶ Redis, other cores
//   operators ─────────▶ AdminService ┼─▶ CoreRuntime (hub, ───────┤
//   edges ◀────────────▶ LinkService ─┘        │     watches)      └─▶ or MemoryStore: one core alone
//                                              ▼
//   Prometheus ────────▶ MetricsServer ◀─ MetricsPage

#include <pthread.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <memory>
#include <random>
#include <thread>

#include "common/log.h"
#include "common/network.h"
#include "core/access_setup.h"
#include "core/admin_service.h"
#include "core/api_service.h"
#include "core/config.h"
#include "core/core_runtime.h"
#include "core/grpc_room_authorizer.h"
#include "core/link_service.h"
#include "core/listeners.h"
#include "core/memory_store.h"
#include "core/metrics_page.h"
#include "core/redis_rights.h"
#include "core/redis_store.h"
#include "core/serving_state.h"

namespace presence::core {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// 4 s for what is under way and 2 s for the calls of each of two servers: below the 10 s that container engines wait before
// they kill. Also below EDGE_GRACE: the hub must not take edges for lost that were sent away.
constexpr auto kDrainMax = seconds(4);
constexpr auto kCallsMax = seconds(2);

uint64_t RandomIncarnation() {
  std::random_device device;
  uint64_t number = 0;
  while (number == 0) number = (uint64_t{device()} << 32) | device();
  return number;
}

StoreFactory ChooseStore(const Config& config, uint64_t incarnation, RedisCounters& redis) {
  return
      [&config, &redis, options = config.MakeStoreOptions(incarnation)](asio::io_context& io, StoreListener& listener) {
        if (!config.in_memory()) {
          RedisStoreOptions redis_options{options, *config.redis_address(), {}, &redis, *config.sentinels()};
          return HostedStore{nullptr, std::make_unique<RedisStore>(io, std::move(redis_options), listener)};
        }
        auto database = std::make_shared<MemoryDatabase>([] { return ReadClocks().wall; });
        auto store = std::make_unique<MemoryStore>(options, *database, listener);
        return HostedStore{[database, memory = store.get()] { return memory->RunPending(); }, std::move(store)};
      };
}

const TlsNames kRoomAuthorizerFiles{"ROOM_AUTHORIZER_CERT", "ROOM_AUTHORIZER_KEY", "ROOM_AUTHORIZER_CA"};

// Files that settings name are read before anything starts, so that what is wrong with them is reported with all other mistakes.
void CheckFiles(const Config& config, ConfigReader& reader) {
  AccessSetup::CheckFiles(config, reader);
  reader.CheckStatus([&config] {
    if (config.room_auth != RoomAuthSource::kGrpc) return absl::OkStatus();
    return TlsFiles::Check(config.room_authorizer_tls, kRoomAuthorizerFiles);
  });
}

// Null for a ROOM_AUTH that asks nobody.
absl::StatusOr<RoomAuthorizerFactory> ChooseRoomAuthorizer(const Config& config, RoomRightsMetrics& metrics) {
  switch (config.room_auth) {
    case RoomAuthSource::kRedis:
      return [&config, &metrics](asio::io_context& io, RoomRightListener& listener) {
        return std::make_unique<RedisRights>(io, *config.redis_address(), *config.sentinels(), listener, metrics);
      };
    case RoomAuthSource::kGrpc: {
      GrpcRoomAuthorizerOptions options;
      options.address = config.room_authorizer;
      options.timeout = std::chrono::ceil<milliseconds>(config.room_authorizer_timeout);
      options.calls_max = config.room_authorizer_concurrency;
      if (config.room_authorizer_tls.any()) {
        auto files = TlsFiles::Open(config.room_authorizer_tls, kRoomAuthorizerFiles);
        if (!files.ok()) return files.status();
        options.tls = *std::move(files);
      } else if (!IsLoopback(HostOfTarget(options.address))) {
        log::Warning(
            "ROOM_AUTHORIZER is asked without TLS: who can write on that network can let anybody into any room");
      }
      return [options, &metrics](asio::io_context& io, RoomRightListener& listener) {
        return std::make_unique<GrpcRoomAuthorizer>(io, options, listener, metrics);
      };
    }
    case RoomAuthSource::kOpen:
    case RoomAuthSource::kClaims:
      break;
  }
  return RoomAuthorizerFactory();
}

// SIGTERM and SIGINT reach WaitForStop alone, whatever threads there are.
sigset_t BlockStopSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  return signals;
}

// The first signal returns; from then on a further one ends the process at once.
int WaitForStop(const sigset_t& signals) {
  int signal = 0;
  sigwait(&signals, &signal);
  const auto exit_at_once = [](int) { _exit(1); };
  std::signal(SIGTERM, exit_at_once);
  std::signal(SIGINT, exit_at_once);
  pthread_sigmask(SIG_UNBLOCK, &signals, nullptr);
  return signal;
}

int Fail(const absl::Status& why) {
  log::Error("presence-core cannot start: {}", std::string_view(why.message().data(), why.message().size()));
  return 1;
}

int Run(const Config& config, const sigset_t& stop_signals) {
  const uint64_t incarnation = RandomIncarnation();
  auto access = AccessSetup::Make(config);
  if (!access.ok()) return Fail(access.status());

  ServingState serving;
  CoreRuntimeOptions options;
  options.hub = config.MakeHubOptions(incarnation);
  options.hub.version = PRESENCE_VERSION;
  options.hub.started_ms = ToUnixMillis(ReadClocks().wall);
  options.on_store_changed = [&serving](bool up) { serving.SetStoreUp(up); };
  options.on_draining = [&serving] { serving.SetDraining(); };
  RoomRightsMetrics room_rights;
  auto authorizer = ChooseRoomAuthorizer(config, room_rights);
  if (!authorizer.ok()) return Fail(authorizer.status());
  options.make_room_authorizer = *std::move(authorizer);
  RedisCounters redis;
  CoreRuntime runtime(std::move(options), ChooseStore(config, incarnation, redis));
  ApiService api(runtime, *access->api);
  AdminService admin(runtime, *access->api);
  LinkService link(runtime, access->link);
  MetricsPage metrics;
  AddCoreMetrics(metrics, {runtime.metrics(), api.metrics(), admin.metrics(), link.metrics(), redis, room_rights});
  runtime.Start();

  SetUpGrpc();
  auto api_server = GrpcServer::Listen({.setting = "API_LISTEN",
                                        .listen = config.api_listen,
                                        .credentials = access->api_credentials,
                                        .reflection = config.grpc_reflection,
                                        .channelz = config.grpc_channelz,
                                        .receive_bytes_max = kApiReceiveBytesMax,
                                        .metadata_bytes_max = kApiMetadataBytesMax,
                                        .streams_max = kApiStreamsMax},
                                       {&api, &admin});
  if (!api_server.ok()) return Fail(api_server.status());
  auto link_server = GrpcServer::Listen({.setting = "LINK_LISTEN",
                                         .listen = config.link_listen,
                                         .credentials = access->link_credentials,
                                         .receive_bytes_max = kLinkReceiveBytesMax,
                                         .streams_max = kLinkStreamsMax},
                                        {&link});
  if (!link_server.ok()) return Fail(link_server.status());
  std::unique_ptr<MetricsServer> metrics_server;
  if (config.metrics_listen) {
    auto server = MetricsServer::Listen("METRICS_LISTEN", *config.metrics_listen, metrics);
    if (!server.ok()) return Fail(server.status());
    metrics_server = *std::move(server);
  }
  grpc::HealthCheckServiceInterface& api_health = (*api_server)->health();
  serving.Follow(api_health, "", ServingState::Needs::kStore);
  serving.Follow(api_health, "presence.v1.PresenceService", ServingState::Needs::kStore);
  serving.Follow(api_health, "presence.admin.v1.AdminService", ServingState::Needs::kNothing);
  grpc::HealthCheckServiceInterface& link_health = (*link_server)->health();
  serving.Follow(link_health, "", ServingState::Needs::kNothing);
  serving.Follow(link_health, "presence.link.v1.Link", ServingState::Needs::kNothing);
  log::Info("presence-core is ready: API on {}, link on {}, metrics on {}", (*api_server)->address(),
            (*link_server)->address(), metrics_server ? metrics_server->address() : "nothing (off)");

  const int signal = WaitForStop(stop_signals);
  log::Info("presence-core is stopping ({})", strsignal(signal));
  serving.SetDraining();
  // civetweb needs up to 2 s to stop: meanwhile.
  std::thread stop_metrics([&metrics_server] { metrics_server.reset(); });
  const bool drained = runtime.Drain(kDrainMax);
  if (!drained) log::Warning("presence-core stops with work undone: the store did not confirm everything in time");
  (*link_server)->Shutdown(kCallsMax);
  (*api_server)->Shutdown(kCallsMax);
  serving.Forget();
  runtime.Stop();
  stop_metrics.join();
  log::Info("presence-core has stopped");
  return 0;
}

}  // namespace
}  // namespace presence::core

int main(int argc, char** argv) {
  using presence::core::Config;

  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--version") == 0) {
      std::puts("presence-core " PRESENCE_VERSION);
      return 0;
    }
  }
  Config config;
  presence::ConfigReader reader(
      "presence-core",
      "Rooms, presence and the public gRPC API of the presence service. Edges attach to it; state "
      "and other cores are reached through Redis.");
  presence::core::DeclareSettings(reader, config);
  presence::core::CheckFiles(config, reader);
  const auto outcome = reader.Read(argc, argv);
  if (outcome != presence::ConfigReader::Outcome::kRun) return reader.Explain(outcome);

  const sigset_t stop_signals = presence::core::BlockStopSignals();  // before any thread is started
  std::signal(SIGPIPE, SIG_IGN);  // hiredis and civetweb write to sockets that may be closed
  presence::log::Options log_options;
  log_options.level = config.log_level;
  presence::log::Start(log_options);
  presence::log::Info("{} ({}), version {}, core {}", config.service_name, "presence-core", PRESENCE_VERSION,
                      presence::Escaped(config.core_name));
  for (const std::string& setting : reader.Changed()) presence::log::Info("set: {}", setting);
  const int code = presence::core::Run(config, stop_signals);
  presence::log::Stop();
  return code;
}
