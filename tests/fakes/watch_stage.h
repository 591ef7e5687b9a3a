// A stage for Watches: a store that answers when it is told to, readers that take when they are told to, cores that say who is in a room.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/watches.h"

namespace presence::core {

inline constexpr Status kOffline = link::v1::STATUS_OFFLINE, kAway = link::v1::STATUS_AWAY,
                        kOnline = link::v1::STATUS_ONLINE;

// Reads see what is true when they are made, and are answered later, in their order.
class StagedStore final : public Store {
 public:
  // Answers what has been asked until now. False: nothing was.
  bool Answer() {
    const std::deque<std::function<void()>> asked = std::exchange(asked_, {});
    for (const auto& answer : asked) answer();
    return !asked.empty();
  }
  size_t asked() const { return asked_.size(); }

  std::map<std::string, StoredPresence> truth;
  uint64_t log_since = 0;          // older changes are not in the log
  bool away = false;               // what is read now fails
  std::vector<std::string> reads;  // "users a,b", "page x", "log"
  std::function<void(uint64_t id, const absl::StatusOr<ChangeLog>& log)> on_changes_read;

  void GetPresences(absl::Span<const std::string> user_ids,
                    std::function<void(absl::StatusOr<std::vector<StoredPresence>>)> done) override {
    std::string read = "users";
    std::vector<StoredPresence> presences;
    for (const std::string& user_id : user_ids) {
      read += (presences.empty() ? " " : ",") + user_id;
      const auto found = truth.find(user_id);
      presences.push_back(found != truth.end() ? found->second : StoredPresence{.user_id = user_id, .username = {}});
    }
    reads.push_back(std::move(read));
    Ask<std::vector<StoredPresence>>(std::move(presences), std::move(done));
  }

  void ListPresence(std::string_view after, uint32_t limit,
                    std::function<void(absl::StatusOr<PresencePage>)> done) override {
    reads.push_back("page " + std::string(after));
    PresencePage page;
    for (auto it = truth.upper_bound(std::string(after)); it != truth.end(); ++it) {
      if (it->second.status == kOffline) continue;
      if (page.users.size() == limit) {
        page.more = true;
        break;
      }
      page.users.push_back(it->second);
    }
    Ask<PresencePage>(std::move(page), std::move(done));
  }

  void ReadChanges(uint64_t id, uint64_t since) override {
    reads.emplace_back("log");
    ChangeLog log;
    log.complete = since >= log_since;
    for (const auto& [user_id, presence] : truth) {
      if (presence.version >= since) log.changes.push_back({.presence = presence, .changed_ms = 0, .room_ids = {}});
    }
    Ask<ChangeLog>(std::move(log), [this, id](absl::StatusOr<ChangeLog> read) { on_changes_read(id, read); });
  }

  void GetPresence(std::string_view, std::function<void(absl::StatusOr<StoredPresence>)>) override { FAIL(); }
  void Write(const PresenceWrite&) override { FAIL(); }
  void Refresh(uint64_t, absl::Span<const RefreshEntry>) override { FAIL(); }
  void Sweep(int) override { FAIL(); }
  void SetTyping(std::string_view, std::string_view, std::string_view) override { FAIL(); }
  void Publish(uint64_t, const link::v1::BusEnvelope&, std::string_view) override { FAIL(); }
  void PublishOnce(uint64_t, std::string_view, std::string_view, const link::v1::BusEnvelope&,
                   std::string_view) override {
    FAIL();
  }
  void Append(uint64_t, std::string_view, std::string_view, const link::v1::BusEnvelope&, std::string_view) override {
    FAIL();
  }
  void ReadRoomLog(uint64_t, const RoomLogQuery&) override { FAIL(); }
  void SaveAnswer(std::string_view, std::string_view) override { FAIL(); }
  void KeepLogout(uint64_t, const Logout&) override { FAIL(); }
  void ReadLogouts(std::chrono::milliseconds) override { FAIL(); }
  void Announce() override { FAIL(); }
  void Withdraw() override { FAIL(); }
  void Reply(uint64_t, const link::v1::ClusterReplies&) override { FAIL(); }

 private:
  template <typename T, typename Done>
  void Ask(T answer, Done done) {
    asked_.push_back([away = away, answer = std::move(answer), done = std::move(done)]() mutable {
      if (away) return done(absl::UnavailableError("the store is away"));
      done(std::move(answer));
    });
  }

  std::deque<std::function<void()>> asked_;
};

// Who reads what one watcher is told, and believes the newest version.
class StagedReader final : public WatchReader {
 public:
  explicit StagedReader(Watches& watches) : watches_(watches) {}

  void OnReady() override {
    EXPECT_FALSE(ready) << "it was ready, and has not been taken from until nothing was left";
    EXPECT_FALSE(ended) << "after the end";
    ready = true;
    if (greedy) TakeAll();
  }
  void OnEnded(const absl::Status& why, bool slow) override {
    EXPECT_FALSE(ended) << "ended twice";
    ended = why;
    ended_slow = slow;
  }

  // False: nothing waits.
  bool Take(size_t rows = 1'000'000, size_t bytes = 1'000'000'000) {
    const WatchUpdate* update = watches_.Take(id, rows, bytes);
    if (update == nullptr) {
      ready = false;
      return false;
    }
    told = Told(*update);
    all_told += (all_told.empty() ? "" : " | ") + told;
    if (update->snapshot) in_snapshot = true;
    for (const PresenceRow& row : update->presences) {
      if (never_falls) {
        EXPECT_GE(row->version, newest[row->user_id]) << row->user_id << " was told a newer version before";
      }
      newest[row->user_id] = std::max(newest[row->user_id], row->version);
      if (row->version >= belief[row->user_id].version) belief[row->user_id] = *row;
      if (in_snapshot) named.insert(row->user_id);
    }
    for (const std::string& user_id : update->left_user_ids) belief.erase(user_id);
    if (update->snapshot_done) {
      done = true;
      // Whoever was not named is offline, or no member.
      if (in_snapshot) std::erase_if(belief, [this](const auto& known) { return !named.contains(known.first); });
      in_snapshot = false;
      named.clear();
    }
    EXPECT_GE(update->resume_version, resume_version);
    resume_version = update->resume_version;
    return true;
  }
  void TakeAll() {
    while (Take()) {
    }
  }
  // All that was told since the last call, in one line.
  std::string Read() {
    TakeAll();
    return std::exchange(all_told, {});
  }

  WatcherId id;
  bool greedy = false;  // takes as soon as it is ready
  bool ready = false;
  bool done = false;        // has been told the first part
  bool never_falls = true;  // versions; not on a resume
  std::optional<absl::Status> ended;
  bool ended_slow = false;
  std::string told;  // by the last Take
  std::map<std::string, StoredPresence> belief;
  uint64_t resume_version = 0;

 private:
  // "snapshot a=ONLINE@5 b=OFFLINE@0 -c done"
  static std::string Told(const WatchUpdate& update) {
    std::string text = update.snapshot ? "snapshot" : "";
    const auto add = [&text](const std::string& word) { text += (text.empty() ? "" : " ") + word; };
    for (const PresenceRow& row : update.presences) {
      add(row->user_id + "=" + link::v1::Status_Name(row->status).substr(7) + "@" + std::to_string(row->version));
    }
    for (const std::string& user_id : update.left_user_ids) add("-" + user_id);
    if (update.snapshot_done) add("done");
    return text;
  }

  Watches& watches_;
  std::string all_told;
  bool in_snapshot = false;
  std::set<std::string> named;
  std::map<std::string, uint64_t> newest;
};

class WatchStage {
 public:
  static constexpr std::chrono::seconds kStart{1'700'000'000};

  explicit WatchStage(WatchOptions options = {})
      : watches(options, store, [this](link::v1::ClusterRequest body, Watches::AskDone done) {
          asked.push_back({std::move(*body.mutable_watched_rooms()), std::move(done)});
        }) {
    store.on_changes_read = [this](uint64_t id, const absl::StatusOr<ChangeLog>& log) {
      watches.OnChangesRead(id, log);
    };
    Wait(std::chrono::milliseconds(0));
  }

  // --- who watches.
  StagedReader& Watch(WatchTarget target) {
    StagedReader& reader = *readers.emplace_back(std::make_unique<StagedReader>(watches));
    reader.never_falls = target.resume_version == 0;
    const absl::StatusOr<WatcherId> id = watches.Open(std::move(target), reader);
    if (id.ok()) {
      reader.id = *id;
    } else {
      reader.ended = id.status();
    }
    return reader;
  }
  StagedReader& WatchEveryone(uint64_t resume_version = 0) { return Watch({{}, {}, resume_version}); }
  StagedReader& WatchUsers(std::vector<std::string> user_ids, uint64_t resume_version = 0) {
    return Watch({std::move(user_ids), {}, resume_version});
  }
  StagedReader& WatchRoom(const std::string& room_id) { return Watch({{}, room_id, 0}); }

  // --- what happens. A change is written, and heard at once; or later.
  PresenceChange Write(const std::string& user_id, Status status, uint64_t version) {
    StoredPresence& presence = store.truth[user_id];
    presence = {user_id, "name of " + user_id, status, 1, version};
    return {presence.user_id, presence.username, status, version, 1};
  }
  void Hear(const std::string& user_id, Status status, uint64_t version) {
    const std::string username = "name of " + user_id;
    watches.OnPresenceChanged(now, {user_id, username, status, version, 1});
  }
  void Change(const std::string& user_id, Status status, uint64_t version) {
    Write(user_id, status, version);
    Hear(user_id, status, version);
  }
  // Versions as Redis gives them.
  uint64_t Micros() const {
    return static_cast<uint64_t>(
        std::chrono::duration_cast<std::chrono::microseconds>(now.wall.time_since_epoch()).count());
  }

  // One end of a turn.
  void EndTurn() { watches.OnTurnEnd(now); }
  // Until nothing is asked any more.
  void Settle() {
    do {
      EndTurn();
    } while (store.Answer());
  }
  void Wait(std::chrono::milliseconds time, bool caught_up = true) {
    now.steady += time;
    now.wall += time;
    watches.OnTick(now, caught_up);
  }

  // --- the cores' answers. members[core][room]: who is there; a core without an entry does not answer.
  struct Asked {
    link::v1::WatchedRoomsQuery query;
    Watches::AskDone done;
  };
  void AnswerCores(const absl::Status& status = absl::OkStatus()) {
    for (Asked& each : std::exchange(asked, {})) {
      std::vector<link::v1::ClusterReply> replies;
      for (const auto& [core, rooms] : members) replies.push_back(ReplyOf(core, each.query));
      each.done(status, std::move(replies));
    }
  }
  link::v1::ClusterReply ReplyOf(uint64_t core, const link::v1::WatchedRoomsQuery& query) {
    link::v1::ClusterReply reply;
    reply.set_core(core);
    reply.mutable_watched_rooms()->set_looked_at(static_cast<uint32_t>(query.rooms_size()));
    for (const link::v1::WatchedRoom& room : query.rooms()) {
      const uint64_t state = StateOf(members[core][room.room_id()]);
      bool known = false;
      for (const auto& each : room.known()) known = known || (each.core() == core && each.state() == state);
      if (known) continue;
      link::v1::WatchedRoomUsers& users = *reply.mutable_watched_rooms()->add_rooms();
      users.set_room_id(room.room_id());
      users.set_state(state);
      for (const std::string& user_id : members[core][room.room_id()]) users.add_user_ids(user_id);
    }
    return reply;
  }
  // Asks the cores again, as after a second, and settles.
  void NextLook(const absl::Status& status = absl::OkStatus()) {
    Wait(std::chrono::milliseconds(1000));
    AnswerCores(status);
    Settle();
  }

  Now now{SteadyTime(std::chrono::hours(1)), WallTime(kStart)};
  StagedStore store;
  std::vector<Asked> asked;
  std::map<uint64_t, std::map<std::string, std::set<std::string>>> members;
  std::vector<std::unique_ptr<StagedReader>> readers;
  Watches watches;

 private:
  // Another one for other members; 0 for none.
  uint64_t StateOf(const std::set<std::string>& users) {
    return users.empty() ? 0 : states_.try_emplace(users, states_.size() + 1).first->second;
  }

  std::map<std::set<std::string>, uint64_t> states_;
};

}  // namespace presence::core
