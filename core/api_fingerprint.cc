#include "core/api_fingerprint.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>

#include "common/check.h"

namespace presence::core {
namespace {

class Sha256 {
 public:
  Sha256() : context_(EVP_MD_CTX_new(), &EVP_MD_CTX_free) {
    PRESENCE_CHECK(context_ != nullptr && EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) == 1,
                   "OpenSSL has SHA-256");
  }

  // Behind its length: where one part ends cannot be moved.
  void Add(std::string_view part) {
    AddNumber(part.size());
    EVP_DigestUpdate(context_.get(), part.data(), part.size());
  }

  void AddNumber(uint64_t number) {
    std::array<uint8_t, sizeof number> bytes;
    for (uint8_t& byte : bytes) {
      byte = static_cast<uint8_t>(number);
      number >>= 8;
    }
    EVP_DigestUpdate(context_.get(), bytes.data(), bytes.size());
  }

  std::string Finish() {
    std::array<unsigned char, EVP_MAX_MD_SIZE> digest;
    unsigned int size = 0;
    PRESENCE_CHECK(EVP_DigestFinal_ex(context_.get(), digest.data(), &size) == 1, "a digest ends");
    return std::string(reinterpret_cast<const char*>(digest.data()), size);
  }

 private:
  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context_;
};

}  // namespace

std::string Fingerprint(FingerprintParts parts) {
  Sha256 hash;
  for (const std::string_view part : {parts.method, parts.addressee, parts.payload_field, parts.payload}) {
    hash.Add(part);
  }
  auto& excluded = parts.excluded_user_ids;
  std::sort(excluded.begin(), excluded.end());
  excluded.erase(std::unique(excluded.begin(), excluded.end()), excluded.end());
  hash.AddNumber(excluded.size());
  for (const std::string& user_id : excluded) hash.Add(user_id);
  return hash.Finish();
}

std::string CanonicalBytes(const google::protobuf::Struct& data) {
  std::string bytes;
  google::protobuf::io::StringOutputStream stream(&bytes);
  google::protobuf::io::CodedOutputStream coded(&stream);
  coded.SetSerializationDeterministic(true);  // map entries in the order of their keys
  data.SerializeToCodedStream(&coded);
  coded.Trim();
  return bytes;
}

}  // namespace presence::core
