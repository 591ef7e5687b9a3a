#include "core/taps.h"

#include <algorithm>

#include "common/utf8.h"

namespace presence::core {
namespace {

using link::v1::TapEvent;
using link::v1::TapOrder;

// Of an event: its own length, time, kind, connection and the other fields' tags and lengths.
constexpr size_t kEventFraming = 64;

void SetText(std::string* field, std::string_view text) {
  field->assign(text.data(), text.size());
}

}  // namespace

bool Taps::OnOrder(Now now, uint64_t origin, const TapOrder& order) {
  const Key key{origin, order.tap()};
  if (order.ended()) {
    taps_.erase(key);
    return true;
  }
  auto found = taps_.find(key);
  if (found == taps_.end()) {
    if (order.user_id().empty() && order.room_id().empty()) return false;
    if (CountOf(origin) >= taps_max_per_origin_) return false;
    found = taps_.try_emplace(key).first;
    found->second.user_id = order.user_id();
    found->second.room_id = order.room_id();
    found->second.waiting.set_core(core_name_);
  }
  found->second.ends_at = now.steady + kLease;
  return true;
}

void Taps::OnTick(Now now) {
  for (auto it = taps_.begin(); it != taps_.end();) {
    Tap& tap = it->second;
    if (now.steady >= tap.ends_at) {
      it = taps_.erase(it);
      continue;
    }
    if (tap.left_out != 0 && now.steady >= tap.second_ends_at) Add(now, tap, kEventFraming);
    ++it;
  }
}

void Taps::Saw(Now now, link::v1::TapKind kind, const Subject& subject, Heard heard) {
  const std::string_view detail = any() ? Utf8Prefix(subject.detail, kDetailBytesMax) : std::string_view();
  const size_t bytes = kEventFraming + subject.user_id.size() + subject.room_id.size() + detail.size();
  for (auto& [key, tap] : taps_) {
    const bool wanted = tap.user_id.empty() ? tap.room_id == subject.room_id : tap.user_id == subject.user_id;
    if (!wanted || (heard == Heard::kEverywhere && key.origin != self_)) continue;
    TapEvent* event = Add(now, tap, bytes);
    if (event == nullptr) {
      ++tap.left_out;
      ++events_left_out_;
      continue;
    }
    ++events_;
    event->set_kind(kind);
    SetText(event->mutable_user_id(), subject.user_id);
    SetText(event->mutable_room_id(), subject.room_id);
    if (subject.incarnation != 0) {
      event->mutable_connection()->set_incarnation(subject.incarnation);
      event->mutable_connection()->set_connection(subject.connection);
    }
    SetText(event->mutable_detail(), detail);
  }
}

void Taps::Take(absl::FunctionRef<void(uint64_t origin, uint64_t tap, const link::v1::TapEvents& events)> send) {
  for (auto& [key, tap] : taps_) {
    if (tap.waiting.events().empty()) continue;
    send(key.origin, key.tap, tap.waiting);
    tap.waiting.mutable_events()->Clear();
    tap.bytes = 0;
  }
}

size_t Taps::CountOf(uint64_t origin) const {
  size_t count = 0;
  for (auto it = taps_.lower_bound(Key{origin, 0}); it != taps_.end() && it->first.origin == origin; ++it) ++count;
  return count;
}

TapEvent* Taps::Add(Now now, Tap& tap, size_t bytes) {
  if (now.steady >= tap.second_ends_at) {
    tap.second_ends_at = now.steady + std::chrono::seconds(1);
    tap.events_in_second = 0;
  }
  if (tap.events_in_second >= events_per_second_ || tap.bytes + bytes > kBytesMax) return nullptr;
  ++tap.events_in_second;
  tap.bytes += bytes;
  TapEvent* event = tap.waiting.add_events();
  event->set_time_ms(ToUnixMillis(now.wall));
  event->set_left_out(tap.left_out);
  tap.left_out = 0;
  return event;
}

}  // namespace presence::core
