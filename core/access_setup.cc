#include "core/access_setup.h"

#include <string>
#include <utility>

#include "common/log.h"
#include "common/network.h"
#include "common/shared_secret.h"
#include "common/tls_credentials.h"

namespace presence::core {
namespace {

const TlsNames kApiFiles{"API_TLS_CERT", "API_TLS_KEY", "API_TLS_CLIENT_CA"};
const TlsNames kLinkFiles{"LINK_TLS_CERT", "LINK_TLS_KEY", "LINK_TLS_CLIENT_CA"};

absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> CredentialsOf(const TlsPaths& paths, TlsNames names) {
  if (!paths.any()) return grpc::InsecureServerCredentials();
  auto files = TlsFiles::Open(paths, std::move(names));
  if (!files.ok()) return files.status();
  return MakeTlsServerCredentials(*std::move(files));
}

absl::Status SetUpApi(const Config& config, AccessSetup& setup) {
  auto credentials = CredentialsOf(config.api_tls, kApiFiles);
  if (!credentials.ok()) return credentials.status();
  setup.api_credentials = *std::move(credentials);
  switch (config.effective_api_auth()) {
    case ApiAuth::kJwt: {
      auto keys = KeySource::Start(config.tokens.KeyOptions());
      if (!keys.ok()) return keys.status();
      setup.keys = *std::move(keys);
      KeySource* const source = setup.keys.get();
      setup.api = Access::ByToken(
          config.ApiVerifierOptions(),
          {.keys = [source] { return source->Current(); },
           .refresh_keys =
               [source](std::string_view kid) { return source->RequestRefresh(kid, {}) != RefreshAnswer::kPointless; },
           .now = [] { return ReadClocks().wall; }});
      if (!config.api_tls.any() && !IsLoopback(config.api_listen.host)) {
        log::Warning(
            "Bearer tokens come to API_LISTEN without TLS: who can read that network can use them; set "
            "API_TLS_CERT and API_TLS_KEY, or put a proxy with TLS in front");
      }
      return absl::OkStatus();
    }
    case ApiAuth::kMtls:
      setup.api = Access::ByCertificate();
      return absl::OkStatus();
    case ApiAuth::kOpen:
    case ApiAuth::kAuto:
      break;
  }
  setup.api = Access::Open();
  if (!IsLoopback(config.api_listen.host))
    log::Warning("API_AUTH=open: whoever reaches API_LISTEN may make every call");
  return absl::OkStatus();
}

absl::Status SetUpLink(const Config& config, AccessSetup& setup) {
  auto credentials = CredentialsOf(config.link_tls, kLinkFiles);
  if (!credentials.ok()) return credentials.status();
  setup.link_credentials = *std::move(credentials);
  absl::StatusOr<std::string> secret = LoadSecret("LINK_SECRET", config.link_secret, config.link_secret_file);
  if (!secret.ok()) return secret.status();
  const bool beyond_loopback = !IsLoopback(config.link_listen.host);
  if (beyond_loopback && !secret->empty() && !config.link_tls.any()) {
    log::Warning(
        "LINK_SECRET comes to LINK_LISTEN without TLS: who can read that network can use it; set LINK_TLS_CERT and "
        "LINK_TLS_KEY");
  }
  const LinkAuth auth = config.effective_link_auth();
  if (beyond_loopback && auth == LinkAuth::kOpen) {
    log::Warning("LINK_AUTH=open: whoever reaches LINK_LISTEN may attach as an edge and speak for every user");
  }
  // A secret that is set is asked for, whatever else is.
  setup.link = LinkAccess({.certificate = auth == LinkAuth::kMtls, .secret = *std::move(secret)});
  return absl::OkStatus();
}

}  // namespace

void AccessSetup::CheckFiles(const Config& config, ConfigReader& reader) {
  reader.CheckStatus([&config] { return TlsFiles::Check(config.api_tls, kApiFiles); });
  reader.CheckStatus([&config] { return TlsFiles::Check(config.link_tls, kLinkFiles); });
  reader.CheckStatus(
      [&config] { return LoadSecret("LINK_SECRET", config.link_secret, config.link_secret_file).status(); });
}

absl::StatusOr<AccessSetup> AccessSetup::Make(const Config& config) {
  AccessSetup setup;
  if (absl::Status status = SetUpLink(config, setup); !status.ok()) return status;
  if (absl::Status status = SetUpApi(config, setup); !status.ok()) return status;
  return setup;
}

}  // namespace presence::core
