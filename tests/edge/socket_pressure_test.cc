// Slow readers, many sockets, many frames, several threads.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <asio/post.hpp>
#include <atomic>
#include <string>
#include <thread>

#include "edge/socket_loop.h"
#include "tests/edge/socket_loop_fixture.h"

namespace presence::edge {
namespace {

using ::testing::Ge;
using ::testing::SizeIs;

constexpr int kSmallReceiveBuffer = 4096;
constexpr SendPolicy kVolatile{SendClass::kVolatile, 0};
SendPolicy Latest(uint32_t key) {
  return {SendClass::kLatest, key};
}

class SocketPressureTest : public SocketLoopTest {
 protected:
  // Sends until the socket refuses, so that what comes next stays in the queue.
  void FillSocket(SocketId socket, const std::string& text) {
    const auto out = [&] { return loop_->counters().bytes_out.Value(); };
    for (uint64_t before = UINT64_MAX; before != out();) {
      before = out();
      Send({socket}, text);
      loop_->Flush(1000);
    }
  }
};

TEST_F(SocketPressureTest, ASlowReaderIsClosedWhileABystanderGetsEverything) {
  options_.send_buffer_bytes_max = 256 * 1024;
  options_.close_timeout = 50ms;
  Listen();
  auto slow = OpenWebsocket(kSmallReceiveBuffer);
  auto bystander = OpenWebsocket();
  const SocketId slow_id = handler_.opened[0], bystander_id = handler_.opened[1];

  const std::string text(16 * 1024, 'm');
  size_t sent = 0;
  ASSERT_TRUE(RunUntil([&] { return !handler_.closed.empty(); },
                       [&] {
                         Send({slow_id, bystander_id}, text);
                         ++sent;
                         bystander->Read();
                       }));
  ASSERT_THAT(handler_.closed, SizeIs(1));
  EXPECT_EQ(handler_.closed[0].socket, slow_id);
  EXPECT_EQ(handler_.closed[0].code, 1013);
  EXPECT_EQ(loop_->counters().slow_closes.Value(), 1u);
  EXPECT_EQ(loop_->counters().close_timeouts.Value(), 1u);
  ASSERT_TRUE(RunUntil([&] { return slow->tcp().ended(); }, [&] { slow->Read(); }));
  EXPECT_TRUE(slow->tcp().was_reset()) << "else the kernel keeps its megabytes for a peer that does not read";

  Send({bystander_id}, "last");
  ASSERT_TRUE(RunUntil([&] { return bystander->texts().size() == sent + 1; }, [&] { bystander->Read(); }));
  EXPECT_EQ(bystander->texts().back(), "last");
  EXPECT_TRUE(RunUntil([&] { return SocketsOpen() == 1; }));
}

TEST_F(SocketPressureTest, ASlowReaderThatWakesUpInTimeIsToldWhy) {
  options_.send_buffer_bytes_max = 64 * 1024;
  options_.close_timeout = kPatience;
  Listen();
  auto slow = OpenWebsocket(kSmallReceiveBuffer);
  const std::string text(8 * 1024, 'm');
  int sent = 0;
  for (; loop_->counters().slow_closes.Value() == 0; ++sent) Send({handler_.opened[0]}, text);
  EXPECT_EQ(handler_.closed.size(), 0u) << "never from inside a call";

  ASSERT_TRUE(RunUntil([&] { return !handler_.closed.empty() && slow->closed(); }, [&] { slow->Read(); }));
  EXPECT_EQ(handler_.closed[0].code, 1013);
  EXPECT_EQ(slow->closed(), 1013);
  // Whole frames, and what waited behind the one on its way was dropped.
  for (const std::string& received : slow->texts()) ASSERT_EQ(received, text);
  EXPECT_THAT(slow->texts(), SizeIs(::testing::AllOf(Ge(1), ::testing::Le(sent - 64 / 8 + 1))));
}

TEST_F(SocketPressureTest, VolatileFramesAreDroppedFirstAndTheRestIsKept) {
  options_.send_buffer_bytes_max = 64 * 1024;
  Listen();
  auto slow = OpenWebsocket(kSmallReceiveBuffer);
  const SocketId socket = handler_.opened[0];
  FillSocket(socket, std::string(1024, 'f'));
  Send({socket}, std::string(64 * 1024, 'v'), kVolatile);  // would pass the bound by itself
  EXPECT_EQ(loop_->counters().volatile_drops.Value(), 1u);
  // Past one half of the bound.
  for (int i = 0; i < 40; ++i) Send({socket}, std::string(1024, 'r'));
  for (int i = 0; i < 100; ++i) Send({socket}, "typing", kVolatile);
  EXPECT_EQ(loop_->counters().volatile_drops.Value(), 101u);
  Send({socket}, "message");
  EXPECT_EQ(loop_->counters().slow_closes.Value(), 0u);

  ASSERT_TRUE(
      RunUntil([&] { return !slow->texts().empty() && slow->texts().back() == "message"; }, [&] { slow->Read(); }));
  EXPECT_EQ(std::count(slow->texts().begin(), slow->texts().end(), std::string(1024, 'r')), 40);
  EXPECT_EQ(std::count(slow->texts().begin(), slow->texts().end(), "typing"), 0);
  Send({socket}, "typing", kVolatile);
  EXPECT_TRUE(RunUntil([&] { return slow->texts().back() == "typing"; }, [&] { slow->Read(); }));
}

TEST_F(SocketPressureTest, PresenceOfOneUserTakesOnePlaceInASlowReadersQueue) {
  options_.send_buffer_bytes_max = 64 * 1024;
  Listen();
  auto slow = OpenWebsocket(kSmallReceiveBuffer);
  const SocketId socket = handler_.opened[0];
  FillSocket(socket, std::string(1024, 'f'));
  for (int round = 0; round < 1000; ++round) {
    for (uint32_t user = 0; user < 50; ++user) {
      Send({socket}, "user " + std::to_string(user) + " round " + std::to_string(round), Latest(user));
    }
  }
  EXPECT_EQ(loop_->counters().latest_replaced.Value(), 999u * 50u);
  EXPECT_EQ(loop_->counters().slow_closes.Value(), 0u);
  ASSERT_TRUE(RunUntil([&] { return !slow->texts().empty() && slow->texts().back() == "user 49 round 999"; },
                       [&] { slow->Read(); }));
  for (size_t user = 0; user < 50; ++user) {
    EXPECT_EQ(slow->texts()[slow->texts().size() - 50 + user], "user " + std::to_string(user) + " round 999");
  }
}

TEST_F(SocketPressureTest, PingsOfAClientThatReadsNothingKeepOnePong) {
  options_.send_buffer_bytes_max = 64 * 1024;
  Listen();
  auto slow = OpenWebsocket(kSmallReceiveBuffer);
  const SocketId socket = handler_.opened[0];
  FillSocket(socket, std::string(1024, 'f'));
  const int pongs_before = slow->control_frames();
  constexpr int kPings = 3000;
  for (int i = 0; i < kPings; ++i) slow->Ping(std::to_string(i));
  ASSERT_TRUE(RunUntil([&] { return handler_.control_frames == kPings; }));
  Send({socket}, "end");
  ASSERT_TRUE(RunUntil([&] { return !slow->texts().empty() && slow->texts().back() == "end"; }, [&] { slow->Read(); }));
  EXPECT_EQ(slow->control_frames() - pongs_before, 1);
}

TEST_F(SocketPressureTest, ABurstAboveTheBoundIsNoFaultOfAReaderWhoseSocketTakesIt) {
  options_.send_buffer_bytes_max = 64 * 1024;
  Listen();
  auto client = OpenWebsocket();
  const SocketId socket = handler_.opened[0];
  for (int i = 0; i < 2000; ++i) Send({socket}, std::string(100, 'b'));            // 200 KB in one turn
  for (int i = 0; i < 400; ++i) Send({socket}, std::string(100, 't'), kVolatile);  // and past one half
  ASSERT_TRUE(RunUntil([&] { return client->texts().size() == 2400; }, [&] { client->Read(); }));
  EXPECT_EQ(loop_->counters().slow_closes.Value(), 0u);
  EXPECT_EQ(loop_->counters().volatile_drops.Value(), 0u);
}

TEST_F(SocketPressureTest, FramesOfOneTurnJoinIntoOneWrite) {
  Listen();
  std::vector<std::unique_ptr<WebsocketTestClient>> clients;
  for (int i = 0; i < 10; ++i) clients.push_back(OpenWebsocket());
  std::vector<uint32_t> slots;
  for (SocketId socket : handler_.opened) slots.push_back(socket.slot);
  const uint64_t writes = loop_->counters().writev_calls.Value(), frames = loop_->counters().frames_written.Value();
  for (int i = 0; i < 500; ++i) loop_->Send(slots, FrameRef::Text(std::to_string(i)), SendPolicy());
  for (auto& client : clients) {
    ASSERT_TRUE(RunUntil([&] { return client->texts().size() == 500; }, [&] { client->Read(); }));
    EXPECT_EQ(client->texts()[499], "499");
  }
  EXPECT_EQ(loop_->counters().frames_written.Value() - frames, 5000u);
  EXPECT_EQ(loop_->counters().writev_calls.Value() - writes, 10u);
}

TEST_F(SocketPressureTest, MoreFramesThanOneWriteTakesAllArriveInOrder) {
  Listen();
  auto client = OpenWebsocket();
  for (int i = 0; i < 5000; ++i) Send({handler_.opened[0]}, std::to_string(i));
  ASSERT_TRUE(RunUntil([&] { return client->texts().size() == 5000; }, [&] { client->Read(); }));
  for (size_t i = 0; i < 5000; ++i) ASSERT_EQ(client->texts()[i], std::to_string(i));
}

TEST_F(SocketPressureTest, FlushWritesAsManyConnectionsAsItIsAllowed) {
  Listen();
  std::vector<std::unique_ptr<WebsocketTestClient>> clients;
  for (int i = 0; i < 10; ++i) clients.push_back(OpenWebsocket());
  std::vector<uint32_t> slots;
  for (SocketId socket : handler_.opened) slots.push_back(socket.slot);
  const uint64_t writes = loop_->counters().writev_calls.Value();
  loop_->Send(slots, FrameRef::Text("x"), SendPolicy());
  EXPECT_FALSE(loop_->Flush(4));
  EXPECT_EQ(loop_->counters().writev_calls.Value() - writes, 4u);
  EXPECT_FALSE(loop_->Flush(4));
  EXPECT_TRUE(loop_->Flush(4));
  EXPECT_EQ(loop_->counters().writev_calls.Value() - writes, 10u);
}

TEST_F(SocketPressureTest, ATalkativeClientDelaysOthersByOneBufferAtMost) {
  Listen();
  auto talker = OpenWebsocket();
  auto other = OpenWebsocket();
  std::vector<std::string> order;
  handler_.on_text = [&](SocketId socket, std::string_view) {
    order.push_back(socket == handler_.opened[0] ? "talker" : "other");
  };
  for (int i = 0; i < 100; ++i) talker->SendText(std::string(10'000, 't'));  // 1 MB, readable at once
  other->SendText("me, too");
  ASSERT_TRUE(RunUntil([&] { return order.size() == 101; }));
  EXPECT_LE(std::find(order.begin(), order.end(), "other") - order.begin(), 7);  // 64 KiB are six messages
}

TEST_F(SocketPressureTest, HundredsOfConnectionsComeAndGoWithoutLeavingASlot) {
  Listen();
  uint32_t highest_slot = 0;
  for (int round = 0; round < 5; ++round) {
    std::vector<std::unique_ptr<WebsocketTestClient>> clients;
    handler_.opened.clear();
    handler_.closed.clear();
    for (int i = 0; i < 100; ++i) clients.push_back(std::make_unique<WebsocketTestClient>(loop_->port()));
    ASSERT_TRUE(RunUntil([&] { return handler_.opened.size() == 100; }));
    EXPECT_EQ(loop_->open_connections(), 100u);
    for (SocketId socket : handler_.opened) highest_slot = std::max(highest_slot, socket.slot);
    for (size_t i = 0; i < clients.size(); ++i) {
      if (i % 3 == 0) clients[i]->tcp().Reset();
      if (i % 3 == 1) Close(handler_.opened[i], 1001, "going away");
      if (i % 3 == 2) clients[i]->tcp().Write("\xff\xff\xff\xff\xff\xff");
    }
    ASSERT_TRUE(RunUntil([&] { return handler_.closed.size() == 100; },
                         [&] {
                           for (size_t i = 0; i < clients.size(); ++i) {
                             if (i % 3 != 0) clients[i]->Read();
                           }
                         }));
    clients.clear();
    ASSERT_TRUE(RunUntil([&] { return SocketsOpen() == 0; }));
    EXPECT_EQ(loop_->open_connections(), 0u);
  }
  EXPECT_LT(highest_slot, 100u);
  EXPECT_EQ(loop_->counters().sockets_accepted.Value(), 500u);
}

TEST_F(SocketPressureTest, SocketsAboveTheMaximumAreClosedAtOnceUntilThereIsRoom) {
  options_.sockets_max = 2;
  Listen();
  auto first = OpenWebsocket();
  auto second = OpenWebsocket();
  TcpClient third(loop_->port());
  EXPECT_EQ(ReadToEnd(third), "");
  EXPECT_EQ(loop_->counters().sockets_refused.Value(), 1u);
  first->tcp().Reset();
  ASSERT_TRUE(RunUntil([&] { return SocketsOpen() == 1; }));
  EXPECT_TRUE(OpenWebsocket()->open());
}

// For the life of this object no descriptor from `lowest` on can be opened.
class DescriptorLimit {
 public:
  explicit DescriptorLimit(int lowest) {
    EXPECT_EQ(getrlimit(RLIMIT_NOFILE, &before_), 0);
    const rlimit limit{static_cast<rlim_t>(lowest), before_.rlim_max};
    EXPECT_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
  }
  ~DescriptorLimit() { EXPECT_EQ(setrlimit(RLIMIT_NOFILE, &before_), 0); }

 private:
  rlimit before_{};
};

TEST_F(SocketPressureTest, WithoutDescriptorsClientsAreHungUp) {
  Listen();
  TcpClient refused(loop_->port());
  const int lowest_free = dup(0);
  close(lowest_free);
  {
    const DescriptorLimit limit(lowest_free);
    EXPECT_EQ(ReadToEnd(refused), "");
    EXPECT_EQ(loop_->counters().sockets_refused.Value(), 1u);
  }
  EXPECT_TRUE(OpenWebsocket()->open());
}

TEST_F(SocketPressureTest, WhenNotEvenHangingUpIsPossibleClientsWaitAndTheLoopDoesNotSpin) {
  Listen();
  TcpClient waits(loop_->port());
  waits.Write(Get("/served"));
  {
    const DescriptorLimit limit(3);  // the descriptor held back has a higher number
    const int turns = handler_.turns;
    ASSERT_TRUE(RunUntil([&] { return handler_.turns > turns; }));
    io_.restart();
    for (int i = 0; i < 1000 && io_.poll_one() > 0; ++i) {
    }
    EXPECT_LE(handler_.turns - turns, 3);
  }
  ASSERT_TRUE(RunUntil([&] { return waits.received().ends_with("/served"); }, [&] { waits.Read(); }));
}

TEST_F(SocketPressureTest, AfterStopListeningWhatIsOpenStays) {
  Listen();
  handler_.on_text = [&](SocketId socket, std::string_view text) { Send({socket}, text); };
  auto client = OpenWebsocket();
  loop_->StopListening();
  client->SendText("still here");
  ASSERT_TRUE(RunUntil([&] { return client->texts().size() == 1; }, [&] { client->Read(); }));
}

TEST_F(SocketPressureTest, ALoopMayGoWithSocketsOpenAndWorkPending) {
  Listen();
  auto client = OpenWebsocket();
  Send({handler_.opened[0]}, "pending");
  TcpClient http(loop_->port());
  http.Write(Get("/"));
  loop_.reset();
  io_.restart();
  io_.poll();
  EXPECT_TRUE(handler_.closed.empty());
  ASSERT_TRUE(RunUntil([&] { return client->tcp().ended(); }, [&] { client->Read(); }));
}

// Two shards on one port, each with its thread, and a third thread that reads the counters: for ThreadSanitizer.
TEST(SocketLoopThreadsTest, TwoLoopsShareAPortAndTheirCountersAreReadFromOutside) {
  struct Echo final : SocketLoopHandler {
    void OnRequest(SocketId socket, const HttpRequest&) override { loop->Upgrade(socket, ""); }
    void OnOpen(SocketId) override {}
    void OnText(SocketId socket, std::string_view text) override {
      loop->Send({&socket.slot, 1}, FrameRef::Text(text), SendPolicy());
    }
    void OnControlFrame(SocketId) override {}
    void OnClosed(SocketId, uint16_t) override {}
    void OnTurnEnd() override {}
    asio::io_context io{1};
    std::unique_ptr<SocketLoop> loop;
  };
  Echo shards[2];
  SocketLoopOptions options;
  options.host = "127.0.0.1";
  for (Echo& shard : shards) {
    auto loop = SocketLoop::Listen(shard.io, options, shard);
    ASSERT_TRUE(loop.ok()) << loop.status();
    shard.loop = *std::move(loop);
    options.port = shard.loop->port();
  }
  std::thread threads[2];
  for (int i = 0; i < 2; ++i) threads[i] = std::thread([&shard = shards[i]] { shard.io.run(); });
  std::atomic<bool> done{false};
  std::thread reader([&] {
    while (!done.load()) {
      uint64_t frames = 0;
      for (const Echo& shard : shards) frames += shard.loop->counters().frames_written.Value();
      EXPECT_LE(frames, 100'000u);
      std::this_thread::yield();
    }
  });

  std::vector<std::unique_ptr<WebsocketTestClient>> clients;
  for (int i = 0; i < 40; ++i) clients.push_back(std::make_unique<WebsocketTestClient>(options.port));
  const auto all = [&](auto condition) {
    const auto give_up = std::chrono::steady_clock::now() + kPatience;
    while (!std::all_of(clients.begin(), clients.end(), condition)) {
      if (std::chrono::steady_clock::now() > give_up) return false;
      for (auto& client : clients) client->Read();
      std::this_thread::yield();
    }
    return true;
  };
  EXPECT_TRUE(all([](const auto& client) { return client->open(); }));
  for (int i = 0; i < 50; ++i) {
    for (auto& client : clients) client->SendText("message " + std::to_string(i));
  }
  EXPECT_TRUE(all([](const auto& client) { return client->texts().size() == 50; }));
  EXPECT_EQ(shards[0].loop->counters().sockets_accepted.Value() + shards[1].loop->counters().sockets_accepted.Value(),
            40u);
  EXPECT_GT(shards[0].loop->counters().upgrades.Value(), 0u);
  EXPECT_GT(shards[1].loop->counters().upgrades.Value(), 0u);
  done.store(true);
  reader.join();
  for (int i = 0; i < 2; ++i) {
    shards[i].io.stop();
    threads[i].join();
    shards[i].loop.reset();
  }
}

}  // namespace
}  // namespace presence::edge
