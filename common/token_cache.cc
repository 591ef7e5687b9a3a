#include "common/token_cache.h"

#include <openssl/evp.h>

#include <memory>

#include "common/check.h"

namespace presence {

TokenDigest DigestOf(std::string_view token) {
  // Fetched once: looking it up by name takes a lock each time. Lives as long as the process.
  static EVP_MD* const sha256 = EVP_MD_fetch(nullptr, "SHA256", nullptr);
  struct FreeContext {
    void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
  };
  thread_local const std::unique_ptr<EVP_MD_CTX, FreeContext> context(EVP_MD_CTX_new());
  TokenDigest digest;
  unsigned int size = 0;
  PRESENCE_CHECK(EVP_DigestInit_ex2(context.get(), sha256, nullptr) == 1 &&
                     EVP_DigestUpdate(context.get(), token.data(), token.size()) == 1 &&
                     EVP_DigestFinal_ex(context.get(), digest.data(), &size) == 1 && size == digest.size(),
                 "OpenSSL can hash");
  return digest;
}

}  // namespace presence
