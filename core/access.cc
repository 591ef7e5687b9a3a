#include "core/access.h"

#include <algorithm>
#include <array>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/log.h"
#include "common/token_cache.h"

namespace presence::core {
namespace {

constexpr std::array kRoles = {Role::kRead, Role::kPublish, Role::kAdmin};

absl::string_view Absl(std::string_view text) {
  return {text.data(), text.size()};
}

using RoleSet = uint8_t;  // a bit for each role that the caller has, what it includes among them

RoleSet RolesIn(const std::vector<std::string>& names) {
  RoleSet set = 0;
  for (const Role role : kRoles) {
    if (std::find(names.begin(), names.end(), RoleName(role)) == names.end()) continue;
    for (const Role included : kRoles) {
      if (included <= role) set |= static_cast<RoleSet>(1 << static_cast<int>(included));
    }
  }
  return set;
}

absl::Status DecideByRole(RoleSet roles, Role role) {
  if ((roles >> static_cast<int>(role) & 1) != 0) return absl::OkStatus();
  return absl::PermissionDeniedError(absl::StrCat("the token lacks the role ", Absl(RoleName(role))));
}

absl::Status Unauthenticated(std::string_view why) {
  return absl::UnauthenticatedError(absl::StrCat("the bearer token is not accepted: ", Absl(why)));
}

// RFC 6750, section 2.1; the scheme without regard to case (RFC 9110, section 11.1). Empty: there is none.
std::string_view BearerToken(std::string_view authorization) {
  constexpr std::string_view kScheme = "bearer ";
  if (!absl::StartsWithIgnoreCase(Absl(authorization), Absl(kScheme))) return {};
  authorization.remove_prefix(kScheme.size());
  while (!authorization.empty() && authorization.front() == ' ') authorization.remove_prefix(1);
  return authorization;
}

}  // namespace

std::string_view RoleName(Role role) {
  switch (role) {
    case Role::kRead:
      return "presence-read";
    case Role::kPublish:
      return "presence-publish";
    case Role::kAdmin:
      break;
  }
  return "presence-admin";
}

struct Access::Tokens {
  const TokenVerifier verifier;
  const TokenSources sources;
  TokenCache<RoleSet> good{Access::kCacheEntriesMax};
};

Access::Access(Kind kind) : kind_(kind) {}
Access::~Access() = default;

std::unique_ptr<Access> Access::Open() {
  return std::unique_ptr<Access>(new Access(Kind::kOpen));
}

std::unique_ptr<Access> Access::ByCertificate() {
  return std::unique_ptr<Access>(new Access(Kind::kCertificate));
}

std::unique_ptr<Access> Access::ByToken(VerifierOptions options, TokenSources sources) {
  options.roles.clear();
  for (const Role role : kRoles) options.roles.emplace_back(RoleName(role));
  options.username_required = false;
  std::unique_ptr<Access> access(new Access(Kind::kToken));
  access->tokens_.reset(new Tokens{.verifier = TokenVerifier(std::move(options)), .sources = std::move(sources)});
  return access;
}

absl::Status Access::Check(const grpc::CallbackServerContext& context, Role role) {
  absl::Status status;
  if (kind_ == Kind::kCertificate) {
    // The handshake has seen to it; this is for a listener that was set up wrongly.
    const auto peer = context.auth_context();
    if (peer == nullptr || !peer->IsPeerAuthenticated()) {
      status = absl::UnauthenticatedError("a client certificate is required");
    }
  } else if (kind_ == Kind::kToken) {
    const auto [first, last] = context.client_metadata().equal_range("authorization");
    if (first == last) {
      status = CheckToken({}, role);
    } else if (std::next(first) != last) {
      status = Unauthenticated("there are several");
    } else {
      status = CheckToken({first->second.data(), first->second.size()}, role);
    }
  }
  if (!status.ok()) {
    static log::LineLimit refusals("refused API calls", 5, 20);
    if (refusals.Admit(log::Level::kWarning)) {
      log::Warning("An API call from {} was refused: {}", Escaped(context.peer()),
                   Escaped(std::string(status.message())));
    }
  }
  return status;
}

absl::Status Access::CheckToken(std::string_view authorization, Role role) {
  if (kind_ != Kind::kToken) return absl::OkStatus();
  const std::string_view token = BearerToken(authorization);
  if (token.empty()) {
    return absl::UnauthenticatedError("a bearer token is required: metadata `authorization: Bearer <token>`");
  }
  if (token.size() > TokenVerifier::kTokenBytesMax) return Unauthenticated("longer than 8 KiB");
  const std::shared_ptr<const JwkSet> keys = tokens_->sources.keys();
  if (keys == nullptr) {
    return absl::UnavailableError("there are no keys to verify tokens with yet; try again shortly");
  }
  const WallTime now = tokens_->sources.now();
  const TokenDigest digest = DigestOf(token);
  if (const auto roles = tokens_->good.Find(digest, keys->id(), now)) return DecideByRole(*roles, role);

  const TokenVerdict verdict = tokens_->verifier.Verify(token, *keys, now);
  if (const auto* identity = std::get_if<Identity>(&verdict)) {
    const RoleSet roles = RolesIn(identity->roles);
    tokens_->good.Keep(digest, keys->id(), roles, tokens_->verifier.ValidityOf(*identity));
    return DecideByRole(roles, role);
  }
  const Rejection& rejection = std::get<Rejection>(verdict);
  if (rejection.fault == TokenFault::kUnknownKey && tokens_->sources.refresh_keys(rejection.kid)) {
    return absl::UnavailableError(
        "the key of the token is not known yet, new keys are being looked for; try again shortly");
  }
  return Unauthenticated(rejection.why);
}

}  // namespace presence::core
