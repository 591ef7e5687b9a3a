#include "core/admin_state.h"

#include <google/protobuf/util/time_util.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <map>
#include <set>
#include <string>
#include <tuple>
#include <utility>

namespace presence::core {
namespace {

using admin::v1::CoreState;
using admin::v1::EdgeState;
using google::protobuf::util::TimeUtil;
using link::v1::ClusterReply;
using link::v1::ShardSeen;

bool IsState(const ClusterReply& reply) {
  return reply.code() == 0 && reply.has_state();
}

std::string Hexadecimal(uint64_t incarnation) {
  std::array<char, 17> text{};
  std::snprintf(text.data(), text.size(), "%016llx", static_cast<unsigned long long>(incarnation));
  return text.data();
}

void Fill(const ClusterReply& from, CoreState& to) {
  const link::v1::StateReply& state = from.state();
  to.set_name(state.name());
  to.set_incarnation(Hexadecimal(from.core()));
  to.set_version(state.version());
  if (state.started_ms() != 0) *to.mutable_start_time() = TimeUtil::MillisecondsToTimestamp(state.started_ms());
  to.set_draining(state.draining());
  to.set_store_up(state.store_up());
  to.set_link_count(std::count_if(state.shards().begin(), state.shards().end(),
                                  [](const ShardSeen& shard) { return shard.attached(); }));
  to.set_connection_count(static_cast<int64_t>(state.connections()));
  to.set_user_count(static_cast<int64_t>(state.users()));
  to.set_room_count(static_cast<int64_t>(state.rooms()));
  to.set_membership_count(static_cast<int64_t>(state.memberships()));
  to.set_writes_waiting(static_cast<int64_t>(state.writes_waiting()));
  to.set_publications_waiting(static_cast<int64_t>(state.publications_waiting()));
  to.set_watcher_count(static_cast<int64_t>(state.watchers()));
  to.set_link_backlog_bytes(static_cast<int64_t>(state.link_backlog_bytes()));
}

// A shard, and the name of the core that saw it.
struct Sighting {
  const ShardSeen* seen = nullptr;
  const std::string* core = nullptr;

  bool IsNewerThan(const Sighting& other) const {
    return std::pair(seen->attached(), seen->attach()) > std::pair(other.seen->attached(), other.seen->attach());
  }
};

void Fill(const Sighting& from, EdgeState& edge) {
  admin::v1::ShardState& to = *edge.add_shards();
  to.set_shard(static_cast<int32_t>(from.seen->shard()));
  to.set_core(*from.core);
  to.set_attached(from.seen->attached());
  to.set_attach(static_cast<int64_t>(from.seen->attach()));
  to.set_connection_count(static_cast<int64_t>(from.seen->connections()));
  to.set_events_waiting(static_cast<int64_t>(from.seen->events_waiting()));
  // The same of all shards of one process.
  if (edge.version().empty()) edge.set_version(from.seen->version());
  if (!edge.has_start_time() && from.seen->started_ms() != 0) {
    *edge.mutable_start_time() = TimeUtil::MillisecondsToTimestamp(from.seen->started_ms());
  }
}

}  // namespace

int CoresSeen(absl::Span<const ClusterReply> replies) {
  return static_cast<int>(std::count_if(replies.begin(), replies.end(), IsState));
}

void FillClusterState(absl::Span<const ClusterReply> replies, admin::v1::GetClusterStateResponse& state) {
  std::map<std::pair<std::string, uint64_t>, const ClusterReply*> cores;
  std::map<std::pair<std::string, uint64_t>, std::map<uint32_t, Sighting>> edges;
  for (const ClusterReply& reply : replies) {
    if (!IsState(reply)) continue;
    cores[{reply.state().name(), reply.core()}] = &reply;
    for (const ShardSeen& shard : reply.state().shards()) {
      Sighting& known = edges[{shard.edge(), shard.incarnation()}][shard.shard()];
      const Sighting sighting{&shard, &reply.state().name()};
      if (known.seen == nullptr || sighting.IsNewerThan(known)) known = sighting;
    }
  }
  for (const auto& [name, reply] : cores) Fill(*reply, *state.add_cores());
  for (const auto& [name, shards] : edges) {
    EdgeState& edge = *state.add_edges();
    edge.set_name(name.first);
    edge.set_incarnation(Hexadecimal(name.second));
    for (const auto& [number, sighting] : shards) Fill(sighting, edge);
  }
}

NamedCores FindCores(absl::Span<const ClusterReply> replies, std::string_view name) {
  NamedCores found;
  for (const ClusterReply& reply : replies) {
    if (!IsState(reply)) continue;
    if (reply.state().name() == name) {
      found.incarnations.push_back(reply.core());
    } else if (!reply.state().draining()) {
      found.others = true;
    }
  }
  std::sort(found.incarnations.begin(), found.incarnations.end());
  return found;
}

int CountEdges(absl::Span<const ClusterReply> replies, std::string_view name) {
  std::set<std::pair<std::string_view, uint64_t>> edges;
  for (const ClusterReply& reply : replies) {
    if (!IsState(reply)) continue;
    for (const ShardSeen& shard : reply.state().shards()) {
      if (shard.attached() && (name.empty() || shard.edge() == name)) edges.emplace(shard.edge(), shard.incarnation());
    }
  }
  return static_cast<int>(edges.size());
}

}  // namespace presence::core
