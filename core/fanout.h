// From a room or a user to the links whose shards have somebody to tell: one command for each link, however many members.
//
// Lives on the hub's thread. Order of the links: in a room, that in which their shards came; else that of their ids. A shard without
// a link, or whose members are not bound in the present attach, gets nothing: what it missed of presence it reads from the
// change log, and what of messages from the rooms' logs.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"
#include "core/connection_table.h"
#include "core/hub.h"
#include "core/link_table.h"
#include "core/room_table.h"

namespace presence::core {

// A presence frame for clients.
struct PresenceDelivery {
  std::string_view user_id;
  uint64_t version = 0;  // 0: from outside, without one
  std::string_view text;
};

class Fanout {
 public:
  enum class Kind : uint8_t { kMessage, kVolatile };

  Fanout(LinkTable& links, ConnectionTable& connections, RoomTable& rooms, HubCounters& counters)
      : links_(links), connections_(connections), rooms_(rooms), counters_(counters) {}

  // How many connections it was handed on to: the members behind links, less those of the excluded users. While a shard declares its
  // connections anew, those that it has not named yet count, too.
  uint32_t ToRoom(std::string_view room_id, std::string_view text, Kind kind,
                  const google::protobuf::RepeatedPtrField<std::string>* excluded_user_ids = nullptr);
  // A message of the room's log, to those of its shards that `take` admits, asked in their order. How many connections it concerns:
  // as above, those of the shards that were not admitted included, which have had it or get it later. A shard of whose members
  // all are excluded is told where it is, all the same.
  uint32_t ToRoom(RoomIndex room, const link::v1::BusEnvelope& logged, absl::FunctionRef<bool(RoomShard&)> take);
  // The same, to one shard of the room.
  void ToShard(RoomIndex room, const RoomShard& entry, const link::v1::BusEnvelope& logged);
  // The shard is at this position (not known: where it was); `kLost`: its members are told of a gap. REQUIRES: it has a link and a handle.
  enum class Moved : uint8_t { kQuietly, kLost };
  void Move(const RoomShard& entry, RoomPosition position, Moved moved);
  // Whether what is said of the room reaches the shard.
  Link* LinkOf(const RoomShard& entry) { return entry.handle == 0 ? nullptr : connections_.shard(entry.shard).link; }

  // To the user's connections behind links; how many these are.
  uint32_t ToUser(std::string_view user_id, std::string_view text);

  void ToEveryone(const PresenceDelivery& delivery);
  void ToEveryone(Link& link, const PresenceDelivery& delivery);
  // Once for each link, whatever rooms are named twice or unknown. `only`: to that link alone.
  void ToRooms(const std::vector<RoomIndex>& rooms, const PresenceDelivery& delivery, const Link* only);

 private:
  struct Target {
    LinkId link;
    uint32_t handle = 0;
    friend auto operator<=>(const Target&, const Target&) = default;
  };

  // A connection, and the shard or link through which it is reached.
  template <typename Through>
  struct Reached {
    Through through;
    uint64_t connection = 0;
    friend auto operator<=>(const Reached&, const Reached&) = default;
  };

  struct Frame {
    std::string_view text;
    Kind kind = Kind::kMessage;
    RoomPosition position;  // not known: it stands in no log
  };

  // Members of the entry whom the frame concerns: those who are not in excluded_.
  uint32_t Concerned(const RoomShard& entry) const;
  void Hand(Link& link, const RoomShard& entry, const Frame& frame);
  // Into excluded_: sorted, each once. Nobody: empty.
  void FindExcluded(std::string_view room_id, const google::protobuf::RepeatedPtrField<std::string>& user_ids);
  link::v1::DeliverPresence& AddPresence(Link& link, const PresenceDelivery& delivery);

  LinkTable& links_;
  ConnectionTable& connections_;
  RoomTable& rooms_;
  HubCounters& counters_;
  // Of one call; kept for their capacity.
  std::vector<Target> targets_;
  std::vector<Reached<ShardIndex>> excluded_;
  std::vector<Reached<LinkId>> devices_;
};

}  // namespace presence::core
