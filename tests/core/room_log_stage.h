// A hub whose rooms have logs, for tests: pages of a log, messages with a place, and a shard that says where it is.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/hub.h"
#include "tests/fakes/hub_world.h"

namespace presence::core {

inline const uint64_t kPhone = ConnectionOf(7), kLaptop = ConnectionOf(8);
// An epoch is named by a microsecond; the clock of these tests stands at 1,000 s.
inline constexpr uint64_t kEpoch = 999'000'000, kNext = 1'001'000'000;

inline HubOptions WithLogs() {
  HubOptions options = HubWorld::DefaultOptions();
  options.room_log_age = std::chrono::seconds(120);
  return options;
}

inline RoomLogPage Page(RoomPosition current, std::vector<link::v1::BusEnvelope> entries = {}, bool more = false,
                        uint64_t data_since = 1) {
  RoomLogPage page;
  page.entries = std::move(entries);
  page.current = current;
  page.more = more;
  page.data_since = data_since;
  return page;
}

inline link::v1::BusEnvelope At(uint64_t sequence, std::string_view text, uint64_t epoch = kEpoch,
                                RoomPosition before = {}) {
  return LoggedMessage({epoch, sequence}, "general", text, before);
}

inline std::vector<std::string> Messages(const std::vector<std::string>& lines) {
  std::vector<std::string> messages;
  for (const std::string& line : lines) {
    if (line.starts_with("deliver") || line.starts_with("moved")) messages.push_back(line);
  }
  return messages;
}

struct RoomLog : testing::Test {
  HubWorld world{WithLogs()};

  // A shard comes with the room, and says that it is there.
  void Resume(RoomPosition seen, uint64_t link = 1, uint64_t attach = 1, uint32_t shard = 0) {
    world.OpenLink(link);
    world.Say(link, Hello(attach, 0, kEdge, shard));
    world.Say(link, Declared(ConnectionOf(7, 1, shard), "alice", {"general"}));
    if (seen.known()) world.Say(link, Seen({{"general", seen}}));
    world.Say(link, ResyncDone());
  }
  // Link 1 comes with alice in that many rooms, each seen up to 1. The rooms, in the order in which they are read.
  std::vector<std::string> ResumeRooms(int count) {
    std::vector<std::string> rooms;
    std::vector<std::pair<std::string, RoomPosition>> seen;
    for (int i = 0; i < count; ++i) {
      rooms.push_back("room" + std::to_string(i));
      seen.push_back({rooms.back(), {kEpoch, 1}});
    }
    world.OpenLink(1);
    world.Say(1, {Hello(1), Declared(kPhone, "alice", rooms), Seen(seen), ResyncDone()});
    return rooms;
  }
  // As Resume, and it has everything.
  void Attach(RoomPosition seen, uint64_t link = 1, uint64_t attach = 1, uint32_t shard = 0) {
    Resume(seen, link, attach, shard);
    if (world.log_reads_open() > 0) world.AnswerLog(Page(seen));
    world.Forget();
  }
  std::vector<std::string> Got(uint64_t link = 1) { return Messages(world.Sent(link)); }
};

}  // namespace presence::core
