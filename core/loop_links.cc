#include "core/loop_links.h"

#include <algorithm>
#include <utility>

#include "common/check.h"
#include "common/log.h"

namespace presence::core {

using link::v1::CoreCommand;

LoopLinks::Link* LoopLinks::Find(LinkId id) {
  const auto it = links_.find(id.value());
  return it == links_.end() ? nullptr : it->second.get();
}

void LoopLinks::Open(const std::shared_ptr<LinkStream>& stream) {
  if (refusal_ || links_.size() >= limits_.links_max) {
    metrics_.links_refused.Add();
    Finish(stream, refusal_ ? *refusal_ : absl::ResourceExhaustedError("too many links"));
    return;
  }
  const LinkId id = stream->id();
  const bool is_new = links_.emplace(id.value(), std::make_unique<Link>(stream, limits_.frame_bytes_max)).second;
  PRESENCE_CHECK(is_new, "a link id is used once");
  metrics_.links_opened.Add();
  hub_.OnLinkOpened(clock_.Read(), id);
}

void LoopLinks::Visit(LinkStream& stream) {
  stream.mailbox().Take(visited_);
  Link* link = Find(stream.id());
  if (link == nullptr) return;  // finished from here
  if (visited_.write_done) {
    link->write_in_flight = false;
    if (!*visited_.write_done) link->gathered.Clear();  // nobody is there; the end will follow
    FlushLater(*link);
  }
  for (const LinkMailbox::Frame& frame : visited_.frames) {
    metrics_.link_frames_received.Add();
    metrics_.link_bytes_received.Add(frame.bytes);
    const Now now = clock_.Read();
    for (const link::v1::EdgeEvent& event : frame.message->events()) {
      if (!link->hub_knows) break;
      hub_.OnLinkEvent(now, stream.id(), event);
    }
  }
  if (visited_.ended) {
    PeerEnded(*link, *visited_.ended);
  } else if (visited_.reading_paused) {
    stream.ResumeReading();
  }
}

void LoopLinks::PeerEnded(Link& link, const absl::Status& why) {
  const LinkId id = link.stream->id();
  if (std::exchange(link.hub_knows, false)) hub_.OnLinkClosed(clock_.Read(), id);
  FinishNow(link, link.ending.value_or(why));
}

void LoopLinks::FlushLater(Link& link) {
  if (!std::exchange(link.waits_for_flush, true)) to_flush_.push_back(link.stream->id());
}

void LoopLinks::Flush() {
  for (const LinkId id : to_flush_) {
    Link* link = Find(id);
    if (link == nullptr) continue;
    link->waits_for_flush = false;
    Flush(*link);
  }
  to_flush_.clear();
}

// At most one write is in flight; whatever else there is waits until it is reported done.
void LoopLinks::Flush(Link& link) {
  if (link.write_in_flight) return;
  if (!link.gathered.empty()) {
    const std::string_view frame = link.gathered.Front();
    metrics_.link_frames_sent.Add();
    metrics_.link_bytes_sent.Add(frame.size());
    link.write_in_flight = true;
    link.stream->Write(frame);
    link.gathered.Pop();
  } else if (link.ending) {
    FinishNow(link, absl::Status(*link.ending));
  }
}

void LoopLinks::EndAfterFlush(Link& link, absl::Status why) {
  link.hub_knows = false;
  link.ending = std::move(why);
  link.ending_deadline = clock_.Read().steady + limits_.finish_max;
  FlushLater(link);
}

void LoopLinks::Finish(const std::shared_ptr<LinkStream>& stream, const absl::Status& why) {
  stream->Finish(why);
  lingering_.push_back({stream, why, clock_.Read().steady + limits_.finish_max});
}

// `link` is gone afterwards, with what was gathered for it.
void LoopLinks::FinishNow(Link& link, const absl::Status& why) {
  Finish(link.stream, why);
  if (command_link_ == &link) command_link_ = nullptr;
  links_.erase(link.stream->id().value());
}

CoreCommand& LoopLinks::AddCommand(LinkId id) {
  CompleteCommand();
  command_link_ = Find(id);
  // Whatever is still said to a link that has ended or is about to goes nowhere.
  if (command_link_ != nullptr && (!command_link_->hub_knows || OverBound(*command_link_))) command_link_ = nullptr;
  return command_;
}

size_t LoopLinks::backlog_bytes(LinkId id) const {
  const auto it = links_.find(id.value());
  return it == links_.end() ? 0 : it->second->gathered.bytes();
}

// Encodes the command that AddCommand has given out: it has been filled in by now.
void LoopLinks::CompleteCommand() {
  if (Link* link = std::exchange(command_link_, nullptr)) {
    link->gathered.Append(command_);
    link->commanded = true;
    FlushLater(*link);
    // Dropped at the end of the turn: the hub must not be called from inside.
    if (OverBound(*link)) over_bound_.push_back(link->stream->id());
  }
  ClearForReuse(command_);
}

void LoopLinks::CloseLink(LinkId id, const absl::Status& why) {
  CompleteCommand();
  Link* link = Find(id);
  if (link == nullptr || link->ending) return;
  // Who has only asked whether it may come asks again and again.
  const log::Level level = absl::IsUnavailable(why) && !link->commanded ? log::Level::kDebug : log::Level::kInfo;
  if (log::Enabled(level)) {
    log::Write(level, fmt::format("Link {} of {} is ended: {}", id.value(), link->stream->peer(), why.ToString()));
  }
  EndAfterFlush(*link, why);
}

bool LoopLinks::Complete() {
  CompleteCommand();
  if (over_bound_.empty()) return true;
  for (const LinkId id : std::exchange(over_bound_, {})) {
    Link* link = Find(id);
    if (link == nullptr) continue;
    metrics_.links_dropped_over_bound.Add();
    log::Warning("Link {} of {} is dropped: more than {} bytes wait for it", id.value(), link->stream->peer(),
                 limits_.backlog_bytes_max);
    if (std::exchange(link->hub_knows, false)) hub_.OnLinkClosed(clock_.Read(), id);
    FinishNow(*link, absl::ResourceExhaustedError("the shard reads too slowly"));
  }
  return false;
}

void LoopLinks::OnTick(SteadyTime now) {
  std::vector<LinkId> late;
  backlog_bytes_ = 0;
  for (const auto& [id, link] : links_) {
    backlog_bytes_ += link->gathered.bytes();
    if (link->ending && now >= link->ending_deadline) late.emplace_back(id);
  }
  for (const LinkId id : late) {
    Link* link = Find(id);
    FinishNow(*link, absl::Status(*link->ending));
  }
  for (; !lingering_.empty() && lingering_.front().abort_at <= now; lingering_.pop_front()) {
    lingering_.front().stream->Abort(lingering_.front().why);
  }
  EndDrained(now);
}

void LoopLinks::Drain(std::chrono::milliseconds window, const absl::Status& why) {
  refusal_ = why;
  drain_began_ = clock_.Read().steady;
  drain_window_ = window;
  to_drain_.clear();
  for (const auto& [id, link] : links_) to_drain_.emplace_back(id);
  std::sort(to_drain_.begin(), to_drain_.end());
  drained_of_ = to_drain_.size();
  EndDrained(drain_began_);
}

// Of n links the i-th, from 0, ends after i/n of the window.
void LoopLinks::EndDrained(SteadyTime now) {
  while (!to_drain_.empty()) {
    const size_t ended = drained_of_ - to_drain_.size();
    if (now < drain_began_ + drain_window_ * ended / drained_of_) return;
    const LinkId id = to_drain_.front();
    to_drain_.pop_front();
    Link* link = Find(id);
    if (link == nullptr || !link->hub_knows) continue;
    hub_.OnLinkClosed(clock_.Read(), id);
    EndAfterFlush(*link, *refusal_);
  }
}

}  // namespace presence::core
