// Makes tokens for tests: proper ones, and those that no issuer would make, correctly signed all the same.
//
// The keys are made once per process. Aborts when OpenSSL fails: a test cannot go on then.
#pragma once

#include <openssl/bio.h>
#include <openssl/bn.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>

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

inline JwkSet KeysOf(const std::vector<SigningKey>& keys) {
  auto text = PublicJwkSet(keys);
  PRESENCE_CHECK(text.ok(), "the public halves can be written");
  auto set = JwkSet::Parse(*text);
  PRESENCE_CHECK(set.ok(), "the set parses");
  return *std::move(set);
}

// The signature over any bytes, as JWS spells it.
inline std::string RawSignature(std::string_view message, const SigningKey& key) {
  const std::unique_ptr<BIO, decltype(&BIO_free_all)> in(
      BIO_new_mem_buf(key.private_pem.data(), static_cast<int>(key.private_pem.size())), &BIO_free_all);
  const std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> pkey(
      PEM_read_bio_PrivateKey(in.get(), nullptr, nullptr, nullptr), &EVP_PKEY_free);
  const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context(EVP_MD_CTX_new(), &EVP_MD_CTX_free);
  std::string signature(1024, '\0');
  size_t size = signature.size();
  PRESENCE_CHECK(EVP_DigestSignInit(context.get(), nullptr, EVP_sha256(), nullptr, pkey.get()) == 1 &&
                     EVP_DigestSign(context.get(), reinterpret_cast<unsigned char*>(signature.data()), &size,
                                    reinterpret_cast<const unsigned char*>(message.data()), message.size()) == 1,
                 "the key signs");
  signature.resize(size);
  if (key.algorithm == SignatureAlgorithm::kRs256) return signature;

  const auto* der = reinterpret_cast<const unsigned char*>(signature.data());
  const std::unique_ptr<ECDSA_SIG, decltype(&ECDSA_SIG_free)> numbers(
      d2i_ECDSA_SIG(nullptr, &der, static_cast<long>(signature.size())), &ECDSA_SIG_free);
  std::string raw(64, '\0');
  auto* out = reinterpret_cast<unsigned char*>(raw.data());
  BN_bn2binpad(ECDSA_SIG_get0_r(numbers.get()), out, 32);
  BN_bn2binpad(ECDSA_SIG_get0_s(numbers.get()), out + 32, 32);
  return raw;
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

inline std::string GoodToken(const SigningKey& key) {
  auto token = SignToken(GoodClaims(), key);
  PRESENCE_CHECK(token.ok(), "the token can be signed");
  return *std::move(token);
}

}  // namespace presence
