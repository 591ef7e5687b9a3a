#include "core/listeners.h"

#include <grpc/support/log.h>
#include <grpcpp/ext/channelz_service_plugin.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/impl/server_builder_option.h>
#include <grpcpp/resource_quota.h>
#include <prometheus/exposer.h>

#include <exception>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "common/log.h"
#include "grpc/health/v1/health.pb.h"

namespace presence::core {
namespace {

absl::string_view Absl(std::string_view text) {
  return {text.data(), text.size()};
}

absl::Status CannotListen(std::string_view setting, const ListenAddress& listen) {
  return absl::FailedPreconditionError(absl::StrCat("cannot listen on ", listen.ToString(),
                                                    ": the address is in use, or not one of this host's (set ",
                                                    Absl(setting), " to another one)"));
}

// What gRPC has to say about an address that cannot be listened on is said better by CannotListen.
thread_local bool trying_to_listen = false;

void WriteGrpcLine(gpr_log_func_args* args) {
  static log::LineLimit limit("gRPC messages", 5, 20);
  const log::Level level = trying_to_listen                           ? log::Level::kDebug
                           : args->severity == GPR_LOG_SEVERITY_ERROR ? log::Level::kWarning
                           : args->severity == GPR_LOG_SEVERITY_INFO  ? log::Level::kInfo
                                                                      : log::Level::kDebug;
  if (limit.Admit(level)) log::Write(level, "gRPC: " + Escaped(args->message, 500));
}

// Which of gRPC's optional services this server gets. Their plugins are registered for the whole process
// (reflection's even by linking the library), so each server takes away all and adds its own.
class Extras final : public grpc::ServerBuilderOption {
 public:
  Extras(bool reflection, bool channelz) : reflection_(reflection), channelz_(channelz) {}

  void UpdateArguments(grpc::ChannelArguments*) override {}
  void UpdatePlugins(std::vector<std::unique_ptr<grpc::ServerBuilderPlugin>>* plugins) override {
    std::erase_if(*plugins, [this](const auto& plugin) {
      return plugin->name() == "proto_server_reflection" || (!channelz_ && plugin->name() == "channelz_service");
    });
    if (reflection_) plugins->push_back(std::make_unique<grpc::reflection::ProtoServerReflectionPlugin>());
  }

 private:
  const bool reflection_, channelz_;
};

}  // namespace

void SetUpGrpc() {
  // Debian's Abseil looks for deadlock cycles at each lock, in release builds, too: a tenth of the CPU of a call.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  gpr_set_log_function(WriteGrpcLine);
  grpc::EnableDefaultHealthCheckService(true);
  // Links the description of the health service, which reflection looks for.
  grpc::health::v1::HealthCheckRequest::descriptor();
}

absl::StatusOr<std::unique_ptr<GrpcServer>> GrpcServer::Listen(const Options& options,
                                                               absl::Span<grpc::Service* const> services) {
  // gRPC's wildcard for both families; it falls back to 0.0.0.0 where there is no IPv6.
  const ListenAddress listen{options.listen.host.empty() ? "::" : options.listen.host, options.listen.port};
  if (options.channelz) {
    // Registers a plugin for every later builder of the process, once; Extras takes it away where it is not wanted.
    static const bool registered = (grpc::channelz::experimental::InitChannelzService(), true);
    static_cast<void>(registered);
  }
  int port = 0;
  grpc::ServerBuilder builder;
  builder.SetOption(std::make_unique<Extras>(options.reflection, options.channelz));
  builder.AddListeningPort(listen.ToString(), options.credentials, &port);
  // Else two cores with one address would share it, and each see half of the calls.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.SetMaxReceiveMessageSize(options.receive_bytes_max);
  builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, options.metadata_bytes_max);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, options.streams_max);
  builder.SetResourceQuota(grpc::ResourceQuota(std::string(options.setting)).Resize(kListenerBytesMax));
  // A peer that is gone without a word is found out within 40 s; until then its streams hold what they hold.
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 30'000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10'000);
  // Clients may ping every 10 s, which libraries take for frequent, streams or not: 5 s leave room for jitter. Who
  // pings faster is cut off after two warnings (gRPC's default of 5 minutes would cut off proper ones).
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 5'000);
  // A compressed message would be unpacked before its size is looked at: 8 MiB make 8 GiB.
  for (const auto algorithm : {GRPC_COMPRESS_DEFLATE, GRPC_COMPRESS_GZIP}) {
    builder.SetCompressionAlgorithmSupportStatus(algorithm, false);
  }
  builder.AddChannelArgument(GRPC_ARG_ENABLE_PER_MESSAGE_DECOMPRESSION, 0);
  for (grpc::Service* service : services) builder.RegisterService(service);
  trying_to_listen = true;
  std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  trying_to_listen = false;
  if (server == nullptr || port == 0) return CannotListen(options.setting, options.listen);
  const std::string address = ListenAddress{options.listen.host, static_cast<uint16_t>(port)}.ToString();
  return std::unique_ptr<GrpcServer>(new GrpcServer(std::move(server), address));
}

GrpcServer::~GrpcServer() {
  Shutdown(std::chrono::milliseconds(0));
}

void GrpcServer::Shutdown(std::chrono::milliseconds timeout) {
  server_->Shutdown(std::chrono::system_clock::now() + timeout);
}

absl::StatusOr<std::unique_ptr<MetricsServer>> MetricsServer::Listen(std::string_view setting,
                                                                     const ListenAddress& listen,
                                                                     const MetricsPage& page) {
  // civetweb's spelling of "every interface, both families" is "+port".
  const std::string where = listen.host.empty() ? absl::StrCat("+", listen.port) : listen.ToString();
  try {
    auto exposer =
        std::make_unique<prometheus::Exposer>(std::vector<std::string>{"listening_ports", where, "num_threads", "2"});
    exposer->RegisterCollectable(page.AsCollectable());
    const std::vector<int> ports = exposer->GetListeningPorts();
    if (ports.empty() || ports.front() <= 0) return CannotListen(setting, listen);
    const std::string address = ListenAddress{listen.host, static_cast<uint16_t>(ports.front())}.ToString();
    return std::unique_ptr<MetricsServer>(new MetricsServer(std::move(exposer), address));
  } catch (const std::exception&) {
    return CannotListen(setting, listen);
  }
}

MetricsServer::MetricsServer(std::unique_ptr<prometheus::Exposer> exposer, std::string address)
    : exposer_(std::move(exposer)), address_(std::move(address)) {}
MetricsServer::~MetricsServer() = default;

}  // namespace presence::core
