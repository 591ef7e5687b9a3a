// Who is where, over all cores: the one under test with a real link, and a peer.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "common/connection_id.h"
#include "tests/core/api_client.h"

namespace presence::core {
namespace {

using grpc::StatusCode;
using link::v1::ClusterReply;
using link::v1::CoreCommand;
using testing::ElementsAre;

// A core with these rooms and members, and connections of one edge, answering by the rules of link.proto.
struct World {
  std::map<std::string, std::map<std::string, uint32_t>> rooms{};
  std::vector<link::v1::ConnectionState> connections{};  // in order

  ClusterReply Answer(const link::v1::ClusterRequest& request) const {
    ClusterReply reply;
    if (request.has_rooms()) {
      auto& answer = *reply.mutable_rooms();
      for (auto room = rooms.upper_bound(request.rooms().after()); room != rooms.end(); ++room) {
        if (answer.rooms_size() == static_cast<int>(request.rooms().limit())) {
          answer.set_more(true);
          break;
        }
        answer.add_rooms()->set_room_id(room->first);
        answer.mutable_rooms()->rbegin()->set_connections(CountIn(room->second));
      }
    } else if (request.has_members()) {
      auto& answer = *reply.mutable_members();
      const auto room = rooms.find(request.members().room_id());
      if (room == rooms.end()) return reply;
      answer.set_connections(CountIn(room->second));
      for (auto member = room->second.upper_bound(request.members().after()); member != room->second.end(); ++member) {
        if (answer.members_size() == static_cast<int>(request.members().limit())) {
          answer.set_more(true);
          break;
        }
        auto& entry = *answer.add_members();
        entry.set_user_id(member->first);
        entry.set_username("name of " + member->first);
        entry.set_connections(member->second);
      }
    } else if (request.has_connections()) {
      auto& answer = *reply.mutable_connections();
      const auto place = [](const link::v1::ConnectionName& name) {
        return std::pair(name.incarnation(), name.connection());
      };
      for (const auto& connection : connections) {
        if (place(connection.name()) <= place(request.connections().after())) continue;
        if (request.connections().has_user_id() && connection.user_id() != request.connections().user_id()) continue;
        if (request.connections().has_edge() && connection.edge() != request.connections().edge()) continue;
        if (answer.connections_size() == static_cast<int>(request.connections().limit())) {
          answer.set_more(true);
          break;
        }
        *answer.add_connections() = connection;
      }
    }
    return reply;
  }

  static uint32_t CountIn(const std::map<std::string, uint32_t>& members) {
    uint32_t sum = 0;
    for (const auto& [user, count] : members) sum += count;
    return sum;
  }
};

PeerCore::Answer Knowing(World world) {
  return [world = std::move(world)](const link::v1::BusEnvelope& envelope) {
    return std::optional(world.Answer(envelope.request()));
  };
}

class ApiRoomsTest : public ApiTest {
 protected:
  // Alice with two devices and Bob with one: all in "b", Alice's first in "a", too.
  ApiRoomsTest() : edge_(core_) {
    edge_.Say({Hello(), ResyncDone(), Opened(1, Connection(0), "alice"), Joined(2, Connection(0), "b"),
               Joined(3, Connection(0), "a"), Opened(4, Connection(1), "alice"), Joined(5, Connection(1), "b"),
               Opened(6, Connection(2), "bob"), Joined(7, Connection(2), "b")});
    for (int i = 0; i < 4; ++i) edge_.Await(CoreCommand::kBind);
  }

  TestEdge edge_;
};

std::vector<std::pair<std::string, int>> Counts(const v1::ListRoomsResponse& page) {
  std::vector<std::pair<std::string, int>> rooms;
  for (const v1::Room& room : page.rooms()) rooms.emplace_back(room.room_id(), room.connection_count());
  return rooms;
}

std::vector<std::pair<std::string, int>> Counts(const v1::GetRoomResponse& page) {
  std::vector<std::pair<std::string, int>> members;
  for (const v1::RoomMember& member : page.members()) members.emplace_back(member.user_id(), member.connection_count());
  return members;
}

TEST_F(ApiRoomsTest, ListsTheRoomsOfAllCoresInPages) {
  PeerCore peer(core_, Knowing({.rooms = {{"aa", {{"carol", 1}}}, {"b", {{"carol", 2}}}, {"c", {{"bob", 1}}}}}));
  std::vector<std::vector<std::pair<std::string, int>>> pages;
  v1::ListRoomsRequest request;
  request.set_page_size(2);
  v1::ListRoomsResponse page;
  do {
    request.set_page_token(page.next_page_token());
    const grpc::Status status = Call(&Presence::ListRooms, request, &page);
    ASSERT_TRUE(status.ok()) << status.error_message();
    pages.push_back(Counts(page));
  } while (!page.next_page_token().empty());
  EXPECT_THAT(pages, ElementsAre(ElementsAre(std::pair("a", 1), std::pair("aa", 1)),
                                 ElementsAre(std::pair("b", 5), std::pair("c", 1))));
}

TEST_F(ApiRoomsTest, TellsOfARoomWithItsMembersOnAllCores) {
  PeerCore peer(core_, Knowing({.rooms = {{"b", {{"alice", 1}, {"carol", 2}}}}}));
  v1::GetRoomRequest request;
  request.set_room_id("b");
  request.set_page_size(2);
  v1::GetRoomResponse page;
  ASSERT_TRUE(Call(&Presence::GetRoom, request, &page).ok());
  EXPECT_EQ(page.room().room_id(), "b");
  EXPECT_EQ(page.room().connection_count(), 6);
  EXPECT_THAT(Counts(page), ElementsAre(std::pair("alice", 3), std::pair("bob", 1)));
  EXPECT_EQ(page.members(0).username(), "name of alice");

  request.set_page_token(page.next_page_token());
  ASSERT_TRUE(Call(&Presence::GetRoom, request, &page).ok());
  EXPECT_EQ(page.room().connection_count(), 6) << "the whole room, whatever the page";
  EXPECT_THAT(Counts(page), ElementsAre(std::pair("carol", 2)));
  EXPECT_EQ(page.next_page_token(), "");
}

TEST_F(ApiRoomsTest, ARoomWithoutASubscriberDoesNotExist) {
  PeerCore peer(core_, Knowing({}));
  v1::GetRoomRequest request;
  request.set_room_id("secret-room");
  const grpc::Status status = Try(&Presence::GetRoom, request);
  EXPECT_EQ(status.error_code(), StatusCode::NOT_FOUND);
  EXPECT_EQ(status.error_message().find("secret-room"), std::string::npos);
}

TEST_F(ApiRoomsTest, ListsTheConnectionsOfAUser) {
  link::v1::ConnectionState far;
  far.mutable_name()->set_incarnation(5);
  far.mutable_name()->set_connection(1);
  far.set_user_id("alice");
  far.set_edge("far-edge");
  far.set_core("far-core");
  far.set_status(link::v1::STATUS_AWAY);
  far.set_shard(3);
  far.set_room_count(2);
  far.add_room_ids("x");
  far.set_silent_ms(1500);
  PeerCore peer(core_, Knowing({.rooms = {}, .connections = {far}}));
  v1::ListConnectionsRequest request;
  request.set_user_id("alice");
  request.set_page_size(2);
  v1::ListConnectionsResponse page;
  ASSERT_TRUE(Call(&Presence::ListConnections, request, &page).ok());
  ASSERT_EQ(page.connections_size(), 2);
  const v1::Connection& first = page.connections(0);
  EXPECT_EQ(first.connection_id(), presence::ConnectionName(5, 1));
  EXPECT_EQ(first.edge(), "far-edge");
  EXPECT_EQ(first.core(), "far-core");
  EXPECT_EQ(first.status(), v1::STATUS_AWAY);
  EXPECT_EQ(first.shard(), 3);
  EXPECT_EQ(first.room_count(), 2);
  EXPECT_THAT(first.room_ids(), ElementsAre("x"));
  EXPECT_EQ(first.silent_for().seconds(), 1);
  EXPECT_EQ(first.silent_for().nanos(), 500'000'000);
  const v1::Connection& second = page.connections(1);
  EXPECT_EQ(second.connection_id(), presence::ConnectionName(7, Connection(0)));
  EXPECT_EQ(second.username(), "name of alice");
  EXPECT_EQ(second.status(), v1::STATUS_ONLINE);
  EXPECT_EQ(second.edge(), "test-edge");
  EXPECT_EQ(second.core(), "core-under-test");
  EXPECT_EQ(second.room_count(), 2);

  request.set_page_token(page.next_page_token());
  ASSERT_TRUE(Call(&Presence::ListConnections, request, &page).ok());
  ASSERT_EQ(page.connections_size(), 1);
  EXPECT_EQ(page.connections(0).connection_id(), presence::ConnectionName(7, Connection(1)));
  EXPECT_EQ(page.next_page_token(), "");
}

TEST_F(ApiRoomsTest, ListsTheConnectionsOfAnEdge) {
  v1::ListConnectionsRequest request;
  request.set_edge("test-edge");
  v1::ListConnectionsResponse page;
  ASSERT_TRUE(Call(&Presence::ListConnections, request, &page).ok());
  EXPECT_EQ(page.connections_size(), 3);
  request.set_edge("another");
  ASSERT_TRUE(Call(&Presence::ListConnections, request, &page).ok());
  EXPECT_EQ(page.connections_size(), 0) << "an edge without connections and no edge are the same here";
}

TEST_F(ApiRoomsTest, APageEndsWhereTheAnswerWouldBeTooLarge) {
  std::vector<link::v1::ConnectionState> many;
  for (uint64_t i = 1; i <= 1000; ++i) {
    auto& connection = many.emplace_back();
    connection.mutable_name()->set_incarnation(9);
    connection.mutable_name()->set_connection(i);
    connection.set_user_id("zoe");
    connection.add_room_ids(std::string(5000, 'r'));
  }
  PeerCore peer(core_, Knowing({.rooms = {}, .connections = many}));
  v1::ListConnectionsRequest request;
  request.set_user_id("zoe");
  request.set_page_size(1000);
  v1::ListConnectionsResponse page;
  std::vector<std::string> ids;
  int pages = 0;
  do {
    request.set_page_token(page.next_page_token());
    const grpc::Status status = Call(&Presence::ListConnections, request, &page);
    ASSERT_TRUE(status.ok()) << status.error_message();
    EXPECT_LT(page.ByteSizeLong(), size_t{4} << 20);
    for (const v1::Connection& connection : page.connections()) ids.push_back(connection.connection_id());
    ++pages;
  } while (!page.next_page_token().empty());
  EXPECT_GT(pages, 1);
  EXPECT_EQ(ids.size(), 1000u);
  EXPECT_TRUE(std::is_sorted(ids.begin(), ids.end()));
}

TEST_F(ApiRoomsTest, TokensOfOtherListsAreRefused) {
  v1::ListRoomsRequest rooms;
  rooms.set_page_size(1);
  v1::ListRoomsResponse rooms_page;
  ASSERT_TRUE(Call(&Presence::ListRooms, rooms, &rooms_page).ok());
  v1::GetRoomRequest room;
  room.set_room_id("b");
  room.set_page_size(1);
  v1::GetRoomResponse room_page;
  ASSERT_TRUE(Call(&Presence::GetRoom, room, &room_page).ok());
  v1::ListConnectionsRequest connections;
  connections.set_user_id("alice");
  connections.set_page_size(1);
  v1::ListConnectionsResponse connections_page;
  ASSERT_TRUE(Call(&Presence::ListConnections, connections, &connections_page).ok());
  for (const std::string& token :
       {rooms_page.next_page_token(), room_page.next_page_token(), connections_page.next_page_token()}) {
    ASSERT_NE(token, "");
  }

  rooms.set_page_token(room_page.next_page_token());
  EXPECT_THAT(FieldsAtFault(Try(&Presence::ListRooms, rooms)), ElementsAre("page_token"));
  room.set_page_token(rooms_page.next_page_token());
  EXPECT_THAT(FieldsAtFault(Try(&Presence::GetRoom, room)), ElementsAre("page_token"));
  room.set_page_token(room_page.next_page_token());
  room.set_room_id("a");
  EXPECT_THAT(FieldsAtFault(Try(&Presence::GetRoom, room)), ElementsAre("page_token")) << "of another room";
  connections.set_page_token(connections_page.next_page_token());
  connections.set_edge("alice");
  EXPECT_THAT(FieldsAtFault(Try(&Presence::ListConnections, connections)), ElementsAre("page_token")) << "of a user";
}

TEST_F(ApiRoomsTest, RefuseWhatIsInvalidAndNameEveryField) {
  v1::ListRoomsRequest rooms;
  rooms.set_page_size(1'001);
  rooms.set_page_token("x");
  EXPECT_THAT(FieldsAtFault(Try(&Presence::ListRooms, rooms)), ElementsAre("page_size", "page_token"));
  v1::GetRoomRequest room;
  room.set_page_size(-1);
  EXPECT_THAT(FieldsAtFault(Try(&Presence::GetRoom, room)), ElementsAre("room_id", "page_size"));
  v1::ListConnectionsRequest connections;
  EXPECT_THAT(FieldsAtFault(Try(&Presence::ListConnections, connections)), ElementsAre("owner"));
  connections.set_user_id("");
  EXPECT_THAT(FieldsAtFault(Try(&Presence::ListConnections, connections)), ElementsAre("user_id"));
  connections.set_edge(std::string(256, 'e'));
  EXPECT_THAT(FieldsAtFault(Try(&Presence::ListConnections, connections)), ElementsAre("edge"));
}

TEST_F(ApiRoomsTest, AreUnavailableWhenNotAllCoresAnswer) {
  v1::ListRoomsRequest rooms;
  v1::GetRoomRequest room;
  room.set_room_id("b");
  v1::ListConnectionsRequest connections;
  connections.set_user_id("alice");
  const auto expect_unavailable = [&] {
    for (const grpc::Status& status : {Try(&Presence::ListRooms, rooms), Try(&Presence::GetRoom, room),
                                       Try(&Presence::ListConnections, connections)}) {
      EXPECT_EQ(status.error_code(), StatusCode::UNAVAILABLE);
      EXPECT_EQ(RetrySeconds(status), 1);
    }
  };
  {
    PeerCore peer(core_, Silent());
    expect_unavailable();
  }
  core_.SetReachable(false);
  expect_unavailable();
}

TEST_F(ApiRoomsTest, ACoreThatCannotAnswerSaysWhy) {
  PeerCore peer(core_, [](const link::v1::BusEnvelope&) {
    ClusterReply reply;
    reply.set_code(static_cast<uint32_t>(absl::StatusCode::kUnimplemented));
    reply.set_error("a core of an older release does not know this request");
    return std::optional(reply);
  });
  const grpc::Status status = Try(&Presence::ListRooms, v1::ListRoomsRequest());
  EXPECT_EQ(status.error_code(), StatusCode::UNIMPLEMENTED);
  EXPECT_EQ(status.error_message(), "a core of an older release does not know this request");
}

}  // namespace
}  // namespace presence::core
