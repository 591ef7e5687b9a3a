#include "edge/http.h"

#include <algorithm>
#include <array>

#include "absl/status/status.h"
#include "common/json.h"

namespace presence::edge {
namespace {

constexpr std::string_view kLineEnd = "\r\n";
constexpr std::string_view kHeadEnd = "\r\n\r\n";
// A browser sends about 20. The bound keeps 16,000 bytes of "a:" lines from becoming 4,000 strings.
constexpr size_t kHeadersMax = 100;

// One status code for each HTTP status that a parse error is answered with.
struct ParseErrorKind {
  absl::StatusCode code;
  int http_status;
};
constexpr std::array<ParseErrorKind, 5> kParseErrorKinds{{
    {absl::StatusCode::kInvalidArgument, 400},
    {absl::StatusCode::kOutOfRange, 413},
    {absl::StatusCode::kResourceExhausted, 431},
    {absl::StatusCode::kUnimplemented, 501},
    {absl::StatusCode::kFailedPrecondition, 505},
}};

absl::Status Malformed(const char* why) {
  return absl::InvalidArgumentError(why);
}

bool IsDigit(char c) {
  return c >= '0' && c <= '9';
}

bool IsAlphanumeric(char c) {
  return IsDigit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

// RFC 9110, section 5.6.2.
bool IsTokenCharacter(char c) {
  return IsAlphanumeric(c) || (c != '\0' && std::string_view("!#$%&'*+-.^_`|~").find(c) != std::string_view::npos);
}

bool IsToken(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), IsTokenCharacter);
}

bool IsControl(char c) {
  return static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
}

char Lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

bool EqualsIgnoringCase(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](char x, char y) { return Lower(x) == Lower(y); });
}

std::string_view Trimmed(std::string_view text) {
  const size_t first = text.find_first_not_of(" \t");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

struct HeaderView {
  std::string_view name, value;
};

void AppendList(std::string_view value, std::vector<std::string_view>* items) {
  while (!value.empty()) {
    const size_t comma = std::min(value.find(','), value.size());
    if (const std::string_view item = Trimmed(value.substr(0, comma)); !item.empty()) items->push_back(item);
    value.remove_prefix(std::min(comma + 1, value.size()));
  }
}

bool Contains(const std::vector<std::string_view>& list, std::string_view item) {
  return std::any_of(list.begin(), list.end(), [item](std::string_view x) { return EqualsIgnoringCase(x, item); });
}

// A head as views into the input: strings are made only for a request that is complete, so a body that trickles in
// costs a scan for each piece and no allocation.
struct HeadView {
  std::string_view method, target, path, query;
  bool http_1_0 = false;
  std::array<HeaderView, kHeadersMax> headers;
  size_t header_count = 0;
  size_t content_length = 0;

  std::vector<std::string_view> List(std::string_view name) const {
    std::vector<std::string_view> items;
    for (size_t i = 0; i < header_count; ++i) {
      if (EqualsIgnoringCase(headers[i].name, name)) AppendList(headers[i].value, &items);
    }
    return items;
  }
};

absl::Status ParseTarget(HeadView* head) {
  std::string_view rest = head->target;
  const auto forbidden = [](char c) { return c <= 0x20 || c == 0x7f || c == '#'; };  // bytes above 0x7f are negative
  if (rest.empty() || std::any_of(rest.begin(), rest.end(), forbidden)) return Malformed("request target");
  // A proxy may send the absolute form (RFC 9112, section 3.2.2); the authority says nothing that Host does not.
  if (rest.size() >= 7 && EqualsIgnoringCase(rest.substr(0, 7), "http://")) {
    rest.remove_prefix(7);
    rest.remove_prefix(std::min(rest.find_first_of("/?"), rest.size()));
  } else if (rest.front() != '/' && rest != "*") {
    return Malformed("request target");
  }
  const size_t question = rest.find('?');
  head->path = rest.substr(0, question);
  if (head->path.empty()) head->path = "/";
  if (question != std::string_view::npos) head->query = rest.substr(question + 1);
  return absl::OkStatus();
}

absl::Status ParseRequestLine(std::string_view line, HeadView* head) {
  const size_t first = line.find(' ');
  const size_t last = line.rfind(' ');
  if (first == std::string_view::npos || first == last) return Malformed("request line");
  head->method = line.substr(0, first);
  head->target = line.substr(first + 1, last - first - 1);
  const std::string_view version = line.substr(last + 1);
  if (!IsToken(head->method)) return Malformed("method");
  if (version.size() != 8 || version.substr(0, 5) != "HTTP/" || !IsDigit(version[5]) || version[6] != '.' ||
      !IsDigit(version[7])) {
    return Malformed("protocol version");
  }
  if (version[5] != '1') return absl::FailedPreconditionError("only HTTP/1.x is spoken");
  head->http_1_0 = version[7] == '0';
  return ParseTarget(head);
}

absl::Status ParseContentLength(std::string_view value, size_t* length) {
  if (value.empty() || !std::all_of(value.begin(), value.end(), IsDigit)) return Malformed("Content-Length");
  *length = 0;
  for (char c : value) {
    *length = *length * 10 + static_cast<size_t>(c - '0');
    if (*length > kHttpBodyBytesMax) return absl::OutOfRangeError("body too long");
  }
  return absl::OkStatus();
}

// What the header fields mean together. Whatever two readers could understand differently is refused: a proxy in front
// may be one of them (request smuggling, RFC 9112, section 11.2).
absl::Status InterpretHeaders(HeadView* head) {
  size_t hosts = 0, lengths = 0;
  bool transfer_encoding = false;
  absl::Status length_status;
  for (size_t i = 0; i < head->header_count; ++i) {
    const HeaderView& header = head->headers[i];
    if (EqualsIgnoringCase(header.name, "Host")) ++hosts;
    if (EqualsIgnoringCase(header.name, "Transfer-Encoding")) transfer_encoding = true;
    if (EqualsIgnoringCase(header.name, "Content-Length")) {
      ++lengths;
      length_status = ParseContentLength(header.value, &head->content_length);
    }
  }
  if (hosts > 1 || (hosts == 0 && !head->http_1_0)) return Malformed("exactly one Host is needed");
  if (lengths > 1 || (lengths == 1 && transfer_encoding)) return Malformed("body length is ambiguous");
  if (transfer_encoding) return absl::UnimplementedError("transfer codings are not supported");
  return length_status;
}

absl::Status ParseHeaderLine(std::string_view line, HeadView* head) {
  if (head->header_count == kHeadersMax) return absl::ResourceExhaustedError("too many header fields");
  const size_t colon = line.find(':');
  // A name that is not a token covers continuation lines and space before the colon, too.
  if (colon == std::string_view::npos || !IsToken(line.substr(0, colon))) return Malformed("header field");
  const std::string_view value = Trimmed(line.substr(colon + 1));
  if (std::any_of(value.begin(), value.end(), [](char c) { return IsControl(c) && c != '\t'; })) {
    return Malformed("header value");
  }
  head->headers[head->header_count++] = {line.substr(0, colon), value};
  return absl::OkStatus();
}

// `text` ends with the CRLF of the last line, without the empty one.
absl::Status ParseHead(std::string_view text, HeadView* head) {
  size_t line_end = text.find(kLineEnd);
  if (absl::Status status = ParseRequestLine(text.substr(0, line_end), head); !status.ok()) return status;
  text.remove_prefix(line_end + kLineEnd.size());
  while (!text.empty()) {
    line_end = text.find(kLineEnd);
    if (absl::Status status = ParseHeaderLine(text.substr(0, line_end), head); !status.ok()) return status;
    text.remove_prefix(line_end + kLineEnd.size());
  }
  return InterpretHeaders(head);
}

// What can never become a request is refused before its end arrives: a TLS hello, other protocols, bare line feeds.
absl::Status CheckUnfinishedHead(std::string_view text, size_t bytes_max) {
  if (text.size() > bytes_max) return absl::ResourceExhaustedError("head too long");
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\n' ? (i == 0 || text[i - 1] != '\r') : IsControl(text[i]) && text[i] != '\r' && text[i] != '\t') {
      return Malformed("control character in the head");
    }
  }
  return absl::OkStatus();
}

HttpRequest BuildRequest(const HeadView& head, std::string_view head_bytes, std::string_view body) {
  HttpRequest request;
  request.method = head.method;
  request.target = head.target;
  request.path = head.path;
  request.query = head.query;
  request.headers.reserve(head.header_count);
  for (size_t i = 0; i < head.header_count; ++i) {
    request.headers.emplace_back(head.headers[i].name, head.headers[i].value);
  }
  request.body = body;
  const std::vector<std::string_view> connection = head.List("Connection");
  request.keep_alive = !Contains(connection, "close") && (!head.http_1_0 || Contains(connection, "keep-alive"));
  // RFC 6455, section 4.1: a GET of HTTP/1.1 or later. Anything else is an ordinary request whose Upgrade is ignored.
  request.upgrade = !head.http_1_0 && head.method == "GET" && body.empty() && Contains(connection, "upgrade") &&
                    Contains(head.List("Upgrade"), "websocket");
  if (request.upgrade) request.head = head_bytes;
  return request;
}

struct Reason {
  int status;
  std::string_view phrase;
};
constexpr Reason kReasons[] = {
    {200, "OK"},
    {201, "Created"},
    {202, "Accepted"},
    {204, "No Content"},
    {304, "Not Modified"},
    {400, "Bad Request"},
    {401, "Unauthorized"},
    {403, "Forbidden"},
    {404, "Not Found"},
    {405, "Method Not Allowed"},
    {408, "Request Timeout"},
    {409, "Conflict"},
    {413, "Content Too Large"},
    {415, "Unsupported Media Type"},
    {426, "Upgrade Required"},
    {429, "Too Many Requests"},
    {431, "Request Header Fields Too Large"},
    {500, "Internal Server Error"},
    {501, "Not Implemented"},
    {502, "Bad Gateway"},
    {503, "Service Unavailable"},
    {504, "Gateway Timeout"},
    {505, "HTTP Version Not Supported"},
};

// Empty when unknown: the phrase is optional (RFC 9112, section 4).
std::string_view ReasonPhrase(int status) {
  for (const Reason& reason : kReasons) {
    if (reason.status == status) return reason.phrase;
  }
  return {};
}

// A line break in a value would begin a header, or a response, of somebody else's making.
void AppendHeader(std::string_view name, std::string_view value, std::string* out) {
  out->append(name).append(": ");
  for (char c : value) out->push_back(IsControl(c) ? ' ' : c);
  out->append(kLineEnd);
}

// Presence tells where people are: no cache keeps it. And no browser takes an answer, which may repeat what its request
// said, for a page or a script, whatever it is asked for by.
constexpr std::pair<std::string_view, std::string_view> kSecurityHeaders[] = {
    {"Cache-Control", "no-store"},
    {"X-Content-Type-Options", "nosniff"},
    {"Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"},
    {"Referrer-Policy", "no-referrer"},
};

bool HasHeader(const HttpResponse& response, std::string_view name) {
  return std::any_of(response.headers.begin(), response.headers.end(),
                     [name](const auto& header) { return EqualsIgnoringCase(header.first, name); });
}

int HexValue(char c) {
  if (IsDigit(c)) return c - '0';
  const char lower = Lower(c);
  return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

}  // namespace

std::optional<std::string_view> HttpRequest::Header(std::string_view name) const {
  for (const auto& [key, value] : headers) {
    if (EqualsIgnoringCase(key, name)) return value;
  }
  return std::nullopt;
}

std::vector<std::string_view> HttpRequest::HeaderList(std::string_view name) const {
  std::vector<std::string_view> items;
  for (const auto& [key, value] : headers) {
    if (EqualsIgnoringCase(key, name)) AppendList(value, &items);
  }
  return items;
}

std::optional<std::string> HttpRequest::QueryParameter(std::string_view name) const {
  std::string_view rest = query;
  while (!rest.empty()) {
    const std::string_view pair = rest.substr(0, rest.find('&'));
    rest.remove_prefix(std::min(pair.size() + 1, rest.size()));
    const size_t equals = std::min(pair.find('='), pair.size());
    const absl::StatusOr<std::string> key = PercentDecode(pair.substr(0, equals));
    if (!key.ok() || *key != name) continue;
    absl::StatusOr<std::string> value = PercentDecode(pair.substr(std::min(equals + 1, pair.size())));
    if (!value.ok()) return std::nullopt;
    return *std::move(value);
  }
  return std::nullopt;
}

absl::StatusOr<std::optional<HttpParsed>> ParseHttpRequest(std::string_view input, size_t head_bytes_max) {
  // Empty lines before a request are ignored (RFC 9112, section 2.2); within the limit of the head.
  size_t start = 0;
  while (start < head_bytes_max && input.substr(start, kLineEnd.size()) == kLineEnd) start += kLineEnd.size();
  const std::string_view text = input.substr(start);
  const size_t end = text.substr(0, head_bytes_max).find(kHeadEnd);
  if (end == std::string_view::npos) {
    if (absl::Status status = CheckUnfinishedHead(text, head_bytes_max); !status.ok()) return status;
    return std::nullopt;
  }
  HeadView head;
  if (absl::Status status = ParseHead(text.substr(0, end + kLineEnd.size()), &head); !status.ok()) return status;
  const size_t head_size = end + kHeadEnd.size();
  if (text.size() - head_size < head.content_length) return std::nullopt;
  HttpParsed parsed;
  parsed.request = BuildRequest(head, text.substr(0, head_size), text.substr(head_size, head.content_length));
  parsed.bytes = start + head_size + head.content_length;
  return parsed;
}

int HttpStatusOf(const absl::Status& parse_error) {
  for (const ParseErrorKind& kind : kParseErrorKinds) {
    if (kind.code == parse_error.code()) return kind.http_status;
  }
  return 500;
}

std::string SerializeHttpResponse(const HttpResponse& response, bool keep_alive, bool head_request,
                                  std::string_view strict_transport) {
  // RFC 9110, sections 15.3.5 and 15.4.5: these have no content, and the end of the head is their end.
  const bool no_content = response.status == 204 || response.status == 304;
  std::string out;
  out.reserve(384 + response.body.size());
  out.append("HTTP/1.1 ").append(std::to_string(response.status)).append(" ");
  out.append(ReasonPhrase(response.status)).append(kLineEnd);
  if (!no_content) {
    if (!response.content_type.empty()) AppendHeader("Content-Type", response.content_type, &out);
    AppendHeader("Content-Length", std::to_string(response.body.size()), &out);
  }
  // RFC 9110, section 7.8: who sends Upgrade names it in Connection, too.
  const bool offers_upgrade = std::any_of(response.headers.begin(), response.headers.end(), [](const auto& header) {
    return EqualsIgnoringCase(header.first, "Upgrade");
  });
  std::string connection = keep_alive ? "keep-alive" : "close";
  if (offers_upgrade) connection += ", upgrade";
  AppendHeader("Connection", connection, &out);
  for (const auto& [name, value] : response.headers) AppendHeader(name, value, &out);
  for (const auto& [name, value] : kSecurityHeaders) {
    if (!HasHeader(response, name)) AppendHeader(name, value, &out);
  }
  if (!strict_transport.empty()) AppendHeader("Strict-Transport-Security", strict_transport, &out);
  out.append(kLineEnd);
  if (!no_content && !head_request) out.append(response.body);
  return out;
}

HttpResponse JsonError(int status, std::string_view error) {
  HttpResponse response;
  response.status = status;
  response.body = "{\"error\":";
  AppendJsonString(error, &response.body);
  response.body.append(",\"code\":").append(std::to_string(status)).append("}");
  return response;
}

absl::StatusOr<std::string> PercentDecode(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out.push_back(text[i]);
      continue;
    }
    const int high = i + 2 < text.size() ? HexValue(text[i + 1]) : -1;
    const int low = i + 2 < text.size() ? HexValue(text[i + 2]) : -1;
    if (high < 0 || low < 0) return Malformed("percent escape");
    out.push_back(static_cast<char>(high * 16 + low));
    i += 2;
  }
  return out;
}

}  // namespace presence::edge
