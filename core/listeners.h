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
#include "core/strangers.h"

namespace prometheus {
class Exposer;
}

namespace presence::core {

// A token of 8 KiB, and as much for what clients, proxies and tracing add.
inline constexpr int kApiMetadataBytesMax = 16 * 1024;
// A thousand watchers and as many short calls from one client; five such clients fill ApiService's budget of
// 10,000, one does not. It bounds calls, not bytes: see kListenerBytesMax.
inline constexpr int kApiStreamsMax = 2048;
// Each shard has a connection of its own with one Attach and at most 1,024 reads for REST; the rest is for those of
// a stream that has just ended.
inline constexpr int kLinkStreamsMax = 1200;

// What gRPC may hold of what comes in at one server: 512 MiB for a core's two. It is a ResourceQuota, of which are taken
//
//   128 MiB  what strangers have sent (strangers.h): they are cut off before anybody else notices
//    20 MiB  by 1,000 connections of strangers
//   100 MiB  by 10,000 watchers at 10 KB, as many as there may be; or by 1,600 links, each with 64 KiB that wait unread
//
// which leaves known callers' unfinished requests what the last line does not need. Past it gRPC closes idle connections,
// takes no new ones, and ends a stream of each connection in turn until it fits, with RESOURCE_EXHAUSTED: so a known caller
// can hit others, but not the process. Whoever has a good token, or the secret of the link, is trusted to finish requests,
// and to acknowledge kApiStreamsMax; where everything is open, so is whoever made one good call. The quota does not
// count all of a call (12 KB): 24 MB for a connection's 2,048.
//
// The process grows by a third more than was taken: by 180 MB with strangers that send requests without an end, by some
// 600 MB for a moment with one that begins calls without an end, which gRPC reads faster than it makes calls of them.
inline constexpr size_t kListenerBytesMax = 256 * 1024 * 1024;

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

    // Accepts the connections, and is told by the services whose calls were allowed; must outlive the server. nullptr:
    // gRPC accepts, and every peer is trusted.
    Strangers* strangers = nullptr;
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
  GrpcServer(std::unique_ptr<grpc::Server> server, std::string address, Strangers* strangers)
      : server_(std::move(server)), address_(std::move(address)), strangers_(strangers) {}

  std::unique_ptr<grpc::Server> server_;
  std::string address_;
  Strangers* strangers_;
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
