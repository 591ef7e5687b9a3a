// The inside of Hub: its parts, and how events go through them. Private to hub*.cc.
//
//   link events ─▶ ConnectionTable, RoomTable ─▶ PresenceLedger ─▶ Store                  (hub_links.cc)
//   joins, rights to rooms, typing ─▶ RoomAccess ─▶ RoomAuthorizer                          (hub_rooms.cc)
//   messages, typing: API ─▶ Publications ─▶ bus ─▶ Fanout ─▶ links; counts ─▶ Gathers    (hub_messages.cc)
//   bus, outside, change log ─▶ RecentChanges ─▶ Fanout ─▶ links                          (hub_bus.cc)
//   messages of rooms with a log: API ─▶ Store ─▶ bus ─▶ Fanout; what the bus did not bring: RoomReads ─▶ Store   (hub_room_log.cc)
//   requests to all cores: API ─▶ Gathers, bus; bus ─▶ answers ─▶ outbox; taps            (hub_cluster.cc)
//   orders: bus ─▶ Orders ─▶ links; link events ─▶ Orders ─▶ answers                      (hub_orders.cc)
//   sessions that end: API ─▶ Store ─▶ bus ─▶ Orders; what the store refuses ─▶ links      (hub_sessions.cc)
//   shards that come: links ─▶ bus; bus ─▶ what has gone to another core is forgotten,
//   or looks for one, when this core alone has lost the store                              (hub_moves.cc)
//   ticks: silence, grace, late publications, sweep, acknowledgements, deadlines          (hub.cc)
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "core/acknowledged_rooms.h"
#include "core/connection_table.h"
#include "core/fanout.h"
#include "core/gathers.h"
#include "core/hub.h"
#include "core/link_table.h"
#include "core/orders.h"
#include "core/outside.h"
#include "core/presence_ledger.h"
#include "core/publications.h"
#include "core/recent_changes.h"
#include "core/room_access.h"
#include "core/room_reads.h"
#include "core/room_table.h"
#include "core/taps.h"

namespace presence::core {

class Hub::State {
 public:
  State(HubOptions options, Store& store, HubOutput& output, RoomAuthorizer* authorizer);

  void OnLinkOpened(Now now, LinkId id) { links_.Add(now, id); }
  void OnLinkEvent(Now now, LinkId id, const link::v1::EdgeEvent& event);
  void OnLinkClosed(Now now, LinkId id);

  void OnStoreUp(Now now, bool lost_state);
  void OnStoreDown(Now now);
  void OnWritten(Now now, uint64_t id, const WriteResult& result);
  void OnRefreshed(uint64_t id, absl::Span<const uint32_t> missing);
  void OnPublished(Now now, uint64_t id, bool ok);
  void OnChangesRead(Now now, uint64_t id, const absl::StatusOr<ChangeLog>& log);
  void OnPublishedOnce(Now now, uint64_t id, const OnceResult& result);
  void OnAppended(Now now, uint64_t id, const AppendResult& result);
  void OnRoomLogRead(Now now, uint64_t id, const absl::StatusOr<RoomLogPage>& page);
  void OnLogoutKept(Now now, uint64_t id, bool ok);
  void OnLogoutsRead(Now now, const absl::StatusOr<LogoutLog>& log);
  void OnCoresRead(Now now, const absl::StatusOr<std::vector<uint64_t>>& cores);
  void OnBus(Now now, const link::v1::BusEnvelope& envelope);
  void OnReplies(Now now, const link::v1::ClusterReplies& replies);
  void OnOutsideMessage(Now now, std::string_view text);
  void OnOutsidePresence(Now now, std::string_view text);
  void OnRoomRight(Now now, uint64_t question, const RoomAnswer& answer);
  void OnMessageRequested(Now now, uint64_t request, const MessageRequest& message);
  absl::Status OnTypingRequested(Now now, const link::v1::RoomTyping& typing);
  void OnClusterRequested(Now now, uint64_t request, link::v1::ClusterRequest body);
  void OnClusterCancelled(Now now, uint64_t request);
  absl::Status OnTapOpened(Now now, uint64_t tap, const link::v1::TapOrder& target);
  void OnTapClosed(Now now, uint64_t tap);
  void OnHostState(const HostState& state) { host_ = state; }
  void OnTurnEnd(Now now);
  void OnTick(Now now);

  void StopJudging();
  bool Idle() const;
  bool store_up() const { return ledger_.store_up(); }
  bool caught_up() const { return ledger_.store_up() && missed_.since == 0; }
  const HubCounters& counters() const;
  HubSizes sizes() const;
  std::string DebugDump() const;

 private:
  // A presence change, from the bus or from the change log. Views.
  struct Change {
    std::string_view user_id, username;
    Status status = link::v1::STATUS_UNSPECIFIED;
    uint64_t version = 0;
    int64_t changed_ms = 0;
    std::vector<std::string_view> room_ids;
  };
  // What has gathered in this turn for another core.
  struct Outgoing {
    link::v1::ClusterReplies replies;
    size_t bytes = 0;  // about; 0: nothing
  };
  // A logout that is on its way into the store.
  struct KeptLogout {
    uint64_t request = 0;  // 0: nobody waits for it any more
    link::v1::ClusterRequest body;
    SteadyTime until;                    // nobody tries again later
    std::optional<SteadyTime> again_at;  // nothing: the store is about to answer
  };
  // One that is kept, and of which all cores have been told, if Redis has passed it on.
  struct ToldLogout {
    SteadyTime at;
    link::v1::ClusterRequest body;
  };
  // A tap of this core's API.
  struct OpenTap {
    link::v1::TapOrder order;
    bool sent = false;  // to the other cores
    SteadyTime renew_at;
  };

  // --- hub_links.cc
  absl::Status OnEvent(Now now, Link& link, const link::v1::EdgeEvent& event);
  absl::Status OnHello(Now now, Link& link, const link::v1::Hello& hello);
  // From now on the shard is here, by this attach.
  absl::Status TakeShard(Now now, Link& link, const link::v1::Hello& hello);
  absl::Status OnDeclared(Now now, Link& link, const link::v1::ConnectionDeclared& declared);
  absl::Status OnResyncDone(Now now, Link& link);
  absl::Status OnOpened(Now now, Link& link, uint64_t sequence, const link::v1::ConnectionOpened& opened);
  absl::Status OnClosed(Now now, Link& link, uint64_t sequence, const link::v1::ConnectionClosed& closed);
  absl::Status OnLeft(Now now, Link& link, uint64_t sequence, const link::v1::RoomLeft& left);
  absl::Status OnStatusChanged(Now now, Link& link, uint64_t sequence, const link::v1::StatusChanged& changed);
  absl::Status OnActivity(Now now, Link& link, const link::v1::ActivityReported& activity);
  void Rebind(Now now, Link& link, ConnectionIndex index,
              const google::protobuf::RepeatedPtrField<std::string>& room_ids);
  void Bind(Link& link, ConnectionIndex index, RoomIndex room, uint64_t reply_to);
  void CloseConnection(Now now, Shard& shard, ConnectionIndex index, uint64_t sequence, SteadyTime expected_until = {});
  void AwaitConfirmation(Link& link, ConnectionTable::Ref record, uint64_t sequence);
  void RoomsChanged(Link& link, ConnectionIndex index, uint64_t sequence);
  void Leave(Now now, Link& link, ConnectionIndex index, const std::string& room_id, uint64_t sequence);

  // --- hub_held_joins.cc
  // A join that waits for the store's word on the token; or what stands behind such a join, to be done in order.
  struct HeldJoin {
    enum class What : uint8_t { kJoin, kLeave, kTyping };
    LinkId link;
    uint64_t sequence = 0;  // kTyping: 0
    std::string room_id;
    What what = What::kJoin;
    link::v1::RoomKind kind = link::v1::ROOM_KIND_UNSPECIFIED;  // kTyping
  };
  bool IsHeld(ConnectionIndex index) const { return connections_[index].unjudged && ledger_.sending(); }
  void HoldJoin(Link& link, ConnectionIndex index, std::string_view room_id, uint64_t sequence);
  // The store has answered about this connection.
  void JudgeJoins(Now now, ConnectionIndex index, const WriteResult& result);
  // Nobody will answer: the joins go on.
  void ReleaseAllJoins(Now now);
  void ReleaseJoins(Now now, ConnectionIndex index);
  void DropJoins(ConnectionIndex index);
  // Answered in order: false when no join to that room is held.
  bool HoldLeave(Link& link, ConnectionIndex index, std::string_view room_id, uint64_t sequence);
  void HoldTyping(Link& link, ConnectionIndex index, const link::v1::TypingStarted& typing);

  // --- hub_rooms.cc
  absl::Status OnJoined(Now now, Link& link, uint64_t sequence, const link::v1::RoomJoined& joined);
  void Join(Now now, Link& link, ConnectionIndex index, std::string_view room_id, uint64_t sequence);
  // Nothing: somebody must be asked.
  std::optional<RoomRight> RightOf(Now now, ConnectionIndex index, RoomAccess::Pair pair) const;
  void AnswerJoin(Now now, Link& link, ConnectionIndex index, std::string_view room_id, uint64_t sequence,
                  RoomRight right);
  // `floor`: where the room's log stands, if that was asked for.
  void Enter(Now now, Link& link, ConnectionIndex index, std::string_view room_id, uint64_t sequence,
             std::optional<RoomPosition> floor = {});
  void Refuse(Link& link, uint64_t sequence, uint32_t code, std::string_view error);
  // Those before `sequence` that wait for a right.
  void CancelJoins(Link& link, ConnectionIndex index, std::string_view room_id, uint64_t sequence);
  // The right is gone: the user's connections here are to leave the room, or this one is.
  void Expel(std::string_view user_id, std::string_view room_id, uint32_t code, std::string_view error);
  void ExpelOne(ConnectionIndex index, std::string_view room_id, uint32_t code, std::string_view error);
  void SetRights(ConnectionIndex index, const link::v1::RoomRights& rights);
  void DropRights(ConnectionIndex index);
  // It is in rooms already, and has these rights from now on.
  void CheckDeclared(Now now, ConnectionIndex index, const link::v1::RoomRights& rights);
  void RenewRights(Now now, Link& link, const link::v1::TokenRenewed& renewed);
  uint32_t ForgetRights(Now now, const link::v1::ForgetRoomRightsOrder& order);
  // False: the sender has been told, or nobody could say in time.
  bool MayType(Now now, Link& link, ConnectionIndex index, std::string_view room_id);

  // --- hub_room_log.cc
  bool HasLogs() const { return options_.room_log_age.count() > 0; }
  void Append(const MessageRequest& message, uint64_t gather, link::v1::BusEnvelope envelope, std::string_view copy);
  // The store has confirmed it. `back`: the bus has brought it, or it was delivered here.
  void Acknowledged(Now now, const std::string& room_id, RoomPosition position, bool back);
  void DeliverUnconfirmed(Now now, const link::v1::BusEnvelope& message);
  void OnLogged(Now now, const link::v1::BusEnvelope& envelope);
  // Whether the shard is handed this message, just heard on the bus. `quietly`: there is nothing to hand, but the position.
  bool TakeLive(RoomShard& entry, const link::v1::BusEnvelope& envelope, bool quietly);
  // Joins of a room whose log is not known wait until it is: what is sent after `subscribed` must be behind a known position.
  bool NeedsFloor(std::string_view room_id, const Shard& shard);
  bool AwaitsFloor(const Link& link, ConnectionIndex index, std::string_view room_id) const;
  void AwaitFloor(Link& link, ConnectionIndex index, std::string_view room_id, uint64_t sequence);
  // False: no join to that room waits.
  bool LeaveAwaitsFloor(Link& link, ConnectionIndex index, std::string_view room_id, uint64_t sequence);
  void OnFloor(Now now, const std::string& room_id, std::optional<RoomPosition> position);
  void CancelFloors(Link& link, ConnectionIndex index, std::string_view room_id);
  absl::Status OnRoomsSeen(Link& link, const link::v1::RoomsSeen& seen);
  // The shard has said how far it is.
  void ResumeRooms(Now now, Link& link);
  // The bus, or the logs, are away.
  void LoseRooms(Now now);
  // The bus stands again, and what it did not bring is in the logs, unless the store has `lost_state`.
  void ResumeAllRooms(Now now, bool lost_state);
  void ReadRooms(Now now);
  bool HasRoomForReplay(const Link& link) const { return output_.BacklogBytes(link.id) <= options_.replay_backlog_max; }
  // What the page has for the shard.
  void CatchUp(RoomIndex room, RoomShard& entry, const RoomLogPage& page);
  // Messages that the shard has not had may be lost. `position`: where it is from now on, if nothing else comes that says so.
  void TellGap(const RoomShard& entry, RoomPosition position);
  // Somebody has seen the room, which is here, so far. True: Doubt.
  bool NoteSeen(RoomIndex room, RoomPosition seen);
  // The room has gone on in another epoch, and Redis has not said that this was kept: true, the log is to be read. Else nothing is known of it.
  bool Doubt(std::string_view room_id, RoomPosition seen);
  // As far as anybody here knows the room has come.
  RoomPosition FurthestSeen(std::string_view room_id, std::optional<RoomIndex> room);
  void JudgeLate(Now now);

  // --- hub_messages.cc
  void Type(Now now, Link& link, ConnectionIndex index, const std::string& room_id, link::v1::RoomKind kind);
  void AnswerMessage(const Gather& gather);
  // The store has published nothing under that id, or nothing that is known.
  void AnswerUnpublished(Now now, uint64_t id, const OnceResult& result);
  void DeliverMessage(Now now, const link::v1::BusEnvelope& envelope);
  void DeliverOverdue(Now now, uint64_t through);  // messages of this core that are not back, up to this sequence
  absl::Status OnTyping(Now now, Link& link, const link::v1::TypingStarted& typing);
  void SendTyping(Now now, link::v1::RoomTyping typing);
  void DeliverTyping(Now now, const link::v1::RoomTyping& typing);

  // --- hub_cluster.cc
  void Announce(Now now);
  void Greet();
  void TellSettings(Now now);
  void OnSettings(Now now, uint64_t core, const link::v1::CoreSettings& settings);
  void AskAllCores(Now now, uint64_t request, link::v1::ClusterRequest body);  // 0: nobody waits for the answers
  void PublishRequest(link::v1::ClusterRequest request, uint64_t gather);      // 0: nobody gathers
  void OnRequest(Now now, const link::v1::ClusterRequest& request);
  void AnswerQuery(Now now, const link::v1::ClusterRequest& request, link::v1::ClusterReply* reply) const;
  // A drain or a log level, as far as it concerns processes that are here.
  void BeginOperation(const link::v1::ClusterRequest& request, link::v1::ClusterReply* reply);
  void AnswerState(link::v1::StateReply* state) const;
  void Reply(uint64_t origin, link::v1::ClusterReply reply);
  void ReplyCount(uint64_t origin, uint64_t id, uint32_t count);
  // Where a reply of so many bytes is to be added.
  link::v1::ClusterReplies& OutgoingTo(uint64_t origin, size_t bytes);
  void SendReplies(uint64_t origin, Outgoing& outgoing);
  // Answers what is finished: at the end of each event that may have finished something.
  void Settle(Now now);
  void AnswerCluster(Now now, Gather& gather);
  void RenewTaps(Now now);
  void SendTapOrder(Now now, OpenTap& tap);
  void Tapped(uint64_t id, const link::v1::TapEvents& events);
  // What all cores hear. REQUIRES: taps_.any(), which is asked before anything is put together for it.
  void Saw(Now now, link::v1::TapKind kind, std::string_view user_id, std::string_view room_id,
           std::string_view detail = {}) {
    taps_.Saw(now, kind, {user_id, room_id, 0, 0, detail}, Taps::Heard::kEverywhere);
  }
  // The same, of a connection of this core.
  void SawConnection(Now now, link::v1::TapKind kind, const Connection& connection, std::string_view room_id = {},
                     std::string_view detail = {});

  // --- hub_orders.cc
  void OnOrder(Now now, const link::v1::ClusterRequest& request);
  void FindConnection(const link::v1::ConnectionName& name, std::vector<ConnectionIndex>* found) const;
  void FindDevices(const link::v1::ClusterRequest& request, std::vector<ConnectionIndex>* found) const;
  void Tell(Link& link, uint64_t connection, const OrderCommand& command);
  // A connection was declared, and its rooms are bound: what is pending overrides that.
  void RepeatOrders(Link& link, ConnectionIndex index);
  uint32_t BeginDrain(const link::v1::DrainOrder& order);
  uint32_t SetLogLevel(const link::v1::LogLevelOrder& order);
  // One attached shard of each edge process.
  void ForEachEdge(absl::FunctionRef<void(const Shard& shard)> tell) const;

  // --- hub_sessions.cc
  static constexpr uint32_t kUnauthorized = 4401, kPolicyViolation = 1008;  // close codes
  static constexpr std::string_view kLoggedOut = "logged out", kTooManyConnections = "too many connections";
  absl::Status OnTokenRenewed(Link& link, uint64_t sequence, const link::v1::TokenRenewed& renewed);
  static bool IsValidToken(const link::v1::TokenOrigin& token);
  void SendAway(Now now, const PresenceLedger::Refusal& refusal);
  void KeepLogout(Now now, uint64_t request, link::v1::ClusterRequest body);
  void KeepLogoutsAgain(Now now);
  void TellLogoutsAgain();
  void CancelLogout(uint64_t request);
  void FindLoggedOut(const link::v1::EndSessionsOrder& order, std::vector<ConnectionIndex>* found) const;
  // Live connections of the session, or, without one, of the user.
  void ForEachLoggedOut(std::string_view user_id, std::string_view session_id,
                        absl::FunctionRef<void(ConnectionIndex)> use) const;
  // Whoever is sent out is not expected back: what lingers of him ends.
  void EndExpected(const link::v1::ClusterRequest& order);
  void MissLogouts(Now now);
  void ReadLogouts(Now now);

  // --- hub_moves.cc
  void TellAttached();       // the other cores, of the shards that they do not know to be here
  void TellAttachedAgain();  // at the next tick: somebody may not have heard it
  void OnShardAttached(Now now, const link::v1::ShardAttached& attached);
  void GiveUp(Now now, Shard& shard);
  // Nobody says any more that its connections are here; nothing is written of that.
  void Forget(Shard& shard, absl::FunctionRef<void(ConnectionIndex)> forgotten);
  // It is away for long, and whether another core has it cannot be heard: until that can be heard it takes nobody's place.
  void SetAside(Shard& shard);
  void BoundSetAside();
  // When it ends: EDGE_GRACE after the shard was lost, or, where the store was away then, after its return.
  bool GraceIsOver(Now now, const Shard& shard) const;
  // Since when the store has not answered, while other cores may have it; nothing: it is up, or there was never another core.
  std::optional<SteadyTime> CutOffSince() const;
  // The shard of a core that is cut off may come here.
  bool HasStoreForOthers(Now now) const;
  void SendShardsAway(Now now);

  // --- hub_bus.cc
  void CameBack(Now now, uint64_t sequence);
  void OnPresenceChanged(Now now, const link::v1::PresenceChanged& changed);
  void DeliverChange(Now now, const Change& change, Link* only);  // nullptr: to all links
  void TellOutput(Now now, const Change& change);
  // Which version a change had so long before now, by this core's clock.
  static uint64_t VersionBefore(Now now, std::chrono::milliseconds ago);
  void StartBaseline(Now now);
  // Every change up to this version has been given to all links that were there.
  uint64_t Watermark() const;
  void ReadMissed();
  // Of a log: what this core has missed, for all; or what the shard of `reader` has missed, for it alone.
  bool IsMissed(const StoredChange& stored, const Link* reader) const;
  void TellMissed(Now now);
  void TellPage(Now now, MissedChanges& missed, Link* reader);
  void FindRooms(absl::Span<const std::string_view> room_ids);  // into found_rooms_
  void DroppedOutside(Now now, std::string_view channel, const absl::Status& why);

  // --- hub.cc
  void CloseLink(Now now, Link& link, const absl::Status& why);
  void DropLink(Now now, Link& link);
  void JudgeSilence(Now now);
  void EndGrace(Now now);
  void SpeakToLinks(Now now);
  // The watermark that this link is to be told of now; 0: none.
  uint64_t PassedOn(Now now, Link& link) const;
  void Report(Now now, const std::string& text);

  const HubOptions options_;
  Store& store_;
  HubOutput& output_;
  mutable HubCounters counters_;  // those of the taps are fetched when somebody looks

  RoomTable rooms_;
  ConnectionTable connections_{rooms_};
  LinkTable links_;
  PresenceLedger ledger_;
  Fanout fanout_;
  Publications publications_;
  Gathers gathers_;
  Orders orders_;
  Taps taps_;  // that this core tells about, those opened here included
  RecentChanges recent_;
  OutsideReader outside_;

  RoomAccess access_;
  RoomRightsTable rights_;
  absl::flat_hash_map<ConnectionIndex, const RoomRights*> rights_of_;  // RoomAuth::kClaims; without: none

  std::map<ConnectionIndex, std::vector<HeldJoin>> held_joins_;  // ordered: it is walked over

  RoomReads reads_;
  // Joins that wait for where the log stands, and leaves behind them, to be done in order.
  struct FloorWait {
    LinkId link;
    ConnectionTable::Ref connection;
    uint64_t sequence = 0;
    bool join = true;
  };
  struct Floor {
    RoomPosition heard;  // on the bus meanwhile
    std::vector<FloorWait> waiting;
  };
  std::map<std::string, Floor, std::less<>> floors_;  // by room
  SteadyTime read_rooms_at_;                          // not before: the store has refused
  // Confirmed by the store at that time; the bus should bring it at once.
  struct Expected {
    SteadyTime since;
    RoomIndex room;
    uint64_t born = 0;  // of the room, as in RoomTable: later it may be another one
    RoomPosition position;
  };
  std::deque<Expected> expected_;
  AcknowledgedRooms acknowledged_;
  std::map<std::string, RoomPosition, std::less<>> doubted_;  // by room, here or not: see Doubt

  std::map<uint64_t, Outgoing> outbox_;    // by core
  std::map<uint64_t, OpenTap> open_taps_;  // by the API's number
  HostState host_;
  SteadyTime announce_at_;
  SteadyTime registry_read_at_;  // the store has answered an Announce, once a second; with an error, perhaps
  SteadyTime store_up_at_;       // when it came up last
  // Ever, not only at the last Announce: one that was away may be back before this core, which is cut off just then, hears of it.
  bool others_known_ = false;
  bool withdrawn_ = false;  // from the registry, for good
  SteadyTime tell_settings_at_;
  std::set<uint64_t> set_otherwise_;  // live cores with another ROOM_AUTH
  SteadyTime report_settings_at_;

  std::map<uint64_t, KeptLogout> logouts_;  // by id of KeepLogout; at most gathers_max
  uint64_t last_logout_ = 0;
  std::deque<ToldLogout> told_logouts_;            // of the last kTellAgain, at most kToldMax
  std::optional<SteadyTime> heard_logouts_until_;  // nothing: all are heard
  bool reading_logouts_ = false;
  int stale_logout_reads_ = 0;  // that the store answers before the one that counts
  SteadyTime read_logouts_at_;

  uint64_t last_read_ = 0;  // id of a ReadChanges
  MissedChanges missed_;    // by this core, while it did not hear the bus
  // From when on somebody could have missed a change through this core, while no version has been seen. 0: nobody could yet.
  uint64_t baseline_version_ = 0;
  SteadyTime read_again_at_;
  SteadyTime sweep_at_;

  SteadyTime last_tick_;
  bool ticked_ = false;
  bool judging_ = true;
  SteadyTime
      patient_until_;  // nobody is judged before: this core was stalled, and what was sent to it may still be on its way

  SteadyTime reports_since_;
  int reports_ = 0;  // since then
  uint64_t outside_invalid_unreported_ = 0;
  SteadyTime outside_report_at_;

  // Of one event; kept for their capacity.
  std::vector<ConnectionIndex> alive_, pinged_;
  std::vector<RoomIndex> found_rooms_;
  Change change_;
};

}  // namespace presence::core
