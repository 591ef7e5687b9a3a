// Makes certificate authorities and what they sign, for tests of TLS; and a folder for the files.
//
// P-256 keys, valid from an hour ago for a day. Aborts when OpenSSL fails: a test cannot go on then.
#pragma once

#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <string_view>

#include "common/check.h"
#include "common/jwt.h"

namespace presence {

struct CertificateForTests {
  std::string pem, key_pem;
};

// Signed by `authority`, for `names` ("DNS:core.test,IP:127.0.0.1"); by itself, as an authority, when there is none.
inline CertificateForTests MakeCertificate(const std::string& common_name,
                                           const CertificateForTests* authority = nullptr,
                                           const std::string& names = "DNS:localhost,IP:127.0.0.1") {
  using Key = std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)>;
  using Certificate = std::unique_ptr<X509, decltype(&X509_free)>;
  using Bio = std::unique_ptr<BIO, decltype(&BIO_free_all)>;
  const auto bio_of = [](const std::string& pem) {
    return Bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())), &BIO_free_all);
  };
  const auto key_of = [&bio_of](const std::string& pem) {
    return Key(PEM_read_bio_PrivateKey(bio_of(pem).get(), nullptr, nullptr, nullptr), &EVP_PKEY_free);
  };
  auto made = GenerateSigningKey(SignatureAlgorithm::kEs256, "");
  PRESENCE_CHECK(made.ok(), "a key can be made");
  const Key key = key_of(made->private_pem);
  const Certificate certificate(X509_new(), &X509_free);
  X509_set_version(certificate.get(), 2);
  static long serial = 1;
  ASN1_INTEGER_set(X509_get_serialNumber(certificate.get()), ++serial);
  X509_gmtime_adj(X509_getm_notBefore(certificate.get()), -3600);
  X509_gmtime_adj(X509_getm_notAfter(certificate.get()), 86400);
  X509_set_pubkey(certificate.get(), key.get());
  X509_NAME_add_entry_by_txt(X509_get_subject_name(certificate.get()), "CN", MBSTRING_ASC,
                             reinterpret_cast<const unsigned char*>(common_name.c_str()), -1, -1, 0);
  const Certificate issuer(
      authority == nullptr ? nullptr : PEM_read_bio_X509(bio_of(authority->pem).get(), nullptr, nullptr, nullptr),
      &X509_free);
  X509_set_issuer_name(certificate.get(), X509_get_subject_name(issuer == nullptr ? certificate.get() : issuer.get()));
  const auto add = [&certificate](int what, const std::string& text) {
    const std::unique_ptr<X509_EXTENSION, decltype(&X509_EXTENSION_free)> extension(
        X509V3_EXT_conf_nid(nullptr, nullptr, what, text.c_str()), &X509_EXTENSION_free);
    X509_add_ext(certificate.get(), extension.get(), -1);
  };
  add(NID_basic_constraints, authority == nullptr ? "critical,CA:TRUE" : "CA:FALSE");
  if (authority != nullptr) add(NID_subject_alt_name, names);
  const Key signer = authority == nullptr ? key_of(made->private_pem) : key_of(authority->key_pem);
  PRESENCE_CHECK(X509_sign(certificate.get(), signer.get(), EVP_sha256()) > 0, "the certificate can be signed");
  const Bio out(BIO_new(BIO_s_mem()), &BIO_free_all);
  PEM_write_bio_X509(out.get(), certificate.get());
  char* text = nullptr;
  const long size = BIO_get_mem_data(out.get(), &text);
  return {std::string(text, static_cast<size_t>(size)), made->private_pem};
}

// A folder of its own, gone with the object.
class FolderForTests {
 public:
  FolderForTests() {
    std::string pattern = (std::filesystem::temp_directory_path() / "presence-test-XXXXXX").string();
    PRESENCE_CHECK(mkdtemp(pattern.data()) != nullptr, "a folder can be made");
    path_ = pattern;
  }
  ~FolderForTests() { std::filesystem::remove_all(path_); }
  FolderForTests(const FolderForTests&) = delete;
  FolderForTests& operator=(const FolderForTests&) = delete;

  // Replaces the file at once, as a careful program does; returns its path.
  std::string Write(const std::string& name, std::string_view text) const {
    const auto path = path_ / name;
    std::ofstream(path.string() + ".new", std::ios::binary) << text;
    std::filesystem::rename(path.string() + ".new", path);
    return path.string();
  }
  std::string Path(const std::string& name) const { return (path_ / name).string(); }

 private:
  std::filesystem::path path_;
};

}  // namespace presence
