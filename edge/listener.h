// A listening TCP socket, shared with the other shards by SO_REUSEPORT: the kernel spreads the clients.
//
// Lives on the shard's thread. When the process has no descriptors left, a client that waits would keep the listener
// readable for ever; so one descriptor is held back, and given up for the moment that it takes to accept and hang up.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "edge/peer_address.h"
#include "edge/socket_loop.h"

namespace presence::edge {

class Listener {
 public:
  // UNAVAILABLE with the reason when the address cannot be bound.
  static absl::StatusOr<std::unique_ptr<Listener>> Open(const SocketLoopOptions& options);
  ~Listener();
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;

  int descriptor() const { return descriptor_; }
  uint16_t port() const { return port_; }

  enum class Outcome : uint8_t {
    kAccepted,
    kNobody,     // no client waits
    kLost,       // one was there and is gone, or was hung up for lack of descriptors
    kExhausted,  // the system lacks something: ask again later
  };
  struct Accepted {
    Outcome outcome;
    int descriptor = -1;  // nonblocking; the caller's to close
    PeerAddress peer{};
  };
  Accepted Accept();

 private:
  Listener(int descriptor, uint16_t port);
  Accepted HangUpOne();

  const int descriptor_;
  const uint16_t port_;
  int reserve_ = -1;
};

}  // namespace presence::edge
