#include "core/redis_rights.h"

#include <asio/post.hpp>
#include <chrono>
#include <utility>

#include "common/log.h"
#include "core/redis_scripts.h"

namespace presence::core {

RedisRights::RedisRights(asio::io_context& io, const RedisAddress& address, const SentinelOptions& sentinels,
                         RoomRightListener& listener, RoomRightsMetrics& metrics)
    : io_(io),
      listener_(listener),
      metrics_(metrics),
      connection_(io, {BeforeSentinels(address, sentinels), "presence-core-rooms", {}}, *this) {
  if (sentinels.empty()) return;
  sentinels_ = std::make_unique<RedisSentinels>(
      io, sentinels, [this, address](const PrimaryWord& primary) { connection_.MoveTo(AtPrimary(address, primary)); });
}

RedisRights::~RedisRights() {
  *alive_ = false;
}

void RedisRights::OnConnectionReady(RedisConnection& connection) {
  command_.Start(3).Add("SCRIPT").Add("LOAD").Add(kRoomRightScript);
  const bool sent = connection.Send(command_, [this, alive = alive_](RedisReply reply) {
    if (!*alive || reply.lost()) return;
    if (reply.is_error()) {
      return connection_.Drop(std::string("Redis refuses the script of room rights: ").append(reply.text()));
    }
    script_head_.clear();
    RedisCommand::AppendArgument("EVALSHA_RO", &script_head_);  // so that an ACL may grant reading alone
    RedisCommand::AppendArgument(reply.text(), &script_head_);
    last_loss_.clear();
  });
  if (!sent) connection.Drop("the script of room rights could not be sent");
}

void RedisRights::OnConnectionLost(RedisConnection& /*connection*/, std::string_view why) {
  script_head_.clear();
  if (sentinels_ != nullptr) sentinels_->Ask();
  if (std::exchange(last_loss_, std::string(why)) != why) log::Warning("Room rights: Redis is away: {}", Escaped(why));
}

void RedisRights::Ask(const RoomQuestion& question) {
  bool sent = false;
  if (!script_head_.empty()) {
    command_.Start(9).AddWritten(script_head_).Add("4");
    command_.Add(std::string("room.write:").append(question.room_id));
    command_.Add(std::string("user.write:").append(question.user_id));
    command_.Add(std::string("room.read:").append(question.room_id));
    command_.Add(std::string("user.read:").append(question.user_id));
    command_.Add(question.user_id).Add(question.room_id);
    sent = connection_.Send(command_, [this, alive = alive_, id = question.id,
                                       asked_at = std::chrono::steady_clock::now()](RedisReply reply) {
      if (!*alive) return;
      metrics_.in_flight.Subtract();
      if (reply.is_number()) metrics_.latency.Observe(std::chrono::steady_clock::now() - asked_at);
      OnReply(id, reply);
    });
  }
  if (sent) return metrics_.in_flight.Add();
  metrics_.refused.Add();
  asio::post(io_, [this, alive = alive_, id = question.id] {
    if (*alive) listener_.OnRoomRight(id, {});
  });
}

void RedisRights::OnReply(uint64_t question, RedisReply reply) {
  RoomAnswer answer;
  if (reply.is_number()) {
    metrics_.answered.Add();
    answer.outcome = RoomAnswer::Outcome::kAnswered;
    answer.right = reply.number() >= 2 ? RoomRight::kWrite : reply.number() == 1 ? RoomRight::kRead : RoomRight::kNone;
  } else {
    metrics_.failed.Add();
    static log::LineLimit limit("refused questions about room rights", 1, 5);
    if (reply.is_error() && limit.Admit(log::Level::kWarning)) {
      log::Warning("Room rights: Redis answered: {}", Escaped(reply.text()));
    }
    // The script is gone (SCRIPT FLUSH, another Redis): dialling again loads it.
    if (reply.is_error() && reply.text().starts_with("NOSCRIPT")) connection_.Drop("the script of room rights is gone");
  }
  listener_.OnRoomRight(question, answer);
}

}  // namespace presence::core
