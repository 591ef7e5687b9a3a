#include "edge/cli/options.h"

#include <algorithm>
#include <charconv>

#include "common/log.h"
#include "edge/cli/ws_connection.h"

namespace presence::edge::cli {
namespace {

using std::chrono::seconds;

constexpr std::pair<std::string_view, Command> kCommands[] = {
    {"auto", Command::kAuto},   {"interactive", Command::kInteractive},
    {"token", Command::kToken}, {"keys", Command::kKeys},
    {"help", Command::kHelp},
};

const std::vector<std::string_view> kFlags = {"url",           "ca",       "token",     "token-in", "timeout",
                                              "ping-interval", "user",     "name",      "key",      "expires",
                                              "issuer",        "audience", "client-id", "out",      "help"};

absl::Status Wrong(const std::string& message) {
  return absl::InvalidArgumentError(message);
}

std::string Quoted(std::string_view text) {
  return "\"" + Escaped(RedactToken(text)) + "\"";
}

// The first item of a comma-separated list.
std::string First(const std::string& list) {
  return list.substr(0, list.find(','));
}

// The settings that the edge of the same shell has, so that its tokens fit.
void TakeEnvironment(const Environment& environment, Options* options) {
  const auto take = [&](const char* name, std::string* field) {
    if (auto value = environment(name); value && !value->empty()) *field = First(*value);
  };
  if (auto url = environment("PRESENCE_URL"); url && !url->empty()) options->url = *url;
  take("PRESENCE_CA", &options->authorities);
  take("PRESENCE_TOKEN", &options->token);
  take("PRESENCE_DEV_KEY", &options->key_path);
  std::string keycloak;
  std::string realm = "colink";
  take("KEYCLOAK_URL", &keycloak);
  take("KEYCLOAK_REALM", &realm);
  while (!keycloak.empty() && keycloak.back() == '/') keycloak.pop_back();
  if (!keycloak.empty()) options->issuer = keycloak + "/realms/" + realm;
  take("JWT_ISSUER", &options->issuer);
  take("JWT_AUDIENCE", &options->audience);
  take("KEYCLOAK_CLIENT_ID", &options->client_id);
}

absl::Status TakeSpan(const std::string& flag, const std::string& value, bool may_be_zero, Duration* field) {
  const auto span = ParseSpan(value);
  if (!span || *span < seconds(may_be_zero ? 0 : 1) || *span > std::chrono::hours(24)) {
    return Wrong("--" + flag + "=" + Escaped(value) + ": expected a time such as 5s or 2m, at most 24h");
  }
  *field = *span;
  return absl::OkStatus();
}

absl::Status TakeFlag(const std::string& flag, const std::string& value, Options* options) {
  if (flag == "url") {
    options->url = value;
    return ParseWsUrl(value).status();
  }
  if (flag == "timeout") return TakeSpan(flag, value, false, &options->timeout);
  if (flag == "ping-interval") return TakeSpan(flag, value, true, &options->ping_interval);
  if (flag == "expires") {
    const auto span = ParseSpan(value);
    if (!span) return Wrong("--expires=" + Escaped(value) + ": expected a time such as 90s, 30m, 1h or 7d");
    options->expires = *span;
    return absl::OkStatus();
  }
  if (flag == "token-in") {
    if (value == "header") {
      options->token_place = TokenPlace::kHeader;
    } else if (value == "url") {
      options->token_place = TokenPlace::kUrl;
    } else if (value == "subprotocol") {
      options->token_place = TokenPlace::kSubprotocol;
    } else {
      return Wrong("--token-in=" + Escaped(value) + ": expected header, url or subprotocol");
    }
    return absl::OkStatus();
  }
  std::string* field = flag == "token"       ? &options->token
                       : flag == "ca"        ? &options->authorities
                       : flag == "user"      ? &options->user
                       : flag == "name"      ? &options->name
                       : flag == "key"       ? &options->key_path
                       : flag == "issuer"    ? &options->issuer
                       : flag == "audience"  ? &options->audience
                       : flag == "client-id" ? &options->client_id
                                             : &options->out_dir;
  *field = value;
  return absl::OkStatus();
}

absl::StatusOr<Command> ParseCommand(const std::string& word) {
  std::vector<std::string_view> names;
  for (const auto& [name, command] : kCommands) {
    if (name == word) return command;
    names.push_back(name);
  }
  const auto nearest = Nearest(word, names);
  return Wrong("unknown command " + Quoted(word) +
               (nearest ? ": did you mean \"" + *nearest + "\"?" : ": there are auto, interactive, token and keys"));
}

absl::Status CheckTogether(const Options& options, bool user_given) {
  if (options.command == Command::kKeys && options.out_dir.empty()) {
    return Wrong("keys needs a folder: presence-cli keys --out build/dev-keys");
  }
  if (options.command == Command::kToken && !user_given) {
    return Wrong("token needs a user: presence-cli token --user alice");
  }
  if (options.user.empty()) return Wrong("--user is empty: a token without a user is refused");
  return absl::OkStatus();
}

}  // namespace

std::optional<seconds> ParseSpan(std::string_view text) {
  int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const std::string_view unit = text.substr(static_cast<size_t>(end - text.data()));
  constexpr int64_t kMax = int64_t{1} << 32;
  if (error != std::errc() || number > kMax || number < -kMax) return std::nullopt;
  if (unit.empty() || unit == "s") return seconds(number);
  if (unit == "m") return seconds(number * 60);
  if (unit == "h") return seconds(number * 3600);
  if (unit == "d") return seconds(number * 86400);
  return std::nullopt;
}

std::optional<std::string> Nearest(std::string_view word, const std::vector<std::string_view>& words) {
  // The same beginning, or the same letters but one: enough for a handful of short words.
  for (const std::string_view candidate : words) {
    if (!word.empty() && (candidate.substr(0, word.size()) == word || word.substr(0, candidate.size()) == candidate)) {
      return std::string(candidate);
    }
  }
  for (const std::string_view candidate : words) {
    size_t front = 0;
    while (front < std::min(word.size(), candidate.size()) && word[front] == candidate[front]) ++front;
    size_t back = 0;
    while (back < std::min(word.size(), candidate.size()) - front &&
           word[word.size() - 1 - back] == candidate[candidate.size() - 1 - back]) {
      ++back;
    }
    const size_t longest = std::max(word.size(), candidate.size());
    if (longest > 2 && longest - front - back <= 2 && front + back >= longest / 2) return std::string(candidate);
  }
  return std::nullopt;
}

absl::StatusOr<Options> ParseOptions(const std::vector<std::string>& arguments, const Environment& environment) {
  Options options;
  TakeEnvironment(environment, &options);
  if (const auto url = ParseWsUrl(options.url); !url.ok()) {
    return Wrong("PRESENCE_URL: " + std::string(url.status().message()));
  }
  bool command_given = false;
  bool user_given = false;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const std::string& argument = arguments[i];
    if (argument == "-h" || argument == "--help") {
      options.command = Command::kHelp;
      return options;
    }
    if (argument.substr(0, 2) != "--") {
      if (command_given) return Wrong("unexpected argument " + Quoted(argument) + ": options are written --name=value");
      const auto command = ParseCommand(argument);
      if (!command.ok()) return command.status();
      options.command = *command;
      command_given = true;
      continue;
    }
    const size_t equals = argument.find('=');
    const std::string flag = argument.substr(2, equals == std::string::npos ? equals : equals - 2);
    if (std::find(kFlags.begin(), kFlags.end(), flag) == kFlags.end()) {
      const auto nearest = Nearest(flag, kFlags);
      return Wrong("unknown option --" + Escaped(flag) +
                   (nearest ? ": did you mean --" + *nearest + "?" : ": presence-cli --help lists all"));
    }
    std::string value;
    if (equals != std::string::npos) {
      value = argument.substr(equals + 1);
    } else if (i + 1 < arguments.size() && arguments[i + 1].substr(0, 2) != "--") {
      value = arguments[++i];
    } else {
      return Wrong("--" + flag + " has no value: write --" + flag + "=...");
    }
    if (const auto taken = TakeFlag(flag, value, &options); !taken.ok()) return taken;
    user_given = user_given || flag == "user";
  }
  if (const auto good = CheckTogether(options, user_given); !good.ok()) return good;
  if (options.name.empty()) options.name = options.user;
  return options;
}

std::string HelpText() {
  return R"help(presence-cli: test client of the presence service.

Usage: presence-cli [COMMAND] [--name=value]...

Commands
  interactive      a prompt for commands; prints what arrives. The default.
  auto             runs seven steps against the service and says which are good; exit code 0: all are
  token            prints a token that is signed with the development key
  keys             makes a development key pair
  help             this text

Connecting (interactive, auto)
  --url URL        the service                                  [PRESENCE_URL; ws://localhost:8006/ws]
  --ca FILE        wss: who may have signed the certificate     [PRESENCE_CA; the system's authorities]
  --token TOKEN    who you are                                  [PRESENCE_TOKEN; signed with the development key]
  --token-in WAY   how it is sent: header, url or subprotocol   [header]
  --timeout T      for the handshake, and each answer in auto   [5s]
  --ping-interval T  interactive: pings by itself; 0: never     [20s]

Development tokens (token; interactive and auto when no token is given)
  --user ID        the user id (claim sub)                      [alice; token: required]
  --name NAME      the user's name (claim preferred_username)   [as the user id]
  --expires T      how long it is good: 90s, 30m, 1h, 7d        [1h]; a negative one is over already
  --key FILE       the private key, PEM                         [PRESENCE_DEV_KEY; build/dev-keys/private.pem]
  --issuer TEXT    claim iss              [JWT_ISSUER; KEYCLOAK_URL/realms/KEYCLOAK_REALM; presence-cli]
  --audience TEXT  claim aud              [JWT_AUDIENCE; none]
  --client-id TEXT claim azp              [KEYCLOAK_CLIENT_ID; presence-cli]

Development keys (keys)
  --out DIR        gets private.pem (keep it) and jwks.json (for the edge: JWKS_FILE)

Examples
  presence-cli keys --out build/dev-keys
  presence-edge --jwks_file=build/dev-keys/jwks.json
  presence-cli auto
  presence-cli --user bob
  wscat -c "ws://localhost:8006/ws?token=$(presence-cli token --user alice)"

Exit codes: 0 good, 1 the service did not do what it should or cannot be reached, 2 wrong usage.
)help";
}

}  // namespace presence::edge::cli
