// What listens on behalf of a core: gRPC servers and the metrics page. Each failure to listen names the setting to change.
#pragma once

#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>

#include <chrono>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "common/config.h"
#include "common/metrics.h"

namespace prometheus {
class Exposer;
}

namespace presence::core {

// Before the first GrpcServer: gRPC's own log lines go to ours, every server gets the standard health service and, if wanted,
// reflection.
void SetUpGrpc(bool reflection);

// One service on one address, with health, on gRPC's threads. Listens from its creation until Shutdown.
class GrpcServer {
 public:
  struct Options {
    std::string_view setting;  // the name of the setting that says where: for messages
    ListenAddress listen;      // port 0: any free one
    int receive_bytes_max = 4 * 1024 * 1024;
  };

  // FAILED_PRECONDITION when the address is taken, not of this host, or not allowed. The service must outlive the server.
  static absl::StatusOr<std::unique_ptr<GrpcServer>> Listen(const Options& options, grpc::Service& service);

  // Shuts down at once.
  ~GrpcServer();

  // The bound address, with the real port.
  const std::string& address() const { return address_; }
  grpc::HealthCheckServiceInterface& health() { return *server_->GetHealthCheckService(); }

  // No new calls; waits for those under way, which are cancelled when the time is up.
  void Shutdown(std::chrono::milliseconds timeout);

 private:
  GrpcServer(std::unique_ptr<grpc::Server> server, std::string address)
      : server_(std::move(server)), address_(std::move(address)) {}

  std::unique_ptr<grpc::Server> server_;
  std::string address_;
};

// GET /metrics, on two threads of its own.
class MetricsServer {
 public:
  // FAILED_PRECONDITION as above. The page must outlive the server.
  static absl::StatusOr<std::unique_ptr<MetricsServer>> Listen(std::string_view setting, const ListenAddress& listen,
                                                               const MetricsPage& page);
  ~MetricsServer();

  const std::string& address() const { return address_; }

 private:
  MetricsServer(std::unique_ptr<prometheus::Exposer> exposer, std::string address);

  std::unique_ptr<prometheus::Exposer> exposer_;
  std::string address_;
};

}  // namespace presence::core
