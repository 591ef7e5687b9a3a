#include "edge/cli/auto_test.h"

#include <array>
#include <cstdio>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "common/log.h"
#include "edge/cli/frames.h"
#include "edge/cli/ws_connection.h"

namespace presence::edge::cli {
namespace {

using Matches = std::function<bool(const ServerFrame&)>;

const Room kGeneral{"channel_general", false};
const Room kRandom{"channel_random", false};
const Room kDm{"dm_123", true};
constexpr int kPings = 3;

std::string Millis(Duration duration) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f ms", static_cast<double>(duration.count()) / 1e6);
  return text;
}

bool IsTimestamp(const std::optional<std::string>& text) {
  static constexpr std::string_view kForm = "0000-00-00T00:00:00";
  if (!text || text->size() <= kForm.size() || text->back() != 'Z') return false;
  for (size_t i = 0; i < kForm.size(); ++i) {
    const bool digit = (*text)[i] >= '0' && (*text)[i] <= '9';
    if (kForm[i] == '0' ? !digit : (*text)[i] != kForm[i]) return false;
  }
  return true;
}

// The steps share one connection. Each returns what it found, or what was wrong.
class Steps {
 public:
  Steps(const Options& options, const std::string& token) : options_(options), token_(token) {}

  absl::StatusOr<std::string> Connect() {
    const SteadyTime start = std::chrono::steady_clock::now();
    auto connection =
        WsConnection::Connect(options_.url, token_, options_.token_place, options_.timeout, options_.authorities);
    if (!connection.ok()) return connection.status();
    connection_ = *std::move(connection);
    const auto first = NextFrame(options_.timeout);
    if (!first.ok()) return first.status();
    if (first->type != "pong") return Unexpected("the first frame must be a pong with the server's time", *first);
    if (!IsTimestamp(first->timestamp)) return Unexpected("the pong's timestamp must be UTC with a trailing Z", *first);
    return "connected, pong after " + Millis(std::chrono::steady_clock::now() - start);
  }

  absl::StatusOr<std::string> SubscribeTo(const Room& room) {
    const auto frame = Ask(SubscribeFrame(room), "a subscribed frame for " + RoomText(room),
                           [&](const ServerFrame& f) { return f.type == "subscribed" && Concerns(f, room); });
    if (!frame.ok()) return frame.status();
    if (!frame->has_both_room_members || (room.is_dm ? frame->channel_id : frame->dm_id)) {
      return Unexpected("a confirmation names channel_id and dm_id, the other one null", *frame);
    }
    return "subscribed to " + RoomText(room);
  }

  absl::StatusOr<std::string> TypeIn(const Room& room) {
    const auto frame = Ask(TypingFrame(room), "our own typing frame back in " + RoomText(room),
                           [&](const ServerFrame& f) { return f.type == "typing" && Concerns(f, room); });
    if (!frame.ok()) return frame.status();
    if (!frame->user_id || !frame->username) return Unexpected("a typing frame names user_id and username", *frame);
    if (!frame->has_both_room_members || (room.is_dm ? frame->channel_id : frame->dm_id)) {
      return Unexpected("a typing frame names channel_id and dm_id, the other one null", *frame);
    }
    return "typing came back as " + Escaped(*frame->username) + " (" + Escaped(*frame->user_id) + ")";
  }

  absl::StatusOr<std::string> Heartbeat() {
    std::string times;
    for (int i = 0; i < kPings; ++i) {
      const SteadyTime start = std::chrono::steady_clock::now();
      const auto frame = Ask(PingFrame(), "a pong", [](const ServerFrame& f) { return f.type == "pong"; });
      if (!frame.ok()) return frame.status();
      if (!IsTimestamp(frame->timestamp))
        return Unexpected("the pong's timestamp must be UTC with a trailing Z", *frame);
      times += (times.empty() ? "" : ", ") + Millis(std::chrono::steady_clock::now() - start);
    }
    return std::to_string(kPings) + " pings, " + std::to_string(kPings) + " pongs: " + times;
  }

  absl::StatusOr<std::string> UnsubscribeFrom(const Room& room, const Room& still_in) {
    const auto left = Ask(UnsubscribeFrame(room), "an unsubscribed frame for " + RoomText(room),
                          [&](const ServerFrame& f) { return f.type == "unsubscribed" && Concerns(f, room); });
    if (!left.ok()) return left.status();
    // What is sent to the room now must not come here. The confirmation of a second subscription comes behind it.
    if (const auto sent = connection_->SendText(TypingFrame(room)); !sent.ok()) return sent;
    std::optional<ServerFrame> leaked;
    const auto after =
        Ask(SubscribeFrame(still_in), "a second confirmation for " + RoomText(still_in), [&](const ServerFrame& f) {
          if (f.type == "typing" && Concerns(f, room)) leaked = f;
          return f.type == "subscribed" && Concerns(f, still_in);
        });
    if (!after.ok()) return after.status();
    if (leaked) return Unexpected("after unsubscribing nothing of the room may come", *leaked);
    return "unsubscribed from " + RoomText(room) + ", and nothing of it comes any more";
  }

  absl::StatusOr<std::string> DirectMessages() {
    for (const auto& done : {SubscribeTo(kDm), TypeIn(kDm)}) {
      if (!done.ok()) return done.status();
    }
    const auto left = Ask(UnsubscribeFrame(kDm), "an unsubscribed frame for " + RoomText(kDm),
                          [](const ServerFrame& f) { return f.type == "unsubscribed" && Concerns(f, kDm); });
    if (!left.ok()) return left.status();
    return "subscribed to " + RoomText(kDm) + ", typing came back, unsubscribed";
  }

  bool connected() const { return connection_ != nullptr && !connection_->closed(); }
  void Close() {
    if (connection_ != nullptr) connection_->Close(options_.timeout);
  }

 private:
  absl::Status Unexpected(const std::string& rule, const ServerFrame& frame) {
    return absl::FailedPreconditionError(rule + "; it was " + Escaped(frame.raw, 300));
  }

  absl::StatusOr<ServerFrame> NextFrame(Duration timeout) {
    const auto event = connection_->Next(timeout);
    if (!event) return absl::DeadlineExceededError("nothing came within " + Millis(options_.timeout));
    if (event->kind == WsConnection::Event::Kind::kClosed) {
      return absl::UnavailableError(DescribeClose(event->close_code));
    }
    return ParseServerFrame(event->text);
  }

  // Sends `frame`, then waits for the first frame that matches. What others cause is passed over, errors are not.
  absl::StatusOr<ServerFrame> Ask(const std::string& frame, const std::string& expected, const Matches& matches) {
    if (const auto sent = connection_->SendText(frame); !sent.ok()) return sent;
    const SteadyTime deadline = std::chrono::steady_clock::now() + options_.timeout;
    std::string last;
    while (true) {
      const auto next = NextFrame(deadline - std::chrono::steady_clock::now());
      if (!next.ok() && absl::IsDeadlineExceeded(next.status())) {
        return absl::DeadlineExceededError("sent " + frame + ", and no " + expected.substr(expected.find(' ') + 1) +
                                           " came within " + Millis(options_.timeout) +
                                           (last.empty() ? "; nothing else came" : "; the last frame was " + last));
      }
      if (!next.ok()) return next.status();
      if (matches(*next)) return *next;
      if (next->type == "error") return Unexpected("sent " + frame + " and expected " + expected, *next);
      last = Escaped(next->raw, 300);
    }
  }

  const Options& options_;
  const std::string& token_;
  std::unique_ptr<WsConnection> connection_;
};

}  // namespace

bool RunAutoTest(const Options& options, const std::string& token,
                 const std::function<void(const std::string&)>& print) {
  Steps steps(options, token);
  struct Step {
    const char* name;
    std::function<absl::StatusOr<std::string>()> run;
  };
  const std::array<Step, 7> list = {{
      {"connect", [&] { return steps.Connect(); }},
      {"subscribe to #general", [&] { return steps.SubscribeTo(kGeneral); }},
      {"typing", [&] { return steps.TypeIn(kGeneral); }},
      {"heartbeat", [&] { return steps.Heartbeat(); }},
      {"subscribe to #random", [&] { return steps.SubscribeTo(kRandom); }},
      {"unsubscribe from #general", [&] { return steps.UnsubscribeFrom(kGeneral, kRandom); }},
      {"direct messages", [&] { return steps.DirectMessages(); }},
  }};
  print("Testing " + Escaped(RedactToken(options.url)));
  size_t good = 0;
  for (size_t i = 0; i < list.size(); ++i) {
    const std::string title = std::to_string(i + 1) + "/" + std::to_string(list.size()) + " " + list[i].name + ": ";
    if (i > 0 && !steps.connected()) {
      print("not run: the other " + std::to_string(list.size() - i) + ", for there is no connection");
      break;
    }
    const auto result = list[i].run();
    print(result.ok() ? "ok " + title + *result : "FAILED " + title + std::string(result.status().message()));
    good += result.ok() ? 1 : 0;
  }
  steps.Close();
  print(good == list.size() ? "All 7 steps are good." : std::to_string(good) + " of 7 steps are good.");
  return good == list.size();
}

}  // namespace presence::edge::cli
