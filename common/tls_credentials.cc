#include "common/tls_credentials.h"

#include <grpc/grpc.h>
#include <grpc/grpc_security.h>

#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "common/check.h"

namespace presence {
namespace {

// What gRPC asks for certificates, once when the listener is made and then before each handshake; one at a time.
class Fetcher {
 public:
  explicit Fetcher(std::shared_ptr<TlsFiles> files) : files_(std::move(files)) {}

  static grpc_ssl_certificate_config_reload_status Fetch(void* self, grpc_ssl_server_certificate_config** config) {
    return static_cast<Fetcher*>(self)->FetchNow(config);
  }

 private:
  grpc_ssl_certificate_config_reload_status FetchNow(grpc_ssl_server_certificate_config** config) {
    std::shared_ptr<const TlsMaterial> now = files_->Current();
    if (now == handed_out_) return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_UNCHANGED;
    const grpc_ssl_pem_key_cert_pair pair{now->private_key.c_str(), now->certificate_chain.c_str()};
    // gRPC insists on roots, also where it asks clients for no certificate and so never uses them; any that parse
    // will do.
    const std::string& roots = now->peer_ca.empty() ? now->certificate_chain : now->peer_ca;
    *config = grpc_ssl_server_certificate_config_create(roots.c_str(), &pair, 1);
    handed_out_ = std::move(now);
    return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_NEW;
  }

  const std::shared_ptr<TlsFiles> files_;
  std::shared_ptr<const TlsMaterial> handed_out_;
};

// gRPC does not say when the last handshake of a server is over. One per listener, a few words each: they stay.
Fetcher* KeepForever(std::unique_ptr<Fetcher> fetcher) {
  static auto* const all = new std::vector<std::unique_ptr<Fetcher>>();
  static auto* const mutex = new std::mutex();
  const std::lock_guard lock(*mutex);
  all->push_back(std::move(fetcher));
  return all->back().get();
}

class FetchedServerCredentials final : public grpc::ServerCredentials {
 public:
  explicit FetchedServerCredentials(std::shared_ptr<TlsFiles> files) {
    const auto request = files->paths().peer_ca.empty() ? GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE
                                                        : GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY;
    credentials_ =
        grpc_ssl_server_credentials_create_with_options(grpc_ssl_server_credentials_create_options_using_config_fetcher(
            request, Fetcher::Fetch, KeepForever(std::make_unique<Fetcher>(std::move(files)))));
  }
  ~FetchedServerCredentials() override { grpc_server_credentials_release(credentials_); }

  void SetAuthMetadataProcessor(const std::shared_ptr<grpc::AuthMetadataProcessor>&) override {
    PRESENCE_CHECK(false, "who may call is checked in the methods");
  }

 private:
  int AddPortToServer(const std::string& address, grpc_server* server) override {
    PRESENCE_CHECK(!std::exchange(in_use_, true), "a fetcher tells one listener what is new");
    return grpc_server_add_http2_port(server, address.c_str(), credentials_);
  }

  grpc_server_credentials* credentials_ = nullptr;
  bool in_use_ = false;
};

}  // namespace

std::shared_ptr<grpc::ServerCredentials> MakeTlsServerCredentials(std::shared_ptr<TlsFiles> files) {
  PRESENCE_CHECK(!files->paths().certificate.empty(), "a server has a certificate");
  return std::make_shared<FetchedServerCredentials>(std::move(files));
}

std::shared_ptr<grpc::ChannelCredentials> MakeTlsChannelCredentials(TlsFiles& files) {
  const std::shared_ptr<const TlsMaterial> now = files.Current();
  grpc::SslCredentialsOptions options;
  options.pem_root_certs = now->peer_ca;
  options.pem_private_key = now->private_key;
  options.pem_cert_chain = now->certificate_chain;
  return grpc::SslCredentials(options);
}

}  // namespace presence
