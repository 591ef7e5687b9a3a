// A hub with everything around it played by the test: shards that say what the test lets them say, a store that records what
// it is asked and answers when told to, and a clock that moves by hand. All that the hub does is recorded as short lines.
//
// Connections are written slot.generation, those of the store edge/shard/slot.generation in hexadecimal for the edge.
// Store calls look like
//   assert e1/0/7.1 attach=1 alice online           [rooms=a,b] [silent=1500ms] [token=s1@990] [new]
//   reassert e1/0/7.1 attach=1 alice online previous=online@10
//   remove e1/0/7.1 attach=1 alice previous=online@10      linger e1/0/7.1 attach=1 alice for=15000ms previous=online@10
//   refresh e1/0/7.1@1 e1/0/8.1@1(ping)             typing general alice Alice
//   publish 1 message general {...}                 outside {...}
//   publish 1 to alice {...} | publish 1 request 5  publish once key fingerprint [with a copy] | save answer key 3 0
//   append 1 general {...} [once key] [with a copy]  of rooms with logs; read log general from 5-3 at most 256
//   keep logout alice@1000                          keep logout session s1@1000
//   reply to c1 7=c0:3                              core c0 answers c1's request 7 with a count of 3
//   read changes since 95000000                     (sweeps and announcements are counted only)
//   may alice(Alice) general                        of the authorizer
// and what a link got
//   welcome watermark=0 | ack 5 | bind 7.1 general handle=1 reply=3 | unbind 7.1 general reply=4 | refuse reply=3 429
//   deliver 1 {...} | typing 1 {...} | presence alice@10 online everyone | presence alice@10 online rooms=1,2
//   deliver 1 @5-3 {...} with a position in the room's log | moved 1 @5-3 [lost] | bind ... reply=3 @5-3
//   deliver 1 except=7.1,8.1 {...} | deliver to 7.1 {...} | close 7.1 1008 bye | leave 7.1 general [403] | status 7.1 away
//   drain 5000ms | log level 1 | ack 5 watermark=1000000000 | heartbeat | closed FAILED_PRECONDITION
// Answers to the API are written "70 OK reached=3 [incomplete] [repeated]", those of the cluster "80 OK c0:1 c1:2".
// The clock stands at 1,000 s, so that a change of the first second has a version just above 1000000000.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/hub.h"
#include "core/store.h"
#include "presence/link/v1/link.pb.h"

namespace presence::core {

inline constexpr uint64_t kEdge = 0xe1;  // incarnation of the edge in most tests
inline constexpr uint64_t kCore = 0xc0;

std::string Describe(const link::v1::CoreCommand& command);
std::string Describe(const link::v1::ClusterReply& reply);
std::string Describe(uint64_t request, const absl::Status& status, const MessageAnswer& answer);
std::string Describe(uint64_t request, const absl::Status& status, const std::vector<link::v1::ClusterReply>& replies);

// What a shard may say. Connections are of shard 0 unless they say otherwise.
uint64_t ConnectionOf(uint32_t slot, uint32_t generation = 1, uint32_t shard = 0);

link::v1::EdgeEvent Hello(uint64_t attach, uint64_t watermark = 0, uint64_t edge = kEdge, uint32_t shard = 0);
link::v1::EdgeEvent Declared(uint64_t connection, std::string_view user, std::vector<std::string> rooms = {},
                             Status status = link::v1::STATUS_ONLINE, uint32_t silent_ms = 0);
link::v1::EdgeEvent ResyncDone();
link::v1::EdgeEvent Opened(uint64_t sequence, uint64_t connection, std::string_view user);
link::v1::EdgeEvent Closed(uint64_t sequence, uint64_t connection, std::string_view user, uint32_t hold_ms = 0);
link::v1::EdgeEvent Joined(uint64_t sequence, uint64_t connection, std::string_view room);
link::v1::EdgeEvent Left(uint64_t sequence, uint64_t connection, std::string_view room);
link::v1::EdgeEvent StatusSet(uint64_t sequence, uint64_t connection, Status status);
link::v1::EdgeEvent Typing(uint64_t connection, std::string_view room,
                           link::v1::RoomKind kind = link::v1::ROOM_KIND_CHANNEL);
link::v1::EdgeEvent Activity(std::vector<uint64_t> alive, std::vector<uint64_t> pinged = {});
link::v1::EdgeEvent Heartbeat();

// What comes by the bus.
link::v1::BusEnvelope Changed(std::string_view user, Status status, uint64_t version,
                              std::vector<std::string> rooms = {});
link::v1::BusEnvelope MessageFrom(uint64_t core, uint64_t sequence, std::string_view room, std::string_view text);

// The same with a place in the room's log; of the first of an epoch: what was before it.
link::v1::BusEnvelope LoggedMessage(RoomPosition position, std::string_view room, std::string_view text,
                                    RoomPosition previous = {}, uint64_t core = 0xc1);
link::v1::EdgeEvent Seen(std::vector<std::pair<std::string, RoomPosition>> rooms);

StoredChange LoggedChange(std::string_view user, Status status, uint64_t version, std::vector<std::string> rooms = {});

class HubWorld final : private HubOutput, private Store, private RoomAuthorizer {
 public:
  using Lines = std::vector<std::string>;
  using Outcome = WriteResult::Outcome;

  static HubOptions DefaultOptions();
  enum class StoreAtStart : uint8_t { kUp, kAway };
  explicit HubWorld(HubOptions options = DefaultOptions(), StoreAtStart store = StoreAtStart::kUp);

  Hub& hub() { return hub_; }
  Now now() const { return now_; }

  // Moves the clock in steps of 100 ms at most, with a tick after each.
  void Pass(std::chrono::milliseconds time);
  void Tick() { hub_.OnTick(now_); }
  // Moves the clock without a tick: a stalled process.
  void Stall(std::chrono::milliseconds time);

  void Say(uint64_t link, const link::v1::EdgeEvent& event) { hub_.OnLinkEvent(now_, LinkId(link), event); }
  void Say(uint64_t link, const std::vector<link::v1::EdgeEvent>& events);
  void OpenLink(uint64_t link) { hub_.OnLinkOpened(now_, LinkId(link)); }
  void LoseLink(uint64_t link) { hub_.OnLinkClosed(now_, LinkId(link)); }
  // Its shard reads too slowly, from now on; it has read everything.
  void Fill(uint64_t link) { full_.insert(link); }
  void Drain(uint64_t link) { full_.erase(link); }
  // Opens a link, declares these connections, finds nothing in the change log, and forgets what that caused.
  void Attach(uint64_t link, uint64_t attach, const std::vector<link::v1::EdgeEvent>& declared = {},
              uint64_t edge = kEdge, uint32_t shard = 0);
  // As above; the store confirms at once.
  void AttachConfirmed(uint64_t link, uint64_t attach, const std::vector<link::v1::EdgeEvent>& declared = {},
                       uint64_t edge = kEdge, uint32_t shard = 0);

  // --- the store's side
  void StoreUp() { hub_.OnStoreUp(now_, false); }
  void StoreUpWithoutItsState() { hub_.OnStoreUp(now_, true); }
  void StoreDown() { hub_.OnStoreDown(now_); }
  // Answers the oldest write. The user is then of that status and version.
  void Answer(Outcome outcome, Status status = link::v1::STATUS_ONLINE, uint64_t version = 10);
  // Answers all writes, also those that follow from the answers.
  void ConfirmAll(Status status = link::v1::STATUS_ONLINE, uint64_t version = 10);
  size_t writes_open() const { return open_writes_.size(); }
  void AnswerRefresh(const std::vector<uint32_t>& missing);
  void AnswerPublish(bool ok = true);
  void AnswerRead(const absl::StatusOr<ChangeLog>& log);
  // Hands back the oldest publication that has not come back.
  void LoopBack();
  // Answers the oldest question about a right.
  void AnswerRight(RoomRight right, std::chrono::milliseconds cache_for = {}) {
    AnswerRoom({RoomAnswer::Outcome::kAnswered, right, cache_for});
  }
  void AnswerNoRight() { AnswerRoom({}); }  // nobody can say
  size_t questions_open() const { return open_questions_.size(); }
  void Bus(const link::v1::BusEnvelope& envelope) { hub_.OnBus(now_, envelope); }
  void Broadcast(uint64_t request, std::string_view room, std::string_view data) {
    Request(request, {.room_id = room, .user_id = {}, .data_json = data});
  }
  void Request(uint64_t request, const MessageRequest& message) { hub_.OnMessageRequested(now_, request, message); }
  void Ask(uint64_t request, link::v1::ClusterRequest body) { hub_.OnClusterRequested(now_, request, std::move(body)); }
  void AnswerOnce(OnceResult::Outcome outcome, std::string answer = "");
  // Rooms with logs. Answers the oldest append; the message has that position. LoopBackAt hands it back on the bus.
  void AnswerAppend(RoomPosition position) {
    AnswerAppend(AppendResult{OnceResult::Outcome::kPublished, {}, position});
  }
  void AnswerAppend(const AppendResult& result);
  void LoopBackAt(RoomPosition position, RoomPosition previous = {});
  // Answers the oldest read of a log.
  void AnswerLog(const absl::StatusOr<RoomLogPage>& page);
  size_t log_reads_open() const { return open_log_reads_.size(); }
  const std::string& OldestLogRead() const { return open_log_reads_.front().second; }  // of which room
  // Which cores are live.
  void Cores(std::vector<uint64_t> cores) { hub_.OnCoresRead(now_, std::move(cores)); }
  void AnswerLogout(bool ok = true);
  void AnswerLogoutRead(const absl::StatusOr<LogoutLog>& log) { hub_.OnLogoutsRead(now_, log); }
  // Another core answers.
  void Count(uint64_t core, uint64_t id, uint32_t count);
  void TurnEnd() { hub_.OnTurnEnd(now_); }

  // --- what has happened, since the last call
  Lines Sent(uint64_t link) { return std::exchange(Flush(link), {}); }
  Lines Asked() { return std::exchange(asked_, {}); }
  Lines Answers() { return std::exchange(answers_, {}); }
  const std::vector<link::v1::ClusterReply>& last_replies() const { return last_replies_; }
  // To this process: "drain 5000ms", "log level 1".
  Lines Ordered() { return std::exchange(ordered_, {}); }
  // "alice@10 online"
  Lines Changes() { return std::exchange(changes_, {}); }
  // The other cores were told of these shards: "e1/0@2", with the attach.
  Lines ToldAttached() { return std::exchange(attached_, {}); }
  // Within which time the hub wants to know of logouts.
  std::vector<std::chrono::milliseconds> LogoutReads() { return std::exchange(logout_reads_, {}); }
  int announcements() const { return announcements_; }
  int withdrawals() const { return withdrawals_; }
  Lines Reports() { return std::exchange(reports_, {}); }
  int sweeps() const { return sweeps_; }
  void Forget();

 private:
  link::v1::CoreCommand& AddCommand(LinkId link) override;
  size_t BacklogBytes(LinkId link) const override { return full_.contains(link.value()) ? size_t{5} << 20 : 0; }
  void CloseLink(LinkId link, const absl::Status& why) override;
  void AnswerMessage(uint64_t request, const absl::Status& status, const MessageAnswer& answer) override;
  void AnswerCluster(uint64_t request, const absl::Status& status,
                     std::vector<link::v1::ClusterReply> replies) override;
  void Tapped(uint64_t, const link::v1::TapEvents&) override {}
  void PresenceChanged(const PresenceChange& change) override;
  void DrainCore(std::chrono::milliseconds window) override {
    ordered_.push_back("drain " + std::to_string(window.count()) + "ms");
  }
  void SetLogLevel(link::v1::LogLevel level) override { ordered_.push_back("log level " + std::to_string(level)); }
  void Report(std::string_view text) override { reports_.emplace_back(text); }

  void Write(const PresenceWrite& write) override;
  void Refresh(uint64_t id, absl::Span<const RefreshEntry> entries) override;
  void Sweep(int) override { ++sweeps_; }
  void SetTyping(std::string_view room_id, std::string_view user_id, std::string_view username) override;
  void Publish(uint64_t id, const link::v1::BusEnvelope& envelope, std::string_view outside) override;
  void PublishOnce(uint64_t id, std::string_view request_id, std::string_view fingerprint,
                   const link::v1::BusEnvelope& envelope, std::string_view outside) override;
  void Append(uint64_t id, std::string_view request_id, std::string_view fingerprint,
              const link::v1::BusEnvelope& envelope, std::string_view outside) override;
  void ReadRoomLog(uint64_t id, const RoomLogQuery& query) override;
  void SaveAnswer(std::string_view request_id, std::string_view answer) override;
  void KeepLogout(uint64_t id, const Logout& logout) override;
  void ReadLogouts(std::chrono::milliseconds within) override { logout_reads_.push_back(within); }
  void Announce() override { ++announcements_; }
  void Withdraw() override { ++withdrawals_; }
  void Reply(uint64_t core, const link::v1::ClusterReplies& replies) override;
  void GetPresences(absl::Span<const std::string>,
                    std::function<void(absl::StatusOr<std::vector<StoredPresence>>)>) override {}
  void GetPresence(std::string_view, std::function<void(absl::StatusOr<StoredPresence>)>) override {}
  void ListPresence(std::string_view, uint32_t, std::function<void(absl::StatusOr<PresencePage>)>) override {}
  void ReadChanges(uint64_t id, uint64_t since_version) override;

  void Ask(const RoomQuestion& question) override {
    asked_.push_back("may " + std::string(question.user_id) + "(" + std::string(question.username) + ") " +
                     std::string(question.room_id));
    open_questions_.push_back(question.id);
  }
  void AnswerRoom(const RoomAnswer& answer) {
    const uint64_t question = open_questions_.front();
    open_questions_.pop_front();
    hub_.OnRoomRight(now_, question, answer);
  }

  // A command is complete when the next one is added or somebody looks.
  Lines& Flush(uint64_t link);

  Now now_;
  std::map<uint64_t, Lines> sent_;
  link::v1::CoreCommand command_;  // being filled in
  uint64_t command_link_ = 0;
  Lines asked_, answers_, reports_, ordered_, changes_, attached_;
  std::vector<link::v1::ClusterReply> last_replies_;
  int sweeps_ = 0, announcements_ = 0, withdrawals_ = 0;
  std::deque<uint64_t> open_writes_, open_refreshes_, open_publishes_, open_reads_, open_once_, open_logouts_,
      open_questions_, open_appends_;
  std::deque<std::pair<uint64_t, std::string>> open_log_reads_;
  std::vector<std::chrono::milliseconds> logout_reads_;
  std::deque<link::v1::BusEnvelope> on_the_bus_;
  std::set<uint64_t> full_;
  Hub hub_;
};

}  // namespace presence::core
