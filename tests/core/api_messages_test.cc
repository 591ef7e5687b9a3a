// Messages and typing, from a backend service's call to what an edge is told.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "absl/synchronization/notification.h"
#include "tests/core/api_client.h"

namespace presence::core {
namespace {

using grpc::StatusCode;
using link::v1::CoreCommand;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::UnorderedElementsAre;

class ApiMessagesTest : public ApiTest {
 protected:
  static v1::BroadcastRequest ToRoom(const std::string& room_id, const std::string& data_json = "{}") {
    v1::BroadcastRequest request;
    request.set_room_id(room_id);
    request.set_data_json(data_json);
    return request;
  }
  static v1::SendToUserRequest ToUser(const std::string& user_id, const std::string& data_json = "{}") {
    v1::SendToUserRequest request;
    request.set_user_id(user_id);
    request.set_data_json(data_json);
    return request;
  }
  grpc::Status Broadcast(const v1::BroadcastRequest& request, v1::BroadcastResponse* response) {
    return Call(&Presence::Broadcast, request, response);
  }
  grpc::Status Broadcast(const v1::BroadcastRequest& request) { return Try(&Presence::Broadcast, request); }
};

// Alice and Bob, one connection each, both in the room.
void TwoInTheRoom(TestEdge& edge) {
  edge.Say({Hello(), ResyncDone(), Opened(1, Connection(0), "alice"), Joined(2, Connection(0), "room"),
            Opened(3, Connection(1), "bob"), Joined(4, Connection(1), "room")});
  edge.Await(CoreCommand::kBind);
  edge.Await(CoreCommand::kBind);
}

TEST_F(ApiMessagesTest, BroadcastsAStructAsJson) {
  TestEdge edge(core_);
  const uint32_t handle = edge.AttachWithRoom(0, "room");
  v1::BroadcastRequest request;
  request.set_room_id("room");
  (*request.mutable_data()->mutable_fields())["content"].set_string_value("héllo \"you\"");
  const grpc::Status status = Broadcast(request);
  ASSERT_TRUE(status.ok()) << status.error_message();
  const CoreCommand deliver = edge.Await(CoreCommand::kDeliver);
  EXPECT_EQ(deliver.deliver().handle(), handle);
  EXPECT_EQ(deliver.deliver().text(), R"({"type":"message","data":{"content":"héllo \"you\""}})");
}

TEST_F(ApiMessagesTest, BroadcastsJsonTextByteForByte) {
  TestEdge edge(core_);
  edge.AttachWithRoom(0, "room");
  const std::string text = "{ \"b\" : 1.0e2,\n \"a\": \"\\u00e9\" , \"b\": 2 }";
  ASSERT_TRUE(Broadcast(ToRoom("room", text)).ok());
  EXPECT_EQ(edge.Await(CoreCommand::kDeliver).deliver().text(), R"({"type":"message","data":)" + text + "}");
}

TEST_F(ApiMessagesTest, BroadcastsOneMebibyteAndNoMore) {
  TestEdge edge(core_);
  edge.AttachWithRoom(0, "room");
  const std::string text = R"({"x":")" + std::string(1024 * 1024 - 8, 'x') + "\"}";
  const grpc::Status status = Broadcast(ToRoom("room", text));
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_THAT(edge.Await(CoreCommand::kDeliver).deliver().text(), HasSubstr(text));

  const grpc::Status larger = Broadcast(ToRoom("room", R"({"x":")" + std::string(1024 * 1024, 'x') + "\"}"));
  EXPECT_EQ(larger.error_code(), StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(FieldsAtFault(larger), ElementsAre("data_json"));
  EXPECT_EQ(ReasonOf(larger), "PAYLOAD_TOO_LARGE");
  EXPECT_EQ(RetrySeconds(larger), 0) << "it will not be smaller then";
}

TEST_F(ApiMessagesTest, CountsWhomItReachesAndSparesWhoIsExcluded) {
  TestEdge edge(core_);
  TwoInTheRoom(edge);
  v1::BroadcastRequest request = ToRoom("room");
  v1::BroadcastResponse response;
  ASSERT_TRUE(Broadcast(request, &response).ok());
  EXPECT_EQ(response.reached_connections(), 2);
  EXPECT_EQ(edge.Await(CoreCommand::kDeliver).deliver().excluded_connections_size(), 0);

  request.add_excluded_user_ids("alice");
  ASSERT_TRUE(Broadcast(request, &response).ok());
  EXPECT_EQ(response.reached_connections(), 1);
  EXPECT_FALSE(response.count_incomplete());
  EXPECT_THAT(edge.Await(CoreCommand::kDeliver).deliver().excluded_connections(), ElementsAre(Connection(0)));

  ASSERT_TRUE(Broadcast(ToRoom("empty"), &response).ok());
  EXPECT_EQ(response.reached_connections(), 0);
}

TEST_F(ApiMessagesTest, AddsUpWhatAllCoresReach) {
  PeerCore peer(core_, Counting(40));
  TestEdge edge(core_);
  TwoInTheRoom(edge);
  v1::BroadcastResponse response;
  ASSERT_TRUE(Broadcast(ToRoom("room"), &response).ok());
  EXPECT_EQ(response.reached_connections(), 42);
  v1::SendToUserResponse sent;
  ASSERT_TRUE(Call(&Presence::SendToUser, ToUser("alice"), &sent).ok());
  EXPECT_EQ(sent.reached_connections(), 41);
}

TEST_F(ApiMessagesTest, SaysSoWhenACoreDidNotCount) {
  PeerCore peer(core_, Silent());
  TestEdge edge(core_);
  TwoInTheRoom(edge);
  v1::BroadcastResponse response;
  ASSERT_TRUE(Broadcast(ToRoom("room"), &response).ok());
  EXPECT_EQ(response.reached_connections(), 2);
  EXPECT_TRUE(response.count_incomplete());
}

TEST_F(ApiMessagesTest, ARepeatedRequestSendsNothingAndIsAnsweredTheSame) {
  TestEdge edge(core_);
  TwoInTheRoom(edge);
  v1::BroadcastRequest request = ToRoom("room", R"({"n":1})");
  request.set_request_id("once");
  request.add_excluded_user_ids("alice");
  request.add_excluded_user_ids("nobody");
  v1::BroadcastResponse first, second;
  ASSERT_TRUE(Broadcast(request, &first).ok());
  EXPECT_FALSE(first.repeated_request());
  EXPECT_EQ(first.reached_connections(), 1);

  request.mutable_excluded_user_ids()->SwapElements(0, 1);  // the same set
  ASSERT_TRUE(Broadcast(request, &second).ok());
  EXPECT_TRUE(second.repeated_request());
  EXPECT_EQ(second.reached_connections(), 1);

  ASSERT_TRUE(Broadcast(ToRoom("room", R"({"n":2})")).ok());
  EXPECT_THAT(edge.Await(CoreCommand::kDeliver).deliver().text(), HasSubstr(R"({"n":1})"));
  EXPECT_THAT(edge.Await(CoreCommand::kDeliver).deliver().text(), HasSubstr(R"({"n":2})"));
}

TEST_F(ApiMessagesTest, AStructIsTheSameInWhateverOrderItComes) {
  v1::BroadcastRequest request;
  request.set_room_id("room");
  request.set_request_id("once");
  for (int i = 0; i < 50; ++i) {
    (*request.mutable_data()->mutable_fields())["member" + std::to_string(i)].set_number_value(i);
  }
  v1::BroadcastResponse response;
  ASSERT_TRUE(Broadcast(request, &response).ok());
  for (int i = 0; i < 10; ++i) {
    v1::BroadcastRequest again = request;
    again.clear_data();
    for (int j = 50; j-- > 0;) {
      (*again.mutable_data()->mutable_fields())["member" + std::to_string((j + i) % 50)].set_number_value((j + i) % 50);
    }
    const grpc::Status status = Broadcast(again, &response);
    ASSERT_TRUE(status.ok()) << status.error_message();
    EXPECT_TRUE(response.repeated_request());
  }
}

TEST_F(ApiMessagesTest, ARequestIdIsForOneMessage) {
  v1::BroadcastRequest request = ToRoom("room");
  request.set_request_id("once");
  ASSERT_TRUE(Broadcast(request).ok());
  v1::BroadcastRequest other_room = request, other_payload = request, other_exclusions = request;
  other_room.set_room_id("other");
  other_payload.set_data_json("{ }");
  other_exclusions.add_excluded_user_ids("alice");
  v1::SendToUserRequest other_method = ToUser("room");
  other_method.set_request_id("once");
  for (const grpc::Status& status : {Broadcast(other_room), Broadcast(other_payload), Broadcast(other_exclusions),
                                     Try(&Presence::SendToUser, other_method)}) {
    EXPECT_EQ(status.error_code(), StatusCode::ALREADY_EXISTS);
    EXPECT_EQ(ReasonOf(status), "REQUEST_ID_REUSED");
  }
}

TEST_F(ApiMessagesTest, SendsToAllDevicesOfAUser) {
  TestEdge edge(core_);
  edge.Say({Hello(), ResyncDone(), Opened(1, Connection(0), "alice"), Opened(2, Connection(1), "alice"),
            Opened(3, Connection(2), "bob"), Joined(4, Connection(2), "room")});
  edge.Await(CoreCommand::kBind);
  v1::SendToUserResponse response;
  ASSERT_TRUE(Call(&Presence::SendToUser, ToUser("alice", R"({"n":1})"), &response).ok());
  EXPECT_EQ(response.reached_connections(), 2);
  const CoreCommand deliver = edge.Await(CoreCommand::kDeliverTo);
  EXPECT_THAT(deliver.deliver_to().connections(), UnorderedElementsAre(Connection(0), Connection(1)));
  EXPECT_EQ(deliver.deliver_to().text(), R"({"type":"message","data":{"n":1}})");
  ASSERT_TRUE(Call(&Presence::SendToUser, ToUser("nobody"), &response).ok());
  EXPECT_EQ(response.reached_connections(), 0);
}

TEST_F(ApiMessagesTest, RefusesWhatIsInvalidAndNamesEveryField) {
  const std::string nul("a\0b", 3), too_long(2049, 'x');
  v1::BroadcastRequest no_payload, no_number, all_wrong = ToRoom("", "[1]"), too_many = ToRoom("room");
  no_payload.set_room_id("room");
  no_number = no_payload;
  (*no_number.mutable_data()->mutable_fields())["n"].set_number_value(std::numeric_limits<double>::quiet_NaN());
  all_wrong.set_request_id(std::string(129, 'x'));
  all_wrong.add_excluded_user_ids("fine");
  all_wrong.add_excluded_user_ids(nul);
  for (int i = 0; i < 101; ++i) too_many.add_excluded_user_ids("u");
  v1::SendToUserRequest nobody;
  v1::SetTypingRequest typing;
  typing.set_username(too_long);
  typing.set_room_kind(static_cast<v1::RoomKind>(3));

  const std::vector<std::pair<std::vector<std::string>, grpc::Status>> refusals = {
      {{"room_id"}, Broadcast(ToRoom(nul))},
      {{"room_id"}, Broadcast(ToRoom(too_long))},
      {{"payload"}, Broadcast(no_payload)},
      {{"data"}, Broadcast(no_number)},
      {{"data_json"}, Broadcast(ToRoom("room", ""))},
      {{"data_json"}, Broadcast(ToRoom("room", "{\"a\":"))},
      {{"excluded_user_ids"}, Broadcast(too_many)},
      {{"room_id", "data_json", "request_id", "excluded_user_ids[1]"}, Broadcast(all_wrong)},
      {{"user_id", "payload"}, Try(&Presence::SendToUser, nobody)},
      {{"room_id", "user_id", "username", "room_kind"}, Try(&Presence::SetTyping, typing)},
  };
  for (const auto& [fields, status] : refusals) {
    EXPECT_EQ(status.error_code(), StatusCode::INVALID_ARGUMENT) << fields.front();
    EXPECT_EQ(FieldsAtFault(status), fields);
    EXPECT_LT(status.error_message().size(), 200u) << "echoes the input";
  }
}

TEST_F(ApiMessagesTest, AreUnavailableWithoutAStore) {
  core_.SetReachable(false);
  v1::SetTypingRequest typing;
  typing.set_room_id("room");
  typing.set_user_id("alice");
  v1::BroadcastRequest once = ToRoom("room");
  once.set_request_id("0001");
  for (const grpc::Status& status : {Broadcast(once), Try(&Presence::SetTyping, typing)}) {
    EXPECT_EQ(status.error_code(), StatusCode::UNAVAILABLE);
    EXPECT_EQ(RetrySeconds(status), 1);
  }
  // This core's own clients have it: who tries again sends it twice, and must not be told to.
  for (const grpc::Status& status : {Broadcast(ToRoom("room")), Try(&Presence::SendToUser, ToUser("alice"))}) {
    EXPECT_EQ(status.error_code(), StatusCode::UNAVAILABLE);
    EXPECT_EQ(ReasonOf(status), "MAY_HAVE_BEEN_DELIVERED");
    EXPECT_EQ(RetrySeconds(status), 0);
  }
  core_.SetReachable(true);
  EXPECT_TRUE(Broadcast(ToRoom("room")).ok());
}

TEST_F(ApiMessagesTest, ShowsSomebodyAsTyping) {
  TestEdge edge(core_);
  edge.AttachWithRoom(0, "room");
  v1::SetTypingRequest request;
  request.set_room_id("room");
  request.set_user_id("alice");
  ASSERT_TRUE(Try(&Presence::SetTyping, request).ok());
  const CoreCommand first = edge.Await(CoreCommand::kDeliver);
  EXPECT_TRUE(first.deliver().volatile_());
  EXPECT_THAT(first.deliver().text(), HasSubstr(R"("channel_id":"room")"));
  EXPECT_THAT(first.deliver().text(), HasSubstr(R"("username":"alice")")) << "for want of a better one";

  request.set_username("Alice L.");
  request.set_room_kind(v1::ROOM_KIND_DM);
  ASSERT_TRUE(Try(&Presence::SetTyping, request).ok());
  const CoreCommand second = edge.Await(CoreCommand::kDeliver);
  EXPECT_THAT(second.deliver().text(), HasSubstr(R"("dm_id":"room")"));
  EXPECT_THAT(second.deliver().text(), HasSubstr(R"("username":"Alice L.")"));
}

TEST_F(ApiMessagesTest, WhatNobodyWaitsForIsNotSent) {
  TestEdge edge(core_);
  edge.AttachWithRoom(0, "room");
  OutgoingMessage late{.room_id = "room",
                       .user_id = {},
                       .data_json = R"({"n":1})",
                       .excluded_user_ids = {},
                       .request_id = {},
                       .fingerprint = {},
                       .given_up = [] { return true; }};
  absl::Status ended;
  absl::Notification done;
  core_.runtime->Send(std::move(late), [&](const absl::Status& status, const MessageAnswer&) {
    ended = status;
    done.Notify();
  });
  ASSERT_TRUE(done.WaitForNotificationWithTimeout(absl::FromChrono(kPatience)));
  EXPECT_TRUE(absl::IsCancelled(ended));
  ASSERT_TRUE(Broadcast(ToRoom("room", R"({"n":2})")).ok());
  EXPECT_THAT(edge.Await(CoreCommand::kDeliver).deliver().text(), HasSubstr(R"({"n":2})"));
}

}  // namespace
}  // namespace presence::core
