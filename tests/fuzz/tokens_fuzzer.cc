// Tokens. The first byte chooses: a token as it is, whose signature nobody can have made; claims, which are signed here so that their
// reader is reached; or a header (first line) and a payload, both signed as they are.
#include <array>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "common/logout_token.h"
#include "common/token_verifier.h"
#include "common/utf8.h"
#include "tests/fakes/token_forge.h"
#include "tests/fuzz/fuzz_target.h"

namespace presence {
namespace {

constexpr std::string_view kHeader = R"({"alg":"ES256","typ":"JWT","kid":"ec-1"})";

// tests/fakes/token_forge.h reads its key again for each signature, which would be most of the time here.
class Signer {
 public:
  explicit Signer(const SigningKey& key) {
    const std::unique_ptr<BIO, decltype(&BIO_free_all)> in(
        BIO_new_mem_buf(key.private_pem.data(), static_cast<int>(key.private_pem.size())), &BIO_free_all);
    key_.reset(PEM_read_bio_PrivateKey(in.get(), nullptr, nullptr, nullptr));
    PRESENCE_CHECK(key_ != nullptr, "the key can be read");
  }

  // A token of these bytes, with a good ES256 signature.
  std::string Sign(std::string_view header, std::string_view payload) const {
    std::string token = Base64UrlEncode(header) + "." + Base64UrlEncode(payload);
    const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context(EVP_MD_CTX_new(), &EVP_MD_CTX_free);
    std::array<unsigned char, 128> der{};
    size_t size = der.size();
    PRESENCE_CHECK(EVP_DigestSignInit(context.get(), nullptr, EVP_sha256(), nullptr, key_.get()) == 1 &&
                       EVP_DigestSign(context.get(), der.data(), &size,
                                      reinterpret_cast<const unsigned char*>(token.data()), token.size()) == 1,
                   "the key signs");
    const unsigned char* at = der.data();
    const std::unique_ptr<ECDSA_SIG, decltype(&ECDSA_SIG_free)> numbers(
        d2i_ECDSA_SIG(nullptr, &at, static_cast<long>(size)), &ECDSA_SIG_free);  // NOLINT(google-runtime-int)
    std::string raw(64, '\0');
    auto* out = reinterpret_cast<unsigned char*>(raw.data());
    BN_bn2binpad(ECDSA_SIG_get0_r(numbers.get()), out, 32);
    BN_bn2binpad(ECDSA_SIG_get0_s(numbers.get()), out + 32, 32);
    return token + "." + Base64UrlEncode(raw);
  }

 private:
  std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> key_{nullptr, &EVP_PKEY_free};
};

VerifierOptions Options(bool strict) {
  VerifierOptions options;
  options.roles = {"admin", "reader"};
  options.role_clients = {"presence"};
  if (strict) {
    options.issuers = {"http://keycloak:8080/realms/colink"};
    options.audiences = {"colink-api"};
    options.client_ids = {"colink-web"};
  }
  return options;
}

bool IsName(std::string_view name) {
  return !name.empty() && name.size() <= TokenVerifier::kNameBytesMax && name.find('\0') == std::string_view::npos &&
         Utf8Prefix(name, name.size()).size() == name.size();
}

// Read again by another road, each claim by itself.
void CheckAdmitted(const Identity& identity, std::string_view payload, bool strict) {
  PRESENCE_CHECK(IsName(identity.user_id) && IsName(identity.username), "names keep the link's bounds");
  const nlohmann::json claims = nlohmann::json::parse(payload, nullptr, false);
  PRESENCE_CHECK(claims.is_object(), "claims are an object");
  PRESENCE_CHECK(claims.value("sub", "") == identity.user_id, "the user is the token's `sub`");
  PRESENCE_CHECK(claims.value("preferred_username", "") == identity.username, "the name is the token's");
  const int64_t now = ToUnixMillis(ForgedNow());
  PRESENCE_CHECK(claims.contains("exp") && claims["exp"].is_number(), "a token has an end");
  PRESENCE_CHECK(claims["exp"].get<double>() * 1000 > static_cast<double>(now - 31'000), "an expired token is refused");
  PRESENCE_CHECK(!claims.contains("nbf") || claims["nbf"].get<double>() * 1000 < static_cast<double>(now + 31'000),
                 "a token of the future is refused");
  PRESENCE_CHECK(!strict || claims.value("iss", "") == "http://keycloak:8080/realms/colink", "the issuer is ours");
  PRESENCE_CHECK(!claims.contains("typ") || claims["typ"] == "Bearer", "an ID token is no access token");
}

void CheckHeader(std::string_view header) {
  const nlohmann::json read = nlohmann::json::parse(header, nullptr, false);
  PRESENCE_CHECK(read.is_object() && read.value("alg", "") == "ES256", "the key decides the algorithm");
  PRESENCE_CHECK(!read.contains("crit"), "extensions that are not understood are refused");
  PRESENCE_CHECK(read.value("kid", "ec-1") == "ec-1", "the key is the one that is named");
}

}  // namespace
}  // namespace presence

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace presence;
  static const JwkSet keys = KeysOf({EcKeyForTests()});
  static const Signer signer(EcKeyForTests());
  static const TokenVerifier strict_verifier{Options(true)}, lax_verifier{Options(false)};
  fuzz::ByteSource in(data, size);
  const uint8_t choice = in.Byte();
  const bool strict = (choice & 0x10) != 0;
  const TokenVerifier& verifier = strict ? strict_verifier : lax_verifier;
  const uint8_t kind = choice % 4;
  if (kind == 0) {
    const TokenVerdict verdict = verifier.Verify(in.rest(), keys, ForgedNow());
    PRESENCE_CHECK(std::holds_alternative<Rejection>(verdict), "nobody else can sign");
    return 0;
  }
  const std::string_view header = kind == 3 ? in.Line() : kHeader;
  const std::string_view payload = in.rest();
  const std::string token = signer.Sign(header, payload);
  const TokenVerdict verdict = verifier.Verify(token, keys, ForgedNow());
  // What orders a logout opens nothing, and the other way round (RFC 8725, section 3.12).
  static const LogoutTokenVerifier logouts{Options(false)};
  const auto order = logouts.Verify(token, keys, ForgedNow());
  if (const auto* logout = std::get_if<LogoutOrder>(&order)) {
    PRESENCE_CHECK(!std::holds_alternative<Identity>(verdict), "a token is good for one thing");
    PRESENCE_CHECK(!logout->user_id.empty() || !logout->session_id.empty(), "a logout is somebody's");
  }
  if (const auto* identity = std::get_if<Identity>(&verdict)) {
    CheckHeader(header);
    CheckAdmitted(*identity, payload, strict);
    // The signature covers every character.
    std::string changed = token;
    char& touched = changed[choice % token.rfind('.')];
    touched = touched == 'A' ? 'B' : 'A';
    const TokenVerdict again = verifier.Verify(changed, keys, ForgedNow());
    PRESENCE_CHECK(changed == token || std::holds_alternative<Rejection>(again), "a changed token is refused");
  }
  return 0;
}
