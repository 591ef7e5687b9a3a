// A fixed number of unary calls in flight for a while, on one stub: as soon as one is answered, the next begins, on the thread of the
// answer.
#pragma once

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <latch>
#include <memory>
#include <optional>
#include <vector>

namespace presence::bench {

struct CallRound {
  uint64_t failed = 0;
  std::optional<grpc::Status> first_failure;
  double seconds = 0;               // from the first call to the last answer
  std::vector<float> latencies_us;  // of the calls that were answered with OK
  double calls() const { return static_cast<double>(latencies_us.size()); }
};

// A call that takes this long is lost; everybody's is answered within seconds.
inline constexpr std::chrono::seconds kCallDeadline{20};

// `start(context, request, response, done)` begins one; `observe(response)` sees each good answer, on any thread.
template <typename Request, typename Response>
CallRound RunCalls(size_t in_flight, std::chrono::duration<double> time, const std::vector<Request>& requests,
                   const std::function<void(grpc::ClientContext*, const Request*, Response*,
                                            std::function<void(grpc::Status)>)>& start,
                   const std::function<void(const Response&)>& observe) {
  using Clock = std::chrono::steady_clock;
  struct Slot {
    size_t next_request = 0;
    std::unique_ptr<grpc::ClientContext> context;
    Response response;
    Clock::time_point began;
    std::vector<float> latencies_us;
    uint64_t failed = 0;
    std::optional<grpc::Status> first_failure;
  };
  std::vector<Slot> slots(in_flight);
  std::latch all_done(static_cast<std::ptrdiff_t>(in_flight));
  const auto first = Clock::now();
  const auto until = first + std::chrono::duration_cast<Clock::duration>(time);
  std::function<void(Slot&)> begin = [&](Slot& slot) {
    slot.context = std::make_unique<grpc::ClientContext>();
    slot.context->set_deadline(std::chrono::system_clock::now() + kCallDeadline);
    slot.began = Clock::now();
    const Request& request = requests[slot.next_request++ % requests.size()];
    start(slot.context.get(), &request, &slot.response, [&](const grpc::Status& status) {
      const auto now = Clock::now();
      if (status.ok()) {
        slot.latencies_us.push_back(std::chrono::duration<float, std::micro>(now - slot.began).count());
        observe(slot.response);
      } else if (slot.failed++ == 0) {
        slot.first_failure = status;
      }
      if (now < until && slot.failed == 0) return begin(slot);
      all_done.count_down();
    });
  };
  for (size_t i = 0; i < in_flight; ++i) {
    slots[i].next_request = i;
    begin(slots[i]);
  }
  all_done.wait();
  CallRound round;
  round.seconds = std::chrono::duration<double>(Clock::now() - first).count();
  for (Slot& slot : slots) {
    round.latencies_us.insert(round.latencies_us.end(), slot.latencies_us.begin(), slot.latencies_us.end());
    round.failed += slot.failed;
    if (!round.first_failure) round.first_failure = slot.first_failure;
  }
  return round;
}

}  // namespace presence::bench
