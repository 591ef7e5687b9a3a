// Who has been asked, who has answered, and when nobody is waited for any more.
#include "core/gathers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

namespace presence::core {
namespace {

using std::chrono::milliseconds;
using testing::ElementsAre;

constexpr uint64_t kSelf = 5;

struct GathersTest : testing::Test {
  Gathers gathers{kSelf, 3};
  SteadyTime now{std::chrono::hours(1)};

  uint64_t Begin(Gather::Kind kind, uint64_t request) {
    Gather gather;
    gather.kind = kind;
    gather.id = gathers.NextId();
    gather.request = request;
    gather.deadline = now + milliseconds(500);
    const uint64_t id = gather.id;
    gathers.Begin(std::move(gather));
    return id;
  }
  bool Answer(uint64_t id, uint64_t core) {
    link::v1::ClusterReply reply;
    reply.set_id(id);
    reply.set_core(core);
    return gathers.Answer(std::move(reply));
  }
  // "7 complete", in order.
  std::vector<std::string> Finished() {
    std::vector<std::string> finished;
    while (const std::optional<Gather> gather = gathers.TakeFinished()) {
      const char* const ends[] = {"open", "complete", "timed out", "unpublished", "cancelled"};
      finished.push_back(std::to_string(gather->request) + " " + ends[static_cast<int>(gather->end)] +
                         (gather->kind == Gather::Kind::kMessage ? " " + std::to_string(gather->reached) : ""));
    }
    return finished;
  }
};

TEST_F(GathersTest, ThisCoreIsAlwaysLive) {
  EXPECT_THAT(gathers.cores(), ElementsAre(kSelf));
  gathers.SetCores({1, 9});
  EXPECT_THAT(gathers.cores(), ElementsAre(1, kSelf, 9));
  gathers.Heard(3);
  gathers.Heard(3);
  EXPECT_THAT(gathers.cores(), ElementsAre(1, 3, kSelf, 9));
}

TEST_F(GathersTest, AMessageIsCountedWhenItIsPublishedAndAllHaveAnswered) {
  gathers.SetCores({kSelf, 9});
  const uint64_t id = Begin(Gather::Kind::kMessage, 7);
  EXPECT_TRUE(gathers.Count(id, 9, 3));
  EXPECT_TRUE(gathers.Count(id, kSelf, 2));
  EXPECT_THAT(Finished(), ElementsAre()) << "not published yet";
  gathers.Published(id);
  EXPECT_THAT(Finished(), ElementsAre("7 complete 5"));
  EXPECT_EQ(gathers.size(), 0u);
}

TEST_F(GathersTest, AnAnswerCountsOnce) {
  gathers.SetCores({kSelf, 9});
  const uint64_t id = Begin(Gather::Kind::kMessage, 7);
  gathers.Published(id);
  EXPECT_TRUE(gathers.Count(id, 9, 3));
  EXPECT_FALSE(gathers.Count(id, 9, 3));
  EXPECT_FALSE(gathers.Count(id, 11, 100)) << "a core that was not asked";
  EXPECT_FALSE(gathers.Count(id + 1, 9, 3)) << "a gather that never was";
  EXPECT_THAT(Finished(), ElementsAre());
  EXPECT_TRUE(gathers.Count(id, kSelf, 0));
  EXPECT_THAT(Finished(), ElementsAre("7 complete 3"));
  EXPECT_FALSE(gathers.Count(id, 9, 3)) << "too late";
}

TEST_F(GathersTest, TimeIsUpForWhatIsPublishedAndForRequests) {
  gathers.SetCores({kSelf, 9});
  const uint64_t message = Begin(Gather::Kind::kMessage, 7);
  const uint64_t unpublished = Begin(Gather::Kind::kMessage, 8);
  Begin(Gather::Kind::kRequest, 9);
  gathers.Published(message);
  gathers.Count(message, 9, 3);
  gathers.OnTick(now + milliseconds(500));
  EXPECT_THAT(Finished(), ElementsAre());
  gathers.OnTick(now + milliseconds(501));
  EXPECT_THAT(Finished(), ElementsAre("7 timed out 3", "9 timed out"));
  gathers.NotPublished(unpublished);
  EXPECT_THAT(Finished(), ElementsAre("8 unpublished 0"));
}

TEST_F(GathersTest, ACoreThatIsGoneIsNotWaitedFor) {
  gathers.SetCores({1, kSelf, 9});
  const uint64_t first = Begin(Gather::Kind::kRequest, 7);
  const uint64_t second = Begin(Gather::Kind::kRequest, 8);
  Answer(first, kSelf);
  Answer(second, kSelf);
  Answer(second, 1);
  gathers.SetCores({1, kSelf});
  EXPECT_THAT(Finished(), ElementsAre("8 complete"));
  Answer(first, 1);
  EXPECT_THAT(Finished(), ElementsAre("7 complete"));
}

TEST_F(GathersTest, ACoreThatComesLaterIsNotWaitedFor) {
  const uint64_t id = Begin(Gather::Kind::kRequest, 7);
  gathers.SetCores({kSelf, 9});
  Answer(id, kSelf);
  EXPECT_THAT(Finished(), ElementsAre("7 complete"));
}

TEST_F(GathersTest, AnswersAreInTheOrderOfTheCores) {
  gathers.SetCores({1, kSelf, 9});
  const uint64_t id = Begin(Gather::Kind::kRequest, 7);
  for (const uint64_t core : {uint64_t{9}, kSelf, uint64_t{1}}) Answer(id, core);
  const std::optional<Gather> gather = gathers.TakeFinished();
  ASSERT_TRUE(gather.has_value());
  std::vector<uint64_t> cores;
  for (const auto& reply : gather->replies) cores.push_back(reply.core());
  EXPECT_THAT(cores, ElementsAre(1, kSelf, 9));
}

TEST_F(GathersTest, ACancelledRequestIsOver) {
  const uint64_t id = Begin(Gather::Kind::kRequest, 7);
  gathers.Cancel(8);
  gathers.Cancel(7);
  EXPECT_THAT(Finished(), ElementsAre("7 cancelled"));
  EXPECT_FALSE(Answer(id, kSelf));
  gathers.Cancel(7);
  EXPECT_THAT(Finished(), ElementsAre());
}

TEST_F(GathersTest, TheyAreBounded) {
  for (uint64_t request = 1; request <= 3; ++request) {
    EXPECT_FALSE(gathers.Full());
    Begin(Gather::Kind::kMessage, request);
  }
  EXPECT_TRUE(gathers.Full());
  EXPECT_TRUE(gathers.Take(2).has_value());
  EXPECT_FALSE(gathers.Full());
  EXPECT_FALSE(gathers.Take(2).has_value());
}

// Its shards are not with another core yet: an order that nobody has carried out is not done.
TEST_F(GathersTest, AnOrderAwaitsACoreThatHasJustLeft) {
  const auto begin_order = [this](uint64_t request) {
    Gather gather;
    gather.kind = Gather::Kind::kRequest;
    gather.needs_all = true;
    gather.id = gathers.NextId();
    gather.request = request;
    gather.deadline = now + milliseconds(3000);
    const uint64_t id = gather.id;
    gathers.Begin(std::move(gather));
    Answer(id, kSelf);
  };
  gathers.OnTick(now);
  gathers.SetCores({kSelf, 9});
  gathers.SetCores({kSelf});
  begin_order(7);
  EXPECT_THAT(Finished(), ElementsAre());
  gathers.OnTick(now + milliseconds(1000));
  begin_order(8);
  EXPECT_THAT(Finished(), ElementsAre("8 complete"));
  gathers.OnTick(now + milliseconds(3001));
  EXPECT_THAT(Finished(), ElementsAre("7 timed out"));
}

}  // namespace
}  // namespace presence::core
