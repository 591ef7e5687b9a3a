// Events and frames of a link in one line each, for tests.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

#include "common/connection_id.h"
#include "presence/link/v1/link.pb.h"

namespace presence::core {

inline uint64_t Connection(uint32_t slot, uint32_t shard = 0) {
  return ConnectionId{.shard = shard, .slot = slot, .generation = 1}.Pack();
}

inline link::v1::EdgeEvent Hello(uint64_t attach = 1, uint32_t shard = 0, uint64_t incarnation = 7) {
  link::v1::EdgeEvent event;
  auto& hello = *event.mutable_hello();
  hello.set_protocol(1);
  hello.set_edge("test-edge");
  hello.set_incarnation(incarnation);
  hello.set_shard(shard);
  hello.set_attach(attach);
  return event;
}

inline link::v1::EdgeEvent ResyncDone() {
  link::v1::EdgeEvent event;
  event.mutable_resync_done();
  return event;
}

inline link::v1::EdgeEvent Heartbeat() {
  link::v1::EdgeEvent event;
  event.mutable_heartbeat();
  return event;
}

inline link::v1::EdgeEvent Opened(uint64_t sequence, uint64_t connection, const std::string& user_id) {
  link::v1::EdgeEvent event;
  event.set_sequence(sequence);
  event.mutable_connection_opened()->set_connection(connection);
  event.mutable_connection_opened()->set_user_id(user_id);
  event.mutable_connection_opened()->set_username("name of " + user_id);
  return event;
}

inline link::v1::EdgeEvent Joined(uint64_t sequence, uint64_t connection, const std::string& room_id) {
  link::v1::EdgeEvent event;
  event.set_sequence(sequence);
  event.mutable_room_joined()->set_connection(connection);
  event.mutable_room_joined()->set_room_id(room_id);
  return event;
}

inline link::v1::EdgeFrame Frame(std::initializer_list<link::v1::EdgeEvent> events) {
  link::v1::EdgeFrame frame;
  for (const auto& event : events) *frame.add_events() = event;
  return frame;
}

}  // namespace presence::core
