#include <charconv>
#include <string>

#include "core/redis_connection.h"

namespace presence::core {
namespace {

constexpr char kForm[] = "write redis://[[user]:password@]host[:port][/database] or unix:///path/to/redis.sock";

absl::Status Invalid(const std::string& what) {
  return absl::InvalidArgumentError("REDIS_URL: " + what + "; " + kForm);
}

template <typename Number>
bool ParseNumber(std::string_view text, Number* number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *number);
  return error == std::errc() && end == text.data() + text.size();
}

bool PercentDecode(std::string_view text, std::string* out) {
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out->push_back(text[i]);
      continue;
    }
    unsigned byte = 0;
    const std::string_view digits = text.substr(i + 1, 2);
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), byte, 16);
    if (digits.size() != 2 || error != std::errc() || end != digits.data() + 2) return false;
    out->push_back(static_cast<char>(byte));
    i += 2;
  }
  return true;
}

bool TakePrefix(std::string_view prefix, std::string_view* text) {
  if (!text->starts_with(prefix)) return false;
  text->remove_prefix(prefix.size());
  return true;
}

absl::StatusOr<RedisAddress> ParseUnix(std::string_view rest) {
  RedisAddress address;
  if (const size_t query = rest.find('?'); query != std::string_view::npos) {
    std::string_view option = rest.substr(query + 1);
    if (!TakePrefix("db=", &option) || !ParseNumber(option, &address.database)) {
      return Invalid("of what follows `?` only db=NUMBER is understood");
    }
    rest = rest.substr(0, query);
  }
  if (!rest.starts_with('/')) return Invalid("the path of a unix socket must start with `/`");
  address.unix_path = rest;
  return address;
}

absl::StatusOr<RedisAddress> ParseTcp(std::string_view rest) {
  RedisAddress address;
  if (const size_t at = rest.rfind('@'); at != std::string_view::npos) {
    const std::string_view login = rest.substr(0, at);
    const size_t colon = login.find(':');
    if (colon == std::string_view::npos) return Invalid("there is a user, but no password, in front of `@`");
    if (!PercentDecode(login.substr(0, colon), &address.user) ||
        !PercentDecode(login.substr(colon + 1), &address.password)) {
      return Invalid("a `%` in user or password must be written as %25");
    }
    rest.remove_prefix(at + 1);
  }
  if (const size_t slash = rest.find('/'); slash != std::string_view::npos) {
    const std::string_view database = rest.substr(slash + 1);
    if (!database.empty() && !ParseNumber(database, &address.database)) {
      return Invalid("the database behind the last `/` must be a number");
    }
    rest = rest.substr(0, slash);
  }
  std::string_view port;
  if (rest.starts_with('[')) {
    const size_t bracket = rest.find(']');
    if (bracket == std::string_view::npos) return Invalid("the `[` of an IPv6 address has no `]`");
    address.host = rest.substr(1, bracket - 1);
    port = rest.substr(bracket + 1);
  } else {
    const size_t colon = rest.find(':');
    address.host = rest.substr(0, colon);
    if (colon != std::string_view::npos) port = rest.substr(colon);
  }
  if (address.host.empty()) return Invalid("there is no host");
  if (!port.empty() && (!TakePrefix(":", &port) || !ParseNumber(port, &address.port) || address.port == 0)) {
    return Invalid("the port must be a number from 1 to 65535");
  }
  return address;
}

}  // namespace

absl::StatusOr<RedisAddress> ParseRedisUrl(std::string_view url) {
  if (TakePrefix("rediss://", &url)) {
    return absl::InvalidArgumentError(
        "REDIS_URL: rediss:// (TLS) is not spoken here; run a TLS tunnel, such as stunnel, on this host and name it "
        "with "
        "redis://");
  }
  if (TakePrefix("unix://", &url)) return ParseUnix(url);
  if (TakePrefix("redis://", &url)) return ParseTcp(url);
  return Invalid("it starts neither with redis:// nor with unix://");
}

std::string RedisAddress::ToString() const {
  if (!unix_path.empty()) return "unix://" + unix_path;
  const bool bracketed = host.find(':') != std::string::npos;
  return "redis://" + (bracketed ? "[" + host + "]" : host) + ":" + std::to_string(port) + "/" +
         std::to_string(database);
}

}  // namespace presence::core
