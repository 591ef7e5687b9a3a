// What hubs say, as the lines of hub_world.h.
#include <cstdio>
#include <string>
#include <vector>

#include "core/presence_text.h"
#include "tests/fakes/hub_text.h"
#include "tests/fakes/hub_world.h"

namespace presence::core {
namespace {

using link::v1::CoreCommand;

std::string StatusIn(const std::string& text) {
  const std::string_view member = "\"status\":\"";
  const size_t start = text.find(member) + member.size();
  return text.substr(start, text.find('"', start) - start);
}

std::string Names(const google::protobuf::RepeatedField<uint64_t>& connections) {
  std::vector<std::string> names;
  for (const uint64_t connection : connections) names.push_back(Name(connection));
  return Join(names);
}

// " @5-3", or nothing.
template <typename Command>
std::string At(const Command& command) {
  if (command.room_epoch() == 0) return "";
  return " @" + std::to_string(command.room_epoch()) + "-" + std::to_string(command.room_sequence());
}

std::string Hex(uint64_t number) {
  char text[20];
  std::snprintf(text, sizeof text, "%llx", static_cast<unsigned long long>(number));
  return text;
}

}  // namespace

std::string Describe(const CoreCommand& command) {
  const auto number = [](uint64_t n) { return std::to_string(n); };
  switch (command.command_case()) {
    case CoreCommand::kWelcome:
      return "welcome watermark=" + number(command.welcome().presence_watermark());
    case CoreCommand::kAcknowledge:
      return "ack " + number(command.acknowledge().sequence()) +
             (command.acknowledge().presence_watermark() == 0
                  ? ""
                  : " watermark=" + number(command.acknowledge().presence_watermark()));
    case CoreCommand::kBind: {
      const auto& bind = command.bind();
      return "bind " + Name(bind.connection()) + " " + bind.room_id() + " handle=" + number(bind.handle()) +
             " reply=" + number(bind.reply_to()) + At(bind);
    }
    case CoreCommand::kUnbind: {
      const auto& unbind = command.unbind();
      return "unbind " + Name(unbind.connection()) + " " + unbind.room_id() + " reply=" + number(unbind.reply_to());
    }
    case CoreCommand::kRefuse:
      return "refuse reply=" + number(command.refuse().reply_to()) + " " + number(command.refuse().code());
    case CoreCommand::kDeliver: {
      const auto& deliver = command.deliver();
      std::string line = (deliver.volatile_() ? "typing " : "deliver ") + number(deliver.handle()) + At(deliver) + " ";
      if (!deliver.excluded_connections().empty()) line += "except=" + Names(deliver.excluded_connections()) + " ";
      return line + deliver.text();
    }
    case CoreCommand::kDeliverPresence: {
      const auto& presence = command.deliver_presence();
      return "presence " + presence.user_id() + "@" + number(presence.version()) + " " + StatusIn(presence.text()) +
             (presence.everyone() ? " everyone" : " rooms=" + Join(presence.handles()));
    }
    case CoreCommand::kCloseConnection:
      return "close " + Name(command.close_connection().connection()) + " " +
             number(command.close_connection().code()) + " " + command.close_connection().reason();
    case CoreCommand::kHeartbeat:
      return "heartbeat";
    case CoreCommand::kDeliverTo:
      return "deliver to " + Names(command.deliver_to().connections()) + " " + command.deliver_to().text();
    case CoreCommand::kLeaveRoom:
      return "leave " + Name(command.leave_room().connection()) + " " + command.leave_room().room_id() +
             (command.leave_room().code() == 0 ? "" : " " + number(command.leave_room().code()));
    case CoreCommand::kChangeStatus:
      return "status " + Name(command.change_status().connection()) + " " +
             std::string(StatusName(command.change_status().status()));
    case CoreCommand::kBeginDrain:
      return "drain " + number(command.begin_drain().window_ms()) + "ms";
    case CoreCommand::kSetLogLevel:
      return "log level " + number(command.set_log_level().level());
    case CoreCommand::kRoomMoved:
      return "moved " + number(command.room_moved().handle()) + At(command.room_moved()) +
             (command.room_moved().lost() ? " lost" : "");
    case CoreCommand::kSeekCore:
      return "seek core";
    case CoreCommand::COMMAND_NOT_SET:
      return "an empty command";
  }
  return "an unknown command";
}

std::string Describe(const link::v1::ClusterReply& reply) {
  std::string line = Hex(reply.core()) + ":";
  if (reply.code() != 0) line += absl::StatusCodeToString(static_cast<absl::StatusCode>(reply.code())) + ":";
  switch (reply.body_case()) {
    case link::v1::ClusterReply::kCount:
      return line + std::to_string(reply.count().count());
    case link::v1::ClusterReply::kRooms:
      for (const auto& room : reply.rooms().rooms())
        line += room.room_id() + "=" + std::to_string(room.connections()) + ";";
      return line;
    case link::v1::ClusterReply::kState:
      return line + "state";
    default:
      return line;
  }
}

std::string Describe(uint64_t request, const absl::Status& status, const MessageAnswer& answer) {
  std::string line = std::to_string(request) + " " + absl::StatusCodeToString(status.code());
  if (status.ok()) line += " reached=" + std::to_string(answer.reached);
  return line + (answer.count_incomplete ? " incomplete" : "") + (answer.repeated ? " repeated" : "");
}

std::string Describe(uint64_t request, const absl::Status& status, const std::vector<link::v1::ClusterReply>& replies) {
  std::string line = std::to_string(request) + " " + absl::StatusCodeToString(status.code());
  for (const auto& reply : replies) line += " " + Describe(reply);
  return line;
}

}  // namespace presence::core
