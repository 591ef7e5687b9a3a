// One bounded HTTP GET at a time, for the keys of Keycloak. key_fetcher.cc is the only file that includes
// libcurl.
//
// Lives on the thread that calls Fetch; only Interrupt may come from another one. Follows no redirects,
// speaks http and https alone, verifies certificates and host names, reads no proxy or .netrc from the
// environment.
#pragma once

#include <chrono>
#include <cstddef>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"

namespace presence {

struct KeyFetcherOptions {
  std::chrono::milliseconds timeout{5000};  // for all of it: name, connection, answer
  size_t body_bytes_max = 256 * 1024;
  std::string ca_file;  // PEM bundle; empty: the system's
};

struct FetchedKeys {
  std::string body;
  std::optional<std::chrono::seconds> max_age;  // Cache-Control, less Age; 0 for no-store and no-cache
};

class KeyFetcher {
 public:
  explicit KeyFetcher(KeyFetcherOptions options);
  ~KeyFetcher();

  // The body of a 200. UNAVAILABLE: no answer in time, or another status. RESOURCE_EXHAUSTED: the body is too
  // long. CANCELLED: interrupted. The message says why, bounded, without anything of the body.
  absl::StatusOr<FetchedKeys> Fetch(const std::string& url);

  // Ends a Fetch that is under way, and all later ones, at once. From any thread.
  void Interrupt();

 private:
  struct Handles;
  KeyFetcherOptions options_;
  std::unique_ptr<Handles> handles_;
};

}  // namespace presence
