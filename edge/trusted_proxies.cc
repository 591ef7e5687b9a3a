#include "edge/trusted_proxies.h"

#include <algorithm>
#include <charconv>
#include <optional>

#include "absl/status/status.h"

namespace presence::edge {
namespace {

constexpr int kMappedBits = 96;  // in front of an IPv4 address

// How many bits of 128 a prefix of this length has, in the family of its address.
std::optional<int> PrefixBits(std::string_view text, bool is_v4) {
  int bits = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), bits);
  if (error != std::errc() || end != text.data() + text.size() || bits < 0) return std::nullopt;
  if (bits > (is_v4 ? 32 : 128)) return std::nullopt;
  return is_v4 ? bits + kMappedBits : bits;
}

}  // namespace

absl::StatusOr<TrustedProxies> TrustedProxies::Parse(std::span<const std::string> items) {
  TrustedProxies proxies;
  for (const std::string& item : items) {
    const std::string_view text = item;
    const size_t slash = text.find('/');
    const std::optional<PeerAddress> address = PeerAddress::Parse(text.substr(0, slash));
    std::optional<int> bits = 128;
    if (address.has_value() && slash != std::string_view::npos) {
      bits = PrefixBits(text.substr(slash + 1), address->is_v4());
    }
    if (!address.has_value() || !bits.has_value() || address->Masked(*bits) != *address) {
      return absl::InvalidArgumentError("'" + item + "' is no address and no network, as 10.0.0.7 or 10.0.0.0/8 are");
    }
    proxies.networks_.push_back({*address, *bits});
  }
  return proxies;
}

bool TrustedProxies::Contains(const PeerAddress& address) const {
  return std::any_of(networks_.begin(), networks_.end(),
                     [&address](const Network& network) { return address.Masked(network.bits) == network.prefix; });
}

TrustedProxies::Client TrustedProxies::ClientOf(const PeerAddress& peer,
                                                std::span<const std::string_view> forwarded_for) const {
  if (!Contains(peer)) return {.address = peer};
  Client client{.address = peer, .exempt = true};
  for (size_t i = forwarded_for.size(); i-- > 0;) {
    const std::optional<PeerAddress> hop = PeerAddress::ParseForwarded(forwarded_for[i]);
    if (!hop.has_value()) return {.address = peer, .malformed = true};
    client.address = *hop;
    client.exempt = Contains(*hop);
    if (!client.exempt) break;
  }
  return client;
}

}  // namespace presence::edge
