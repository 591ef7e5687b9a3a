// X-Forwarded-For, and the list of those whose word is taken for it. First line: the list, separated by commas; the rest: the header.
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "edge/peer_address.h"
#include "edge/trusted_proxies.h"
#include "tests/fuzz/fuzz_target.h"

namespace presence::edge {
namespace {

template <typename Text>
std::vector<Text> Items(std::string_view text) {
  std::vector<Text> items;
  while (!text.empty()) {
    const size_t comma = std::min(text.find(','), text.size());
    if (comma > 0) items.emplace_back(text.substr(0, comma));
    text.remove_prefix(std::min(comma + 1, text.size()));
  }
  return items;
}

void CheckAddress(std::string_view text) {
  const std::optional<PeerAddress> address = PeerAddress::Parse(text);
  if (!address) return;
  PRESENCE_CHECK(PeerAddress::Parse(address->ToString()) == address, "an address survives being written");
  PRESENCE_CHECK(PeerAddress::ParseForwarded(text) == address, "a plain address may stand in a header");
  PRESENCE_CHECK(address->Subscriber().Subscriber() == address->Subscriber(), "a customer is one");
}

}  // namespace
}  // namespace presence::edge

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace presence::edge;
  presence::fuzz::ByteSource in(data, size);
  const auto list = Items<std::string>(in.Line());
  const auto forwarded = Items<std::string_view>(in.rest());
  for (const std::string_view one : forwarded) CheckAddress(one);
  const PeerAddress peer = *PeerAddress::Parse("192.0.2.1");

  // Who is trusted by nobody speaks for himself alone.
  const auto alone = TrustedProxies().ClientOf(peer, forwarded);
  PRESENCE_CHECK(alone.address == peer && !alone.exempt, "a stranger's header counts for nothing");

  const auto proxies = TrustedProxies::Parse(list);
  if (!proxies.ok()) return 0;
  const auto client = proxies->ClientOf(peer, forwarded);
  if (!proxies->Contains(peer)) {
    PRESENCE_CHECK(client.address == peer && !client.exempt, "a stranger's header counts for nothing");
  }
  if (client.exempt) PRESENCE_CHECK(proxies->Contains(client.address), "no stranger is exempt from limits");
  if (client.malformed) PRESENCE_CHECK(!client.exempt, "who cannot be read is not exempt");
  return 0;
}
