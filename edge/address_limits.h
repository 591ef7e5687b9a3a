// How many connections an address may have (WS_CONNECTIONS_PER_ADDRESS), and how often it may knock (HANDSHAKES_PER_SECOND_PER_ADDRESS).
// An IPv6 address counts as its /64.
//
// One table for all shards of an edge, behind a lock that is held for a look-up: it is touched when a socket comes, asks or goes, and
// never for a message. Thread-safe.
//
// Bounded: an address without a connection is kept until its buckets are full again; when `addresses_max` are known, the one that was
// idle for longest is forgotten, which costs it nothing and lets it begin anew. Those with connections are never forgotten.
//
// Does not do: knowing who is exempt, and answering.
#pragma once

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "common/time.h"
#include "edge/peer_address.h"
#include "edge/rate_limit.h"

namespace presence::edge {

struct AddressLimitsOptions {
  uint32_t connections_max = 0;        // of one address; 0: no limit
  uint32_t handshakes_per_second = 0;  // of one address; 0: no limit
  uint64_t handshakes_burst = 1;
  // More than there can be connections; the rest is for those who are idle. An address takes 48 bytes, and 40 to find it: 6 MB.
  size_t addresses_max = 65'536;
};

class AddressLimits {
 public:
  enum class Verdict : uint8_t {
    kAdmitted,
    kTooManyHandshakes,   // to be told: 429
    kShut,                // told so often that this is no longer worth an answer
    kTooManyConnections,  // connections_max
    kTableFull,           // addresses_max, and all of them have connections
  };

  explicit AddressLimits(const AddressLimitsOptions& options);
  AddressLimits(const AddressLimits&) = delete;
  AddressLimits& operator=(const AddressLimits&) = delete;

  // A socket that was accepted from this address. kAdmitted and kTooManyHandshakes: it is counted until Release; its first request is
  // paid for, or to be refused. Everything else: not counted, to be hung up.
  Verdict AdmitSocket(const PeerAddress& address, SteadyTime now);
  // A request of this address, where no socket was counted or one is used again. kAdmitted or kTooManyHandshakes.
  Verdict AdmitRequest(const PeerAddress& address, SteadyTime now);
  // A connection of this address that came by way of a proxy. kAdmitted: counted until Release.
  Verdict AdmitConnection(const PeerAddress& address, SteadyTime now);
  // REQUIRES: what is released was counted, and is released once.
  void Release(const PeerAddress& address, SteadyTime now);

  // Neither limit is set: everybody is admitted, nobody is counted, the lock is not touched.
  bool off() const { return options_.connections_max == 0 && handshakes_.off(); }

  struct Numbers {
    uint64_t addresses = 0;  // known now
    uint64_t forgotten = 0;  // for lack of space, so far
  };
  Numbers numbers() const;

 private:
  static constexpr uint32_t kNone = UINT32_MAX;

  struct Entry {
    PeerAddress address;
    RateLimit::Bucket handshakes;
    RateLimit::Bucket refusals;  // that were answered
    uint32_t connections = 0;
    uint32_t before = kNone, behind = kNone;  // in the list of the idle ones
  };

  // The entry of this address, a new one if need be, out of the list of the idle ones; kNone: there is no space.
  uint32_t Find(const PeerAddress& address, SteadyTime now);
  // Back into that list, if it has no connection.
  void Leave(uint32_t index);
  Verdict Knock(Entry& entry, SteadyTime now) const;
  void Unlink(uint32_t index);
  void Forget(uint32_t index);
  void ForgetTheRested(SteadyTime now);

  const AddressLimitsOptions options_;
  const RateLimit handshakes_;

  mutable std::mutex mutex_;  // guards what follows
  std::vector<Entry> entries_;
  std::vector<uint32_t> free_;
  absl::flat_hash_map<PeerAddress, uint32_t> index_;
  uint32_t idle_front_ = kNone, idle_back_ = kNone;  // the one that was idle for longest, and the last one
  uint64_t forgotten_ = 0;
};

}  // namespace presence::edge
