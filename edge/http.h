// HTTP/1.1 requests and responses, as much as a small REST interface and a WebSocket upgrade need (RFC 9112).
//
// Pure functions and values; thread-safe. Does not do: chunked request bodies (501), continuation lines (400).
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

namespace presence::edge {

constexpr size_t kHttpHeadBytesMax = 16'000;     // request line and headers, at most; more is 431
constexpr size_t kHttpBodyBytesMax = 64 * 1024;  // more is 413

struct HttpRequest {
  std::string method;
  std::string target;                                        // as sent: path?query
  std::string path;                                          // as sent, percent-encoding kept
  std::string query;                                         // without '?'
  std::vector<std::pair<std::string, std::string>> headers;  // in order, values trimmed
  std::string body;
  bool keep_alive = true;
  bool upgrade = false;  // asks for a WebSocket: "Connection: upgrade" and "Upgrade: websocket"
  std::string head;      // the bytes of the head, for the WebSocket engine; only when `upgrade`

  // The first header of that name, case-insensitively; nullopt when absent.
  std::optional<std::string_view> Header(std::string_view name) const;
  // All values of a comma-separated list header (RFC 9110, section 5.6.1), over several lines, trimmed, without empty ones.
  std::vector<std::string_view> HeaderList(std::string_view name) const;
  // The first query parameter of that name, percent-decoded; nullopt when absent or wrongly encoded.
  std::optional<std::string> QueryParameter(std::string_view name) const;
};

struct HttpResponse {
  int status = 200;
  std::string content_type = "application/json";
  std::string body;
  std::vector<std::pair<std::string, std::string>> headers;  // beside Content-Type, Content-Length, Connection
  bool close = false;                                        // the connection ends with it
};

struct HttpParsed {
  HttpRequest request;
  size_t bytes = 0;  // that the request took from the input
};

// Parses one request from the start of `input`. nullopt: more bytes are needed. An error carries the status to answer before
// closing: see HttpStatusOf (400, 413, 431, 501, 505).
// `head_bytes_max`: of the request line and the headers, at most kHttpHeadBytesMax.
absl::StatusOr<std::optional<HttpParsed>> ParseHttpRequest(std::string_view input,
                                                           size_t head_bytes_max = kHttpHeadBytesMax);
int HttpStatusOf(const absl::Status& parse_error);

// The bytes of a response. HEAD gets no body, and the Content-Length that GET would get.
//
// Every response says that it is data and no page: it is not stored, sniffed, framed, or run. A header of that name in
// `response` takes the place of ours. `strict_transport`: the value of Strict-Transport-Security; empty: none. There is
// no Server header.
std::string SerializeHttpResponse(const HttpResponse& response, bool keep_alive, bool head_request,
                                  std::string_view strict_transport = {});

// {"error":"...","code":404} with that status.
HttpResponse JsonError(int status, std::string_view error);

// Decodes %XX ('+' stays). INVALID_ARGUMENT on a broken escape.
absl::StatusOr<std::string> PercentDecode(std::string_view text);

}  // namespace presence::edge
