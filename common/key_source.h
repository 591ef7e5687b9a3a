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
  // Fetches that RequestRefresh causes: so many at once, and then one per interval. Unknown key ids cost Keycloak at most
  // that; and the ids that a stranger makes up leave something for the id of a key that is really new.
  int requested_refreshes_at_once = 4;
  std::chrono::milliseconds requested_refresh_interval{5000};
  // How long an id counts as unknown after a good fetch did not bring its key.
  std::chrono::milliseconds unknown_kid_memory{10'000};
  std::string ca_file;  // PEM bundle for https; empty: the system's
};

// {keycloak_url}/realms/{realm}/protocol/openid-connect/certs; the realm is percent-encoded.
std::string CertsUrl(std::string_view keycloak_url, std::string_view realm);

struct KeySourceStats {
  uint64_t attempts = 0;  // reads and fetches
  uint64_t failures = 0;
  uint64_t changes = 0;  // sets that replaced another one, the first included
};

// What comes of a request for the keys to be looked at again. With the last two nothing will be called.
enum class RefreshAnswer : uint8_t {
  kWaiting,    // it will be looked for
  kPointless,  // it was looked for just now, or the source is stopped: go by the keys there are
  kBusy,       // too many are waiting already; the token may be good: somebody else, or a second later
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

  // For a token with a key id that Current() does not have: asks for an attempt now, or as soon as it may be
  // (requested_refreshes_at_once). With kWaiting, `done` (may be empty) will be called once, on the background thread: when
  // the key has come, or when an attempt that began after this call is over, whatever came of it. It must not block, nor
  // destroy this object. Calls that come together share one attempt.
  RefreshAnswer RequestRefresh(std::string_view kid, std::function<void()> done);

 private:
  static constexpr size_t kWaitingMax = 1024;  // handshakes held back; each costs a socket meanwhile
  // The ids that were looked for in vain; a few KB, searched from end to end. Whoever makes up more than that in
  // unknown_kid_memory may ask again, within what requested_refreshes_at_once leaves him.
  static constexpr size_t kUnknownKidsMax = 256;

  struct Waiter {
    std::string kid;
    std::function<void()> done;
  };
  struct UnknownKid {
    size_t hash = 0;  // salted: nobody outside can find two ids that collide
    SteadyTime until;
  };

  explicit KeySource(KeySourceOptions options);
  void Run();
  struct Outcome {
    bool good = false;
    std::chrono::milliseconds next;  // how long to wait for the next one
  };
  // One read or fetch.
  Outcome Attempt();
  // Takes over a document, unless it is bad or the one there is already.
  absl::Status Adopt(std::string document);
  void Record(const absl::Status& outcome);
  // REQUIRES the mutex. Who waits no more after an attempt; of those who came during it, only whose key has come.
  std::vector<Waiter> TakeAnswered(bool good);
  bool RecentlyUnknown(std::string_view kid, SteadyTime now) const;  // REQUIRES the mutex

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
  std::optional<SteadyTime> refresh_at_;  // an attempt is requested for then
  SteadyTime allowance_full_at_;          // when requested_refreshes_at_once are possible again
  std::vector<Waiter> waiting_next_;      // for the attempt that is requested
  std::vector<Waiter> waiting_current_;   // for the one under way
  std::vector<UnknownKid> unknown_kids_;  // a ring once it is full
  size_t oldest_unknown_kid_ = 0;

  std::thread thread_;  // the last member: it uses all others
};

}  // namespace presence
