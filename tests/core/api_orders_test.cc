// Orders to connections: each is answered when the edge has said that it is so.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <utility>
#include <vector>

#include "common/connection_id.h"
#include "tests/core/api_client.h"

namespace presence::core {
namespace {

using grpc::StatusCode;
using link::v1::CoreCommand;
using testing::ElementsAre;

class ApiOrdersTest : public ApiTest {
 protected:
  explicit ApiOrdersTest(const Change& change = [](CoreRuntimeOptions&) {}) : ApiTest(change), edge_(core_) {
    edge_.Say({Hello(), ResyncDone(), Opened(1, Connection(0), "alice"), Joined(2, Connection(0), "room"),
               Opened(3, Connection(1), "alice"), Joined(4, Connection(1), "room")});
    edge_.Await(CoreCommand::kBind);
    edge_.Await(CoreCommand::kBind);
  }

  static v1::SetStatusRequest Set(const std::string& user_id, v1::Status status) {
    v1::SetStatusRequest request;
    request.set_user_id(user_id);
    request.set_status(status);
    return request;
  }
  static v1::DisconnectUserRequest Disconnect(const std::string& user_id) {
    v1::DisconnectUserRequest request;
    request.set_user_id(user_id);
    return request;
  }
  static v1::UnsubscribeUserRequest Unsubscribe(const std::string& user_id, const std::string& room_id) {
    v1::UnsubscribeUserRequest request;
    request.set_user_id(user_id);
    request.set_room_id(room_id);
    return request;
  }
  static v1::DisconnectConnectionRequest Close(const std::string& connection_id) {
    v1::DisconnectConnectionRequest request;
    request.set_connection_id(connection_id);
    return request;
  }

  TestEdge edge_;
};

TEST_F(ApiOrdersTest, SetsTheStatusOfAllDevices) {
  v1::SetStatusResponse response;
  auto call = Begin(&Presence::SetStatus, Set("alice", v1::STATUS_AWAY), &response);
  for (uint64_t sequence : {5, 6}) {
    const CoreCommand order = edge_.Await(CoreCommand::kChangeStatus);
    EXPECT_EQ(order.change_status().status(), link::v1::STATUS_AWAY);
    edge_.Say({StatusIs(sequence, order.change_status().connection(), link::v1::STATUS_AWAY)});
  }
  const grpc::Status status = call.get();
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(response.connection_count(), 2);
}

TEST_F(ApiOrdersTest, AStatusIsThatOfAConnection) {
  const grpc::Status status = Try(&Presence::SetStatus, Set("nobody", v1::STATUS_AWAY));
  EXPECT_EQ(status.error_code(), StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(ReasonOf(status), "USER_HAS_NO_CONNECTION");
  EXPECT_EQ(status.error_message().find("nobody"), std::string::npos);

  PeerCore peer(core_, Counting(1));
  EXPECT_TRUE(Try(&Presence::SetStatus, Set("nobody", v1::STATUS_AWAY)).ok()) << "it may be on any core";
}

TEST_F(ApiOrdersTest, DisconnectsAUserEverywhere) {
  PeerCore peer(core_, Counting(3));
  v1::DisconnectUserRequest request = Disconnect("alice");
  request.set_code(4001);
  request.set_reason("bye");
  v1::DisconnectUserResponse response;
  auto call = Begin(&Presence::DisconnectUser, request, &response);
  for (uint64_t sequence : {5, 6}) {
    const CoreCommand order = edge_.Await(CoreCommand::kCloseConnection);
    EXPECT_EQ(order.close_connection().code(), 4001u);
    EXPECT_EQ(order.close_connection().reason(), "bye");
    edge_.Say({Closed(sequence, order.close_connection().connection(), "alice")});
  }
  ASSERT_TRUE(call.get().ok());
  EXPECT_EQ(response.connection_count(), 5);
}

TEST_F(ApiOrdersTest, NobodyToDisconnectIsNoError) {
  v1::DisconnectUserResponse response;
  ASSERT_TRUE(Call(&Presence::DisconnectUser, Disconnect("nobody"), &response).ok());
  EXPECT_EQ(response.connection_count(), 0);
}

TEST_F(ApiOrdersTest, DisconnectsOneConnection) {
  const v1::DisconnectConnectionRequest request = Close(presence::ConnectionName(7, Connection(1)));
  v1::DisconnectConnectionResponse response;
  auto call = Begin(&Presence::DisconnectConnection, request, &response);
  const CoreCommand order = edge_.Await(CoreCommand::kCloseConnection);
  EXPECT_EQ(order.close_connection().connection(), Connection(1));
  EXPECT_EQ(order.close_connection().code(), 1008u) << "unless another is asked for";
  edge_.Say({Closed(5, Connection(1), "alice")});
  ASSERT_TRUE(call.get().ok());
  EXPECT_EQ(Try(&Presence::DisconnectConnection, request).error_code(), StatusCode::NOT_FOUND);
}

TEST_F(ApiOrdersTest, TakesAUserOutOfARoom) {
  v1::UnsubscribeUserResponse response;
  auto call = Begin(&Presence::UnsubscribeUser, Unsubscribe("alice", "room"), &response);
  for (uint64_t sequence : {5, 6}) {
    const CoreCommand order = edge_.Await(CoreCommand::kLeaveRoom);
    EXPECT_EQ(order.leave_room().room_id(), "room");
    edge_.Say({Left(sequence, order.leave_room().connection(), "room")});
  }
  ASSERT_TRUE(call.get().ok());
  EXPECT_EQ(response.connection_count(), 2);
  ASSERT_TRUE(Call(&Presence::UnsubscribeUser, Unsubscribe("alice", "room"), &response).ok());
  EXPECT_EQ(response.connection_count(), 0);
}

TEST_F(ApiOrdersTest, ForgetsRightsToRoomsOnAllCores) {
  PeerCore peer(core_, Counting(3));
  v1::ForgetRoomRightsRequest request;
  v1::ForgetRoomRightsResponse response;
  ASSERT_TRUE(Call(&Presence::ForgetRoomRights, request, &response).ok()) << "everybody's, to all rooms";
  EXPECT_EQ(response.forgotten_count(), 3) << "this core remembers none";
  request.set_user_id(std::string(2049, 'u'));
  request.set_room_id(std::string("a\0b", 3));
  EXPECT_THAT(FieldsAtFault(Try(&Presence::ForgetRoomRights, request)), testing::ElementsAre("user_id", "room_id"));
}

TEST_F(ApiOrdersTest, RefuseWhatIsInvalidAndNameEveryField) {
  v1::DisconnectUserRequest bad_close = Disconnect("");
  bad_close.set_code(1005);
  bad_close.set_reason(std::string(124, 'x'));
  v1::DisconnectConnectionRequest bad_connection = Close("conn-1-2");
  bad_connection.set_code(999);
  const std::vector<std::pair<std::vector<std::string>, grpc::Status>> refusals = {
      {{"user_id", "status"}, Try(&Presence::SetStatus, Set("", v1::STATUS_UNSPECIFIED))},
      {{"status"}, Try(&Presence::SetStatus, Set("alice", v1::STATUS_OFFLINE))},
      {{"user_id", "code", "reason"}, Try(&Presence::DisconnectUser, bad_close)},
      {{"connection_id", "code"}, Try(&Presence::DisconnectConnection, bad_connection)},
      {{"user_id", "room_id"}, Try(&Presence::UnsubscribeUser, Unsubscribe("", ""))},
  };
  for (const auto& [fields, status] : refusals) {
    EXPECT_EQ(status.error_code(), StatusCode::INVALID_ARGUMENT);
    EXPECT_EQ(FieldsAtFault(status), fields);
  }
}

class ApiImpatientOrdersTest : public ApiOrdersTest {
 protected:
  ApiImpatientOrdersTest()
      : ApiOrdersTest([](CoreRuntimeOptions& options) { options.hub.order_max = std::chrono::milliseconds(20); }) {}
};

TEST_F(ApiImpatientOrdersTest, AreUnavailableWhenAnEdgeOrACoreDoesNotSayThatItIsSo) {
  for (const grpc::Status& status :
       {Try(&Presence::SetStatus, Set("alice", v1::STATUS_AWAY)),
        Try(&Presence::DisconnectConnection, Close(presence::ConnectionName(7, Connection(0)))),
        Try(&Presence::UnsubscribeUser, Unsubscribe("alice", "room"))}) {
    EXPECT_EQ(status.error_code(), StatusCode::UNAVAILABLE);
    EXPECT_EQ(RetrySeconds(status), 1);
  }
  PeerCore peer(core_, Silent());
  EXPECT_EQ(Try(&Presence::SetStatus, Set("nobody", v1::STATUS_AWAY)).error_code(), StatusCode::UNAVAILABLE)
      << "nobody can say that the user is not there";
}

}  // namespace
}  // namespace presence::core
