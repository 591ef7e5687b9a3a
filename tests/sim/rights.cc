#include "tests/sim/rights.h"

#include <algorithm>

#include "tests/sim/core_node.h"
#include "tests/sim/world.h"

namespace presence::sim {

using std::chrono::milliseconds;
using std::chrono::seconds;

namespace {

constexpr milliseconds kCache{10'000}, kDenied{1'000},
    kSaid{3'000};  // kSaid: as backends say it themselves, now and then
constexpr seconds kAnswerMax{2};
// From a look at the sets until the last that a core decides by a refusal that it remembers: a stall of 8 s before the answer is taken, and
// kSaid for which it is.
constexpr seconds kStale{14};
// From a look until a client hears of it: a stall of the core, one of the edge, and the way.
constexpr seconds kLate{25};

}  // namespace

// One connection of a core to whoever knows. Answers may overtake each other: no two are of the same question.
class Rights::Asked final : public core::RoomAuthorizer {
 public:
  Asked(World& world, CoreProcess& core) : world_(world), core_(core) {}

  void Ask(const core::RoomQuestion& question) override {
    Look({question.id, std::string(question.user_id), std::string(question.room_id), world_.now()});
  }

 private:
  struct Question {
    uint64_t id = 0;
    std::string user, room;
    SimTime asked_at{0};
  };

  bool Away() const {
    if (world_.rights().backend()) return world_.rights().away;
    return !core_.redis_reachable();
  }

  void Look(const Question& question) {
    world_.scheduler().After(world_.RedisDelay(), [this, core = core_.shared_from_this(), question] {
      if (!core->alive) return;
      const bool stalled = !world_.rights().backend() && world_.redis_frozen;
      if (stalled && world_.now() - question.asked_at < kAnswerMax) return Look(question);
      core::RoomAnswer answer;
      if (!Away() && !stalled) {
        answer.outcome = core::RoomAnswer::Outcome::kAnswered;
        answer.right = world_.rights().Of(question.user, question.room);
        if (world_.rights().backend() && world_.random().OneIn(3)) answer.cache_for = kSaid;
      }
      world_.scheduler().AtProcess(world_.now() + world_.RedisDelay(), core, [this, question, answer] {
        // A connection that is lost loses its answers.
        const core::RoomAnswer heard = Away() ? core::RoomAnswer() : answer;
        const bool unavailable = heard.outcome == core::RoomAnswer::Outcome::kUnavailable;
        world_.rights().Heard(core_, {question.user, question.room}, question.asked_at, unavailable);
        core_.OnRoomRight(question.id, heard);
      });
    });
  }

  World& world_;
  CoreProcess& core_;
};

void Rights::Choose(core::HubOptions* hub) {
  Random& random = world_.random();
  if (!random.OneIn(3)) return;
  mode_ = random.OneIn(3) ? core::RoomAuth::kClaims : core::RoomAuth::kAsked;
  backend_ = random.OneIn(2);
  grace_ = random.OneIn(2) ? seconds(5) : seconds(60);
  hub->room_auth = mode_;
  hub->room_access.cache = kCache;
  hub->room_access.denied = kDenied;
  hub->room_access.retry = seconds(1);
  hub->room_access.grace = std::chrono::duration_cast<milliseconds>(grace_);
  if (random.OneIn(2)) hub->room_access.checks_max = 2;
  for (const std::string& user : world_.users()) {
    for (const std::string& room : world_.rooms()) {
      constexpr RoomRight kChoices[] = {RoomRight::kNone, RoomRight::kRead, RoomRight::kWrite, RoomRight::kWrite};
      Set(user, room, kChoices[random.Below(4)]);
    }
  }
}

std::unique_ptr<core::RoomAuthorizer> Rights::NewAuthorizer(CoreProcess& core) {
  return asked() ? std::make_unique<Asked>(world_, core) : nullptr;
}

// ------------------------------------------------------------------------------------------------------------- the truth

RoomRight Rights::Of(const std::string& user, const std::string& room) const {
  const auto found = history_.find({user, room});
  return mode_ == core::RoomAuth::kOpen ? RoomRight::kWrite
         : found == history_.end()      ? RoomRight::kNone
                                        : found->second.back().right;
}

RoomRight Rights::Of(const Session& session, const std::string& room) const {
  if (mode_ != core::RoomAuth::kClaims) return Of(session.user_id, room);
  return session.tokens.empty() ? RoomRight::kNone : session.tokens.back().rights->In(room);
}

std::shared_ptr<const RoomRights> Rights::Claims(const std::string& user) const {
  if (mode_ != core::RoomAuth::kClaims) return nullptr;
  auto rights = std::make_shared<RoomRights>();
  for (const std::string& room : world_.rooms()) {
    if (const RoomRight right = Of(user, room); right != RoomRight::kNone) rights->Add(right, room);
  }
  return rights;
}

void Rights::Set(const std::string& user, const std::string& room, RoomRight right) {
  constexpr const char* kNames[] = {"nothing", "to read", "to write"};
  world_.Trace("right of " + user + " in " + room + ": " + kNames[static_cast<size_t>(right)]);
  history_[{user, room}].push_back({world_.now(), right});
}

void Rights::ChangeOne() {
  if (mode_ == core::RoomAuth::kOpen) return;
  Random& random = world_.random();
  const std::string user = world_.AnyUser(), room = world_.AnyRoom();
  Set(user, room, static_cast<RoomRight>(random.Below(3)));
  const std::shared_ptr<CoreProcess> core = world_.AnyCore();
  if (!asked() || core == nullptr || random.OneIn(2)) return;
  const size_t of = random.Below(3);  // the pair; all rooms of the user; everybody in the room
  world_.scheduler().AtProcess(
      world_.now(), core, [this, core, user, room, of] { Forget(*core, of == 2 ? "" : user, of == 1 ? "" : room); });
}

void Rights::Forget(CoreProcess& core, const std::string& user, const std::string& room) const {
  link::v1::ClusterRequest body;
  body.mutable_forget_room_rights()->set_user_id(user);
  body.mutable_forget_room_rights()->set_room_id(room);
  world_.callers().Ask(core, std::move(body), [](const auto&, const auto&) {});
}

void Rights::Heard(const CoreProcess& core, const Pair& pair, SimTime asked_at, bool unavailable) {
  Word& word = words_.try_emplace({core.incarnation(), pair}, Word{core.started_at()}).first->second;
  if (!unavailable) {
    word.asked_at = asked_at;
    return;
  }
  unavailable_at_[pair] = world_.now();
  if (world_.now() - word.asked_at >= grace_ * 98 / 100) word.given_up_at = world_.now();  // clocks drift by 1 %
}

// ------------------------------------------------------------------------------------------------------------ judgements

// What stood then, and all that came after it.
template <typename Use>
void Rights::ForEachSince(const Session& session, const std::string& room, SimTime since, Use use) const {
  const auto visit = [&](const auto& rows, auto right_of) {
    for (size_t i = 0; i < rows.size(); ++i) {
      if (i + 1 == rows.size() || rows[i + 1].at > since) use(right_of(rows[i]));
    }
  };
  if (mode_ == core::RoomAuth::kClaims) {
    return visit(session.tokens, [&room](const Session::Token& token) { return token.rights->In(room); });
  }
  const auto found = history_.find({session.user_id, room});
  if (found != history_.end()) visit(found->second, [](const Since& row) { return row.right; });
}

RoomRight Rights::Lowest(const Session& session, const std::string& room, SimTime since) const {
  RoomRight lowest = RoomRight::kWrite;
  ForEachSince(session, room, since, [&lowest](RoomRight right) { lowest = std::min(lowest, right); });
  return lowest;
}

RoomRight Rights::Highest(const Session& session, const std::string& room, SimTime since) const {
  RoomRight highest = RoomRight::kNone;
  ForEachSince(session, room, since, [&highest](RoomRight right) { highest = std::max(highest, right); });
  return highest;
}

void Rights::CheckLetIn(const Session& session, const std::string& room, SimTime asked_at) const {
  if (mode_ == core::RoomAuth::kOpen) return;
  const SimTime since = asked() ? asked_at - kCache - kStale : asked_at;
  world_.Check(Highest(session, room, since) != RoomRight::kNone,
               session.Name() + " had a right when let into " + room);
}

void Rights::CheckTypingSeen(const std::string& user, const std::string& room) const {
  if (mode_ == core::RoomAuth::kOpen) return;
  // By the last answer, while there is no other; tokens live as long as connections.
  const SimTime since = asked() ? world_.now() - kCache - grace_ - kLate : SimTime(0);
  const std::vector<Since>& rows = history_.at({user, room});
  bool could = false;
  for (size_t i = 0; i < rows.size(); ++i) {
    could = could || (rows[i].right == RoomRight::kWrite && (i + 1 == rows.size() || rows[i + 1].at > since));
  }
  world_.Check(could, user + " had the right to type in " + room);
}

void Rights::CheckDenied(const Session& session, const Session::Denial& denial) const {
  using What = Session::Denial::What;
  world_.Check(mode_ != core::RoomAuth::kOpen, "nobody is refused where rooms are open");
  const std::string who = session.Name() + " in " + denial.room;
  const bool forbidden = denial.code == 403;
  world_.Check(forbidden || (denial.code == 503 && asked()), "a refusal is 403, or 503 where nobody can say: " + who);
  switch (denial.what) {
    case What::kJoin: {
      if (forbidden) {
        const SimTime since = asked() ? denial.asked_at - kStale : denial.asked_at;
        return world_.Check(Lowest(session, denial.room, since) == RoomRight::kNone,
                            "a right that stands is not refused: " + who);
      }
      const auto found = unavailable_at_.find({session.user_id, denial.room});
      return world_.Check(found != unavailable_at_.end() && found->second >= denial.asked_at,
                          "a join is refused with 503 when nobody could say: " + who);
    }
    case What::kExpelled: {
      if (forbidden) {
        return world_.Check(Lowest(session, denial.room, world_.now() - kLate) == RoomRight::kNone,
                            "a right that stands is not taken away: " + who);
      }
      const std::shared_ptr<SimLink>& link = session.edge->shard(session.shard).link();
      const auto word = words_.find({link->core->incarnation(), {session.user_id, denial.room}});
      return world_.Check(word != words_.end() && word->second.given_up_at >= world_.now() - kLate,
                          "who is in a room stays for the grace while nobody can say: " + who);
    }
    case What::kTyping: {
      bool could_not = false;
      for (const auto& [room, at] : session.typed_at) {
        could_not = could_not || (at > world_.now() - kLate &&
                                  Lowest(session, room, at - kLate - kCache - grace_) != RoomRight::kWrite);
      }
      return world_.Check(could_not, "typing is refused to those who may only read: " + who);
    }
  }
}

void Rights::CheckMembers() const {
  if (mode_ == core::RoomAuth::kOpen) return;
  for (const auto& client : world_.clients()) {
    for (const std::string& room : client->rooms()) {
      world_.Check(Of(*client->session(), room) != RoomRight::kNone,
                   client->session()->Name() + " has a right to be in " + room);
    }
  }
}

}  // namespace presence::sim
