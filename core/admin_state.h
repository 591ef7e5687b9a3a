// What the cores say of themselves, made into one picture of the cluster. Pure functions; any thread.
//
// `replies` are answers to a StateQuery, at most one of each core; one with a code or another body says nothing.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/types/span.h"
#include "presence/admin/v1/admin.pb.h"
#include "presence/link/v1/link.pb.h"

namespace presence::core {

// How many have said something.
int CoresSeen(absl::Span<const link::v1::ClusterReply> replies);

// Cores and edges by name, then incarnation: two processes of one name are two entries. Of a shard that several cores know, the
// one that it is attached to tells; else the one that saw its latest attach.
void FillClusterState(absl::Span<const link::v1::ClusterReply> replies, admin::v1::GetClusterStateResponse& state);

// The incarnations of the cores of that name, ascending, and whether another one, not being drained, could take over.
struct NamedCores {
  std::vector<uint64_t> incarnations;
  bool others = false;
};
NamedCores FindCores(absl::Span<const link::v1::ClusterReply> replies, std::string_view name);

// Edge processes with a shard that is attached; of that name, unless it is empty.
int CountEdges(absl::Span<const link::v1::ClusterReply> replies, std::string_view name = {});

}  // namespace presence::core
