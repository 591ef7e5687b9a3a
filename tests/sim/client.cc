#include "tests/sim/client.h"

#include <utility>

#include "tests/sim/world.h"

namespace presence::sim {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using Asks = Session::Said::Asks;
using Kind = Session::Said::Kind;

constexpr std::string_view kPing = R"({"type":"ping"})";
constexpr std::string_view kNonsense = R"({"type":"nonsense"})";
constexpr uint16_t kLoggedOut = 4401;

std::string RoomRequest(std::string_view type, const std::string& room) {
  const std::string_view field = World::IsDm(room) ? "dm_id" : "channel_id";
  return std::string(R"({"type":")")
      .append(type)
      .append("\",\"")
      .append(field)
      .append("\":\"")
      .append(room)
      .append("\"}");
}

}  // namespace

void Client::PlanNext() {
  // Often enough that nobody who is there is ever silent for two heartbeat intervals.
  world_.scheduler().After(world_.random().Between(milliseconds(20), seconds(2)), [this] {
    Act();
    PlanNext();
  });
}

void Client::Act() {
  if (world_.leaving()) {
    wants_online_ = false;
    if (online()) world_.random().OneIn(3) ? Vanish() : Close();
    return;
  }
  if (!online()) {
    // Who is told to be logged out logs in again; some try the old token a few times first.
    if (session_ != nullptr && session_->close_code == kLoggedOut && (world_.calm() || world_.random().OneIn(2)))
      LogIn();
    if (session_ != nullptr && session_->reconnect_after) ComeBackAfter(*session_->reconnect_after);
    session_ = nullptr;
    if (world_.now() < back_at_) return;
    if (!wants_online_ && world_.now() >= offline_until_) wants_online_ = true;
    if (wants_online_) Connect();
    return;
  }
  if (!world_.calm()) ActAtRandom();
  if (online() && world_.now() - said_at_ >= seconds(2)) Ping();
}

// Most do as they are told, from when they look at it; some come back at once.
void Client::ComeBackAfter(SimTime after) {
  if (!world_.random().OneIn(4)) back_at_ = world_.now() + after;
}

void Client::ActAtRandom() {
  const size_t dice = world_.random().Below(100);
  if (dice < 30) {
    Subscribe(world_.AnyRoom());
  } else if (dice < 45) {
    Unsubscribe(world_.AnyRoom());
  } else if (dice < 55) {
    Type(world_.AnyRoom());
  } else if (dice < 65) {
    SetAway(!away());
  } else if (dice < 68) {
    ++session_->errors_expected;
    Say(std::string(kNonsense));
  } else if (dice < 72) {
    Close();
    wants_online_ = false;
    offline_until_ = world_.now() + world_.random().Between(milliseconds(10), seconds(15));
  } else if (dice < 74) {
    Vanish();
  } else if (dice < 80) {
    Ping();
  } else if (dice < 83 && !session_->auth_unanswered && !world_.callers().IsLoggedOut(*session_)) {
    Renew();
  } else if (dice < 85 && world_.floods()) {
    Flood();
  }
}

void Client::LogIn() {
  const int64_t now_s = ToUnixMillis(world_.Clocks().wall) / 1000;
  // Some have their devices in one session.
  const std::string session = world_.random().OneIn(3) ? "s" : "s" + std::to_string(world_.random().Below(1000));
  login_ = {session + " of " + user_id_, now_s, world_.rights().Claims(user_id_)};
  world_.Trace(user_id_ + " logs in: " + login_.session_id + " at " + std::to_string(now_s));
}

// A provider gives no newer token of a session that has ended.
void Client::Renew() {
  login_.issued_at_s = ToUnixMillis(world_.Clocks().wall) / 1000;
  login_.rights = session_->next_rights = world_.rights().Claims(user_id_);
  session_->auth_unanswered = true;
  Say(R"({"type":"auth","token":")" + std::to_string(login_.issued_at_s) + "\"}");
}

void Client::Connect() {
  if (login_.issued_at_s == 0 || world_.random().OneIn(20)) LogIn();
  const std::shared_ptr<EdgeProcess> edge = world_.AnyEdge();
  if (edge == nullptr) return;
  session_ = std::make_shared<Session>();
  session_->user_id = user_id_;
  session_->username = "name of " + user_id_;
  session_->login = login_;
  session_->edge = edge;
  session_->shard = static_cast<uint32_t>(world_.random().Below(edge->shards()));
  world_.AddSession(session_);
  Say({Kind::kOpen, ""});
  for (const std::string& room : rooms_) Subscribe(room);
  if (away_) SetAway(true);
}

void Client::Subscribe(const std::string& room) {
  rooms_.insert(room);
  Say({Kind::kText, RoomRequest("subscribe", room), Asks::kJoin, room});
}

void Client::Unsubscribe(const std::string& room) {
  rooms_.erase(room);
  Say({Kind::kText, RoomRequest("unsubscribe", room), Asks::kLeave, room});
}

void Client::Type(const std::string& room) {
  session_->typed_at[room] = world_.now();
  Say(RoomRequest("typing", room));
}

void Client::SetAway(bool away) {
  away_ = away;
  Say({Kind::kText, away ? R"({"type":"status","status":"away"})" : R"({"type":"status","status":"online"})",
       away ? Asks::kAway : Asks::kOnline});
}

void Client::Ping() {
  ++session_->pings_unanswered;
  Say(std::string(kPing));
}

// More than a burst; sometimes more than is listened to.
void Client::Flood() {
  const size_t frames = 50 + world_.random().Below(250);
  session_->errors_expected += static_cast<int>(frames);
  for (size_t i = 0; i < frames; ++i) Say(std::string(kNonsense));
}

void Client::Close() {
  Say({Kind::kEnd, ""});
  session_->client_open = false;
}

void Client::Vanish() {
  session_->vanished = true;
  session_->client_open = false;
}

void Client::Say(Session::Said said_now) {
  Session& session = *session_;
  said_at_ = world_.now();
  session.to_edge.push_back(std::move(said_now));
  session.last_arrival = std::max(session.last_arrival, world_.now() + world_.ClientDelay());
  world_.scheduler().AtProcess(session.last_arrival, session.edge, [this, session = session_] {
    const Session::Said said = std::move(session->to_edge.front());
    session->to_edge.pop_front();
    ShardNode& shard = session->edge->shard(session->shard);
    switch (said.kind) {
      case Session::Said::Kind::kOpen:
        if (shard.Accept(session)) return;
        session->freed = session->closing = true;
        world_.scheduler().After(world_.ClientDelay(), [session] { session->client_open = false; });
        return;
      case Session::Said::Kind::kText:
        if (shard.OnClientText(*session, said.text)) return session->Arrived(world_.now(), said);
        // Over a limit, or closed: nothing has come of it but an error, if anything.
        if (said.text == kPing) --session->pings_unanswered;
        if (said.text == kNonsense) --session->errors_expected;
        return;
      case Session::Said::Kind::kEnd:
        return shard.OnClientClosed(*session);
    }
  });
}

}  // namespace presence::sim
