#include "common/token_settings.h"

#include <unistd.h>

namespace presence {

void DeclareTokenSettings(ConfigReader& reader, TokenSettings& s) {
  reader.Url("KEYCLOAK_URL", &s.keycloak_url, "where Keycloak is; its realm's keys verify the tokens");
  reader.Text("KEYCLOAK_REALM", &s.keycloak_realm, "the realm");
  reader.Text("KEYCLOAK_CLIENT_ID", &s.keycloak_client_id,
              "must be the azp or in the aud of a token while JWT_AUDIENCE is unset; empty: not checked. On "
              "the edge, logout tokens for it count in any case");
  reader.Text("JWKS_FILE", &s.jwks_file, "a JWK set in a file instead of Keycloak: for development and tests");
  reader.List("JWT_ISSUER", &s.jwt_issuers,
              "accepted issuers; empty: KEYCLOAK_URL/realms/KEYCLOAK_REALM, with JWKS_FILE any");
  reader.List("JWT_AUDIENCE", &s.jwt_audiences,
              "one of these must be in the token's aud; empty: see KEYCLOAK_CLIENT_ID");
  reader.Check([&s] { return s.jwks_file.empty() || access(s.jwks_file.c_str(), R_OK) == 0; },
               "JWKS_FILE cannot be read: `presence-cli keys --out DIR` makes DIR/jwks.json");
}

KeySourceOptions TokenSettings::KeyOptions() const {
  KeySourceOptions options;
  if (jwks_file.empty()) {
    options.url = CertsUrl(keycloak_url, keycloak_realm);
  } else {
    options.file = jwks_file;
  }
  return options;
}

VerifierOptions TokenSettings::PartyOptions() const {
  VerifierOptions options;
  options.issuers = jwt_issuers;
  if (options.issuers.empty() && jwks_file.empty()) {
    std::string base = keycloak_url;
    while (!base.empty() && base.back() == '/') base.pop_back();
    options.issuers = {base + "/realms/" + keycloak_realm};
  }
  options.audiences = jwt_audiences;
  if (jwt_audiences.empty() && !keycloak_client_id.empty()) options.client_ids = {keycloak_client_id};
  return options;
}

}  // namespace presence
