// The client's end of TLS, for programs that test the edge: whom it trusts, and the name that it expects.
//
// TLS 1.2 or later. Lives on one thread; the streams may outlive it.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "edge/tls_stream.h"

struct ssl_ctx_st;

namespace presence::edge {

class TlsClient {
 public:
  // `authorities`: a PEM file; empty: the system's. INVALID_ARGUMENT, with the reason: it is none.
  static absl::StatusOr<std::unique_ptr<TlsClient>> Create(const std::string& authorities);
  ~TlsClient();
  TlsClient(const TlsClient&) = delete;
  TlsClient& operator=(const TlsClient&) = delete;

  // `host`: the name or the address that must stand in the server's certificate. nullptr: no memory.
  std::unique_ptr<TlsStream> Connect(int descriptor, const std::string& host);

  ssl_ctx_st* context() { return context_; }  // for tests that want another behaviour

 private:
  explicit TlsClient(ssl_ctx_st* context) : context_(context) {}
  ssl_ctx_st* const context_;
};

}  // namespace presence::edge
