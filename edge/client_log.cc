#include "edge/client_log.h"

#include "common/connection_id.h"
#include "common/log.h"

namespace presence::edge {
namespace {

log::LineLimit connection_lines("connections");
log::LineLimit request_lines("subscriptions and heartbeats");
log::LineLimit timeout_lines("heartbeat timeouts");
log::LineLimit input_lines("invalid input");

constexpr uint8_t kLinesPerConnection = 10;  // in kLinePeriod
constexpr auto kLinePeriod = std::chrono::seconds(10);

}  // namespace

void ClientLog::Open(SocketId socket) {
  if (open_.size() <= socket.slot) open_.resize(socket.slot + 1);
  open_[socket.slot] = {.generation = socket.generation, .lines_since = {}, .lines = 0};
}

void ClientLog::Connected(uint32_t slot, std::string_view username, std::string_view user_id) {
  if (!connection_lines.Admit(log::Level::kInfo)) return;
  log::Info("User {} ({}) connected with connection {}", Escaped(username), Escaped(user_id), NameOf(slot));
}

void ClientLog::Disconnected(uint32_t slot, std::string_view username, std::string_view user_id, uint16_t code) {
  if (!connection_lines.Admit(log::Level::kWarning)) return;
  log::Warning("User {} ({}) disconnected, connection {}, code {}", Escaped(username), Escaped(user_id), NameOf(slot),
               code);
}

void ClientLog::Closed(uint32_t slot, uint16_t code) {
  const bool broke_protocol = code == 1002 || code == 1003 || code == 1007 || code == 1009;
  if (!broke_protocol || !input_lines.Admit(log::Level::kError)) return;
  log::Error("Connection {} broke the protocol, closed with {}", NameOf(slot), code);
}

void ClientLog::Report(ShardOutput::Severity severity, uint32_t slot, std::string_view what, std::string_view detail) {
  using Severity = ShardOutput::Severity;
  const auto level = severity == Severity::kInfo      ? log::Level::kInfo
                     : severity == Severity::kWarning ? log::Level::kWarning
                                                      : log::Level::kError;
  log::LineLimit& limit = severity == Severity::kInfo      ? request_lines
                          : severity == Severity::kWarning ? timeout_lines
                                                           : input_lines;
  if (!log::Enabled(level) || !OneMoreLineOf(slot) || !limit.Admit(level)) return;
  log::Write(level,
             fmt::format(fmt::runtime(fmt::string_view(what.data(), what.size())), fmt::arg("connection", NameOf(slot)),
                         fmt::arg("detail", Escaped(RedactToken(detail)))));
}

bool ClientLog::OneMoreLineOf(uint32_t slot) {
  Connection& connection = open_[slot];
  const auto now = std::chrono::steady_clock::now();
  if (now - connection.lines_since > kLinePeriod) {
    connection.lines_since = now;
    connection.lines = 0;
  }
  return connection.lines < kLinesPerConnection && ++connection.lines > 0;
}

std::string ClientLog::NameOf(uint32_t slot) const {
  return ConnectionName(incarnation_, ConnectionId{shard_, slot, open_[slot].generation}.Pack());
}

}  // namespace presence::edge
