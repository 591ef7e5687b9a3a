// From a room or a user to the links whose shards have somebody to tell: one command for each link, however many members.
//
// Lives on the hub's thread. Order of the links: in a room, that in which their shards came; else that of their ids. A shard without
// a link, or whose members are not bound in the present attach, gets nothing: what it missed of presence it reads from the
// change log, and messages are not kept.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

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

  // Into excluded_: sorted, each once.
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
