// What operators and the API order: closes, forced leaves and statuses of connections; drains and log levels of processes.
#include <algorithm>
#include <utility>

#include "core/hub_state.h"

namespace presence::core {
namespace {

using link::v1::ClusterReply;
using link::v1::ClusterRequest;

std::string_view Detail(const OrderCommand& command) {
  switch (command.kind) {
    case OrderCommand::Kind::kClose:
      return "disconnect";
    case OrderCommand::Kind::kLeave:
      return "unsubscribe";
    case OrderCommand::Kind::kStatus:
      return command.status == link::v1::STATUS_AWAY ? "status away" : "status online";
  }
  return {};
}

ConnectionKey KeyOf(const Connection& connection) {
  return {connection.incarnation, connection.id};
}

OrderCommand CommandOf(const ClusterRequest& request) {
  OrderCommand command;
  if (request.has_disconnect()) {
    command.kind = OrderCommand::Kind::kClose;
    command.code = request.disconnect().code();
    command.text = request.disconnect().reason();
  } else if (request.has_unsubscribe()) {
    command.kind = OrderCommand::Kind::kLeave;
    command.text = request.unsubscribe().room_id();
  } else if (request.has_end_sessions()) {
    command.kind = OrderCommand::Kind::kClose;
  } else {
    command.kind = OrderCommand::Kind::kStatus;
    command.status = request.status().status();
  }
  return command;
}

}  // namespace

void Hub::State::OnOrder(Now now, const ClusterRequest& request) {
  if (request.has_end_sessions() || !request.disconnect().user_id().empty()) {
    EndExpected(request);
    ledger_.Send(now);
  }
  std::vector<ConnectionIndex> targets;
  if (request.disconnect().has_connection()) {
    FindConnection(request.disconnect().connection(), &targets);
  } else if (request.has_end_sessions()) {
    FindLoggedOut(request.end_sessions(), &targets);
  } else {
    FindDevices(request, &targets);
  }
  if (!orders_.HasRoomFor(targets.size())) {
    if (request.has_end_sessions()) {  // the store refuses them one by one
      for (const ConnectionIndex target : targets) ledger_.Reassert(connections_.records().RefTo(target));
    }
    ClusterReply reply;
    reply.set_id(request.id());
    reply.set_code(static_cast<uint32_t>(absl::StatusCode::kResourceExhausted));
    reply.set_error("too many orders wait for shards");
    return Reply(request.origin(), std::move(reply));
  }
  counters_.orders += targets.size();
  std::vector<ConnectionKey> keys;
  keys.reserve(targets.size());
  for (const ConnectionIndex target : targets) keys.push_back(KeyOf(connections_[target]));
  OrderCommand command = CommandOf(request);
  if (request.has_end_sessions()) {
    counters_.sessions_ended += targets.size();
    command.code = kUnauthorized;
    command.text = kLoggedOut;
  }
  orders_.Add({request.origin(), request.id()}, command, now.steady + options_.order_max, keys);
  for (const ConnectionIndex target : targets) {
    const Connection& connection = connections_[target];
    if (taps_.any()) {
      const std::string_view room =
          command.kind == OrderCommand::Kind::kLeave ? std::string_view(command.text) : std::string_view();
      SawConnection(now, link::v1::TAP_KIND_ORDER, connection, room, Detail(command));
    }
    // One that its shard has not named in this attach is told when it does: until then the shard may have lost it.
    const Shard& shard = connections_.shard(connection.shard);
    if (shard.link != nullptr && connection.attach == shard.attach) Tell(*shard.link, connection.id, command);
  }
}

void Hub::State::FindConnection(const link::v1::ConnectionName& name, std::vector<ConnectionIndex>* found) const {
  const ShardKey key{name.incarnation(), ConnectionId::Unpack(name.connection()).shard};
  const auto shard = connections_.shards().find(key);
  if (shard == connections_.shards().end()) return;
  const ConnectionIndex index = shard->second->Find(name.connection(), connections_.records());
  if (index != kNoConnection) found->push_back(index);
}

void Hub::State::FindDevices(const ClusterRequest& request, std::vector<ConnectionIndex>* found) const {
  const std::string& user_id = request.has_disconnect()    ? request.disconnect().user_id()
                               : request.has_unsubscribe() ? request.unsubscribe().user_id()
                                                           : request.status().user_id();
  const User* user = connections_.FindUser(user_id);
  if (user == nullptr) return;
  for (ConnectionIndex device = user->first_live; device != kNoConnection; device = connections_[device].next_of_user) {
    if (request.has_unsubscribe() && !connections_.InRoom(device, request.unsubscribe().room_id())) continue;
    found->push_back(device);
  }
}

void Hub::State::Tell(Link& link, uint64_t connection, const OrderCommand& command) {
  link::v1::CoreCommand& out = links_.Command(link);
  switch (command.kind) {
    case OrderCommand::Kind::kClose:
      out.mutable_close_connection()->set_connection(connection);
      out.mutable_close_connection()->set_code(command.code);
      out.mutable_close_connection()->set_reason(command.text);
      return;
    case OrderCommand::Kind::kLeave:
      out.mutable_leave_room()->set_connection(connection);
      out.mutable_leave_room()->set_room_id(command.text);
      return;
    case OrderCommand::Kind::kStatus:
      out.mutable_change_status()->set_connection(connection);
      out.mutable_change_status()->set_status(command.status);
      return;
  }
}

void Hub::State::RepeatOrders(Link& link, ConnectionIndex index) {
  if (orders_.size() == 0) return;
  const Connection& connection = connections_[index];
  const ConnectionKey key = KeyOf(connection);
  // What the declaration says is so is carried out, even if the event that told of it was lost with the link.
  orders_.HasStatus(key, connection.device_status());
  std::vector<std::string> left;
  orders_.ForEachOf(key, [&](const OrderCommand& command) {
    if (command.kind == OrderCommand::Kind::kLeave && !connections_.InRoom(index, command.text)) {
      left.push_back(command.text);
    }
  });
  for (const std::string& room_id : left) orders_.Left(key, room_id);
  orders_.ForEachOf(key, [&](const OrderCommand& command) { Tell(link, connection.id, command); });
}

// --- To processes. An edge is known by its shards, of which one is told; one that was started again under the same name is another.

uint32_t Hub::State::BeginDrain(const link::v1::DrainOrder& order) {
  if (order.whom_case() == link::v1::DrainOrder::kCore) {
    if (order.core() != options_.incarnation) return 0;
    output_.DrainCore(std::chrono::milliseconds(order.window_ms()));
    return static_cast<uint32_t>(links_.size());
  }
  size_t connections = 0;
  ForEachEdge([&](const Shard& told) {
    if (told.edge != order.edge()) return;
    links_.Command(*told.link).mutable_begin_drain()->set_window_ms(order.window_ms());
    for (const auto& [key, shard] : connections_.shards()) {
      if (key.incarnation == told.key.incarnation) connections += shard->connections;
    }
  });
  return static_cast<uint32_t>(connections);
}

uint32_t Hub::State::SetLogLevel(const link::v1::LogLevelOrder& order) {
  uint32_t processes = 0;
  if (order.all() || (order.has_core() && order.core() == options_.core_name)) {
    output_.SetLogLevel(order.level());
    ++processes;
  }
  if (!order.all() && !order.has_edge()) return processes;
  ForEachEdge([&](const Shard& shard) {
    if (!order.all() && shard.edge != order.edge()) return;
    links_.Command(*shard.link).mutable_set_log_level()->set_level(order.level());
    // The shards of an edge may be attached to several cores, which all tell it: the one with the first shard counts it.
    if (shard.key.shard == 0) ++processes;
  });
  return processes;
}

void Hub::State::ForEachEdge(absl::FunctionRef<void(const Shard& shard)> tell) const {
  uint64_t told = 0;  // shards are in order of their incarnations, which are never 0
  for (const auto& [key, shard] : connections_.shards()) {
    if (shard->link == nullptr || key.incarnation == told) continue;
    told = key.incarnation;
    tell(*shard);
  }
}

}  // namespace presence::core
