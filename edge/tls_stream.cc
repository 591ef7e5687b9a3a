#include "edge/tls_stream.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>
#include <utility>

#include "common/check.h"

namespace presence::edge {
namespace {

TlsStream& StreamOf(BIO* bio) {
  return *static_cast<TlsStream*>(BIO_get_data(bio));
}

int BioRead(BIO* bio, char* data, int size) {
  BIO_clear_retry_flags(bio);
  return StreamOf(bio).Receive(bio, data, static_cast<size_t>(size));
}

int BioWrite(BIO* bio, const char* data, int size) {
  BIO_clear_retry_flags(bio);
  return StreamOf(bio).Transmit(bio, data, static_cast<size_t>(size));
}

long BioControl(BIO* bio, int command, long, void*) {
  switch (command) {
    case BIO_CTRL_FLUSH:
      return 1;
    case BIO_CTRL_EOF:
      return StreamOf(bio).ended() ? 1 : 0;
    default:
      return 0;
  }
}

// OpenSSL's own socket BIO raises SIGPIPE, and reads for as long as there is something: a peer that sends nothing but
// key updates would hold the thread.
const BIO_METHOD* DescriptorMethod() {
  static const BIO_METHOD* const method = [] {
    BIO_METHOD* made = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "presence descriptor");
    PRESENCE_CHECK(made != nullptr, "memory for OpenSSL");
    BIO_meth_set_read(made, BioRead);
    BIO_meth_set_write(made, BioWrite);
    BIO_meth_set_ctrl(made, BioControl);
    return made;
  }();
  return method;
}

void OnProtocolMessage(int written, int, int type, const void* bytes, size_t size, SSL*, void* stream) {
  if (written != 0 || type != SSL3_RT_HANDSHAKE || size == 0) return;
  if (*static_cast<const unsigned char*>(bytes) == SSL3_MT_KEY_UPDATE) static_cast<TlsStream*>(stream)->OnKeyUpdate();
}

void OnState(const SSL* ssl, int where, int) {
  if ((where & SSL_CB_HANDSHAKE_START) != 0) StreamOf(SSL_get_rbio(ssl)).OnHandshakeStart();
}

}  // namespace

TlsStream::TlsStream(SSL* ssl, int descriptor) : ssl_(ssl), descriptor_(descriptor) {
  BIO* bio = BIO_new(DescriptorMethod());
  PRESENCE_CHECK(bio != nullptr, "memory for OpenSSL");
  BIO_set_data(bio, this);
  BIO_set_init(bio, 1);
  SSL_set_bio(ssl_, bio, bio);
  SSL_set_msg_callback(ssl_, OnProtocolMessage);
  SSL_set_msg_callback_arg(ssl_, this);
  SSL_set_info_callback(ssl_, OnState);
}

TlsStream::~TlsStream() {
  SSL_free(ssl_);
  ERR_clear_error();
}

int TlsStream::Receive(BIO* bio, char* data, size_t size) {
  if (refused_) return -1;
  if (read_budget_ == 0) {
    BIO_set_retry_read(bio);
    return -1;
  }
  ssize_t bytes;
  do {
    bytes = recv(descriptor_, data, size, 0);
  } while (bytes < 0 && errno == EINTR);
  if (bytes < 0) {
    drained_ = errno == EAGAIN;
    if (drained_) BIO_set_retry_read(bio);
    return -1;
  }
  drained_ = static_cast<size_t>(bytes) < size && bytes > 0;
  ended_ = bytes == 0;
  const auto count = static_cast<uint32_t>(bytes);
  read_budget_ -= std::min(read_budget_, count);
  bytes_taken_ += count;
  if (!established_) {
    handshake_bytes_ += count;
    const bool admits = SSL_is_server(ssl_) == 0 || hello_guard_.Admits({data, count});
    if (!admits || handshake_bytes_ > kHandshakeBytesMax) {
      refused_ = true;
      return -1;
    }
  }
  return static_cast<int>(bytes);
}

int TlsStream::Transmit(BIO* bio, const char* data, size_t size) {
  ssize_t bytes;
  do {
    bytes = send(descriptor_, data, size, MSG_NOSIGNAL);
  } while (bytes < 0 && errno == EINTR);
  if (bytes < 0 && errno == EAGAIN) BIO_set_retry_write(bio);
  return static_cast<int>(bytes);
}

// Each costs some microseconds for 27 bytes; a byte of data between them is no excuse.
void TlsStream::OnKeyUpdate() {
  if (++key_updates_ > kKeyUpdatesMax + data_bytes_ / kDataBytesPerKeyUpdate) refused_ = true;
}

// OpenSSL says no to a renegotiation (TLS 1.2), but not before it has the whole hello, and makes room for what its head
// promises: 64 KB, for one record of some hundred bytes. TLS 1.3 starts "handshakes" for its key updates, which are short.
void TlsStream::OnHandshakeStart() {
  if (established_ && SSL_is_server(ssl_) != 0 && SSL_version(ssl_) < TLS1_3_VERSION) refused_ = true;
}

void TlsStream::BeginReading() {
  read_budget_ = kReadBytesPerCallMax;
  bytes_taken_ = 0;
  drained_ = false;
  more_ = false;
}

// What a call that did not succeed comes to.
TlsStream::Outcome TlsStream::OutcomeOf(int result) {
  waits_for_room_ = false;
  Outcome outcome = Outcome::kError;
  switch (SSL_get_error(ssl_, result)) {
    case SSL_ERROR_WANT_READ:
      outcome = Outcome::kWouldBlock;
      break;
    case SSL_ERROR_WANT_WRITE:
      waits_for_room_ = true;
      outcome = Outcome::kWouldBlock;
      break;
    case SSL_ERROR_ZERO_RETURN:
      outcome = Outcome::kEnd;
      break;
    default: {
      failed_ = true;
      const unsigned long error = ERR_peek_error();
      const char* text = error != 0 ? ERR_reason_error_string(error) : nullptr;
      reason_ = refused_ ? "more than is good" : text != nullptr ? text : ended_ ? "" : "the connection broke";
      if (const long verified = SSL_get_verify_result(ssl_); verified != X509_V_OK) {
        reason_.append(": ").append(X509_verify_cert_error_string(verified));
      }
      const int code = ERR_GET_REASON(error);
      if (!established_ && (code == SSL_R_HTTP_REQUEST || code == SSL_R_HTTPS_PROXY_REQUEST)) {
        outcome = Outcome::kPlainHttp;
      }
    }
  }
  ERR_clear_error();
  return outcome;
}

TlsStream::Outcome TlsStream::Handshake() {
  if (failed_) return Outcome::kError;
  BeginReading();
  const int result = SSL_do_handshake(ssl_);
  if (result == 1) {
    established_ = true;
    more_ = true;
    // The peer may have asked for short records (RFC 6066, section 4).
    const int code = SSL_SESSION_get_max_fragment_length(SSL_get_session(ssl_));
    if (code >= TLSEXT_max_fragment_length_512 && code <= TLSEXT_max_fragment_length_4096) {
      record_bytes_max_ = static_cast<uint16_t>(256 << code);
    }
    return Outcome::kDone;
  }
  const Outcome outcome = OutcomeOf(result);
  read_waits_for_room_ = waits_for_room_;
  more_ = outcome == Outcome::kWouldBlock && !drained_ && !waits_for_room_;
  return outcome;
}

TlsStream::Result TlsStream::Read(char* buffer, size_t size) {
  read_waits_for_room_ = false;
  bytes_taken_ = 0;
  if (failed_) return {Outcome::kError};
  BeginReading();
  size_t total = 0;
  while (total < size) {
    size_t bytes = 0;
    const int result = SSL_read_ex(ssl_, buffer + total, size - total, &bytes);
    if (result != 1) {
      const Outcome outcome = OutcomeOf(result);
      read_waits_for_room_ = waits_for_room_;
      // An end or a fault behind the data is found by the next call.
      more_ = outcome == Outcome::kWouldBlock ? !drained_ && !waits_for_room_ : total > 0;
      return {total > 0 ? Outcome::kDone : outcome, total};
    }
    total += bytes;
    data_bytes_ += bytes;
    // Else it would be asked for what it just said it has not.
    if (drained_ && SSL_has_pending(ssl_) == 0) return {Outcome::kDone, total};
  }
  more_ = !drained_ || SSL_has_pending(ssl_) != 0;
  return {Outcome::kDone, total};
}

TlsStream::Outcome TlsStream::WriteRecord(const char* data, size_t size) {
  size_t written = 0;
  const int result = SSL_write_ex(ssl_, data, size, &written);
  if (result == 1) {
    PRESENCE_CHECK(written == size, "a record is written as a whole");
    unsent_record_ = 0;
    return Outcome::kDone;
  }
  const Outcome outcome = OutcomeOf(result);
  // In the midst of its own messages (a key update that the peer asked for) it has not looked at the data yet.
  if (outcome == Outcome::kWouldBlock && SSL_in_init(ssl_) == 0) unsent_record_ = static_cast<uint16_t>(size);
  return outcome;
}

namespace {

// The next part of the buffers, at most `size_max`: where it lies if one buffer has it all, else joined in `record`.
class Joiner {
 public:
  Joiner(std::span<const iovec> buffers, size_t skip) : buffers_(buffers), offset_(skip) {}

  std::span<const char> Next(size_t size_max, char* record) {
    while (!buffers_.empty() && offset_ >= buffers_.front().iov_len) {
      offset_ -= buffers_.front().iov_len;
      buffers_ = buffers_.subspan(1);
    }
    if (buffers_.empty()) return {};
    const std::span<const char> first = Rest();
    if (first.size() >= size_max || buffers_.size() == 1) {
      const size_t size = std::min(first.size(), size_max);
      offset_ += size;
      return first.first(size);
    }
    size_t joined = 0;
    while (!buffers_.empty() && joined < size_max) {
      const std::span<const char> rest = Rest();
      const size_t size = std::min(rest.size(), size_max - joined);
      std::memcpy(record + joined, rest.data(), size);
      joined += size;
      offset_ += size;
      if (size == rest.size()) {
        buffers_ = buffers_.subspan(1);
        offset_ = 0;
      }
    }
    return {record, joined};
  }

 private:
  std::span<const char> Rest() const {
    const iovec& buffer = buffers_.front();
    return {static_cast<const char*>(buffer.iov_base) + offset_, buffer.iov_len - offset_};
  }

  std::span<const iovec> buffers_;
  size_t offset_;  // in the first
};

}  // namespace

TlsStream::Result TlsStream::Write(std::span<const iovec> buffers, char* record) {
  if (failed_) return {Outcome::kError};
  size_t taken = 0;
  if (unsent_record_ > 0) {
    // OpenSSL wants to be asked with the same size, and does not look at the bytes again.
    const Outcome outcome = WriteRecord(record, unsent_record_);
    if (outcome != Outcome::kDone) return {outcome};
    taken = 1;
  }
  Joiner joiner(buffers, taken);
  for (int records = 0; records < kRecordsPerCallMax; ++records) {
    const std::span<const char> next = joiner.Next(record_bytes_max_, record);
    if (next.empty()) break;
    const Outcome outcome = WriteRecord(next.data(), next.size());
    if (outcome != Outcome::kDone) return {outcome, unsent_record_ > 0 ? taken + next.size() - 1 : taken};
    taken += next.size();
  }
  return {Outcome::kDone, taken};
}

TlsStream::Outcome TlsStream::EndWriting() {
  if (failed_ || !established_) return Outcome::kDone;
  const int result = SSL_shutdown(ssl_);
  if (result >= 0) return Outcome::kDone;
  return OutcomeOf(result);
}

}  // namespace presence::edge
