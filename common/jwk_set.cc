#include "common/jwk_set.h"

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/param_build.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <nlohmann/json.hpp>
#include <optional>
#include <tuple>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "common/base64url.h"
#include "common/strict_json.h"

namespace presence {
namespace {

using nlohmann::json;

constexpr int kDepthMax = 8;           // keys with x5c and the like are 3 deep
constexpr size_t kKidShownBytes = 64;  // of a skipped key
constexpr int kExponentBitsMax = 64;   // OpenSSL's own bound for large moduli

template <auto Free>
struct Freed {
  template <typename T>
  void operator()(T* object) const {
    Free(object);
  }
};
using Bignum = std::unique_ptr<BIGNUM, Freed<BN_free>>;
using ParamBuilder = std::unique_ptr<OSSL_PARAM_BLD, Freed<OSSL_PARAM_BLD_free>>;
using Params = std::unique_ptr<OSSL_PARAM, Freed<OSSL_PARAM_free>>;
using KeyContext = std::unique_ptr<EVP_PKEY_CTX, Freed<EVP_PKEY_CTX_free>>;
using PublicKey = std::unique_ptr<EVP_PKEY, VerificationKey::FreeKey>;

using Reason = std::string_view;  // why a key is skipped

// The member as a string; nullptr when absent or of another type.
const std::string* StringMember(const json& object, const char* name) {
  const auto it = object.find(name);
  return it == object.end() ? nullptr : it->get_ptr<const std::string*>();
}

std::optional<std::string> BytesMember(const json& object, const char* name) {
  const std::string* text = StringMember(object, name);
  if (text == nullptr || text->empty()) return std::nullopt;
  return Base64UrlDecode(*text);
}

Bignum ToBignum(const std::string& bytes) {
  return Bignum(
      BN_bin2bn(reinterpret_cast<const unsigned char*>(bytes.data()), static_cast<int>(bytes.size()), nullptr));
}

// nullptr when OpenSSL refuses the values, such as a point that is not on the curve.
PublicKey BuildKey(const char* type, OSSL_PARAM_BLD* builder) {
  const Params params(OSSL_PARAM_BLD_to_param(builder));
  const KeyContext context(EVP_PKEY_CTX_new_from_name(nullptr, type, nullptr));
  EVP_PKEY* key = nullptr;
  if (params == nullptr || context == nullptr || EVP_PKEY_fromdata_init(context.get()) != 1 ||
      EVP_PKEY_fromdata(context.get(), &key, EVP_PKEY_PUBLIC_KEY, params.get()) != 1) {
    ERR_clear_error();  // the queue is the thread's, and TLS would find it there
    return nullptr;
  }
  return PublicKey(key);
}

struct BuiltKey {
  PublicKey key;
  KeyKind kind = KeyKind::kRsa;
};
using KeyOrReason = std::variant<BuiltKey, Reason>;

KeyOrReason RsaKey(const json& jwk) {
  const auto modulus_bytes = BytesMember(jwk, "n");
  const auto exponent_bytes = BytesMember(jwk, "e");
  if (!modulus_bytes || !exponent_bytes) return Reason("RSA key without a well-formed n and e");
  const Bignum modulus = ToBignum(*modulus_bytes);
  const Bignum exponent = ToBignum(*exponent_bytes);
  if (modulus == nullptr || exponent == nullptr) return Reason("out of memory");
  const int bits = BN_num_bits(modulus.get());
  if (bits < JwkSet::kRsaBitsMin) return Reason("RSA key below 2048 bits");
  if (bits > JwkSet::kRsaBitsMax) return Reason("RSA key above 8192 bits");
  if (!BN_is_odd(modulus.get())) return Reason("RSA modulus is even");
  if (!BN_is_odd(exponent.get()) || BN_is_one(exponent.get()) || BN_num_bits(exponent.get()) > kExponentBitsMax) {
    return Reason("RSA exponent is not an odd number from 3 to 64 bits");
  }
  const ParamBuilder builder(OSSL_PARAM_BLD_new());
  if (builder == nullptr || OSSL_PARAM_BLD_push_BN(builder.get(), OSSL_PKEY_PARAM_RSA_N, modulus.get()) != 1 ||
      OSSL_PARAM_BLD_push_BN(builder.get(), OSSL_PKEY_PARAM_RSA_E, exponent.get()) != 1) {
    return Reason("out of memory");
  }
  PublicKey key = BuildKey("RSA", builder.get());
  if (key == nullptr) return Reason("OpenSSL refuses the RSA key");
  return BuiltKey{std::move(key), KeyKind::kRsa};
}

// As a JWK calls it, as OpenSSL calls it, and the size of a coordinate (EC) or of the whole key (OKP).
struct Curve {
  std::string_view name;
  const char* group;
  KeyKind kind;
  size_t bytes;
};

// RFC 7518, section 6.2.1.1.
constexpr std::array kEcCurves = {Curve{"P-256", "prime256v1", KeyKind::kP256, 32},
                                  Curve{"P-384", "secp384r1", KeyKind::kP384, 48}};
// RFC 8037, section 2; X25519 and X448 sign nothing.
constexpr std::array kEdwardsCurves = {Curve{"Ed25519", "ED25519", KeyKind::kEd25519, 32},
                                       Curve{"Ed448", "ED448", KeyKind::kEd448, 57}};

template <size_t kCount>
const Curve* CurveIn(const std::array<Curve, kCount>& curves, const json& jwk) {
  const std::string* name = StringMember(jwk, "crv");
  if (name == nullptr) return nullptr;
  const auto found = std::find_if(curves.begin(), curves.end(), [&](const Curve& one) { return one.name == *name; });
  return found == curves.end() ? nullptr : &*found;
}

KeyOrReason EcKey(const json& jwk) {
  const Curve* curve = CurveIn(kEcCurves, jwk);
  if (curve == nullptr) return Reason("unsupported curve");
  const auto x = BytesMember(jwk, "x");
  const auto y = BytesMember(jwk, "y");
  if (!x || !y || x->size() != curve->bytes || y->size() != curve->bytes) {
    return Reason("EC key without a well-formed x and y");
  }
  const std::string point = "\x04" + *x + *y;  // uncompressed (SEC 1, section 2.3.3)
  const ParamBuilder builder(OSSL_PARAM_BLD_new());
  if (builder == nullptr ||
      OSSL_PARAM_BLD_push_utf8_string(builder.get(), OSSL_PKEY_PARAM_GROUP_NAME, curve->group, 0) != 1 ||
      OSSL_PARAM_BLD_push_octet_string(builder.get(), OSSL_PKEY_PARAM_PUB_KEY, point.data(), point.size()) != 1) {
    return Reason("out of memory");
  }
  PublicKey key = BuildKey("EC", builder.get());
  if (key == nullptr) return Reason("EC point is not on the curve");
  return BuiltKey{std::move(key), curve->kind};
}

KeyOrReason EdwardsKey(const json& jwk) {
  const Curve* curve = CurveIn(kEdwardsCurves, jwk);
  if (curve == nullptr) return Reason("unsupported curve");
  const auto x = BytesMember(jwk, "x");
  if (!x || x->size() != curve->bytes) return Reason("OKP key without a well-formed x");
  PublicKey key(EVP_PKEY_new_raw_public_key_ex(nullptr, curve->group, nullptr,
                                               reinterpret_cast<const unsigned char*>(x->data()), x->size()));
  if (key == nullptr) {
    ERR_clear_error();
    return Reason("OpenSSL refuses the OKP key");
  }
  return BuiltKey{std::move(key), curve->kind};
}

// Whether `use` and `key_ops` let the key verify signatures (RFC 7517, sections 4.2 and 4.3).
std::optional<Reason> ForbiddenUse(const json& jwk) {
  if (jwk.contains("use")) {
    const std::string* use = StringMember(jwk, "use");
    if (use == nullptr || *use != "sig") return Reason("not for signatures (use)");
  }
  if (const auto operations = jwk.find("key_ops"); operations != jwk.end()) {
    if (!operations->is_array() || std::find(operations->begin(), operations->end(), "verify") == operations->end()) {
      return Reason("not for verifying (key_ops)");
    }
  }
  if (jwk.contains("d")) return Reason("holds a private key, which must not be here");
  return std::nullopt;
}

std::variant<VerificationKey, Reason> ToKey(const json& jwk) {
  VerificationKey result;
  if (jwk.contains("kid")) {
    const std::string* kid = StringMember(jwk, "kid");
    if (kid == nullptr || kid->empty() || kid->size() > JwkSet::kKidBytesMax) return Reason("kid is malformed");
    result.kid = *kid;
  }
  const std::string* type = StringMember(jwk, "kty");
  if (type == nullptr) return Reason("no kty");
  if (*type != "RSA" && *type != "EC" && *type != "OKP") return Reason("unsupported kty");
  if (const auto forbidden = ForbiddenUse(jwk)) return *forbidden;
  KeyOrReason built = *type == "RSA" ? RsaKey(jwk) : *type == "EC" ? EcKey(jwk) : EdwardsKey(jwk);
  if (const Reason* reason = std::get_if<Reason>(&built)) return *reason;
  BuiltKey& key = std::get<BuiltKey>(built);
  result.algorithm = UsualAlgorithm(key.kind);
  if (jwk.contains("alg")) {
    const std::string* name = StringMember(jwk, "alg");
    const auto algorithm = name == nullptr ? std::nullopt : AlgorithmNamed(*name);
    if (!algorithm || !Fits(*algorithm, key.kind)) return Reason("unsupported alg");
    result.algorithm = *algorithm;
  }
  result.key = std::move(key.key);
  return result;
}

std::string ShownKid(const json& jwk) {
  const std::string* kid = jwk.is_object() ? StringMember(jwk, "kid") : nullptr;
  if (kid == nullptr) return "";
  std::string shown = kid->substr(0, kKidShownBytes);
  for (char& c : shown) {
    if (c < 0x20 || c > 0x7e) c = '?';
  }
  return shown;
}

}  // namespace

void VerificationKey::FreeKey::operator()(evp_pkey_st* key) const {
  EVP_PKEY_free(key);
}

absl::StatusOr<JwkSet> JwkSet::Parse(std::string_view text) {
  if (text.size() > kDocumentBytesMax) return absl::InvalidArgumentError("JWK set: longer than 256 KiB");
  const absl::StatusOr<json> document = ParseJsonObject(text, kDepthMax);
  if (!document.ok()) return absl::InvalidArgumentError(absl::StrCat("JWK set: ", document.status().message()));
  const auto keys = document->find("keys");
  if (keys == document->end() || !keys->is_array()) return absl::InvalidArgumentError("JWK set: no array \"keys\"");
  if (keys->size() > kKeysMax) return absl::InvalidArgumentError("JWK set: more than 100 keys");

  static std::atomic<uint64_t> sets_parsed{0};
  JwkSet set;
  set.id_ = sets_parsed.fetch_add(1, std::memory_order_relaxed) + 1;
  for (const json& jwk : *keys) {
    std::variant<VerificationKey, Reason> parsed = Reason("not an object");
    if (jwk.is_object()) parsed = ToKey(jwk);
    if (auto* key = std::get_if<VerificationKey>(&parsed)) {
      const auto same = [&](const VerificationKey& other) {
        return !key->kid.empty() && other.kid == key->kid && other.algorithm == key->algorithm;
      };
      if (std::none_of(set.keys_.begin(), set.keys_.end(), same)) {
        set.keys_.push_back(std::move(*key));
        continue;
      }
      parsed = Reason("an earlier key has the same kid and alg");
    }
    set.skipped_.push_back({ShownKid(jwk), std::get<Reason>(parsed)});
  }
  std::stable_sort(set.keys_.begin(), set.keys_.end(), [](const VerificationKey& a, const VerificationKey& b) {
    return std::tie(a.kid, a.algorithm) < std::tie(b.kid, b.algorithm);
  });
  return set;
}

absl::Span<const VerificationKey> JwkSet::Find(std::string_view kid) const {
  if (kid.empty()) return {};
  const auto first = std::lower_bound(keys_.begin(), keys_.end(), kid,
                                      [](const VerificationKey& key, std::string_view id) { return key.kid < id; });
  auto last = first;
  while (last != keys_.end() && last->kid == kid) ++last;
  return absl::MakeConstSpan(keys_).subspan(static_cast<size_t>(first - keys_.begin()),
                                            static_cast<size_t>(last - first));
}

}  // namespace presence
