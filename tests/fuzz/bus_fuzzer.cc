// The bus into a hub with two clients: envelopes of other cores, answers, texts of outsiders, while links and Redis come and go.
#include "presence/fuzz/stories.pb.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/fuzz/hub_stage.h"
#include "tests/fuzz/message_mutator.h"

namespace presence::fuzz {
namespace {

void Play(const HubStep& step, HubStage& stage) {
  switch (step.step_case()) {
    case HubStep::kEvent:
      stage.Say(step.event().sequence() > 1'000 && step.event().sequence() % 2 == 1 ? 2 : 1, step.event());
      break;
    case HubStep::kBus:
      stage.Bus(step.bus());
      break;
    case HubStep::kReplies:
      stage.Replies(step.replies());
      break;
    case HubStep::kOutsideMessage:
      stage.OutsideMessage(step.outside_message());
      break;
    case HubStep::kOutsidePresence:
      stage.OutsidePresence(step.outside_presence());
      break;
    case HubStep::kAsk:
      stage.Ask(step.ask());
      break;
    case HubStep::kPassMs:
      stage.Pass(std::chrono::milliseconds(step.pass_ms() % 1'000));
      break;
    case HubStep::kLink:
      stage.SetLink(2, step.link());
      break;
    case HubStep::kStore:
      stage.SetStore(step.store());
      break;
    case HubStep::STEP_NOT_SET:
      break;
  }
}

void Run(const HubStory& story) {
  constexpr int kStepsMax = 40;
  HubStage stage(story.steps_size() % 2 == 0 ? core::PresenceScope::kEveryone : core::PresenceScope::kRooms);
  stage.Populate();
  int steps = 0;
  for (const HubStep& step : story.steps()) {
    if (++steps > kStepsMax) break;
    Play(step, stage);
  }
  stage.EndAll();
}

}  // namespace
}  // namespace presence::fuzz

PRESENCE_MESSAGE_FUZZER(presence::fuzz::HubStory, presence::fuzz::Run)
