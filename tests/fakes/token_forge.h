// Makes tokens for tests: proper ones, and those that no issuer would make, correctly signed all the same.
//
// The keys are made once per process. Aborts when OpenSSL fails: a test cannot go on then.
#pragma once

#include <openssl/bio.h>
#include <openssl/bn.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/base64url.h"
#include "common/check.h"
#include "common/jwk_set.h"
#include "common/jwt.h"
#include "common/time.h"

namespace presence {

inline SigningKey NewKey(SignatureAlgorithm algorithm, std::string_view kid) {
  auto key = GenerateSigningKey(algorithm, kid);
  PRESENCE_CHECK(key.ok(), "a key can be made");
  return *std::move(key);
}

inline const SigningKey& RsaKeyForTests() {
  static const SigningKey key = NewKey(SignatureAlgorithm::kRs256, "rsa-1");
  return key;
}

inline const SigningKey& EcKeyForTests() {
  static const SigningKey key = NewKey(SignatureAlgorithm::kEs256, "ec-1");
  return key;
}

// One for each algorithm, called as the algorithm is.
inline const std::vector<SigningKey>& KeysOfAllAlgorithmsForTests() {
  static const std::vector<SigningKey> keys = [] {
    std::vector<SigningKey> made;
    for (const SignatureAlgorithm one : kSignatureAlgorithms) made.push_back(NewKey(one, AlgorithmName(one)));
    return made;
  }();
  return keys;
}

inline JwkSet KeysOf(const std::vector<SigningKey>& keys) {
  auto text = PublicJwkSet(keys);
  PRESENCE_CHECK(text.ok(), "the public halves can be written");
  auto set = JwkSet::Parse(*text);
  PRESENCE_CHECK(set.ok(), "the set parses");
  return *std::move(set);
}

// ECDSA's two numbers side by side, as JWS spells them, from the DER that OpenSSL writes.
inline std::string NumbersOfDer(std::string_view der, size_t number_bytes) {
  const auto* next = reinterpret_cast<const unsigned char*>(der.data());
  const std::unique_ptr<ECDSA_SIG, decltype(&ECDSA_SIG_free)> numbers(
      d2i_ECDSA_SIG(nullptr, &next, static_cast<long>(der.size())), &ECDSA_SIG_free);
  std::string raw(2 * number_bytes, '\0');
  auto* out = reinterpret_cast<unsigned char*>(raw.data());
  const int bytes = static_cast<int>(number_bytes);
  BN_bn2binpad(ECDSA_SIG_get0_r(numbers.get()), out, bytes);
  BN_bn2binpad(ECDSA_SIG_get0_s(numbers.get()), out + bytes, bytes);
  return raw;
}

// The signature over any bytes, as JWS spells it. `salt_bytes`: of PS256 and the like; RSA_PSS_SALTLEN_DIGEST is what is right.
inline std::string RawSignature(std::string_view message, const SigningKey& key,
                                int salt_bytes = RSA_PSS_SALTLEN_DIGEST) {
  const std::unique_ptr<BIO, decltype(&BIO_free_all)> in(
      BIO_new_mem_buf(key.private_pem.data(), static_cast<int>(key.private_pem.size())), &BIO_free_all);
  const std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> pkey(
      PEM_read_bio_PrivateKey(in.get(), nullptr, nullptr, nullptr), &EVP_PKEY_free);
  const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context(EVP_MD_CTX_new(), &EVP_MD_CTX_free);
  const char* digest = DigestName(key.algorithm);
  EVP_PKEY_CTX* padding = nullptr;
  PRESENCE_CHECK(EVP_DigestSignInit(context.get(), &padding, digest == nullptr ? nullptr : EVP_get_digestbyname(digest),
                                    nullptr, pkey.get()) == 1,
                 "the key can sign");
  if (UsesPss(key.algorithm)) {
    PRESENCE_CHECK(EVP_PKEY_CTX_set_rsa_padding(padding, RSA_PKCS1_PSS_PADDING) == 1 &&
                       EVP_PKEY_CTX_set_rsa_pss_saltlen(padding, salt_bytes) == 1,
                   "the padding can be set");
  }
  std::string signature(1024, '\0');
  size_t size = signature.size();
  PRESENCE_CHECK(EVP_DigestSign(context.get(), reinterpret_cast<unsigned char*>(signature.data()), &size,
                                reinterpret_cast<const unsigned char*>(message.data()), message.size()) == 1,
                 "the key signs");
  signature.resize(size);
  const size_t number_bytes = EcdsaNumberBytes(key.algorithm);
  return number_bytes == 0 ? signature : NumbersOfDer(signature, number_bytes);
}

// A token of exactly this header text and payload text, with a good signature over them.
inline std::string Forge(std::string_view header, std::string_view payload, const SigningKey& key) {
  const std::string message = Base64UrlEncode(header) + "." + Base64UrlEncode(payload);
  return message + "." + Base64UrlEncode(RawSignature(message, key));
}

// The time of all token tests, and claims that are good then.
inline constexpr int64_t kForgedNowSeconds = 1'760'000'000;

inline WallTime ForgedNow() {
  return FromUnixMillis(kForgedNowSeconds * 1000);
}

inline nlohmann::json GoodClaims() {
  return {
      {"exp", kForgedNowSeconds + 300},   {"iat", kForgedNowSeconds - 5}, {"iss", "http://keycloak:8080/realms/colink"},
      {"aud", {"account", "colink-api"}}, {"azp", "colink-web"},          {"sub", "f3c1a2b4-0001"},
      {"preferred_username", "alice"},    {"sid", "session-7"},           {"typ", "Bearer"}};
}

// Signed by OpenSSL, with any algorithm.
inline std::string TokenOf(const nlohmann::json& claims, const SigningKey& key) {
  nlohmann::json header = {{"alg", AlgorithmName(key.algorithm)}, {"typ", "JWT"}};
  if (!key.kid.empty()) header["kid"] = key.kid;
  return Forge(header.dump(), claims.dump(), key);
}

inline std::string GoodToken(const SigningKey& key) {
  return TokenOf(GoodClaims(), key);
}

// What Keycloak sends to a client when a session of it ends.
inline nlohmann::json GoodLogoutClaims() {
  return {{"iat", kForgedNowSeconds - 1},
          {"exp", kForgedNowSeconds + 120},
          {"iss", "http://keycloak:8080/realms/colink"},
          {"aud", "colink-web"},
          {"sub", "f3c1a2b4-0001"},
          {"sid", "session-7"},
          {"jti", "logout-1"},
          {"typ", "Logout"},
          {"events", {{"http://schemas.openid.net/event/backchannel-logout", nlohmann::json::object()}}}};
}

}  // namespace presence
