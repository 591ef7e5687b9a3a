#include "edge/tls_server.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/log.h"

namespace presence::edge {
namespace {

// For TLS 1.2; those of 1.3 are all good. AES first, since processors have it, unless the client, which may be a
// telephone without, has ChaCha20 as its first.
constexpr char kCiphers[] =
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:"
    "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305";
// Without those that cost the server a multiple (X448, P-521, finite fields).
constexpr char kGroups[] = "X25519:P-256:P-384";
constexpr std::string_view kProtocol = "http/1.1";

using ContextPtr = std::unique_ptr<SSL_CTX, decltype(&SSL_CTX_free)>;
using BioPtr = std::unique_ptr<BIO, decltype(&BIO_free_all)>;
using CertificatePtr = std::unique_ptr<X509, decltype(&X509_free)>;
using KeyPtr = std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)>;

absl::Status Refused(absl::string_view what) {
  const char* reason = ERR_reason_error_string(ERR_peek_last_error());
  absl::Status status =
      absl::InvalidArgumentError(absl::StrCat("TLS: OpenSSL refuses ", what, reason != nullptr ? ": " : "",
                                              reason != nullptr ? absl::string_view(reason) : absl::string_view()));
  ERR_clear_error();
  return status;
}

BioPtr BioOf(const std::string& pem) {
  return BioPtr(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())), &BIO_free_all);
}

int SelectProtocol(SSL*, const unsigned char** selected, unsigned char* selected_size, const unsigned char* offered,
                   unsigned int offered_size, void*) {
  for (unsigned int at = 0; at < offered_size; at += 1u + offered[at]) {
    const std::string_view name(reinterpret_cast<const char*>(offered + at + 1), offered[at]);
    if (name != kProtocol) continue;
    *selected = offered + at + 1;
    *selected_size = offered[at];
    return SSL_TLSEXT_ERR_OK;
  }
  return SSL_TLSEXT_ERR_ALERT_FATAL;  // no_application_protocol (RFC 7301, section 3.2)
}

absl::Status UseCertificate(SSL_CTX* context, const TlsMaterial& material) {
  const BioPtr certificates = BioOf(material.certificate_chain);
  const CertificatePtr own(PEM_read_bio_X509_AUX(certificates.get(), nullptr, nullptr, nullptr), &X509_free);
  if (own == nullptr || SSL_CTX_use_certificate(context, own.get()) != 1) return Refused("the certificate");
  while (X509* intermediate = PEM_read_bio_X509(certificates.get(), nullptr, nullptr, nullptr)) {
    if (SSL_CTX_add0_chain_cert(context, intermediate) != 1) {
      X509_free(intermediate);
      return Refused("the certificate's chain");
    }
  }
  if (const auto error = ERR_peek_last_error(); error != 0 && ERR_GET_REASON(error) != PEM_R_NO_START_LINE) {
    return Refused("the certificate's chain");
  }
  ERR_clear_error();  // the end of the file
  const BioPtr key_text = BioOf(material.private_key);
  const auto no_passphrase = [](char*, int, int, void*) { return 0; };
  const KeyPtr key(PEM_read_bio_PrivateKey(key_text.get(), nullptr, no_passphrase, nullptr), &EVP_PKEY_free);
  if (key == nullptr || SSL_CTX_use_PrivateKey(context, key.get()) != 1) return Refused("the private key");
  return absl::OkStatus();
}

absl::StatusOr<SSL_CTX*> MakeContext(const TlsMaterial& material) {
  ContextPtr context(SSL_CTX_new(TLS_server_method()), &SSL_CTX_free);
  if (context == nullptr) return Refused("to start");
  SSL_CTX* const c = context.get();
  if (SSL_CTX_set_min_proto_version(c, TLS1_2_VERSION) != 1 || SSL_CTX_set_max_proto_version(c, 0) != 1 ||
      SSL_CTX_set_cipher_list(c, kCiphers) != 1 || SSL_CTX_set1_groups_list(c, kGroups) != 1) {
    return Refused("versions or ciphers");
  }
  // A peer that just hangs up has ended its side: what it sent tells by itself whether it is whole.
  SSL_CTX_set_options(c, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE |
                             SSL_OP_PRIORITIZE_CHACHA | SSL_OP_NO_TICKET | SSL_OP_IGNORE_UNEXPECTED_EOF);
  SSL_CTX_set_num_tickets(c, 0);
  SSL_CTX_set_session_cache_mode(c, SSL_SESS_CACHE_OFF);
  // An idle connection gives its two buffers (34 KB) back.
  SSL_CTX_set_mode(c, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  SSL_CTX_set_read_ahead(c, 1);  // head and body of a record in one recv
  SSL_CTX_set_alpn_select_cb(c, SelectProtocol, nullptr);
  if (absl::Status status = UseCertificate(c, material); !status.ok()) return status;
  return context.release();
}

}  // namespace

absl::StatusOr<std::unique_ptr<TlsServer>> TlsServer::Create(std::shared_ptr<TlsFiles> files) {
  std::unique_ptr<TlsServer> server(new TlsServer(std::move(files)));
  if (absl::Status status = server->TakeMaterial(server->files_->Current()); !status.ok()) return status;
  return server;
}

TlsServer::~TlsServer() {
  SSL_CTX_free(context_);
}

absl::Status TlsServer::TakeMaterial(std::shared_ptr<const TlsMaterial> material) {
  absl::StatusOr<SSL_CTX*> made = MakeContext(*material);
  tried_ = std::move(material);
  if (!made.ok()) return made.status();
  SSL_CTX_free(std::exchange(context_, *made));
  return absl::OkStatus();
}

std::unique_ptr<TlsStream> TlsServer::Accept(int descriptor) {
  if (auto material = files_->Current(); material != tried_) {
    if (const absl::Status status = TakeMaterial(std::move(material)); !status.ok()) {
      log::Warning("The former certificate stays in use: {}", Escaped(std::string(status.message())));
    }
  }
  SSL* const ssl = SSL_new(context_);
  if (ssl == nullptr) {
    ERR_clear_error();
    return nullptr;
  }
  SSL_set_accept_state(ssl);
  return std::make_unique<TlsStream>(ssl, descriptor);
}

}  // namespace presence::edge
