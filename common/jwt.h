// The two things that cpp-jwt is trusted with: signing tokens for development and tests, and decoding the
// claims of a token whose signature has been verified. Beside them, the keys that such signing needs, made
// with OpenSSL.
//
// Pure functions; thread-safe. jwt.cc is the only file that includes cpp-jwt, and its exceptions end there.
//
// Does not verify anything: that is token_verifier.h, which relies on OpenSSL alone.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "common/jwk_set.h"

namespace presence {

// What a key is called and used for; the private half is PEM (PKCS #8).
struct SigningKey {
  std::string private_pem;
  std::string kid;  // empty: tokens and sets name none
  SignatureAlgorithm algorithm = SignatureAlgorithm::kRs256;
};

// RSA with 2048 bits, EC on the algorithm's curve, or Ed25519, freshly made; milliseconds to a second. INTERNAL when
// OpenSSL fails.
absl::StatusOr<SigningKey> GenerateSigningKey(SignatureAlgorithm algorithm, std::string_view kid);

// The JWK of the public half, with kty, use, alg, and kid unless it is empty. INVALID_ARGUMENT: not a private
// or public key in PEM, or one that does not fit the algorithm.
absl::StatusOr<std::string> PublicJwk(const SigningKey& key);

// {"keys":[...]} of these, ready for JWKS_FILE or a test's HTTP server.
absl::StatusOr<std::string> PublicJwkSet(absl::Span<const SigningKey> keys);

// header.claims.signature in compact form. `claims` is an object. INVALID_ARGUMENT: claims or key are unfit. UNIMPLEMENTED:
// cpp-jwt knows neither PS256, PS384, PS512 nor EdDSA.
absl::StatusOr<std::string> SignToken(const nlohmann::json& claims, const SigningKey& key);

// The claims in the middle part of a token. REQUIRES: the signature over `payload_segment` has been verified;
// its alphabet is base64url. INVALID_ARGUMENT, with constant text: not base64url, or not what CheckJsonObject
// (strict_json.h) accepts with a depth of kClaimsDepthMax.
constexpr int kClaimsDepthMax = 16;  // Keycloak's resource_access is 4 deep
absl::StatusOr<nlohmann::json> DecodeClaims(std::string_view payload_segment);

}  // namespace presence
