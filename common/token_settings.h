// The settings that say whose tokens are good, the same in every program that verifies tokens.
//
// Filled once, at start, by ConfigReader; then read only.
#pragma once

#include <string>
#include <vector>

#include "common/config.h"
#include "common/key_source.h"
#include "common/token_verifier.h"

namespace presence {

struct TokenSettings {
  std::string keycloak_url;
  std::string keycloak_realm = "colink";
  std::string keycloak_client_id;
  std::string jwks_file;
  std::vector<std::string> jwt_issuers;
  std::vector<std::string> jwt_audiences;

  // Whether there is a source of keys at all.
  bool given() const { return !jwks_file.empty() || !keycloak_url.empty(); }
  KeySourceOptions KeyOptions() const;  // REQUIRES: given()
  // The parties to check: issuers (default: the realm's, with JWKS_FILE any), audiences, client id.
  VerifierOptions PartyOptions() const;
};

// Declares KEYCLOAK_URL, KEYCLOAK_REALM, KEYCLOAK_CLIENT_ID, JWKS_FILE, JWT_ISSUER and JWT_AUDIENCE in the current
// section, and the rule that JWKS_FILE can be read. That there is a source of keys is the program's own rule.
void DeclareTokenSettings(ConfigReader& reader, TokenSettings& settings);

}  // namespace presence
