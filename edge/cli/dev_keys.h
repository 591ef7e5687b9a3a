// Development keys and the tokens that are signed with them. Never for production: there Keycloak signs.
//
// Reads and writes files; otherwise pure.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/time.h"
#include "edge/cli/options.h"

namespace presence::edge::cli {

constexpr const char* kPrivateKeyFile = "private.pem";
constexpr const char* kJwksFile = "jwks.json";

struct KeyFiles {
  std::string private_key;
  std::string jwks;
};

// Makes `directory` when it is missing, an RSA key pair, and the two files: the private key, readable by its owner alone, and the
// set for JWKS_FILE. ALREADY_EXISTS when there is a key: who has tokens would lose them.
absl::StatusOr<KeyFiles> CreateKeys(const std::string& directory);

// Where the private key is: --key or PRESENCE_DEV_KEY, else build/dev-keys/private.pem below the current folder or one above it,
// or beside the build folder of the program itself. NOT_FOUND: nowhere; the message says how to make one.
absl::StatusOr<std::string> FindKey(const Options& options, const std::string& program_path);

// A token for options.user. NOT_FOUND, INVALID_ARGUMENT: no key in that file.
absl::StatusOr<std::string> SignDevelopmentToken(const Options& options, const std::string& key_path, WallTime now);

}  // namespace presence::edge::cli
