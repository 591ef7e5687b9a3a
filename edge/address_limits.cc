#include "edge/address_limits.h"

#include "common/check.h"

namespace presence::edge {
namespace {

// For each one that comes, so many that are idle are looked at: the table shrinks faster than it grows.
constexpr int kLookedAtMax = 2;

}  // namespace

AddressLimits::AddressLimits(const AddressLimitsOptions& options)
    : options_(options), handshakes_(options.handshakes_per_second, options.handshakes_burst) {}

AddressLimits::Verdict AddressLimits::Knock(Entry& entry, SteadyTime now) const {
  if (handshakes_.Take(entry.handshakes, now)) return Verdict::kAdmitted;
  return handshakes_.Take(entry.refusals, now) ? Verdict::kTooManyHandshakes : Verdict::kShut;
}

AddressLimits::Verdict AddressLimits::AdmitSocket(const PeerAddress& address, SteadyTime now) {
  if (off()) return Verdict::kAdmitted;
  const std::lock_guard lock(mutex_);
  const uint32_t index = Find(address.Subscriber(), now);
  if (index == kNone) return Verdict::kTableFull;
  Entry& entry = entries_[index];
  Verdict verdict = Verdict::kTooManyConnections;
  if (options_.connections_max == 0 || entry.connections < options_.connections_max) {
    verdict = Knock(entry, now);
    if (verdict != Verdict::kShut) ++entry.connections;
  }
  Leave(index);
  return verdict;
}

AddressLimits::Verdict AddressLimits::AdmitRequest(const PeerAddress& address, SteadyTime now) {
  if (off()) return Verdict::kAdmitted;
  const std::lock_guard lock(mutex_);
  const uint32_t index = Find(address.Subscriber(), now);
  // No connection of its own, and it asks for none: what is left of the limits is the number of all sockets.
  if (index == kNone) return Verdict::kAdmitted;
  const bool admitted = handshakes_.Take(entries_[index].handshakes, now);
  Leave(index);
  return admitted ? Verdict::kAdmitted : Verdict::kTooManyHandshakes;
}

AddressLimits::Verdict AddressLimits::AdmitConnection(const PeerAddress& address, SteadyTime now) {
  if (off()) return Verdict::kAdmitted;
  const std::lock_guard lock(mutex_);
  const uint32_t index = Find(address.Subscriber(), now);
  if (index == kNone) return Verdict::kTableFull;
  Entry& entry = entries_[index];
  const bool admitted = options_.connections_max == 0 || entry.connections < options_.connections_max;
  if (admitted) ++entry.connections;
  Leave(index);
  return admitted ? Verdict::kAdmitted : Verdict::kTooManyConnections;
}

void AddressLimits::Release(const PeerAddress& address, SteadyTime now) {
  if (off()) return;
  const std::lock_guard lock(mutex_);
  const auto found = index_.find(address.Subscriber());
  PRESENCE_CHECK(found != index_.end() && entries_[found->second].connections > 0, "what is released was counted");
  --entries_[found->second].connections;
  Leave(found->second);
  ForgetTheRested(now);
}

AddressLimits::Numbers AddressLimits::numbers() const {
  const std::lock_guard lock(mutex_);
  return {.addresses = index_.size(), .forgotten = forgotten_};
}

uint32_t AddressLimits::Find(const PeerAddress& address, SteadyTime now) {
  if (const auto found = index_.find(address); found != index_.end()) {
    if (entries_[found->second].connections == 0) Unlink(found->second);
    return found->second;
  }
  ForgetTheRested(now);
  if (index_.size() >= options_.addresses_max) {
    if (idle_front_ == kNone) return kNone;
    Forget(idle_front_);
    ++forgotten_;
  }
  if (free_.empty()) {
    free_.push_back(static_cast<uint32_t>(entries_.size()));
    entries_.emplace_back();
  }
  const uint32_t index = free_.back();
  free_.pop_back();
  entries_[index] = Entry();
  entries_[index].address = address;
  index_.emplace(address, index);
  return index;
}

void AddressLimits::Leave(uint32_t index) {
  Entry& entry = entries_[index];
  if (entry.connections > 0) return;
  entry.before = idle_back_;
  entry.behind = kNone;
  (idle_back_ == kNone ? idle_front_ : entries_[idle_back_].behind) = index;
  idle_back_ = index;
}

void AddressLimits::Unlink(uint32_t index) {
  const Entry& entry = entries_[index];
  (entry.before == kNone ? idle_front_ : entries_[entry.before].behind) = entry.behind;
  (entry.behind == kNone ? idle_back_ : entries_[entry.behind].before) = entry.before;
}

void AddressLimits::Forget(uint32_t index) {
  Unlink(index);
  index_.erase(entries_[index].address);
  free_.push_back(index);
}

// Of whom nothing is known that a newcomer would not be granted as well.
void AddressLimits::ForgetTheRested(SteadyTime now) {
  for (int i = 0; i < kLookedAtMax && idle_front_ != kNone; ++i) {
    const Entry& entry = entries_[idle_front_];
    if (!handshakes_.IsFull(entry.handshakes, now) || !handshakes_.IsFull(entry.refusals, now)) return;
    Forget(idle_front_);
  }
}

}  // namespace presence::edge
