#include "common/signature_algorithm.h"

#include <algorithm>

#include "common/check.h"

namespace presence {
namespace {

enum class Family : uint8_t { kPkcs1, kPss, kEcdsa, kEdDsa };

struct Description {
  SignatureAlgorithm algorithm;
  std::string_view name;
  Family family;
  const char* digest;
  size_t number_bytes;
};

constexpr std::array kDescriptions = {
    Description{SignatureAlgorithm::kRs256, "RS256", Family::kPkcs1, "SHA256", 0},
    Description{SignatureAlgorithm::kRs384, "RS384", Family::kPkcs1, "SHA384", 0},
    Description{SignatureAlgorithm::kRs512, "RS512", Family::kPkcs1, "SHA512", 0},
    Description{SignatureAlgorithm::kPs256, "PS256", Family::kPss, "SHA256", 0},
    Description{SignatureAlgorithm::kPs384, "PS384", Family::kPss, "SHA384", 0},
    Description{SignatureAlgorithm::kPs512, "PS512", Family::kPss, "SHA512", 0},
    Description{SignatureAlgorithm::kEs256, "ES256", Family::kEcdsa, "SHA256", 32},
    Description{SignatureAlgorithm::kEs384, "ES384", Family::kEcdsa, "SHA384", 48},
    Description{SignatureAlgorithm::kEdDsa, "EdDSA", Family::kEdDsa, nullptr, 0},
};
static_assert(kDescriptions.size() == kSignatureAlgorithms.size());

const Description& Of(SignatureAlgorithm algorithm) {
  const auto index = static_cast<size_t>(algorithm);
  PRESENCE_CHECK(index < kDescriptions.size() && kDescriptions[index].algorithm == algorithm,
                 "every algorithm is described, in order");
  return kDescriptions[index];
}

}  // namespace

std::string_view AlgorithmName(SignatureAlgorithm algorithm) {
  return Of(algorithm).name;
}

std::optional<SignatureAlgorithm> AlgorithmNamed(std::string_view name) {
  const auto found = std::find_if(kDescriptions.begin(), kDescriptions.end(),
                                  [name](const Description& one) { return one.name == name; });
  if (found == kDescriptions.end()) return std::nullopt;
  return found->algorithm;
}

bool Fits(SignatureAlgorithm algorithm, KeyKind kind) {
  switch (kind) {
    case KeyKind::kRsa:
      return Of(algorithm).family == Family::kPkcs1 || Of(algorithm).family == Family::kPss;
    case KeyKind::kP256:
      return algorithm == SignatureAlgorithm::kEs256;
    case KeyKind::kP384:
      return algorithm == SignatureAlgorithm::kEs384;
    case KeyKind::kEd25519:
    case KeyKind::kEd448:
      break;
  }
  return algorithm == SignatureAlgorithm::kEdDsa;
}

SignatureAlgorithm UsualAlgorithm(KeyKind kind) {
  switch (kind) {
    case KeyKind::kRsa:
      return SignatureAlgorithm::kRs256;
    case KeyKind::kP256:
      return SignatureAlgorithm::kEs256;
    case KeyKind::kP384:
      return SignatureAlgorithm::kEs384;
    case KeyKind::kEd25519:
    case KeyKind::kEd448:
      break;
  }
  return SignatureAlgorithm::kEdDsa;
}

const char* DigestName(SignatureAlgorithm algorithm) {
  return Of(algorithm).digest;
}

bool UsesPss(SignatureAlgorithm algorithm) {
  return Of(algorithm).family == Family::kPss;
}

size_t EcdsaNumberBytes(SignatureAlgorithm algorithm) {
  return Of(algorithm).number_bytes;
}

}  // namespace presence
