#include "core/strangers.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/tcp.h>  // netinet/tcp.h of glibc 2.36 does not know tcpi_bytes_received
#include <netdb.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstddef>
#include <cstring>
#include <utility>

#include "common/check.h"
#include "common/log.h"

namespace presence::core {
namespace {

constexpr int kBacklog = 4096;
// What gRPC sets on a listener of its own, from its keepalive timeout.
constexpr int kUserTimeoutMs = 10'000;
// How long accepting pauses when there are no descriptors left.
constexpr int kPauseMs = 100;
// The kernel's TCP_ESTABLISHED: netinet/tcp.h, which names it, cannot stand beside linux/tcp.h.
constexpr uint8_t kEstablished = 1;

void SetOption(int descriptor, int level, int option, int value) {
  setsockopt(descriptor, level, option, &value, sizeof value);
}

// -1: cannot listen there. `port` replaces that of the address; its own one is what was bound.
int ListenOn(const addrinfo& where, in_port_t& port) {
  const int descriptor = socket(where.ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (descriptor < 0) return -1;
  SetOption(descriptor, SOL_SOCKET, SO_REUSEADDR, 1);
  sockaddr_storage address{};
  std::memcpy(&address, where.ai_addr, where.ai_addrlen);
  in_port_t* own_port = nullptr;
  if (where.ai_family == AF_INET6) {
    auto& v6 = reinterpret_cast<sockaddr_in6&>(address);
    own_port = &v6.sin6_port;
    // The wildcard is that of both families.
    if (IN6_IS_ADDR_UNSPECIFIED(&v6.sin6_addr)) SetOption(descriptor, IPPROTO_IPV6, IPV6_V6ONLY, 0);
  } else {
    own_port = &reinterpret_cast<sockaddr_in&>(address).sin_port;
  }
  *own_port = port;
  socklen_t size = where.ai_addrlen;
  auto* const generic = reinterpret_cast<sockaddr*>(&address);
  if (bind(descriptor, generic, size) != 0 || listen(descriptor, kBacklog) != 0 ||
      getsockname(descriptor, generic, &size) != 0) {
    close(descriptor);
    return -1;
  }
  port = *own_port;
  return descriptor;
}

}  // namespace

Strangers::~Strangers() {
  Stop();
}

bool Strangers::Open(const ListenAddress& listen) {
  PRESENCE_CHECK(listeners_.empty(), "a server has one address");
  std::string host = listen.host;
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  in_port_t port = htons(listen.port);
  // Of the wildcards, IPv6's stands for both; without IPv6 there is IPv4's.
  for (const char* name : {host.empty() ? "::" : host.c_str(), host.empty() ? "0.0.0.0" : nullptr}) {
    if (name == nullptr || !listeners_.empty()) break;
    addrinfo hints{};
    hints.ai_flags = AI_PASSIVE;
    hints.ai_socktype = SOCK_STREAM;
    addrinfo* found = nullptr;
    if (getaddrinfo(name, nullptr, &hints, &found) != 0) continue;
    for (const addrinfo* where = found; where != nullptr; where = where->ai_next) {
      const int listener = ListenOn(*where, port);
      if (listener >= 0) listeners_.push_back(listener);
    }
    freeaddrinfo(found);
  }
  port_ = ntohs(port);
  return !listeners_.empty();
}

void Strangers::Start(std::unique_ptr<grpc::experimental::ExternalConnectionAcceptor> acceptor) {
  acceptor_ = std::move(acceptor);
  wake_ = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  PRESENCE_CHECK(wake_ >= 0, "there are descriptors at the start");
  statm_ = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
  thread_ = std::thread([this] { Run(); });
}

void Strangers::Stop() {
  if (thread_.joinable()) {
    stopping_ = true;
    eventfd_write(wake_, 1);
    thread_.join();
    close(wake_);
    if (statm_ >= 0) close(statm_);
  }
  for (const int listener : listeners_) close(listener);
  listeners_.clear();
  const std::lock_guard lock(mutex_);
  while (!strangers_.empty()) Forget(strangers_.begin());
}

void Strangers::KnowPeer(std::string_view peer) {
  const std::optional<Peer> known = PeerOf(peer);
  if (!known) return;
  const std::lock_guard lock(mutex_);
  if (const auto found = strangers_.find(*known); found != strangers_.end()) Forget(found);
}

void Strangers::Run() {
  std::vector<pollfd> waits;
  for (const int listener : listeners_) waits.push_back({.fd = listener, .events = POLLIN, .revents = 0});
  waits.push_back({.fd = wake_, .events = POLLIN, .revents = 0});
  auto next_look = std::chrono::steady_clock::now();
  while (!stopping_) {
    poll(waits.data(), waits.size(), count() == 0 ? -1 : static_cast<int>(kPeriod.count()));
    for (const pollfd& wait : waits) {
      if (wait.fd != wake_ && (wait.revents & POLLIN) != 0) AcceptFrom(wait.fd);
    }
    const auto now = std::chrono::steady_clock::now();
    if (now < next_look) continue;
    next_look = now + kPeriod;
    LookAtAll();
  }
}

void Strangers::AcceptFrom(int listener) {
  // A turn: whoever comes in a crowd must not keep the strangers from being looked at.
  for (int turn = 0; turn < 64; ++turn) {
    sockaddr_storage address{};
    socklen_t size = sizeof address;
    const int descriptor =
        accept4(listener, reinterpret_cast<sockaddr*>(&address), &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (descriptor >= 0) {
      Admit(descriptor, address);
      continue;
    }
    if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
      static log::LineLimit limit("connections that were not accepted", 1, 3);
      if (limit.Admit(log::Level::kWarning)) log::Warning("gRPC connections wait: {}", std::strerror(errno));
      pollfd wake{.fd = wake_, .events = POLLIN, .revents = 0};
      poll(&wake, 1, kPauseMs);
    }
    return;  // nobody waits, or whoever did has gone
  }
}

void Strangers::Admit(int descriptor, const sockaddr_storage& address) {
  SetOption(descriptor, IPPROTO_TCP, TCP_NODELAY, 1);
  SetOption(descriptor, IPPROTO_TCP, TCP_USER_TIMEOUT, kUserTimeoutMs);
  const std::optional<Peer> peer = PeerOf(address);
  const int own = peer ? fcntl(descriptor, F_DUPFD_CLOEXEC, 0) : -1;
  if (own < 0) {  // no descriptors left: nobody comes in unwatched
    close(descriptor);
    return;
  }
  {
    const std::lock_guard lock(mutex_);
    // One from the same address that is not yet known to be gone.
    if (const auto former = strangers_.find(*peer); former != strangers_.end()) Forget(former);
    if (strangers_.size() >= limits_.connections_max) {
      const auto oldest = std::min_element(strangers_.begin(), strangers_.end(), [](const auto& a, const auto& b) {
        return a.second.number < b.second.number;
      });
      CutOff(oldest, "no call of it was allowed, and there are too many such connections");
    }
    strangers_.emplace(*peer, Connection{.descriptor = own,
                                         .number = ++accepted_,
                                         .since = std::chrono::steady_clock::now(),
                                         .process_bytes = ProcessBytes()});
    count_.store(strangers_.size(), std::memory_order_relaxed);
  }
  grpc::experimental::ExternalConnectionAcceptor::NewConnectionParameters connection;
  connection.fd = descriptor;
  acceptor_->HandleNewConnection(&connection);
}

void Strangers::LookAtAll() {
  const std::lock_guard lock(mutex_);
  const int64_t process_bytes = ProcessBytes();
  const SteadyTime suspects_since = std::chrono::steady_clock::now() - kUnsuspectedFor;
  int64_t total = 0;
  for (auto next = strangers_.begin(); next != strangers_.end();) {
    const auto stranger = next++;
    tcp_info info{};
    socklen_t size = sizeof info;
    const bool there = getsockopt(stranger->second.descriptor, IPPROTO_TCP, TCP_INFO, &info, &size) == 0 &&
                       size >= offsetof(tcp_info, tcpi_bytes_received) + sizeof info.tcpi_bytes_received &&
                       info.tcpi_state == kEstablished;
    if (!there) {
      Forget(stranger);
      continue;
    }
    stranger->second.bytes = static_cast<int64_t>(info.tcpi_bytes_received);
    if (process_bytes - stranger->second.process_bytes > limits_.growth_bytes_max &&
        stranger->second.since < suspects_since) {
      CutOff(stranger, "no call of it was allowed, and the process has grown too much since it came");
      continue;
    }
    total += stranger->second.bytes;
  }
  while (total > limits_.bytes_max) {
    const auto largest = std::max_element(strangers_.begin(), strangers_.end(),
                                          [](const auto& a, const auto& b) { return a.second.bytes < b.second.bytes; });
    total -= largest->second.bytes;
    CutOff(largest, "no call of it was allowed, and it sent most of what is too much for all such connections");
  }
}

void Strangers::CutOff(std::map<Peer, Connection>::iterator stranger, const char* why) {
  static log::LineLimit limit("connections that were cut off", 1, 3);
  if (limit.Admit(log::Level::kWarning)) {
    char address[INET6_ADDRSTRLEN] = "";
    inet_ntop(AF_INET6, stranger->first.data(), address, sizeof address);
    log::Warning("A gRPC connection from {} is cut off after {} bytes: {}", address, stranger->second.bytes, why);
  }
  shutdown(stranger->second.descriptor, SHUT_RDWR);  // gRPC reads the end, and lets go of everything
  Forget(stranger);
}

void Strangers::Forget(std::map<Peer, Connection>::iterator stranger) {
  close(stranger->second.descriptor);
  strangers_.erase(stranger);
  count_.store(strangers_.size(), std::memory_order_relaxed);
}

// What is resident. 0: there is no /proc, and nobody is suspected for it.
int64_t Strangers::ProcessBytes() const {
  static const int64_t page_bytes = sysconf(_SC_PAGESIZE);
  char text[128];
  const ssize_t size = statm_ < 0 ? 0 : pread(statm_, text, sizeof text, 0);
  if (size <= 0) return 0;
  const char* const end = text + size;
  const char* const second = std::find<const char*>(text, end, ' ') + 1;
  int64_t pages = 0;
  if (second < end) std::from_chars(second, end, pages);
  return pages * page_bytes;
}

std::optional<Strangers::Peer> Strangers::PeerOf(const sockaddr_storage& address) {
  Peer peer{};
  if (address.ss_family == AF_INET) {
    const auto& v4 = reinterpret_cast<const sockaddr_in&>(address);
    peer[10] = peer[11] = 0xff;
    std::memcpy(&peer[12], &v4.sin_addr, sizeof v4.sin_addr);
    std::memcpy(&peer[16], &v4.sin_port, sizeof v4.sin_port);
    return peer;
  }
  if (address.ss_family != AF_INET6) return std::nullopt;
  const auto& v6 = reinterpret_cast<const sockaddr_in6&>(address);
  std::memcpy(peer.data(), &v6.sin6_addr, sizeof v6.sin6_addr);
  std::memcpy(&peer[16], &v6.sin6_port, sizeof v6.sin6_port);
  return peer;
}

// "ipv4:192.0.2.1:1234", "ipv6:%5B2001:db8::1%5D:1234"; a zone, "%25eth0", is left out: the port tells them apart.
std::optional<Strangers::Peer> Strangers::PeerOf(std::string_view peer) {
  const bool v4 = peer.starts_with("ipv4:");
  if (!v4 && !peer.starts_with("ipv6:")) return std::nullopt;
  peer.remove_prefix(5);
  const size_t colon = peer.rfind(':');
  if (colon == std::string_view::npos) return std::nullopt;
  uint16_t port = 0;
  const std::string_view digits = peer.substr(colon + 1);
  if (std::from_chars(digits.data(), digits.data() + digits.size(), port).ptr != digits.data() + digits.size()) {
    return std::nullopt;
  }
  std::string_view host = peer.substr(0, colon);
  for (const std::string_view open : {"[", "%5B"}) {
    if (host.starts_with(open)) host.remove_prefix(open.size());
  }
  const std::string text(host.substr(0, host.find_first_of("%]")));
  sockaddr_storage address{};
  if (v4) {
    auto& in = reinterpret_cast<sockaddr_in&>(address);
    in.sin_family = AF_INET;
    in.sin_port = htons(port);
    if (inet_pton(AF_INET, text.c_str(), &in.sin_addr) != 1) return std::nullopt;
  } else {
    auto& in = reinterpret_cast<sockaddr_in6&>(address);
    in.sin6_family = AF_INET6;
    in.sin6_port = htons(port);
    if (inet_pton(AF_INET6, text.c_str(), &in.sin6_addr) != 1) return std::nullopt;
  }
  return PeerOf(address);
}

}  // namespace presence::core
