// Link frames of an edge into a hub: whatever an edge says, the hub lives, answers in its own vocabulary, and forgets the edge when it is gone.
#include "presence/link/v1/link.pb.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/fuzz/hub_stage.h"
#include "tests/fuzz/message_mutator.h"

namespace presence::fuzz {
namespace {

void Run(const link::v1::EdgeFrame& frame) {
  constexpr int kEventsMax = 200;
  HubStage stage(frame.events_size() % 2 == 0 ? core::PresenceScope::kEveryone : core::PresenceScope::kRooms);
  stage.SetLink(1, true);
  int events = 0;
  for (const link::v1::EdgeEvent& event : frame.events()) {
    if (++events > kEventsMax) break;
    stage.Say(1, event);
  }
  stage.Broadcast("general", R"({"text":"hello"})");
  stage.Pass(std::chrono::milliseconds(500));
  stage.EndAll();
}

}  // namespace
}  // namespace presence::fuzz

PRESENCE_MESSAGE_FUZZER(presence::link::v1::EdgeFrame, presence::fuzz::Run)
