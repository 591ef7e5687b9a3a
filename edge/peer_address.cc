#include "edge/peer_address.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>

namespace presence::edge {
namespace {

constexpr std::array<uint8_t, 12> kMapped{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};  // RFC 4291, section 2.5.5.2
constexpr size_t kTextBytesMax = INET6_ADDRSTRLEN;

bool IsPort(std::string_view text) {
  return !text.empty() && text.size() <= 5 && text.find_first_not_of("0123456789") == std::string_view::npos;
}

}  // namespace

PeerAddress PeerAddress::Of(const sockaddr& address) {
  PeerAddress peer;
  if (address.sa_family == AF_INET) {
    sockaddr_in v4;
    std::memcpy(&v4, &address, sizeof(v4));
    std::copy(kMapped.begin(), kMapped.end(), peer.bytes_.begin());
    std::memcpy(peer.bytes_.data() + kMapped.size(), &v4.sin_addr, sizeof(v4.sin_addr));
  } else if (address.sa_family == AF_INET6) {
    sockaddr_in6 v6;
    std::memcpy(&v6, &address, sizeof(v6));
    std::memcpy(peer.bytes_.data(), &v6.sin6_addr, sizeof(v6.sin6_addr));
  }
  return peer;
}

std::optional<PeerAddress> PeerAddress::Parse(std::string_view text) {
  if (text.empty() || text.size() > kTextBytesMax || text.find('\0') != std::string_view::npos) return std::nullopt;
  const std::string terminated(text);
  PeerAddress peer;
  if (inet_pton(AF_INET6, terminated.c_str(), peer.bytes_.data()) == 1) return peer;
  std::copy(kMapped.begin(), kMapped.end(), peer.bytes_.begin());
  if (inet_pton(AF_INET, terminated.c_str(), peer.bytes_.data() + kMapped.size()) == 1) return peer;
  return std::nullopt;
}

std::optional<PeerAddress> PeerAddress::ParseForwarded(std::string_view text) {
  if (!text.empty() && text.front() == '[') {
    const size_t end = text.find(']');
    if (end == std::string_view::npos) return std::nullopt;
    const std::string_view rest = text.substr(end + 1);
    if (!rest.empty() && (rest.front() != ':' || !IsPort(rest.substr(1)))) return std::nullopt;
    const std::optional<PeerAddress> peer = Parse(text.substr(1, end - 1));
    return peer.has_value() && text.substr(1, end - 1).find(':') != std::string_view::npos ? peer : std::nullopt;
  }
  const size_t colon = text.find(':');
  if (colon != std::string_view::npos && text.find(':', colon + 1) == std::string_view::npos) {  // IPv4 and a port
    return IsPort(text.substr(colon + 1)) ? Parse(text.substr(0, colon)) : std::nullopt;
  }
  return Parse(text);
}

bool PeerAddress::is_v4() const {
  return std::equal(kMapped.begin(), kMapped.end(), bytes_.begin());
}

PeerAddress PeerAddress::Masked(int bits) const {
  PeerAddress masked;
  for (int i = 0; i < 16; ++i) {
    const int kept = std::clamp(bits - 8 * i, 0, 8);
    masked.bytes_[static_cast<size_t>(i)] = static_cast<uint8_t>(bytes_[static_cast<size_t>(i)] & (0xff00 >> kept));
  }
  return masked;
}

std::string PeerAddress::ToString() const {
  char text[INET6_ADDRSTRLEN] = "";
  if (is_v4()) {
    inet_ntop(AF_INET, bytes_.data() + kMapped.size(), text, sizeof(text));
  } else {
    inet_ntop(AF_INET6, bytes_.data(), text, sizeof(text));
  }
  return text;
}

}  // namespace presence::edge
