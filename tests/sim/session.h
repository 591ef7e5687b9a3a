// One WebSocket of one simulated client, seen from the client's side: what it asked for, what it got, and whether the one fits the
// other. Checked at each frame.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "common/room_rights.h"
#include "presence/link/v1/link.pb.h"
#include "tests/sim/scheduler.h"

namespace presence::sim {

class EdgeProcess;
class World;

// What the token of a client says, which it shows with each connection until it logs in again.
struct Login {
  std::string session_id;
  int64_t issued_at_s = 0;
  std::shared_ptr<const RoomRights> rights{};  // where tokens say them
};

// A frame to clients, read once for all who get it.
struct ReceivedFrame {
  std::string_view text;
  std::optional<uint64_t> number;  // of a message; then nothing else is read
  std::string type;
  std::string room;                                // subscribed, unsubscribed, typing
  std::string user_id, status, timestamp;          // typing, presence
  int code = 0;                                    // error
  std::optional<std::chrono::milliseconds> after;  // reconnect
};
// Throws Violation when it is not as it must be.
ReceivedFrame ReadFrame(World& world, std::string_view text);

struct Session {
  struct Request {
    bool join = false;
    SimTime asked_at{0};
  };
  struct Room {
    std::deque<Request> unanswered;  // in order
    bool in = false;                 // by the confirmations so far
    SimTime in_since{0};
    SimTime gap_at{-1};  // when it was told that messages may be lost
  };
  struct LastInRoom {
    uint64_t attach = 0;
    uint64_t order = 0;
  };

  // An error 403 or 503 that is about to come: why.
  struct Denial {
    enum class What : uint8_t { kJoin, kExpelled, kTyping };
    What what = What::kJoin;
    uint32_t code = 0;
    std::string room{};   // not of kTyping
    SimTime asked_at{0};  // kJoin
  };
  struct Token {
    SimTime at;  // when the shard had it
    std::shared_ptr<const RoomRights> rights;
  };

  std::string user_id, username;
  Login login;
  std::shared_ptr<const RoomRights> next_rights;  // of the token that it shows next
  std::vector<Token> tokens;                      // where they say rights
  std::shared_ptr<EdgeProcess> edge;
  uint32_t shard = 0, slot = 0, generation = 0;

  // The socket, at the edge.
  bool closing = false;  // the shard has closed it, or knows that it is closed: no frame may come
  bool freed = false;    // the shard has heard of the end
  uint16_t close_code = 0;
  // The client.
  bool client_open = true;
  bool vanished = false;  // without a word

  // What the client does arrives in order.
  struct Said {
    enum class Kind : uint8_t { kOpen, kText, kEnd };
    enum class Asks : uint8_t { kNothing, kJoin, kLeave, kAway, kOnline };
    Kind kind = Kind::kText;
    std::string text;
    Asks asks = Asks::kNothing;
    std::string room{};
  };
  std::deque<Said> to_edge;
  SimTime last_arrival{0};

  bool greeted = false;
  int pings_unanswered = 0, errors_expected = 0;
  bool auth_unanswered = false;
  std::optional<std::chrono::milliseconds> reconnect_after;  // it was sent to another edge
  uint64_t refusals = 0;                                     // errors 429 that came
  std::map<std::string, Room> rooms;
  // What the shard has been told last, by the client or by an order.
  std::set<std::string> wanted;
  bool away = false;
  // When the client itself has last said so to the shard; of the status also when an order did.
  std::map<std::string, SimTime> joined_at;
  std::map<std::string, SimTime> typed_at;
  std::deque<Denial> denials;
  SimTime status_at{-1'000'000'000};
  std::map<std::string, std::string> at_open;    // user → status when it connected
  std::map<std::string, std::string> seen;       // user → status in the last presence frame
  std::map<uint64_t, uint64_t> messages;         // number → attach over which it came
  std::set<uint64_t> doubled;                    // of those, by number
  std::map<std::string, LastInRoom> last_order;  // by room
  std::map<std::string, int> typing_frames;      // "room user" → count

  // The shard gets what the client has said, or an order.
  void Arrived(SimTime now, const Said& said);
  void Ordered(SimTime now, const link::v1::CoreCommand& command);
  // Its oldest request for that room, a join, is refused; `code` 0: without a word.
  void Refused(World& world, const std::string& room, uint32_t code);
  void OnFrame(World& world, const ReceivedFrame& frame, uint64_t attach);
  bool HasUnanswered() const;
  std::string Believes(const std::string& user) const;
  std::string Name() const;  // user, edge/shard/slot/generation

 private:
  void OnMessage(World& world, const ReceivedFrame& frame, uint64_t attach);
};

}  // namespace presence::sim
