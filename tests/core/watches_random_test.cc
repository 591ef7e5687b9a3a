// Random changes, watchers, takes, memberships and failures: in the end every watcher believes what is true.
#include <gtest/gtest.h>

#include <chrono>
#include <random>
#include <string>
#include <vector>

#include "tests/fakes/watch_stage.h"

namespace presence::core {
namespace {

class RandomRun {
 public:
  // With every other seed three pages are all that may be read ahead: snapshots wait for each other.
  explicit RandomRun(uint32_t seed)
      : random_(seed), stage_({.rows_waiting_max = seed % 2 == 0 ? size_t{4'000} : size_t{1'000'000}}) {}

  void Run() {
    for (int step = 0; step < 3'000; ++step) Step();
    // The end of all trouble.
    stage_.store.away = false;
    HearAll();
    for (int i = 0; i < 20; ++i) {
      stage_.NextLook();
      for (auto& watcher : watchers_) watcher.reader->TakeAll();
    }
    for (const auto& watcher : watchers_) Check(watcher);
  }
  int judged() const { return judged_; }

 private:
  struct Watcher {
    StagedReader* reader;
    std::vector<std::string> user_ids;
    std::string room_id;
    std::map<std::string, StoredPresence> known_before{};  // to what it resumes
  };

  uint32_t Upto(size_t n) { return std::uniform_int_distribution<uint32_t>(0, static_cast<uint32_t>(n) - 1)(random_); }
  std::string User() { return "u" + std::to_string(Upto(60)); }
  std::string Room() { return "r" + std::to_string(Upto(4)); }

  void Step() {
    switch (Upto(16)) {
      case 0:
        if (watchers_.size() < 30) Open();
        return;
      case 1:
        if (!watchers_.empty()) Leave();
        return;
      case 2:
      case 3:
      case 4:
      case 5:
        unheard_.push_back(WriteAny());
        return;
      case 6:
      case 7:
        HearSome();
        return;
      case 8:
      case 9:
        if (!watchers_.empty()) watchers_[Upto(watchers_.size())].reader->Take(1 + Upto(20));
        return;
      case 10: {
        auto& room = stage_.members[1 + Upto(3)][Room()];
        if (const std::string user = User(); room.erase(user) == 0) room.insert(user);
        return;
      }
      case 11:
        stage_.AnswerCores(Upto(10) == 0 ? absl::UnavailableError("late") : absl::OkStatus());
        return;
      case 12:
        stage_.store.away = Upto(12) == 0;
        return;
      case 13:
        stage_.store.Answer();
        return;
      case 14:
        // All that is older than the bus' delay has been heard: as long as nothing waits, time may pass.
        if (unheard_.empty()) stage_.Wait(std::chrono::milliseconds(Upto(2'500)));
        return;
      default:
        stage_.EndTurn();
        return;
    }
  }

  void Open(uint64_t resume_version = 0, std::map<std::string, StoredPresence> known = {}) {
    Watcher watcher{nullptr, {}, {}, std::move(known)};
    const uint32_t kind = resume_version != 0 ? 2 : Upto(3);
    if (kind == 0) {
      for (uint32_t i = 0; i < 1 + Upto(20); ++i) watcher.user_ids.push_back(User());
    } else if (kind == 1) {
      watcher.room_id = Room();
    }
    watcher.reader = &stage_.Watch({watcher.user_ids, watcher.room_id, resume_version});
    watcher.reader->belief = watcher.known_before;
    watcher.reader->greedy = Upto(3) == 0;
    watchers_.push_back(std::move(watcher));
  }

  // Somebody goes, and perhaps comes back for the rest.
  void Leave() {
    const size_t at = Upto(watchers_.size());
    const Watcher watcher = watchers_[at];
    watchers_.erase(watchers_.begin() + static_cast<std::ptrdiff_t>(at));
    stage_.watches.Close(watcher.reader->id);
    watcher.reader->greedy = false;
    if (watcher.user_ids.empty() && watcher.room_id.empty() && watcher.reader->resume_version != 0) {
      Open(watcher.reader->resume_version, watcher.reader->belief);
    }
  }

  struct Written {
    std::string user_id;
    Status status;
    uint64_t version;
  };
  Written WriteAny() {
    stage_.now.wall += std::chrono::microseconds(1);
    const Written written{User(), static_cast<Status>(kOffline + static_cast<int>(Upto(3))), stage_.Micros()};
    stage_.Write(written.user_id, written.status, written.version);
    return written;
  }
  // The bus is behind the store, and in its order.
  void HearSome() {
    for (uint32_t i = Upto(8); i > 0 && !unheard_.empty(); --i) {
      stage_.Hear(unheard_.front().user_id, unheard_.front().status, unheard_.front().version);
      unheard_.erase(unheard_.begin());
    }
  }
  void HearAll() {
    while (!unheard_.empty()) HearSome();
  }

  void Check(const Watcher& watcher) {
    if (watcher.reader->ended) {
      EXPECT_TRUE(absl::IsUnavailable(*watcher.reader->ended)) << *watcher.reader->ended;
      return;
    }
    ++judged_;
    ASSERT_TRUE(watcher.reader->done);
    std::set<std::string> concerned(watcher.user_ids.begin(), watcher.user_ids.end());
    if (!watcher.room_id.empty()) {
      for (const auto& [core, rooms] : stage_.members) {
        if (const auto found = rooms.find(watcher.room_id); found != rooms.end())
          concerned.insert(found->second.begin(), found->second.end());
      }
      for (const auto& [user_id, presence] : watcher.reader->belief) {
        EXPECT_TRUE(concerned.contains(user_id)) << user_id << " is no member of " << watcher.room_id;
      }
    } else if (watcher.user_ids.empty()) {
      for (const auto& [user_id, presence] : stage_.store.truth) concerned.insert(user_id);
    }
    for (const std::string& user_id : concerned) {
      const auto truth = stage_.store.truth.find(user_id);
      const auto belief = watcher.reader->belief.find(user_id);
      const Status is = truth == stage_.store.truth.end() ? kOffline : truth->second.status;
      const Status believed = belief == watcher.reader->belief.end() ? kOffline : belief->second.status;
      EXPECT_EQ(believed, is) << user_id << (watcher.room_id.empty() ? "" : " of " + watcher.room_id);
    }
  }

  std::mt19937 random_;
  WatchStage stage_;
  std::vector<Watcher> watchers_;
  std::vector<Written> unheard_;
  int judged_ = 0;
};

TEST(WatchesAtRandom, EveryWatcherBelievesTheTruthInTheEnd) {
  int judged = 0;
  for (uint32_t seed = 1; seed <= 60; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    RandomRun run(seed);
    run.Run();
    judged += run.judged();
    if (testing::Test::HasFailure()) break;
  }
  EXPECT_GT(judged, 300) << "too many have ended before";
}

}  // namespace
}  // namespace presence::core
