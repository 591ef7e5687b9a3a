// TLS on one nonblocking descriptor, at the server's end or the client's: OpenSSL, and what it leaves to its caller.
//
// The descriptor is the caller's, and outlives the stream. Lives on one thread; does not wait, log or count. A call
// does a bounded amount of work: it takes at most kReadBytesPerCallMax off the descriptor, whatever that turns out to
// be, and tells by `more` when there is something left that no event will announce. No SIGPIPE. OpenSSL's error queue,
// which is the thread's, is empty after each call.
//
// Writing: what is written is encrypted at once, and a record that the descriptor does not take stays in the stream. All
// of it is reported as taken but the last byte, which stands for the whole: so a queue that is empty has nothing under
// way, one that is not keeps the last frame as begun, and nobody drops or replaces what is encrypted already.
// REQUIRES: the next Write begins with that byte.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "edge/tls_hello_guard.h"

struct ssl_st;
struct bio_st;

namespace presence::edge {

class TlsStream {
 public:
  static constexpr size_t kRecordBytesMax = 16 * 1024;       // RFC 8446, section 5.1
  static constexpr size_t kReadBytesPerCallMax = 64 * 1024;  // soft: by one OpenSSL buffer (17 KB)
  static constexpr int kRecordsPerCallMax = 16;              // for Write: 256 KB
  static constexpr uint32_t kHandshakeBytesMax = 64 * 1024;  // real ones have 1 to 4 KB
  // Of the peer's: so many, and one more for each of so many bytes of data. RFC 8446, section 5.5: needed once in 2^24 records.
  static constexpr uint64_t kKeyUpdatesMax = 16;
  static constexpr uint64_t kDataBytesPerKeyUpdate = 1024 * 1024;

  enum class Outcome : uint8_t {
    kDone,
    kWouldBlock,
    kEnd,        // the peer has ended its side, with or without a word
    kError,      // the connection is of no further use
    kPlainHttp,  // Handshake only: the peer speaks HTTP without TLS, and nothing was sent
  };
  struct Result {
    Outcome outcome;
    size_t bytes = 0;
  };

  // Takes `ssl`, which has its role (accept or connect) and a context of TlsServer or TlsClient.
  TlsStream(ssl_st* ssl, int descriptor);
  ~TlsStream();
  TlsStream(const TlsStream&) = delete;
  TlsStream& operator=(const TlsStream&) = delete;

  // To be called when the descriptor has something until it says kDone; Read and Write come after it.
  Outcome Handshake();
  bool established() const { return established_; }

  // kDone: at least one byte.
  Result Read(char* buffer, size_t size);
  // After Handshake or Read: call it again without waiting for the descriptor.
  bool more() const { return more_; }
  // They wait for room to write, not for something to read.
  bool read_waits_for_room() const { return read_waits_for_room_; }
  // What they took off the descriptor, which may be much for no data at all.
  uint32_t bytes_taken() const { return bytes_taken_; }

  // `record`: kRecordBytesMax bytes, to join short buffers in. `bytes` counts from the start of the buffers, with every
  // outcome. kWouldBlock: the descriptor is full. kDone with less than all: this was enough for one call.
  Result Write(std::span<const iovec> buffers, char* record);
  // The close_notify alert: nothing is written after it. kDone also where there is nobody to tell.
  // REQUIRES: all that was written is out. Call it again after kWouldBlock.
  Outcome EndWriting();

  // Why the last call said kError; for a log or a person.
  const std::string& reason() const { return reason_; }

  // For OpenSSL.
  int Receive(bio_st* bio, char* data, size_t size);
  int Transmit(bio_st* bio, const char* data, size_t size);
  bool ended() const { return ended_; }
  void OnKeyUpdate();
  void OnHandshakeStart();

 private:
  void BeginReading();
  Outcome OutcomeOf(int result);
  Outcome WriteRecord(const char* data, size_t size);

  ssl_st* const ssl_;
  const int descriptor_;
  std::string reason_;
  TlsHelloGuard hello_guard_;
  uint32_t read_budget_ = 0;
  uint32_t bytes_taken_ = 0;
  uint32_t handshake_bytes_ = 0;
  uint64_t key_updates_ = 0;
  uint64_t data_bytes_ = 0;  // read
  uint16_t record_bytes_max_ = kRecordBytesMax;
  uint16_t unsent_record_ = 0;  // bytes of the caller's in a record that is not out
  bool established_ = false;
  bool more_ = false;
  bool read_waits_for_room_ = false;
  bool waits_for_room_ = false;  // the last call does
  bool drained_ = false;         // the descriptor had less than was asked for
  bool ended_ = false;           // it has come to its end
  bool refused_ = false;         // the peer went too far
  bool failed_ = false;
};

}  // namespace presence::edge
