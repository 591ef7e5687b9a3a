// The memory store against the scripts in Redis: the same random calls to both, at the same time of the test's clock;
// every reply, everything published and every key must be equal. A failure prints its seed; PRESENCE_SEED=... runs
// that one alone.
#include <gtest/gtest.h>

#include <cstdlib>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "core/presence_text.h"
#include "tests/fakes/store_backend.h"

namespace presence::core {
namespace {

using std::chrono::milliseconds;

constexpr int kSeeds = 40;
constexpr int kCallsPerSeed = 250;
constexpr int kCores = 2;
constexpr uint64_t kFirstCore = 0xABCDEF0123456789ULL;

// Few users, devices and rooms, so that they meet; ids that need escapes, or look like something else.
const std::vector<std::string> kUsers{"alice", "b\"ob\\", "c:d*[a] e", "line\nbreak", "ünï"};
const std::vector<std::string> kRooms{"channel_general", "dm 1", "r\"", "z"};
const std::vector<std::string> kSessions{"", "s1", "alice", "s\"2 "};
const std::vector<std::string> kRequests{"r1", std::string("r\0 2", 4), "presence"};
constexpr size_t kLongText = 60'000;  // of these few fill a page, or the bounds of a log
const std::vector<std::string> kFingerprints{"", "one", "1:one"};

// A call and its answers, as text.
std::string Text(const WriteResult& result) {
  std::ostringstream out;
  out << static_cast<int>(result.outcome) << " " << result.user_status << " " << result.user_version;
  return out.str();
}

std::string Text(const StoredPresence& p) {
  std::ostringstream out;
  out << p.user_id << "|" << p.username << "|" << StatusName(p.status) << "|" << p.last_seen_ms << "|" << p.version;
  return out.str();
}

std::string Text(const OnceResult& result) {
  return std::to_string(static_cast<int>(result.outcome)) + " '" + result.answer + "'";
}

std::string Text(RoomPosition position) {
  return std::to_string(position.epoch) + "-" + std::to_string(position.sequence);
}

std::string Text(const RoomLogPage& page) {
  std::ostringstream out;
  out << Text(page.current) << " since " << page.data_since << (page.more ? " more" : "");
  for (const link::v1::BusEnvelope& entry : page.entries) out << "\n" << entry.ShortDebugString();
  return out.str();
}

std::string Text(const ChangeLog& log) {
  std::ostringstream out;
  out << (log.complete ? "complete" : "everybody");
  for (const StoredChange& change : log.changes) {
    out << "\n" << Text(change.presence) << "|" << change.changed_ms;
    for (const std::string& room : change.room_ids) out << "|" << room;
  }
  return out.str();
}

// Everything that was said since the last call, and then every key.
std::string TakeHeard(StoreBackend& backend) {
  std::ostringstream out;
  for (int core = 0; core < kCores; ++core) {
    RecordingListener& heard = backend.heard(core);
    out << "core " << core << "\n";
    for (const auto& [id, result] : heard.written) out << "written " << id << ": " << Text(result) << "\n";
    for (const auto& [id, missing] : heard.refreshed) {
      out << "refreshed " << id << ":";
      for (const uint32_t position : missing) out << " " << position;
      out << "\n";
    }
    for (const auto& [id, result] : heard.once) out << "once " << id << ": " << Text(result) << "\n";
    for (const auto& [id, result] : heard.appended) {
      out << "appended " << id << ": " << Text(OnceResult{result.outcome, result.answer}) << " "
          << Text(result.position) << "\n";
    }
    for (const auto& [id, page] : heard.pages) out << "log " << id << ": " << (page.ok() ? Text(*page) : "-") << "\n";
    for (const auto& live : heard.cores) {
      out << "cores:";
      if (!live.ok()) out << " -";
      for (size_t i = 0; live.ok() && i < live->size(); ++i) out << " " << (*live)[i];
      out << "\n";
    }
    for (const auto& [id, ok] : heard.logouts_kept) out << "logout " << id << (ok ? " kept" : " lost") << "\n";
    for (const auto& log : heard.logouts) {
      out << "logouts:" << (!log.ok() ? " -" : log->complete ? "" : " not all");
      for (size_t i = 0; log.ok() && i < log->logouts.size(); ++i) {
        out << " '" << log->logouts[i].user_id << "' '" << log->logouts[i].session_id << "'";
      }
      out << "\n";
    }
    for (const auto& [id, log] : heard.changes)
      out << "changes " << id << ": " << (log.ok() ? Text(*log) : "-") << "\n";
    for (const auto& envelope : heard.bus) out << "bus " << envelope.ShortDebugString() << "\n";
    for (const std::string& arrival : heard.arrivals) out << arrival << "\n";
    for (const std::string& message : heard.messages) out << "message " << message << "\n";
    for (const std::string& update : heard.updates) out << "update " << update << "\n";
    heard.written.clear();
    heard.refreshed.clear();
    heard.once.clear();
    heard.appended.clear();
    heard.pages.clear();
    heard.cores.clear();
    heard.logouts_kept.clear();
    heard.logouts.clear();
    heard.changes.clear();
    heard.bus.clear();
    heard.arrivals.clear();
    heard.messages.clear();
    heard.updates.clear();
  }
  for (const auto& [key, value] : backend.Dump()) out << key << ": " << value << "\n";
  return out.str();
}

class Calls {
 public:
  explicit Calls(uint64_t seed) : random_(seed) {
    StoreOptions options;
    options.core_incarnation = kFirstCore;
    // The keys' own clock is Redis' real one there: nothing may end while a seed runs.
    options.typing_ttl = std::chrono::seconds(1000);
    options.logout_lifetime = std::chrono::seconds(500);
    options.room_log_length = 9;
    options.room_log_bytes = 200'000;
    options.room_log_age = std::chrono::seconds(300);
    options.connections_per_user_max = 2;
    memory_ = StoreBackend::Create(BackendKind::kMemory, options, kCores);
    redis_ = StoreBackend::Create(BackendKind::kRedis, options, kCores);
  }

  void Run() {
    for (int i = 0; i < kCallsPerSeed && !testing::Test::HasFailure(); ++i) {
      log_ << "\n" << i << ": ";
      Step(static_cast<uint64_t>(i));
      memory_->Settle();
      redis_->Settle(rounds_);
      const std::string expected = TakeHeard(*memory_) + memory_list_ + memory_read_,
                        found = TakeHeard(*redis_) + redis_list_ + redis_read_;
      ASSERT_EQ(expected, found) << "memory and Redis differ; the calls:" << log_.str();
    }
  }

 private:
  uint64_t Below(uint64_t bound) { return std::uniform_int_distribution<uint64_t>(0, bound - 1)(random_); }
  template <typename T>
  const T& OneOf(const std::vector<T>& values) {
    return values[Below(values.size())];
  }

  void Step(uint64_t id) {
    for (std::string* text : {&memory_read_, &redis_read_, &memory_list_, &redis_list_}) text->clear();
    rounds_ = 1;
    switch (Below(34)) {
      case 0:
      case 1:
      case 2:
      case 3:
      case 4:
      case 5:
      case 6:
      case 7:
        return Write(id);
      case 8:
      case 9:
      case 10:
        return Refresh(id);
      case 11:
      case 12:
        return Sweep();
      case 13:
      case 14:
      case 15:
        return Advance();
      case 16:
        rounds_ = 5;
        return ReadChanges(id);
      case 17:
        rounds_ = 5;
        return List();
      case 18:
        return Type();
      case 19:
      case 20:
        return PublishOnce(id);
      case 21:
        return SaveAnswer();
      case 28:
      case 29:
      case 30:
      case 31:
        return Append(id);
      case 32:
        return ReadRoomLog(id);
      case 22:
      case 23:
        return Announce();
      case 24:
        return Reply(id);
      case 25:
      case 26:
        return KeepLogout(id);
      case 27:
        return ReadLogouts();
      default:
        if (Below(4) != 0) return Sweep();
        log_ << (Below(2) == 0 ? "wipe" : "restart");
        if (log_.str().ends_with("wipe")) {
          memory_->Wipe();
          redis_->Wipe();
        } else {
          memory_->Restart();
          redis_->Restart();
        }
    }
  }

  void Write(uint64_t id) {
    PresenceWrite write;
    write.id = id;
    write.kind = OneOf<PresenceWrite::Kind>({PresenceWrite::Kind::kAssert, PresenceWrite::Kind::kReassert,
                                             PresenceWrite::Kind::kRemove, PresenceWrite::Kind::kAssert,
                                             PresenceWrite::Kind::kReassert, PresenceWrite::Kind::kLinger});
    write.linger_for = milliseconds(1 + Below(30'000));
    write.key = {0xE0E0E0E0E0E0E0E0ULL + Below(2), Below(2)};
    write.attach = 1 + Below(3);
    write.user_id = OneOf(kUsers);
    write.username = OneOf<std::string_view>({"", "Ann", "Q\"uote", "Ann"});
    write.status = Below(2) == 0 ? link::v1::STATUS_ONLINE : link::v1::STATUS_AWAY;
    write.silent_for = milliseconds(Below(3) == 0 ? Below(70'000) : 0);
    std::vector<std::string_view> rooms;
    for (uint64_t n = Below(4); n > 0; --n) rooms.push_back(OneOf(kRooms));
    write.room_ids = rooms;
    write.previous_status = static_cast<Status>(Below(4));
    write.previous_version = Below(2) == 0 ? 0 : NowMicroseconds() - 5'000'000 + Below(6'000'000);
    const std::string& session = OneOf(kSessions);
    write.session_id = session;
    write.issued_at_ms = Below(4) == 0 ? 0 : NearbyMillis();
    write.newcomer = Below(2) == 0;
    const int core = static_cast<int>(Below(kCores));
    log_ << "write core " << core << " kind " << static_cast<int>(write.kind) << " key " << write.key.incarnation << "/"
         << write.key.connection << " attach " << write.attach << " user " << write.user_id << " status "
         << write.status << " silent " << write.silent_for.count() << " rooms " << rooms.size() << " previous "
         << write.previous_status << "@" << write.previous_version << " session " << session << "@"
         << write.issued_at_ms << (write.newcomer ? " new" : "") << " linger " << write.linger_for.count();
    memory_->store(core).Write(write);
    redis_->store(core).Write(write);
  }

  void Refresh(uint64_t id) {
    std::vector<RefreshEntry> entries;
    for (uint64_t n = Below(12); n > 0; --n) {
      entries.push_back({{0xE0E0E0E0E0E0E0E0ULL + Below(2), Below(2)}, 1 + Below(3), OneOf(kUsers), Below(2) == 0});
    }
    log_ << "refresh";
    for (const RefreshEntry& e : entries) {
      log_ << " " << e.user_id << "/" << e.key.incarnation << "/" << e.key.connection << "/" << e.attach << "/"
           << e.pinged;
    }
    memory_->store().Refresh(id, entries);
    redis_->store().Refresh(id, entries);
  }

  void Sweep() {
    const int users_max = OneOf<int>({1, 2, 100});
    const int core = static_cast<int>(Below(kCores));
    log_ << "sweep core " << core << " max " << users_max;
    rounds_ = static_cast<int>(kUsers.size()) + 2;  // it goes on by itself
    memory_->store(core).Sweep(users_max);
    redis_->store(core).Sweep(users_max);
  }

  // Mostly within the gap that a sweep tolerates; sometimes past everything.
  void Advance() {
    const uint64_t longest_us =
        OneOf<uint64_t>({900'000, 900'000, 2'900'000, 2'900'000, 20'000'000, 400'000'000, 700'000'000});
    const std::chrono::microseconds by(Below(longest_us));
    log_ << "advance " << by.count();
    memory_->Advance(by);
    redis_->Advance(by);
    redis_->Drop(memory_->DropLapsed());
  }

  void ReadChanges(uint64_t id) {
    const uint64_t since =
        OneOf<uint64_t>({0, NowMicroseconds() - Below(10'000'000), NowMicroseconds() - Below(650'000'000)});
    log_ << "changes since " << since;
    memory_->store(1).ReadChanges(id, since);
    redis_->store(1).ReadChanges(id, since);
  }

  void List() {
    const std::string after = OneOf<std::string>({"", "alice", "c"});
    const uint32_t limit = static_cast<uint32_t>(1 + Below(4));
    log_ << "list after '" << after << "' limit " << limit;
    ListInto(*memory_, after, limit, &memory_list_);
    ListInto(*redis_, after, limit, &redis_list_);
    for (const std::string& user : kUsers) {
      GetInto(*memory_, user, &memory_read_);
      GetInto(*redis_, user, &redis_read_);
    }
    GetAllInto(*memory_, &memory_read_);
    GetAllInto(*redis_, &redis_read_);
  }

  static void ListInto(StoreBackend& backend, const std::string& after, uint32_t limit, std::string* out) {
    backend.store().ListPresence(after, limit, [out](const absl::StatusOr<PresencePage>& page) {
      *out += page.ok() ? (page->more ? "more" : "end") : "error";
      for (const StoredPresence& user : page->users) *out += "\n" + Text(user);
    });
  }
  static void GetInto(StoreBackend& backend, const std::string& user, std::string* out) {
    backend.store().GetPresence(user, [out](const absl::StatusOr<StoredPresence>& presence) {
      *out += "\n" + (presence.ok() ? Text(*presence) : "error");
    });
  }

  static void GetAllInto(StoreBackend& backend, std::string* out) {
    backend.store().GetPresences(kUsers, [out](const absl::StatusOr<std::vector<StoredPresence>>& users) {
      if (!users.ok()) *out += "\nerror";
      for (size_t i = 0; users.ok() && i < users->size(); ++i) *out += "\n" + Text((*users)[i]);
    });
  }

  void Type() {
    const std::string& user = OneOf(kUsers);
    const std::string& room = OneOf(kRooms);
    log_ << "typing";
    memory_->store().SetTyping(room, user, "Name of " + user);
    redis_->store().SetTyping(room, user, "Name of " + user);
  }

  void PublishOnce(uint64_t id) {
    const std::string& request = OneOf(kRequests);
    const std::string& fingerprint = OneOf(kFingerprints);
    const std::string outside = OneOf<std::string>({"", "{}"});
    const int core = static_cast<int>(Below(kCores));
    link::v1::BusEnvelope envelope;
    envelope.set_sequence(id + 1);
    log_ << "publish once core " << core << " " << request << " " << fingerprint << " outside '" << outside << "'";
    memory_->store(core).PublishOnce(id, request, fingerprint, envelope, outside);
    redis_->store(core).PublishOnce(id, request, fingerprint, envelope, outside);
  }

  void Append(uint64_t id) {
    const std::string request = Below(3) == 0 ? OneOf(kRequests) : "";
    const std::string& fingerprint = OneOf(kFingerprints);
    const std::string outside = OneOf<std::string>({"", "{}"});
    const int core = static_cast<int>(Below(kCores));
    link::v1::BusEnvelope envelope;
    envelope.set_core(kFirstCore);
    envelope.mutable_message()->set_room_id(OneOf(kRooms));
    envelope.mutable_message()->set_text(std::string(Below(4) == 0 ? kLongText : Below(30), 'x'));
    envelope.mutable_message()->set_count_id(id);
    log_ << "append core " << core << " " << envelope.message().room_id() << " " << envelope.message().text().size()
         << " bytes, once '" << request << "' " << fingerprint;
    memory_->store(core).Append(id, request, fingerprint, envelope, outside);
    redis_->store(core).Append(id, request, fingerprint, envelope, outside);
    positions_.push_back(NowMicroseconds());
  }

  void ReadRoomLog(uint64_t id) {
    RoomPosition after;
    if (!positions_.empty() && Below(3) != 0) after = {positions_[Below(positions_.size())], Below(6)};
    const std::string& room = OneOf(kRooms);
    const size_t entries_max = OneOf<size_t>({0, 1, 7, 8, 9, 256});
    RoomPosition seen, doubted;
    for (RoomPosition* position : {&seen, &doubted}) {
      if (!positions_.empty() && Below(4) == 0) *position = {positions_[Below(positions_.size())] + Below(2), Below(8)};
    }
    log_ << "read log " << room << " from " << Text(after) << " at most " << entries_max << ", seen " << Text(seen)
         << " or " << Text(doubted);
    memory_->store().ReadRoomLog(id, {room, after, entries_max, seen, doubted});
    redis_->store().ReadRoomLog(id, {room, after, entries_max, seen, doubted});
  }

  void SaveAnswer() {
    const std::string& request = OneOf(kRequests);
    const std::string answer = OneOf<std::string>({"", "1", "12:an answer"});
    log_ << "save " << request << " '" << answer << "'";
    memory_->store().SaveAnswer(request, answer);
    redis_->store().SaveAnswer(request, answer);
  }

  void KeepLogout(uint64_t id) {
    const std::string user = OneOf(kUsers), session = OneOf(kSessions);
    const bool of_user = session.empty() || Below(3) == 0;
    const Logout logout{of_user ? std::string_view(user) : std::string_view(), session, NearbyMillis()};
    const int core = static_cast<int>(Below(kCores));
    log_ << "keep logout core " << core << " '" << logout.user_id << "' '" << session << "' "
         << logout.logged_out_at_ms;
    memory_->store(core).KeepLogout(id, logout);
    redis_->store(core).KeepLogout(id, logout);
  }

  void ReadLogouts() {
    const milliseconds within(Below(650'000));
    log_ << "read logouts within " << within.count();
    memory_->store(1).ReadLogouts(within);
    redis_->store(1).ReadLogouts(within);
  }

  // Close enough to each other that tokens are issued before logouts, after them, and at the same time.
  int64_t NearbyMillis() { return static_cast<int64_t>(NowMicroseconds() / 1'000'000 - 3 + Below(4)) * 1000; }

  void Announce() {
    const int core = static_cast<int>(Below(kCores));
    const bool withdraw = Below(5) == 0;
    log_ << (withdraw ? "withdraw " : "announce ") << core;
    for (StoreBackend* backend : {memory_.get(), redis_.get()}) {
      withdraw ? backend->store(core).Withdraw() : backend->store(core).Announce();
    }
  }

  void Reply(uint64_t id) {
    link::v1::ClusterReplies replies;
    replies.add_replies()->set_id(id);
    const uint64_t core = kFirstCore + Below(kCores);
    log_ << "reply to " << core;
    memory_->store().Reply(core, replies);
    redis_->store().Reply(core, replies);
  }

  uint64_t NowMicroseconds() const {
    return static_cast<uint64_t>(
        std::chrono::floor<std::chrono::microseconds>(memory_->now().time_since_epoch()).count());
  }

  std::mt19937_64 random_;
  std::unique_ptr<StoreBackend> memory_, redis_;
  std::string memory_read_, redis_read_;  // what GetPresence said,
  std::string memory_list_, redis_list_;  // and ListPresence, which takes longer
  std::vector<uint64_t> positions_;       // when something was appended: most of these are no epochs
  int rounds_ = 1;
  std::ostringstream log_;
};

TEST(StoreDifferential, MemoryAndRedisSayAndKeepTheSame) {
  ASSERT_TRUE(RedisServer::Available()) << "redis-server is not installed: scripts/test installs it";
  const char* one = std::getenv("PRESENCE_SEED");
  const uint64_t first = one != nullptr ? std::strtoull(one, nullptr, 10) : 1;
  const uint64_t last = one != nullptr ? first : first + kSeeds - 1;
  for (uint64_t seed = first; seed <= last && !HasFailure(); ++seed) {
    SCOPED_TRACE("PRESENCE_SEED=" + std::to_string(seed));
    Calls(seed).Run();
  }
}

}  // namespace
}  // namespace presence::core
