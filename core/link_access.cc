#include "core/link_access.h"

#include "common/log.h"
#include "common/shared_secret.h"

namespace presence::core {

absl::Status LinkAccess::CheckSecret(const std::string_view* shown) const {
  if (rule_.secret.empty()) return absl::OkStatus();
  if (shown == nullptr) return absl::UnauthenticatedError("no link secret: set LINK_SECRET on the edge as on the core");
  if (SameSecret(*shown, rule_.secret)) return absl::OkStatus();
  return absl::UnauthenticatedError("wrong link secret: LINK_SECRET must be the same on edge and core");
}

absl::Status LinkAccess::Check(const grpc::CallbackServerContext& context) const {
  absl::Status status;
  if (rule_.certificate) {
    // The handshake has seen to it; this is for a listener that was set up wrongly.
    const auto peer = context.auth_context();
    if (peer == nullptr || !peer->IsPeerAuthenticated()) {
      status = absl::UnauthenticatedError("a client certificate is required: set CORE_LINK_CERT and CORE_LINK_KEY");
    }
  }
  if (status.ok() && !rule_.secret.empty()) {
    const auto found = context.client_metadata().find(kSecretMetadataKey);
    if (found == context.client_metadata().end()) {
      status = CheckSecret(nullptr);
    } else {
      const std::string_view shown(found->second.data(), found->second.size());
      status = CheckSecret(&shown);
    }
  }
  if (!status.ok()) {
    static log::LineLimit refusals("refused links", 1, 3);
    if (refusals.Admit(log::Level::kWarning)) {
      log::Warning("A link from {} was refused: {}", Escaped(context.peer()), Escaped(std::string(status.message())));
    }
  }
  return status;
}

}  // namespace presence::core
