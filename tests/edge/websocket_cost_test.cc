// What an engine costs: allocations per message, which must be none, and memory per connection, which is printed.
#include <gtest/gtest.h>
#include <malloc.h>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "edge/websocket_engine.h"
#include "tests/edge/websocket_frames.h"

namespace {
std::atomic<int64_t> allocations{0};
}

// Not inlined: else GCC takes the pairs for mismatched ones.
[[gnu::noinline]] void* operator new(size_t size) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  if (void* p = std::malloc(size)) return p;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* p) noexcept {
  std::free(p);
}
[[gnu::noinline]] void operator delete(void* p, size_t) noexcept {
  std::free(p);
}

namespace presence::edge {
namespace {

class Silent : public WebsocketEngineHandler {
 public:
  void OnOutput(std::string_view) override {}
  void OnOpen() override {}
  void OnMessage(MessageKind, std::string_view) override { ++messages; }
  void OnControlFrame() override { ++control_frames; }
  void OnEnded(uint16_t) override {}
  int messages = 0;
  int control_frames = 0;
};

TEST(WebsocketCostTest, AMessageInTheSteadyStateAllocatesNothing) {
  Silent handler;
  auto engine = WebsocketEngine::Server({}, handler);
  engine->Feed(UpgradeRequest());
  const std::string message = FromClient(kFin | kText, R"({"type":"typing","channel_id":"channel_general"})");
  const std::string long_message = FromClient(kFin | kText, std::string(2000, 'l'));
  engine->Feed(message + long_message);
  const int64_t before = allocations;
  for (int i = 0; i < 1000; ++i) engine->Feed(message);
  for (int i = 0; i < 1000; ++i) engine->Feed(long_message);
  EXPECT_EQ(allocations - before, 0);
  EXPECT_EQ(handler.messages, 2002);
}

TEST(WebsocketCostTest, MemoryOfIdleConnections) {
  constexpr size_t kConnections = 10'000;
  Silent handler;
  std::vector<std::unique_ptr<WebsocketEngine>> engines;
  engines.reserve(kConnections);
  const size_t before = mallinfo2().uordblks;
  const int64_t allocations_before = allocations;
  for (size_t i = 0; i < kConnections; ++i) {
    engines.push_back(WebsocketEngine::Server({}, handler));
    engines.back()->Feed(UpgradeRequest());
  }
  const size_t opened = mallinfo2().uordblks;
  const double allocations_each = static_cast<double>(allocations - allocations_before) / kConnections;
  for (auto& engine : engines) engine->Feed(FromClient(kFin | kText, "hi") + FromClient(kFin | kPing, ""));
  const size_t used = mallinfo2().uordblks;
  std::printf(
      "heap per open connection: %.0f bytes, after a message and a ping: %.0f bytes; %.1f allocations to open\n",
      static_cast<double>(opened - before) / kConnections, static_cast<double>(used - before) / kConnections,
      allocations_each);
  EXPECT_EQ(handler.messages, static_cast<int>(kConnections));
}

}  // namespace
}  // namespace presence::edge
