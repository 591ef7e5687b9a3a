// A stage for stories about one shard: a clock, clients and a core that the test plays itself.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/connection_id.h"
#include "edge/shard.h"
#include "tests/fakes/recording_shard_output.h"

namespace presence::edge {

class ShardStage {
 public:
  static constexpr uint32_t kShard = 3;

  static ShardOptions Options() {
    ShardOptions options;
    options.edge_name = "edge-1";
    options.incarnation = 77;
    options.shard = kShard;
    return options;
  }
  explicit ShardStage(ShardOptions options = Options()) : shard(std::move(options), output) {}

  // --- time
  Now now() const {
    return {SteadyTime() + std::chrono::hours(1) + elapsed, FromUnixMillis(1736856000000) + elapsed + wall_offset};
  }
  void Tick() { shard.OnTick(now()); }
  // Lets time pass, with ticks as they should come.
  void Advance(std::chrono::milliseconds duration) {
    for (const auto end = elapsed + duration; elapsed < end;) {
      elapsed += std::chrono::milliseconds(100);
      Tick();
    }
  }
  // The same, with a core that says something each second.
  void AdvanceWithCore(std::chrono::milliseconds duration) {
    for (const auto end = elapsed + duration; elapsed < end;) {
      link::v1::CoreCommand command;
      command.mutable_heartbeat();
      shard.OnCommand(now(), command);
      Advance(std::min<std::chrono::milliseconds>(std::chrono::milliseconds(1000), end - elapsed));
    }
  }

  // --- clients. A user's name is the id in front of which stands "name of ".
  void Open(uint32_t slot, std::string_view user_id, uint32_t generation = 1) {
    if (generations.size() <= slot) generations.resize(slot + 1);
    generations[slot] = generation;
    const std::string name = "name of " + std::string(user_id);
    shard.OnConnectionOpened(now(), slot, generation,
                             {.user_id = user_id, .username = name, .expires_at = now().wall + token_life});
  }
  void OpenUnproven(uint32_t slot, uint32_t generation = 1) {
    if (generations.size() <= slot) generations.resize(slot + 1);
    generations[slot] = generation;
    shard.OnUnprovenOpened(now(), slot, generation);
  }
  // The verdict on the token that the shard wants checked; a good one names a user as Open does, and a session.
  void Checked(uint32_t slot, TokenCheck::Outcome outcome, std::string_view user_id = "",
               std::string_view session_id = "", int64_t issued_at_ms = 0) {
    const std::string name = "name of " + std::string(user_id);
    shard.OnTokenChecked(now(), slot, generations[slot],
                         {outcome, {user_id, name, session_id, issued_at_ms, now().wall + token_life}});
  }
  void Text(uint32_t slot, std::string_view text) { shard.OnClientText(now(), slot, text); }
  void Subscribe(uint32_t slot, const std::string& room) {
    Text(slot, R"({"type":"subscribe","channel_id":")" + room + "\"}");
  }
  void Unsubscribe(uint32_t slot, const std::string& room) {
    Text(slot, R"({"type":"unsubscribe","channel_id":")" + room + "\"}");
  }
  void Close(uint32_t slot) { shard.OnConnectionClosed(now(), slot); }
  uint64_t Id(uint32_t slot) const { return ConnectionId{kShard, slot, generations[slot]}.Pack(); }

  // --- the core
  void LinkUp() { shard.OnLinkUp(now()); }
  void LinkDown() { shard.OnLinkDown(now()); }
  void Welcome(uint64_t watermark = 0) {
    link::v1::CoreCommand command;
    command.mutable_welcome()->set_core("core-1");
    command.mutable_welcome()->set_presence_watermark(watermark);
    shard.OnCommand(now(), command);
  }
  void Attach() {
    LinkUp();
    Welcome();
  }
  void BindById(uint64_t connection, const std::string& room, uint32_t handle, uint64_t reply_to) {
    link::v1::CoreCommand command;
    link::v1::Bind& bind = *command.mutable_bind();
    bind.set_connection(connection);
    bind.set_room_id(room);
    bind.set_handle(handle);
    bind.set_reply_to(reply_to);
    shard.OnCommand(now(), command);
  }
  void Bind(uint32_t slot, const std::string& room, uint32_t handle, uint64_t reply_to = 0) {
    BindById(Id(slot), room, handle, reply_to);
  }
  void Unbind(uint32_t slot, const std::string& room, uint64_t reply_to = 0) {
    link::v1::CoreCommand command;
    command.mutable_unbind()->set_connection(Id(slot));
    command.mutable_unbind()->set_room_id(room);
    command.mutable_unbind()->set_reply_to(reply_to);
    shard.OnCommand(now(), command);
  }
  void Refuse(uint64_t reply_to, uint32_t code, const std::string& error) {
    link::v1::CoreCommand command;
    command.mutable_refuse()->set_reply_to(reply_to);
    command.mutable_refuse()->set_code(code);
    command.mutable_refuse()->set_error(error);
    shard.OnCommand(now(), command);
  }
  void Acknowledge(uint64_t sequence) {
    link::v1::CoreCommand command;
    command.mutable_acknowledge()->set_sequence(sequence);
    shard.OnCommand(now(), command);
  }
  void Deliver(uint32_t handle, const std::string& text, bool is_volatile = false) {
    link::v1::CoreCommand command;
    command.mutable_deliver()->set_handle(handle);
    command.mutable_deliver()->set_text(text);
    command.mutable_deliver()->set_volatile_(is_volatile);
    shard.OnCommand(now(), command);
  }
  void DeliverPresence(const std::string& user, uint64_t version, const std::string& text,
                       const std::vector<uint32_t>& handles = {}) {
    link::v1::CoreCommand command;
    link::v1::DeliverPresence& deliver = *command.mutable_deliver_presence();
    deliver.set_user_id(user);
    deliver.set_version(version);
    deliver.set_text(text);
    deliver.set_everyone(handles.empty());
    deliver.mutable_handles()->Add(handles.begin(), handles.end());
    shard.OnCommand(now(), command);
  }
  void PassedOn(uint64_t version) {
    link::v1::CoreCommand command;
    command.mutable_acknowledge()->set_presence_watermark(version);
    shard.OnCommand(now(), command);
  }
  void CloseConnection(uint32_t slot, uint32_t code, const std::string& reason) {
    link::v1::CoreCommand command;
    command.mutable_close_connection()->set_connection(Id(slot));
    command.mutable_close_connection()->set_code(code);
    command.mutable_close_connection()->set_reason(reason);
    shard.OnCommand(now(), command);
  }

  // --- what came of it
  std::vector<std::string> Texts(uint32_t slot) { return output.TakeTexts(slot); }
  // Each event as one line, as "joined 0:room#5": slot, what it is about, sequence.
  std::vector<std::string> Events() {
    std::vector<std::string> lines;
    for (const link::v1::EdgeEvent& event : output.TakeEvents()) lines.push_back(LineOf(event));
    return lines;
  }
  // Forgets what has been recorded so far.
  void Forget() {
    output.sent.clear();
    output.events.clear();
    output.closed.clear();
    output.reports.clear();
    output.checks.clear();
    output.send_calls = 0;
  }

  RecordingShardOutput output;
  Shard shard;
  std::chrono::milliseconds elapsed{0};
  std::chrono::seconds token_life{600};
  std::chrono::seconds wall_offset{0};  // a clock that was set
  std::vector<uint32_t> generations;

 private:
  static std::string Slot(uint64_t connection) { return std::to_string(ConnectionId::Unpack(connection).slot); }
  static std::string LineOf(const link::v1::EdgeEvent& event) {
    const std::string number = event.sequence() == 0 ? "" : "#" + std::to_string(event.sequence());
    using link::v1::EdgeEvent;
    switch (event.event_case()) {
      case EdgeEvent::kHello:
        return "hello " + std::to_string(event.hello().attach());
      case EdgeEvent::kConnectionDeclared: {
        const link::v1::ConnectionDeclared& declared = event.connection_declared();
        std::string line = "declared " + Slot(declared.connection()) + ":" + declared.user_id();
        line += declared.status() == link::v1::STATUS_AWAY ? " away" : " online";
        std::vector<std::string> rooms(declared.room_ids().begin(), declared.room_ids().end());
        std::sort(rooms.begin(), rooms.end());
        for (const std::string& room : rooms) line += " " + room;
        return line;
      }
      case EdgeEvent::kRoomsSeen: {
        std::string line = "rooms seen";
        for (const link::v1::RoomSeen& room : event.rooms_seen().rooms()) {
          line += " " + room.room_id() + "@" + std::to_string(room.epoch()) + "-" + std::to_string(room.sequence());
        }
        return line;
      }
      case EdgeEvent::kResyncDone:
        return "resync done";
      case EdgeEvent::kConnectionOpened:
        return "opened " + Slot(event.connection_opened().connection()) + ":" + event.connection_opened().user_id() +
               number;
      case EdgeEvent::kConnectionClosed:
        return "closed " + Slot(event.connection_closed().connection()) + ":" + event.connection_closed().user_id() +
               number + (event.connection_closed().hold_ms() == 0 ? "" : " held");
      case EdgeEvent::kRoomJoined:
        return "joined " + Slot(event.room_joined().connection()) + ":" + event.room_joined().room_id() + number;
      case EdgeEvent::kRoomLeft:
        return "left " + Slot(event.room_left().connection()) + ":" + event.room_left().room_id() + number;
      case EdgeEvent::kStatusChanged:
        return "status " + Slot(event.status_changed().connection()) +
               (event.status_changed().status() == link::v1::STATUS_AWAY ? ":away" : ":online") + number;
      case EdgeEvent::kTypingStarted:
        return "typing " + Slot(event.typing_started().connection()) + ":" + event.typing_started().room_id() +
               (event.typing_started().kind() == link::v1::ROOM_KIND_DM ? " dm" : " channel");
      case EdgeEvent::kActivityReported: {
        std::string line = "activity";
        for (const uint64_t id : event.activity_reported().alive()) line += " " + Slot(id);
        for (const uint64_t id : event.activity_reported().pinged()) line += " ping:" + Slot(id);
        return line;
      }
      case EdgeEvent::kTokenRenewed:
        return "renewed " + Slot(event.token_renewed().connection()) + ":" +
               event.token_renewed().token().session_id() + number;
      case EdgeEvent::kHeartbeat:
        return "heartbeat";
      case EdgeEvent::EVENT_NOT_SET:
        break;
    }
    return "nothing";
  }
};

}  // namespace presence::edge
