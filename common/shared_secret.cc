#include "common/shared_secret.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>

#include <array>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "common/check.h"

namespace presence {

absl::StatusOr<std::string> LoadSecret(std::string_view name, const std::string& value, const std::string& path) {
  std::string setting(name);
  std::string secret = value;
  if (!path.empty()) {
    if (!value.empty()) {
      return absl::InvalidArgumentError(absl::StrCat(setting, " and ", setting, "_FILE are both set: set one of them"));
    }
    setting += "_FILE";
    std::ifstream file(path, std::ios::binary);
    secret.resize(kSecretBytesMax + 3);  // a line end more than is allowed, and one byte that shows there is too much
    if (file) file.read(secret.data(), static_cast<std::streamsize>(secret.size()));
    if (!file.is_open() || file.bad() || (file.fail() && !file.eof())) {
      return absl::InvalidArgumentError(absl::StrCat(setting, " cannot be read"));
    }
    secret.resize(static_cast<size_t>(file.gcount()));
    if (!secret.empty() && secret.back() == '\n') secret.pop_back();
    if (!secret.empty() && secret.back() == '\r') secret.pop_back();
  } else if (value.empty()) {
    return std::string();
  }
  if (secret.size() < kSecretBytesMin || secret.size() > kSecretBytesMax) {
    return absl::InvalidArgumentError(absl::StrCat(setting, " must hold ", kSecretBytesMin, " to ", kSecretBytesMax,
                                                   " bytes: `openssl rand -base64 32` makes a good one"));
  }
  return secret;
}

bool SameSecret(std::string_view a, std::string_view b) {
  // Digests have one length, so that the comparison does not tell the length of the secret.
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest_a{}, digest_b{};
  unsigned int size_a = 0, size_b = 0;
  PRESENCE_CHECK(EVP_Digest(a.data(), a.size(), digest_a.data(), &size_a, EVP_sha256(), nullptr) == 1 &&
                     EVP_Digest(b.data(), b.size(), digest_b.data(), &size_b, EVP_sha256(), nullptr) == 1,
                 "OpenSSL can hash");
  return CRYPTO_memcmp(digest_a.data(), digest_b.data(), size_a) == 0;
}

}  // namespace presence
