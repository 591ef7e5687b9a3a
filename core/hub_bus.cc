// What comes by the bus and from outside: presence, the change log, and where the rest goes.
#include <algorithm>
#include <cstdio>
#include <iterator>
#include <utility>

#include "core/client_text.h"
#include "core/hub_state.h"
#include "core/presence_text.h"

namespace presence::core {
namespace {

// Changes are read from a little before the last one seen: a failover to a replica may set Redis' clock back.
constexpr std::chrono::seconds kOverlap{5};
constexpr uint64_t kOverlapMicros = std::chrono::microseconds(kOverlap).count();
// To one link of what was missed. A command is some 250 B, so that is 0.5 MB a tick and 5 MB a second, of the 16 MiB that may wait for a
// link; 80,000 users take 4 s.
constexpr size_t kToldPerTickMax = 2'000;
constexpr std::chrono::seconds kReadAgainAfter{1};
constexpr std::chrono::seconds kOutsideReportEvery{1};

constexpr uint64_t LessOverlap(uint64_t version) {
  return version > kOverlapMicros ? version - kOverlapMicros : 1;
}

}  // namespace

// ------------------------------------------------------------------------------------------------------------- the bus

void Hub::State::OnBus(Now now, const link::v1::BusEnvelope& envelope) {
  if (envelope.core() == options_.incarnation) {
    // A request is carried out here when it comes back, however late that is, and never before: it needs no guard against repetition.
    // A message that is published once has no sequence.
    const uint64_t sequence = envelope.sequence();
    if (sequence != 0 && sequence <= publications_.delivered_through() && !envelope.has_request()) {
      ++counters_.loopback_duplicates;
      return;
    }
    if (sequence > publications_.delivered_through()) CameBack(now, sequence);
  } else if (envelope.core() != 0) {
    gathers_.Heard(envelope.core());
  }
  switch (envelope.body_case()) {
    case link::v1::BusEnvelope::kPresenceChanged:
      return OnPresenceChanged(now, envelope.presence_changed());
    case link::v1::BusEnvelope::kMessage:
      ++counters_.messages_from_bus;
      if (HasLogs() && envelope.room_sequence() != 0) {
        OnLogged(now, envelope);
      } else {
        DeliverMessage(now, envelope);
      }
      break;
    case link::v1::BusEnvelope::kUserMessage:
      ++counters_.user_messages_from_bus;
      DeliverMessage(now, envelope);
      break;
    case link::v1::BusEnvelope::kTyping:
      ++counters_.typing_from_bus;
      DeliverTyping(now, envelope.typing());
      break;
    case link::v1::BusEnvelope::kRequest:
      OnRequest(now, envelope.request());
      break;
    case link::v1::BusEnvelope::kShardAttached:
      if (envelope.core() != options_.incarnation) OnShardAttached(now, envelope.shard_attached());
      break;
    case link::v1::BusEnvelope::kRoomLost:
      if (HasLogs()) OnLogged(now, envelope);
      break;
    case link::v1::BusEnvelope::kCoreSettings:
      if (envelope.core() != 0) OnSettings(now, envelope.core(), envelope.core_settings());
      break;
    case link::v1::BusEnvelope::BODY_NOT_SET:  // a greeting, or something of a later release
      // Who greets has not heard what was said before.
      if (envelope.core() != options_.incarnation) TellAttachedAgain();
      break;
  }
  Settle(now);
}

void Hub::State::CameBack(Now now, uint64_t sequence) {
  // What was published before this and is not back was lost on the way: the bus keeps order.
  DeliverOverdue(now, sequence - 1);
  if (const auto* oldest = publications_.Oldest(); oldest != nullptr && oldest->sequence() == sequence) {
    publications_.PopOldest();
  }
  publications_.DeliveredThrough(sequence);
}

// ---------------------------------------------------------------------------------------------------------- presence

void Hub::State::OnPresenceChanged(Now now, const link::v1::PresenceChanged& changed) {
  // Whoever may write to Redis may write here: nobody's presence is told under no name.
  if (!IsValidId(changed.user_id()) || changed.status() == link::v1::STATUS_UNSPECIFIED) return;
  const uint64_t last = recent_.VersionOf(changed.user_id());
  // The same version again is either a duplicate or, with rooms in the entries, a mere join.
  const bool is_join = options_.scope == PresenceScope::kRooms && changed.version() == last;
  if (changed.version() < last || (changed.version() == last && !is_join)) return;
  change_.user_id = changed.user_id();
  change_.username = changed.username();
  change_.status = changed.status();
  change_.version = changed.version();
  change_.changed_ms = changed.changed_ms();
  change_.room_ids.assign(changed.room_ids().begin(), changed.room_ids().end());
  DeliverChange(now, change_, nullptr);
}

void Hub::State::DeliverChange(Now now, const Change& change, Link* only) {
  if (only == nullptr) {
    ++counters_.presence_changes;
    if (change.version > recent_.VersionOf(change.user_id)) TellOutput(now, change);  // else a mere join
    recent_.Delivered(change.user_id, change.version);
    if (User* user = connections_.FindUser(change.user_id); user != nullptr && change.version >= user->known_version) {
      user->known_version = change.version;
      user->known_status = static_cast<uint8_t>(change.status);
    }
    const bool same_too = options_.scope == PresenceScope::kEveryone;  // else the same may have gone to fewer rooms
    missed_.StrikeOut(change.user_id, change.version, same_too);
    for (auto& [id, link] : links_) link.missed.StrikeOut(change.user_id, change.version, same_too);
  }
  if (options_.scope == PresenceScope::kRooms) FindRooms(change.room_ids);
  const std::string timestamp = FormatTimestamp(FromUnixMillis(change.changed_ms));
  const std::string text = PresenceFrame({change.user_id, change.username, StatusName(change.status), timestamp});
  const PresenceDelivery delivery{change.user_id, change.version, text};
  if (options_.scope == PresenceScope::kRooms) {
    fanout_.ToRooms(found_rooms_, delivery, only);
  } else if (only != nullptr) {
    fanout_.ToEveryone(*only, delivery);
  } else {
    fanout_.ToEveryone(delivery);
  }
}

void Hub::State::TellOutput(Now now, const Change& change) {
  output_.PresenceChanged({change.user_id, change.username, change.status, change.version, change.changed_ms});
  if (taps_.any()) {
    Saw(now, link::v1::TAP_KIND_PRESENCE, change.user_id, {}, StatusName(change.status));
  }
}

void Hub::State::FindRooms(absl::Span<const std::string_view> room_ids) {
  found_rooms_.clear();
  for (const std::string_view room_id : room_ids) {
    if (const auto room = rooms_.Find(room_id); room) found_rooms_.push_back(*room);
  }
}

// --------------------------------------------------------------------------------------------------------- change log

uint64_t Hub::State::VersionBefore(Now now, std::chrono::milliseconds ago) {
  return static_cast<uint64_t>(std::max<int64_t>(1, (ToUnixMillis(now.wall) - ago.count()) * 1000));
}

void Hub::State::StartBaseline(Now now) {
  // Versions are of Redis' clock, and this core's may be ahead of it.
  if (baseline_version_ == 0) baseline_version_ = VersionBefore(now, kOverlap);
}

uint64_t Hub::State::Watermark() const {
  return missed_.since != 0 ? missed_.since : std::max(recent_.watermark(), baseline_version_);
}

void Hub::State::ReadMissed() {
  const auto read = [this](MissedChanges& missed) {
    if (missed.since == 0 || missed.read != 0 || missed.HasMore()) return;
    missed.read = ++last_read_;
    store_.ReadChanges(missed.read, LessOverlap(missed.since));
  };
  read(missed_);
  for (auto& [id, link] : links_) read(link.missed);
}

void Hub::State::OnChangesRead(Now now, uint64_t id, const absl::StatusOr<ChangeLog>& log) {
  MissedChanges* missed = id == missed_.read ? &missed_ : nullptr;
  Link* reader = nullptr;
  for (auto& [link_id, link] : links_) {
    if (link.missed.read != id) continue;
    missed = &link.missed;
    reader = &link;
  }
  if (missed == nullptr || id == 0) return;
  missed->read = 0;
  if (!log.ok()) {
    read_again_at_ = now.steady + kReadAgainAfter;
    return;
  }
  std::vector<StoredChange> changes;
  std::copy_if(log->changes.begin(), log->changes.end(), std::back_inserter(changes),
               [&](const StoredChange& stored) { return IsMissed(stored, reader); });
  missed->Found(std::move(changes));
  TellPage(now, *missed, reader);
}

bool Hub::State::IsMissed(const StoredChange& stored, const Link* reader) const {
  const uint64_t version = stored.presence.version;
  // Who has not changed since then need not be told again, however much the log says. Less the overlap, since the core that named
  // the watermark may have missed something just before.
  const uint64_t since = reader == nullptr ? missed_.since : reader->missed.since;
  if (version <= LessOverlap(since)) return false;
  const uint64_t delivered = recent_.VersionOf(stored.presence.user_id);
  if (reader == nullptr) return version > delivered;
  // The bus may have been faster: a newer change must not be followed by this one.
  if (version < delivered) return false;
  // Told already, after Hello. (Not so sure in room scope: then the rooms may not have been bound yet.)
  return options_.scope == PresenceScope::kRooms || version != delivered || delivered <= reader->heard_from;
}

void Hub::State::TellMissed(Now now) {
  missed_.told = 0;
  for (auto& [id, link] : links_) link.missed.told = 0;
  if (missed_.HasMore()) TellPage(now, missed_, nullptr);
  for (auto& [id, link] : links_) {
    if (link.missed.HasMore()) TellPage(now, link.missed, &link);
  }
}

void Hub::State::TellPage(Now now, MissedChanges& missed, Link* reader) {
  while (missed.told + (reader == nullptr ? 0 : missed_.told) < kToldPerTickMax) {
    const StoredChange* stored = missed.Take();
    if (stored == nullptr) break;
    change_.user_id = stored->presence.user_id;
    change_.username = stored->presence.username;
    change_.status = stored->presence.status;
    change_.version = stored->presence.version;
    change_.changed_ms = stored->changed_ms;
    change_.room_ids.assign(stored->room_ids.begin(), stored->room_ids.end());
    DeliverChange(now, change_, reader);
  }
  if (missed.HasMore()) return;
  missed.Forget();
  missed.since = 0;
}

// ------------------------------------------------------------------------------------------------------------ outside

void Hub::State::OnOutsideMessage(Now now, std::string_view text) {
  if (text.starts_with(kCopyPrefix)) return;
  const absl::StatusOr<std::string> room_id = outside_.ReadRoomId(text);
  if (!room_id.ok()) return DroppedOutside(now, "message:broadcast", room_id.status());
  ++counters_.messages_from_outside;
  fanout_.ToRoom(*room_id, text, Fanout::Kind::kMessage);
  if (taps_.any()) Saw(now, link::v1::TAP_KIND_MESSAGE, {}, *room_id, text);
}

void Hub::State::OnOutsidePresence(Now now, std::string_view text) {
  if (text.starts_with(kCopyPrefix)) return;
  const absl::StatusOr<OutsidePresence> presence = outside_.ReadPresence(text);
  if (!presence.ok()) return DroppedOutside(now, "presence:updates", presence.status());
  ++counters_.presence_from_outside;
  const std::string frame =
      PresenceFrame({presence->user_id, presence->username, presence->status, presence->timestamp});
  const PresenceDelivery delivery{presence->user_id, 0, frame};
  if (options_.scope == PresenceScope::kEveryone) return fanout_.ToEveryone(delivery);
  found_rooms_.clear();
  const User* user = connections_.FindUser(presence->user_id);
  for (ConnectionIndex device = user == nullptr ? kNoConnection : user->first_live; device != kNoConnection;
       device = connections_[device].next_of_user) {
    for (const Membership& membership : connections_[device].rooms) found_rooms_.push_back(membership.room);
  }
  fanout_.ToRooms(found_rooms_, delivery, nullptr);
}

void Hub::State::DroppedOutside(Now now, std::string_view channel, const absl::Status& why) {
  ++counters_.outside_invalid;
  ++outside_invalid_unreported_;
  if (now.steady < outside_report_at_) return;
  outside_report_at_ = now.steady + kOutsideReportEvery;
  std::string line(channel);
  line.append(": dropped, since ").append(why.message().data(), why.message().size());
  line.append("; so many since the last such line: ").append(std::to_string(outside_invalid_unreported_));
  outside_invalid_unreported_ = 0;
  Report(now, line);
}

}  // namespace presence::core
