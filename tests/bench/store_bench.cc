// What a core's calls to its store cost Redis: CPU time of a real redis-server's main thread, by its own account, for
// each call. It starts a server of its own; two cores are subscribed. Rounds alternate, so that what else the machine
// does falls on all calls alike.
//
//   store_bench [calls of each kind in a round, 20000] [rounds, 5]
#include <algorithm>
#include <asio/io_context.hpp>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "common/check.h"
#include "core/redis_store.h"
#include "tests/fakes/redis_server.h"

namespace presence::core {
namespace {

constexpr size_t kInFlightMax = 256;
constexpr size_t kPayloadBytes = 200;
constexpr char kRoom[] = "channel_general";
constexpr size_t kPage = 256;  // of a log, as the hub reads it

// Counts the answers; hears everything and leaves it.
class Answers final : public StoreListener {
 public:
  uint64_t count = 0;
  std::map<OnceResult::Outcome, uint64_t> outcomes, appends;
  RoomPosition newest;
  bool up = false;

  void OnStoreUp(bool) override { up = true; }
  void OnStoreDown(std::string_view) override { PRESENCE_CHECK(false, "Redis stays"); }
  void OnWritten(uint64_t, const WriteResult&) override { ++count; }
  void OnRefreshed(uint64_t, absl::Span<const uint32_t>) override { ++count; }
  void OnPublished(uint64_t, bool) override { ++count; }
  void OnPublishedOnce(uint64_t, const OnceResult& result) override {
    ++count;
    ++outcomes[result.outcome];
  }
  void OnAppended(uint64_t, const AppendResult& result) override {
    ++count;
    ++appends[result.outcome];
    newest = result.position;
  }
  void OnRoomLogRead(uint64_t, const absl::StatusOr<RoomLogPage>&) override { ++count; }
  void OnLogoutKept(uint64_t, bool) override { ++count; }
  void OnLogoutsRead(const absl::StatusOr<LogoutLog>&) override { ++count; }
  void OnCoresRead(const absl::StatusOr<std::vector<uint64_t>>&) override { ++count; }
  void OnChangesRead(uint64_t, const absl::StatusOr<ChangeLog>&) override { ++count; }
  void OnBus(const link::v1::BusEnvelope&) override {}
  void OnReplies(const link::v1::ClusterReplies&) override {}
  void OnOutsideMessage(std::string_view) override {}
  void OnOutsidePresence(std::string_view) override {}
};

// Of the thread that carries out commands, in microseconds.
double MainThreadCpu(RedisServer& server) {
  const std::string info = server.Command({"INFO", "cpu"}).text;
  double seconds = 0;
  for (const char* field : {"used_cpu_user_main_thread:", "used_cpu_sys_main_thread:"}) {
    const size_t at = info.find(field);
    PRESENCE_CHECK(at != std::string::npos, "Redis tells its CPU time");
    seconds += std::atof(info.c_str() + at + std::string(field).size());
  }
  return seconds * 1e6;
}

struct Kind {
  const char* name;
  std::function<void(uint64_t)> call;  // with a number that no call had before
  std::vector<double> us;              // of each round, for each call
};

int Run(uint64_t calls, int rounds) {
  RedisServer server;
  asio::io_context io;
  Answers answers, others;
  RedisStoreOptions options{.store = {.core_incarnation = 1}, .address = *ParseRedisUrl(server.UnixUrl()), .clock = {}};
  RedisStore store(io, options, answers);
  options.store.core_incarnation = 2;
  RedisStore other(io, options, others);
  while (!answers.up || !others.up) io.run_one();

  link::v1::BusEnvelope envelope;
  envelope.set_core(1);
  envelope.mutable_message()->set_room_id(kRoom);
  envelope.mutable_message()->set_text(std::string(kPayloadBytes, 'x'));
  const std::string outside(kPayloadBytes + 30, 'x'), fingerprint(32, 'f');
  const auto request = [](uint64_t number) { return "3f2a8c1e-0000-4000-8000-" + std::to_string(number); };
  link::v1::ClusterReplies replies;
  replies.add_replies()->mutable_count()->set_count(7);
  std::vector<std::string> users;
  for (int i = 0; i < 500; ++i) {
    users.push_back("user" + std::to_string(i));
    PresenceWrite write;
    write.key = {1, static_cast<uint64_t>(i)};
    write.attach = 1;
    write.user_id = users.back();
    store.Write(write);
  }

  // Of one of the devices, which is there as it is, or of another one, which is not let in.
  store.KeepLogout(1, {{}, "3f2a8c1e-0000-4000-8000-0007", 1'000});
  // All of it is answered before anything is counted: one answer too many, and a round would wait for ever.
  while (answers.count < users.size() + 1) io.run_one();
  const auto write = [&](uint64_t number, std::string_view session, bool another) {
    PresenceWrite repeat;
    repeat.key = {another ? 2u : 1u, number % 500};
    repeat.attach = 1;
    repeat.user_id = users[number % 500];
    repeat.session_id = session;
    repeat.issued_at_ms = 1'000;
    store.Write(repeat);
  };
  uint64_t repeated = 0;  // numbers that PublishOnce has used
  std::vector<Kind> kinds{
      {"Publish", [&](uint64_t) { store.Publish(1, envelope, outside); }, {}},
      {"PublishOnce, new",
       [&](uint64_t number) {
         store.PublishOnce(1, request(number), fingerprint, envelope, outside);
         repeated = number;
       },
       {}},
      {"PublishOnce, repeated",
       [&](uint64_t) { store.PublishOnce(1, request(repeated), fingerprint, envelope, outside); },
       {}},
      {"Append, no request_id", [&](uint64_t) { store.Append(1, {}, {}, envelope, outside); }, {}},
      {"Append, with a request_id",
       [&](uint64_t number) { store.Append(1, request(number), fingerprint, envelope, outside); },
       {}},
      {"ReadRoomLog, nothing new",
       [&](uint64_t) {
         store.ReadRoomLog(1, {kRoom, answers.newest, kPage, answers.newest});
       },
       {}},
      {"ReadRoomLog of 256, each message",
       [&](uint64_t number) {
         if (number % kPage != 0) return void(++answers.count);
         store.ReadRoomLog(1, {kRoom, {}, kPage, answers.newest});
       },
       {}},
      {"SaveAnswer, and Publish",
       [&](uint64_t) {
         store.SaveAnswer(request(repeated), "1234");
         store.Publish(1, envelope, outside);
       },
       {}},
      {"Reply, and Publish",
       [&](uint64_t) {
         store.Reply(2, replies);
         store.Publish(1, envelope, outside);
       },
       {}},
      {"Announce", [&](uint64_t) { store.Announce(); }, {}},
      {"Write, no session", [&](uint64_t number) { write(number, {}, false); }, {}},
      {"Write, with a session", [&](uint64_t number) { write(number, "3f2a8c1e-0000-4000-8000-5e55", false); }, {}},
      {"Write, refused: logged out", [&](uint64_t number) { write(number, "3f2a8c1e-0000-4000-8000-0007", true); }, {}},
      {"GetPresences of 500, each user",
       [&](uint64_t number) {
         if (number % 500 != 0) return void(++answers.count);
         store.GetPresences(users, [&](const auto&) { ++answers.count; });
       },
       {}},
  };
  uint64_t number = 0;
  for (int round = 0; round < rounds; ++round) {
    for (Kind& kind : kinds) {
      const double before = MainThreadCpu(server);
      answers.count = 0;
      for (uint64_t sent = 0; answers.count < calls;) {
        for (; sent < calls && sent - answers.count < kInFlightMax; ++sent) kind.call(++number);
        if (answers.count < calls) io.run_one();
      }
      kind.us.push_back((MainThreadCpu(server) - before) / static_cast<double>(calls));
    }
  }

  std::printf("CPU of Redis' main thread for each call, in us, over %d rounds of %llu calls\n", rounds,
              static_cast<unsigned long long>(calls));
  std::printf("%-32s %8s %8s %8s\n", "call", "median", "lowest", "highest");
  for (Kind& kind : kinds) {
    std::sort(kind.us.begin(), kind.us.end());
    std::printf("%-32s %8.2f %8.2f %8.2f\n", kind.name, kind.us[kind.us.size() / 2], kind.us.front(), kind.us.back());
  }
  using Outcome = OnceResult::Outcome;
  const uint64_t all = calls * static_cast<uint64_t>(rounds);
  const bool as_expected = answers.outcomes[Outcome::kPublished] == all &&
                           answers.outcomes[Outcome::kRepeated] == all &&
                           answers.appends[Outcome::kPublished] == 2 * all;
  const auto memory = [&server](const std::string& key) {
    return static_cast<long long>(server.Command({"MEMORY", "USAGE", key, "SAMPLES", "0"}).number);
  };
  const std::string log = std::string("presence.log:") + kRoom;
  std::printf("%s; memory for each request: %lld bytes; for a log of %lld messages: %lld bytes\n",
              as_expected ? "all outcomes as expected" : "WRONG OUTCOMES",
              memory("presence.request:" + request(repeated)),
              static_cast<long long>(server.Command({"XLEN", log}).number), memory(log));
  return as_expected ? 0 : 1;
}

}  // namespace
}  // namespace presence::core

int main(int argc, char** argv) {
  const uint64_t calls = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 20'000;
  const int rounds = argc > 2 ? std::atoi(argv[2]) : 5;
  return presence::core::Run(std::max<uint64_t>(calls, 1), std::max(rounds, 1));
}
