#include "edge/gate.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"

namespace presence::edge {
namespace {

constexpr uint16_t kPolicyViolation = 1008;  // RFC 6455, section 7.4.1
constexpr uint16_t kTryAgainLater = 1013;    // IANA's registry of close codes
constexpr std::string_view kRetryAfterSeconds = "2";
constexpr std::string_view kPreflightMaxAgeSeconds = "600";

std::string_view ClientText(TokenFault fault) {
  switch (fault) {
    case TokenFault::kMissing:
      return "token missing";
    case TokenFault::kExpired:
      return "token expired";
    case TokenFault::kInvalid:
    case TokenFault::kUnknownKey:
      break;
  }
  return "token invalid";
}

// RFC 6750, section 3: without a token the challenge says no more.
HttpResponse Unauthorized(TokenFault fault) {
  HttpResponse response = JsonError(401, ClientText(fault));
  response.headers.emplace_back("WWW-Authenticate",
                                fault == TokenFault::kMissing ? "Bearer" : R"(Bearer error="invalid_token")");
  return response;
}

HttpResponse KeysNotLoaded() {
  HttpResponse response = JsonError(503, "not ready");
  response.headers.emplace_back("Retry-After", kRetryAfterSeconds);
  return response;
}

// Lower case, without the scheme's default port.
std::string NormalOrigin(std::string_view origin) {
  std::string normal = absl::AsciiStrToLower(absl::string_view(origin.data(), origin.size()));
  if (absl::StartsWith(normal, "http://") && absl::EndsWith(normal, ":80")) normal.resize(normal.size() - 3);
  if (absl::StartsWith(normal, "https://") && absl::EndsWith(normal, ":443")) normal.resize(normal.size() - 4);
  return normal;
}

size_t CountHeaders(const HttpRequest& request, absl::string_view name) {
  return static_cast<size_t>(std::count_if(request.headers.begin(), request.headers.end(), [&](const auto& header) {
    return absl::EqualsIgnoreCase(header.first, name);
  }));
}

// The credentials of `Authorization: Bearer ...`; empty for none or another scheme.
std::string_view BearerToken(const HttpRequest& request) {
  constexpr std::string_view kScheme = "bearer ";
  std::string_view value = request.Header("Authorization").value_or("");
  if (value.size() <= kScheme.size() ||
      !absl::StartsWithIgnoreCase(absl::string_view(value.data(), value.size()),
                                  absl::string_view(kScheme.data(), kScheme.size()))) {
    return {};
  }
  value.remove_prefix(kScheme.size());
  while (!value.empty() && value.front() == ' ') value.remove_prefix(1);
  return value;
}

std::string FindToken(const HttpRequest& request) {
  if (auto parameter = request.QueryParameter("token"); parameter && !parameter->empty()) return *std::move(parameter);
  if (const std::string_view token = BearerToken(request); !token.empty()) return std::string(token);
  for (std::string_view offered : request.HeaderList("Sec-WebSocket-Protocol")) {
    if (offered.substr(0, kBearerSubprotocolPrefix.size()) != kBearerSubprotocolPrefix) continue;
    offered.remove_prefix(kBearerSubprotocolPrefix.size());
    return std::string(offered);
  }
  return {};
}

std::string SelectSubprotocol(const HttpRequest& request) {
  const auto offered = request.HeaderList("Sec-WebSocket-Protocol");
  return std::find(offered.begin(), offered.end(), kSubprotocol) == offered.end() ? "" : std::string(kSubprotocol);
}

GateDecision Refused(HttpResponse response, std::string_view why) {
  GateDecision decision;
  decision.outcome = Refuse{std::move(response)};
  decision.why = why;
  return decision;
}

}  // namespace

OriginPolicy::OriginPolicy(const std::vector<std::string>& allowed) {
  for (std::string_view origin : allowed) {
    if (origin == "*") any_ = true;
    while (!origin.empty() && origin.back() == '/') origin.remove_suffix(1);  // easily written, never sent
    if (!origin.empty()) allowed_.push_back(NormalOrigin(origin));
  }
}

bool OriginPolicy::HasOrigin(const HttpRequest& request) {
  return CountHeaders(request, "Origin") > 0;
}

bool OriginPolicy::Allows(const HttpRequest& request) const {
  if (CountHeaders(request, "Origin") != 1) return false;
  if (any_) return true;
  const std::string origin = NormalOrigin(*request.Header("Origin"));
  if (std::find(allowed_.begin(), allowed_.end(), origin) != allowed_.end()) return true;
  const std::string_view host = request.Header("Host").value_or("");
  if (host.empty()) return false;
  return origin == NormalOrigin(std::string("http://").append(host)) ||
         origin == NormalOrigin(std::string("https://").append(host));
}

Gate::Gate(const Options& options)
    : origins_(options.allowed_origins),
      rest_auth_(options.rest_auth),
      auth_first_message_(options.auth_first_message),
      verifier_(options.verifier),
      good_tokens_(std::make_unique<TokenCache<Identity>>(options.tokens_remembered_max)) {}

TokenVerdict Gate::Verify(std::string_view token, const JwkSet& keys, WallTime now) const {
  if (token.empty() || token.size() > TokenVerifier::kTokenBytesMax) return verifier_.Verify(token, keys, now);
  const TokenDigest digest = DigestOf(token);
  if (std::optional<Identity> known = good_tokens_->Find(digest, keys.id(), now)) return *std::move(known);
  TokenVerdict verdict = verifier_.Verify(token, keys, now);
  if (const auto* identity = std::get_if<Identity>(&verdict)) {
    good_tokens_->Keep(digest, keys.id(), *identity, verifier_.ValidityOf(*identity));
  }
  return verdict;
}

GateDecision Gate::ComeBackLater(const HttpRequest& request, std::string_view why) const {
  GateDecision decision = Refused(KeysNotLoaded(), why);
  if (OriginPolicy::HasOrigin(request)) {
    decision.outcome = AdmitAndClose{kTryAgainLater, "try again later", SelectSubprotocol(request)};
  }
  return decision;
}

GateDecision Gate::TooManyWaitForKeys(const HttpRequest& request) const {
  return ComeBackLater(request, "too many wait for new keys");
}

GateDecision Gate::DecideUpgrade(const HttpRequest& request, const JwkSet* keys, WallTime now) const {
  if (request.path != kWebsocketPath) return Refused(JsonError(404, "not found"), "no such path");
  if (request.method != "GET") {
    HttpResponse response = JsonError(405, "method not allowed");
    response.headers.emplace_back("Allow", "GET");
    return Refused(std::move(response), "not a GET");
  }
  if (!request.upgrade) {
    HttpResponse response = JsonError(426, "a WebSocket upgrade is required");
    response.headers.emplace_back("Upgrade", "websocket");
    return Refused(std::move(response), "not a WebSocket upgrade");
  }
  const bool browser = OriginPolicy::HasOrigin(request);
  if (browser && !origins_.Allows(request)) {
    return Refused(JsonError(403, "origin not allowed"), "foreign origin");
  }

  const std::string token = FindToken(request);
  const bool unproven = token.empty() && auth_first_message_;
  if (keys == nullptr && (unproven || !token.empty())) return ComeBackLater(request, "no keys yet");
  if (unproven) {
    GateDecision decision;
    decision.outcome = AdmitUnproven{SelectSubprotocol(request)};
    return decision;
  }
  TokenVerdict verdict = Rejection{TokenFault::kMissing, "no token"};
  if (keys != nullptr) verdict = Verify(token, *keys, now);

  GateDecision decision;
  if (auto* identity = std::get_if<Identity>(&verdict)) {
    decision.outcome = Admit{std::move(*identity), SelectSubprotocol(request)};
    return decision;
  }
  const Rejection& rejection = std::get<Rejection>(verdict);
  decision.unknown_key = rejection.fault == TokenFault::kUnknownKey;
  decision.kid = rejection.kid;
  decision.why = rejection.why;
  if (browser) {
    decision.outcome = AdmitAndClose{kPolicyViolation, ClientText(rejection.fault), SelectSubprotocol(request)};
  } else {
    decision.outcome = Refuse{Unauthorized(rejection.fault)};
  }
  return decision;
}

std::optional<RestRefusal> Gate::RefuseRest(const HttpRequest& request, const JwkSet* keys, WallTime now) const {
  if (!rest_auth_) return std::nullopt;
  const std::string_view token = BearerToken(request);
  if (token.empty()) return RestRefusal{.response = Unauthorized(TokenFault::kMissing)};
  if (keys == nullptr) return RestRefusal{.response = KeysNotLoaded()};
  const TokenVerdict verdict = Verify(token, *keys, now);
  const auto* rejection = std::get_if<Rejection>(&verdict);
  if (rejection == nullptr) return std::nullopt;
  return RestRefusal{.response = Unauthorized(rejection->fault),
                     .unknown_key = rejection->fault == TokenFault::kUnknownKey,
                     .kid = rejection->kid};
}

std::optional<HttpResponse> Gate::AnswerPreflight(const HttpRequest& request) const {
  if (request.method != "OPTIONS" || !OriginPolicy::HasOrigin(request) ||
      !request.Header("Access-Control-Request-Method")) {
    return std::nullopt;
  }
  HttpResponse response;
  if (origins_.Allows(request)) {
    response.status = 204;
    response.headers = {{"Access-Control-Allow-Methods", "GET, HEAD"},
                        {"Access-Control-Allow-Headers", "Authorization, Content-Type"},
                        {"Access-Control-Max-Age", std::string(kPreflightMaxAgeSeconds)}};
  } else {
    response = JsonError(403, "origin not allowed");
  }
  for (auto& header : CorsHeaders(request)) response.headers.push_back(std::move(header));
  return response;
}

std::vector<std::pair<std::string, std::string>> Gate::CorsHeaders(const HttpRequest& request) const {
  if (origins_.any()) return {{"Access-Control-Allow-Origin", "*"}};
  std::vector<std::pair<std::string, std::string>> headers = {{"Vary", "Origin"}};
  if (origins_.Allows(request)) {
    headers.emplace_back("Access-Control-Allow-Origin", std::string(*request.Header("Origin")));
  }
  return headers;
}

}  // namespace presence::edge
