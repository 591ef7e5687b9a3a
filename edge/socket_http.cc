// Requests, their answers, and the upgrade to a WebSocket.
#include <string>
#include <utility>

#include "edge/epoll_socket_loop.h"

namespace presence::edge {
namespace {

using Phase = HttpConversation::Phase;

constexpr size_t kUnbounded = SIZE_MAX;
constexpr int kRequestsPerTurnMax = 16;
// A client that pipelines and does not read its answers gets no further ones made.
constexpr size_t kUnreadAnswersBytesMax = 64 * 1024;
constexpr size_t kInputKeptBytesMax = 4096;

}  // namespace

// Until there is nothing to go on with: the input is used up, a request awaits its answer, or it is the next one's
// turn.
void EpollSocketLoop::ServeHttp(Socket& socket) {
  serving_http_ = &socket;
  bool has_read = false;
  int requests = 0;
  while (socket.state == SocketState::kHttp && socket.http->phase != Phase::kAwaitingAnswer) {
    if (socket.http->phase == Phase::kUpgrading) {
      OpenEngine(socket);
      break;
    }
    // Drained goes on when the answers are written.
    if (requests == kRequestsPerTurnMax || socket.queue.bytes() > kUnreadAnswersBytesMax) break;
    if (ServeOneRequest(socket)) {
      ++requests;
      continue;
    }
    if (socket.state != SocketState::kHttp) break;
    if (!socket.readable) {
      if (socket.peer_ended) Finish(socket);  // it asks nothing more, but may still be reading
      break;
    }
    if (has_read) {
      MarkReady(socket);
      break;
    }
    has_read = true;
    ReadHttp(socket);
  }
  serving_http_ = nullptr;
}

// Hands over the request that the input begins with; false when there is none.
bool EpollSocketLoop::ServeOneRequest(Socket& socket) {
  HttpConversation& http = *socket.http;
  if (http.input.empty()) return false;
  absl::StatusOr<std::optional<HttpParsed>> parsed = ParseHttpRequest(http.input, options_.head_bytes_max);
  if (!parsed.ok()) {
    const auto message = parsed.status().message();
    Refuse(socket, HttpStatusOf(parsed.status()), {message.data(), message.size()});
    return false;
  }
  if (!parsed->has_value()) return false;
  HttpRequest& request = (*parsed)->request;
  http.input.erase(0, (*parsed)->bytes);
  if (http.input.empty() && http.input.capacity() > kInputKeptBytesMax) std::string().swap(http.input);
  http.phase = Phase::kAwaitingAnswer;
  http.keep_alive = request.keep_alive;
  http.head_request = request.method == "HEAD";
  http.upgrade = request.upgrade;
  http.head = std::move(request.head);
  request.head = http.head;
  SetDeadline(socket, DeadlineKind::kNone);
  counters_.requests.Add();
  handler_.OnRequest(socket.id(), request);
  return true;
}

void EpollSocketLoop::ReadHttp(Socket& socket) {
  const IoResult result = Read(socket);
  if (result.outcome == IoResult::Outcome::kError) return Terminate(socket);
  if (result.outcome != IoResult::Outcome::kDone) return;
  if (socket.deadline == DeadlineKind::kKeepAlive) SetDeadline(socket, DeadlineKind::kRequest);
  socket.http->input.append(read_buffer_.get(), result.bytes);
}

void EpollSocketLoop::Refuse(Socket& socket, int status, std::string_view error) {
  counters_.requests_refused.Add();
  if (status == 431) counters_.heads_too_long.Add();
  QueueAnswer(socket, JsonError(status, error), /*keep_alive=*/false);
}

// nullptr: the client is gone, or the request has been answered.
Socket* EpollSocketLoop::FindAwaitingAnswer(SocketId id) {
  Socket* socket = table_.Find(id);
  if (socket == nullptr || socket->state != SocketState::kHttp) return nullptr;
  return socket->http->phase == Phase::kAwaitingAnswer ? socket : nullptr;
}

void EpollSocketLoop::Respond(SocketId id, const HttpResponse& response) {
  Socket* socket = FindAwaitingAnswer(id);
  if (socket == nullptr) return;
  // Whoever asked for a WebSocket and does not get it may have sent frames already: they are no request.
  const HttpConversation& http = *socket->http;
  QueueAnswer(*socket, response, http.keep_alive && !response.close && !http.upgrade && !socket->peer_ended);
}

void EpollSocketLoop::QueueAnswer(Socket& socket, const HttpResponse& response, bool keep_alive) {
  HttpConversation& http = *socket.http;
  socket.queue.Push(FrameRef::Raw(SerializeHttpResponse(response, keep_alive, http.head_request, strict_transport_)),
                    SendPolicy(), kUnbounded);
  http.phase = Phase::kReading;
  http.head_request = false;
  if (!keep_alive) return Finish(socket);
  SetDeadline(socket, http.input.empty() ? DeadlineKind::kKeepAlive : DeadlineKind::kRequest);
  MarkDirty(socket);
}

void EpollSocketLoop::Upgrade(SocketId id, std::string_view subprotocol) {
  if (Socket* socket = FindAwaitingAnswer(id); socket != nullptr) AcceptUpgrade(*socket, subprotocol);
}

void EpollSocketLoop::UpgradeAndClose(SocketId id, std::string_view subprotocol, uint16_t code,
                                      std::string_view reason) {
  Socket* socket = FindAwaitingAnswer(id);
  if (socket == nullptr) return;
  socket->http->farewell = HttpConversation::Farewell{code, std::string(reason)};
  AcceptUpgrade(*socket, subprotocol);
}

void EpollSocketLoop::AcceptUpgrade(Socket& socket, std::string_view subprotocol) {
  HttpConversation& http = *socket.http;
  if (!http.upgrade) return QueueAnswer(socket, JsonError(400, "Not a WebSocket request"), /*keep_alive=*/false);
  http.subprotocol = subprotocol;
  http.phase = Phase::kUpgrading;
  if (&socket != serving_http_) MarkReady(socket);
}

void EpollSocketLoop::OpenEngine(Socket& socket) {
  socket.state = SocketState::kOpening;
  HttpConversation& http = *socket.http;
  socket.engine = WebsocketEngine::Server({options_.message_bytes_max, std::move(http.subprotocol)}, socket);
  socket.engine->Feed(http.head);
  if (socket.state == SocketState::kOpening) {
    // The engine asks for more than a whole head; it should have refused.
    return Terminate(socket);
  }
  // A client may send frames behind its request: they came in the same read.
  if ((socket.state == SocketState::kOpen || socket.state == SocketState::kClosing) && !http.input.empty()) {
    FeedWebsocket(socket, http.input, http.input.size());
  }
  socket.http.reset();
  if (socket.readable) MarkReady(socket);
}

}  // namespace presence::edge
