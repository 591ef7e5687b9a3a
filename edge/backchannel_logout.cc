#include "edge/backchannel_logout.h"

#include <utility>
#include <variant>

#include "absl/strings/match.h"
#include "common/json.h"
#include "common/log.h"
#include "edge/logout_form.h"

namespace presence::edge {
namespace {

constexpr std::string_view kFormType = "application/x-www-form-urlencoded";

log::LineLimit logout_lines("logouts");
log::LineLimit refused_logout_lines("refused logouts");

HttpResponse WithoutStore(HttpResponse response) {
  response.headers.emplace_back("Cache-Control", "no-store");
  return response;
}

// RFC 6749, section 5.2, as the logout specification wants it.
HttpResponse InvalidRequest(int status, std::string_view description) {
  HttpResponse response;
  response.status = status;
  response.body = R"({"error":"invalid_request","error_description":)" + JsonString(description) + "}";
  return WithoutStore(std::move(response));
}

HttpResponse TryAgain(int status, std::string_view why) {
  HttpResponse response = WithoutStore(JsonError(status, why));
  response.headers.emplace_back("Retry-After", "2");
  return response;
}

bool IsForm(const HttpRequest& request) {
  std::string_view type = request.Header("Content-Type").value_or("");
  type = type.substr(0, type.find(';'));
  while (!type.empty() && (type.back() == ' ' || type.back() == '\t')) type.remove_suffix(1);
  return absl::EqualsIgnoreCase(absl::string_view(type.data(), type.size()),
                                absl::string_view(kFormType.data(), kFormType.size()));
}

HttpResponse OfStatus(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk: {
      HttpResponse response;
      response.body = "{}";
      return WithoutStore(std::move(response));
    }
    case absl::StatusCode::kInvalidArgument:
      return InvalidRequest(400, "The logout token names no session that could be ended");
    case absl::StatusCode::kDeadlineExceeded:
      return TryAgain(504, "Not every core has answered in time; try again");
    default:
      return TryAgain(503, "The logout cannot be kept at the moment; try again");
  }
}

}  // namespace

BackchannelLogout::BackchannelLogout(Sources sources, const LogoutTokenVerifier& verifier)
    : sources_(std::move(sources)), verifier_(verifier) {}

void BackchannelLogout::Handle(const HttpRequest& request, Answer answer) {
  if (request.method != "POST") {
    HttpResponse response = WithoutStore(JsonError(405, "Method not allowed: this path takes POST"));
    response.headers.emplace_back("Allow", "POST");
    return answer(std::move(response));
  }
  if (request.body.size() > kBodyBytesMax) return answer(InvalidRequest(413, "The body is too long"));
  if (!IsForm(request)) return answer(InvalidRequest(400, "The body must be a form"));
  const std::string token = LogoutTokenOfForm(request.body);
  if (token.empty()) return answer(InvalidRequest(400, "Exactly one logout_token is required"));
  Judge(token, /*may_wait_for_keys=*/true, answer);
}

void BackchannelLogout::Judge(const std::string& token, bool may_wait_for_keys, const Answer& answer) {
  const auto keys = sources_.keys();
  if (keys == nullptr) return answer(TryAgain(503, "There are no keys yet to verify the token with; try again"));
  const auto verdict = verifier_.Verify(token, *keys, sources_.clock());
  if (const auto* rejection = std::get_if<Rejection>(&verdict)) {
    if (rejection->fault == TokenFault::kUnknownKey && may_wait_for_keys) {
      const RefreshAnswer asked = sources_.after_key_refresh(
          rejection->kid, [this, token, answer] { Judge(token, /*may_wait_for_keys=*/false, answer); });
      if (asked == RefreshAnswer::kWaiting) return;
      if (asked == RefreshAnswer::kBusy) return answer(TryAgain(503, "Too many wait for new keys; try again"));
    }
    if (refused_logout_lines.Admit(log::Level::kWarning)) log::Warning("Logout refused: {}", rejection->why);
    return answer(InvalidRequest(400, "The logout token is not valid"));
  }
  const auto& order = std::get<LogoutOrder>(verdict);
  if (logout_lines.Admit(log::Level::kInfo)) {
    log::Info("Logout of user {}, session {}", Escaped(order.user_id), Escaped(order.session_id));
  }
  sources_.end_sessions(order, [answer](const absl::Status& status) {
    if (!status.ok() && refused_logout_lines.Admit(log::Level::kError)) {
      log::Error("A logout is not kept, or not known to be: {}", Escaped(std::string(status.message())));
    }
    answer(OfStatus(status));
  });
}

}  // namespace presence::edge
