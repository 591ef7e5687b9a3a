// What the settings about access come to: certificates and secrets read, keys being fetched, and the rules that the
// services ask. Made once, by main, before anything listens; lives until the servers are down.
#pragma once

#include <grpcpp/grpcpp.h>

#include <memory>

#include "absl/status/statusor.h"
#include "common/key_source.h"
#include "core/access.h"
#include "core/config.h"
#include "core/link_access.h"

namespace presence::core {

struct AccessSetup {
  std::unique_ptr<KeySource> keys;  // with tokens only
  std::unique_ptr<Access> api;      // uses `keys`
  LinkAccess link;
  std::shared_ptr<grpc::ServerCredentials> api_credentials, link_credentials;

  // Has the reader judge the files and the secret, with the other settings; both must outlive its Read.
  static void CheckFiles(const Config& config, ConfigReader& reader);
  // INVALID_ARGUMENT, naming the setting: a file that cannot be used, or a secret that is too short. Warns, once,
  // of secrets and tokens that cross a network without TLS.
  static absl::StatusOr<AccessSetup> Make(const Config& config);
};

}  // namespace presence::core
