#include "core/publications.h"

#include <algorithm>
#include <utility>

namespace presence::core {

const link::v1::BusEnvelope& Publications::AddMessage(SteadyTime now, uint64_t gather, link::v1::BusEnvelope message) {
  message.set_core(core_);
  message.set_sequence(++last_sequence_);
  ++unanswered_;
  bytes_ += BytesOf(message);
  gathers_.emplace(message.sequence(), gather);
  return waiting_.emplace_back(Message{std::move(message), now}).envelope;
}

link::v1::BusEnvelope Publications::NewEnvelope(uint64_t gather) {
  link::v1::BusEnvelope envelope;
  envelope.set_core(core_);
  envelope.set_sequence(++last_sequence_);
  ++unanswered_;
  if (gather != 0) gathers_.emplace(envelope.sequence(), gather);
  return envelope;
}

std::optional<uint64_t> Publications::TakeGather(uint64_t sequence) {
  if (unanswered_ > 0) --unanswered_;
  const auto found = gathers_.find(sequence);
  if (found == gathers_.end()) return std::nullopt;
  const uint64_t gather = found->second;
  gathers_.erase(found);
  return gather;
}

void Publications::AddOnce(uint64_t gather, const link::v1::BusEnvelope& message) {
  const size_t bytes = BytesOf(message);
  bytes_ += bytes;
  once_.emplace(gather, bytes);
}

void Publications::OnceAnswered(uint64_t gather) {
  const auto found = once_.find(gather);
  if (found == once_.end()) return;
  bytes_ -= found->second;
  once_.erase(found);
}

const link::v1::BusEnvelope& Publications::AddLogged(uint64_t gather, link::v1::BusEnvelope message, Logged how) {
  bytes_ += BytesOf(message);
  LoggedMessage& logged = logged_[gather];
  logged = {std::move(message), how, false};
  return logged.message;
}

void Publications::LoggedCameBack(uint64_t gather) {
  if (const auto found = logged_.find(gather); found != logged_.end()) found->second.back = true;
}

std::optional<Publications::LoggedMessage> Publications::LoggedAnswered(uint64_t gather) {
  const auto found = logged_.find(gather);
  if (found == logged_.end()) return std::nullopt;
  LoggedMessage logged = std::move(found->second);
  bytes_ -= BytesOf(logged.message);
  logged_.erase(found);
  return logged;
}

void Publications::DeliveredHere(SteadyTime now, uint64_t gather, std::chrono::seconds memory) {
  while (!delivered_here_until_.empty() && delivered_here_until_.front().first <= now) {
    delivered_here_.erase(delivered_here_until_.front().second);
    delivered_here_until_.pop_front();
  }
  if (delivered_here_.insert(gather).second) delivered_here_until_.emplace_back(now + memory, gather);
}

void Publications::PopOldest() {
  const link::v1::BusEnvelope& oldest = waiting_.front().envelope;
  delivered_through_ = std::max(delivered_through_, oldest.sequence());
  bytes_ -= BytesOf(oldest);
  waiting_.pop_front();
}

size_t Publications::BytesOf(const link::v1::BusEnvelope& message) {
  if (message.has_user_message()) return message.user_message().text().size() + message.user_message().user_id().size();
  size_t bytes = message.message().text().size();
  for (const std::string& user_id : message.message().excluded_user_ids()) bytes += user_id.size();
  return bytes;
}

}  // namespace presence::core
