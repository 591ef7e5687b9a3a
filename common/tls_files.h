// Certificates and keys in PEM files: read and checked as a set, and read again when the files change.
//
// Thread-safe; meant to be asked once per handshake or dial, which costs three stat calls. A set that does not hold
// together (a key without its certificate, halfway through being replaced; a file that is missing or cut off) is
// never handed out: the last good one stays, and one line in the log says why. So files may be replaced one after
// the other, in any order, by renaming, by writing in place, or by a symbolic link that is moved, as Kubernetes
// does.
//
// Knows nothing of TLS itself: gRPC's credentials are made in tls_credentials.h. Private keys must not have a
// passphrase.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>

#include "absl/status/statusor.h"

namespace presence {

struct TlsPaths {
  std::string certificate;  // ours, with intermediates; empty: none, then `key` is empty, too
  std::string key;
  std::string peer_ca;  // who may have signed the other side's; empty: not given

  bool any() const { return !certificate.empty() || !key.empty() || !peer_ca.empty(); }
};

// What the three paths are called where they are set, for messages: "API_TLS_CERT", ...
struct TlsNames {
  std::string certificate, key, peer_ca;
};

struct TlsMaterial {
  std::string certificate_chain, private_key, peer_ca;  // PEM; empty where no path was given
};

class TlsFiles {
 public:
  static constexpr size_t kFileBytesMax = 1024 * 1024;  // Debian's bundle of all public authorities has 220 KB

  // INVALID_ARGUMENT, with the setting and what is wrong with it: a file that cannot be read, is not PEM or is too
  // long; a certificate without its key, or a key that is another certificate's.
  static absl::StatusOr<std::shared_ptr<TlsFiles>> Open(TlsPaths paths, TlsNames names);

  // Whether Open would succeed, before anything starts. OK for a certificate without its key, too, and the other way
  // round: that has a rule of its own among the settings.
  static absl::Status Check(const TlsPaths& paths, const TlsNames& names);

  // The newest good set. The pointer changes when the set does.
  std::shared_ptr<const TlsMaterial> Current();

  const TlsPaths& paths() const { return paths_; }

 private:
  // What tells that a file was changed, without reading it.
  struct Stamp {
    uint64_t device = 0, inode = 0, size = 0;
    int64_t modified_ns = 0, changed_ns = 0;
    bool operator==(const Stamp&) const = default;
  };
  using Stamps = std::array<Stamp, 3>;

  TlsFiles(TlsPaths paths, TlsNames names) : paths_(std::move(paths)), names_(std::move(names)) {}
  Stamps Look() const;
  absl::StatusOr<TlsMaterial> Read() const;

  const TlsPaths paths_;
  const TlsNames names_;

  std::mutex mutex_;  // guards what follows
  std::shared_ptr<const TlsMaterial> current_;
  Stamps tried_;  // of the last attempt to read, good or bad
};

}  // namespace presence
