// Decides who may make which call of the public API: by a bearer token of the realm and the roles in it, by the
// client certificate that TLS has checked already, or not at all (open).
//
// Thread-safe; Check is called on gRPC's threads, at the beginning of a call, and never blocks on anything but a
// mutex held for microseconds. A streaming call is checked once, when it starts: it may outlive its token.
//
// Verified tokens are remembered (common/token_cache.h), at most kCacheEntriesMax, until they expire or the keys change.
//
// Health checks and reflection are not gRPC methods of ours and are never checked: a probe has no token.
#pragma once

#include <grpcpp/grpcpp.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>

#include "absl/status/status.h"
#include "common/time.h"
#include "common/token_verifier.h"

namespace presence::core {

// What a call needs. In a token they are called as RoleName says. kAdmin includes all, kPublish includes kRead.
enum class Role : uint8_t { kRead, kPublish, kAdmin };

// "presence-read", "presence-publish", "presence-admin".
std::string_view RoleName(Role role);

class Access {
 public:
  static constexpr size_t kCacheEntriesMax = 4096;  // some 110 bytes each: half a megabyte

  // What tokens are verified with; all may be called from any thread.
  struct TokenSources {
    std::function<std::shared_ptr<const JwkSet>()> keys;  // nullptr: there are none yet
    // A token names a key that `keys` does not have. True: it is being looked for, or will be. Must not block.
    std::function<bool(std::string_view kid)> refresh_keys;
    std::function<WallTime()> now;
  };

  // Every call is allowed. For loopback, for tests, and where API_AUTH=open asks for it by name.
  static std::unique_ptr<Access> Open();
  // Every call of a peer whose certificate TLS has verified is allowed, whatever its role.
  static std::unique_ptr<Access> ByCertificate();
  // `authorization: Bearer <token>`. `options` says whose tokens are good; which roles are read is added here.
  static std::unique_ptr<Access> ByToken(VerifierOptions options, TokenSources sources);

  Access(const Access&) = delete;
  Access& operator=(const Access&) = delete;
  ~Access();

  // OK; or, without repeating anything of the token:
  //   UNAUTHENTICATED: there is no token, or it is malformed, expired, or not of this realm; or no certificate.
  //   PERMISSION_DENIED: the token is good and lacks the role; the message names the role.
  //   UNAVAILABLE: there are no keys yet; or the token names a key that is not known, and new keys are being looked
  //   for. The caller tries again a second later. When they were looked for only just now it is UNAUTHENTICATED: a
  //   caller must not throw away a token because the core has not yet heard of the newest key, and a forged one
  //   must not cost a fetch each time.
  absl::Status Check(const grpc::CallbackServerContext& context, Role role);
  // The same with what the context holds, for tests and benchmarks: the value of `authorization`, empty when there
  // is none.
  absl::Status CheckToken(std::string_view authorization, Role role);

 private:
  enum class Kind : uint8_t { kOpen, kCertificate, kToken };
  struct Tokens;

  explicit Access(Kind kind);

  const Kind kind_;
  std::unique_ptr<Tokens> tokens_;  // of kToken
};

}  // namespace presence::core
