// The connections of one gRPC server whose callers have not shown yet that they may call: it accepts them itself, and
// holds what all of them together have sent to a number of bytes.
//
// Why: gRPC 1.51 takes a whole request into memory before it asks anybody, the largest allowed size is looked at only
// when the last byte is there, and one stream may announce 4 GiB. Its ResourceQuota bounds that, but ends streams of
// every connection in turn, watchers and edges first, because they are older; and it does not count calls, of which a peer
// that never acknowledges the settings may begin any number, at 15 bytes each that become 12 KB. So strangers are seen off
// before the quota is reached: of the bytes, by cutting off who sent most; of all else, by the growth of the process, of
// which whoever is known is not suspected. Neither needs a look into the stream, so TLS makes no difference.
//
// A stranger becomes known with the first call that is allowed (Know), for as long as the connection lasts; health
// checks and reflection, which anybody may call, leave a stranger one.
//
// Thread-safe. A thread of its own accepts, and looks at the strangers every kPeriod while there are any. It owns a
// duplicate of each stranger's descriptor, and so never touches a number that gRPC has closed.
#pragma once

#include <grpcpp/grpcpp.h>
#include <netinet/in.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "common/config.h"
#include "common/time.h"

namespace presence::core {

class Strangers {
 public:
  struct Limits {
    // Received from all strangers since they came; past it, who sent most is cut off. Beside the payloads of new
    // callers whose first calls are still arriving (64 MiB is all that ApiService takes at once) as much again.
    int64_t bytes_max = 128 * 1024 * 1024;
    // Past it the oldest is cut off. A connection without calls costs gRPC some 20 KB: 20 MB.
    size_t connections_max = 1000;
    // A stranger that is there while the process grows by so much is cut off, whoever made it grow: what strangers hold is
    // younger than they are, so together they hold no more. (What a probe loses by a false suspicion is a connection.)
    int64_t growth_bytes_max = 128 * 1024 * 1024;
  };
  // But not before: a probe lasts milliseconds, and must not fail while a crowd comes.
  static constexpr std::chrono::milliseconds kUnsuspectedFor{250};
  // What comes in meanwhile is on top of the bytes: 10 MB at 10 Gbit/s.
  static constexpr std::chrono::milliseconds kPeriod{10};

  Strangers() = default;
  explicit Strangers(Limits limits) : limits_(limits) {}
  Strangers(const Strangers&) = delete;
  Strangers& operator=(const Strangers&) = delete;
  ~Strangers();  // stops

  // The connection from this address, as grpc::ServerContext::peer() tells it, is a stranger's no more. No effect on
  // any other. Costs a load while there are no strangers.
  void Know(const grpc::CallbackServerContext& context) {
    if (count_.load(std::memory_order_relaxed) != 0) KnowPeer(context.peer());
  }
  void KnowPeer(std::string_view peer);

  // GrpcServer's, in this order; Open is false when the address cannot be listened on, and port() is the real one.
  bool Open(const ListenAddress& listen);
  uint16_t port() const { return port_; }
  void Start(std::unique_ptr<grpc::experimental::ExternalConnectionAcceptor> acceptor);
  // Accepts nobody any more. The connections that there are stay.
  void Stop();

  size_t count() const { return count_.load(std::memory_order_relaxed); }

 private:
  // Address and port. IPv4 as mapped into IPv6.
  using Peer = std::array<uint8_t, sizeof(in6_addr) + sizeof(in_port_t)>;
  struct Connection {
    int descriptor;
    uint64_t number;  // counts up: the lowest is the oldest
    SteadyTime since;
    int64_t process_bytes;  // when it came
    int64_t bytes = 0;
  };

  static std::optional<Peer> PeerOf(const sockaddr_storage& address);
  static std::optional<Peer> PeerOf(std::string_view peer);

  void Run();
  void AcceptFrom(int listener);
  void Admit(int descriptor, const sockaddr_storage& address);
  void LookAtAll();
  void CutOff(std::map<Peer, Connection>::iterator stranger, const char* why);
  void Forget(std::map<Peer, Connection>::iterator stranger);

  int64_t ProcessBytes() const;

  const Limits limits_{};
  std::vector<int> listeners_;
  int wake_ = -1;   // an eventfd
  int statm_ = -1;  // /proc/self/statm
  uint16_t port_ = 0;
  std::unique_ptr<grpc::experimental::ExternalConnectionAcceptor> acceptor_;  // the thread's
  std::thread thread_;
  std::atomic<bool> stopping_{false};

  std::mutex mutex_;  // guards what follows
  std::map<Peer, Connection> strangers_;
  uint64_t accepted_ = 0;
  std::atomic<size_t> count_{0};  // strangers_.size()
};

}  // namespace presence::core
