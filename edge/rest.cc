#include "edge/rest.h"

#include <simdjson.h>

#include <charconv>
#include <utility>

#include "common/base64url.h"
#include "common/json.h"
#include "common/metrics.h"

namespace presence::edge {
namespace {

using link::v1::PresenceRecord;

constexpr size_t kIdBytesMax = 2048;
constexpr std::string_view kUserPrefix = "/presence/";

bool ValidId(std::string_view id) {
  return !id.empty() && id.size() <= kIdBytesMax && id.find('\0') == std::string_view::npos &&
         simdjson::validate_utf8(id.data(), id.size());
}

bool IsOneUser(std::string_view path) {
  return path.starts_with(kUserPrefix) && path.size() > kUserPrefix.size() &&
         path.find('/', kUserPrefix.size()) == std::string_view::npos;
}

HttpResponse TooManyWaitForKeys() {
  HttpResponse response = JsonError(503, "Too many wait for new keys; try again");
  response.headers.emplace_back("Retry-After", "2");
  return response;
}

std::string_view StatusName(link::v1::Status status) {
  switch (status) {
    case link::v1::STATUS_ONLINE:
      return "online";
    case link::v1::STATUS_AWAY:
      return "away";
    default:
      return "offline";
  }
}

void AppendUser(const PresenceRecord& user, std::string* out) {
  out->append("{\"user_id\":");
  AppendJsonString(user.user_id(), out);
  // Nobody's name is known before the first connection; the field is then absent, as specified.
  if (!user.username().empty()) {
    out->append(",\"username\":");
    AppendJsonString(user.username(), out);
  }
  out->append(",\"status\":\"").append(StatusName(user.status())).append("\",\"last_seen\":");
  if (user.last_seen_ms() == 0) {
    out->append("null}");
  } else {
    AppendJsonString(FormatTimestamp(FromUnixMillis(user.last_seen_ms())), out);
    out->push_back('}');
  }
}

void EndSessions(CoreLink& link, const LogoutOrder& order, std::function<void(const absl::Status&)> done) {
  link::v1::EndSessionsRequest request;
  request.set_user_id(order.user_id);
  request.set_session_id(order.session_id);
  request.set_logged_out_at_ms(ToUnixMillis(order.issued_at));
  link.EndSessions(
      request, BackchannelLogout::kCoreTimeout,
      [done = std::move(done)](const absl::StatusOr<link::v1::EndSessionsResponse>& ended) { done(ended.status()); });
}

HttpResponse OfStatus(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kInvalidArgument:
      return JsonError(400, "Bad request");
    case absl::StatusCode::kResourceExhausted:
      return JsonError(503, "Too many requests at once; try again");
    case absl::StatusCode::kDeadlineExceeded:
      return JsonError(504, "The presence store did not answer in time; try again");
    default:
      return JsonError(503, "Presence is not available at the moment; try again");
  }
}

}  // namespace

Rest::Rest(Sources sources, const Gate& gate, const LogoutTokenVerifier& logout_tokens, CoreLink& link)
    : sources_(std::move(sources)),
      gate_(gate),
      logout_(
          {.keys = sources_.keys,
           .after_key_refresh = sources_.after_key_refresh,
           .clock = [] { return ReadClocks().wall; },
           .end_sessions = [&link](const LogoutOrder& order, auto done) { EndSessions(link, order, std::move(done)); }},
          logout_tokens),
      link_(link) {}

void Rest::Handle(const HttpRequest& request, WallTime now, Answer answer) {
  if (request.path == kBackchannelLogoutPath) return logout_.Handle(request, std::move(answer));
  const auto respond = [headers = gate_.CorsHeaders(request), answer = std::move(answer)](HttpResponse response) {
    response.headers.insert(response.headers.end(), headers.begin(), headers.end());
    answer(std::move(response));
  };
  if (auto preflight = gate_.AnswerPreflight(request)) return respond(*std::move(preflight));

  const std::string_view path = request.path;
  if (path != "/health" && path != "/presence" && path != "/metrics" && !IsOneUser(path)) {
    return respond(JsonError(
        404, "Not found: there are /ws, /health, /presence, /presence/{user_id}, /metrics and /backchannel-logout"));
  }
  if (request.method != "GET" && request.method != "HEAD") {
    HttpResponse response = JsonError(405, "Method not allowed: this path takes GET");
    response.headers.emplace_back("Allow", "GET, HEAD");
    return respond(std::move(response));
  }
  if (path == "/health") return respond(HealthResponse());
  if (path == "/metrics") {
    HttpResponse response;
    response.content_type = MetricsPage::kContentType;
    response.body = sources_.metrics();
    return respond(std::move(response));
  }
  HandleGuarded(request, now, /*may_wait_for_keys=*/true, respond);
}

void Rest::HandleGuarded(const HttpRequest& request, WallTime now, bool may_wait_for_keys, const Answer& answer) {
  const auto keys = sources_.keys();
  if (auto refused = gate_.RefuseRest(request, keys.get(), now)) {
    if (refused->unknown_key && may_wait_for_keys) {
      // The issuer may just have a new key: one fetch for all who wait, then the answer stands.
      const RefreshAnswer asked = sources_.after_key_refresh(refused->kid, [this, request, answer] {
        HandleGuarded(request, ReadClocks().wall, /*may_wait_for_keys=*/false, answer);
      });
      if (asked == RefreshAnswer::kWaiting) return;
      if (asked == RefreshAnswer::kBusy) return answer(TooManyWaitForKeys());
    }
    return answer(std::move(refused->response));
  }
  const std::string_view path = request.path;
  if (IsOneUser(path)) return OneUser(path.substr(kUserPrefix.size()), answer);
  ManyUsers(request, answer);
}

HttpResponse Rest::HealthResponse() const {
  const Health health = sources_.health();
  HttpResponse response;
  response.status = health.ready ? 200 : 503;
  response.body = std::string("{\"status\":\"") + (health.ready ? "healthy" : "unhealthy") +
                  "\",\"service\":" + JsonString(sources_.service_name) +
                  ",\"active_connections\":" + std::to_string(health.active_connections);
  if (!health.ready) response.body += ",\"reason\":" + JsonString(health.why_not);
  response.body += '}';
  response.headers.emplace_back("Cache-Control", "no-store");
  return response;
}

void Rest::OneUser(std::string_view encoded_id, Answer answer) {
  const auto id = PercentDecode(encoded_id);
  if (!id.ok()) return answer(JsonError(400, "The user id is not percent-encoded correctly"));
  if (!ValidId(*id)) return answer(JsonError(400, "A user id has 1 to 2,048 bytes of UTF-8 without NUL"));
  link_.LookUpPresence(*id, kCoreTimeout, [answer = std::move(answer)](const absl::StatusOr<PresenceRecord>& user) {
    if (!user.ok()) return answer(OfStatus(user.status()));
    HttpResponse response;
    AppendUser(*user, &response.body);
    answer(std::move(response));
  });
}

void Rest::ManyUsers(const HttpRequest& request, Answer answer) {
  if (!PercentDecode(request.query).ok()) return answer(JsonError(400, "The query is not percent-encoded correctly"));
  uint32_t limit = kLimitDefault;
  if (const auto text = request.QueryParameter("limit")) {
    const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), limit);
    if (error != std::errc() || end != text->data() + text->size() || limit == 0 || limit > kLimitMax) {
      return answer(JsonError(400, "limit is a number from 1 to 10000"));
    }
  }
  std::string after;
  if (const auto cursor = request.QueryParameter("cursor"); cursor && !cursor->empty()) {
    const auto decoded = Base64UrlDecode(*cursor);
    if (!decoded || !ValidId(*decoded)) {
      return answer(JsonError(400, "cursor is not one that this service gave out: start again without it"));
    }
    after = *decoded;
  }
  link_.ListPresence(limit, after, kCoreTimeout,
                     [answer = std::move(answer)](const absl::StatusOr<link::v1::ListPresenceResponse>& page) {
                       if (!page.ok()) return answer(OfStatus(page.status()));
                       HttpResponse response;
                       std::string& body = response.body;
                       body = "{\"users\":[";
                       for (const auto& user : page->users()) {
                         if (body.back() == '}') body += ',';
                         AppendUser(user, &body);
                       }
                       body += "],\"count\":" + std::to_string(page->users_size());
                       if (page->more() && page->users_size() > 0) {
                         body += ",\"next_cursor\":" + JsonString(Base64UrlEncode(page->users().rbegin()->user_id()));
                       }
                       body += '}';
                       answer(std::move(response));
                     });
}

}  // namespace presence::edge
