#include "core/orders.h"

#include "common/check.h"

namespace presence::core {

void Orders::Add(OrderOrigin origin, OrderCommand command, SteadyTime deadline,
                 absl::Span<const ConnectionKey> targets) {
  PRESENCE_CHECK(HasRoomFor(targets.size()), "orders are bounded");
  const uint64_t number = ++last_batch_;
  Batch& batch = batches_[number];
  batch.origin = origin;
  batch.command = std::move(command);
  batch.deadline = deadline;
  batch.connections.assign(targets.begin(), targets.end());
  batch.open = targets.size();
  for (const ConnectionKey& key : targets) targets_.insert({key.incarnation, key.connection, number});
  if (batch.open == 0) Finish(number, true);
}

template <typename Outcome>
void Orders::End(const ConnectionKey& connection, Outcome outcome) {
  for (auto it = FirstOf(connection); it != targets_.end() && it->IsOf(connection);) {
    const uint64_t number = it->batch;
    Batch& batch = batches_.at(number);
    const std::optional<uint32_t> counts = outcome(batch.command);
    if (!counts) {
      ++it;
      continue;
    }
    it = targets_.erase(it);
    batch.count += *counts;
    if (--batch.open == 0) Finish(number, !batch.moved);
  }
}

void Orders::Gone(const ConnectionKey& connection) {
  if (targets_.empty()) return;
  End(connection, [](const OrderCommand& command) -> std::optional<uint32_t> {
    return command.kind == OrderCommand::Kind::kStatus ? 0 : 1;  // a status is that of a live connection
  });
}

void Orders::Left(const ConnectionKey& connection, std::string_view room_id) {
  if (targets_.empty()) return;
  End(connection, [room_id](const OrderCommand& command) -> std::optional<uint32_t> {
    if (command.kind != OrderCommand::Kind::kLeave || command.text != room_id) return std::nullopt;
    return 1;
  });
}

void Orders::HasStatus(const ConnectionKey& connection, Status status) {
  if (targets_.empty()) return;
  End(connection, [status](const OrderCommand& command) -> std::optional<uint32_t> {
    if (command.kind != OrderCommand::Kind::kStatus || command.status != status) return std::nullopt;
    return 1;
  });
}

void Orders::Moved(const ConnectionKey& connection) {
  for (auto it = FirstOf(connection); it != targets_.end() && it->IsOf(connection);) {
    const uint64_t number = it->batch;
    it = targets_.erase(it);
    Batch& batch = batches_.at(number);
    batch.moved = true;
    if (--batch.open == 0) Finish(number, false);
  }
}

void Orders::OnTick(SteadyTime now) {
  while (!batches_.empty() && now >= batches_.begin()->second.deadline) {
    const auto& [number, batch] = *batches_.begin();
    for (const ConnectionKey& key : batch.connections) {
      targets_.erase(Target{key.incarnation, key.connection, number});
    }
    Finish(number, false);
  }
}

std::optional<OrderResult> Orders::TakeFinished() {
  if (finished_.empty()) return std::nullopt;
  const OrderResult result = finished_.front();
  finished_.pop_front();
  return result;
}

void Orders::Finish(uint64_t number, bool complete) {
  const auto found = batches_.find(number);
  finished_.push_back({found->second.origin, found->second.count, complete});
  batches_.erase(found);
}

}  // namespace presence::core
