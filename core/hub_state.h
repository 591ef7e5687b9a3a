// The inside of Hub: its parts, and how events go through them. Private to hub.cc, hub_links.cc and hub_bus.cc.
//
//   link events ─▶ ConnectionTable, RoomTable ─▶ PresenceLedger ─▶ Store          (hub_links.cc)
//   bus, outside, change log, API ─▶ Publications, RecentChanges ─▶ Fanout ─▶ links    (hub_bus.cc)
//   ticks: silence, grace, late publications, sweep, acknowledgements                    (hub.cc)
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "core/connection_table.h"
#include "core/fanout.h"
#include "core/hub.h"
#include "core/link_table.h"
#include "core/outside.h"
#include "core/presence_ledger.h"
#include "core/publications.h"
#include "core/recent_changes.h"
#include "core/room_table.h"

namespace presence::core {

class Hub::State {
 public:
  State(HubOptions options, Store& store, HubOutput& output);

  void OnLinkOpened(Now now, LinkId id) { links_.Add(now, id); }
  void OnLinkEvent(Now now, LinkId id, const link::v1::EdgeEvent& event);
  void OnLinkClosed(Now now, LinkId id);

  void OnStoreUp(Now now, bool lost_state);
  void OnStoreDown(Now now);
  void OnWritten(Now now, uint64_t id, const WriteResult& result);
  void OnRefreshed(uint64_t id, absl::Span<const uint32_t> missing);
  void OnPublished(Now now, uint64_t id, bool ok);
  void OnChangesRead(Now now, uint64_t id, const absl::StatusOr<ChangeLog>& log);
  void OnBus(const link::v1::BusEnvelope& envelope);
  void OnOutsideMessage(Now now, std::string_view text);
  void OnOutsidePresence(Now now, std::string_view text);
  void OnBroadcastRequested(Now now, uint64_t request, std::string_view room_id, std::string_view data_json);
  void OnTick(Now now);

  void StopJudging() { judging_ = false; }
  bool Idle() const;
  bool store_up() const { return ledger_.store_up(); }
  const HubCounters& counters() const { return counters_; }
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

  // --- hub_links.cc
  absl::Status OnEvent(Now now, Link& link, const link::v1::EdgeEvent& event);
  absl::Status OnHello(Now now, Link& link, const link::v1::Hello& hello);
  absl::Status OnDeclared(Now now, Link& link, const link::v1::ConnectionDeclared& declared);
  absl::Status OnResyncDone(Link& link);
  absl::Status OnOpened(Now now, Link& link, uint64_t sequence, const link::v1::ConnectionOpened& opened);
  absl::Status OnClosed(Link& link, uint64_t sequence, const link::v1::ConnectionClosed& closed);
  absl::Status OnJoined(Link& link, uint64_t sequence, const link::v1::RoomJoined& joined);
  absl::Status OnLeft(Link& link, uint64_t sequence, const link::v1::RoomLeft& left);
  absl::Status OnStatusChanged(Link& link, uint64_t sequence, const link::v1::StatusChanged& changed);
  absl::Status OnTyping(Link& link, const link::v1::TypingStarted& typing);
  absl::Status OnActivity(Now now, Link& link, const link::v1::ActivityReported& activity);
  void Rebind(Link& link, ConnectionIndex index, const google::protobuf::RepeatedPtrField<std::string>& room_ids);
  void Bind(Link& link, ConnectionIndex index, RoomIndex room, uint64_t reply_to);
  void CloseConnection(Shard& shard, ConnectionIndex index, uint64_t sequence);
  void AwaitConfirmation(Link& link, ConnectionTable::Ref record, uint64_t sequence);
  void RoomsChanged(Link& link, ConnectionIndex index, uint64_t sequence);
  void CloseLink(Now now, Link& link, const absl::Status& why);
  void DropLink(Now now, Link& link);

  // --- hub_bus.cc
  void DeliverMessage(const link::v1::RoomMessage& message);
  void DeliverOverdue(uint64_t through);  // messages of this core that are not back, up to this sequence
  void OnPresenceChanged(const link::v1::PresenceChanged& changed);
  void DeliverChange(const Change& change, Link* only);  // nullptr: to all links
  // Which version a change had so long before now, by this core's clock.
  static uint64_t VersionBefore(Now now, std::chrono::milliseconds ago);
  void StartBaseline(Now now);
  // Every change up to this version has been given to all links that were there.
  uint64_t Watermark() const;
  void ReadMissed();
  // Of a log: what this core has missed, for all; or what the shard of `reader` has missed, for it alone.
  bool IsMissed(const StoredChange& stored, const Link* reader) const;
  void TellMissed();
  void TellPage(MissedChanges& missed, Link* reader);
  void FindRooms(absl::Span<const std::string_view> room_ids);  // into found_rooms_
  void DroppedOutside(Now now, std::string_view channel, const absl::Status& why);

  // --- hub.cc
  void JudgeSilence(Now now);
  void EndGrace(Now now);
  void SpeakToLinks(Now now);
  // The watermark that this link is to be told of now; 0: none.
  uint64_t PassedOn(Now now, Link& link) const;
  void Report(Now now, const std::string& text);

  const HubOptions options_;
  Store& store_;
  HubOutput& output_;
  HubCounters counters_;

  RoomTable rooms_;
  ConnectionTable connections_{rooms_};
  LinkTable links_;
  PresenceLedger ledger_;
  Fanout fanout_;
  Publications publications_;
  RecentChanges recent_;
  OutsideReader outside_;

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
