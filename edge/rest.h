// The REST interface on the edge's port: /health, /presence, /presence/{user_id}, /metrics, /backchannel-logout, and CORS.
//
// One for each shard, on its thread. Answers come at once, or later when the core is asked. Bodies are the specification's;
// errors are {"error":"...","code":N}.
#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <string_view>

#include "edge/backchannel_logout.h"
#include "edge/core_link.h"
#include "edge/gate.h"
#include "edge/http.h"

namespace presence::edge {

struct Health {
  bool ready = false;
  std::string_view why_not;  // constant text; empty when ready
  uint64_t active_connections = 0;
};

class Rest {
 public:
  struct Sources {
    std::string service_name;
    std::function<Health()> health;
    std::function<std::string()> metrics;
    std::function<std::shared_ptr<const JwkSet>()> keys;
    // As BackchannelLogout's.
    std::function<RefreshAnswer(std::string_view kid, std::function<void()> again)> after_key_refresh;
  };
  using Answer = std::function<void(HttpResponse)>;

  static constexpr auto kCoreTimeout = std::chrono::seconds(3);
  static constexpr uint32_t kLimitDefault = 1'000, kLimitMax = 10'000;

  // Gate, verifier and link must outlive it.
  Rest(Sources sources, const Gate& gate, const LogoutTokenVerifier& logout_tokens, CoreLink& link);

  // Any request but an upgrade to /ws. `answer` comes exactly once, except after the link has stopped.
  void Handle(const HttpRequest& request, WallTime now, Answer answer);

 private:
  HttpResponse HealthResponse() const;
  // What only those may ask who may read presence.
  void HandleGuarded(const HttpRequest& request, WallTime now, bool may_wait_for_keys, const Answer& answer);
  void OneUser(std::string_view encoded_id, Answer answer);
  void ManyUsers(const HttpRequest& request, Answer answer);

  const Sources sources_;
  const Gate& gate_;
  BackchannelLogout logout_;
  CoreLink& link_;
};

}  // namespace presence::edge
