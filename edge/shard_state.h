// What a shard knows, and the steps that its events take. Private to shard.cc, shard_clients.cc,
// shard_link.cc and shard_tokens.cc; see shard.h.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/connection_id.h"
#include "common/room_rights.h"
#include "edge/client_protocol.h"
#include "edge/event_log.h"
#include "edge/expiry_wheel.h"
#include "edge/forwarding_table.h"
#include "edge/presence_pacer.h"
#include "edge/rate_limit.h"
#include "edge/shard.h"
#include "edge/silence_list.h"
#include "edge/user_table.h"

namespace presence::edge {

class Shard::State {
 public:
  State(ShardOptions options, ShardOutput& output)
      : options_(std::move(options)),
        output_(output),
        frames_limit_(options_.frames_per_second, options_.frames_burst),
        bytes_limit_(options_.bytes_per_second, options_.bytes_burst),
        pacer_(options_.presence_frames_per_second) {}

  // shard_clients.cc
  void OnConnectionOpened(Now now, uint32_t slot, uint32_t generation, const TokenFacts& token);
  void OnBytesReceived(Now now, uint32_t slot, size_t bytes);
  void OnClientText(Now now, uint32_t slot, std::string_view text);
  void OnControlFrame(Now now, uint32_t slot);
  void OnConnectionClosed(Now now, uint32_t slot);

  // shard_tokens.cc
  void OnUnprovenOpened(Now now, uint32_t slot, uint32_t generation);
  void OnTokenChecked(Now now, uint32_t slot, uint32_t generation, const TokenCheck& check);

  // shard_link.cc
  void OnLinkUp(Now now);
  void OnCommand(Now now, const link::v1::CoreCommand& command);
  void OnLinkDown(Now now);
  void AskForStore(link::v1::Hello* hello);
  void OnLinkMoved(Now now);

  // shard.cc
  void OnTick(Now now);
  void Drain(Now now, std::chrono::milliseconds spread);
  bool ready(Now now) const;
  bool link_live() const { return link_ == LinkPhase::kLive; }
  size_t connections() const { return open_slots_.size() + closing_ + unproven_; }
  size_t rooms() const { return table_.rooms_with_members(); }
  size_t events_held() const { return log_.requests() + log_.closes(); }
  const ShardCounters& counters() const { return counters_; }
  std::string_view username(uint32_t slot) const {
    return connections_[slot].proven ? users_.Username(connections_[slot].user) : std::string_view();
  }
  std::string_view user_id(uint32_t slot) const {
    return connections_[slot].proven ? users_.UserId(connections_[slot].user) : std::string_view();
  }
  std::string DebugDump() const;

 private:
  static constexpr size_t kDetailBytesMax = 128;  // of clients' input in a log line
  static constexpr uint16_t kServiceRestart = 1012;

  enum class Phase : uint8_t {
    kFree,
    kUnproven,  // its token is awaited, or is being checked
    kOpen,
    kClosing,  // told to close: nothing is sent to it or heard from it any more, and the core knows it as closed
  };
  enum class LinkPhase : uint8_t {
    kDown,
    kGreeting,  // Hello is said
    kLive,      // Welcome is heard
    kDropping,  // given up: waits for OnLinkDown
  };

  // What is kept of the newest token.
  struct HeldToken {
    std::string session_id;
    int64_t issued_at_ms = 0;
    WallTime expires_at;
  };

  struct Connection {
    std::unique_ptr<HeldToken> token;  // of open ones
    uint32_t generation = 0;
    UserIndex user;
    uint32_t open_position = 0;  // in open_slots_
    uint32_t stamp = 0;          // the last delivery, of those that must look, that has met this connection
    uint32_t unanswered = 0;     // of its requests in the log
    Phase phase = Phase::kFree;
    bool told = false;      // the core, some core, knows it from an open or a declaration
    bool active = false;    // stands in active_slots_
    bool pinged = false;    // since the last report
    bool away = false;      // the device's status
    bool proven = false;    // `user` is held
    bool checking = false;  // a token of it
    bool warned = false;    // that its token ends
    SteadyTime last_ping;
    RateLimit::Bucket frames, bytes, refusals;  // what it has sent, and what of that was too much
    const RoomRights* room_rights = nullptr;    // held in room_rights_
  };

  // A number of connections to be sent to another edge, evenly over a time.
  struct Leaving {
    std::string_view reason;  // constant
    SteadyTime since;
    std::chrono::milliseconds spread{0};
    std::chrono::milliseconds reconnect_spread{0};  // over which they come back, past their closes
    size_t total = 0;
    size_t closed = 0;
  };

  // --- clients
  Connection& Occupy(uint32_t slot, uint32_t generation);
  // It is open from now on, unless all are being closed. REQUIRES: occupied, not in unproven_.
  void Admit(Now now, uint32_t slot, const TokenFacts& token);
  // False: the frame is over the limits, and not to be acted upon; who is unproven is closed for it.
  bool AdmitFrame(Now now, uint32_t slot);
  void CloseForRate(Now now, uint32_t slot);
  void OnRoomMessage(Now now, uint32_t slot, const ClientMessage& message);
  void OnTyping(Now now, uint32_t slot, const ClientMessage& message);
  void SetStatus(Now now, uint32_t slot, link::v1::Status status);
  bool MayRequest(uint32_t slot, const ClientMessage& message);
  // There is space for one more request in the log; those of connections that are gone make way for it.
  bool MakeSpaceInLog();
  struct RoomWish {
    RoomIndex room;  // held; the log takes over the hold
    link::v1::RoomKind kind = link::v1::ROOM_KIND_UNSPECIFIED;
    bool join = false;
  };
  // Holds it until it is answered, and tells the core.
  void Request(Now now, uint32_t slot, const RoomWish& wish);
  void SignOfLife(Now now, uint32_t slot, bool pinged);
  // Ends everything that the connection takes part in, and tells the core. `held_until`: see HeldClose.
  void Detach(Now now, uint32_t slot, SteadyTime held_until = {});
  void CloseConnection(Now now, uint32_t slot, uint16_t code, std::string_view reason);
  void ReleaseClose(const HeldClose& close) { users_.Release(close.user); }
  void ReleaseRequest(const HeldRequest& request);

  void Report(ShardOutput::Severity severity, uint32_t slot, std::string_view what, std::string_view detail) {
    output_.Report(severity, slot, what, detail.substr(0, kDetailBytesMax));
  }

  // --- tokens
  void OnFirstText(uint32_t slot, std::string_view text);
  void OnAuth(uint32_t slot, std::string_view token);
  void Prove(Now now, uint32_t slot, const TokenCheck& check);
  void Renew(Now now, uint32_t slot, const TokenFacts& token);
  void RefuseToken(Now now, uint32_t slot, std::string_view why, uint32_t code);
  void ForgetUnproven(uint32_t slot);
  void EndUnproven(uint32_t slot, uint16_t code, std::string_view reason);
  void EndAllUnproven(uint16_t code, std::string_view reason);
  void TakeToken(Now now, uint32_t slot, const TokenFacts& token);
  static void Fill(const HeldToken& token, link::v1::TokenOrigin* origin);
  WallTime ClosesAt(const Connection& connection) const {
    return connection.token->expires_at + options_.expiry_leeway;
  }
  void JudgeUnproven(Now now);
  void JudgeExpiry(Now now);
  void CloseExpired(Now now, uint32_t slot);

  // --- frames to clients
  void SendTo(uint32_t slot, std::string_view text);
  void SendError(uint32_t slot, std::string_view text, uint32_t code);
  void SendPong(Now now, uint32_t slot);
  void SendToAll(absl::Span<const uint32_t> slots, std::string_view text, SendPolicy policy);

  // --- the link
  void OnWelcome(Now now, const link::v1::Welcome& welcome);
  void OnAcknowledge(const link::v1::Acknowledge& acknowledge);
  void OnBind(Now now, const link::v1::Bind& bind);
  void OnUnbind(const link::v1::Unbind& unbind);
  void OnRefuse(const link::v1::Refuse& refuse);
  void OnDeliver(const link::v1::Deliver& deliver);
  void OnRoomMoved(const link::v1::RoomMoved& moved);
  void OnDeliverTo(const link::v1::DeliverTo& deliver);
  void OnDeliverPresence(Now now, const link::v1::DeliverPresence& deliver);
  void OnCloseConnection(Now now, const link::v1::CloseConnection& close);
  void OnLeaveRoom(Now now, const link::v1::LeaveRoom& leave);
  void OnChangeStatus(Now now, const link::v1::ChangeStatus& change);
  void OnSetLogLevel(const link::v1::SetLogLevel& set);
  // The stamp of a new delivery: no connection carries it yet.
  uint32_t NextStamp();
  void Declare(Now now, uint32_t slot);
  void TellRoomsSeen(Now now);
  void Repeat(Now now);
  // `tell`: of the event that names the connection.
  template <typename Event>
  void TellRoomRights(uint32_t slot, Event& tell) const {
    const RoomRights* rights = connections_[slot].room_rights;
    if (rights == nullptr) return;
    tell.mutable_rights()->mutable_write()->Assign(rights->write().begin(), rights->write().end());
    tell.mutable_rights()->mutable_read()->Assign(rights->read().begin(), rights->read().end());
  }
  void AddRequest(Now now, const HeldRequest& request);
  void AddClose(Now now, const HeldClose& close);
  link::v1::EdgeEvent& AddEvent(Now now);
  void DropLink(Now now, std::string_view why);
  void LoseLink(Now now);
  void SayHello(link::v1::Hello* hello);
  // The open connection with this id, and not a later one in its slot.
  std::optional<uint32_t> FindSlot(uint64_t connection) const;
  uint64_t IdOf(uint32_t slot) const {
    return ConnectionId{options_.shard, slot, connections_[slot].generation}.Pack();
  }
  // The unanswered request of this connection with this number.
  std::optional<HeldRequest> Answer(uint64_t reply_to, bool join, uint64_t connection);

  // --- time
  void JudgeSilence(Now now);
  void ReportActivity(Now now);
  void SendWaitingPresence(Now now);
  void JudgeIsolation(Now now);
  void StartLeaving(Now now, std::string_view reason, std::chrono::milliseconds spread);
  void ContinueLeaving(Now now);
  void SendAway(Now now, uint32_t slot);
  std::chrono::milliseconds ReconnectAfter(uint32_t slot) const;

  const ShardOptions options_;
  ShardOutput& output_;
  ShardCounters counters_;
  ClientMessageParser parser_;

  const RateLimit frames_limit_, bytes_limit_;
  // A client that has been told 429 has what it sent meanwhile under way; one that does not listen has no end of it.
  const RateLimit refusals_limit_{10, 100};

  std::vector<Connection> connections_;  // by slot
  std::vector<uint32_t> open_slots_;     // no order
  size_t closing_ = 0;
  UserTable users_;
  RoomRightsTable room_rights_;  // of tokens, for the core to judge
  ForwardingTable table_;
  SilenceList silence_;
  size_t unproven_ = 0;
  SilenceList first_frames_;  // unproven ones whose first frame is awaited
  ExpiryWheel expiries_;
  std::vector<uint32_t> expired_;  // while they are judged
  EventLog log_;
  size_t dead_requests_ = 0;  // in the log, of connections that are gone
  uint64_t sequence_ = 0;     // of the last event that has one

  PresencePacer pacer_;
  uint64_t presence_watermark_ = 0;  // see link.proto
  uint32_t stamp_ = 0;
  std::vector<uint32_t> chosen_;  // who gets a delivery that is not for the members of one room, while it is made
  std::vector<uint32_t>
      active_slots_;  // who sent something since the last report; may name a slot twice, and closed ones

  LinkPhase link_ = LinkPhase::kDown;
  uint64_t attach_ = 0;
  bool ever_live_ = false;
  SteadyTime heard_at_;  // the last command
  SteadyTime said_at_;   // the last event
  std::optional<SteadyTime> without_link_since_;

  std::optional<SteadyTime> ticked_at_;
  SteadyTime reported_at_;
  bool draining_ = false;
  bool isolated_ = false;
  std::optional<Leaving> leaving_;

  // One pong serves a whole second.
  int64_t pong_second_ = 0;
  FrameRef pong_;
  std::string scratch_;  // for the frame that is being written
};

}  // namespace presence::edge
