#include "tests/fakes/hub_cluster.h"

#include <algorithm>
#include <string>

#include "core/presence_text.h"

namespace presence::core {
namespace {

using link::v1::CoreCommand;

bool IsTold(const CoreCommand& command) {
  switch (command.command_case()) {
    case CoreCommand::kAcknowledge:
    case CoreCommand::kDeliverPresence:
    case CoreCommand::kHeartbeat:
    case CoreCommand::kWelcome:
      return false;
    default:
      return true;
  }
}

}  // namespace

HubCluster::HubCluster(size_t cores, HubOptions options) {
  for (size_t i = 0; i < cores; ++i) Add(options);
  Settle();
  Pass(std::chrono::seconds(1));
}

HubCluster::Node& HubCluster::Add(HubOptions options) {
  options.incarnation = kCore + nodes_.size();
  options.core_name = "core-" + std::to_string(nodes_.size());
  return *nodes_.emplace_back(std::make_unique<Node>(*this, options));
}

StoreOptions HubCluster::StoreOptionsOf(uint64_t incarnation) const {
  StoreOptions options;
  options.core_incarnation = incarnation;
  return options;
}

void HubCluster::Settle() {
  bool any = true;
  while (std::exchange(any, false)) {
    for (const auto& node : nodes_) {
      if (!node->running_) continue;
      any = node->RunPending() || any;
      node->TurnEnd();
    }
  }
}

void HubCluster::Pass(std::chrono::milliseconds time) {
  constexpr std::chrono::milliseconds kStep{100};
  for (; time.count() > 0; time -= kStep) {
    now_.steady += std::min(time, kStep);
    now_.wall += std::min(time, kStep);
    for (const auto& node : nodes_) {
      if (!node->running_) continue;
      for (const uint64_t link : node->links_) node->hub_->OnLinkEvent(now_, LinkId(link), Heartbeat());
      node->hub_->OnTick(now_);
    }
    Settle();
  }
}

void HubCluster::Forget() {
  for (const auto& node : nodes_) {
    node->FlushCommand();
    node->sent_.clear();
    node->answers_.clear();
    node->ordered_.clear();
    node->changes_.clear();
    node->tapped_.clear();
  }
}

HubCluster::Node::Node(HubCluster& cluster, HubOptions options)
    : cluster_(cluster),
      store_(cluster.StoreOptionsOf(options.incarnation), cluster.database_, static_cast<StoreListener&>(*this)),
      hub_(std::make_unique<Hub>(options, store_, static_cast<HubOutput&>(*this))) {
  hub_->OnTick(cluster_.now_);
}

void HubCluster::Node::Crash() {
  running_ = false;
  store_.SetReachable(false);
}

void HubCluster::Node::OpenLink(uint64_t link) {
  hub_->OnLinkOpened(cluster_.now_, LinkId(link));
}

void HubCluster::Node::Say(uint64_t link, const link::v1::EdgeEvent& event) {
  if (event.has_hello()) links_.insert(link);
  hub_->OnLinkEvent(cluster_.now_, LinkId(link), event);
  cluster_.Settle();
}

void HubCluster::Node::LoseLink(uint64_t link) {
  links_.erase(link);
  hub_->OnLinkClosed(cluster_.now_, LinkId(link));
}

void HubCluster::Node::Attach(uint64_t link, uint64_t attach, const std::vector<link::v1::EdgeEvent>& declared,
                              uint64_t edge) {
  OpenLink(link);
  Say(link, Hello(attach, 0, edge));
  for (const auto& event : declared) Say(link, event);
  Say(link, ResyncDone());
  cluster_.Forget();
}

void HubCluster::Node::Request(uint64_t request, const MessageRequest& message) {
  hub_->OnMessageRequested(cluster_.now_, request, message);
  cluster_.Settle();
}

void HubCluster::Node::Ask(uint64_t request, link::v1::ClusterRequest body) {
  hub_->OnClusterRequested(cluster_.now_, request, std::move(body));
  cluster_.Settle();
}

bool HubCluster::Node::RunPending() {
  return store_.RunPending();
}

void HubCluster::Node::TurnEnd() {
  hub_->OnTurnEnd(cluster_.now_);
  FlushCommand();
}

void HubCluster::Node::FlushCommand() {
  if (command_link_ != 0 && IsTold(command_)) sent_[command_link_].push_back(Describe(command_));
  command_link_ = 0;
}

CoreCommand& HubCluster::Node::AddCommand(LinkId link) {
  FlushCommand();
  command_link_ = link.value();
  command_.Clear();
  return command_;
}

void HubCluster::Node::PresenceChanged(const PresenceChange& change) {
  changes_.push_back(std::string(change.user_id) + " " + std::string(StatusName(change.status)));
}

void HubCluster::Node::Tapped(uint64_t tap, const link::v1::TapEvents& events) {
  for (const link::v1::TapEvent& event : events.events()) {
    std::string line = std::to_string(tap) + " " + events.core() + " " +
                       link::v1::TapKind_Name(event.kind()).substr(std::string("TAP_KIND_").size());
    for (const std::string& word : {event.user_id(), event.room_id(), event.detail()}) {
      if (!word.empty()) line += " " + word;
    }
    tapped_.push_back(line);
  }
}

}  // namespace presence::core
