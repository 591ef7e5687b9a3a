// What one shard writes into the log about its clients, and the open connection in each slot, by which they are named.
//
// Lives on the shard's thread. The budgets of lines are one for each kind, over all shards; in front of them each connection has one of
// its own, so that nobody can use up what the others need. What clients have written is escaped here.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/time.h"
#include "edge/shard.h"
#include "edge/socket_loop.h"

namespace presence::edge {

class ClientLog {
 public:
  // Of the edge's process, and the shard's number.
  ClientLog(uint64_t incarnation, uint32_t shard) : incarnation_(incarnation), shard_(shard) {}

  // A connection has a slot now, and lines of its own.
  void Open(SocketId socket);
  // The connection that has, or had last, this slot. REQUIRES: it was opened.
  SocketId SocketOf(uint32_t slot) const { return {slot, open_[slot].generation}; }
  bool IsOpen(SocketId socket) const {
    return socket.slot < open_.size() && open_[socket.slot].generation == socket.generation;
  }

  // A user is there, by a good token.
  void Connected(uint32_t slot, std::string_view username, std::string_view user_id);
  void Disconnected(uint32_t slot, std::string_view username, std::string_view user_id, uint16_t code);
  // Nothing for a code that is no offence.
  void Closed(uint32_t slot, uint16_t code);
  // See ShardOutput::Report.
  void Report(ShardOutput::Severity severity, uint32_t slot, std::string_view what, std::string_view detail);

 private:
  struct Connection {
    uint32_t generation = 0;
    SteadyTime lines_since;
    uint8_t lines = 0;  // written since then
  };

  bool OneMoreLineOf(uint32_t slot);
  std::string NameOf(uint32_t slot) const;

  const uint64_t incarnation_;
  const uint32_t shard_;
  std::vector<Connection> open_;  // by slot
};

}  // namespace presence::edge
