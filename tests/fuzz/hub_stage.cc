#include "tests/fuzz/hub_stage.h"

#include <algorithm>
#include <utility>

#include "common/check.h"
#include "common/connection_id.h"
#include "tests/fuzz/message_mutator.h"

namespace presence::fuzz {
namespace {

constexpr uint64_t kCore = 0xc0;
constexpr std::chrono::milliseconds kTick{250};  // longer than a core's: fewer steps for each input

core::HubOptions OptionsOf(core::PresenceScope scope) {
  core::HubOptions options;
  options.core_name = "core-0";
  options.incarnation = kCore;
  options.scope = scope;
  options.rooms_per_connection_max = 8;  // small bounds are reached
  options.awaiting_max = 64;
  options.publications_waiting_max = 16;
  options.gathers_max = 8;
  options.orders_max = 8;
  options.taps_max = 4;
  options.tap_events_per_second = 10;
  options.removals_max = 16;
  return options;
}

link::v1::EdgeEvent HelloEvent() {
  link::v1::EdgeEvent event;
  auto& hello = *event.mutable_hello();
  hello.set_protocol(1);
  hello.set_edge("edge-1");
  hello.set_incarnation(0xe1);
  hello.set_attach(1);
  return event;
}

link::v1::EdgeEvent DeclaredEvent(uint32_t slot, const std::string& user_id) {
  link::v1::EdgeEvent event;
  auto& declared = *event.mutable_connection_declared();
  declared.set_connection(ConnectionId{.shard = 0, .slot = slot, .generation = 1}.Pack());
  declared.set_user_id(user_id);
  declared.set_username("name of " + user_id);
  declared.set_status(link::v1::STATUS_ONLINE);
  declared.add_room_ids("general");
  return event;
}

}  // namespace

HubStage::HubStage(core::PresenceScope scope)
    : store_({.core_incarnation = kCore}, database_, static_cast<core::StoreListener&>(*this)) {
  hub_ = std::make_unique<core::Hub>(OptionsOf(scope), store_, static_cast<core::HubOutput&>(*this));
  hub_->OnTick(now_);
  Settle();
}

HubStage::~HubStage() = default;

void HubStage::SetLink(uint64_t link, bool open) {
  if (open == links_.contains(link)) return;
  if (open) {
    links_[link] = true;
    hub_->OnLinkOpened(now_, core::LinkId(link));
  } else {
    CheckCommand();
    links_.erase(link);
    hub_->OnLinkClosed(now_, core::LinkId(link));
  }
  Settle();
}

void HubStage::Say(uint64_t link, const link::v1::EdgeEvent& event) {
  link::v1::EdgeEvent received;
  if (!links_.contains(link) || !Transmit(event, &received)) return;
  hub_->OnLinkEvent(now_, core::LinkId(link), received);
  Settle();
}

void HubStage::Bus(const link::v1::BusEnvelope& envelope) {
  link::v1::BusEnvelope received;
  if (!store_.up() || !Transmit(envelope, &received)) return;
  hub_->OnBus(now_, received);
  Settle();
}

void HubStage::Replies(const link::v1::ClusterReplies& replies) {
  link::v1::ClusterReplies received;
  if (!store_.up() || !Transmit(replies, &received)) return;
  hub_->OnReplies(now_, received);
  Settle();
}

void HubStage::OutsideMessage(std::string_view text) {
  hub_->OnOutsideMessage(now_, text);
  Settle();
}

void HubStage::OutsidePresence(std::string_view text) {
  hub_->OnOutsidePresence(now_, text);
  Settle();
}

void HubStage::Ask(const link::v1::ClusterRequest& body) {
  link::v1::ClusterRequest received;
  if (body.body_case() == link::v1::ClusterRequest::BODY_NOT_SET || !Transmit(body, &received)) return;
  received.clear_origin();
  received.clear_id();
  unanswered_[++requests_] = true;
  hub_->OnClusterRequested(now_, requests_, std::move(received));
  Settle();
}

void HubStage::Broadcast(std::string_view room_id, std::string_view data_json) {
  unanswered_[++requests_] = true;
  hub_->OnMessageRequested(now_, requests_, {.room_id = room_id, .user_id = {}, .data_json = data_json});
  Settle();
}

void HubStage::SetStore(bool reachable) {
  store_.SetReachable(reachable);
  Settle();
}

void HubStage::Pass(std::chrono::milliseconds time) {
  for (time = std::min<std::chrono::milliseconds>(time, std::chrono::seconds(10)); time.count() > 0; time -= kTick) {
    now_.steady += kTick;
    now_.wall += kTick;
    hub_->OnTick(now_);
    Settle();
  }
}

void HubStage::Populate() {
  SetLink(1, true);
  link::v1::EdgeEvent done;
  done.mutable_resync_done();
  for (const auto& event : {HelloEvent(), DeclaredEvent(1, "alice"), DeclaredEvent(2, "bob"), done}) Say(1, event);
}

void HubStage::EndAll() {
  SetStore(true);
  while (!links_.empty()) SetLink(links_.begin()->first, false);
  // EDGE_GRACE is 5 s; whatever is asked is answered by then.
  Pass(std::chrono::seconds(6));
  const core::HubSizes sizes = hub_->sizes();
  PRESENCE_CHECK(sizes.links == 0 && sizes.connections == 0, "who is gone is gone");
  PRESENCE_CHECK(sizes.users == 0 || sizes.removals > 0, "a user is kept for an end that is not told yet, else not");
  PRESENCE_CHECK(sizes.memberships == 0, "nobody is in a room");
  PRESENCE_CHECK(unanswered_.empty(), "every request is answered");
  PRESENCE_CHECK(sizes.gathers == 0 && sizes.orders == 0, "nothing waits for ever");
}

// Until nobody has anything to say; two machines that answer each other for ever would be a fault of their own.
void HubStage::Settle() {
  constexpr int kRoundsMax = 10'000;
  int rounds = 0;
  do {
    hub_->OnTurnEnd(now_);
    CheckCommand();
    PRESENCE_CHECK(++rounds < kRoundsMax, "the hub and its store come to rest");
  } while (store_.RunPending());
}

// A command is complete when the next one is begun.
void HubStage::CheckCommand() {
  if (!std::exchange(has_command_, false)) return;
  link::v1::CoreCommand received;
  PRESENCE_CHECK(command_.command_case() != link::v1::CoreCommand::COMMAND_NOT_SET, "a command says something");
  PRESENCE_CHECK(Transmit(command_, &received), "every command passes the edge's parser");
}

link::v1::CoreCommand& HubStage::AddCommand(core::LinkId link) {
  CheckCommand();
  PRESENCE_CHECK(links_.contains(link.value()), "commands go to links that are open");
  has_command_ = true;
  command_.Clear();
  return command_;
}

void HubStage::CloseLink(core::LinkId link, const absl::Status& why) {
  CheckCommand();
  PRESENCE_CHECK(!why.ok() && links_.erase(link.value()) == 1, "a link is closed once, and with a reason");
}

void HubStage::AnswerMessage(uint64_t request, const absl::Status&, const core::MessageAnswer&) {
  PRESENCE_CHECK(unanswered_.erase(request) == 1, "a request is answered once");
}

void HubStage::AnswerCluster(uint64_t request, const absl::Status&, std::vector<link::v1::ClusterReply> replies) {
  PRESENCE_CHECK(unanswered_.erase(request) == 1, "a request is answered once");
  uint64_t before = 0;
  for (const auto& reply : replies) {
    PRESENCE_CHECK(reply.core() > before || before == 0, "answers come in the order of the cores, one of each");
    before = reply.core();
  }
}

void HubStage::Tapped(uint64_t, const link::v1::TapEvents& events) {
  link::v1::TapEvents received;
  PRESENCE_CHECK(Transmit(events, &received), "what a tap tells passes a parser");
}

void HubStage::PresenceChanged(const core::PresenceChange& change) {
  PRESENCE_CHECK(!change.user_id.empty(), "somebody has changed");
}

void HubStage::Report(std::string_view text) {
  PRESENCE_CHECK(text.size() < 4096 && text.find('\n') == std::string_view::npos, "a log line is one short line");
}

}  // namespace presence::fuzz
