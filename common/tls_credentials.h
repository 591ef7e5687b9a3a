// gRPC's TLS from the files of a TlsFiles: TLS 1.2 or 1.3, and new files without a restart.
//
// A connection keeps what it was made with; the next handshake, or the next dial, takes what the files hold by then.
//
// This is gRPC's classic SSL with its certificate fetcher, not the experimental TlsServerCredentials: in gRPC 1.51
// the file watcher of those hands on a key and a certificate that do not match, and then no handshake succeeds
// until they do.
#pragma once

#include <grpcpp/grpcpp.h>

#include <memory>

#include "common/tls_files.h"

namespace presence {

// For one listener (checked). With a peer_ca every client must show a certificate that it has signed, else the
// handshake fails; without, clients are not asked for one. REQUIRES: files with certificate and key.
std::shared_ptr<grpc::ServerCredentials> MakeTlsServerCredentials(std::shared_ptr<TlsFiles> files);

// For one dial: what the files hold now. Without a peer_ca the system's authorities count; the certificate is shown
// to servers that ask for one.
std::shared_ptr<grpc::ChannelCredentials> MakeTlsChannelCredentials(TlsFiles& files);

}  // namespace presence
