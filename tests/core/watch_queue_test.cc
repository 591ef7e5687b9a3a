#include "core/watch_queue.h"

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

namespace presence::core {
namespace {

PresenceRow Row(const std::string& user_id, uint64_t version) {
  return std::make_shared<const StoredPresence>(StoredPresence{.user_id = user_id, .username = {}, .version = version});
}

std::string Drain(WatchQueue& queue) {
  std::string drained;
  while (!queue.empty()) {
    const WatchQueue::Item item = queue.Pop();
    drained += (drained.empty() ? "" : " ") + std::string(item.left ? "-" : "") + item.row->user_id +
               (item.left ? "" : std::to_string(item.row->version));
  }
  return drained;
}

TEST(WatchQueue, ANewerVersionReplacesTheOlderInPlace) {
  WatchQueue queue;
  EXPECT_TRUE(queue.Add(Row("a", 1)));
  EXPECT_TRUE(queue.Add(Row("b", 1)));
  EXPECT_TRUE(queue.Add(Row("a", 3)));
  EXPECT_FALSE(queue.Add(Row("a", 2)));
  EXPECT_FALSE(queue.Add(Row("a", 3)));
  EXPECT_EQ(queue.size(), 2u);
  EXPECT_EQ(Drain(queue), "a3 b1");
  EXPECT_TRUE(queue.Add(Row("a", 2))) << "what is told is not remembered";
}

TEST(WatchQueue, LeavingReplacesAndIsReplacedByComingBack) {
  WatchQueue queue;
  queue.Add(Row("a", 7));
  queue.Add(Row("b", 1));
  queue.AddLeft(Row("a", 0));
  queue.AddLeft(Row("c", 0));
  EXPECT_TRUE(queue.Add(Row("c", 2)));
  EXPECT_EQ(Drain(queue), "-a b1 c2");
}

TEST(WatchQueue, CountsPlaces) {
  WatchQueue queue;
  for (int i = 0; i < 1'000; ++i) queue.Add(Row("u" + std::to_string(i), 1));
  EXPECT_EQ(queue.end(), 1'000u);
  for (int i = 0; i < 600; ++i) queue.Pop();
  EXPECT_EQ(queue.popped(), 600u);
  EXPECT_EQ(queue.end(), 1'000u);
  queue.Add(Row("u700", 2));  // in place, behind items that were moved down
  EXPECT_EQ(queue.end(), 1'000u);
  for (int i = 600; i < 700; ++i) EXPECT_EQ(queue.Pop().row->user_id, "u" + std::to_string(i));
  EXPECT_EQ(queue.Pop().row->version, 2u);
  Drain(queue);
  EXPECT_EQ(queue.popped(), 1'000u);
  EXPECT_EQ(queue.end(), 1'000u);
}

// Against the simplest thing that could be right.
TEST(WatchQueue, IsAListWithoutRepeats) {
  std::mt19937 random(1);
  const auto upto = [&](int n) { return std::uniform_int_distribution<int>(0, n - 1)(random); };
  WatchQueue queue;
  std::vector<PresenceRow> model;
  for (int step = 0; step < 100'000; ++step) {
    if (upto(5) < (step / 5'000 % 2 == 0 ? 4 : 1)) {
      const PresenceRow row = Row(std::to_string(upto(2'000)), static_cast<uint64_t>(step));
      const auto found =
          std::find_if(model.begin(), model.end(), [&](const auto& each) { return each->user_id == row->user_id; });
      if (found == model.end()) {
        model.push_back(row);
      } else {
        *found = row;
      }
      queue.Add(row);
    } else if (!model.empty()) {
      ASSERT_EQ(queue.Pop().row, model.front());
      model.erase(model.begin());
    }
    ASSERT_EQ(queue.size(), model.size());
  }
}

}  // namespace
}  // namespace presence::core
