// Which Redis is the primary, by what several Sentinels say: the newest word counts, and a lone Sentinel that has missed a failover
// leads nobody back.
//
// Pure: no I/O, no clock. Sentinels are numbered by the caller. At most as many answers are kept as there are Sentinels.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/time.h"

namespace presence::core {

struct PrimaryWord {
  std::string host;
  uint16_t port = 0;
  // Sentinel's config-epoch: one higher with each failover that they agreed on.
  uint64_t epoch = 0;
};

class PrimaryChoice {
 public:
  // An answer counts for so long: three rounds of asking.
  static constexpr std::chrono::milliseconds kFresh{3000};

  explicit PrimaryChoice(size_t sentinels) : answers_(sentinels) {}

  // What this Sentinel says now. The address to go to, when that is another one than before: the one with the highest epoch among the
  // fresh answers. An epoch below the highest that was ever followed counts only when more than half of all Sentinels are fresh: then
  // they were set up anew. Of equal epochs the one heard first after the last change stays: two Sentinels that contradict each other
  // make nobody go back and forth.
  std::optional<PrimaryWord> OnAnswer(SteadyTime now, size_t sentinel, PrimaryWord word);

  const std::optional<PrimaryWord>& followed() const { return followed_; }

 private:
  struct Answer {
    PrimaryWord word;
    SteadyTime heard_at;
    bool any = false;
  };

  std::vector<Answer> answers_;
  std::optional<PrimaryWord> followed_;
};

}  // namespace presence::core
