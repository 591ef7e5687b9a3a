#include "common/token_verifier.h"

#include <openssl/err.h>
#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <memory>
#include <nlohmann/json.hpp>
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
constexpr size_t kP256NumberBytes = 32;         // r and s of an ES256 signature (RFC 7518, section 3.4)
constexpr double kNumericDateMax = 7258118400;  // the year 2200; WallTime ends in 2262

Rejection Invalid(std::string_view why) {
  return {TokenFault::kInvalid, why};
}

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

// RFC 7519, section 5.1, and RFC 9068, section 2.1. Other types are other things: logout+jwt, dpop+jwt, ...
bool AccessTokenType(const json& type) {
  const auto* text = type.get_ptr<const std::string*>();
  if (text == nullptr) return false;
  std::string_view name = *text;
  constexpr std::string_view kPrefix = "application/";
  if (EqualIgnoringCase(name.substr(0, kPrefix.size()), kPrefix)) name.remove_prefix(kPrefix.size());
  return EqualIgnoringCase(name, "JWT") || EqualIgnoringCase(name, "at+jwt");
}

std::variant<const VerificationKey*, Rejection> SelectKey(const json& header, const JwkSet& keys) {
  if (header.contains("crit")) return Invalid("header has crit");
  if (const auto type = header.find("typ"); type != header.end() && !AccessTokenType(*type)) {
    return Invalid("header typ is not an access token");
  }
  const auto named = header.find("alg");
  const auto* algorithm = named == header.end() ? nullptr : named->get_ptr<const std::string*>();
  if (algorithm == nullptr || (*algorithm != AlgorithmName(SignatureAlgorithm::kRs256) &&
                               *algorithm != AlgorithmName(SignatureAlgorithm::kEs256))) {
    return Invalid("header alg is not RS256 or ES256");
  }
  const auto fits = [&](const VerificationKey& key) { return AlgorithmName(key.algorithm) == *algorithm; };

  const auto id = header.find("kid");
  if (id == header.end()) {
    const VerificationKey* only = keys.Only();
    if (only == nullptr) return Invalid("header has no kid");
    if (!fits(*only)) return Invalid("header alg is not the key's");
    return only;
  }
  const auto* kid = id->get_ptr<const std::string*>();
  if (kid == nullptr || kid->empty()) return Invalid("header kid is malformed");
  const auto candidates = keys.Find(*kid);
  if (candidates.empty()) return Rejection{TokenFault::kUnknownKey, "no key has this kid"};
  const auto key = std::find_if(candidates.begin(), candidates.end(), fits);
  if (key == candidates.end()) return Invalid("header alg is not the key's");
  return &*key;
}

// ES256 signatures are r and s side by side; OpenSSL wants SEQUENCE { INTEGER r, INTEGER s } in DER.
class DerSignature {
 public:
  explicit DerSignature(std::string_view raw) {
    AppendNumber(raw.substr(0, kP256NumberBytes));
    AppendNumber(raw.substr(kP256NumberBytes));
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

  std::array<unsigned char, 2 + 2 * (2 + 1 + kP256NumberBytes)> bytes_{0x30};
  size_t size_ = 2;
};

bool DigestVerify(const VerificationKey& key, std::string_view message, const unsigned char* signature,
                  size_t signature_bytes) {
  struct FreeContext {
    void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
  };
  // Fetched once: looking it up by name takes a lock each time. Lives as long as the process.
  static EVP_MD* const sha256 = EVP_MD_fetch(nullptr, "SHA256", nullptr);
  const std::unique_ptr<EVP_MD_CTX, FreeContext> context(EVP_MD_CTX_new());
  const bool good = context != nullptr &&
                    EVP_DigestVerifyInit(context.get(), nullptr, sha256, nullptr, key.key.get()) == 1 &&
                    EVP_DigestVerify(context.get(), signature, signature_bytes,
                                     reinterpret_cast<const unsigned char*>(message.data()), message.size()) == 1;
  if (!good) ERR_clear_error();  // the queue is the thread's, and TLS would find it there
  return good;
}

bool SignatureGood(const VerificationKey& key, std::string_view message, std::string_view signature) {
  if (key.algorithm == SignatureAlgorithm::kEs256) {
    if (signature.size() != 2 * kP256NumberBytes) return false;
    const DerSignature der(signature);
    return DigestVerify(key, message, der.data(), der.size());
  }
  // PKCS #1 v1.5 is what OpenSSL does with an RSA key unless told otherwise.
  return DigestVerify(key, message, reinterpret_cast<const unsigned char*>(signature.data()), signature.size());
}

enum class DateClaim { kAbsent, kPresent, kMalformed };

// Seconds since 1970 (RFC 7519, section 2: NumericDate, fractions allowed); whole seconds are kept.
DateClaim ReadDate(const json& claims, const char* name, WallTime* date) {
  const auto it = claims.find(name);
  if (it == claims.end()) return DateClaim::kAbsent;
  if (!it->is_number()) return DateClaim::kMalformed;
  const double seconds = it->get<double>();
  if (!(seconds >= 0 && seconds <= kNumericDateMax)) return DateClaim::kMalformed;
  *date = WallTime(std::chrono::seconds(static_cast<int64_t>(seconds)));
  return DateClaim::kPresent;
}

std::optional<Rejection> CheckDates(const json& claims, WallTime now, std::chrono::seconds leeway, Identity* identity) {
  if (ReadDate(claims, "exp", &identity->expires_at) != DateClaim::kPresent) {
    return Invalid("exp is absent or malformed");
  }
  WallTime not_before, issued_at;
  const DateClaim nbf = ReadDate(claims, "nbf", &not_before);
  if (nbf == DateClaim::kMalformed) return Invalid("nbf is malformed");
  const DateClaim iat = ReadDate(claims, "iat", &issued_at);
  if (iat == DateClaim::kMalformed) return Invalid("iat is malformed");
  if (nbf == DateClaim::kPresent && not_before > now + leeway) return Invalid("nbf is in the future");
  if (iat == DateClaim::kPresent) {
    if (issued_at > now + leeway) return Invalid("iat is in the future");
    identity->issued_at = issued_at;
  }
  // Last of the dates, so that "expired" is said of a token that is otherwise timely.
  if (now >= identity->expires_at + leeway) return Rejection{TokenFault::kExpired, "exp has passed"};
  return std::nullopt;
}

bool OneOf(const std::vector<std::string>& accepted, const json& value) {
  const auto* text = value.get_ptr<const std::string*>();
  return text != nullptr && std::find(accepted.begin(), accepted.end(), *text) != accepted.end();
}

// `aud` is a string or an array of strings (RFC 7519, section 4.1.3).
bool AudienceIn(const json& claims, const std::vector<std::string>& accepted) {
  const auto audience = claims.find("aud");
  if (audience == claims.end()) return false;
  if (!audience->is_array()) return OneOf(accepted, *audience);
  return std::any_of(audience->begin(), audience->end(), [&](const json& one) { return OneOf(accepted, one); });
}

std::optional<Rejection> CheckParties(const json& claims, const VerifierOptions& options) {
  const auto member_in = [&](const char* name, const std::vector<std::string>& accepted) {
    const auto it = claims.find(name);
    return it != claims.end() && OneOf(accepted, *it);
  };
  if (!options.issuers.empty() && !member_in("iss", options.issuers)) return Invalid("iss is not accepted");
  if (!options.audiences.empty() && !AudienceIn(claims, options.audiences)) return Invalid("aud is not accepted");
  if (!options.client_ids.empty() && !member_in("azp", options.client_ids) && !AudienceIn(claims, options.client_ids)) {
    return Invalid("neither azp nor aud is accepted");
  }
  return std::nullopt;
}

// Keycloak says in the claim `typ` what a token is for, ID, Refresh or Logout among others, and signs them all with one key. A DPoP
// token is good only with a proof, which nobody asks for here.
std::optional<Rejection> CheckPurpose(const json& claims) {
  const auto purpose = claims.find("typ");
  if (purpose == claims.end()) return std::nullopt;
  if (!purpose->is_string()) return Invalid("typ is malformed");
  if (*purpose != "Bearer") return Invalid("typ is not an access token's");
  return std::nullopt;
}

bool ReadName(const json& claims, const char* claim, std::string* name) {
  const auto it = claims.find(claim);
  if (it == claims.end()) return false;
  const auto* text = it->get_ptr<const std::string*>();
  // That it is UTF-8 the JSON parser has seen to.
  if (text == nullptr || text->empty() || text->size() > TokenVerifier::kNameBytesMax ||
      text->find('\0') != std::string::npos) {
    return false;
  }
  *name = *text;
  return true;
}

// {"roles": ["a", "b"]}, or whatever else there may be.
bool ListsRole(const json& access, const std::string& role) {
  if (!access.is_object()) return false;
  const auto roles = access.find("roles");
  if (roles == access.end() || !roles->is_array()) return false;
  return std::any_of(roles->begin(), roles->end(), [&](const json& one) {
    const auto* name = one.get_ptr<const std::string*>();
    return name != nullptr && *name == role;
  });
}

std::vector<std::string> ReadRoles(const json& claims, const VerifierOptions& options) {
  std::vector<std::string> granted;
  if (options.roles.empty()) return granted;
  std::vector<const json*> lists;
  if (const auto realm = claims.find("realm_access"); realm != claims.end()) lists.push_back(&*realm);
  if (const auto clients = claims.find("resource_access"); clients != claims.end() && clients->is_object()) {
    for (const std::string& name : options.role_clients) {
      if (const auto client = clients->find(name); client != clients->end()) lists.push_back(&*client);
    }
  }
  for (const std::string& role : options.roles) {
    const auto grants = [&role](const json* list) { return ListsRole(*list, role); };
    if (std::any_of(lists.begin(), lists.end(), grants)) granted.push_back(role);
  }
  return granted;
}

}  // namespace

TokenVerifier::TokenVerifier(VerifierOptions options) : options_(std::move(options)) {}

TokenVerdict TokenVerifier::Verify(std::string_view token, const JwkSet& keys, WallTime now) const {
  if (token.empty()) return Rejection{TokenFault::kMissing, "no token"};
  if (token.size() > kTokenBytesMax) return Invalid("longer than 8 KiB");
  const std::optional<Segments> parts = Split(token);
  if (!parts) return Invalid("not three parts");
  const std::optional<std::string> header_text = Base64UrlDecode(parts->header);
  const std::optional<std::string> signature = Base64UrlDecode(parts->signature);
  if (!header_text || !signature) return Invalid("not base64url");

  const absl::StatusOr<json> header = ParseJsonObject(*header_text, kHeaderDepthMax);
  if (!header.ok()) return Invalid("header is not a plain JSON object");
  const auto selected = SelectKey(*header, keys);
  if (const auto* rejection = std::get_if<Rejection>(&selected)) return *rejection;
  const VerificationKey& key = *std::get<const VerificationKey*>(selected);
  if (!SignatureGood(key, parts->signed_part, *signature)) return Invalid("signature is wrong");

  const absl::StatusOr<json> claims = DecodeClaims(parts->payload);
  if (!claims.ok()) return Invalid("claims are not a plain JSON object");
  Identity identity;
  if (auto fault = CheckPurpose(*claims)) return *fault;
  if (auto fault = CheckParties(*claims, options_)) return *fault;
  if (!ReadName(*claims, "sub", &identity.user_id)) return Invalid("sub is absent or malformed");
  const bool names_user = options_.username_required || claims->contains("preferred_username");
  if (names_user && !ReadName(*claims, "preferred_username", &identity.username)) {
    return Invalid("preferred_username is absent or malformed");
  }
  if (claims->contains("sid") && !ReadName(*claims, "sid", &identity.session_id)) return Invalid("sid is malformed");
  if (auto fault = CheckDates(*claims, now, options_.leeway, &identity)) return *fault;
  identity.roles = ReadRoles(*claims, options_);
  return identity;
}

}  // namespace presence
