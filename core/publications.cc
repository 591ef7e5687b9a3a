#include "core/publications.h"

#include <algorithm>

namespace presence::core {

const link::v1::BusEnvelope& Publications::AddMessage(SteadyTime now, uint64_t request, std::string_view room_id,
                                                      std::string text) {
  link::v1::BusEnvelope envelope = NewVolatile();
  link::v1::RoomMessage& message = *envelope.mutable_message();
  message.set_room_id(room_id.data(), room_id.size());
  bytes_ += text.size();
  message.set_text(std::move(text));
  requests_.emplace(envelope.sequence(), request);
  return waiting_.emplace_back(Message{std::move(envelope), now}).envelope;
}

link::v1::BusEnvelope Publications::NewVolatile() {
  link::v1::BusEnvelope envelope;
  envelope.set_core(core_);
  envelope.set_sequence(++last_sequence_);
  ++unanswered_;
  return envelope;
}

std::optional<uint64_t> Publications::TakeRequest(uint64_t sequence) {
  if (unanswered_ > 0) --unanswered_;
  const auto found = requests_.find(sequence);
  if (found == requests_.end()) return std::nullopt;
  const uint64_t request = found->second;
  requests_.erase(found);
  return request;
}

void Publications::PopOldest() {
  const link::v1::BusEnvelope& oldest = waiting_.front().envelope;
  delivered_through_ = std::max(delivered_through_, oldest.sequence());
  bytes_ -= oldest.message().text().size();
  waiting_.pop_front();
}

}  // namespace presence::core
