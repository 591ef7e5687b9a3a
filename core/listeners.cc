#include "core/listeners.h"

#include <grpc/support/log.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <prometheus/exposer.h>

#include <exception>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
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

}  // namespace

void SetUpGrpc(bool reflection) {
  gpr_set_log_function(WriteGrpcLine);
  grpc::EnableDefaultHealthCheckService(true);
  if (!reflection) return;
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  // Links the description of the health service, which reflection looks for.
  grpc::health::v1::HealthCheckRequest::descriptor();
}

absl::StatusOr<std::unique_ptr<GrpcServer>> GrpcServer::Listen(const Options& options, grpc::Service& service) {
  // gRPC's wildcard for both families; it falls back to 0.0.0.0 where there is no IPv6.
  const ListenAddress listen{options.listen.host.empty() ? "::" : options.listen.host, options.listen.port};
  int port = 0;
  grpc::ServerBuilder builder;
  builder.AddListeningPort(listen.ToString(), grpc::InsecureServerCredentials(), &port);
  // Else two cores with one address would share it, and each see half of the calls.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.SetMaxReceiveMessageSize(options.receive_bytes_max);
  builder.RegisterService(&service);
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
