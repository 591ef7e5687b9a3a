#include "edge/client_addresses.h"

#include <string>
#include <utility>

#include "common/log.h"

namespace presence::edge {
namespace {

using Verdict = AddressLimits::Verdict;

// What clients can cause at will has one budget over all shards; the counters tell the rest.
log::LineLimit limit_lines("limits of addresses", 1, 10);

// When it is worth another try: the rate is at least one a second; a connection has to end first.
constexpr char kRetryHandshake[] = "1";
constexpr char kRetryConnection[] = "30";

HttpResponse TooMany(std::string_view what, const char* retry_after) {
  HttpResponse response = JsonError(429, what);
  response.headers.emplace_back("Retry-After", retry_after);
  return response;
}

void Log(const PeerAddress& address, const char* setting) {
  if (!limit_lines.Admit(log::Level::kWarning)) return;
  log::Warning("Address {} is over its limit, {}; a proxy that speaks for many belongs into TRUSTED_PROXIES",
               address.ToString(), setting);
}

}  // namespace

bool ClientAddresses::OnAccepted(uint32_t slot, const PeerAddress& peer, SteadyTime now) {
  Socket socket{.peer = peer, .client = peer, .proxy = proxies_.Contains(peer), .paid = true};
  if (!socket.proxy) {
    const Verdict verdict = limits_.AdmitSocket(peer, now);
    if (verdict == Verdict::kShut) {
      stats_.sockets_over_address.Add();
      return false;
    }
    if (verdict == Verdict::kTooManyConnections || verdict == Verdict::kTableFull) {
      stats_.connections_over_address.Add();
      Log(peer, "WS_CONNECTIONS_PER_ADDRESS");
      return false;
    }
    socket.counted = true;
    socket.over = verdict == Verdict::kTooManyHandshakes;
  }
  if (slot >= sockets_.size()) sockets_.resize(slot + 1);
  sockets_[slot] = socket;
  return true;
}

std::optional<HttpResponse> ClientAddresses::Refuse(uint32_t slot, const HttpRequest& request, SteadyTime now) {
  Socket& socket = sockets_[slot];
  if (socket.proxy) return RefuseProxied(socket, request, now);
  const bool over =
      std::exchange(socket.paid, false) ? socket.over : limits_.AdmitRequest(socket.client, now) != Verdict::kAdmitted;
  if (!over) return std::nullopt;
  HttpResponse response = TooManyHandshakes(socket);
  // Else one socket could be told so without end. Asking again takes a new one, which is reset when there are too many. A proxy's
  // stays, as it is not this client's alone.
  response.close = true;
  return response;
}

std::optional<HttpResponse> ClientAddresses::RefuseProxied(Socket& socket, const HttpRequest& request, SteadyTime now) {
  // The next client of a connection that the proxy keeps open.
  if (std::exchange(socket.counted, false)) limits_.Release(socket.client, now);
  const std::vector<std::string_view> forwarded_for = request.HeaderList("X-Forwarded-For");
  const TrustedProxies::Client client = proxies_.ClientOf(socket.peer, forwarded_for);
  socket.client = client.address;
  // Health checks open no WebSocket: whoever does so is a client, of a proxy that does not say whose.
  const bool nameless = request.upgrade && forwarded_for.empty();
  if (client.malformed || nameless) {
    stats_.forwarded_malformed.Add();
    if (limit_lines.Admit(log::Level::kWarning)) {
      log::Warning("Proxy {} sends {}", socket.peer.ToString(),
                   nameless ? "a WebSocket's request without X-Forwarded-For"
                            : "an X-Forwarded-For that is no list of addresses");
    }
  }
  if (client.exempt && !request.upgrade) return std::nullopt;
  if (limits_.AdmitRequest(client.address, now) != Verdict::kAdmitted) return TooManyHandshakes(socket);
  if (!request.upgrade) return std::nullopt;
  if (limits_.AdmitConnection(client.address, now) != Verdict::kAdmitted) return TooManyConnections(socket);
  socket.counted = true;
  return std::nullopt;
}

void ClientAddresses::OnReleased(uint32_t slot, SteadyTime now) {
  Socket& socket = sockets_[slot];
  if (std::exchange(socket.counted, false)) limits_.Release(socket.client, now);
}

HttpResponse ClientAddresses::TooManyHandshakes(const Socket& socket) {
  stats_.handshakes_over_address.Add();
  Log(socket.client, "HANDSHAKES_PER_SECOND_PER_ADDRESS");
  return TooMany("Too many requests from this address", kRetryHandshake);
}

HttpResponse ClientAddresses::TooManyConnections(const Socket& socket) {
  stats_.connections_over_address.Add();
  Log(socket.client, "WS_CONNECTIONS_PER_ADDRESS");
  return TooMany("Too many connections from this address", kRetryConnection);
}

}  // namespace presence::edge
