// Decides who may use the link: whoever knows the secret, or has the certificate that TLS has checked already, or
// both, or everybody (open).
//
// Immutable, so any thread may call Check. Attach and the unary calls are held to the same rule.
#pragma once

#include <grpcpp/grpcpp.h>

#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"

namespace presence::core {

class LinkAccess {
 public:
  struct Rule {
    bool certificate = false;  // the peer must be authenticated by TLS
    std::string secret{};      // and must show this; empty: none is asked for
  };

  // Open: for loopback, for tests, and where LINK_AUTH=open asks for it by name.
  LinkAccess() = default;
  explicit LinkAccess(Rule rule) : rule_(std::move(rule)) {}

  // OK, or UNAUTHENTICATED saying what is missing. A refusal is logged, with its address and without the secret, at
  // most once a second: edges try again by themselves, and somebody has to set something.
  absl::Status Check(const grpc::CallbackServerContext& context) const;

  // The rule about the secret, for tests. `shown`: nullptr when the call has none.
  absl::Status CheckSecret(const std::string_view* shown) const;

 private:
  Rule rule_;
};

}  // namespace presence::core
