// What listens on behalf of a core: gRPC servers and the metrics page. Each failure to listen names the setting to
// change.
#pragma once

#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>

#include <chrono>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/config.h"
#include "common/metrics.h"

namespace prometheus {
class Exposer;
}

namespace presence::core {

// A token of 8 KiB, and as much for what clients, proxies and tracing add.
inline constexpr int kApiMetadataBytesMax = 16 * 1024;
// A thousand watchers and as many short calls from one client; five such clients fill ApiService's budget of
// 10,000, one does not. It bounds no memory: gRPC looks at this number when the peer has acknowledged the settings.
inline constexpr int kApiStreamsMax = 2048;
// Each shard has a connection of its own with one Attach and at most 1,024 reads for REST; the rest is for those of
// a stream that has just ended.
inline constexpr int kLinkStreamsMax = 1200;
// What the connections of one listener may make gRPC hold, from strangers, too: it has a request whole before anybody
// can ask who calls, and looks at its size when its last byte is there. Above the bound it cuts off calls, whichever: who sends too
// much costs others calls on that listener (they are told to try again), but neither the process nor the other listener. Calls that
// a peer begins without ever acknowledging settings are not bounded by it: README.md.
inline constexpr size_t kListenerBytesMax = 256 << 20;

// Before the first GrpcServer: gRPC's own log lines go to ours, and every server gets the standard health service.
// That one answers without asking who calls: probes of load balancers and kubelets have no token, and it says no
// more than up or down. (With mutual TLS they need a certificate all the same.)
void SetUpGrpc();

// Several services on one address, with health, on gRPC's threads. Listens from its creation until Shutdown.
class GrpcServer {
 public:
  struct Options {
    std::string_view setting{};  // the name of the setting that says where: for messages
    ListenAddress listen{};      // port 0: any free one
    std::shared_ptr<grpc::ServerCredentials> credentials = grpc::InsecureServerCredentials();
    bool reflection = false;  // describes the services of this server
    bool channelz = false;    // shows the connections and calls of the whole process

    // Per connection, beside what the services bound by themselves.
    int receive_bytes_max = 4 * 1024 * 1024;  // one message
    int metadata_bytes_max = 8 * 1024;        // of one call
    int streams_max = 100;                    // calls under way at once; further ones wait at the client
  };

  // FAILED_PRECONDITION when the address is taken, not of this host, or not allowed. The services must outlive the
  // server.
  static absl::StatusOr<std::unique_ptr<GrpcServer>> Listen(const Options& options,
                                                            absl::Span<grpc::Service* const> services);

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
