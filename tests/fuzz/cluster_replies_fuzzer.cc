// Answers of other cores, made one page: bounds and order hold whatever the others say, and in whatever order they say it.
#include <algorithm>
#include <string>
#include <vector>

#include "core/cluster_queries.h"
#include "presence/link/v1/link.pb.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/fuzz/message_mutator.h"

namespace presence::fuzz {
namespace {

using Replies = std::vector<link::v1::ClusterReply>;

void CheckRooms(const Replies& replies, uint32_t limit) {
  const core::RoomsPage page = core::MergeRooms(replies, limit);
  PRESENCE_CHECK(page.rooms.size() <= std::max(limit, 1u), "a page has its bound");
  for (size_t i = 1; i < page.rooms.size(); ++i) {
    PRESENCE_CHECK(page.rooms[i - 1].room_id() < page.rooms[i].room_id(), "rooms come once, in order");
  }
}

void CheckMembers(const Replies& replies, uint32_t limit) {
  const core::MembersPage page = core::MergeMembers(replies, limit);
  PRESENCE_CHECK(page.members.size() <= std::max(limit, 1u), "a page has its bound");
  for (size_t i = 1; i < page.members.size(); ++i) {
    PRESENCE_CHECK(page.members[i - 1].user_id() < page.members[i].user_id(), "members come once, in order");
  }
}

void CheckConnections(const Replies& replies, uint32_t limit) {
  const core::ConnectionsPage page = core::MergeConnections(replies, limit);
  PRESENCE_CHECK(page.connections.size() <= std::max(limit, 1u), "a page has its bound");
  const auto key = [](const link::v1::ConnectionState& state) {
    return std::pair<uint64_t, uint64_t>(state.name().incarnation(), state.name().connection());
  };
  for (size_t i = 1; i < page.connections.size(); ++i) {
    PRESENCE_CHECK(key(page.connections[i - 1]) < key(page.connections[i]), "connections come once, in order");
  }
}

// What a core promises of its own answer; the merge may rely on it: entries in order, each once.
bool IsInOrder(const link::v1::ClusterReply& reply) {
  const auto& rooms = reply.rooms().rooms();
  const auto& members = reply.members().members();
  const auto& connections = reply.connections().connections();
  const auto key = [](const link::v1::ConnectionState& state) {
    return std::pair<uint64_t, uint64_t>(state.name().incarnation(), state.name().connection());
  };
  return std::adjacent_find(rooms.begin(), rooms.end(),
                            [](const auto& a, const auto& b) { return a.room_id() >= b.room_id(); }) == rooms.end() &&
         std::adjacent_find(members.begin(), members.end(),
                            [](const auto& a, const auto& b) { return a.user_id() >= b.user_id(); }) == members.end() &&
         std::adjacent_find(connections.begin(), connections.end(),
                            [&](const auto& a, const auto& b) { return key(a) >= key(b); }) == connections.end();
}

void Run(const link::v1::ClusterReplies& sent) {
  link::v1::ClusterReplies received;
  if (!Transmit(sent, &received)) return;
  Replies replies(received.replies().begin(), received.replies().end());
  for (const uint32_t limit : {0u, 1u, 2u, 100u}) {
    // Answers that break their promise must do no harm, and that is all.
    core::MergeRooms(replies, limit);
    core::MergeMembers(replies, limit);
    core::MergeConnections(replies, limit);
  }
  replies.erase(std::remove_if(replies.begin(), replies.end(), [](const auto& r) { return !IsInOrder(r); }),
                replies.end());
  for (const uint32_t limit : {0u, 1u, 2u, 100u}) {
    CheckRooms(replies, limit);
    CheckMembers(replies, limit);
    CheckConnections(replies, limit);
  }
}

}  // namespace
}  // namespace presence::fuzz

PRESENCE_MESSAGE_FUZZER(presence::link::v1::ClusterReplies, presence::fuzz::Run)
