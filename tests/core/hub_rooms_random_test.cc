// A shard, an authorizer that is slow, silent or of another mind, rights that change, and links that break: by seed.
//
// At any time: what is acknowledged has been answered. In the end: every request was answered once, and the shard's rooms are the hub's,
// each of them allowed.
#include <gtest/gtest.h>

#include <deque>
#include <map>
#include <random>
#include <set>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "core/hub.h"
#include "tests/fakes/hub_world.h"

namespace presence::core {
namespace {

using link::v1::EdgeEvent;
using std::chrono::milliseconds;

constexpr uint32_t kConnections = 6;
const std::vector<std::string> kUsers = {"alice", "bob", "carol"}, kRooms = {"general", "random", "news", "faq"};

HubOptions Options() {
  HubOptions options = HubWorld::DefaultOptions();
  options.room_auth = RoomAuth::kAsked;
  options.room_access.cache = milliseconds(3'000);
  options.room_access.denied = milliseconds(1'000);
  options.room_access.retry = milliseconds(500);
  options.room_access.grace = milliseconds(2'000);
  options.room_access.checks_max = 2;
  options.room_access.rows_max = 5;
  options.room_access.joins_max = 8;
  return options;
}

class Story {
 public:
  explicit Story(uint32_t seed) : random_(seed) {}

  void Run() {
    Attach();
    for (int step = 0; step < 400 && !testing::Test::HasFatalFailure(); ++step) Step();
    Finish();
  }

 private:
  struct Request {
    uint32_t slot = 0;
    std::string room;
    bool join = false;
    bool answered = false;
  };

  uint32_t Pick(size_t end) { return static_cast<uint32_t>(random_() % end); }
  static const std::string& UserOf(uint32_t slot) { return kUsers[slot % kUsers.size()]; }
  RoomRight RightOf(const std::string& user, const std::string& room) { return rights_[{user, room}]; }

  void Step() {
    switch (Pick(9)) {
      case 0:
      case 1:
      case 2:
        Ask({Pick(kConnections), kRooms[Pick(kRooms.size())], true});
        break;
      case 3:
        Ask({Pick(kConnections), kRooms[Pick(kRooms.size())], false});
        break;
      case 4:
        world_.Say(link_, Typing(ConnectionOf(Pick(kConnections)), kRooms[Pick(kRooms.size())]));
        break;
      case 5:
        Change(kUsers[Pick(kUsers.size())], kRooms[Pick(kRooms.size())], static_cast<RoomRight>(Pick(3)));
        break;
      case 6:
        world_.Say(link_, Heartbeat());
        world_.Pass(milliseconds(100 + Pick(900)));
        break;
      case 7:
        for (uint32_t answers = Pick(4); answers > 0; --answers) Answer(Pick(5) == 0);
        break;
      case 8:
        if (Pick(6) == 0) Attach();
        break;
    }
    Hear();
  }

  void Ask(Request request) {
    requests_[++sequence_] = std::move(request);
    Say(sequence_);
  }
  void Say(uint64_t sequence) {
    const Request& request = requests_.at(sequence);
    world_.Say(link_, request.join ? Joined(sequence, ConnectionOf(request.slot), request.room)
                                   : Left(sequence, ConnectionOf(request.slot), request.room));
  }

  void Change(const std::string& user, const std::string& room, RoomRight right) {
    rights_[{user, room}] = right;
    if (Pick(3) != 0) Forget(user, room);
  }
  void Forget(const std::string& user, const std::string& room) {
    link::v1::BusEnvelope envelope;
    envelope.set_core(0xc7);
    envelope.set_sequence(++bus_sequence_);
    envelope.mutable_request()->set_origin(0xc7);
    envelope.mutable_request()->set_id(bus_sequence_);
    envelope.mutable_request()->mutable_forget_room_rights()->set_user_id(user);
    envelope.mutable_request()->mutable_forget_room_rights()->set_room_id(room);
    world_.Bus(envelope);
  }

  void Answer(bool nobody) {
    Collect();
    if (questions_.empty()) return;
    const auto [user, room] = questions_.front();
    questions_.pop_front();
    if (nobody) {
      world_.AnswerNoRight();
    } else {
      world_.AnswerRight(RightOf(user, room));
    }
  }
  // What the hub has asked since: "may alice(alice) general".
  void Collect() {
    for (const std::string& line : world_.Asked()) {
      if (!line.starts_with("may ")) continue;
      const size_t end = line.find('('), space = line.find(") ");
      questions_.emplace_back(line.substr(4, end - 4), line.substr(space + 2));
    }
  }

  void Attach() {
    if (link_ != 0) world_.LoseLink(link_);
    world_.OpenLink(++link_);
    world_.Say(link_, Hello(link_));
    for (uint32_t slot = 0; slot < kConnections; ++slot) {
      std::vector<std::string> rooms;
      for (const auto& [member, room] : members_) {
        if (member == slot) rooms.push_back(room);
      }
      world_.Say(link_, Declared(ConnectionOf(slot), UserOf(slot), rooms));
    }
    world_.Say(link_, ResyncDone());
    // What is answered is not repeated, and so not acknowledged by this link either.
    std::erase_if(requests_, [](const auto& request) { return request.second.answered; });
    std::vector<uint64_t> again;
    for (const auto& [sequence, request] : requests_) again.push_back(sequence);
    for (const uint64_t sequence : again) Say(sequence);
  }

  // Carries out what the hub says, as a shard does, until it says nothing more.
  void Hear() {
    world_.ConfirmAll();
    for (HubWorld::Lines lines = world_.Sent(link_); !lines.empty(); lines = world_.Sent(link_)) {
      for (const std::string& line : lines) HearLine(line);
    }
  }
  void HearLine(const std::string& line) {
    std::istringstream words(line);
    std::string what, first, room, word;
    words >> what >> first;
    if (what == "ack") return HearAck(std::stoull(first));
    if (what == "refuse") return Answered(std::stoull(first.substr(6)));
    if (what != "bind" && what != "unbind" && what != "leave") return;
    words >> room;
    const auto slot = static_cast<uint32_t>(std::stoul(first));
    if (what == "leave") return Ask({slot, room, false});
    while (words >> word) {
      if (word.starts_with("reply=")) Answered(std::stoull(word.substr(6)));
    }
    if (what == "bind") {
      members_.emplace(slot, room);
    } else {
      members_.erase({slot, room});
    }
  }
  void Answered(uint64_t sequence) {
    if (sequence == 0) return;
    const auto request = requests_.find(sequence);
    ASSERT_NE(request, requests_.end()) << "what is acknowledged is not answered";
    EXPECT_FALSE(std::exchange(request->second.answered, true)) << "each is answered once";
  }
  void HearAck(uint64_t sequence) {
    while (!requests_.empty() && requests_.begin()->first <= sequence) {
      ASSERT_TRUE(requests_.begin()->second.answered) << "acknowledged before it was answered";
      requests_.erase(requests_.begin());
    }
  }

  void Finish() {
    Forget("", "");
    for (int i = 0; i < 100; ++i) {
      Collect();
      while (!questions_.empty()) Answer(false);
      world_.Say(link_, Heartbeat());
      world_.Pass(milliseconds(100));
      Hear();
    }
    EXPECT_TRUE(requests_.empty()) << requests_.size() << " are not acknowledged";
    for (const auto& [slot, room] : members_) {
      EXPECT_NE(RightOf(UserOf(slot), room), RoomRight::kNone) << slot << " is in " << room;
    }
    EXPECT_EQ(world_.hub().sizes().memberships, members_.size());
    EXPECT_EQ(world_.hub().sizes().joins_waiting, 0u);
    EXPECT_LE(world_.hub().sizes().room_rights, members_.size() + 5);
  }

  std::mt19937 random_;
  HubWorld world_{Options()};
  uint64_t link_ = 0, sequence_ = 0, bus_sequence_ = 0;
  std::map<uint64_t, Request> requests_;
  std::set<std::pair<uint32_t, std::string>> members_;
  std::map<std::pair<std::string, std::string>, RoomRight> rights_;
  std::deque<std::pair<std::string, std::string>> questions_;
};

TEST(HubRoomsRandom, EveryJoinIsAnsweredAndNobodyStaysWithoutARight) {
  for (uint32_t seed = 1; seed <= 300; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Story(seed).Run();
    if (testing::Test::HasFailure()) return;
  }
}

}  // namespace
}  // namespace presence::core
