#include "edge/listener.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <system_error>

#include "absl/status/status.h"

namespace presence::edge {
namespace {

int OpenReserve() {
  return open("/dev/null", O_RDONLY | O_CLOEXEC);
}

std::string ReasonOf(int error) {
  return std::generic_category().message(error);
}

void SetOption(int descriptor, int level, int option, int value) {
  setsockopt(descriptor, level, option, &value, sizeof(value));
}

// A listening descriptor, or -1 with errno.
int ListenOn(const addrinfo& address, int backlog) {
  const int descriptor = socket(address.ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, address.ai_protocol);
  if (descriptor < 0) return -1;
  SetOption(descriptor, SOL_SOCKET, SO_REUSEADDR, 1);
  SetOption(descriptor, SOL_SOCKET, SO_REUSEPORT, 1);
  // Accepted sockets inherit it. Joining is done here, by the turn; Nagle's algorithm would only add its delay.
  SetOption(descriptor, IPPROTO_TCP, TCP_NODELAY, 1);
  if (address.ai_family == AF_INET6) SetOption(descriptor, IPPROTO_IPV6, IPV6_V6ONLY, 0);  // "::" is both families
  if (bind(descriptor, address.ai_addr, address.ai_addrlen) == 0 && listen(descriptor, backlog) == 0) return descriptor;
  const int error = errno;
  close(descriptor);
  errno = error;
  return -1;
}

uint16_t PortOf(int descriptor) {
  sockaddr_storage address{};
  socklen_t size = sizeof(address);
  if (getsockname(descriptor, reinterpret_cast<sockaddr*>(&address), &size) != 0) return 0;
  return ntohs(address.ss_family == AF_INET6 ? reinterpret_cast<const sockaddr_in6*>(&address)->sin6_port
                                             : reinterpret_cast<const sockaddr_in*>(&address)->sin_port);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Listener>> Listener::Open(const SocketLoopOptions& options) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const std::string port = std::to_string(options.port);
  if (const int error = getaddrinfo(options.host.c_str(), port.c_str(), &hints, &found); error != 0) {
    return absl::UnavailableError("cannot resolve " + options.host + ": " + gai_strerror(error));
  }
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> addresses(found, &freeaddrinfo);
  for (const addrinfo* address = addresses.get(); address != nullptr; address = address->ai_next) {
    if (const int descriptor = ListenOn(*address, options.listen_backlog); descriptor >= 0) {
      return std::unique_ptr<Listener>(new Listener(descriptor, PortOf(descriptor)));
    }
  }
  return absl::UnavailableError("cannot listen on " + options.host + ":" + port + ": " + ReasonOf(errno));
}

Listener::Listener(int descriptor, uint16_t port) : descriptor_(descriptor), port_(port), reserve_(OpenReserve()) {}

Listener::~Listener() {
  close(descriptor_);
  if (reserve_ >= 0) close(reserve_);
}

Listener::Accepted Listener::Accept() {
  sockaddr_storage address{};
  socklen_t size = sizeof(address);
  auto* const generic = reinterpret_cast<sockaddr*>(&address);
  const int client = accept4(descriptor_, generic, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (client >= 0) return {Outcome::kAccepted, client, PeerAddress::Of(*generic)};
  switch (errno) {
    case EAGAIN:
      return {Outcome::kNobody};
    case EMFILE:
      return HangUpOne();
    case EBADF:
    case EINVAL:
    case ENFILE:
    case ENOBUFS:
    case ENOMEM:
      return {Outcome::kExhausted};
    default:  // the client's, or its network's, trouble (accept(2))
      return {Outcome::kLost};
  }
}

Listener::Accepted Listener::HangUpOne() {
  if (reserve_ >= 0) close(reserve_);
  const int client = accept4(descriptor_, nullptr, nullptr, SOCK_CLOEXEC);
  const int error = errno;
  if (client >= 0) close(client);
  reserve_ = OpenReserve();
  if (client >= 0) return {Outcome::kLost};
  // EMFILE is reported before the kernel looks whether anybody waits. EMFILE again: another thread was faster in taking
  // the descriptor that was given up.
  return {error == EAGAIN ? Outcome::kNobody : Outcome::kExhausted};
}

}  // namespace presence::edge
