// A RedisStore on a real server that is not well, in real time: each test waits for what it expects, with a deadline
// far behind it.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <asio/io_context.hpp>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/redis_store.h"
#include "tests/fakes/redis_server.h"
#include "tests/fakes/store_backend.h"

namespace presence::core {

using std::chrono::milliseconds;
using std::chrono::seconds;
using std::chrono::steady_clock;
using testing::HasSubstr;

class RedisFailure : public testing::Test {
 protected:
  using Outcome = WriteResult::Outcome;

  void SetUp() override {
    ASSERT_TRUE(RedisServer::Available()) << "redis-server is not installed: scripts/test installs it";
    server_ = std::make_unique<RedisServer>();
  }

  void Attach(const std::string& url) {
    RedisStoreOptions options;
    options.address = *ParseRedisUrl(url);
    options.store = store_options_;
    options.clock = clock_;
    store_ = std::make_unique<RedisStore>(io_, options, heard_);
  }
  void AttachAndComeUp() {
    Attach(server_->UnixUrl());
    ASSERT_TRUE(RunUntil([&] { return heard_.ups == 1; }));
  }

  template <typename Condition>
  bool RunUntil(Condition condition, milliseconds at_most = seconds(20)) {
    const auto deadline = steady_clock::now() + at_most;
    while (!condition()) {
      if (steady_clock::now() > deadline) return false;
      io_.run_one_for(milliseconds(50));
    }
    return true;
  }

  // The test's own time, and nothing is ever quiet.
  void AttachLoudAndComeUp() {
    store_options_.quiet_period = milliseconds(0);
    clock_ = [this] { return now_; };
    AttachAndComeUp();
    Sweep();
  }
  void Sweep() {
    store_->Sweep(100);
    EXPECT_TRUE(HearsTheBus());
  }

  uint64_t SendWrite(std::string_view user = "u1") {
    PresenceWrite write;
    write.id = ++last_id_;
    write.key = {7, 7};
    write.attach = 1;
    write.user_id = user;
    store_->Write(write);
    return write.id;
  }
  Outcome Write(std::string_view user = "u1") {
    const uint64_t id = SendWrite(user);
    EXPECT_TRUE(RunUntil([&] { return heard_.written.contains(id); }));
    return heard_.written[id].outcome;
  }
  uint64_t SendRefresh(const std::vector<std::string_view>& users) {
    std::vector<RefreshEntry> entries;
    for (const std::string_view user : users) entries.push_back({{7, 7}, 1, user, false});
    store_->Refresh(++last_id_, entries);
    return last_id_;
  }
  std::vector<uint32_t> Refresh(const std::vector<std::string_view>& users) {
    const uint64_t id = SendRefresh(users);
    EXPECT_TRUE(RunUntil([&] { return heard_.refreshed.contains(id); })) << "no answer";
    return heard_.refreshed[id];
  }
  absl::StatusOr<ChangeLog> Changes(uint64_t since = 0) {
    store_->ReadChanges(++last_id_, since);
    EXPECT_TRUE(RunUntil([&] { return heard_.changes.contains(last_id_); }));
    return heard_.changes.at(last_id_);
  }
  std::string Stored(std::string_view user) {
    return server_->Command({"GET", std::string("presence:").append(user)}).text;
  }
  OnceResult PublishOnce(std::string_view request_id, std::string_view fingerprint) {
    const uint64_t id = ++last_id_;
    store_->PublishOnce(id, request_id, fingerprint, {}, "");
    EXPECT_TRUE(RunUntil([&] { return heard_.once.contains(id); })) << "no answer";
    return heard_.once[id];
  }
  absl::StatusOr<std::vector<uint64_t>> Announce() {
    const size_t before = heard_.cores.size();
    store_->Announce();
    EXPECT_TRUE(RunUntil([&] { return heard_.cores.size() > before; })) << "no answer";
    return heard_.cores.back();
  }
  absl::StatusOr<std::vector<StoredPresence>> GetMany(const std::vector<std::string>& users) {
    std::optional<absl::StatusOr<std::vector<StoredPresence>>> answer;
    store_->GetPresences(users, [&](const auto& presences) { answer = presences; });
    EXPECT_TRUE(RunUntil([&] { return answer.has_value(); })) << "no answer";
    return *answer;
  }
  bool HearsTheBus() {
    link::v1::BusEnvelope envelope;
    envelope.set_sequence(++last_id_);
    store_->Publish(last_id_, envelope, "");
    return RunUntil([&] { return !heard_.bus.empty() && heard_.bus.back().sequence() == last_id_; });
  }

  std::unique_ptr<RedisServer> server_;
  asio::io_context io_;
  RecordingListener heard_;
  StoreOptions store_options_{.core_incarnation = 1};
  WallTime now_ = FromUnixMillis(1'736'856'000'000);
  std::function<WallTime()> clock_;  // empty: Redis' own
  std::unique_ptr<RedisStore> store_;
  uint64_t last_id_ = 0;
};

}  // namespace presence::core
