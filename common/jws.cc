#include "common/jws.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/rsa.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "common/base64url.h"
#include "common/jwt.h"
#include "common/strict_json.h"

namespace presence {
namespace {

using nlohmann::json;

constexpr int kHeaderDepthMax = 8;

bool EqualIgnoringCase(std::string_view a, std::string_view b) {
  return absl::EqualsIgnoreCase(absl::string_view(a.data(), a.size()), absl::string_view(b.data(), b.size()));
}

struct Segments {
  std::string_view header, payload, signature;
  std::string_view signed_part;  // header.payload
};

// nullopt unless there are exactly three, none of them empty.
std::optional<Segments> Split(std::string_view token) {
  const size_t first = token.find('.');
  if (first == std::string_view::npos) return std::nullopt;
  const size_t second = token.find('.', first + 1);
  if (second == std::string_view::npos) return std::nullopt;
  Segments parts{token.substr(0, first), token.substr(first + 1, second - first - 1), token.substr(second + 1),
                 token.substr(0, second)};
  // Further dots are not in the alphabet of the signature.
  if (parts.header.empty() || parts.payload.empty() || parts.signature.empty()) return std::nullopt;
  return parts;
}

bool OneOfTypes(const json& type, absl::Span<const std::string_view> types) {
  const auto* text = type.get_ptr<const std::string*>();
  if (text == nullptr) return false;
  std::string_view name = *text;
  constexpr std::string_view kPrefix = "application/";
  if (EqualIgnoringCase(name.substr(0, kPrefix.size()), kPrefix)) name.remove_prefix(kPrefix.size());
  return std::any_of(types.begin(), types.end(), [name](std::string_view one) { return EqualIgnoringCase(name, one); });
}

std::variant<const VerificationKey*, Rejection> SelectKey(const json& header, const JwkSet& keys,
                                                          absl::Span<const std::string_view> types) {
  if (header.contains("crit")) return Invalid("header has crit");
  if (const auto type = header.find("typ"); type != header.end() && !OneOfTypes(*type, types)) {
    return Invalid("header typ is not of this kind of token");
  }
  const auto named = header.find("alg");
  const auto* name = named == header.end() ? nullptr : named->get_ptr<const std::string*>();
  const std::optional<SignatureAlgorithm> algorithm = name == nullptr ? std::nullopt : AlgorithmNamed(*name);
  if (!algorithm) return Invalid("header alg is not supported");
  const auto fits = [&](const VerificationKey& key) { return key.algorithm == *algorithm; };

  const auto id = header.find("kid");
  if (id == header.end()) {
    const VerificationKey* only = keys.Only();
    if (only == nullptr) return Invalid("header has no kid");
    if (!fits(*only)) return Invalid("header alg is not the key's");
    return only;
  }
  const auto* kid = id->get_ptr<const std::string*>();
  if (kid == nullptr || kid->empty() || kid->size() > JwkSet::kKidBytesMax) return Invalid("header kid is malformed");
  const auto candidates = keys.Find(*kid);
  if (candidates.empty()) return Rejection{TokenFault::kUnknownKey, "no key has this kid", *kid};
  const auto key = std::find_if(candidates.begin(), candidates.end(), fits);
  if (key == candidates.end()) return Invalid("header alg is not the key's");
  return &*key;
}

// ECDSA signatures are r and s side by side; OpenSSL wants SEQUENCE { INTEGER r, INTEGER s } in DER.
class DerSignature {
 public:
  explicit DerSignature(std::string_view raw) {
    AppendNumber(raw.substr(0, raw.size() / 2));
    AppendNumber(raw.substr(raw.size() / 2));
    bytes_[1] = static_cast<unsigned char>(size_ - 2);
  }
  const unsigned char* data() const { return bytes_.data(); }
  size_t size() const { return size_; }

 private:
  void AppendNumber(std::string_view number) {
    while (number.size() > 1 && number.front() == '\0') number.remove_prefix(1);
    const bool high_bit = (static_cast<unsigned char>(number.front()) & 0x80) != 0;  // would read as negative
    bytes_[size_++] = 0x02;
    bytes_[size_++] = static_cast<unsigned char>(number.size() + (high_bit ? 1 : 0));
    if (high_bit) bytes_[size_++] = 0;
    std::memcpy(&bytes_[size_], number.data(), number.size());
    size_ += number.size();
  }

  std::array<unsigned char, 2 + 2 * (2 + 1 + kEcdsaNumberBytesMax)> bytes_{0x30};
  size_t size_ = 2;
  static_assert(2 * (2 + 1 + kEcdsaNumberBytesMax) < 0x80, "the length is written in one byte");
};

// Fetched once each: looking them up by name takes a lock each time. They live as long as the process. nullptr: the
// algorithm has a digest of its own.
const EVP_MD* DigestOf(SignatureAlgorithm algorithm) {
  static const auto digests = [] {
    std::array<const EVP_MD*, kSignatureAlgorithms.size()> fetched{};
    for (const SignatureAlgorithm one : kSignatureAlgorithms) {
      const char* name = DigestName(one);
      if (name != nullptr) fetched[static_cast<size_t>(one)] = EVP_MD_fetch(nullptr, name, nullptr);
    }
    return fetched;
  }();
  return digests[static_cast<size_t>(algorithm)];
}

bool DigestVerify(const VerificationKey& key, std::string_view message, const unsigned char* signature,
                  size_t signature_bytes) {
  struct FreeContext {
    void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
  };
  const std::unique_ptr<EVP_MD_CTX, FreeContext> context(EVP_MD_CTX_new());
  EVP_PKEY_CTX* padding = nullptr;  // belongs to `context`
  bool good = context != nullptr &&
              EVP_DigestVerifyInit(context.get(), &padding, DigestOf(key.algorithm), nullptr, key.key.get()) == 1;
  // RFC 7518, section 3.5: the salt is as long as the digest. PKCS #1 v1.5 is what OpenSSL does unless told otherwise.
  if (good && UsesPss(key.algorithm)) {
    good = EVP_PKEY_CTX_set_rsa_padding(padding, RSA_PKCS1_PSS_PADDING) == 1 &&
           EVP_PKEY_CTX_set_rsa_pss_saltlen(padding, RSA_PSS_SALTLEN_DIGEST) == 1;
  }
  good = good && EVP_DigestVerify(context.get(), signature, signature_bytes,
                                  reinterpret_cast<const unsigned char*>(message.data()), message.size()) == 1;
  if (!good) ERR_clear_error();  // the queue is the thread's, and TLS would find it there
  return good;
}

}  // namespace

bool SignatureGood(const VerificationKey& key, std::string_view message, std::string_view signature) {
  if (const size_t number_bytes = EcdsaNumberBytes(key.algorithm); number_bytes != 0) {
    if (signature.size() != 2 * number_bytes) return false;
    const DerSignature der(signature);
    return DigestVerify(key, message, der.data(), der.size());
  }
  return DigestVerify(key, message, reinterpret_cast<const unsigned char*>(signature.data()), signature.size());
}

std::variant<json, Rejection> VerifyJws(std::string_view token, const JwkSet& keys,
                                        absl::Span<const std::string_view> types) {
  if (token.empty()) return Rejection{TokenFault::kMissing, "no token"};
  if (token.size() > kJwsBytesMax) return Invalid("longer than 8 KiB");
  const std::optional<Segments> parts = Split(token);
  if (!parts) return Invalid("not three parts");
  const std::optional<std::string> header_text = Base64UrlDecode(parts->header);
  const std::optional<std::string> signature = Base64UrlDecode(parts->signature);
  if (!header_text || !signature) return Invalid("not base64url");

  const absl::StatusOr<json> header = ParseJsonObject(*header_text, kHeaderDepthMax);
  if (!header.ok()) return Invalid("header is not a plain JSON object");
  const auto selected = SelectKey(*header, keys, types);
  if (const auto* rejection = std::get_if<Rejection>(&selected)) return *rejection;
  const VerificationKey& key = *std::get<const VerificationKey*>(selected);
  if (!SignatureGood(key, parts->signed_part, *signature)) return Invalid("signature is wrong");

  absl::StatusOr<json> claims = DecodeClaims(parts->payload);
  if (!claims.ok()) return Invalid("claims are not a plain JSON object");
  return *std::move(claims);
}

}  // namespace presence
