#include "edge/cli/interactive.h"

#include <poll.h>
#include <signal.h>

#include <algorithm>
#include <cstdio>
#include <functional>
#include <memory>

#include "common/log.h"
#include "edge/cli/frames.h"
#include "edge/cli/line_editor.h"
#include "edge/cli/ws_connection.h"

namespace presence::edge::cli {
namespace {

constexpr Duration kGoodbye = std::chrono::seconds(2);
// A script's answers may still be under way when its last line is read.
constexpr Duration kLastAnswers = std::chrono::milliseconds(500);

constexpr int kPortion = 100;  // frames

volatile sig_atomic_t interrupted = 0;

// SIGINT and SIGTERM end the session by the front door, so that the terminal is given back and the server hears goodbye.
class SignalsTaken {
 public:
  SignalsTaken() {
    interrupted = 0;
    struct sigaction action {};
    action.sa_handler = [](int) { interrupted = 1; };  // without SA_RESTART: poll returns
    sigaction(SIGINT, &action, &old_int_);
    sigaction(SIGTERM, &action, &old_term_);
  }
  ~SignalsTaken() {
    sigaction(SIGINT, &old_int_, nullptr);
    sigaction(SIGTERM, &old_term_, nullptr);
  }
  SignalsTaken(const SignalsTaken&) = delete;
  SignalsTaken& operator=(const SignalsTaken&) = delete;

 private:
  struct sigaction old_int_ {};
  struct sigaction old_term_ {};
};

constexpr const char* kHelp =
    "  sub ROOM             subscribe: sub channel_general, sub #general (the same), sub dm:dm_123\n"
    "  unsub ROOM           unsubscribe\n"
    "  typing ROOM          say that you are typing\n"
    "  status online|away   the status of this device\n"
    "  auth TOKEN           a newer token for this connection\n"
    "  ping                 heartbeat; the answer shows the server's time\n"
    "  {\"type\": ...}        any line that begins with { is sent as it is\n"
    "  help                 this text\n"
    "  quit                 leave (also Ctrl-D)";

class Session {
 public:
  Session(const Options& options, std::unique_ptr<WsConnection> connection)
      : options_(options), connection_(std::move(connection)), editor_("> "), last_sent_(Clock()) {}

  absl::Status Run() {
    const SignalsTaken signals;
    if (editor_.interactive()) {
      editor_.Print("Connected to " + Escaped(RedactToken(options_.url)) + ". help lists the commands.");
    }
    while (!done_) {
      const auto line = editor_.ReadLine([this] { return WaitForInput(); });
      if (!line) break;
      Obey(*line);
    }
    // What was asked for last may still be under way; a person who leaves does not wait for it.
    if (!editor_.interactive() && interrupted == 0) PrintWhatCame(kLastAnswers);
    if (connection_->closed()) return absl::UnavailableError(DescribeClose(close_code_));
    connection_->Close(kGoodbye);
    return absl::OkStatus();
  }

 private:
  static SteadyTime Clock() { return std::chrono::steady_clock::now(); }

  // False: the connection is closed. A flood is printed in portions, so that the keyboard stays alive.
  bool PrintWhatCame(Duration wait) {
    more_came_ = true;
    for (int printed = 0; printed < kPortion; ++printed) {
      const auto event = connection_->Next(wait);
      if (!event) {
        more_came_ = false;
        break;
      }
      if (event->kind == WsConnection::Event::Kind::kClosed) {
        close_code_ = event->close_code;
        return false;
      }
      const ServerFrame frame = ParseServerFrame(event->text);
      // The pongs that nobody asked for: the greeting, and the answers to pings of our own.
      if (frame.type == "pong" && silent_pongs_ > 0) {
        --silent_pongs_;
        continue;
      }
      editor_.Print(Describe(frame));
    }
    return true;
  }

  bool KeepAlive() {
    if (options_.ping_interval == Duration::zero() || Clock() - last_sent_ < options_.ping_interval) return true;
    ++silent_pongs_;
    return Send(PingFrame());
  }

  // Prints what comes and keeps the connection alive until there is something to read from the keyboard. False: it is over.
  bool WaitForInput() {
    while (interrupted == 0) {
      if (!PrintWhatCame(Duration::zero()) || !KeepAlive()) return false;
      int wait_ms = more_came_ ? 0 : -1;
      if (!more_came_ && options_.ping_interval != Duration::zero()) {
        const auto left = std::chrono::ceil<std::chrono::milliseconds>(last_sent_ + options_.ping_interval - Clock());
        wait_ms = static_cast<int>(std::max<int64_t>(left.count(), 0));
      }
      pollfd wanted[] = {{connection_->fd(), POLLIN, 0}, {editor_.fd(), POLLIN, 0}};
      if (poll(wanted, 2, wait_ms) > 0 && wanted[1].revents != 0) return true;
    }
    return false;
  }

  bool Send(const std::string& frame) {
    last_sent_ = Clock();
    return connection_->SendText(frame).ok();
  }

  void Obey(const std::string& line) {
    const size_t first = line.find_first_not_of(" \t\r");
    if (first == std::string::npos) return;
    if (line[first] == '{') {
      Send(line);
      return;
    }
    const std::string words = line.substr(first, line.find_last_not_of(" \t\r") - first + 1);
    const size_t blank = std::min(words.find_first_of(" \t"), words.size());
    const std::string command = words.substr(0, blank);
    const std::string rest = blank == words.size() ? "" : words.substr(words.find_first_not_of(" \t", blank));
    if (command == "sub" || command == "subscribe") return ObeyRoom(rest, SubscribeFrame);
    if (command == "unsub" || command == "unsubscribe") return ObeyRoom(rest, UnsubscribeFrame);
    if (command == "typing") return ObeyRoom(rest, TypingFrame);
    if (command == "status") {
      if (rest != "online" && rest != "away") return editor_.Print("status takes online or away: status away");
      Send(StatusFrame(rest));
      return editor_.Print("status is " + rest);
    }
    if (command == "auth") {
      if (rest.empty()) return editor_.Print("auth takes a token: `presence-cli token` makes one for development");
      Send(AuthFrame(rest));
      return;
    }
    if (command == "ping") {
      Send(PingFrame());
      return;
    }
    if (command == "help" || command == "?") return editor_.Print(kHelp);
    if (command == "quit" || command == "exit" || command == "q") {
      done_ = true;
      return;
    }
    const auto nearest = Nearest(command, {"sub", "unsub", "typing", "status", "auth", "ping", "help", "quit"});
    editor_.Print("unknown command \"" + Escaped(command) +
                  "\": " + (nearest ? "did you mean " + *nearest + "?" : "help lists the commands"));
  }

  void ObeyRoom(const std::string& text, std::string (*frame)(const Room&)) {
    const auto room = ParseRoom(text);
    if (!room.ok()) return editor_.Print(std::string(room.status().message()));
    Send(frame(*room));
  }

  const Options& options_;
  const std::unique_ptr<WsConnection> connection_;
  LineEditor editor_;
  SteadyTime last_sent_;
  bool more_came_ = false;
  int silent_pongs_ = 1;  // the greeting
  uint16_t close_code_ = 1006;
  bool done_ = false;
};

}  // namespace

absl::Status RunInteractive(const Options& options, const std::string& token) {
  auto connection =
      WsConnection::Connect(options.url, token, options.token_place, options.timeout, options.authorities);
  if (!connection.ok()) return connection.status();
  return Session(options, *std::move(connection)).Run();
}

}  // namespace presence::edge::cli
