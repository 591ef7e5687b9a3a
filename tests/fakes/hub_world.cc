#include "tests/fakes/hub_world.h"

#include "common/check.h"
#include "common/connection_id.h"
#include "core/presence_text.h"
#include "tests/fakes/hub_text.h"

namespace presence::core {
namespace {

using link::v1::CoreCommand;
using link::v1::EdgeEvent;

std::string KeyName(const ConnectionKey& key) {
  char edge[20];
  std::snprintf(edge, sizeof edge, "%llx", static_cast<unsigned long long>(key.incarnation));
  return std::string(edge) + "/" + std::to_string(ConnectionId::Unpack(key.connection).shard) + "/" +
         Name(key.connection);
}

std::string Hex(uint64_t number) {
  char text[20];
  std::snprintf(text, sizeof text, "%llx", static_cast<unsigned long long>(number));
  return text;
}

}  // namespace

uint64_t ConnectionOf(uint32_t slot, uint32_t generation, uint32_t shard) {
  return ConnectionId{shard, slot, generation}.Pack();
}

EdgeEvent Hello(uint64_t attach, uint64_t watermark, uint64_t edge, uint32_t shard) {
  EdgeEvent event;
  auto& hello = *event.mutable_hello();
  hello.set_protocol(1);
  hello.set_edge("edge");
  hello.set_incarnation(edge);
  hello.set_shard(shard);
  hello.set_attach(attach);
  hello.set_presence_watermark(watermark);
  return event;
}

EdgeEvent Declared(uint64_t connection, std::string_view user, std::vector<std::string> rooms, Status status,
                   uint32_t silent_ms) {
  EdgeEvent event;
  auto& declared = *event.mutable_connection_declared();
  declared.set_connection(connection);
  declared.set_user_id(std::string(user));
  declared.set_username(std::string(user));
  declared.set_status(status);
  declared.set_silent_ms(silent_ms);
  declared.mutable_room_ids()->Add(rooms.begin(), rooms.end());
  return event;
}

EdgeEvent ResyncDone() {
  EdgeEvent event;
  event.mutable_resync_done();
  return event;
}

EdgeEvent Opened(uint64_t sequence, uint64_t connection, std::string_view user) {
  EdgeEvent event;
  event.set_sequence(sequence);
  event.mutable_connection_opened()->set_connection(connection);
  event.mutable_connection_opened()->set_user_id(std::string(user));
  event.mutable_connection_opened()->set_username(std::string(user));
  return event;
}

EdgeEvent Closed(uint64_t sequence, uint64_t connection, std::string_view user, uint32_t hold_ms) {
  EdgeEvent event;
  event.set_sequence(sequence);
  event.mutable_connection_closed()->set_connection(connection);
  event.mutable_connection_closed()->set_user_id(std::string(user));
  event.mutable_connection_closed()->set_hold_ms(hold_ms);
  return event;
}

EdgeEvent Joined(uint64_t sequence, uint64_t connection, std::string_view room) {
  EdgeEvent event;
  event.set_sequence(sequence);
  event.mutable_room_joined()->set_connection(connection);
  event.mutable_room_joined()->set_room_id(std::string(room));
  return event;
}

EdgeEvent Left(uint64_t sequence, uint64_t connection, std::string_view room) {
  EdgeEvent event;
  event.set_sequence(sequence);
  event.mutable_room_left()->set_connection(connection);
  event.mutable_room_left()->set_room_id(std::string(room));
  return event;
}

EdgeEvent StatusSet(uint64_t sequence, uint64_t connection, Status status) {
  EdgeEvent event;
  event.set_sequence(sequence);
  event.mutable_status_changed()->set_connection(connection);
  event.mutable_status_changed()->set_status(status);
  return event;
}

EdgeEvent Typing(uint64_t connection, std::string_view room, link::v1::RoomKind kind) {
  EdgeEvent event;
  event.mutable_typing_started()->set_connection(connection);
  event.mutable_typing_started()->set_room_id(std::string(room));
  event.mutable_typing_started()->set_kind(kind);
  return event;
}

EdgeEvent Activity(std::vector<uint64_t> alive, std::vector<uint64_t> pinged) {
  EdgeEvent event;
  event.mutable_activity_reported()->mutable_alive()->Add(alive.begin(), alive.end());
  event.mutable_activity_reported()->mutable_pinged()->Add(pinged.begin(), pinged.end());
  return event;
}

EdgeEvent Heartbeat() {
  EdgeEvent event;
  event.mutable_heartbeat();
  return event;
}

link::v1::BusEnvelope Changed(std::string_view user, Status status, uint64_t version, std::vector<std::string> rooms) {
  link::v1::BusEnvelope envelope;
  auto& changed = *envelope.mutable_presence_changed();
  changed.set_user_id(std::string(user));
  changed.set_username(std::string(user));
  changed.set_status(status);
  changed.set_version(version);
  changed.mutable_room_ids()->Add(rooms.begin(), rooms.end());
  return envelope;
}

link::v1::BusEnvelope MessageFrom(uint64_t core, uint64_t sequence, std::string_view room, std::string_view text) {
  link::v1::BusEnvelope envelope;
  envelope.set_core(core);
  envelope.set_sequence(sequence);
  envelope.mutable_message()->set_room_id(std::string(room));
  envelope.mutable_message()->set_text(std::string(text));
  return envelope;
}

link::v1::BusEnvelope LoggedMessage(RoomPosition position, std::string_view room, std::string_view text,
                                    RoomPosition previous, uint64_t core) {
  link::v1::BusEnvelope envelope = MessageFrom(core, 0, room, text);
  envelope.set_room_epoch(position.epoch);
  envelope.set_room_sequence(position.sequence);
  envelope.set_room_previous_epoch(previous.epoch);
  envelope.set_room_previous_sequence(previous.sequence);
  return envelope;
}

EdgeEvent Seen(std::vector<std::pair<std::string, RoomPosition>> rooms) {
  EdgeEvent event;
  for (const auto& [room, position] : rooms) {
    link::v1::RoomSeen& seen = *event.mutable_rooms_seen()->add_rooms();
    seen.set_room_id(room);
    seen.set_epoch(position.epoch);
    seen.set_sequence(position.sequence);
  }
  return event;
}

StoredChange LoggedChange(std::string_view user, Status status, uint64_t version, std::vector<std::string> rooms) {
  StoredChange change;
  change.presence.user_id = user;
  change.presence.username = user;
  change.presence.status = status;
  change.presence.version = version;
  change.room_ids = std::move(rooms);
  return change;
}

HubOptions HubWorld::DefaultOptions() {
  HubOptions options;
  options.core_name = "core";
  options.incarnation = kCore;
  return options;
}

HubWorld::HubWorld(HubOptions options, StoreAtStart store)
    : now_{SteadyTime(std::chrono::hours(5)), WallTime(std::chrono::seconds(1'000))},
      hub_(std::move(options), *this, *this, this) {
  hub_.OnTick(now_);
  if (store == StoreAtStart::kUp) hub_.OnStoreUp(now_, false);
}

void HubWorld::Pass(std::chrono::milliseconds time) {
  constexpr std::chrono::milliseconds kStep{100};
  while (time.count() > 0) {
    Stall(std::min(time, kStep));
    time -= std::min(time, kStep);
    Tick();
  }
}

void HubWorld::Stall(std::chrono::milliseconds time) {
  now_.steady += time;
  now_.wall += time;
}

void HubWorld::Say(uint64_t link, const std::vector<EdgeEvent>& events) {
  for (const EdgeEvent& event : events) Say(link, event);
}

void HubWorld::Attach(uint64_t link, uint64_t attach, const std::vector<EdgeEvent>& declared, uint64_t edge,
                      uint32_t shard) {
  const size_t reads = open_reads_.size();
  OpenLink(link);
  Say(link, Hello(attach, 0, edge, shard));
  Say(link, declared);
  Say(link, ResyncDone());
  for (; open_reads_.size() > reads; open_reads_.pop_back()) hub_.OnChangesRead(now_, open_reads_.back(), ChangeLog{});
  Tick();
  Forget();
}

void HubWorld::AttachConfirmed(uint64_t link, uint64_t attach, const std::vector<EdgeEvent>& declared, uint64_t edge,
                               uint32_t shard) {
  Attach(link, attach, declared, edge, shard);
  ConfirmAll();
  Forget();
}

void HubWorld::Answer(Outcome outcome, Status status, uint64_t version) {
  PRESENCE_CHECK(!open_writes_.empty(), "an answer is to a write");
  const uint64_t id = open_writes_.front();
  open_writes_.pop_front();
  WriteResult result;
  result.outcome = outcome;
  if (outcome != Outcome::kUnavailable) {
    result.user_status = status;
    result.user_version = version;
  }
  hub_.OnWritten(now_, id, result);
}

void HubWorld::ConfirmAll(Status status, uint64_t version) {
  while (!open_writes_.empty()) Answer(Outcome::kApplied, status, version);
}

void HubWorld::AnswerRefresh(const std::vector<uint32_t>& missing) {
  PRESENCE_CHECK(!open_refreshes_.empty(), "an answer is to a refresh");
  const uint64_t id = open_refreshes_.front();
  open_refreshes_.pop_front();
  hub_.OnRefreshed(now_, id, missing);
}

void HubWorld::AnswerPublish(bool ok) {
  PRESENCE_CHECK(!open_publishes_.empty(), "an answer is to a publication");
  const uint64_t id = open_publishes_.front();
  open_publishes_.pop_front();
  hub_.OnPublished(now_, id, ok);
}

void HubWorld::AnswerRead(const absl::StatusOr<ChangeLog>& log) {
  PRESENCE_CHECK(!open_reads_.empty(), "an answer is to a read");
  const uint64_t id = open_reads_.front();
  open_reads_.pop_front();
  hub_.OnChangesRead(now_, id, log);
}

void HubWorld::LoopBack() {
  PRESENCE_CHECK(!on_the_bus_.empty(), "what comes back was published");
  const link::v1::BusEnvelope envelope = on_the_bus_.front();
  on_the_bus_.pop_front();
  Bus(envelope);
}

void HubWorld::Forget() {
  Flush(0);
  sent_.clear();
  asked_.clear();
  answers_.clear();
  reports_.clear();
  ordered_.clear();
  changes_.clear();
}

HubWorld::Lines& HubWorld::Flush(uint64_t link) {
  if (command_link_ != 0) sent_[command_link_].push_back(Describe(command_));
  command_link_ = 0;
  return sent_[link];
}

CoreCommand& HubWorld::AddCommand(LinkId link) {
  Flush(0);
  command_link_ = link.value();
  command_.Clear();
  return command_;
}

void HubWorld::CloseLink(LinkId link, const absl::Status& why) {
  Flush(link.value()).push_back("closed " + absl::StatusCodeToString(why.code()));
}

void HubWorld::AnswerMessage(uint64_t request, const absl::Status& status, const MessageAnswer& answer) {
  answers_.push_back(Describe(request, status, answer));
}

void HubWorld::AnswerCluster(uint64_t request, const absl::Status& status,
                             std::vector<link::v1::ClusterReply> replies) {
  answers_.push_back(Describe(request, status, replies));
  last_replies_ = std::move(replies);
}

void HubWorld::PresenceChanged(const PresenceChange& change) {
  changes_.push_back(std::string(change.user_id) + "@" + std::to_string(change.version) + " " +
                     std::string(StatusName(change.status)));
}

void HubWorld::Write(const PresenceWrite& write) {
  using Kind = PresenceWrite::Kind;
  std::string line = write.kind == Kind::kAssert     ? "assert "
                     : write.kind == Kind::kReassert ? "reassert "
                     : write.kind == Kind::kLinger   ? "linger "
                                                     : "remove ";
  line += KeyName(write.key) + " attach=" + std::to_string(write.attach) + " ";
  line.append(write.user_id);
  if (!IsEnd(write.kind)) line.append(" ").append(StatusName(write.status));
  if (write.kind == Kind::kLinger) line += " for=" + std::to_string(write.linger_for.count()) + "ms";
  if (!write.room_ids.empty()) line += " rooms=" + Join(write.room_ids);
  if (write.silent_for.count() > 0) line += " silent=" + std::to_string(write.silent_for.count()) + "ms";
  if (write.previous_version != 0) {
    const bool known = write.previous_status != link::v1::STATUS_UNSPECIFIED;
    line.append(" previous=").append(known ? StatusName(write.previous_status) : "unknown");
    line += "@" + std::to_string(write.previous_version);
  }
  if (write.issued_at_ms != 0) {
    line.append(" token=").append(write.session_id).append("@" + std::to_string(write.issued_at_ms / 1000));
    if (write.newcomer) line.append(" new");
  }
  asked_.push_back(line);
  open_writes_.push_back(write.id);
}

void HubWorld::Refresh(uint64_t id, absl::Span<const RefreshEntry> entries) {
  std::string line = "refresh";
  for (const RefreshEntry& entry : entries) {
    line += " " + KeyName(entry.key) + "@" + std::to_string(entry.attach) + (entry.pinged ? "(ping)" : "");
  }
  asked_.push_back(line);
  open_refreshes_.push_back(id);
}

void HubWorld::SetTyping(std::string_view room_id, std::string_view user_id, std::string_view username) {
  asked_.push_back("typing " + std::string(room_id) + " " + std::string(user_id) + " " + std::string(username));
}

void HubWorld::Publish(uint64_t id, const link::v1::BusEnvelope& envelope, std::string_view outside) {
  if (envelope.has_shard_attached()) {
    const link::v1::ShardAttached& attached = envelope.shard_attached();
    attached_.push_back(Hex(attached.incarnation()) + "/" + std::to_string(attached.shard()) + "@" +
                        std::to_string(attached.attach()));
  }
  if (id == 0) return;  // that, or the greeting
  std::string line = "publish " + std::to_string(envelope.sequence());
  if (envelope.has_message()) line += " message " + envelope.message().room_id() + " " + envelope.message().text();
  if (envelope.has_user_message()) {
    line += " to " + envelope.user_message().user_id() + " " + envelope.user_message().text();
  }
  if (envelope.has_request()) line += " request " + std::to_string(envelope.request().id());
  if (envelope.has_typing()) line += " typing " + envelope.typing().room_id() + " " + envelope.typing().user_id();
  asked_.push_back(line);
  if (!outside.empty()) asked_.push_back("outside " + std::string(outside));
  open_publishes_.push_back(id);
  on_the_bus_.push_back(envelope);
}

void HubWorld::PublishOnce(uint64_t id, std::string_view request_id, std::string_view fingerprint,
                           const link::v1::BusEnvelope& envelope, std::string_view outside) {
  asked_.push_back("publish once " + std::string(request_id) + " " + std::string(fingerprint) +
                   (outside.empty() ? "" : " with a copy"));
  open_once_.push_back(id);
  on_the_bus_.push_back(envelope);
}

void HubWorld::Append(uint64_t id, std::string_view request_id, std::string_view /*fingerprint*/,
                      const link::v1::BusEnvelope& envelope, std::string_view outside) {
  asked_.push_back("append " + std::to_string(id) + " " + envelope.message().room_id() + " " +
                   envelope.message().text() + (request_id.empty() ? "" : " once " + std::string(request_id)) +
                   (outside.empty() ? "" : " with a copy"));
  open_appends_.push_back(id);
  on_the_bus_.push_back(envelope);
}

void HubWorld::ReadRoomLog(uint64_t id, const RoomLogQuery& query) {
  const auto text = [](RoomPosition position) {
    return std::to_string(position.epoch) + "-" + std::to_string(position.sequence);
  };
  asked_.push_back("read log " + std::string(query.room_id) + " from " + text(query.after) + " at most " +
                   std::to_string(query.entries_max) +
                   (query.seen.known() && query.seen != query.after ? " seen " + text(query.seen) : "") +
                   (query.doubted.known() ? " or " + text(query.doubted) : ""));
  open_log_reads_.emplace_back(id, query.room_id);
}

void HubWorld::AnswerAppend(const AppendResult& result) {
  PRESENCE_CHECK(!open_appends_.empty(), "an answer is to an append");
  const uint64_t id = open_appends_.front();
  open_appends_.pop_front();
  hub_.OnAppended(now_, id, result);
}

void HubWorld::LoopBackAt(RoomPosition position, RoomPosition previous) {
  PRESENCE_CHECK(!on_the_bus_.empty(), "what comes back was published");
  link::v1::BusEnvelope envelope = on_the_bus_.front();
  on_the_bus_.pop_front();
  envelope.set_room_epoch(position.epoch);
  envelope.set_room_sequence(position.sequence);
  envelope.set_room_previous_epoch(previous.epoch);
  envelope.set_room_previous_sequence(previous.sequence);
  Bus(envelope);
}

void HubWorld::AnswerLog(const absl::StatusOr<RoomLogPage>& page) {
  PRESENCE_CHECK(!open_log_reads_.empty(), "an answer is to a read");
  const uint64_t id = open_log_reads_.front().first;
  open_log_reads_.pop_front();
  hub_.OnRoomLogRead(now_, id, page);
}

void HubWorld::SaveAnswer(std::string_view request_id, std::string_view answer) {
  asked_.push_back("save answer " + std::string(request_id) + " " + std::string(answer));
}

void HubWorld::Reply(uint64_t core, const link::v1::ClusterReplies& replies) {
  std::string line = "reply to " + Hex(core);
  for (const auto& reply : replies.replies()) line += " " + std::to_string(reply.id()) + "=" + Describe(reply);
  asked_.push_back(line);
}

void HubWorld::KeepLogout(uint64_t id, const Logout& logout) {
  std::string line = "keep logout ";
  line.append(logout.user_id);
  if (!logout.session_id.empty()) line.append("session ").append(logout.session_id);
  asked_.push_back(line + "@" + std::to_string(logout.logged_out_at_ms / 1000));
  open_logouts_.push_back(id);
}

void HubWorld::AnswerLogout(bool ok) {
  PRESENCE_CHECK(!open_logouts_.empty(), "an answer is to a logout");
  const uint64_t id = open_logouts_.front();
  open_logouts_.pop_front();
  hub_.OnLogoutKept(now_, id, ok);
}

void HubWorld::AnswerOnce(OnceResult::Outcome outcome, std::string answer) {
  PRESENCE_CHECK(!open_once_.empty(), "an answer is to a publication");
  const uint64_t id = open_once_.front();
  open_once_.pop_front();
  hub_.OnPublishedOnce(now_, id, {outcome, std::move(answer)});
}

void HubWorld::Count(uint64_t core, uint64_t id, uint32_t count) {
  link::v1::ClusterReplies replies;
  link::v1::ClusterReply& reply = *replies.add_replies();
  reply.set_core(core);
  reply.set_id(id);
  reply.mutable_count()->set_count(count);
  hub_.OnReplies(now_, replies);
}

void HubWorld::ReadChanges(uint64_t id, uint64_t since_version) {
  asked_.push_back("read changes since " + std::to_string(since_version));
  open_reads_.push_back(id);
}

}  // namespace presence::core
