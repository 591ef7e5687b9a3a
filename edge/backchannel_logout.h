// POST /backchannel-logout: the identity provider says that a session, or all of a user's, has ended (OpenID Connect Back-Channel Logout
// 1.0, section 2.5). The logout token is verified here; what it orders is kept and carried out by the core.
//
// One for each shard, on its thread. Nobody is asked for credentials beside the logout token, and pages of browsers have no business here:
// no CORS, and REST_AUTH does not matter. Only verified tokens reach the core. A repeated one is harmless: it ends what was issued before
// it, once more.
//
// Answers (section 2.8), all with Cache-Control: no-store:
//   200                            every core has closed what it concerns, and newcomers with older tokens are refused
//   400 {"error":"invalid_request","error_description":"..."}   not a form with exactly one logout_token, or a bad one
//   405, 413                       not a POST; a body over kBodyBytesMax
//   503, 504                       not kept, or not known to be: no keys, no core, no answer in time. The provider may repeat it
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "common/jwk_set.h"
#include "common/key_source.h"
#include "common/logout_token.h"
#include "common/time.h"
#include "edge/core_link.h"
#include "edge/http.h"

namespace presence::edge {

constexpr std::string_view kBackchannelLogoutPath = "/backchannel-logout";

class BackchannelLogout {
 public:
  struct Sources {
    std::function<std::shared_ptr<const JwkSet>()> keys;
    // KeySource::RequestRefresh, but `again` is called on the shard's thread.
    std::function<RefreshAnswer(std::string_view kid, std::function<void()> again)> after_key_refresh;
    std::function<WallTime()> clock;
    // EndSessions of the core.
    std::function<void(const LogoutOrder& order, std::function<void(const absl::Status&)> done)> end_sessions;
  };
  using Answer = std::function<void(HttpResponse)>;

  static constexpr size_t kBodyBytesMax = 16 * 1024;  // a token has at most 8 KiB
  // The core takes up to 5 s to hear of all ends.
  static constexpr auto kCoreTimeout = std::chrono::seconds(6);

  // The verifier must outlive it.
  BackchannelLogout(Sources sources, const LogoutTokenVerifier& verifier);

  // `answer` comes exactly once, except after the link has stopped.
  void Handle(const HttpRequest& request, Answer answer);

 private:
  void Judge(const std::string& token, bool may_wait_for_keys, const Answer& answer);

  const Sources sources_;
  const LogoutTokenVerifier& verifier_;
};

}  // namespace presence::edge
