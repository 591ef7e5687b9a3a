// What the command line of presence-cli says: parsed and checked in one place, before anything is opened.
//
// Pure: arguments and environment are inputs. Errors are INVALID_ARGUMENT with a sentence that says what to write instead.
#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "common/time.h"

namespace presence::edge::cli {

enum class Command { kInteractive, kAuto, kToken, kKeys, kHelp };

// How the token travels in the handshake.
enum class TokenPlace { kHeader, kUrl, kSubprotocol };

struct Options {
  Command command = Command::kInteractive;

  // Where to connect.
  std::string url = "ws://localhost:8006/ws";
  std::string token;  // empty: signed with the development key
  TokenPlace token_place = TokenPlace::kHeader;
  std::string authorities;                            // for wss: PEM file with whom to trust; empty: the system's
  Duration timeout = std::chrono::seconds(5);         // for the handshake, and for each answer in `auto`
  Duration ping_interval = std::chrono::seconds(20);  // in `interactive`; zero: only when asked

  // What a development token says.
  std::string user = "alice";
  std::string name;      // empty: as the user
  std::string key_path;  // empty: looked for, see dev_keys.h
  std::chrono::seconds expires = std::chrono::hours(1);
  std::string issuer = "presence-cli";
  std::string audience;  // empty: none
  std::string client_id = "presence-cli";

  std::string out_dir;  // of `keys`
};

using Environment = std::function<std::optional<std::string>(const std::string& name)>;

// `arguments`: without the program's name. From the environment: PRESENCE_URL, PRESENCE_CA, PRESENCE_TOKEN, PRESENCE_DEV_KEY, and the edge's own
// JWT_ISSUER, KEYCLOAK_URL, KEYCLOAK_REALM, JWT_AUDIENCE and KEYCLOAK_CLIENT_ID, so that a token fits the edge of the same shell.
absl::StatusOr<Options> ParseOptions(const std::vector<std::string>& arguments, const Environment& environment);

// "90", "90s", "30m", "1h", "7d"; negative ones for tokens that are over.
std::optional<std::chrono::seconds> ParseSpan(std::string_view text);

std::string HelpText();

// The one of `words` that `word` most likely means; nothing when none is near.
std::optional<std::string> Nearest(std::string_view word, const std::vector<std::string_view>& words);

}  // namespace presence::edge::cli
