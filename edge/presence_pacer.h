// Bounds the fan-out of presence: N users who come online cost N frames for each of N connections. At most so many frames a second
// leave the shard; changes beyond that wait, and only the newest of each user does.
//
// Lives on the shard's thread. Order: users in the order of their first change that waits. A user's changes are never passed on in
// the wrong order: one that is older than the newest one seen is stale.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "common/time.h"

namespace presence::edge {

class PresencePacer {
 public:
  explicit PresencePacer(size_t frames_per_second) : frames_per_second_(frames_per_second) {}
  PresencePacer(const PresencePacer&) = delete;
  PresencePacer& operator=(const PresencePacer&) = delete;

  enum class Verdict : uint8_t {
    kSendNow,    // and tell Spend what it cost
    kWaits,      // kept, for TakeNext
    kCoalesced,  // kept in place of an older one of the same user
    kStale,      // something newer of this user has been seen, or everyone has got this one: forget it
  };
  struct Offered {
    Verdict verdict = Verdict::kStale;
    uint32_t key = 0;  // of the user, for SendPolicy
  };

  // A change of one user. `version` 0: not known, newer than what was seen before. `to_everyone`: false for one that costs little,
  // and is not held back (unless one to everyone waits for the same user: then this one goes to everyone in its place).
  Offered Offer(SteadyTime now, std::string_view user_id, uint64_t version, std::string_view text, bool to_everyone);

  struct Waiting {
    std::string text;
    uint32_t key = 0;
  };
  // The next change that waited, when there is one and its time has come.
  bool TakeNext(SteadyTime now, Waiting* next);

  void Spend(size_t frames);

  size_t waiting() const { return queue_.size(); }

 private:
  // Remembered: a number for the write queues and the newest version. 16,384 users at some 150 bytes are 2.5 MB; beyond them, those
  // for whom nothing waits are forgotten and get a new number when they change again. So two frames of one user may
  // have different numbers, and both are sent, in order; frames of two users never share one.
  static constexpr size_t kUsersRememberedMax = 16'384;

  struct User {
    uint64_t version = 0;              // the newest seen
    uint64_t version_to_everyone = 0;  // the newest that went, or waits to go, to everyone
    uint32_t key = 0;
    bool waits = false;
    std::string text;  // while it waits
  };

  User& FindOrMake(std::string_view user_id);
  bool MaySend(SteadyTime now);

  const size_t frames_per_second_;
  // Nanoseconds of budget: one frame costs 1e9 / frames_per_second of them. May be in debt: one change to all is not divided.
  double budget_ns_ = 0;
  SteadyTime refilled_at_;
  uint32_t next_key_ = 0;
  absl::flat_hash_map<std::string, User> users_;  // never iterated where the order would show
  std::deque<std::string> queue_;                 // user ids
};

}  // namespace presence::edge
