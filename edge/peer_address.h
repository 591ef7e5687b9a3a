// The address of whoever is at the other end, without the port: IPv4 and IPv6 in one value, IPv4 as it is mapped into IPv6
// (::ffff:a.b.c.d), so that one host has one address whichever family the listener speaks.
//
// A plain value of 16 bytes; pure functions, thread-safe.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

struct sockaddr;

namespace presence::edge {

class PeerAddress {
 public:
  PeerAddress() = default;  // "::", which nobody has

  // Of another family: "::".
  static PeerAddress Of(const sockaddr& address);
  // "192.0.2.1" or "2001:db8::1", without brackets, port or zone; nullopt: it is neither.
  static std::optional<PeerAddress> Parse(std::string_view text);
  // As proxies write it into X-Forwarded-For: an address, which may be in brackets and have a port behind it.
  static std::optional<PeerAddress> ParseForwarded(std::string_view text);

  bool is_v4() const;
  // What one customer of a network has at least: the address itself for IPv4, its /64 for IPv6 (RFC 6177), of which a host may use any
  // address it likes.
  PeerAddress Subscriber() const { return is_v4() ? *this : Masked(64); }
  // The first `bits` of 128, the rest zero.
  PeerAddress Masked(int bits) const;

  // "192.0.2.1" for a mapped one.
  std::string ToString() const;

  friend bool operator==(const PeerAddress&, const PeerAddress&) = default;
  template <typename H>
  friend H AbslHashValue(H state, const PeerAddress& address) {
    return H::combine(std::move(state), address.bytes_);
  }

 private:
  std::array<uint8_t, 16> bytes_{};
};

}  // namespace presence::edge
