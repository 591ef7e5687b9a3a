// The command line of presence-load.
#pragma once

#include <chrono>
#include <cstddef>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "tests/bench/process_usage.h"

namespace presence::bench {

enum class Scenario { kIdle, kFanout };

struct LoadOptions {
  Scenario scenario = Scenario::kIdle;
  std::vector<std::string> edges = {"127.0.0.1:8006"};
  std::string authorities;  // wss; empty: ws
  size_t connections = 1000;
  size_t connecting_max = 256;
  std::chrono::seconds patience{10};  // without any progress
  std::vector<ProcessName> processes;

  // Who connects: everybody with `token`, or `users` users in turn, with tokens signed here.
  std::string token;
  size_t users = 100;
  std::string key_path;
  std::string issuer = "presence-cli";
  std::string audience;

  // idle
  std::chrono::seconds hold{30};
  std::chrono::seconds ping_interval{25};
  size_t rooms = 0;  // connection i subscribes to channel_load-{i % rooms}; 0: to none

  // fanout
  std::string room = "channel_load";
  size_t messages = 1000;
  size_t payload_bytes = 200;  // of the whole JSON object that is published
  size_t outstanding_max = 20'000;
  size_t messages_per_second = 0;  // 0: as many as outstanding_max lets through
  std::string redis = "127.0.0.1:6379";
  std::string redis_password;
};

// `arguments`: without the program's name. INVALID_ARGUMENT with a sentence for people.
absl::StatusOr<LoadOptions> ParseLoadOptions(const std::vector<std::string>& arguments);

std::string LoadHelp();

}  // namespace presence::bench
