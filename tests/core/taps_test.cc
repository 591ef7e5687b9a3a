#include "core/taps.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <string_view>
#include <vector>

namespace presence::core {
namespace {

using link::v1::TAP_KIND_CONNECTED;
using link::v1::TAP_KIND_MESSAGE;
using link::v1::TAP_KIND_ORDER;
using link::v1::TAP_KIND_TYPING;
using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

class TapsTest : public testing::Test {
 protected:
  bool TapUser(uint64_t origin, uint64_t tap, const std::string& user) {
    link::v1::TapOrder order;
    order.set_tap(tap);
    order.set_user_id(user);
    return taps_.OnOrder(now_, origin, order);
  }
  bool TapRoom(uint64_t origin, uint64_t tap, const std::string& room) {
    link::v1::TapOrder order;
    order.set_tap(tap);
    order.set_room_id(room);
    return taps_.OnOrder(now_, origin, order);
  }
  void End(uint64_t origin, uint64_t tap) {
    link::v1::TapOrder order;
    order.set_tap(tap);
    order.set_ended(true);
    EXPECT_TRUE(taps_.OnOrder(now_, origin, order));
  }
  void Pass(milliseconds time) {
    now_.steady += time;
    now_.wall += time;
    taps_.OnTick(now_);
  }
  void Saw(std::string_view user, std::string_view room, std::string_view detail = {},
           Taps::Heard heard = Taps::Heard::kHere) {
    Taps::Subject subject;
    subject.user_id = user;
    subject.room_id = room;
    subject.detail = detail;
    taps_.Saw(now_, TAP_KIND_MESSAGE, subject, heard);
  }
  // "origin/tap user room detail +left_out" for each event.
  std::vector<std::string> Take() {
    std::vector<std::string> lines;
    taps_.Take([&](uint64_t origin, uint64_t tap, const link::v1::TapEvents& events) {
      EXPECT_EQ(events.core(), "core-a");
      for (const link::v1::TapEvent& event : events.events()) {
        std::string line = std::to_string(origin) + "/" + std::to_string(tap);
        if (event.kind() == link::v1::TAP_KIND_UNSPECIFIED) line.append(" nothing");
        for (const std::string& text : {event.user_id(), event.room_id(), event.detail()}) {
          if (!text.empty()) line.append(" ").append(text);
        }
        if (event.left_out() != 0) line.append(" +").append(std::to_string(event.left_out()));
        lines.push_back(line);
      }
    });
    return lines;
  }

  Now now_{SteadyTime(std::chrono::hours(5)), FromUnixMillis(1'700'000'000'123)};
  Taps taps_{1, "core-a", 3, 4};  // three taps of each origin, four events a second
};

TEST_F(TapsTest, SeesItsUserOrItsRoomAndNothingElse) {
  EXPECT_FALSE(taps_.any());
  EXPECT_TRUE(TapRoom(2, 1, "r"));
  EXPECT_TRUE(TapUser(1, 9, "ann"));
  EXPECT_TRUE(TapUser(1, 4, "r"));  // a user of that name is not that room
  EXPECT_TRUE(taps_.any());
  Saw("ann", "r");
  Saw("bea", "r");
  Saw("ann", "q");
  Saw("ann", "");
  Saw("", "q");
  Saw("Ann", "R");
  Saw("anna", "rr");
  EXPECT_THAT(Take(), ElementsAre("1/9 ann r", "1/9 ann q", "1/9 ann", "2/1 ann r", "2/1 bea r"))
      << "by origin and tap";
  EXPECT_THAT(Take(), IsEmpty()) << "each once";
}

// Core 1 is this one: what core 2 hears by itself it tells its taps itself.
TEST_F(TapsTest, WhatAllCoresHearIsToldToItsOwnTapsAlone) {
  TapUser(1, 1, "ann");
  TapUser(2, 1, "ann");
  Saw("ann", "r", "by the bus", Taps::Heard::kEverywhere);
  Saw("ann", "r", "here", Taps::Heard::kHere);
  EXPECT_THAT(Take(), ElementsAre("1/1 ann r by the bus", "1/1 ann r here", "2/1 ann r here"));
  EXPECT_EQ(taps_.events(), 3u);
  EXPECT_EQ(taps_.events_left_out(), 0u);
}

TEST_F(TapsTest, TellsWhatWhenAndOfWhichConnection) {
  TapUser(1, 1, "ann");
  taps_.Saw(now_, TAP_KIND_CONNECTED, {"ann", {}, 7, 8, {}}, Taps::Heard::kHere);
  Pass(milliseconds(10));
  taps_.Saw(now_, TAP_KIND_TYPING, {"ann", "r"}, Taps::Heard::kHere);
  int calls = 0;
  taps_.Take([&](uint64_t, uint64_t, const link::v1::TapEvents& events) {
    ++calls;
    ASSERT_EQ(events.events_size(), 2);
    EXPECT_EQ(events.events(0).kind(), TAP_KIND_CONNECTED);
    EXPECT_EQ(events.events(0).connection().incarnation(), 7u);
    EXPECT_EQ(events.events(0).connection().connection(), 8u);
    EXPECT_EQ(events.events(0).time_ms(), 1'700'000'000'123);
    EXPECT_EQ(events.events(1).kind(), TAP_KIND_TYPING);
    EXPECT_FALSE(events.events(1).has_connection());
    EXPECT_EQ(events.events(1).time_ms(), 1'700'000'000'133);
  });
  EXPECT_EQ(calls, 1);
  // The messages are used again: nothing of the former event may show in the next one.
  taps_.Saw(now_, TAP_KIND_ORDER, {"ann", {}, 0, 0, "closed"}, Taps::Heard::kHere);
  taps_.Take([&](uint64_t, uint64_t, const link::v1::TapEvents& events) {
    ++calls;
    ASSERT_EQ(events.events_size(), 1);
    EXPECT_FALSE(events.events(0).has_connection());
    EXPECT_EQ(events.events(0).detail(), "closed");
  });
  EXPECT_EQ(calls, 2);
}

TEST_F(TapsTest, EndsWhenItIsNotRepeated) {
  TapUser(1, 1, "ann");
  TapUser(1, 2, "bea");
  Pass(milliseconds(4'999));
  TapUser(1, 1, "ann");
  EXPECT_EQ(taps_.size(), 2u);
  Pass(milliseconds(1));
  EXPECT_EQ(taps_.size(), 1u);
  Saw("ann", "");
  Saw("bea", "");
  EXPECT_THAT(Take(), ElementsAre("1/1 ann"));
  Pass(milliseconds(4'999));
  EXPECT_FALSE(taps_.any());
}

TEST_F(TapsTest, EndsWhenItIsToldTo) {
  TapUser(1, 1, "ann");
  TapUser(2, 1, "ann");
  Saw("ann", "");
  End(1, 1);
  End(1, 77);  // never heard of: nothing
  EXPECT_THAT(Take(), ElementsAre("2/1 ann")) << "another core's tap of the same number goes on";
}

TEST_F(TapsTest, OfEachOriginOnlySoMany) {
  for (uint64_t tap = 1; tap <= 3; ++tap) EXPECT_TRUE(TapUser(1, tap, "ann"));
  EXPECT_FALSE(TapUser(1, 4, "ann"));
  EXPECT_TRUE(TapUser(1, 2, "ann")) << "one that is known is prolonged";
  EXPECT_TRUE(TapUser(2, 4, "ann")) << "another origin has taps of its own";
  EXPECT_TRUE(TapUser(0, 4, "ann"));
  End(1, 1);
  EXPECT_TRUE(TapUser(1, 4, "ann"));
  link::v1::TapOrder nothing;
  nothing.set_tap(5);
  EXPECT_FALSE(taps_.OnOrder(now_, 3, nothing));
}

TEST_F(TapsTest, WhatIsTooMuchForASecondIsCounted) {
  TapRoom(1, 1, "r");
  TapUser(1, 2, "u6");
  for (int i = 1; i <= 6; ++i) Saw("u" + std::to_string(i), "r");
  EXPECT_THAT(Take(), ElementsAre("1/1 u1 r", "1/1 u2 r", "1/1 u3 r", "1/1 u4 r", "1/2 u6 r"))
      << "each tap has its own second";
  Pass(milliseconds(999));
  Saw("u7", "r");
  EXPECT_THAT(Take(), IsEmpty());
  now_.steady += milliseconds(1);  // no tick in between
  Saw("u8", "r");
  Saw("u9", "r");
  EXPECT_THAT(Take(), ElementsAre("1/1 u8 r +3", "1/1 u9 r"));
  EXPECT_EQ(taps_.events(), 7u);
  EXPECT_EQ(taps_.events_left_out(), 3u);
}

TEST_F(TapsTest, WhatWasLeftOutIsToldThoughNothingElseHappens) {
  TapRoom(1, 1, "r");
  for (int i = 1; i <= 6; ++i) Saw("u" + std::to_string(i), "r");
  EXPECT_THAT(Take(), SizeIs(4));
  Pass(milliseconds(999));
  EXPECT_THAT(Take(), IsEmpty());
  Pass(milliseconds(1));
  EXPECT_THAT(Take(), ElementsAre("1/1 nothing +2"));
  Pass(milliseconds(1'000));
  EXPECT_THAT(Take(), IsEmpty()) << "once";
}

TEST(Taps, WhatWaitsIsBounded) {
  const Now now{};
  Taps taps(1, "core-a", 1, 100'000);
  link::v1::TapOrder order;
  order.set_room_id("r");
  taps.OnOrder(now, 1, order);
  const std::string user(2'048, 'u'), text(1'000, 't');
  for (int i = 0; i < 1'000; ++i) taps.Saw(now, TAP_KIND_MESSAGE, {user, "r", 0, 0, text}, Taps::Heard::kHere);
  int told = 0;
  taps.Take([&](uint64_t, uint64_t, const link::v1::TapEvents& events) {
    EXPECT_LE(events.ByteSizeLong(), Taps::kBytesMax + 64);
    told = events.events_size();
  });
  EXPECT_GT(told, 80);
  EXPECT_EQ(taps.events_left_out(), 1'000u - static_cast<unsigned>(told));
  taps.Saw(now, TAP_KIND_MESSAGE, {user, "r"}, Taps::Heard::kHere);
  uint64_t left_out = 0;
  taps.Take([&](uint64_t, uint64_t, const link::v1::TapEvents& events) { left_out = events.events(0).left_out(); });
  EXPECT_EQ(left_out, taps.events_left_out()) << "there is room again, and the next event says what is missing";
}

TEST_F(TapsTest, ADetailEndsBeforeACharacterThatIsNotWhole) {
  TapUser(1, 1, "ann");
  const auto told = [&](const std::string& detail) {
    Pass(seconds(1));
    TapUser(1, 1, "ann");
    Saw("ann", "", detail);
    const std::vector<std::string> lines = Take();
    return lines.size() == 1 && lines[0].size() > 8 ? lines[0].substr(8) : std::string();
  };
  const std::string smile = "\xF0\x9F\x98\x80";
  EXPECT_EQ(told(std::string(1'024, 'x')), std::string(1'024, 'x'));
  EXPECT_EQ(told(std::string(1'025, 'x')), std::string(1'024, 'x'));
  EXPECT_EQ(told(std::string(1'020, 'x') + smile + "y"), std::string(1'020, 'x') + smile);
  EXPECT_EQ(told(std::string(1'021, 'x') + smile), std::string(1'021, 'x'));
  EXPECT_EQ(told("before\xFF"
                 "after"),
            "before")
      << "what is not UTF-8 would make the whole answer unreadable";
}

}  // namespace
}  // namespace presence::core
