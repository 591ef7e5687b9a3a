// A ShardOutput that keeps everything, in a form that tests can read: frames as their JSON text, events as messages.
#pragma once

#include <algorithm>
#include <chrono>
#include <deque>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "edge/shard.h"

namespace presence::edge {

// The payload of one unmasked text frame (RFC 6455, section 5.2).
inline std::string TextOf(const FrameRef& frame) {
  const std::string_view bytes = frame.bytes();
  const auto length = static_cast<unsigned char>(bytes[1]);
  return std::string(bytes.substr(length < 126 ? 2 : length == 126 ? 4 : 10));
}

class RecordingShardOutput : public ShardOutput {
 public:
  struct Sent {
    std::string text;
    SendPolicy policy;
  };
  struct Closed {
    uint32_t slot;
    uint16_t code;
    std::string reason;
    friend bool operator==(const Closed&, const Closed&) = default;
  };
  struct Reported {
    Severity severity;
    uint32_t slot;
    std::string what;
    std::string detail;
  };

  link::v1::EdgeEvent& AddEvent() override { return events.emplace_back(); }
  void DropLink(std::string_view why) override { dropped.emplace_back(why); }
  void Send(absl::Span<const uint32_t> slots, const FrameRef& frame, SendPolicy policy) override {
    ++send_calls;
    for (const uint32_t slot : slots) sent[slot].push_back({TextOf(frame), policy});
  }
  void Close(uint32_t slot, uint16_t code, std::string_view reason) override {
    closed.push_back({slot, code, std::string(reason)});
  }
  void CheckToken(uint32_t slot, std::string_view token) override { checks.emplace_back(slot, token); }
  void DrainEdge(std::chrono::milliseconds window) override { drains.push_back(window); }
  void SetLogLevel(link::v1::LogLevel level) override { log_levels.push_back(level); }
  void SeekCore() override { ++seeks; }
  void Report(Severity severity, uint32_t slot, std::string_view what, std::string_view detail) override {
    reports.push_back({severity, slot, std::string(what), std::string(detail)});
  }

  // Each hands out what has come since the last call.
  std::vector<std::string> TakeTexts(uint32_t slot) {
    std::vector<std::string> texts;
    for (Sent& one : std::exchange(sent[slot], {})) texts.push_back(std::move(one.text));
    return texts;
  }
  std::vector<link::v1::EdgeEvent> TakeEvents() {
    std::vector<link::v1::EdgeEvent> taken(events.begin(), events.end());
    events.clear();
    return taken;
  }
  std::vector<Closed> TakeClosed() { return std::exchange(closed, {}); }

  std::deque<link::v1::EdgeEvent> events;  // the shard fills in the last one: it must not move
  std::vector<std::string> dropped;
  std::map<uint32_t, std::vector<Sent>> sent;
  std::vector<Closed> closed;
  std::vector<Reported> reports;
  std::vector<std::pair<uint32_t, std::string>> checks;
  std::vector<std::chrono::milliseconds> drains;
  std::vector<link::v1::LogLevel> log_levels;
  size_t send_calls = 0;
  int seeks = 0;
};

}  // namespace presence::edge
