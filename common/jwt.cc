#include "common/jwt.h"

#include <openssl/bio.h>
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>

#include <array>
#include <exception>
#include <jwt/jwt.hpp>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <system_error>
#include <utility>

#include "common/base64url.h"
#include "common/strict_json.h"

namespace presence {
namespace {

using nlohmann::json;

constexpr int kRsaBits = 2048;

struct FreeBio {
  void operator()(BIO* bio) const { BIO_free_all(bio); }
};
struct FreeBignum {
  void operator()(BIGNUM* number) const { BN_free(number); }
};
using Bio = std::unique_ptr<BIO, FreeBio>;
using AnyKey = std::unique_ptr<EVP_PKEY, VerificationKey::FreeKey>;

// Without it OpenSSL asks the terminal for the pass phrase of an encrypted key.
int NoPassPhrase(char*, int, int, void*) {
  return -1;
}

std::optional<KeyKind> KindOf(const EVP_PKEY* key) {
  if (EVP_PKEY_is_a(key, "RSA") == 1) return KeyKind::kRsa;
  if (EVP_PKEY_is_a(key, "ED25519") == 1) return KeyKind::kEd25519;
  if (EVP_PKEY_is_a(key, "ED448") == 1) return KeyKind::kEd448;
  char name[64] = "";
  size_t name_bytes = 0;
  if (EVP_PKEY_is_a(key, "EC") != 1 || EVP_PKEY_get_group_name(key, name, sizeof(name), &name_bytes) != 1) {
    return std::nullopt;
  }
  const std::string_view group = name;
  if (group == "prime256v1") return KeyKind::kP256;
  if (group == "secp384r1") return KeyKind::kP384;
  return std::nullopt;
}

// The key of a PEM text, private or (if allowed) public, when it fits the algorithm; else nullptr.
AnyKey LoadKey(const SigningKey& signing, bool public_will_do) {
  const auto open = [&] {
    return Bio(BIO_new_mem_buf(signing.private_pem.data(), static_cast<int>(signing.private_pem.size())));
  };
  AnyKey key(PEM_read_bio_PrivateKey(open().get(), nullptr, NoPassPhrase, nullptr));
  if (key == nullptr && public_will_do) {
    key.reset(PEM_read_bio_PUBKEY(open().get(), nullptr, NoPassPhrase, nullptr));
  }
  ERR_clear_error();
  if (key == nullptr) return nullptr;
  const auto kind = KindOf(key.get());
  return kind && Fits(signing.algorithm, *kind) ? std::move(key) : nullptr;
}

// A number of the key, big-endian, at least `bytes_min` long.
std::string NumberOf(const EVP_PKEY* key, const char* parameter, int bytes_min) {
  BIGNUM* raw = nullptr;
  if (EVP_PKEY_get_bn_param(key, parameter, &raw) != 1) return "";
  const std::unique_ptr<BIGNUM, FreeBignum> number(raw);
  std::string bytes(static_cast<size_t>(std::max(bytes_min, BN_num_bytes(number.get()))), '\0');
  BN_bn2binpad(number.get(), reinterpret_cast<unsigned char*>(bytes.data()), static_cast<int>(bytes.size()));
  return bytes;
}

void WriteRsa(const EVP_PKEY* key, json& jwk) {
  jwk["kty"] = "RSA";
  jwk["n"] = Base64UrlEncode(NumberOf(key, OSSL_PKEY_PARAM_RSA_N, 1));
  jwk["e"] = Base64UrlEncode(NumberOf(key, OSSL_PKEY_PARAM_RSA_E, 1));
}

void WriteEc(const EVP_PKEY* key, const char* curve, int coordinate_bytes, json& jwk) {
  jwk["kty"] = "EC";
  jwk["crv"] = curve;
  jwk["x"] = Base64UrlEncode(NumberOf(key, OSSL_PKEY_PARAM_EC_PUB_X, coordinate_bytes));
  jwk["y"] = Base64UrlEncode(NumberOf(key, OSSL_PKEY_PARAM_EC_PUB_Y, coordinate_bytes));
}

void WriteEdwards(const EVP_PKEY* key, const char* curve, json& jwk) {
  std::array<unsigned char, 64> bytes{};
  size_t size = bytes.size();
  if (EVP_PKEY_get_raw_public_key(key, bytes.data(), &size) != 1) size = 0;
  jwk["kty"] = "OKP";
  jwk["crv"] = curve;
  jwk["x"] = Base64UrlEncode(std::string_view(reinterpret_cast<const char*>(bytes.data()), size));
}

absl::StatusOr<json> PublicJwkTree(const SigningKey& signing) {
  const AnyKey key = LoadKey(signing, /*public_will_do=*/true);
  if (key == nullptr) return absl::InvalidArgumentError("not a PEM key that fits the algorithm");
  json jwk = {{"use", "sig"}, {"alg", AlgorithmName(signing.algorithm)}};
  if (!signing.kid.empty()) jwk["kid"] = signing.kid;
  switch (*KindOf(key.get())) {
    case KeyKind::kRsa:
      WriteRsa(key.get(), jwk);
      break;
    case KeyKind::kP256:
      WriteEc(key.get(), "P-256", 32, jwk);
      break;
    case KeyKind::kP384:
      WriteEc(key.get(), "P-384", 48, jwk);
      break;
    case KeyKind::kEd25519:
      WriteEdwards(key.get(), "Ed25519", jwk);
      break;
    case KeyKind::kEd448:
      WriteEdwards(key.get(), "Ed448", jwk);
      break;
  }
  return jwk;
}

EVP_PKEY* NewKeyFor(SignatureAlgorithm algorithm) {
  if (Fits(algorithm, KeyKind::kRsa)) return EVP_RSA_gen(kRsaBits);
  if (Fits(algorithm, KeyKind::kP256)) return EVP_EC_gen("P-256");
  if (Fits(algorithm, KeyKind::kP384)) return EVP_EC_gen("P-384");
  return EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519");
}

// What it does, beside HMAC.
bool CppJwtSigns(SignatureAlgorithm algorithm) {
  return algorithm != SignatureAlgorithm::kEdDsa && !UsesPss(algorithm);
}

// Text of the tree, unless a string in it is not UTF-8.
std::optional<std::string> Dump(const json& tree) {
  try {
    return tree.dump();
  } catch (const json::exception&) {
    return std::nullopt;
  }
}

}  // namespace

absl::StatusOr<SigningKey> GenerateSigningKey(SignatureAlgorithm algorithm, std::string_view kid) {
  const AnyKey key(NewKeyFor(algorithm));
  const Bio out(BIO_new(BIO_s_mem()));
  if (key == nullptr || out == nullptr ||
      PEM_write_bio_PrivateKey(out.get(), key.get(), nullptr, nullptr, 0, nullptr, nullptr) != 1) {
    ERR_clear_error();
    return absl::InternalError("OpenSSL did not make a key");
  }
  char* text = nullptr;
  const long text_bytes = BIO_get_mem_data(out.get(), &text);
  return SigningKey{std::string(text, static_cast<size_t>(text_bytes)), std::string(kid), algorithm};
}

absl::StatusOr<std::string> PublicJwk(const SigningKey& key) {
  const absl::StatusOr<json> jwk = PublicJwkTree(key);
  if (!jwk.ok()) return jwk.status();
  std::optional<std::string> text = Dump(*jwk);
  if (!text) return absl::InvalidArgumentError("kid is not UTF-8");
  return *std::move(text);
}

absl::StatusOr<std::string> PublicJwkSet(absl::Span<const SigningKey> keys) {
  std::string text = R"({"keys":[)";
  for (const SigningKey& key : keys) {
    const absl::StatusOr<std::string> jwk = PublicJwk(key);
    if (!jwk.ok()) return jwk.status();
    if (text.back() != '[') text += ',';
    text += *jwk;
  }
  return text + "]}";
}

absl::StatusOr<std::string> SignToken(const json& claims, const SigningKey& key) {
  if (!claims.is_object()) return absl::InvalidArgumentError("claims are not an object");
  if (!CppJwtSigns(key.algorithm)) return absl::UnimplementedError("cpp-jwt does not sign with this algorithm");
  // Checked here, because cpp-jwt looks neither at the curve nor out for a pass phrase.
  if (LoadKey(key, /*public_will_do=*/false) == nullptr) {
    return absl::InvalidArgumentError("not a private PEM key that fits the algorithm");
  }
  try {
    jwt::jwt_object token{jwt::params::algorithm(AlgorithmName(key.algorithm)), jwt::params::secret(key.private_pem)};
    if (!key.kid.empty()) token.header().add_header("kid", key.kid);
    token.payload(jwt::jwt_payload(Base64UrlEncode(claims.dump())));
    std::error_code error;
    std::string signed_token = token.signature(error);
    if (error) return absl::InvalidArgumentError("cpp-jwt does not sign with this key");
    return signed_token;
  } catch (const std::exception&) {
    return absl::InvalidArgumentError("claims or kid are not UTF-8");
  }
}

absl::StatusOr<json> DecodeClaims(std::string_view payload_segment) {
  const std::optional<std::string> text = Base64UrlDecode(payload_segment);
  if (!text) return absl::InvalidArgumentError("not base64url");
  // First, because cpp-jwt bounds no depth, takes the last of two members, and stops reading at a NUL.
  if (absl::Status checked = CheckJsonObject(*text, kClaimsDepthMax); !checked.ok()) return checked;
  try {
    return jwt::jwt_payload(payload_segment).create_json_obj();
  } catch (const std::exception&) {
    return absl::InvalidArgumentError("not JSON");
  }
}

}  // namespace presence
