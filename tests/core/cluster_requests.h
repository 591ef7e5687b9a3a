// What tests ask all cores, and order.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "presence/link/v1/link.pb.h"

namespace presence::core {

inline link::v1::ClusterRequest Rooms() {
  link::v1::ClusterRequest request;
  request.mutable_rooms()->set_limit(10);
  return request;
}
inline link::v1::ClusterRequest Disconnect(std::string_view user) {
  link::v1::ClusterRequest request;
  request.mutable_disconnect()->set_user_id(std::string(user));
  request.mutable_disconnect()->set_code(1008);
  request.mutable_disconnect()->set_reason("bye");
  return request;
}
inline link::v1::ClusterRequest SetStatus(std::string_view user, link::v1::Status status) {
  link::v1::ClusterRequest request;
  request.mutable_status()->set_user_id(std::string(user));
  request.mutable_status()->set_status(status);
  return request;
}
inline link::v1::ClusterRequest EndSessions(std::string_view user, std::string_view session, int64_t at_s) {
  link::v1::ClusterRequest request;
  request.mutable_end_sessions()->set_user_id(std::string(user));
  request.mutable_end_sessions()->set_session_id(std::string(session));
  request.mutable_end_sessions()->set_logged_out_at_ms(at_s * 1000);
  return request;
}

// Of a connection that is opened or declared, or whose token is renewed.
inline link::v1::EdgeEvent WithToken(link::v1::EdgeEvent event, std::string_view session, int64_t issued_at_s) {
  link::v1::TokenOrigin& token = event.has_connection_opened() ? *event.mutable_connection_opened()->mutable_token()
                                 : event.has_connection_declared()
                                     ? *event.mutable_connection_declared()->mutable_token()
                                     : *event.mutable_token_renewed()->mutable_token();
  token.set_session_id(std::string(session));
  token.set_issued_at_ms(issued_at_s * 1000);
  return event;
}

}  // namespace presence::core
