// ROOM_AUTH=redis: rights to rooms from sets that backends keep in the Redis of the service.
//
//   room.write:{room_id}  set of user ids: who may read and write in the room      the member * stands for everybody
//   room.read:{room_id}   set of user ids: who may read alone
//   user.write:{user_id}  set of room ids: where the user may read and write       the member * stands for every room
//   user.read:{user_id}   set of room ids: where the user may read alone
//
// The highest that any of them grants counts; none: no right. The service only reads them (room_right.lua, by EVALSHA_RO: an ACL need not grant more). Whoever takes a right away calls
// PresenceService.ForgetRoomRights, else it is noticed when the remembered answer ends.
//
// With Sentinels it follows them to the primary: an old one would still grant what is taken away.
//
// Lives on the thread of its io_context, on a connection of its own: what waits here keeps no transition waiting. A Redis that is away, does
// not answer within 2 s, or holds something else under such a name, is answered with kUnavailable.
#pragma once

#include <asio/io_context.hpp>
#include <memory>
#include <string>
#include <string_view>

#include "core/redis_connection.h"
#include "core/redis_sentinels.h"
#include "core/room_authorizer.h"
#include "core/room_rights_metrics.h"

namespace presence::core {

class RedisRights final : public RoomAuthorizer, private RedisConnection::Listener {
 public:
  // Dials when the io_context runs. Listener and metrics must outlive it.
  RedisRights(asio::io_context& io, const RedisAddress& address, const SentinelOptions& sentinels,
              RoomRightListener& listener, RoomRightsMetrics& metrics);
  ~RedisRights() override;

  void Ask(const RoomQuestion& question) override;

 private:
  void OnConnectionReady(RedisConnection& connection) override;
  void OnConnectionLost(RedisConnection& connection, std::string_view why) override;
  void OnMessage(std::string_view, std::string_view) override {}
  void OnReply(uint64_t question, RedisReply reply);

  asio::io_context& io_;
  RoomRightListener& listener_;
  RoomRightsMetrics& metrics_;
  RedisConnection connection_;
  std::unique_ptr<RedisSentinels> sentinels_;  // null: there are none
  RedisCommand command_;
  std::string script_head_;  // EVALSHA_RO and the hash, as written on the wire; empty: not loaded
  std::string last_loss_;    // logged when it is another reason than before
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace presence::core
