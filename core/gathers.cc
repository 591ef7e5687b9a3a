#include "core/gathers.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "common/check.h"

namespace presence::core {

void Gathers::SetCores(absl::Span<const uint64_t> cores) {
  std::vector<uint64_t> live(cores.begin(), cores.end());
  const auto self = std::lower_bound(live.begin(), live.end(), self_);
  if (self == live.end() || *self != self_) live.insert(self, self_);
  if (live == cores_) return;
  std::vector<uint64_t> gone;
  std::set_difference(cores_.begin(), cores_.end(), live.begin(), live.end(), std::back_inserter(gone));
  cores_ = std::move(live);
  if (gone.empty()) return;
  for (const uint64_t core : gone) left_.push_back({core, now_ + kBetweenCores});
  std::vector<uint64_t> touched;
  for (auto& [id, gather] : open_) {
    if (gather.needs_all) continue;
    bool any = false;
    for (const uint64_t core : gone) any = StrikeOut(gather, core) || any;
    if (any) touched.push_back(id);
  }
  for (const uint64_t id : touched) FinishIfComplete(open_.find(id));
}

void Gathers::Heard(uint64_t core) {
  const auto place = std::lower_bound(cores_.begin(), cores_.end(), core);
  if (place == cores_.end() || *place != core) cores_.insert(place, core);
}

void Gathers::Begin(Gather&& gather) {
  PRESENCE_CHECK(!Full(), "gathers are bounded");
  gather.awaited.assign(cores_.begin(), cores_.end());
  if (gather.needs_all) {
    for (const Left& left : left_) {
      if (!std::binary_search(cores_.begin(), cores_.end(), left.core)) gather.awaited.push_back(left.core);
    }
  }
  const uint64_t id = gather.id;
  if (gather.kind == Gather::Kind::kRequest) by_request_.emplace(gather.request, id);
  const bool is_new = open_.emplace(id, std::move(gather)).second;
  PRESENCE_CHECK(is_new, "the id of a gather is used once");
}

bool Gathers::Count(uint64_t id, uint64_t core, uint32_t count) {
  const auto found = open_.find(id);
  if (found == open_.end() || !StrikeOut(found->second, core)) return false;
  found->second.reached += count;
  FinishIfComplete(found);
  return true;
}

bool Gathers::Answer(link::v1::ClusterReply&& reply) {
  const auto found = open_.find(reply.id());
  if (found == open_.end()) return false;
  Gather& gather = found->second;
  if (gather.kind == Gather::Kind::kMessage) return Count(reply.id(), reply.core(), reply.count().count());
  if (!StrikeOut(gather, reply.core())) return false;
  gather.replies.push_back(std::move(reply));
  FinishIfComplete(found);
  return true;
}

bool Gathers::Answer(const link::v1::ClusterReply& reply) {
  const auto found = open_.find(reply.id());
  if (found == open_.end()) return false;
  if (found->second.kind == Gather::Kind::kMessage) return Count(reply.id(), reply.core(), reply.count().count());
  return Answer(link::v1::ClusterReply(reply));
}

void Gathers::Published(uint64_t id) {
  const auto found = open_.find(id);
  if (found == open_.end()) return;
  found->second.published = true;
  FinishIfComplete(found);
}

void Gathers::NotPublished(uint64_t id) {
  if (const auto found = open_.find(id); found != open_.end()) Finish(found, Gather::End::kUnpublished);
}

void Gathers::Cancel(uint64_t request) {
  const auto found = by_request_.find(request);
  if (found != by_request_.end()) Finish(open_.find(found->second), Gather::End::kCancelled);
}

void Gathers::OnTick(SteadyTime now) {
  now_ = now;
  while (!left_.empty() && now >= left_.front().until) left_.pop_front();
  for (auto it = open_.begin(); it != open_.end();) {
    Gather& gather = it->second;
    // Whether a message is published must be known; the store answers within 2 s, whatever happens to it.
    const bool may_end = gather.kind == Gather::Kind::kRequest || gather.published;
    if (may_end && now > gather.deadline) {
      it = Finish(it, Gather::End::kTimedOut);
    } else {
      ++it;
    }
  }
}

std::optional<Gather> Gathers::Take(uint64_t id) {
  const auto found = open_.find(id);
  if (found == open_.end()) return std::nullopt;
  std::optional<Gather> taken = std::move(found->second);
  if (taken->kind == Gather::Kind::kRequest) by_request_.erase(taken->request);
  open_.erase(found);
  return taken;
}

std::optional<Gather> Gathers::TakeFinished() {
  if (finished_.empty()) return std::nullopt;
  std::optional<Gather> taken = std::move(finished_.front());
  finished_.pop_front();
  std::sort(taken->replies.begin(), taken->replies.end(),
            [](const auto& a, const auto& b) { return a.core() < b.core(); });
  return taken;
}

bool Gathers::StrikeOut(Gather& gather, uint64_t core) {
  const auto found = std::find(gather.awaited.begin(), gather.awaited.end(), core);
  if (found == gather.awaited.end()) return false;
  gather.awaited.erase(found);
  return true;
}

void Gathers::FinishIfComplete(Open::iterator it) {
  const Gather& gather = it->second;
  if (!gather.awaited.empty() || (gather.kind == Gather::Kind::kMessage && !gather.published)) return;
  Finish(it, Gather::End::kComplete);
}

Gathers::Open::iterator Gathers::Finish(Open::iterator it, Gather::End end) {
  it->second.end = end;
  if (it->second.kind == Gather::Kind::kRequest) by_request_.erase(it->second.request);
  finished_.push_back(std::move(it->second));
  return open_.erase(it);
}

}  // namespace presence::core
