// Keeps the current JWK set: from a file that is watched, or from Keycloak's certificate endpoint.
//
// Thread-safe. One background thread reads and fetches; readers take a mutex for the time of copying a
// shared_ptr, at handshakes alone. Good keys are kept for as long as nothing better arrives: a Keycloak that
// is away, an answer that does not parse and a file that is gone change nothing but last_error(). A set
// without usable keys counts as an error, too.
//
// Logs each new set, and each new reason why there is none.
//
// Does not decide about tokens (token_verifier.h). HTTP is in key_fetcher.h.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/jwk_set.h"
#include "common/key_fetcher.h"
#include "common/time.h"

namespace presence {

struct KeySourceOptions {
  // Exactly one of the two.
  std::string file;  // JWKS_FILE
  std::string url;   // http or https, see CertsUrl

  std::chrono::milliseconds file_poll_interval{1000};
  // Between two successful fetches: Cache-Control's max-age, held within refresh_min and refresh_max;
  // refresh_default without one.
  std::chrono::milliseconds refresh_default{300'000};
  std::chrono::milliseconds refresh_min{10'000};
  std::chrono::milliseconds refresh_max{3'600'000};
  // After a failure: doubles from retry_min to retry_max, each time between half and the whole of it, by
  // chance.
  std::chrono::milliseconds retry_min{500};
  std::chrono::milliseconds retry_max{30'000};
  std::chrono::milliseconds fetch_timeout{5000};
  // Between two fetches that RequestRefresh causes: unknown key ids cost Keycloak at most that.
  std::chrono::milliseconds requested_refresh_interval{5000};
  std::string ca_file;  // PEM bundle for https; empty: the system's
};

// {keycloak_url}/realms/{realm}/protocol/openid-connect/certs; the realm is percent-encoded.
std::string CertsUrl(std::string_view keycloak_url, std::string_view realm);

struct KeySourceStats {
  uint64_t attempts = 0;  // reads and fetches
  uint64_t failures = 0;
  uint64_t changes = 0;  // sets that replaced another one, the first included
};

class KeySource {
 public:
  // Starts the thread, which makes its first attempt at once. INVALID_ARGUMENT: not exactly one source, or a URL
  // that is neither http nor https.
  static absl::StatusOr<std::unique_ptr<KeySource>> Start(KeySourceOptions options);

  KeySource(const KeySource&) = delete;
  KeySource& operator=(const KeySource&) = delete;
  ~KeySource();  // stops

  // Aborts a fetch under way and joins the thread: well below a second. From then on Current() does not change, and
  // no callback of RequestRefresh runs or starts: call it before what those callbacks use goes away. A second call
  // has no effect.
  void Stop();

  // The newest good set; nullptr until there is one.
  std::shared_ptr<const JwkSet> Current() const;
  bool Ready() const { return Current() != nullptr; }
  // Why the latest attempt failed; empty when it succeeded. For /health and logs: bounded, without contents of
  // the answer.
  std::string last_error() const;
  KeySourceStats stats() const;

  // For a token with an unknown key id: asks for an attempt now. True: `done` (may be empty) will be called once,
  // on the background thread, when that attempt is over, whatever came of it; it must not block, nor destroy this
  // object. Calls that come together share one attempt: the next one, or, within requested_refresh_interval of the
  // last request, the one under way. False, and nothing will be called: neither is possible, too many are
  // waiting, or it is stopped; go by the keys there are.
  bool RequestRefresh(std::function<void()> done);

 private:
  static constexpr size_t kWaitingMax = 1024;  // handshakes held back; each costs a socket meanwhile

  explicit KeySource(KeySourceOptions options);
  void Run();
  // One read or fetch; returns how long to wait for the next one.
  std::chrono::milliseconds Attempt();
  // Takes over a document, unless it is bad or the one there is already.
  absl::Status Adopt(std::string document);
  void Record(const absl::Status& outcome);

  const KeySourceOptions options_;
  const std::unique_ptr<KeyFetcher> fetcher_;  // with a url only

  // Of the background thread.
  std::string document_;  // of the current set
  std::chrono::milliseconds retry_{0};
  std::minstd_rand jitter_;

  mutable std::mutex mutex_;  // guards what follows, up to thread_
  std::condition_variable wake_;
  std::shared_ptr<const JwkSet> current_;
  std::string last_error_;
  KeySourceStats stats_;
  bool stopping_ = false;
  bool refresh_requested_ = false;
  bool attempt_running_ = false;
  std::optional<SteadyTime> requested_at_;
  std::vector<std::function<void()>> waiting_next_;     // for the attempt that is requested
  std::vector<std::function<void()>> waiting_current_;  // for the one under way

  std::thread thread_;  // the last member: it uses all others
};

}  // namespace presence
