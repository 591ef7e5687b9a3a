#include "edge/tls_client.h"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace presence::edge {
namespace {

bool IsAddress(const std::string& host) {
  unsigned char bytes[16];
  return inet_pton(AF_INET, host.c_str(), bytes) == 1 || inet_pton(AF_INET6, host.c_str(), bytes) == 1;
}

}  // namespace

absl::StatusOr<std::unique_ptr<TlsClient>> TlsClient::Create(const std::string& authorities) {
  std::unique_ptr<TlsClient> client(new TlsClient(SSL_CTX_new(TLS_client_method())));
  SSL_CTX* const c = client->context_;
  if (c == nullptr) return absl::InternalError("OpenSSL does not start");
  SSL_CTX_set_min_proto_version(c, TLS1_2_VERSION);
  SSL_CTX_set_options(c, SSL_OP_NO_COMPRESSION | SSL_OP_IGNORE_UNEXPECTED_EOF);
  SSL_CTX_set_session_cache_mode(c, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_mode(c, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  SSL_CTX_set_read_ahead(c, 1);
  SSL_CTX_set_verify(c, SSL_VERIFY_PEER, nullptr);
  const int loaded =
      authorities.empty() ? SSL_CTX_set_default_verify_paths(c) : SSL_CTX_load_verify_file(c, authorities.c_str());
  ERR_clear_error();
  if (loaded != 1) return absl::InvalidArgumentError(absl::StrCat(authorities, " holds no certificate in PEM"));
  return client;
}

TlsClient::~TlsClient() {
  SSL_CTX_free(context_);
}

std::unique_ptr<TlsStream> TlsClient::Connect(int descriptor, const std::string& host) {
  SSL* const ssl = SSL_new(context_);
  if (ssl == nullptr) return nullptr;
  if (IsAddress(host)) {
    X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host.c_str());
  } else {
    SSL_set1_host(ssl, host.c_str());
    SSL_set_tlsext_host_name(ssl, host.c_str());
  }
  SSL_set_connect_state(ssl);
  ERR_clear_error();
  return std::make_unique<TlsStream>(ssl, descriptor);
}

}  // namespace presence::edge
