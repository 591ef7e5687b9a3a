#include "tests/sim/session.h"

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <utility>

#include "tests/sim/world.h"

namespace presence::sim {
namespace {

constexpr std::string_view kPongHead = R"({"type":"pong","timestamp":")";

// channel_id or dm_id, whichever is not null.
std::string RoomOf(World& world, const nlohmann::json& frame) {
  const nlohmann::json& channel = frame.at("channel_id");
  const nlohmann::json& dm = frame.at("dm_id");
  world.Check(channel.is_null() != dm.is_null(), "a frame names one room");
  const std::string room = channel.is_null() ? dm.get<std::string>() : channel.get<std::string>();
  world.Check(World::IsDm(room) == channel.is_null(), "a frame names the room as the client did");
  return room;
}

}  // namespace

void Session::Arrived(SimTime now, const Said& said) {
  using Asks = Said::Asks;
  switch (said.asks) {
    case Asks::kNothing:
      return;
    case Asks::kJoin:
      rooms[said.room].unanswered.push_back({true, now});
      wanted.insert(said.room);
      joined_at[said.room] = now;
      return;
    case Asks::kLeave:
      rooms[said.room].unanswered.push_back({false, now});
      wanted.erase(said.room);
      return;
    case Asks::kAway:
    case Asks::kOnline:
      away = said.asks == Asks::kAway;
      status_at = now;
      return;
  }
}

void Session::Ordered(SimTime now, const link::v1::CoreCommand& command) {
  if (command.has_change_status()) {
    away = command.change_status().status() == link::v1::STATUS_AWAY;
    status_at = now;
  } else if (command.has_leave_room()) {
    Room& room = rooms[command.leave_room().room_id()];
    // The client is told once that it is out: not when it has asked for that already, or is not in.
    const bool told = room.unanswered.empty() ? room.in : room.unanswered.back().join;
    if (told) room.unanswered.push_back({false, now});
    if (const uint32_t code = command.leave_room().code(); told && code != 0) {
      denials.push_back({Denial::What::kExpelled, code, command.leave_room().room_id()});
    }
    wanted.erase(command.leave_room().room_id());
  }
}

void Session::Refused(World& world, const std::string& room_id, uint32_t code) {
  Room& room = rooms[room_id];
  world.Check(!room.unanswered.empty() && room.unanswered.front().join,
              "a refused join is the oldest request for its room");
  if (code != 0) denials.push_back({Denial::What::kJoin, code, room_id, room.unanswered.front().asked_at});
  room.unanswered.pop_front();
  if (room.unanswered.empty()) wanted.erase(room_id);
}

ReceivedFrame ReadFrame(World& world, std::string_view text) {
  ReceivedFrame frame;
  frame.text = text;
  frame.number = World::NumberIn(text);
  if (frame.number.has_value()) return frame;
  if (text.starts_with(kPongHead)) {  // most frames are
    frame.type = "pong";
    return frame;
  }
  const nlohmann::json json = nlohmann::json::parse(text);
  frame.type = json.at("type");
  if (frame.type == "subscribed" || frame.type == "unsubscribed" || frame.type == "typing" || frame.type == "gap") {
    frame.room = RoomOf(world, json);
  }
  if (frame.type == "error") frame.code = json.at("code");
  if (frame.type == "reconnect") frame.after = std::chrono::milliseconds(json.at("after_ms").get<int64_t>());
  if (frame.type == "typing" || frame.type == "presence") frame.user_id = json.at("user_id");
  if (frame.type == "presence") {
    world.Check(json.size() == 5, "a presence frame has exactly its members");
    frame.status = json.at("status");
    frame.timestamp = json.at("timestamp");
  }
  return frame;
}

void Session::OnFrame(World& world, const ReceivedFrame& frame, uint64_t attach) {
  world.TraceFrame(*this, frame.text);
  if (frame.number.has_value()) return OnMessage(world, frame, attach);
  if (!greeted) {
    world.Check(frame.type == "pong", "the first frame is a pong");
    greeted = true;
  } else if (frame.type == "pong") {
    world.Check(--pings_unanswered >= 0, "each ping gets one pong");
  } else if (frame.type == "reconnect") {
    world.Check(!std::exchange(reconnect_after, frame.after).has_value(), "who is sent away is told so once");
  } else if (frame.type == "auth") {
    world.Check(std::exchange(auth_unanswered, false), "a new token is confirmed once");
  } else if (frame.type == "error" && frame.code == 429) {
    world.Check(world.floods(), "only floods are refused");
    ++refusals;
  } else if (frame.type == "error" && !denials.empty()) {
    const Denial denial = std::move(denials.front());
    denials.pop_front();
    world.Check(static_cast<uint32_t>(frame.code) == denial.code, "the error of a refusal: " + std::string(frame.text));
    world.rights().CheckDenied(*this, denial);
  } else if (frame.type == "error") {
    world.Check(frame.code == 400 && --errors_expected >= 0, "errors come for bad input: " + std::string(frame.text));
  } else if (frame.type == "subscribed" || frame.type == "unsubscribed") {
    Room& room = rooms[frame.room];
    const bool joined = frame.type == "subscribed";
    world.Check(!room.unanswered.empty() && room.unanswered.front().join == joined,
                "requests for a room are answered in order, once each");
    // Who is in already is not asked for a right again.
    if (joined && !room.in) world.rights().CheckLetIn(*this, frame.room, room.unanswered.front().asked_at);
    room.unanswered.pop_front();
    room.in = joined;
    room.in_since = world.now();
  } else if (frame.type == "gap") {
    Room& room = rooms[frame.room];
    world.Check(room.in, "members are told of a gap");
    // Who subscribes while a core is without Redis has no position, and is told so when it is back; by the next core, if the edge was
    // stalled (8 s) until the link was lost.
    world.Check(!world.RedisRemembers() || !world.CoresHeard(world.now(), std::chrono::seconds(20)),
                "nothing is lost where Redis keeps its data");
    room.gap_at = world.now();
  } else if (frame.type == "typing") {
    world.Check(rooms[frame.room].in, "typing reaches members only");
    world.rights().CheckTypingSeen(frame.user_id, frame.room);
    ++typing_frames[frame.room + " " + frame.user_id];
  } else if (frame.type == "presence") {
    seen[frame.user_id] = frame.status;
    if (frame.status == "offline") world.failures().OnShownOffline(frame.user_id);
  } else {
    world.Check(false, "a frame of a known type: " + std::string(frame.text));
  }
}

void Session::OnMessage(World& world, const ReceivedFrame& frame, uint64_t attach) {
  world.Check(greeted, "the first frame is a pong");
  const World::Message& message = world.message(*frame.number);
  if (message.user.empty()) {
    world.Check(rooms[message.room].in, "a message comes between subscribed and unsubscribed");
  } else {
    world.Check(message.user == user_id, "a message to a user reaches that user's devices alone");
  }
  world.Check(!message.excluded.contains(user_id), "an excluded user does not get it");
  world.Check(frame.text == message.frame, "a message arrives byte for byte");
  const auto [known, is_new] = messages.emplace(*frame.number, attach);
  // A shard that goes to a core that was stalled may hear there again what its former core had passed on. That a message with a request
  // id is published once is checked at the bus. A Redis that loses what it had may number anew what was there already.
  world.Check(is_new || known->second != attach || !world.RedisRemembers(), "a message comes once");
  if (!is_new) doubled.insert(*frame.number);
  if (!is_new || message.order == 0 || !world.OrderHolds(message)) return;
  // What others publish stands in no log, and does not wait for one to be read. "" for those to the user.
  const bool from_outside = world.rooms_have_logs() && frame.text.find("\"room_id\"") != std::string_view::npos;
  LastInRoom& last = last_order[from_outside ? message.room + " from outside" : message.room];
  world.Check(last.attach != attach || last.order < message.order, "messages of a room come in the order of the bus");
  last = {attach, message.order};
}

std::string Session::Believes(const std::string& user) const {
  if (const auto found = seen.find(user); found != seen.end()) return found->second;
  const auto found = at_open.find(user);
  return found == at_open.end() ? "offline" : found->second;
}

std::string Session::Name() const {
  char place[64];
  std::snprintf(place, sizeof place, " %04x/%u/%u/%u", static_cast<unsigned>(edge->incarnation() & 0xffff), shard, slot,
                generation);
  return user_id + place;
}

bool Session::HasUnanswered() const {
  if (pings_unanswered > 1 || errors_expected != 0 || !denials.empty()) return true;  // one ping may be on its way
  return std::any_of(rooms.begin(), rooms.end(), [](const auto& room) { return !room.second.unanswered.empty(); });
}

}  // namespace presence::sim
