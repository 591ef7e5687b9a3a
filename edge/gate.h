// Decides about one request before anything is opened: path, Origin, token. A bad token never yields a usable
// socket, and each client learns why in the one way that it can read.
//
// Functions over a request, the keys and the time; immutable but for the tokens that it remembers
// (common/token_cache.h), so all shards share one gate. Does not wait, log, count or touch a socket. No answer repeats a
// token or an Origin that is not allowed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "common/jwk_set.h"
#include "common/time.h"
#include "common/token_cache.h"
#include "common/token_verifier.h"
#include "edge/http.h"

namespace presence::edge {

constexpr std::string_view kWebsocketPath = "/ws";
constexpr std::string_view kSubprotocol = "presence.v1";
constexpr std::string_view kBearerSubprotocolPrefix =
    "bearer.";  // a token among the offered subprotocols; never selected

// Which pages may open sockets and call the REST interface (RFC 6454).
class OriginPolicy {
 public:
  // `allowed`: scheme://host[:port], compared without case and with default ports left out; "*" is any.
  explicit OriginPolicy(const std::vector<std::string>& allowed);

  // True for an origin of the list, and for the edge's own: http or https on the request's Host. More than
  // one Origin header is never allowed. Without an Origin the request is not from a browser: `HasOrigin`
  // tells.
  bool Allows(const HttpRequest& request) const;
  bool any() const { return any_; }
  static bool HasOrigin(const HttpRequest& request);

 private:
  bool any_ = false;
  std::vector<std::string> allowed_;
};

// Complete the handshake: SocketLoop::Upgrade.
struct Admit {
  Identity identity;
  std::string subprotocol;  // to select; empty: none
};

// Answer and do not upgrade: SocketLoop::Respond.
struct Refuse {
  HttpResponse response;
};

// Complete the handshake; the token is to come as the first message.
struct AdmitUnproven {
  std::string subprotocol;
};

// For browsers, which cannot read the status of a refused handshake: SocketLoop::UpgradeAndClose.
struct AdmitAndClose {
  uint16_t code = 0;        // 1008, or 1013 while there are no keys
  std::string_view reason;  // constant text
  std::string subprotocol;
};

struct GateDecision {
  std::variant<Admit, Refuse, AdmitAndClose, AdmitUnproven> outcome;
  // The token names a key that is not in the set. The caller may first call KeySource::RequestRefresh and
  // decide again with the keys it brings; otherwise the outcome stands.
  bool unknown_key = false;
  std::string kid;       // with unknown_key: that of the token
  std::string_view why;  // constant text for a log line; empty when admitted
};

struct RestRefusal {
  HttpResponse response;     // 401 or 503
  bool unknown_key = false;  // as in GateDecision
  std::string kid{};
};

class Gate {
 public:
  struct Options {
    std::vector<std::string> allowed_origins;  // ALLOWED_ORIGINS
    bool rest_auth = false;                    // REST_AUTH=bearer
    bool auth_first_message = false;           // WS_AUTH_FIRST_MESSAGE
    VerifierOptions verifier;
    // Good tokens that are remembered: as many as there are connections that may come back all at once. Some 400 bytes each.
    size_t tokens_remembered_max = 16 * 1024;
  };

  explicit Gate(const Options& options);

  // About a request for kWebsocketPath (others are 404). `keys`: null while there are none.
  //
  //   not GET                             405        not a WebSocket upgrade    426
  //   foreign Origin                      403
  //   token missing, bad or expired       401 with WWW-Authenticate; with an allowed Origin: close 1008
  //   "token missing",
  //                                       "token invalid" or "token expired"
  //   no keys yet                         503 with Retry-After; with an allowed Origin: close 1013 "try again
  //   later"
  //
  // With auth_first_message a missing token is no fault of the handshake: AdmitUnproven.
  //
  // The token is the first of: query parameter `token`, `Authorization: Bearer`, offered subprotocol
  // `bearer.<token>`. A later one is not looked at, good or not. kSubprotocol is selected when it is offered.
  GateDecision DecideUpgrade(const HttpRequest& request, const JwkSet* keys, WallTime now) const;

  // When so many wait for new keys already that this one cannot (RefreshAnswer::kBusy): as while there are no keys.
  GateDecision TooManyWaitForKeys(const HttpRequest& request) const;

  // About any token, such as one that a client shows in a message: as the verifier says, or as it said.
  TokenVerdict Verify(std::string_view token, const JwkSet& keys, WallTime now) const;

  // For the REST calls that need it: nullopt when the request may pass (a good `Authorization: Bearer`, or
  // rest_auth is off), else the answer.
  std::optional<RestRefusal> RefuseRest(const HttpRequest& request, const JwkSet* keys, WallTime now) const;

  // The answer to a CORS preflight: 204 with what is allowed, 403 for a foreign Origin; nullopt when
  // `request` is none.
  std::optional<HttpResponse> AnswerPreflight(const HttpRequest& request) const;

  // What the answer to a REST request must carry, so that an allowed page may read it: `Vary: Origin` always
  // (unless any origin is allowed), Access-Control-Allow-Origin when there is an allowed Origin.
  std::vector<std::pair<std::string, std::string>> CorsHeaders(const HttpRequest& request) const;

 private:
  GateDecision ComeBackLater(const HttpRequest& request, std::string_view why) const;

  OriginPolicy origins_;
  bool rest_auth_ = false;
  bool auth_first_message_ = false;
  TokenVerifier verifier_;
  std::unique_ptr<TokenCache<Identity>> good_tokens_;
};

}  // namespace presence::edge
