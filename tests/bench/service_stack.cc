#include "tests/bench/service_stack.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "edge/cli/dev_keys.h"

namespace presence::bench {
namespace {

namespace fs = std::filesystem;

constexpr std::chrono::seconds kStartMax{20};
constexpr size_t kTailBytes = 1'000;

std::string ReadAll(const std::string& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

[[noreturn]] void BecomeCommand(const std::vector<std::string>& command,
                                const std::vector<ChildProcess::Setting>& environment, const std::string& log_path) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  for (const ChildProcess::Setting& setting : environment) setenv(setting.name.c_str(), setting.value.c_str(), 1);
  const int log = open(log_path.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
  if (log >= 0) {
    dup2(log, STDOUT_FILENO);
    dup2(log, STDERR_FILENO);
  }
  std::vector<char*> arguments;
  for (const std::string& argument : command) arguments.push_back(const_cast<char*>(argument.c_str()));
  arguments.push_back(nullptr);
  execv(arguments[0], arguments.data());
  _exit(127);
}

}  // namespace

absl::StatusOr<std::unique_ptr<ChildProcess>> ChildProcess::Start(const std::vector<std::string>& command,
                                                                  const std::vector<Setting>& environment,
                                                                  std::string log_path) {
  if (access(command[0].c_str(), X_OK) != 0) {
    return absl::NotFoundError(absl::StrCat("no program ", command[0], ": build it first"));
  }
  const pid_t pid = fork();
  if (pid < 0) return absl::UnavailableError("fork failed");
  if (pid == 0) BecomeCommand(command, environment, log_path);
  return std::unique_ptr<ChildProcess>(new ChildProcess(pid, std::move(log_path)));
}

ChildProcess::~ChildProcess() {
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
}

absl::StatusOr<std::string> ChildProcess::AwaitWordAfter(std::string_view text) {
  const auto deadline = std::chrono::steady_clock::now() + kStartMax;
  while (true) {
    const std::string log = ReadAll(log_path_);
    if (const size_t at = log.find(text); at != std::string::npos) {
      const size_t begin = at + text.size();
      const size_t end = log.find_first_of(" ,\n", begin);
      if (end != std::string::npos) return log.substr(begin, end - begin);
    }
    siginfo_t state{};
    const bool ended =
        waitid(P_PID, static_cast<id_t>(pid_), &state, WEXITED | WNOHANG | WNOWAIT) == 0 && state.si_pid == pid_;
    if (ended || std::chrono::steady_clock::now() > deadline) {
      const std::string tail = log.size() > kTailBytes ? log.substr(log.size() - kTailBytes) : log;
      return absl::UnavailableError(absl::StrCat("a server ", ended ? "has ended" : "does not start", ":\n", tail));
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
}

absl::StatusOr<std::unique_ptr<ServiceStack>> ServiceStack::Start(const std::string& programs) {
  std::unique_ptr<ServiceStack> stack(new ServiceStack());
  if (absl::Status status = stack->StartAll(programs); !status.ok()) return status;
  return stack;
}

absl::Status ServiceStack::StartAll(const std::string& programs) {
  std::string pattern = (fs::temp_directory_path() / "presence-bench-XXXXXX").string();
  if (mkdtemp(pattern.data()) == nullptr) return absl::UnavailableError("no temporary directory");
  directory_ = pattern;
  const std::string info = redis_.Command({"INFO", "server"}).text;
  constexpr std::string_view kProcess = "process_id:";
  const size_t at = info.find(kProcess);
  if (at == std::string::npos) return absl::UnavailableError("Redis does not tell its process id");
  redis_pid_ = std::atoi(info.c_str() + at + kProcess.size());

  auto keys = edge::cli::CreateKeys(directory_);
  if (!keys.ok()) return keys.status();
  signing_key_ = keys->private_key;

  const auto start = [&](std::unique_ptr<ChildProcess>& child, const char* name,
                         const std::vector<std::string>& command,
                         const std::vector<ChildProcess::Setting>& environment) {
    auto started = ChildProcess::Start(command, environment, absl::StrCat(directory_, "/", name, ".log"));
    if (started.ok()) child = *std::move(started);
    return started.status();
  };
  absl::Status status = start(bare_, "bare", {fs::read_symlink("/proc/self/exe").string(), "bare"}, {});
  if (!status.ok()) return status;
  status = start(core_, "core", {programs + "/presence-core"},
                 {{"REDIS_URL", absl::StrCat("redis://127.0.0.1:", redis_.port(), "/0")},
                  {"CORE_NAME", "bench"},
                  {"API_LISTEN", "127.0.0.1:0"},
                  {"LINK_LISTEN", "127.0.0.1:0"},
                  {"METRICS_LISTEN", "off"},
                  // What a change costs the other clients is not a cost of the API.
                  {"PRESENCE_SCOPE", "rooms"}});
  if (!status.ok()) return status;
  const auto bare = bare_->AwaitWordAfter("listening on ");
  const auto api = core_->AwaitWordAfter("API on ");
  const auto link = core_->AwaitWordAfter("link on ");
  if (!bare.ok()) return bare.status();
  if (!api.ok() || !link.ok()) return api.ok() ? link.status() : api.status();
  bare_api_ = *bare;
  core_api_ = *api;
  status = start(edge_, "edge", {programs + "/presence-edge"},
                 {{"SERVICE_HOST", "127.0.0.1"},
                  {"SERVICE_PORT", "0"},
                  {"EDGE_NAME", "bench"},
                  {"EDGE_SHARDS", "1"},
                  {"CORE_LINK", *link},
                  {"JWKS_FILE", keys->jwks},
                  {"JWT_ISSUER", "presence-cli"},
                  // All clients are of one address.
                  {"WS_CONNECTIONS_PER_ADDRESS", "0"},
                  {"HANDSHAKES_PER_SECOND_PER_ADDRESS", "0"},
                  // A client that the machine leaves no time is not to be closed as a slow one.
                  {"WS_SEND_BUFFER_BYTES", "64MiB"}});
  if (!status.ok()) return status;
  const auto edge = edge_->AwaitWordAfter("listening on ");
  if (!edge.ok()) return edge.status();
  edge_address_ = *edge;
  return absl::OkStatus();
}

ServiceStack::~ServiceStack() {
  edge_.reset();
  core_.reset();
  bare_.reset();
  std::error_code ignored;
  fs::remove_all(directory_, ignored);
}

}  // namespace presence::bench
