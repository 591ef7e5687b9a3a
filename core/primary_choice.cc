#include "core/primary_choice.h"

#include <utility>

namespace presence::core {

std::optional<PrimaryWord> PrimaryChoice::OnAnswer(SteadyTime now, size_t sentinel, PrimaryWord word) {
  answers_[sentinel] = {std::move(word), now, true};
  const auto follows = [this](const PrimaryWord& other) {
    return followed_ && followed_->host == other.host && followed_->port == other.port;
  };
  const PrimaryWord* best = nullptr;
  size_t fresh = 0;
  for (const Answer& answer : answers_) {
    if (!answer.any || now - answer.heard_at > kFresh) continue;
    ++fresh;
    const bool newer = best == nullptr || answer.word.epoch > best->epoch;
    if (newer || (answer.word.epoch == best->epoch && follows(answer.word))) best = &answer.word;
  }
  if (followed_ && best->epoch < followed_->epoch && fresh * 2 <= answers_.size()) return std::nullopt;
  const bool moved = !follows(*best);
  followed_ = *best;
  return moved ? followed_ : std::nullopt;
}

}  // namespace presence::core
