// One Attach stream between a shard and a core: two pipes that keep order, delay at random, and can be cut. Both ends are told by
// the world.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>

#include "core/hub.h"
#include "tests/sim/scheduler.h"

namespace presence::sim {

class CoreProcess;
class EdgeProcess;

struct SimLink {
  struct Item {
    enum class Kind : uint8_t { kOpen, kFrame, kEnd };
    Kind kind = Kind::kFrame;
    std::string bytes;
  };
  struct Pipe {
    std::deque<Item> items;
    SimTime last_arrival{0};
  };

  core::LinkId id;
  std::shared_ptr<EdgeProcess> edge;
  uint32_t shard = 0;  // of the edge
  std::shared_ptr<CoreProcess> core;
  Pipe to_core, to_edge;
  bool cut = false;  // nothing arrives any more, and nobody is told by the network
  bool edge_open = true;
  bool core_open = true;
};

}  // namespace presence::sim
