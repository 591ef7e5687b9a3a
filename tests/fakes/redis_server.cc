#include "tests/fakes/redis_server.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <hiredis/hiredis.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>
#include <thread>

namespace presence {
namespace {

constexpr std::chrono::seconds kStartMax{20};

[[noreturn]] void Die(const std::string& why) {
  std::fprintf(stderr, "redis_server: %s\n", why.c_str());
  std::abort();
}

// Redis takes it a moment later, and again when it is restarted: so it is none of those that the kernel gives to outgoing connections.
uint16_t FreePort() {
  uint32_t below = 0;
  std::ifstream("/proc/sys/net/ipv4/ip_local_port_range") >> below;
  if (below == 0) Die("/proc does not say which ports are for outgoing connections");
  std::random_device random;
  std::uniform_int_distribution<uint32_t> any(std::min(10'000u, below / 2), below - 1);
  for (int attempt = 0; attempt < 1000; ++attempt) {
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(static_cast<uint16_t>(any(random)));
    const bool free = bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
    close(fd);
    if (free) return ntohs(address.sin_port);
  }
  Die("no free port");
}

RedisValue Convert(const redisReply& reply) {
  RedisValue value;
  switch (reply.type) {
    case REDIS_REPLY_INTEGER:
      value.number = reply.integer;
      break;
    case REDIS_REPLY_NIL:
      value.nil = true;
      break;
    case REDIS_REPLY_ERROR:
      value.text.push_back('-');
      [[fallthrough]];
    default:
      if (reply.str != nullptr) value.text.append(reply.str, reply.len);
  }
  for (size_t i = 0; i < reply.elements; ++i) value.list.push_back(Convert(*reply.element[i]));
  return value;
}

}  // namespace

bool RedisServer::Available() {
  return std::system("command -v redis-server >/dev/null 2>&1") == 0;
}

RedisServer::RedisServer(std::vector<std::string> further_arguments)
    : further_arguments_(std::move(further_arguments)), port_(FreePort()) {
  signal(SIGPIPE, SIG_IGN);
  std::string pattern = (std::filesystem::temp_directory_path() / "presence-redis-XXXXXX").string();
  if (mkdtemp(pattern.data()) == nullptr) Die("no temporary directory");
  directory_ = pattern;
  Start();
}

RedisServer::~RedisServer() {
  if (process_ > 0) Kill();
  std::error_code ignored;
  std::filesystem::remove_all(directory_, ignored);
}

void RedisServer::Start() {
  std::vector<std::string> arguments{"redis-server",
                                     "--port",
                                     std::to_string(port_),
                                     "--bind",
                                     "127.0.0.1",
                                     "--save",
                                     "",
                                     "--appendonly",
                                     "no",
                                     "--dir",
                                     directory_,
                                     "--unixsocket",
                                     directory_ + "/redis.sock",
                                     "--loglevel",
                                     "warning"};
  arguments.insert(arguments.end(), further_arguments_.begin(), further_arguments_.end());
  std::vector<char*> pointers;
  for (std::string& argument : arguments) pointers.push_back(argument.data());
  pointers.push_back(nullptr);

  process_ = fork();
  if (process_ < 0) Die("fork failed");
  if (process_ == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    setenv("LC_ALL", "C", 1);  // Lua's sort follows the locale
    if (const int null = open("/dev/null", O_WRONLY); null >= 0) dup2(null, STDOUT_FILENO);
    execvp(pointers[0], pointers.data());
    _exit(127);
  }
  const auto deadline = std::chrono::steady_clock::now() + kStartMax;
  while (!Connect()) {
    if (std::chrono::steady_clock::now() > deadline) Die("redis-server does not start");
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
}

bool RedisServer::Connect() {
  redisContext* context = redisConnectUnix((directory_ + "/redis.sock").c_str());
  if (context != nullptr && context->err == 0) {
    connection_ = context;
    return true;
  }
  redisFree(context);
  return false;
}

void RedisServer::Kill() {
  kill(process_, SIGKILL);
  waitpid(process_, nullptr, 0);
  process_ = -1;
  redisFree(static_cast<redisContext*>(connection_));
  connection_ = nullptr;
}

void RedisServer::Stall() {
  kill(process_, SIGSTOP);
}
void RedisServer::Resume() {
  kill(process_, SIGCONT);
}

RedisValue RedisServer::Command(const std::vector<std::string>& arguments) {
  std::vector<const char*> pointers;
  std::vector<size_t> sizes;
  for (const std::string& argument : arguments) {
    pointers.push_back(argument.data());
    sizes.push_back(argument.size());
  }
  void* reply = redisCommandArgv(static_cast<redisContext*>(connection_), static_cast<int>(pointers.size()),
                                 pointers.data(), sizes.data());
  if (reply == nullptr) Die("no answer to " + arguments[0]);
  const RedisValue value = Convert(*static_cast<redisReply*>(reply));
  freeReplyObject(reply);
  return value;
}

}  // namespace presence
