// presence-cli: the specification's test client. See options.cc for its help.
#include <unistd.h>

#include <clocale>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "edge/cli/auto_test.h"
#include "edge/cli/dev_keys.h"
#include "edge/cli/interactive.h"
#include "edge/cli/options.h"

namespace {

using namespace presence::edge::cli;

constexpr int kGood = 0, kFailed = 1, kWrongUsage = 2;

int Complain(const absl::Status& status, int exit_code) {
  std::fprintf(stderr, "presence-cli: %s\n", std::string(status.message()).c_str());
  return exit_code;
}

void PrintLine(const std::string& line) {
  std::puts(line.c_str());
  std::fflush(stdout);
}

std::string ProgramPath() {
  char path[4096];
  const ssize_t size = readlink("/proc/self/exe", path, sizeof path);
  return size > 0 ? std::string(path, static_cast<size_t>(size)) : std::string();
}

absl::StatusOr<std::string> SignToken(const Options& options) {
  const auto key = FindKey(options, ProgramPath());
  if (!key.ok()) return key.status();
  return SignDevelopmentToken(options, *key, presence::ReadClocks().wall);
}

int MakeKeys(const Options& options) {
  const auto files = CreateKeys(options.out_dir);
  if (!files.ok()) return Complain(files.status(), kFailed);
  PrintLine("private key: " + files->private_key + "  (signs tokens; only you can read it)");
  PrintLine("public keys: " + files->jwks + "  (for the edge: JWKS_FILE=" + files->jwks + ")");
  return kGood;
}

int PrintToken(const Options& options) {
  const auto token = SignToken(options);
  if (!token.ok()) return Complain(token.status(), kWrongUsage);
  PrintLine(*token);
  return kGood;
}

int Connect(const Options& options) {
  auto token = options.token.empty() ? SignToken(options) : absl::StatusOr<std::string>(options.token);
  if (!token.ok()) return Complain(token.status(), kWrongUsage);
  if (options.command == Command::kAuto) return RunAutoTest(options, *token, PrintLine) ? kGood : kFailed;
  const auto ended = RunInteractive(options, *token);
  return ended.ok() ? kGood : Complain(ended, kFailed);
}

}  // namespace

int main(int argc, char** argv) {
  std::setlocale(LC_CTYPE, "");  // for letters beyond ASCII in what is typed
  const auto options = ParseOptions(std::vector<std::string>(argv + 1, argv + argc),
                                    [](const std::string& name) -> std::optional<std::string> {
                                      const char* value = std::getenv(name.c_str());
                                      return value == nullptr ? std::nullopt : std::optional<std::string>(value);
                                    });
  if (!options.ok()) return Complain(options.status(), kWrongUsage);
  switch (options->command) {
    case Command::kHelp:
      std::fputs(HelpText().c_str(), stdout);
      return kGood;
    case Command::kKeys:
      return MakeKeys(*options);
    case Command::kToken:
      return PrintToken(*options);
    case Command::kAuto:
    case Command::kInteractive:
      break;
  }
  return Connect(*options);
}
