#include "edge/presence_pacer.h"

#include <algorithm>
#include <utility>

namespace presence::edge {
namespace {

// What a quiet time may save up. More would let one turn of the loop queue more frames than others should wait for.
constexpr double kBurstNs = 100e6;

}  // namespace

PresencePacer::Offered PresencePacer::Offer(SteadyTime now, std::string_view user_id, uint64_t version,
                                            std::string_view text, bool to_everyone) {
  User& user = FindOrMake(user_id);
  if (version != 0) {
    // What heals a gap overlaps with what was there before it: everyone has that already.
    if (version < user.version || (to_everyone && version == user.version_to_everyone))
      return {Verdict::kStale, user.key};
    user.version = version;
    if (to_everyone) user.version_to_everyone = version;
  }
  if (user.waits) {
    user.text.assign(text);
    return {Verdict::kCoalesced, user.key};
  }
  if (!to_everyone || (queue_.empty() && MaySend(now))) return {Verdict::kSendNow, user.key};
  user.waits = true;
  user.text.assign(text);
  queue_.emplace_back(user_id);
  return {Verdict::kWaits, user.key};
}

bool PresencePacer::TakeNext(SteadyTime now, Waiting* next) {
  if (queue_.empty() || !MaySend(now)) return false;
  const auto user = users_.find(queue_.front());
  user->second.waits = false;
  next->text = std::exchange(user->second.text, std::string());
  next->key = user->second.key;
  queue_.pop_front();
  return true;
}

void PresencePacer::Spend(size_t frames) {
  budget_ns_ -= static_cast<double>(frames) * 1e9 / static_cast<double>(frames_per_second_);
}

PresencePacer::User& PresencePacer::FindOrMake(std::string_view user_id) {
  const absl::string_view key(user_id.data(), user_id.size());
  const auto found = users_.find(key);
  if (found != users_.end()) return found->second;
  if (users_.size() >= kUsersRememberedMax + queue_.size()) {
    absl::erase_if(users_, [](const auto& entry) { return !entry.second.waits; });
  }
  User& user = users_[key];
  user.key = ++next_key_;
  return user;
}

bool PresencePacer::MaySend(SteadyTime now) {
  budget_ns_ = std::min(kBurstNs, budget_ns_ + std::chrono::duration<double, std::nano>(now - refilled_at_).count());
  refilled_at_ = now;
  return budget_ns_ > 0;
}

}  // namespace presence::edge
