// `presence-cli interactive`: a prompt for commands, while what arrives is printed above it.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "edge/cli/options.h"

namespace presence::edge::cli {

// Runs until quit, the end of the input, a signal or the end of the connection. OK: the user wanted to leave; UNAVAILABLE: the server
// closed. Edits lines when both standard input and output are terminals, else reads plain lines without a prompt, for scripts.
absl::Status RunInteractive(const Options& options, const std::string& token);

}  // namespace presence::edge::cli
