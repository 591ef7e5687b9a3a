// The server's end of TLS: what versions and ciphers it speaks, and the certificate that it shows.
//
// TLS 1.2 and 1.3, with forward secrecy and authenticated encryption only. No renegotiation, no compression, no early
// data. No tickets and no session cache: a returning client makes a whole handshake, and no key that is kept opens old
// traffic. ALPN: http/1.1, since a WebSocket over HTTP/2 is another protocol (RFC 8441).
//
// One per shard, on its thread: OpenSSL's contexts have locks that shards would share. The files may be shared.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "common/tls_files.h"
#include "edge/tls_stream.h"

struct ssl_ctx_st;

namespace presence::edge {

class TlsServer {
 public:
  // INVALID_ARGUMENT: OpenSSL does not take the certificate, its chain or the key (too weak, for example).
  static absl::StatusOr<std::unique_ptr<TlsServer>> Create(std::shared_ptr<TlsFiles> files);
  ~TlsServer();
  TlsServer(const TlsServer&) = delete;
  TlsServer& operator=(const TlsServer&) = delete;

  // For a client that has begun to speak. It is shown the certificate that the files hold now, or the last good one.
  // nullptr: no memory.
  std::unique_ptr<TlsStream> Accept(int descriptor);

 private:
  explicit TlsServer(std::shared_ptr<TlsFiles> files) : files_(std::move(files)) {}
  absl::Status TakeMaterial(std::shared_ptr<const TlsMaterial> material);

  const std::shared_ptr<TlsFiles> files_;
  std::shared_ptr<const TlsMaterial> tried_;  // good or bad
  ssl_ctx_st* context_ = nullptr;             // connections hold a reference of their own
};

}  // namespace presence::edge
