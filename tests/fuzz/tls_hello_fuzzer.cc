// The guard in front of OpenSSL: how a hello is cut does not matter, and what it admits promises no more than its bound.
#include <string_view>

#include "edge/tls_hello_guard.h"
#include "tests/fuzz/fuzz_target.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using presence::edge::TlsHelloGuard;
  presence::fuzz::ByteSource in(data, size);
  const size_t cut = 1 + in.Byte();
  const std::string_view bytes = in.rest();
  TlsHelloGuard whole, pieces;
  const bool admitted = whole.Admits(bytes);
  bool admitted_in_pieces = true;
  for (size_t at = 0; at < bytes.size() && admitted_in_pieces; at += cut) {
    admitted_in_pieces = pieces.Admits(bytes.substr(at, cut));
  }
  PRESENCE_CHECK(admitted == admitted_in_pieces, "how the bytes are cut does not matter");

  // A first record that begins with the head of a ClientHello.
  if (bytes.size() >= 9 && bytes[0] == 22 && (bytes[3] != 0 || static_cast<uint8_t>(bytes[4]) >= 4) && bytes[5] == 1) {
    const auto byte = [&](size_t i) { return static_cast<uint8_t>(bytes[i]); };
    const size_t promised = static_cast<size_t>(byte(6)) << 16 | static_cast<size_t>(byte(7)) << 8 | byte(8);
    if (promised > TlsHelloGuard::kHelloBytesMax) PRESENCE_CHECK(!admitted, "an endless hello is refused at its head");
  }
  return 0;
}
