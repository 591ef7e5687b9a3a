#include "common/tls_files.h"

#include <openssl/asn1.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <sys/stat.h>

#include <fstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/log.h"

namespace presence {
namespace {

template <auto kFree>
struct Freer {
  template <typename T>
  void operator()(T* object) const {
    kFree(object);
  }
};
using BioPtr = std::unique_ptr<BIO, Freer<BIO_free_all>>;
using CertificatePtr = std::unique_ptr<X509, Freer<X509_free>>;
using KeyPtr = std::unique_ptr<EVP_PKEY, Freer<EVP_PKEY_free>>;

absl::Status Wrong(const std::string& setting, const std::string& path, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(setting, " (", path, ") ", what));
}

absl::StatusOr<std::string> ReadText(const std::string& setting, const std::string& path) {
  if (path.empty()) return std::string();
  struct stat about {};
  if (stat(path.c_str(), &about) != 0 || !S_ISREG(about.st_mode)) return Wrong(setting, path, "is not a file");
  std::ifstream file(path, std::ios::binary);
  std::string text(TlsFiles::kFileBytesMax + 1, '\0');
  if (file) file.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (file.bad() || (file.fail() && !file.eof())) return Wrong(setting, path, "cannot be read");
  text.resize(static_cast<size_t>(file.gcount()));
  if (text.size() > TlsFiles::kFileBytesMax) return Wrong(setting, path, "is longer than 1 MiB");
  return text;
}

BioPtr BioOf(const std::string& text) {
  return BioPtr(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
}

// The certificate that comes first; null: there is none.
CertificatePtr FirstCertificate(const std::string& pem) {
  const BioPtr bio = BioOf(pem);
  CertificatePtr certificate(PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr));
  ERR_clear_error();  // the queue is the thread's, and TLS would find it there
  return certificate;
}

KeyPtr PrivateKey(const std::string& pem) {
  const BioPtr bio = BioOf(pem);
  const auto no_passphrase = [](char*, int, int, void*) { return 0; };
  KeyPtr key(PEM_read_bio_PrivateKey(bio.get(), nullptr, no_passphrase, nullptr));
  ERR_clear_error();
  return key;
}

std::string ValidUntil(const X509& certificate) {
  const BioPtr bio(BIO_new(BIO_s_mem()));
  if (ASN1_TIME_print(bio.get(), X509_get0_notAfter(&certificate)) != 1) return "an unknown time";
  char* text = nullptr;
  const long size = BIO_get_mem_data(bio.get(), &text);
  return std::string(text, static_cast<size_t>(size));
}

}  // namespace

absl::StatusOr<std::shared_ptr<TlsFiles>> TlsFiles::Open(TlsPaths paths, TlsNames names) {
  if (paths.certificate.empty() != paths.key.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(names.certificate, " and ", names.key, " belong together: set both or none"));
  }
  std::shared_ptr<TlsFiles> files(new TlsFiles(std::move(paths), std::move(names)));
  files->tried_ = files->Look();
  absl::StatusOr<TlsMaterial> material = files->Read();
  if (!material.ok()) return material.status();
  files->current_ = std::make_shared<const TlsMaterial>(*std::move(material));
  return files;
}

absl::Status TlsFiles::Check(const TlsPaths& paths, const TlsNames& names) {
  if (paths.certificate.empty() != paths.key.empty()) return absl::OkStatus();
  return Open(paths, names).status();
}

std::shared_ptr<const TlsMaterial> TlsFiles::Current() {
  const std::lock_guard lock(mutex_);
  // Looked at before reading: what is changed while it is read shows next time.
  const Stamps now = Look();
  if (now == tried_) return current_;
  tried_ = now;
  absl::StatusOr<TlsMaterial> material = Read();
  if (material.ok()) {
    log::Info("The files of {} have changed and are in use", names_.certificate);
    current_ = std::make_shared<const TlsMaterial>(*std::move(material));
  } else {
    log::Warning("The former certificates stay in use: {}", Escaped(std::string(material.status().message())));
  }
  return current_;
}

TlsFiles::Stamps TlsFiles::Look() const {
  Stamps stamps;
  const std::string* const paths[] = {&paths_.certificate, &paths_.key, &paths_.peer_ca};
  for (size_t i = 0; i < stamps.size(); ++i) {
    struct stat about {};
    if (paths[i]->empty() || stat(paths[i]->c_str(), &about) != 0) continue;
    const auto nanoseconds = [](const timespec& t) { return int64_t{t.tv_sec} * 1'000'000'000 + t.tv_nsec; };
    stamps[i] = {about.st_dev, about.st_ino, static_cast<uint64_t>(about.st_size), nanoseconds(about.st_mtim),
                 nanoseconds(about.st_ctim)};
  }
  return stamps;
}

absl::StatusOr<TlsMaterial> TlsFiles::Read() const {
  auto certificate = ReadText(names_.certificate, paths_.certificate);
  if (!certificate.ok()) return certificate.status();
  auto key = ReadText(names_.key, paths_.key);
  if (!key.ok()) return key.status();
  auto peer_ca = ReadText(names_.peer_ca, paths_.peer_ca);
  if (!peer_ca.ok()) return peer_ca.status();

  if (!paths_.certificate.empty()) {
    const CertificatePtr first = FirstCertificate(*certificate);
    if (first == nullptr) return Wrong(names_.certificate, paths_.certificate, "holds no certificate in PEM");
    const KeyPtr own = PrivateKey(*key);
    if (own == nullptr) return Wrong(names_.key, paths_.key, "holds no private key in PEM without a passphrase");
    const bool fit = X509_check_private_key(first.get(), own.get()) == 1;
    ERR_clear_error();
    if (!fit) return Wrong(names_.key, paths_.key, absl::StrCat("is not the key of ", names_.certificate));
    if (X509_cmp_current_time(X509_get0_notAfter(first.get())) < 0) {
      log::Warning("{} has expired: {}", names_.certificate, ValidUntil(*first));
    } else {
      log::Info("{} is valid until {}", names_.certificate, ValidUntil(*first));
    }
  }
  if (!paths_.peer_ca.empty() && FirstCertificate(*peer_ca) == nullptr) {
    return Wrong(names_.peer_ca, paths_.peer_ca, "holds no certificate in PEM");
  }
  return TlsMaterial{*std::move(certificate), *std::move(key), *std::move(peer_ca)};
}

}  // namespace presence
