#include "edge/cli/ws_connection.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#include "common/log.h"
#include "common/percent.h"
#include "edge/http.h"
#include "edge/tls_client.h"

namespace presence::edge::cli {
namespace {

constexpr size_t kHeadBytesMax = 16 * 1024;

SteadyTime Clock() {
  return std::chrono::steady_clock::now();
}

// Waits for `events`, at most until `deadline`. False: not in time.
bool WaitFor(int fd, short events, SteadyTime deadline) {
  while (true) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock());
    pollfd wanted{fd, events, 0};
    const int ready = poll(&wanted, 1, static_cast<int>(std::max<int64_t>(left.count(), 0)));
    if (ready > 0) return true;
    if (ready == 0 || errno != EINTR) return false;
    if (left.count() <= 0) return false;
  }
}

std::string Place(const WsUrl& url) {
  return Escaped(url.host) + ":" + url.port;
}

absl::StatusOr<int> ConnectSocket(const WsUrl& url, SteadyTime deadline) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (const int failed = getaddrinfo(url.host.c_str(), url.port.c_str(), &hints, &found); failed != 0) {
    return absl::UnavailableError("the host " + Escaped(url.host) + " is not known (" + gai_strerror(failed) +
                                  "): check --url");
  }
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> addresses(found, freeaddrinfo);
  int error = 0;
  for (const addrinfo* address = found; address != nullptr; address = address->ai_next) {
    const int fd = socket(address->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
      error = errno;
      continue;
    }
    if (connect(fd, address->ai_addr, address->ai_addrlen) != 0) {
      error = errno;
      if (error == EINPROGRESS) {
        socklen_t size = sizeof error;
        if (!WaitFor(fd, POLLOUT, deadline)) {
          error = ETIMEDOUT;
        } else {
          getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
        }
      }
      if (error != 0) {
        close(fd);
        continue;
      }
    }
    const int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return fd;
  }
  const std::string why = error == ECONNREFUSED ? "nothing listens there" : std::string(std::strerror(error));
  return absl::UnavailableError("cannot connect to " + Place(url) + " (" + why +
                                "): is presence-edge running? Its SERVICE_PORT must be the port of --url");
}

// What to do about a 401, by what the edge says of the token.
std::string AboutToken(std::string_view answer) {
  if (answer.find("token expired") != std::string_view::npos) {
    return "Get a new token; `presence-cli token --user NAME` signs one with the development key";
  }
  return "The token is signed with a key that the edge does not know, or for another issuer, audience or client. With "
         "a "
         "development key, start the edge with the JWKS_FILE beside that key";
}

std::string WithQueryToken(const std::string& url, const std::string& token) {
  return url + (url.find('?') == std::string::npos ? "?" : "&") + "token=" + PercentEncode(token);
}

}  // namespace

absl::StatusOr<WsUrl> ParseWsUrl(std::string_view text) {
  const auto wrong = [&](const std::string& why) {
    return absl::InvalidArgumentError("the URL " + Escaped(RedactToken(text)) + " " + why);
  };
  WsUrl url;
  url.tls = text.substr(0, 6) == "wss://";
  if (!url.tls && text.substr(0, 5) != "ws://") {
    return wrong("does not begin with ws:// or wss://: write ws://host:port/ws");
  }
  if (url.tls) url.port = "443";
  text.remove_prefix(url.tls ? 6 : 5);
  const size_t authority_end = std::min(text.find_first_of("/?#"), text.size());
  std::string_view authority = text.substr(0, authority_end);
  const std::string_view rest = text.substr(authority_end);
  if (rest.find('#') != std::string_view::npos) return wrong("has a fragment (#...): a WebSocket has none");
  if (authority.find('@') != std::string_view::npos) return wrong("holds a user: tokens are given by --token");
  const size_t bracket = authority.find(']');
  const size_t colon = authority.find(':', bracket == std::string_view::npos ? 0 : bracket);
  url.host = std::string(authority.substr(0, colon));
  if (url.host.size() > 2 && url.host.front() == '[' && url.host.back() == ']') {
    url.host = url.host.substr(1, url.host.size() - 2);
  }
  if (url.host.empty()) return wrong("names no host: write ws://host:port/ws");
  if (colon != std::string_view::npos) {
    url.port = std::string(authority.substr(colon + 1));
    const bool digits = !url.port.empty() && url.port.find_first_not_of("0123456789") == std::string::npos;
    if (!digits || url.port.size() > 5 || std::stoi(url.port) > 65535 || std::stoi(url.port) == 0) {
      return wrong("has no good port: it is a number from 1 to 65535");
    }
  }
  return url;
}

absl::StatusOr<std::unique_ptr<WsConnection>> WsConnection::Connect(const std::string& url, const std::string& token,
                                                                    TokenPlace place, Duration timeout,
                                                                    const std::string& authorities) {
  const auto parsed = ParseWsUrl(url);
  if (!parsed.ok()) return parsed.status();
  if (token.find_first_of("\r\n \t") != std::string::npos) {
    return absl::InvalidArgumentError("the token holds a blank or a line break: give it without, in quotes");
  }
  const SteadyTime deadline = Clock() + timeout;
  const auto fd = ConnectSocket(*parsed, deadline);
  if (!fd.ok()) return fd.status();
  std::unique_ptr<WsConnection> connection(new WsConnection(*fd, timeout));
  if (parsed->tls) {
    if (const auto done = connection->HandshakeTls(*parsed, authorities, deadline); !done.ok()) return done;
  }
  if (const auto done = connection->Handshake(url, token, place); !done.ok()) return done;
  return connection;
}

WsConnection::~WsConnection() {
  tls_.reset();
  close(fd_);
}

absl::Status WsConnection::HandshakeTls(const WsUrl& url, const std::string& authorities, SteadyTime deadline) {
  const auto client = TlsClient::Create(authorities);
  if (!client.ok()) return client.status();
  tls_ = (*client)->Connect(fd_, url.host);
  if (tls_ == nullptr) return absl::ResourceExhaustedError("there is no memory for TLS");
  while (true) {
    switch (tls_->Handshake()) {
      case TlsStream::Outcome::kDone:
        return absl::OkStatus();
      case TlsStream::Outcome::kWouldBlock:
        if (!WaitFor(fd_, tls_->read_waits_for_room() ? POLLOUT : POLLIN, deadline)) {
          return absl::DeadlineExceededError(
              "the server took the connection but did not answer the TLS handshake in time");
        }
        break;
      default: {
        const std::string& why = tls_->reason();
        return absl::FailedPreconditionError("the TLS handshake with " + Place(url) + " failed (" +
                                             (why.empty() ? "the server hung up" : Escaped(why)) +
                                             "): wss:// needs an edge with SERVICE_TLS_CERT, whose certificate names "
                                             "that host, and --ca with who signed it");
      }
    }
  }
}

absl::Status WsConnection::Handshake(const std::string& url, const std::string& token, TokenPlace place) {
  WebsocketClientOptions options;
  options.uri = url;
  switch (place) {
    case TokenPlace::kHeader:
      options.headers.emplace_back("Authorization", "Bearer " + token);
      break;
    case TokenPlace::kUrl:
      options.uri = WithQueryToken(url, token);
      break;
    case TokenPlace::kSubprotocol:
      options.subprotocols = {"presence.v1", "bearer." + token};
      break;
  }
  engine_ = WebsocketEngine::Client(options, *this);
  engine_->Start();
  const SteadyTime deadline = Clock() + timeout_;
  while (!open_ && !closed_ && Pump(deadline - Clock())) {
  }
  if (open_) {
    head_.clear();
    return absl::OkStatus();
  }
  if (head_.empty()) {
    if (closed_) return absl::FailedPreconditionError("the server closed the connection without an answer");
    return absl::DeadlineExceededError("the server took the connection but did not answer the handshake in time");
  }
  return RefusalFrom(head_);
}

absl::Status WsConnection::RefusalFrom(std::string_view head) const {
  const std::string_view line = head.substr(0, head.find_first_of("\r\n"));
  const int status =
      line.size() >= 12 && line.substr(0, 5) == "HTTP/" ? std::atoi(std::string(line.substr(9, 3)).c_str()) : 0;
  const size_t body = head.find("\r\n\r\n");
  std::string said = Escaped(line, 80);
  if (body != std::string_view::npos && body + 4 < head.size()) said += ": " + Escaped(head.substr(body + 4), 160);
  const std::string refused = "the server refused the handshake with \"" + said + "\"";
  switch (status) {
    case 401:
      return absl::UnauthenticatedError(refused + ". " + AboutToken(head));
    case 403:
      return absl::PermissionDeniedError(refused + ". The edge's ALLOWED_ORIGINS leaves this client out");
    case 404:
      return absl::FailedPreconditionError(refused + ". The path in --url is /ws");
    case 503:
      return absl::FailedPreconditionError(
          refused + ". The edge has no core (is presence-core running?), no keys yet, or no room: its log says which");
    case 101:
      return absl::FailedPreconditionError("the server's handshake is broken: " + Escaped(line, 80));
    case 0:
      return absl::FailedPreconditionError("what answers there is no web server: check the port in --url");
    default:
      return absl::FailedPreconditionError(refused);
  }
}

void WsConnection::OnMessage(MessageKind, std::string_view payload) {
  events_.push_back(Event{Event::Kind::kMessage, std::string(payload)});
}

void WsConnection::OnEnded(uint16_t code) {
  closed_ = true;
  close_code_ = code;
}

void WsConnection::Break() {
  if (!closed_) engine_->Eof();
  closed_ = true;
}

ssize_t WsConnection::Write(std::string_view bytes) {
  if (tls_ == nullptr) return send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
  const iovec all{const_cast<char*>(bytes.data()), bytes.size()};
  char record[TlsStream::kRecordBytesMax];
  const TlsStream::Result result = tls_->Write({&all, 1}, record);
  if (result.bytes > 0 || result.outcome == TlsStream::Outcome::kDone) return static_cast<ssize_t>(result.bytes);
  errno = result.outcome == TlsStream::Outcome::kWouldBlock ? EAGAIN : ECONNRESET;
  return -1;
}

ssize_t WsConnection::Read(char* buffer, size_t size) {
  if (tls_ == nullptr) return recv(fd_, buffer, size, 0);
  const TlsStream::Result result = tls_->Read(buffer, size);
  switch (result.outcome) {
    case TlsStream::Outcome::kDone:
      return static_cast<ssize_t>(result.bytes);
    case TlsStream::Outcome::kEnd:
      return 0;
    case TlsStream::Outcome::kWouldBlock:
      errno = EAGAIN;
      return -1;
    default:
      errno = ECONNRESET;
      return -1;
  }
}

bool WsConnection::Pump(Duration timeout) {
  const auto want = static_cast<short>(output_.empty() ? POLLIN : POLLIN | POLLOUT);
  if (!HoldsMore() && !WaitFor(fd_, want, Clock() + timeout)) return false;
  if (!output_.empty()) {
    const ssize_t sent = Write(output_);
    if (sent > 0) output_.erase(0, static_cast<size_t>(sent));
    if (sent < 0 && errno != EAGAIN && errno != EINTR) output_.clear();  // what can be read is still read
  }
  char buffer[16 * 1024];
  const ssize_t size = Read(buffer, sizeof buffer);
  if (size > 0) {
    const std::string_view bytes(buffer, static_cast<size_t>(size));
    if (!open_ && head_.size() < kHeadBytesMax) head_ += bytes;
    engine_->Feed(bytes);
  } else if (size == 0 || (errno != EAGAIN && errno != EINTR)) {
    Break();
  }
  return true;
}

std::optional<WsConnection::Event> WsConnection::Next(Duration timeout) {
  const SteadyTime deadline = Clock() + timeout;
  while (events_.empty() && !closed_) {
    if (!Pump(deadline - Clock())) return std::nullopt;
    // Half a frame came: wait on, but not past the deadline.
    if (events_.empty() && !closed_ && !HoldsMore() && Clock() >= deadline) return std::nullopt;
  }
  if (events_.empty()) return Event{Event::Kind::kClosed, "", close_code_};
  Event event = std::move(events_.front());
  events_.pop_front();
  return event;
}

absl::Status WsConnection::SendText(std::string_view text) {
  if (closed_) return absl::UnavailableError("the connection is closed");
  engine_->SendText(text);
  const SteadyTime deadline = Clock() + timeout_;
  while (!output_.empty() && !closed_) {
    if (!Pump(deadline - Clock())) return absl::UnavailableError("the server does not read what is sent to it");
  }
  return absl::OkStatus();
}

uint16_t WsConnection::Close(Duration timeout) {
  engine_->Close(1000, "");
  const SteadyTime deadline = Clock() + timeout;
  while (!closed_ && Pump(deadline - Clock())) {
  }
  const uint16_t code = closed_ ? close_code_ : uint16_t{1006};
  Break();
  return code;
}

}  // namespace presence::edge::cli
