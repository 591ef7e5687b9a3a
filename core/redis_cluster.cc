// What cores say to each other through Redis: publications, replies, who is live. See redis_store.h.
#include <algorithm>
#include <chrono>
#include <string>
#include <utility>
#include <vector>

#include "core/core_text.h"
#include "core/logout_name.h"
#include "core/redis_store.h"

namespace presence::core {
namespace {

// What publish_once.lua answers.
constexpr OnceResult::Outcome kOutcomes[] = {OnceResult::Outcome::kPublished, OnceResult::Outcome::kRepeated,
                                             OnceResult::Outcome::kConflict};

}  // namespace

void RedisStore::Publish(uint64_t id, const link::v1::BusEnvelope& envelope, std::string_view outside) {
  envelope.SerializeToString(&message_bytes_);
  command_.Start(3).Add("PUBLISH").Add(kBusChannel).Add(message_bytes_);
  Send([this, id](RedisReply reply) { listener_.OnPublished(id, Usable(reply)); });
  if (outside.empty()) return;
  command_.Start(3).Add("PUBLISH").Add(kMessagesChannel).Add(outside);
  Send([this](RedisReply reply) { Usable(reply); });
}

void RedisStore::PublishOnce(uint64_t id, std::string_view request_id, std::string_view fingerprint,
                             const link::v1::BusEnvelope& envelope, std::string_view outside) {
  envelope.SerializeToString(&message_bytes_);
  const std::chrono::milliseconds lifetime = options_.store.request_lifetime;
  StartScript(publish_once_head_, RequestKey(request_id), 5)
      .Add("publish")
      .Add(fingerprint)
      .Add(message_bytes_)
      .Add(outside)
      .Add(int64_t{lifetime.count()});
  Send([this, id](RedisReply reply) {
    OnceResult result;
    if (Usable(reply) && reply.size() == 2) {
      const auto outcome = static_cast<uint64_t>(reply[0].number());
      if (outcome < std::size(kOutcomes)) result.outcome = kOutcomes[outcome];
      result.answer = reply[1].text();
    }
    listener_.OnPublishedOnce(id, result);
  });
}

void RedisStore::SaveAnswer(std::string_view request_id, std::string_view answer) {
  StartScript(publish_once_head_, RequestKey(request_id), 2).Add("save").Add(answer);
  Send([this](RedisReply reply) { Usable(reply); });
}

void RedisStore::KeepLogout(uint64_t id, const Logout& logout) {
  StartScript(keep_logout_head_, kLogoutsKey, 6).Add("keep");
  AddTime()
      .Add(LogoutName(logout))
      .Add(logout.logged_out_at_ms)
      .Add(int64_t{options_.store.logout_lifetime.count()})
      .Add(int64_t{std::chrono::milliseconds(options_.store.change_log_lifetime).count()});
  Send([this, id](RedisReply reply) { listener_.OnLogoutKept(id, Usable(reply)); });
}

void RedisStore::ReadLogouts(std::chrono::milliseconds within) {
  const bool in_log = within <= options_.store.change_log_lifetime;
  StartScript(keep_logout_head_, kLogoutsKey, 4).Add("read");
  AddTime().Add(int64_t{within.count()}).Add(int64_t{kLogoutsMax});
  Send([this, in_log](RedisReply reply) {
    if (!Usable(reply) || reply.size() != 2)
      return listener_.OnLogoutsRead(absl::UnavailableError("the store is away"));
    LogoutLog log;
    log.complete = in_log && reply[0].number() == 1;
    for (size_t i = 0; i < reply[1].size(); ++i) {
      if (auto logout = ParseLogoutName(reply[1][i].text())) log.logouts.push_back(*std::move(logout));
    }
    listener_.OnLogoutsRead(log);
  });
}

void RedisStore::Announce() {
  StartScript(announce_head_, kCoresKey, 3).Add(core_).Add(int64_t{options_.store.core_lifetime.count()});
  AddTime();
  Send([this](RedisReply reply) {
    if (!Usable(reply)) return listener_.OnCoresRead(absl::UnavailableError("the store is away"));
    std::vector<uint64_t> cores;
    cores.reserve(reply.size());
    for (size_t i = 0; i < reply.size(); ++i) {
      // What somebody else has put there is no core, and goes by its age.
      if (const auto core = ParseCore(reply[i].text())) cores.push_back(*core);
    }
    std::sort(cores.begin(), cores.end());
    listener_.OnCoresRead(std::move(cores));
  });
}

void RedisStore::Withdraw() {
  command_.Start(3).Add("ZREM").Add(kCoresKey).Add(core_);
  Send([this](RedisReply reply) { Usable(reply); });
}

void RedisStore::Reply(uint64_t core, const link::v1::ClusterReplies& replies) {
  replies.SerializeToString(&message_bytes_);
  command_.Start(3).Add("PUBLISH").Add(RepliesChannel(core)).Add(message_bytes_);
  Send([this](RedisReply reply) { Usable(reply); });
}

}  // namespace presence::core
