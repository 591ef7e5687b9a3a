#include "tests/bench/load_options.h"

#include <charconv>
#include <functional>
#include <map>
#include <string_view>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace presence::bench {
namespace {

using Setter = std::function<bool(const std::string& value)>;

template <typename Number>
bool ParseNumber(std::string_view text, Number* number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *number);
  return error == std::errc() && end == text.data() + text.size();
}

Setter Text(std::string* target) {
  return [target](const std::string& value) {
    *target = value;
    return true;
  };
}

Setter Number(size_t* target) {
  return [target](const std::string& value) { return ParseNumber(value, target); };
}

Setter Seconds(std::chrono::seconds* target) {
  return [target](const std::string& value) {
    int64_t seconds = 0;
    if (!ParseNumber(value, &seconds) || seconds < 0) return false;
    *target = std::chrono::seconds(seconds);
    return true;
  };
}

Setter List(std::vector<std::string>* target) {
  return [target](const std::string& value) {
    *target = absl::StrSplit(absl::string_view(value.data(), value.size()), ',', absl::SkipEmpty());
    return !target->empty();
  };
}

Setter Process(std::vector<ProcessName>* target) {
  return [target](const std::string& value) {
    const size_t equals = value.find('=');
    ProcessName process;
    if (equals == std::string::npos || !ParseNumber(std::string_view(value).substr(equals + 1), &process.pid)) {
      return false;
    }
    process.label = value.substr(0, equals);
    target->push_back(process);
    return true;
  };
}

}  // namespace

absl::StatusOr<LoadOptions> ParseLoadOptions(const std::vector<std::string>& arguments) {
  LoadOptions options;
  if (arguments.empty()) return absl::InvalidArgumentError("say idle or fanout");
  if (arguments[0] == "idle") {
    options.scenario = Scenario::kIdle;
  } else if (arguments[0] == "fanout") {
    options.scenario = Scenario::kFanout;
  } else {
    return absl::InvalidArgumentError(absl::StrCat("there is no scenario '", arguments[0], "': idle or fanout"));
  }
  const std::map<std::string, Setter> setters = {
      {"--edge", List(&options.edges)},
      {"--ca", Text(&options.authorities)},
      {"--connections", Number(&options.connections)},
      {"--connecting", Number(&options.connecting_max)},
      {"--patience", Seconds(&options.patience)},
      {"--pid", Process(&options.processes)},
      {"--token", Text(&options.token)},
      {"--users", Number(&options.users)},
      {"--key", Text(&options.key_path)},
      {"--issuer", Text(&options.issuer)},
      {"--audience", Text(&options.audience)},
      {"--seconds", Seconds(&options.hold)},
      {"--ping", Seconds(&options.ping_interval)},
      {"--rooms", Number(&options.rooms)},
      {"--room", Text(&options.room)},
      {"--messages", Number(&options.messages)},
      {"--payload", Number(&options.payload_bytes)},
      {"--outstanding", Number(&options.outstanding_max)},
      {"--rate", Number(&options.messages_per_second)},
      {"--redis", Text(&options.redis)},
      {"--redis-password", Text(&options.redis_password)},
  };
  for (size_t i = 1; i < arguments.size(); i += 2) {
    const auto setter = setters.find(arguments[i]);
    if (setter == setters.end()) {
      return absl::InvalidArgumentError(absl::StrCat("there is no option '", arguments[i], "'"));
    }
    if (i + 1 == arguments.size() || !setter->second(arguments[i + 1])) {
      return absl::InvalidArgumentError(absl::StrCat(arguments[i], " needs a value of its kind"));
    }
  }
  if (options.connections == 0 || options.connecting_max == 0 || options.users == 0 || options.messages == 0 ||
      options.ping_interval.count() == 0) {
    return absl::InvalidArgumentError("numbers of things start at 1");
  }
  if (options.token.empty() && options.key_path.empty()) {
    return absl::InvalidArgumentError("say --token, or --key with the private key of the edge's JWKS_FILE");
  }
  return options;
}

std::string LoadHelp() {
  return R"(presence-load: many WebSocket clients in one process, and what they cost the server.

  presence-load idle   --connections 10000 --seconds 30 --pid edge=PID --pid core=PID --key FILE
  presence-load fanout --connections 1000 --messages 1000 --redis 127.0.0.1:6379 --pid edge=PID --key FILE

For both
  --edge A,B         addresses of edges, IPv4:port; connections take turns     127.0.0.1:8006
  --ca FILE          speak wss, and trust whom this PEM file holds             ws
  --connections N                                                              1000
  --connecting N     handshakes under way at once                              256
  --patience S       seconds without any progress, then it is a failure        10
  --pid NAME=PID     a process to measure; may be repeated
  --token T          for everybody; or:
  --users K          users that the connections belong to, in turn             100
  --key FILE         private key to sign their tokens (presence-cli keys)
  --issuer, --audience   of those tokens                                       presence-cli, none

idle: opens, waits, reports memory per connection
  --seconds S        how long                                                  30
  --ping S           each client says {"type":"ping"} that often               25
  --rooms N          each is in one of so many rooms                           0

fanout: publishes into a room that everybody is in, counts each delivery
  --room R, --messages N, --payload BYTES                                      channel_load, 1000, 200
  --outstanding N    deliveries published and not yet received, at most        20000
  --rate N           messages per second at most; 0: no limit                  0
  --redis A, --redis-password P                                                127.0.0.1:6379, none

Ends with 1 when a connection closed, or a message was lost, doubled or out of order.
)";
}

}  // namespace presence::bench
