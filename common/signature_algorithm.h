// The signature algorithms that tokens may be signed with, and the keys that each of them takes (RFC 7518, section 3.1; RFC 8037).
//
// Pure functions; thread-safe. A key has one algorithm, fixed when its set is parsed; a token never chooses.
//
// Does not do: HMAC and `none` (whoever verifies could sign), ES256K, P-521, the names of RFC 9864 (Keycloak writes EdDSA).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace presence {

enum class SignatureAlgorithm : uint8_t { kRs256, kRs384, kRs512, kPs256, kPs384, kPs512, kEs256, kEs384, kEdDsa };

inline constexpr std::array kSignatureAlgorithms = {
    SignatureAlgorithm::kRs256, SignatureAlgorithm::kRs384, SignatureAlgorithm::kRs512,
    SignatureAlgorithm::kPs256, SignatureAlgorithm::kPs384, SignatureAlgorithm::kPs512,
    SignatureAlgorithm::kEs256, SignatureAlgorithm::kEs384, SignatureAlgorithm::kEdDsa};

// What a public key is: its type, and its curve where there is one.
enum class KeyKind : uint8_t { kRsa, kP256, kP384, kEd25519, kEd448 };

// "RS256" and so on, as in the `alg` of a header or a key: case matters.
std::string_view AlgorithmName(SignatureAlgorithm algorithm);
std::optional<SignatureAlgorithm> AlgorithmNamed(std::string_view name);

// Whether keys of that kind sign so: ES256 is P-256's alone (RFC 7518, section 3.4).
bool Fits(SignatureAlgorithm algorithm, KeyKind kind);
// The algorithm of a key that names none.
SignatureAlgorithm UsualAlgorithm(KeyKind kind);

// Of the digest, as OpenSSL calls it; nullptr for EdDSA, which has one of its own.
const char* DigestName(SignatureAlgorithm algorithm);
bool UsesPss(SignatureAlgorithm algorithm);
// Of each of the two numbers that an ECDSA signature is; 0 for what is not ECDSA.
constexpr size_t kEcdsaNumberBytesMax = 48;
size_t EcdsaNumberBytes(SignatureAlgorithm algorithm);

}  // namespace presence
