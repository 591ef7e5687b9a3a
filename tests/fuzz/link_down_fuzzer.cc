// Commands of a core into a shard with clients, and their texts in between: the shard lives, speaks to
// clients that are there alone, closes each once, and every event that it tells passes the core's parser.
#include <deque>
#include <map>
#include <set>
#include <string>
#include <utility>

#include "common/utf8.h"
#include "edge/shard.h"
#include "presence/fuzz/stories.pb.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/fuzz/message_mutator.h"

namespace presence::fuzz {
namespace {

constexpr uint32_t kSlots = 4;

class ShardWorld final : private edge::ShardOutput {
 public:
  ShardWorld() : shard_(Options(), *this) {}

  void SetLink(bool up) {
    if (up == link_) return;
    link_ = up;
    up ? shard_.OnLinkUp(now_) : shard_.OnLinkDown(now_);
    AfterStep();
  }
  void Command(const link::v1::CoreCommand& command) {
    link::v1::CoreCommand received;
    if (!link_ || !Transmit(command, &received)) return;
    shard_.OnCommand(now_, received);
    AfterStep();
  }
  void Open(uint32_t slot) {
    if (open_.contains(slot)) return;
    open_.insert(slot);
    shard_.OnConnectionOpened(now_, slot, ++generations_[slot], FactsOf(slot));
    AfterStep();
  }
  void OpenUnproven(uint32_t slot) {
    if (!open_.insert(slot).second) return;
    shard_.OnUnprovenOpened(now_, slot, ++generations_[slot]);
    AfterStep();
  }
  // The oldest token that is being checked turns out to be this.
  void Judge(uint32_t outcome) {
    if (checks_.empty()) return;
    const auto [slot, generation] = checks_.front();
    checks_.pop_front();
    const auto verdict = static_cast<edge::TokenCheck::Outcome>(outcome % 4);
    shard_.OnTokenChecked(now_, slot, generation, {verdict, FactsOf(outcome % 8 < 4 ? slot : slot + 1)});
    AfterStep();
  }
  void Close(uint32_t slot) {
    if (!open_.contains(slot)) return;
    shard_.OnConnectionClosed(now_, slot);
    open_.erase(slot);
    closing_.erase(slot);
    AfterStep();
  }
  // The socket loop hands over UTF-8 only.
  void Text(uint32_t slot, std::string_view text) {
    if (!open_.contains(slot) || Utf8Prefix(text, text.size()).size() != text.size()) return;
    shard_.OnBytesReceived(now_, slot, text.size() + 6);
    shard_.OnClientText(now_, slot, text);
    AfterStep();
  }
  void Pass(std::chrono::milliseconds time) {
    for (; time.count() > 0; time -= std::chrono::milliseconds(100)) {
      now_.steady += std::chrono::milliseconds(100);
      now_.wall += std::chrono::milliseconds(100);
      shard_.OnTick(now_);
      AfterStep();
    }
  }
  void End() {
    while (!open_.empty()) Close(*open_.begin());
    PRESENCE_CHECK(shard_.connections() == 0 && shard_.rooms() == 0, "who is gone is gone");
  }

 private:
  static edge::ShardOptions Options() {
    edge::ShardOptions options;
    options.edge_name = "edge-1";
    options.incarnation = 0xe1;
    options.rooms_per_connection_max = 8;  // small bounds are reached
    options.events_held_max = 16;
    options.presence_frames_per_second = 50;
    options.frames_per_second = 5;
    options.frames_burst = 20;
    options.close_expired = true;
    options.expiry_warning = std::chrono::milliseconds(500);
    options.expiry_leeway = std::chrono::milliseconds(100);
    options.auth_timeout = std::chrono::milliseconds(1'000);
    options.unproven_max = 2;
    return options;
  }
  edge::TokenFacts FactsOf(uint32_t slot) const {
    edge::TokenFacts facts;
    facts.user_id = slot % 2 == 0 ? "alice" : "bob";
    facts.username = "name";
    facts.session_id = "s";
    facts.issued_at_ms = ToUnixMillis(now_.wall);
    facts.expires_at = now_.wall + std::chrono::seconds(2);
    return facts;
  }

  void AfterStep() {
    CheckEvent();
    if (!std::exchange(dropping_, false)) return;
    SetLink(false);
  }
  // An event is complete when the next one is begun.
  void CheckEvent() {
    if (!std::exchange(has_event_, false)) return;
    link::v1::EdgeEvent received;
    PRESENCE_CHECK(event_.event_case() != link::v1::EdgeEvent::EVENT_NOT_SET, "an event says something");
    PRESENCE_CHECK(Transmit(event_, &received), "every event passes the core's parser");
  }

  link::v1::EdgeEvent& AddEvent() override {
    CheckEvent();
    PRESENCE_CHECK(link_, "events are told while there is a link");
    has_event_ = true;
    event_.Clear();
    return event_;
  }
  void DropLink(std::string_view) override { dropping_ = true; }
  void Send(absl::Span<const uint32_t> slots, const edge::FrameRef& frame, edge::SendPolicy) override {
    for (const uint32_t slot : slots) PRESENCE_CHECK(open_.contains(slot), "frames go to clients that are there");
    PRESENCE_CHECK(frame && frame.bytes().size() >= 2 && static_cast<uint8_t>(frame.bytes()[0]) == 0x81,
                   "a client gets text frames");
  }
  void Close(uint32_t slot, uint16_t, std::string_view) override {
    PRESENCE_CHECK(open_.contains(slot), "only who is there is closed");
    PRESENCE_CHECK(closing_.insert(slot).second, "a client is closed once");
  }
  void CheckToken(uint32_t slot, std::string_view token) override {
    PRESENCE_CHECK(open_.contains(slot) && !token.empty(), "a token is somebody's");
    checks_.emplace_back(slot, generations_[slot]);
  }
  void DrainEdge(std::chrono::milliseconds) override {}
  void SeekCore() override {}
  void SetLogLevel(link::v1::LogLevel level) override {
    PRESENCE_CHECK(level >= link::v1::LOG_LEVEL_DEBUG && level <= link::v1::LOG_LEVEL_ERROR, "a level is a known one");
  }
  void Report(Severity, uint32_t slot, std::string_view, std::string_view detail) override {
    PRESENCE_CHECK(slot < kSlots && detail.size() <= 128, "what is logged is short");
  }

  Now now_{SteadyTime(std::chrono::hours(5)), FromUnixMillis(1'760'000'000'000)};
  bool link_ = false, dropping_ = false;
  std::set<uint32_t> open_, closing_;
  std::map<uint32_t, uint32_t> generations_;
  std::deque<std::pair<uint32_t, uint32_t>> checks_;  // slot and generation
  link::v1::EdgeEvent event_;
  bool has_event_ = false;
  edge::Shard shard_;
};

void Play(const ShardStep& step, ShardWorld& world) {
  switch (step.step_case()) {
    case ShardStep::kCommand:
      world.Command(step.command());
      break;
    case ShardStep::kText:
      world.Text(0, step.text());
      break;
    case ShardStep::kPassMs:
      world.Pass(std::chrono::milliseconds(step.pass_ms() % 2'000));
      break;
    case ShardStep::kLink:
      world.SetLink(step.link());
      break;
    case ShardStep::kOpen:
      world.Open(step.open() % kSlots);
      break;
    case ShardStep::kOpenUnproven:
      world.OpenUnproven(step.open_unproven() % kSlots);
      break;
    case ShardStep::kTextOfThird:
      world.Text(2, step.text_of_third());
      break;
    case ShardStep::kVerdict:
      world.Judge(step.verdict());
      break;
    case ShardStep::kClose:
      world.Close(step.close() % kSlots);
      break;
    case ShardStep::STEP_NOT_SET:
      break;
  }
}

void Run(const ShardStory& story) {
  constexpr int kStepsMax = 200;
  ShardWorld world;
  world.Open(0);
  world.Open(1);
  world.SetLink(true);
  world.Text(0, R"({"type":"subscribe","channel_id":"general"})");
  int steps = 0;
  for (const ShardStep& step : story.steps()) {
    if (++steps > kStepsMax) break;
    Play(step, world);
  }
  world.End();
}

}  // namespace
}  // namespace presence::fuzz

PRESENCE_MESSAGE_FUZZER(presence::fuzz::ShardStory, presence::fuzz::Run)
